//! [`Worker`]: a client that writes all that can be written, and keeps what was acknowledged with
//! its LSN. It reads its own writes now and then. At the first lost connection it stops: the write
//! that was under way is unknown until [`settle`](super::settle) has looked.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::Load;
use super::model::{Bytes, Change, Content, Timeline, When, Write};
use super::path;
use super::text::{Chance, from_base64, percent, to_base64};
use crate::http::{Answer, Client};

/// Keys of one client.
const KEYS: u64 = 500;
/// Rows of one client.
pub const ROWS: u64 = 30;
/// Small objects of one client.
pub const OBJECTS: u64 = 4;
/// Keys that all write, on condition.
pub const SHARED: u64 = 3;

/// The server has gone.
#[derive(Debug)]
pub struct Gone;

/// A value seen at a contended key.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) key: String,
    pub(super) lsn: u64,
    pub(super) value: Bytes,
}

/// The write that was under way when the server went.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) changes: Vec<Change>,
    pub(super) replaces: Option<u64>,
}

/// A client.
#[derive(Debug)]
pub struct Worker {
    /// `c3`.
    pub(super) name: String,
    pub(super) chance: Chance,
    count: u64,
    pub(super) http: Client,
    pub(super) mine: Content,
    pub(super) last: u64,
    pub(super) written: Vec<Write>,
    pub(super) seen: Vec<Seen>,
    pub(super) pending: Option<Pending>,
}

/// The name of client `n`.
pub fn name(n: u64) -> String {
    format!("c{n}")
}

/// Sends until the server says yes or no: what it says it did not take is sent again.
///
/// # Errors
/// The connection is lost.
///
/// # Panics
/// When it is busy for a minute.
pub fn send(
    http: &mut Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, Gone> {
    let begun = Instant::now();
    loop {
        let answer = http
            .request(method, path, headers, body)
            .map_err(|_| Gone)?;
        if ![429, 503, 507].contains(&answer.status) {
            return Ok(answer);
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{method} {path}: {}",
            answer.text()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// The LSN that an answer gives.
#[track_caller]
pub fn lsn_of(answer: Answer) -> u64 {
    let answer = answer.expect(200).json();
    answer["lsn"]
        .as_u64()
        .unwrap_or_else(|| panic!("no lsn: {answer}"))
}

/// The LSN in an `ETag`.
pub fn tag_of(answer: &Answer) -> Option<u64> {
    answer.header("etag")?.trim_matches('"').parse().ok()
}

impl Worker {
    /// Client `n`, whose part of the content is what `line` says at its end.
    pub fn new(n: u64, seed: u64, address: &str, line: &Timeline) -> Worker {
        let name = name(n);
        Worker {
            mine: line.at(u64::MAX).part(&name),
            name,
            chance: Chance::new(seed ^ (n + 1) << 40),
            count: 0,
            http: Client::new(address),
            last: 0,
            written: Vec::new(),
            seen: Vec::new(),
            pending: None,
        }
    }

    /// The server is there again, perhaps elsewhere.
    pub fn connect(&mut self, address: &str) {
        self.http = Client::new(address);
    }

    /// What it has written since the last call.
    pub fn take(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.written)
    }

    /// Writes until the load is done or the server has gone.
    pub fn run(&mut self, load: &Load) {
        while !load.done() {
            let before = self.written.len();
            let went = self.step();
            (before..self.written.len()).for_each(|_| load.count());
            if went.is_err() {
                return;
            }
        }
    }

    fn step(&mut self) -> Result<(), Gone> {
        match self.chance.below(100) {
            0..40 => self.put(),
            40..45 => self.remove(),
            45..55 => self.batch(),
            55..58 => self.remove_many(),
            58..70 => self.row(),
            70..72 => self.remove_row(),
            72..75 => self.remove_columns(),
            75..78 => self.rows(),
            78..81 => self.retried(),
            81..86 => self.contended(),
            86..91 => self.transaction(),
            91..93 => self.row_transaction(),
            93..95 => self.object(),
            95 => self.remove_object(),
            _ => self.read(),
        }
    }

    // What it writes.

    fn key(&mut self) -> String {
        let n = self.chance.below(KEYS);
        // Some keys need encoding: a slash, a space, a percent sign, a letter beyond ASCII.
        match n % 10 {
            0 => format!("{}/k {n}%/ü", self.name),
            _ => format!("{}/k{n:03}", self.name),
        }
    }

    pub(super) fn row_key(&mut self) -> String {
        format!("{}/r{}", self.name, self.chance.below(ROWS))
    }

    /// A value that no other write has.
    fn value(&mut self) -> Bytes {
        self.count += 1;
        let len = match self.chance.below(50) {
            0 => self.chance.below(20_000),
            _ => self.chance.below(300),
        };
        let mut value =
            format!("{}#{}#{:x}:", self.name, self.count, self.chance.number()).into_bytes();
        value.extend(self.chance.bytes(usize::try_from(len).expect("small")));
        value.into()
    }

    pub(super) fn object_key(&mut self) -> String {
        format!("{}/o{}", self.name, self.chance.below(OBJECTS))
    }

    pub(super) fn columns(&mut self) -> BTreeMap<String, Bytes> {
        let names = ["a", "b", "c", "d", "e é"];
        let count = 1 + self.chance.below(3);
        (0..count)
            .map(|_| ((*self.chance.one(&names)).to_owned(), self.value()))
            .collect()
    }

    // How it writes.

    fn record(&mut self, lsn: u64, changes: Vec<Change>, replaces: Option<u64>) {
        assert!(
            lsn > self.last,
            "{}: LSN {lsn} was answered after {}",
            self.name,
            self.last
        );
        self.last = lsn;
        changes.iter().for_each(|c| self.mine.apply(c));
        self.written.push(Write {
            when: When::At(lsn),
            changes,
            replaces,
        });
    }

    /// A write whose answer carries its LSN.
    pub(super) fn write(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        changes: Vec<Change>,
    ) -> Result<u64, Gone> {
        match send(&mut self.http, method, path, headers, body) {
            Ok(answer) => {
                let lsn = lsn_of(answer);
                self.record(lsn, changes, None);
                Ok(lsn)
            }
            Err(gone) => {
                self.pending = Some(Pending {
                    changes,
                    replaces: None,
                });
                Err(gone)
            }
        }
    }

    fn write_json(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
        changes: Vec<Change>,
    ) -> Result<(), Gone> {
        let body = body.to_string();
        self.write(method, path, &[], body.as_bytes(), changes)
            .map(drop)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn put(&mut self) -> Result<(), Gone> {
        let (key, value) = (self.key(), self.value());
        let at = path(&format!("kv/{}", percent(&key)));
        let change = vec![Change::Kv(key, Some(value.clone()))];
        if self.chance.below(4) == 0 {
            let raw = [("content-type", "application/octet-stream")];
            return self.write("PUT", &at, &raw, &value, change).map(drop);
        }
        self.write_json("PUT", &at, &json!({"value": to_base64(&value)}), change)
    }

    fn remove(&mut self) -> Result<(), Gone> {
        let key = self.key();
        let at = path(&format!("kv/{}", percent(&key)));
        self.write("DELETE", &at, &[], b"", vec![Change::Kv(key, None)])
            .map(drop)
    }

    /// Different keys with values, as changes and as items.
    pub(super) fn items(&mut self, most: u64) -> (Vec<Change>, Vec<Value>) {
        let count = 1 + self.chance.below(most);
        let pairs: BTreeMap<_, _> = (0..count).map(|_| (self.key(), self.value())).collect();
        let item = |(k, v): (&String, &Bytes)| json!({"key": k, "value": to_base64(v)});
        let items = pairs.iter().map(item).collect();
        (
            pairs
                .into_iter()
                .map(|(k, v)| Change::Kv(k, Some(v)))
                .collect(),
            items,
        )
    }

    fn batch(&mut self) -> Result<(), Gone> {
        let (changes, items) = self.items(20);
        let body = json!({"operation": "put", "items": items});
        self.write_json("POST", &path("kv/batch"), &body, changes)
    }

    fn remove_many(&mut self) -> Result<(), Gone> {
        let keys: Vec<_> = (0..1 + self.chance.below(5)).map(|_| self.key()).collect();
        let body = json!({"operation": "delete", "keys": keys});
        let changes = keys.into_iter().map(|k| Change::Kv(k, None)).collect();
        self.write_json("POST", &path("kv/batch"), &body, changes)
    }

    fn row(&mut self) -> Result<(), Gone> {
        let (row, columns) = (self.row_key(), self.columns());
        let at = path(&format!("row/{}", percent(&row)));
        let body = json!({"columns": coded(&columns)});
        self.write_json("PUT", &at, &body, vec![Change::Row(row, columns)])
    }

    fn remove_row(&mut self) -> Result<(), Gone> {
        let row = self.row_key();
        let at = path(&format!("row/{}", percent(&row)));
        self.write("DELETE", &at, &[], b"", vec![Change::DropRow(row)])
            .map(drop)
    }

    fn remove_columns(&mut self) -> Result<(), Gone> {
        let (row, names) = (self.row_key(), vec!["a".to_owned(), "e é".to_owned()]);
        let at = path(&format!("row/{}/columns", percent(&row)));
        let body = json!({"columns": names});
        self.write_json("DELETE", &at, &body, vec![Change::DropColumns(row, names)])
    }

    fn rows(&mut self) -> Result<(), Gone> {
        let count = 1 + self.chance.below(5);
        let rows: BTreeMap<_, _> = (0..count)
            .map(|_| (self.row_key(), self.columns()))
            .collect();
        let item = |(row, columns): (&String, &BTreeMap<_, _>)| json!({"rowKey": row, "columns": coded(columns)});
        let items: Vec<_> = rows.iter().map(item).collect();
        let body = json!({"operation": "put", "rows": items});
        let changes = rows
            .into_iter()
            .map(|(row, columns)| Change::Row(row, columns))
            .collect();
        self.write_json("POST", &path("row/batch"), &body, changes)
    }

    /// A write that is sent twice under one `Idempotency-Key` happens once.
    fn retried(&mut self) -> Result<(), Gone> {
        let (key, value) = (self.key(), self.value());
        let at = path(&format!("kv/{}", percent(&key)));
        let token = format!("{}-{:x}", self.name, self.chance.number());
        let headers = [("idempotency-key", &*token)];
        let body = json!({"value": to_base64(&value)}).to_string();
        let change = vec![Change::Kv(key, Some(value))];
        let first = self.write("PUT", &at, &headers, body.as_bytes(), change)?;
        let again = send(&mut self.http, "PUT", &at, &headers, body.as_bytes())?;
        assert_eq!(
            lsn_of(again),
            first,
            "applied once, the first answer repeated"
        );
        Ok(())
    }

    /// Read, then write on the condition that nobody else has written since.
    fn contended(&mut self) -> Result<(), Gone> {
        let key = format!("s/{}", self.chance.below(SHARED));
        let at = path(&format!("kv/{}", percent(&key)));
        let raw = [("accept", "application/octet-stream")];
        let found = send(&mut self.http, "GET", &at, &raw, b"")?;
        let replaced = match found.status {
            404 => 0,
            200 => {
                let lsn = tag_of(&found).expect("a GET gives the entry's LSN as ETag");
                self.seen.push(Seen {
                    key: key.clone(),
                    lsn,
                    value: found.body.into(),
                });
                lsn
            }
            _ => panic!("{}", found.text()),
        };
        let tag = format!("\"{replaced}\"");
        let condition = match replaced {
            0 => ("if-none-match", "*"),
            _ => ("if-match", &*tag),
        };
        let value = self.value();
        let headers = [condition, ("content-type", "application/octet-stream")];
        let changes = vec![Change::Kv(key, Some(value.clone()))];
        match send(&mut self.http, "PUT", &at, &headers, &value) {
            Ok(answer) if answer.status == 412 => Ok(()),
            Ok(answer) => {
                let lsn = lsn_of(answer);
                // The contended keys are nobody's own part.
                self.record(lsn, changes, Some(replaced));
                self.mine.kv.retain(|key, _| !key.starts_with("s/"));
                Ok(())
            }
            Err(gone) => {
                self.pending = Some(Pending {
                    changes,
                    replaces: Some(replaced),
                });
                Err(gone)
            }
        }
    }

    fn remove_object(&mut self) -> Result<(), Gone> {
        let key = self.object_key();
        let at = path(&format!("lob/{}", percent(&key)));
        self.write("DELETE", &at, &[], b"", vec![Change::Lob(key, None)])
            .map(drop)
    }

    /// It reads what it wrote (P3).
    fn read(&mut self) -> Result<(), Gone> {
        let key = self.key();
        self.same_value(&key)
    }

    pub(super) fn same_value(&mut self, key: &str) -> Result<(), Gone> {
        let answer = send(
            &mut self.http,
            "GET",
            &path(&format!("kv/{}", percent(key))),
            &[],
            b"",
        )?;
        let value = match answer.status {
            404 => None,
            _ => {
                let answer = answer.expect(200).json();
                Some(from_base64(answer["value"].as_str().expect("a value")).expect("base64"))
            }
        };
        assert_eq!(
            value.as_deref(),
            self.mine.kv.get(key).map(|v| &**v),
            "{key} reads as written"
        );
        Ok(())
    }
}

/// Columns as JSON has them.
pub(super) fn coded(columns: &BTreeMap<String, Bytes>) -> BTreeMap<&str, String> {
    columns
        .iter()
        .map(|(name, value)| (&**name, to_base64(value)))
        .collect()
}
