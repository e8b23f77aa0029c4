//! [`Archive`]: backups of both kinds and state digests, taken while others write.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::Load;
use super::path;
use super::worker::{Gone, send};
use crate::http::Client;

/// State digests, by LSN.
pub type Digests = BTreeMap<u64, String>;

/// An archiver as the documentation's scripts are: it remembers the last segment that it has.
#[derive(Debug)]
pub struct Archive {
    http: Client,
    last: u64,
    /// WAL backup calls that were answered.
    pub wal_backups: u64,
    /// Snapshots that were answered.
    pub snapshots: u64,
    /// The digests that they answered.
    pub digests: Digests,
}

impl Archive {
    /// Has nothing yet.
    pub fn new(address: &str) -> Archive {
        Archive {
            http: Client::new(address),
            last: 0,
            wal_backups: 0,
            snapshots: 0,
            digests: Digests::new(),
        }
    }

    /// The server is there again, perhaps elsewhere.
    pub fn connect(&mut self, address: &str) {
        self.http = Client::new(address).deadline(Duration::from_secs(300));
    }

    /// Backs up, over and over, until the load is over or the server has gone.
    pub fn run(&mut self, load: &Load) {
        while !load.over() {
            let done = self.wal().and_then(|()| match self.wal_backups % 4 {
                1 => self.snapshot(),
                _ => Ok(()),
            });
            if done.is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// One incremental backup.
    ///
    /// # Errors
    /// The connection is lost.
    ///
    /// # Panics
    /// When the answer is not as documented: ascending ids without a hole, each file there, whole.
    pub fn wal(&mut self) -> Result<(), Gone> {
        let body = json!({"afterSegmentId": self.last, "backupDir": "wal"});
        let answer = self.post("wal/backup", &body)?;
        assert_eq!(answer["sealed"], true, "{answer}");
        for backup in answer["backups"].as_array().expect("backups is a list") {
            let id = backup["segmentId"].as_u64().expect("an id");
            // Ids of a lineage are dense; a later lineage begins at a multiple of a million.
            let follows = id == self.last + 1 || self.last == 0 || id % 1_000_000 == 0;
            assert!(id > self.last && follows, "{id} after {}", self.last);
            let file = backup["path"].as_str().expect("a path");
            let bytes = fs::metadata(file)
                .unwrap_or_else(|e| panic!("{file}: {e}"))
                .len();
            assert_eq!(backup["bytes"].as_u64().unwrap_or(bytes), bytes, "{file}");
            self.last = id;
        }
        self.wal_backups += 1;
        Ok(())
    }

    /// One snapshot.
    ///
    /// # Errors
    /// The connection is lost.
    ///
    /// # Panics
    /// When the answer is not as documented.
    pub fn snapshot(&mut self) -> Result<(), Gone> {
        let name = format!("snapshots/{:04}.db", self.snapshots);
        let answer = self.post("btree/backup", &json!({"path": name}))?;
        assert_eq!(answer["sealed"], true, "{answer}");
        let file = answer["path"].as_str().expect("a path");
        let bytes = fs::metadata(file)
            .unwrap_or_else(|e| panic!("{file}: {e}"))
            .len();
        assert_eq!(answer["bytes"].as_u64(), Some(bytes), "{file}");
        self.snapshots += 1;
        let digest = answer["digest"].as_str().expect("a digest").to_owned();
        note(
            &mut self.digests,
            answer["lsn"].as_u64().expect("an LSN"),
            digest,
        );
        Ok(())
    }

    fn post(&mut self, route: &str, body: &Value) -> Result<Value, Gone> {
        let body = body.to_string();
        let answer = send(&mut self.http, "POST", &path(route), &[], body.as_bytes())?;
        Ok(answer.expect(200).json())
    }
}

/// The digest that the server gives now, with its LSN.
///
/// # Errors
/// The connection is lost.
pub fn digest(http: &mut Client) -> Result<(u64, String), Gone> {
    let answer = send(http, "GET", &path("digest"), &[], b"")?
        .expect(200)
        .json();
    let lsn = answer["lsn"].as_u64().expect("an LSN");
    Ok((lsn, answer["digest"].as_str().expect("a digest").to_owned()))
}

/// The last LSN in a sealed segment, with the digest there.
///
/// # Panics
/// When there is none.
pub fn sealed_end(http: &mut Client) -> (u64, String) {
    let get = |http: &mut Client, rest: &str| {
        let answer = http.get(&path(rest)).expect("the server answers");
        answer.expect(200).json()
    };
    let listed = get(http, "wal/segments");
    let segments = listed["segments"].as_array().expect("a list").iter();
    // By id: a parent's segment with the fork inside may end at a higher LSN than what follows the fork.
    let sealed = segments.filter(|s| s["state"] == "sealed");
    let last = sealed.max_by_key(|s| s["segmentId"].as_u64());
    let lsn = last.and_then(|s| s["lastLsn"].as_u64());
    let lsn = lsn.unwrap_or_else(|| panic!("no sealed segment: {listed}"));
    let answer = get(http, &format!("digest?lsn={lsn}"));
    assert_eq!(answer["lsn"], lsn);
    (lsn, answer["digest"].as_str().expect("a digest").to_owned())
}

/// The name of the history that the server goes on with.
///
/// # Panics
/// When it does not answer.
pub fn lineage(http: &mut Client) -> String {
    let answer = http
        .get(&path("digest"))
        .expect("the server answers")
        .expect(200);
    answer
        .header("x-unison-lineage")
        .expect("where a namespace is named")
        .to_owned()
}

/// Notes digests until the load is over or the server has gone.
///
/// # Panics
/// When one LSN has two digests.
pub fn watch(address: &str, load: &Load, digests: &mut Digests) {
    let mut http = Client::new(address);
    while !load.over() {
        let Ok((lsn, digest)) = digest(&mut http) else {
            return;
        };
        note(digests, lsn, digest);
        thread::sleep(Duration::from_millis(10));
    }
}

/// Notes one.
///
/// # Panics
/// When that LSN has another.
pub fn note(digests: &mut Digests, lsn: u64, digest: String) {
    if let Some(before) = digests.insert(lsn, digest.clone()) {
        assert_eq!(before, digest, "two digests at LSN {lsn}");
    }
}
