//! Backups of a small namespace, made by the engine itself on a machine in memory, so that every
//! byte of them is the same in every run, and copied to a folder on the real disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use unisondb_engine::start::{self, Folders, Opened};
use unisondb_platform::memory::{self, MemoryClock, MemoryDisk};
use unisondb_platform::{Disk, DiskExt, EntryKind, Platform};
use unisondb_types::{Action, ClusterId, Command, Key, Lsn, Op, SegmentId, Value};

pub struct Fixture {
    /// `backups/{snapshots,wal}` and, beside it, room for restores.
    pub root: TempDir,
    /// The last record in the backups.
    pub end: Lsn,
    pub lineage: String,
}

struct Node {
    platform: Platform,
    clock: MemoryClock,
    opened: Opened,
}

impl Fixture {
    /// Some forty records in four segments, a snapshot after the first.
    pub fn new() -> Fixture {
        let (platform, disk, clock) = memory::platform(7);
        let mut node = Node::new(platform, clock);
        node.write(0..10);
        node.seal();
        let engine = &node.opened.engine;
        engine
            .backup_snapshot("snapshots/s.db", engine.applied())
            .unwrap();
        node.write(10..40);
        node.seal();
        let copies = node
            .opened
            .engine
            .backup_wal(SegmentId::ZERO, "wal")
            .unwrap()
            .copies;
        assert_eq!(copies.len(), 4);
        let segments = node.opened.engine.wal().segments();
        let end = segments
            .iter()
            .filter(|s| s.digest.is_some())
            .filter_map(|s| s.last_lsn)
            .max();

        let root = tempfile::tempdir().unwrap();
        copy(
            &disk,
            Path::new("/data/backups/users"),
            &root.path().join("backups"),
        );
        // As a node left it that is still running: an active segment, zeroed ahead.
        copy(
            &disk,
            Path::new("/data/users/wal"),
            &root.path().join("live/wal"),
        );
        let lineage = node.opened.engine.lineage().to_string();
        Fixture {
            root,
            end: end.unwrap(),
            lineage,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The arguments of a restore from all backups into `data`.
    pub fn restore(&self, data: &str, more: &[&str]) -> Vec<String> {
        let mut args: Vec<String> = ["restore", "--namespace", "users", "--data-dir"]
            .map(str::to_owned)
            .to_vec();
        args.push(self.path(data).to_str().unwrap().to_owned());
        args.push("--from".to_owned());
        args.push(self.path("backups").to_str().unwrap().to_owned());
        args.extend(more.iter().map(ToString::to_string));
        args
    }
}

impl Node {
    fn new(platform: Platform, clock: MemoryClock) -> Node {
        let folders = folders(Path::new("/data"));
        let request = start::Request {
            segment_size: 4096,
            map_size: 16 << 20,
            create: Some(ClusterId::from_bytes([7; 16])),
            ..start::Request::default()
        };
        let opened = start::open(&platform, &folders, &request).unwrap();
        Node {
            platform,
            clock,
            opened,
        }
    }

    fn commit(&mut self, command: &Command) {
        self.clock.advance(Duration::from_millis(250));
        let wal = self.opened.engine.wal().clone();
        let batch = [(command.kind(), command.payload())];
        let entries = wal
            .append(
                self.opened.vote.state().term,
                self.platform.clock.now(),
                &batch,
            )
            .unwrap();
        wal.commit(wal.sync().unwrap());
        for entry in entries {
            self.opened.applier.apply(&entry).unwrap();
        }
        for check in self.opened.engine.unconfirmed_checks() {
            self.commit(&Command::Check(check));
        }
    }

    fn write(&mut self, range: std::ops::Range<u32>) {
        for i in range {
            let op = Op::KvPut {
                key: Key::new(Bytes::from(format!("key-{}", i % 7))).unwrap(),
                value: Value::new(Bytes::from(format!("{i:>200}"))),
            };
            let action = Action::Write {
                conditions: vec![],
                ops: vec![op],
            };
            self.commit(&Command::User {
                idempotency: None,
                action,
            });
        }
    }

    fn seal(&mut self) {
        let active = self.opened.engine.wal().active().id;
        self.commit(&Command::Seal(active));
    }
}

pub fn folders(data: &Path) -> Folders {
    Folders {
        namespace: Some("users".parse().unwrap()),
        home: data.join("users"),
        backups: data.join("backups/users"),
    }
}

/// The value of `key` in the namespace that lies in `data`, opened as a server opens it.
pub fn value(data: &Path, key: &str) -> Option<String> {
    let platform = unisondb_platform::real::platform();
    let opened = start::open(&platform, &folders(data), &start::Request::default()).unwrap();
    let key = Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap();
    let found = opened.engine.kv(&key).unwrap();
    opened.engine.clone().shut_down().unwrap();
    found.map(|e| {
        String::from_utf8(e.value.to_vec())
            .unwrap()
            .trim()
            .to_owned()
    })
}

fn copy(disk: &MemoryDisk, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in disk.list(from).unwrap() {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        match entry.kind {
            EntryKind::Folder => copy(disk, &from, &to),
            _ => fs::write(to, disk.read(&from, 64 << 20).unwrap()).unwrap(),
        }
    }
}
