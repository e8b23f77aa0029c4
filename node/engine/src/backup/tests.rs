//! Backups of a whole namespace, over a disk in memory that fails as told, and over a real one.

#![allow(clippy::unwrap_used)]
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

use super::{BackupError, SnapshotBackup};
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
            term: opened.term,
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
        for check in self.engine.pending_checks() {
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
fn sealed_segments_are_copied_byte_for_byte_with_their_checksums() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(3);
    let done = node.engine.backup_wal(SegmentId::ZERO, "./wal/x").unwrap();
    assert_eq!(done.first_available, Some(SegmentId::FIRST));
    assert_eq!(done.copies.len(), 3);
    for (n, copy) in done.copies.iter().enumerate() {
        let name = format!("{:09}.wal", n + 1);
        let shown = format!("{}/./wal/x/{name}", node.backups.display());
        assert_eq!(copy.path.as_os_str().to_str().unwrap(), shown);
        let bytes = node.read(&format!("wal/x/{name}"));
        assert_eq!(
            bytes,
            node.machine
                .disk
                .read(&tmp.path().join("users/wal").join(&name), 1 << 20)
                .unwrap()
        );
        assert_eq!(
            (copy.bytes, copy.sha256),
            (bytes.len() as u64, sha256(&bytes))
        );
        let line = format!("{}  {name}\n", copy.sha256);
        assert_eq!(node.read(&format!("wal/x/{name}.sha256")), line.as_bytes());
    }
    assert_eq!(node.names("wal/x").len(), 6);
    assert_eq!(node.wal(2, "wal/x").unwrap(), [3]);
}

#[test]
fn nothing_new_makes_no_folder() {
    let (mut node, _, _) = in_memory();
    assert!(node.wal(0, "wal/x").unwrap().is_empty());
    node.fill(2);
    assert!(node.wal(2, "wal/x").unwrap().is_empty());
    assert!(node.wal(99, "wal/x").unwrap().is_empty());
    assert!(!node.machine.disk.exists(Path::new(BACKUPS)).unwrap());
    let wal = node.engine.backup_status().wal;
    assert_eq!((wal.successes, wal.failures, wal.bytes), (3, 0, 0));
}

#[test]
fn a_repeated_backup_publishes_fresh_files_of_the_same_bytes() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(1);
    node.wal(0, "wal").unwrap();
    let path = node.backups.join("wal/000000001.wal");
    let first = stat(&path).unwrap();
    let kept = RealDisk.open(&path, Access::Read).unwrap();
    node.wal(0, "wal").unwrap();
    let second = stat(&path).unwrap();
    // Who still reads the first keeps it; the second is another file, not a link to the log's own.
    assert_ne!(first.st_ino, second.st_ino);
    assert_eq!((second.st_nlink, second.st_mode & 0o777), (1, 0o600));
    drop(kept);
}

#[test]
fn a_differing_file_is_never_overwritten() {
    let (mut node, disk, _) = in_memory();
    node.fill(2);
    node.wal(0, "wal").unwrap();
    let name = Path::new(BACKUPS).join("wal/000000002.wal");
    disk.flip(&name, 300, 1).unwrap();
    let damaged = node.read("wal/000000002.wal");
    match node.wal(0, "wal") {
        Err(BackupError::Differs { path, .. }) => assert_eq!(path, name),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.read("wal/000000002.wal"), damaged);
    assert!(!node.names("wal").iter().any(|n| n.ends_with(".tmp")));
    assert_eq!(node.engine.backup_status().wal.consecutive_failures, 1);
}

#[test]
fn a_damaged_segment_is_named_and_not_copied() {
    let (mut node, disk, _) = in_memory();
    node.fill(3);
    disk.flip(&Path::new(HOME).join("wal/000000002.wal"), 400, 0x10)
        .unwrap();
    match node.wal(0, "wal") {
        Err(BackupError::Damaged { segment, .. }) => assert_eq!(segment.get(), 2),
        other => panic!("{other:?}"),
    }
    // What came before it is whole; it and what comes after are not there.
    assert_eq!(node.names("wal"), ["000000001.wal", "000000001.wal.sha256"]);
}

#[test]
fn a_purged_segment_is_a_gap_and_a_failure() {
    let (mut node, _, _) = in_memory();
    node.fill(4);
    node.engine.flush().unwrap();
    assert_eq!(node.engine.wal().purge(SegmentId::new(2)).unwrap().len(), 2);
    let gap = node.wal(1, "wal").unwrap_err();
    assert_eq!(gap.to_string(), "wal gap: segments 2-2 are no longer here");
    assert!(node.names("").is_empty());
    assert!(node.engine.backup_status().gap);
    assert_eq!(node.wal(2, "wal").unwrap(), [3, 4]);
    assert_eq!(node.wal(0, "wal").unwrap(), [3, 4]);
    assert!(!node.engine.backup_status().gap);
}

#[test]
fn leftovers_of_a_killed_call_are_removed_and_others_files_are_not() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    node.wal(0, "wal").unwrap();
    let folder = Path::new(BACKUPS).join("wal");
    let names = [
        "000000009.wal.tmp",
        "000000009.wal.sha256.tmp",
        "mine.tmp",
        "x.wal.tmp",
    ];
    for name in names {
        node.machine
            .disk
            .publish(&folder.join(name), b"half")
            .unwrap();
    }
    assert!(node.wal(1, "wal").unwrap().is_empty());
    assert_eq!(
        node.names("wal"),
        [
            "000000001.wal",
            "000000001.wal.sha256",
            "mine.tmp",
            "x.wal.tmp"
        ]
    );
}

#[test]
fn a_snapshot_says_what_it_is_and_proves_it() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(2);
    let about = node.snapshot("daily/a.db").unwrap();
    assert_eq!(about.path, node.backups.join("daily/a.db"));
    assert_eq!((about.lsn, about.segment.get()), (node.engine.applied(), 2));
    assert_eq!(
        Some((about.lsn, about.digest)),
        node.engine.digest(None).unwrap()
    );
    check_snapshot(node.read("daily/a.db"), &about);
    let line = format!("{}  a.db\n", about.sha256);
    assert_eq!(node.read("daily/a.db.sha256"), line.as_bytes());
    assert_eq!(node.names("daily"), ["a.db", "a.db.sha256"]);

    node.seal();
    let sealed = node.snapshot("daily/a.db").unwrap();
    assert_eq!(sealed.segment.get(), 3);
    check_snapshot(node.read("daily/a.db"), &sealed);
    assert_eq!(node.engine.backup_status().btree.last_bytes, sealed.bytes);
}

#[test]
fn a_snapshot_of_an_empty_namespace_works() {
    let (node, _, _) = in_memory();
    let about = node.snapshot("a").unwrap();
    assert_eq!((about.lsn, about.segment), (Lsn::FIRST, SegmentId::ZERO));
    check_snapshot(node.read("a"), &about);
}

#[test]
fn a_snapshot_copied_into_db_starts_with_all_that_was_written() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(2);
    let about = node.snapshot("a.db").unwrap();
    let elsewhere = tmp.path().join("elsewhere");
    let db = elsewhere.join("users/db");
    RealDisk.create_folders(&db).unwrap();
    RealDisk
        .publish(&db.join(DATA_FILE), &node.read("a.db"))
        .unwrap();
    let restored = real(&elsewhere);
    let key = Key::new(Bytes::from_static(b"last")).unwrap();
    assert_eq!(
        restored.engine.kv(&key).unwrap(),
        node.engine.kv(&key).unwrap()
    );
    assert!(restored.engine.kv(&key).unwrap().is_some());
    assert!(restored.engine.history().holds(about.lineage, about.lsn));
}

#[test]
fn a_snapshot_waits_for_nothing_that_is_not_applied() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    let ahead = node.engine.applied().next();
    match node.engine.backup_snapshot("a", ahead) {
        Err(BackupError::Behind { through, applied }) => {
            assert_eq!((through, applied), (ahead, node.engine.applied()));
        }
        other => panic!("{other:?}"),
    }
    assert!(node.names("").is_empty());
}

#[test]
fn a_streamed_snapshot_is_the_same_file_and_leaves_none() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    let mut bytes = Vec::new();
    let about = node
        .engine
        .snapshot_to(node.engine.applied(), &mut |block| {
            bytes.extend_from_slice(block);
            Ok(())
        })
        .unwrap();
    check_snapshot(bytes, &about);
    assert_eq!(about.path, PathBuf::new());
    assert!(node.names("").is_empty());
    // Whoever left: nothing stays either.
    let gone = node
        .engine
        .snapshot_to(Lsn::ZERO, &mut |_| Err(io::ErrorKind::BrokenPipe.into()));
    assert!(matches!(gone, Err(BackupError::Io { .. })));
    assert!(node.names("").is_empty());
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
    assert_eq!(node.engine.backup_status(), super::BackupStatus::default());
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

#[test]
fn a_full_or_failing_target_is_told_in_its_words_and_the_previous_snapshot_stays() {
    let (mut node, disk, _) = in_memory();
    node.fill(2);
    let good = node.snapshot("a").unwrap();
    node.put("more", b"data");
    node.engine.flush().unwrap();
    let no_room = "no space left on device";
    for (kind, effect, text) in [
        (OpKind::CreateFile, Effect::Full, no_room),
        (OpKind::Write, Effect::Full, no_room),
        (OpKind::Write, Effect::Quota, no_room),
        (OpKind::Sync, Effect::Full, no_room),
        (OpKind::Rename, Effect::Full, no_room),
        (
            OpKind::CreateFile,
            Effect::Denied,
            "permission denied: /data/backups/users",
        ),
        (OpKind::Sync, Effect::Eio, "/data/backups/users/a.tmp: "),
    ] {
        disk.inject(Rule::once(kind, BACKUPS, effect));
        let said = node.snapshot("a").unwrap_err().to_string();
        assert!(said.starts_with(text), "{kind:?} {effect:?}: {said}");
        assert!(text != no_room || said == text, "{said}");
        check_snapshot(node.read("a"), &good);
        assert!(
            node.names("").iter().all(|n| !n.ends_with(".tmp")),
            "{kind:?} {effect:?}"
        );
    }
    let failures = node.engine.backup_status().btree.consecutive_failures;
    assert_eq!(failures, 7);
    // The namespace itself never noticed.
    assert_eq!(node.engine.stopped(), None);
    let again = node.snapshot("a").unwrap();
    check_snapshot(node.read("a"), &again);
    assert_eq!(node.engine.backup_status().btree.consecutive_failures, 0);
}

#[test]
fn a_snapshot_is_kept_as_it_was_while_the_namespace_goes_on() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    let at = node.engine.applied();
    let taken = node.engine.snapshot_file(at).unwrap();
    node.put("later", b"x");
    node.engine.flush().unwrap();
    let mut bytes = vec![0; usize::try_from(taken.about.bytes).unwrap()];
    taken.read_exact_at(&mut bytes, 0).unwrap();
    check_snapshot(bytes, &taken.about);
    assert_eq!(taken.about.lsn, at);
}

/// Loses power at every operation of `backup`; what is found afterwards must satisfy `check`.
fn sweep(
    backup: impl Fn(&Node) -> Result<(), BackupError>,
    done: impl Fn(&MemoryDisk) -> bool,
    check: impl Fn(&MemoryDisk, &str),
) -> u64 {
    let ready = || {
        let (mut node, disk, clock) = in_memory();
        node.fill(2);
        node.engine.flush().unwrap();
        node.wal(1, "wal").unwrap();
        node.snapshot("a").unwrap();
        node.put("more", b"data");
        node.engine.flush().unwrap();
        (node, disk, clock)
    };
    let (node, disk, _) = ready();
    let first = disk.ops();
    backup(&node).unwrap();
    let last = disk.ops();
    for seed in 0..10 {
        assert!(
            done(&disk.crash(seed)),
            "what was answered is durable, seed {seed}"
        );
    }
    for n in first..last {
        let (node, disk, clock) = ready();
        disk.freeze_at(n);
        // Past the publication only the record of it is lost: that fails no backup.
        let failed = backup(&node).is_err();
        for seed in [n, n + 1000] {
            let after = disk.crash(seed);
            let when = format!("power lost at {n} of {first}..{last}, seed {seed}");
            check(&after, &when);
            if !failed {
                continue;
            }
            let again = Node::start(&platform_on(&after, &clock, seed), Path::new("/data"));
            backup(&again).unwrap();
            let left: Vec<_> = again
                .names("wal")
                .into_iter()
                .chain(again.names(""))
                .collect();
            assert!(
                left.iter().all(|n| !n.ends_with(".tmp")),
                "{when}: {left:?}"
            );
        }
    }
    last - first
}

#[test]
fn power_lost_at_any_operation_of_a_wal_backup_leaves_whole_files_only() {
    let check = |disk: &MemoryDisk, when: &str| {
        let folder = Path::new(BACKUPS).join("wal");
        for entry in disk.list(&folder).unwrap() {
            if !entry.name.ends_with(".wal") {
                continue;
            }
            let verified = unisondb_wal::verify(disk, &folder.join(&entry.name));
            verified.unwrap_or_else(|e| panic!("{when}: {}: {e}", entry.name));
        }
        assert!(
            disk.exists(&folder.join("000000002.wal")).unwrap(),
            "{when}: the earlier copy"
        );
    };
    let done = |disk: &MemoryDisk| {
        let folder = Path::new(BACKUPS).join("wal");
        ["000000001.wal", "000000001.wal.sha256"]
            .iter()
            .all(|n| disk.exists(&folder.join(n)).unwrap())
    };
    let operations = sweep(|node| node.wal(0, "wal").map(drop), done, check);
    assert!(operations >= 12, "{operations}");
}

#[test]
fn power_lost_at_any_operation_of_a_snapshot_leaves_the_old_one_or_the_new_one() {
    let check = |disk: &MemoryDisk, when: &str| {
        let bytes = disk.read(&Path::new(BACKUPS).join("a"), 1 << 30).unwrap();
        let trailer = Trailer::find(&bytes)
            .unwrap()
            .unwrap_or_else(|| panic!("{when}: no trailer"));
        trailer
            .verify(&bytes)
            .unwrap_or_else(|e| panic!("{when}: {e}"));
        if let Ok(sum) = disk.read(&Path::new(BACKUPS).join("a.sha256"), 999) {
            assert_eq!(sum, format!("{}  a\n", sha256(&bytes)).as_bytes(), "{when}");
        }
    };
    let done = |disk: &MemoryDisk| {
        let bytes = disk.read(&Path::new(BACKUPS).join("a"), 1 << 30).unwrap();
        let lsn = Trailer::find(&bytes).unwrap().unwrap().lsn;
        // Lineage, two segments (write, seal, check), two more writes: the old one ends before.
        lsn == Lsn::new(9) && disk.exists(&Path::new(BACKUPS).join("a.sha256")).unwrap()
    };
    let operations = sweep(|node| node.snapshot("a").map(drop), done, check);
    assert!(operations >= 10, "{operations}");
}
