//! [`Upload`]: one large object in one transaction, chunk by chunk over the whole load. Each step
//! carries an `Idempotency-Key`, so a step that was not answered is simply sent again: after a
//! `kill -9` too, into the same transaction, which is in the log.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::load::Load;
use super::model::{Change, Object, When, Write};
use super::path;
use super::text::percent;
use super::worker::{Gone, send};
use crate::http::Client;

/// The object's key.
pub const KEY: &str = "big/object";
/// The largest chunk that a request may carry.
const CHUNK: u64 = 1 << 20;

/// The one who uploads it.
#[derive(Debug)]
pub struct Upload {
    object: Object,
    http: Client,
    transaction: Option<String>,
    attempt: u64,
    sent: u64,
    written: Option<Write>,
    committed: bool,
    /// How often the server went while it was under way.
    pub interrupted: u64,
}

impl Upload {
    /// Of `len` bytes.
    pub fn new(seed: u64, len: u64, address: &str) -> Upload {
        Upload {
            object: Object { seed, len },
            http: Client::new(address),
            transaction: None,
            attempt: 0,
            sent: 0,
            written: None,
            committed: false,
            interrupted: 0,
        }
    }

    /// The server is there again, perhaps elsewhere.
    pub fn connect(&mut self, address: &str) {
        self.http = Client::new(address);
    }

    /// The write, once, when it was committed.
    pub fn take(&mut self) -> Option<Write> {
        self.written.take()
    }

    /// Whether it was committed.
    pub fn committed(&self) -> bool {
        self.committed
    }

    /// Sends what is due, as far as the load is.
    pub fn run(&mut self, load: &Load) {
        while !self.committed {
            // It outlives kills in the first half, and later moments have it.
            let due = self.object.len.saturating_mul(load.progress().min(1000)) / 600;
            if self.sent > due {
                // Its connection is idle: that the server has gone it hears from the others.
                if load.over() {
                    self.interrupted += 1;
                    return;
                }
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            if self.step().is_err() {
                self.interrupted += u64::from(self.sent > 0);
                return;
            }
        }
    }

    fn step(&mut self) -> Result<(), Gone> {
        let Some(id) = self.transaction.clone() else {
            let body = json!({"operation": "put", "entryType": "lob"}).to_string();
            let answer = self
                .once("tx/begin", "begin", body.as_bytes())?
                .expect(200)
                .json();
            let id = answer["txnId"].as_str().expect("a begin gives the id");
            self.transaction = Some(id.to_owned());
            return Ok(());
        };
        if self.sent == self.object.len {
            let answer = self.once(&format!("tx/{id}/commit"), "commit", b"")?;
            if !self.expired(answer.status) {
                let answer = answer.expect(200).json();
                let lsn = answer["lsn"].as_u64().expect("a commit gives its LSN");
                let changes = vec![Change::Lob(KEY.to_owned(), Some(self.object))];
                self.written = Some(Write {
                    when: When::At(lsn),
                    changes,
                    replaces: None,
                });
                self.committed = true;
            }
            return Ok(());
        }
        let body = self.object.bytes(self.sent, CHUNK);
        let step = format!("tx/{id}/lob?key={}", percent(KEY));
        let answer = self.once(&step, &self.sent.to_string(), &body)?;
        if !self.expired(answer.status) {
            answer.expect(200);
            self.sent = self.object.len.min(self.sent + CHUNK);
        }
        Ok(())
    }

    /// A request that may be sent again.
    fn once(&mut self, rest: &str, name: &str, body: &[u8]) -> Result<crate::http::Answer, Gone> {
        let token = format!("big-{:x}-{}-{name}", self.object.seed, self.attempt);
        send(
            &mut self.http,
            "POST",
            &path(rest),
            &[("idempotency-key", &token)],
            body,
        )
    }

    /// A load that takes longer than a transaction may: from the beginning.
    fn expired(&mut self, status: u16) -> bool {
        if status == 410 {
            self.attempt += 1;
            self.sent = 0;
            self.transaction = None;
        }
        status == 410
    }
}
