//! A single node without HTTP: commits what is durable, remembers the state after every record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use unisondb_platform::Platform;
use unisondb_platform::memory::{self, MemoryClock, MemoryDisk};
use unisondb_types::{Action, ClusterId, Command, Digest, Key, Lsn, Op, SegmentId, Stamp, Value};

use crate::start::{self, Folders, Opened};

/// What is true after one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub stamp: Stamp,
    pub digest: Digest,
}

pub struct Node {
    pub platform: Platform,
    pub disk: MemoryDisk,
    pub clock: MemoryClock,
    pub data: PathBuf,
    opened: Opened,
    /// By LSN, of this node's own history.
    pub moments: BTreeMap<Lsn, Moment>,
}

pub fn options() -> start::Request {
    start::Request {
        segment_size: 4096,
        map_size: 16 << 20,
        create: Some(ClusterId::from_bytes([7; 16])),
        ..start::Request::default()
    }
}

pub fn folders(data: &Path) -> Folders {
    Folders {
        namespace: Some("users".parse().expect("a name")),
        home: data.join("users"),
        backups: data.join("backups").join("users"),
    }
}

impl Node {
    /// A new namespace `users` in `/a`.
    pub fn new(seed: u64) -> Node {
        let (platform, disk, clock) = memory::platform(seed);
        Node::open(platform, disk, clock, Path::new("/a"), BTreeMap::new())
    }

    fn open(
        platform: Platform,
        disk: MemoryDisk,
        clock: MemoryClock,
        data: &Path,
        moments: BTreeMap<Lsn, Moment>,
    ) -> Node {
        let opened = start::open(&platform, &folders(data), &options()).expect("it opens");
        let mut node = Node {
            platform,
            disk,
            clock,
            data: data.to_owned(),
            opened,
            moments,
        };
        node.remember();
        node
    }

    /// The namespace that a restore of this node's backups made in `data`, opened as a server
    /// would, on the same machine.
    pub fn restored_in(&self, data: &str, at: Lsn) -> Node {
        let moments = self.moments.range(..=at).map(|(l, m)| (*l, *m)).collect();
        let parts = (self.platform.clone(), self.disk.clone(), self.clock.clone());
        Node::open(parts.0, parts.1, parts.2, Path::new(data), moments)
    }

    pub fn backups(&self) -> PathBuf {
        self.data.join("backups/users")
    }

    pub fn engine(&self) -> &crate::Engine {
        &self.opened.engine
    }

    /// Commits one record, and the `Check`s that it leads to.
    pub fn commit(&mut self, command: &Command) -> Lsn {
        let last = self.commit_alone(command);
        for check in self.opened.engine.unconfirmed_checks() {
            self.commit(&Command::Check(check));
        }
        last
    }

    fn commit_alone(&mut self, command: &Command) -> Lsn {
        self.clock.advance(Duration::from_millis(250));
        let wal = self.opened.engine.wal().clone();
        let batch = [(command.kind(), command.payload())];
        let now = self.platform.clock.now();
        let entries = wal
            .append(self.opened.vote.state().term, now, &batch)
            .expect("the log takes it");
        wal.commit(wal.sync().expect("it is synced"));
        let mut last = Lsn::ZERO;
        for entry in entries {
            self.opened.applier.apply(&entry).expect("it is applied");
            last = entry.record.lsn;
        }
        self.remember();
        last
    }

    fn remember(&mut self) {
        let digest = self
            .opened
            .engine
            .digest(None)
            .expect("a digest")
            .expect("of now")
            .1;
        let p = self.opened.engine.positions();
        self.moments.insert(
            p.applied,
            Moment {
                stamp: p.applied_stamp,
                digest,
            },
        );
    }

    pub fn put(&mut self, key: &str, value: &str) -> Lsn {
        let op = Op::KvPut {
            key: Key::new(Bytes::copy_from_slice(key.as_bytes())).expect("a key"),
            value: Value::new(Bytes::copy_from_slice(value.as_bytes())),
        };
        let action = Action::Write {
            conditions: vec![],
            ops: vec![op],
        };
        self.commit(&Command::User {
            idempotency: None,
            action,
        })
    }

    /// `n` puts of about 300 bytes to ten keys: a dozen fill a segment.
    pub fn write(&mut self, n: usize) -> Lsn {
        let mut last = self.engine().applied();
        for i in 0..n {
            last = self.put(&format!("key-{}", i % 10), &format!("{last:>300}"));
        }
        last
    }

    /// Ends the active segment; the newest sealed one afterwards.
    pub fn seal(&mut self) -> SegmentId {
        let active = self.opened.engine.wal().active().id;
        self.commit(&Command::Seal(active));
        active
    }

    /// Ends the active segment, and stops just there: its `Check` comes with the next record.
    pub fn seal_unchecked(&mut self) -> SegmentId {
        let active = self.opened.engine.wal().active().id;
        self.commit_alone(&Command::Seal(active));
        active
    }

    /// A WAL backup into `dir`, the active segment sealed first.
    pub fn back_up_wal(&mut self, after: SegmentId, dir: &str) -> SegmentId {
        let sealed = self.seal();
        let done = self.opened.engine.backup_wal(after, dir).expect("a backup");
        assert!(!done.copies.is_empty());
        sealed
    }

    /// A snapshot of what is applied now.
    pub fn snapshot(&self, path: &str) -> Lsn {
        let applied = self.opened.engine.applied();
        let done = self
            .opened
            .engine
            .backup_snapshot(path, applied)
            .expect("a snapshot");
        assert_eq!(done.lsn, applied);
        applied
    }

    pub fn moment(&self, lsn: Lsn) -> Moment {
        self.moments[&lsn]
    }

    pub fn last(&self) -> Lsn {
        *self
            .moments
            .keys()
            .next_back()
            .expect("at least the lineage record")
    }
}
