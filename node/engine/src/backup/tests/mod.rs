//! Backups of a whole namespace, over a disk in memory that fails as told, and over a real one.

#![allow(clippy::unwrap_used)]
mod power;
mod segments;
mod snapshots;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::stat;
use sha2::{Digest as _, Sha256};
use unisondb_platform::memory::{
    Effect, MemoryClock, MemoryDisk, OpKind, Rule, platform, platform_on,
};
use unisondb_platform::real::RealDisk;
use unisondb_platform::{Access, Disk, DiskExt, Platform};
use unisondb_store::image::Image;
use unisondb_store::{DATA_FILE, Trailer};
use unisondb_types::{
    Action, ClusterId, Command, Key, Lsn, Op, SegmentId, Sha256Sum, Term, Value, limits,
};

use super::{BackupError, BackupStatus, SnapshotBackup};
use crate::start::{self, Folders, Request};
use crate::{Applier, Engine};

const HOME: &str = "/data/users";
const BACKUPS: &str = "/data/backups/users";

/// A single node without its server: what it is told to write is durable and applied at once.
struct Node {
    machine: Platform,
    engine: Engine,
    applier: Applier,
    term: Term,
    backups: PathBuf,
}

impl Node {
    fn start(machine: &Platform, data: &Path) -> Node {
        let folders = Folders {
            namespace: Some("users".parse().unwrap()),
            home: data.join("users"),
            backups: data.join("backups/users"),
        };
        machine.disk.create_folders(&folders.home).unwrap();
        let request = Request {
            segment_size: limits::SEGMENT_MIN_BYTES,
            create: Some(ClusterId::from_bytes([7; 16])),
            ..Request::default()
        };
        let opened = start::open(machine, &folders, &request).unwrap();
        Node {
            machine: machine.clone(),
            engine: opened.engine,
            applier: opened.applier,
            term: opened.vote.state().term,
            backups: folders.backups,
        }
    }

    fn run(&mut self, command: &Command) {
        let now = self.machine.clock.now();
        let commands = [(command.kind(), command.payload())];
        let wal = self.engine.wal();
        let entries = wal.append(self.term, now, &commands).unwrap();
        let durable = wal.sync().unwrap();
        wal.commit(durable);
        for entry in &entries {
            self.applier.apply(entry).unwrap();
        }
        for check in self.engine.unconfirmed_checks() {
            self.run(&Command::Check(check));
        }
    }

    fn put(&mut self, key: &str, value: &[u8]) {
        let op = Op::KvPut {
            key: Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap(),
            value: Value::new(Bytes::copy_from_slice(value)),
        };
        let action = Action::Write {
            conditions: vec![],
            ops: vec![op],
        };
        self.run(&Command::User {
            idempotency: None,
            action,
        });
    }

    fn seal(&mut self) {
        let active = self.engine.wal().active().id;
        self.run(&Command::Seal(active));
    }

    /// `segments` sealed ones, and one with data that is not.
    fn fill(&mut self, segments: usize) {
        for n in 0..segments {
            self.put(&format!("key-{n}"), &[b'v'; 900]);
            self.seal();
        }
        self.put("last", b"unsealed");
    }

    fn wal(&self, after: u64, dir: &str) -> Result<Vec<u64>, BackupError> {
        let done = self.engine.backup_wal(SegmentId::new(after), dir)?;
        Ok(done.copies.iter().map(|c| c.segment.get()).collect())
    }

    fn snapshot(&self, path: &str) -> Result<SnapshotBackup, BackupError> {
        self.engine.backup_snapshot(path, self.engine.applied())
    }

    fn read(&self, below: &str) -> Vec<u8> {
        self.machine
            .disk
            .read(&self.backups.join(below), 1 << 30)
            .unwrap()
    }

    fn names(&self, below: &str) -> Vec<String> {
        let entries = match self.machine.disk.list(&self.backups.join(below)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
            entries => entries.unwrap(),
        };
        entries.into_iter().map(|e| e.name).collect()
    }
}

fn in_memory() -> (Node, MemoryDisk, MemoryClock) {
    let (machine, disk, clock) = platform(5);
    (Node::start(&machine, Path::new("/data")), disk, clock)
}

fn real(data: &Path) -> Node {
    let (machine, _, _) = platform(5);
    Node::start(
        &Platform {
            disk: Arc::new(RealDisk),
            ..machine
        },
        data,
    )
}

fn sha256(bytes: &[u8]) -> Sha256Sum {
    Sha256Sum::from_bytes(Sha256::digest(bytes).into())
}

/// A whole snapshot: trailer, sum, image, every entry.
fn check_snapshot(bytes: Vec<u8>, about: &SnapshotBackup) {
    assert_eq!(
        (bytes.len() as u64, sha256(&bytes)),
        (about.bytes, about.sha256)
    );
    let trailer = Trailer::find(&bytes).unwrap().unwrap();
    trailer.verify(&bytes).unwrap();
    assert_eq!(
        (trailer.lsn, trailer.digest, trailer.lineage, trailer.stamp),
        (about.lsn, about.digest, about.lineage, about.stamp)
    );
    let image = Image::open(bytes).unwrap();
    image.scan().unwrap();
    for entry in image.iter() {
        let entry = entry.unwrap();
        crate::state::entry::open(&entry.key, &entry.value).unwrap();
    }
}

#[test]
fn calls_at_once_on_one_target_all_succeed_and_leave_whole_files() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(3);
    let node = &node;
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(move || assert_eq!(node.wal(0, "wal").unwrap(), [1, 2, 3]));
            s.spawn(move || node.snapshot("daily/a").unwrap());
        }
    });
    assert_eq!(node.names("daily"), ["a", "a.sha256"]);
    assert_eq!(node.names("wal").len(), 6);
    let bytes = node.read("daily/a");
    Trailer::find(&bytes)
        .unwrap()
        .unwrap()
        .verify(&bytes)
        .unwrap();
    let status = node.engine.backup_status();
    assert_eq!((status.wal.successes, status.btree.successes), (4, 4));
    assert_eq!((status.wal.running, status.btree.running), (0, 0));
}

#[test]
fn refused_paths_touch_nothing_and_count_as_nothing() {
    let (mut node, disk, _) = in_memory();
    node.fill(1);
    let before = disk.ops();
    for path in ["", "/etc/x", "../x", "a/../../x", "a\0b", "x ", "C:\\x"] {
        assert!(
            matches!(node.wal(0, path), Err(BackupError::BadPath(_))),
            "{path:?}"
        );
        assert!(
            matches!(node.snapshot(path), Err(BackupError::BadPath(_))),
            "{path:?}"
        );
    }
    for path in [".", "a/", "x.tmp"] {
        assert!(
            matches!(node.snapshot(path), Err(BackupError::BadPath(_))),
            "{path:?}"
        );
    }
    assert_eq!(disk.ops(), before);
    assert_eq!(node.engine.backup_status(), BackupStatus::default());
    node.wal(0, ".").unwrap();
    node.machine
        .disk
        .create_folder(&Path::new(BACKUPS).join("folder"))
        .unwrap();
    assert!(matches!(
        node.snapshot("folder"),
        Err(BackupError::Differs { .. })
    ));
}
