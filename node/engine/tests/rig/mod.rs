//! A namespace with the smallest writer there can be: what a test proposes is appended, synced,
//! committed and applied before the call returns.

#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

pub mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use unisondb_engine::start::{self, Folders, Opened, Request};
use unisondb_engine::{Applier, Engine, Scan};
use unisondb_platform::Platform;
use unisondb_types::{
    Action, ClusterId, Command, Digest, Key, Lsn, Op, Outcome, SegmentId, Stamp, Term, Value,
};

pub const CLUSTER: ClusterId = ClusterId::from_bytes([9; 16]);

pub struct Rig {
    pub platform: Platform,
    pub engine: Engine,
    pub applier: Applier,
    pub term: Term,
    pub notes: Vec<start::Note>,
    /// The state after each record, as the test itself works it out.
    pub model: Model,
}

/// Keys and values.
pub type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

/// Digest, stamp and keys after each record.
#[derive(Default, Clone)]
pub struct Model {
    pub at: BTreeMap<Lsn, Moment>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    pub stamp: Stamp,
    pub digest: Digest,
    pub keys: Keys,
}

pub fn folders(home: &Path) -> Folders {
    Folders {
        namespace: Some("users".parse().unwrap()),
        home: home.to_owned(),
        backups: home.parent().unwrap().join("backups/users"),
    }
}

pub fn request() -> Request {
    Request {
        segment_size: 4 << 10,
        map_size: 64 << 20,
        flush_bytes: 16 << 10,
        create: Some(CLUSTER),
        ..Request::default()
    }
}

pub fn put(key: &str, value: &str) -> Action {
    let op = Op::KvPut {
        key: Key::new(key.as_bytes().to_vec()).unwrap(),
        value: Value::new(value.as_bytes().to_vec()),
    };
    Action::Write {
        conditions: Vec::new(),
        ops: vec![op],
    }
}

impl Rig {
    pub fn open(platform: &Platform, home: &Path) -> Result<Rig, start::StartError> {
        Rig::open_with(platform, home, &request())
    }

    pub fn open_with(
        platform: &Platform,
        home: &Path,
        request: &Request,
    ) -> Result<Rig, start::StartError> {
        let Opened {
            engine,
            applier,
            notes,
            vote,
            ..
        } = start::open(platform, &folders(home), request)?;
        let term = vote.state().term;
        let mut rig = Rig {
            platform: platform.clone(),
            engine,
            applier,
            term,
            notes,
            model: Model::default(),
        };
        rig.checks().map_err(start::StartError::Engine)?;
        Ok(rig)
    }

    pub fn propose(&mut self, command: &Command) -> Result<(Lsn, Outcome), unisondb_engine::Error> {
        let wal = self.engine.wal().clone();
        let now = self.platform.clock.now();
        wal.reserve(64 << 10)?;
        let entries = wal.append(self.term, now, &[(command.kind(), command.payload())])?;
        wal.sync()?;
        wal.commit(wal.last());
        let answer = self.applier.apply(&entries[0])?;
        self.remember();
        self.checks()?;
        Ok(answer)
    }

    /// Proposes the checks that are due.
    pub fn checks(&mut self) -> Result<(), unisondb_engine::Error> {
        for check in self.engine.unconfirmed_checks() {
            self.propose(&Command::Check(check))?;
        }
        Ok(())
    }

    pub fn act(&mut self, action: Action) -> Result<(Lsn, Outcome), unisondb_engine::Error> {
        self.propose(&Command::User {
            idempotency: None,
            action,
        })
    }

    /// Puts a key.
    pub fn put(&mut self, key: &str, value: &str) -> Result<Lsn, unisondb_engine::Error> {
        Ok(self.act(put(key, value))?.0)
    }

    pub fn seal(&mut self) -> Result<Lsn, unisondb_engine::Error> {
        let id = self.engine.wal().active().id;
        Ok(self.propose(&Command::Seal(id))?.0)
    }

    pub fn remember(&mut self) {
        let p = self.engine.positions();
        self.model.at.insert(p.applied, self.moment());
    }

    pub fn moment(&self) -> Moment {
        let p = self.engine.positions();
        let (_, digest) = self.engine.digest(None).unwrap().unwrap();
        Moment {
            stamp: p.applied_stamp,
            digest,
            keys: self.keys(),
        }
    }

    pub fn keys(&self) -> Keys {
        let mut all = BTreeMap::new();
        let mut scan = Scan {
            limit: 100,
            ..Scan::default()
        };
        loop {
            let page = self.engine.scan(&scan).unwrap();
            for (k, v) in page.items {
                all.insert(k.as_bytes().to_vec(), v.unwrap_or_else(Bytes::new).to_vec());
            }
            match page.next {
                None => return all,
                next => scan.after = next,
            }
        }
    }

    /// Reads and checks the whole state, without a pause.
    pub fn scrub(&self) -> Result<unisondb_engine::Scrubbed, unisondb_engine::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(self.engine.scrub_state(|_| std::future::ready(true)))
    }

    pub fn close(self) {
        let Rig {
            engine, applier, ..
        } = self;
        drop(applier);
        engine.shut_down().unwrap();
    }

    pub fn sealed(&self) -> Vec<SegmentId> {
        let sealed = |s: &unisondb_wal::SegmentInfo| s.state == unisondb_wal::SegmentState::Sealed;
        self.engine
            .wal()
            .segments()
            .into_iter()
            .filter(sealed)
            .map(|s| s.id)
            .collect()
    }
}

/// Compares two states, and prints only where they differ.
#[track_caller]
pub fn same(found: &Keys, expected: &Keys) {
    let differs = |(k, v): &(&Vec<u8>, &Vec<u8>)| expected.get(*k) != Some(*v);
    let more: Vec<_> = found
        .iter()
        .filter(differs)
        .map(|(k, _)| k.escape_ascii().to_string())
        .collect();
    let less: Vec<_> = expected
        .iter()
        .filter(|(k, v)| found.get(*k) != Some(*v))
        .map(|(k, _)| k.escape_ascii().to_string())
        .collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "states differ: {} keys instead of {}; not as expected {more:?}, expected otherwise {less:?}",
        found.len(),
        expected.len()
    );
}

pub fn home(root: &Path) -> PathBuf {
    root.join("users")
}
