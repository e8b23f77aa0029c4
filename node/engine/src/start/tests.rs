//! What only the inside can do: a store that fails, a disk that loses power at a chosen moment.

use std::path::Path;

use unisondb_platform::memory::{self, MemoryDisk, OpKind};
use unisondb_platform::{Access, Disk, DiskExt, FileExt};
use unisondb_types::{Lsn, SegmentId, Target};

use super::{Opened, Request};
use crate::restore::tests::node::{Node, folders, options};

/// Whether the file was made anew: synced, renamed over the old one, its folder synced.
fn was_written_afresh(disk: &MemoryDisk) -> bool {
    let db = Path::new("/a/users/db");
    let (fresh, data) = (db.join("data.mdb.tmp"), db.join("data.mdb"));
    let mut log = disk.log().into_iter();
    log.any(|op| op.kind == OpKind::Sync && op.path == fresh)
        && log.any(|op| op.path == fresh && op.to.as_ref() == Some(&data))
        && log.any(|op| op.kind == OpKind::SyncFolder && op.path == db)
}

fn digest(opened: &Opened) -> unisondb_types::Digest {
    opened.engine.digest(None).unwrap().unwrap().1
}

#[test]
fn a_failed_write_of_the_state_disowns_its_file_and_the_next_start_writes_it_afresh() {
    let mut node = Node::new(70);
    node.write(6);
    node.engine().flush().unwrap();
    let last = node.write(3);
    let at = node.moment(last);
    node.engine().0.store.poison("a sync failed");
    let there = |name: &str| {
        node.disk
            .exists(&Path::new("/a/users/db").join(name))
            .unwrap()
    };
    assert!(!there("owner") && there("owner.failed"));
    assert!(node.engine().flush().is_err(), "nothing more is written");

    let disk = node.disk.crash(1);
    let platform = memory::platform_on(&disk, &node.clock, 71);
    // Targets of an earlier restore are still in the settings: this folder is not a restored one.
    for target in [Target::Immediate, Target::Latest, Target::Lsn(last.prev())] {
        let wanted = Request {
            target: Some(target),
            ..options()
        };
        let plan = super::inspect(&platform, &folders(Path::new("/a")), &wanted).unwrap();
        assert_eq!(plan.action, super::Action::GoOn, "{target:?}");
    }
    let opened = super::open(&platform, &folders(Path::new("/a")), &options()).unwrap();
    assert_eq!(digest(&opened), at.digest, "nothing acknowledged is lost");
    assert!(opened.engine.history().parent.is_none(), "the same lineage");
    assert!(opened.notes.iter().any(|n| n.value == "rewritten"));
    assert!(was_written_afresh(&disk));
    assert!(disk.exists(Path::new("/a/users/db/owner")).unwrap());
    assert!(!disk.exists(Path::new("/a/users/db/owner.failed")).unwrap());
    drop(opened);
    let plan = super::inspect(&platform, &folders(Path::new("/a")), &options()).unwrap();
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
}

#[test]
fn a_state_whose_write_failed_stays_our_own_wherever_its_rewriting_is_interrupted() {
    let mut node = Node::new(77);
    node.write(6);
    node.engine().flush().unwrap();
    let last = node.write(3);
    let at = node.moment(last);
    let owner = Path::new("/a/users/db/owner");
    let id = node.disk.read(owner, 64).unwrap();
    node.engine().0.store.poison("a sync failed");
    let stopped = node.disk.crash(1);
    let run = |disk: &MemoryDisk, target| {
        let platform = memory::platform_on(disk, &node.clock, 78);
        let wanted = Request {
            target,
            ..options()
        };
        super::open(&platform, &folders(Path::new("/a")), &wanted)
    };
    let whole = stopped.kill();
    drop(run(&whole, None).unwrap());
    // No commit makes it ours, which could fail as the last one did: the id in it still counts.
    assert_eq!(whole.read(owner, 64).unwrap(), id);
    for n in 0..whole.ops() {
        let disk = stopped.kill();
        disk.freeze_at(n);
        drop(run(&disk, None));
        for lost in [disk.kill(), disk.crash(n)] {
            // A target from an earlier restore is still in the settings, and must not act.
            let opened = run(&lost, Some(Target::Immediate));
            let opened = opened.unwrap_or_else(|e| panic!("operation {n}: {e}"));
            assert_eq!(digest(&opened), at.digest, "operation {n}");
            assert!(opened.engine.history().parent.is_none(), "operation {n}");
        }
    }
}

/// Twins: the same lineage, ids, LSNs and lengths, and other values; as after a copied machine.
fn twin(value: &str) -> (Node, Lsn) {
    let mut node = Node::new(72);
    for i in 0..6 {
        node.put(&format!("key-{i}"), &format!("{value:>300}"));
    }
    // The state at a segment's very end.
    node.seal_unchecked();
    let at = node.snapshot("s.db");
    for i in 0..30 {
        node.put(&format!("key-{i}"), &format!("{value:>300}"));
    }
    node.back_up_wal(SegmentId::ZERO, "wal");
    (node, at)
}

#[test]
fn a_log_that_begins_just_behind_the_state_must_begin_behind_this_very_state() {
    let ((node, at), (other, theirs)) = (twin("a"), twin("b"));
    assert_eq!(
        (node.engine().lineage(), at),
        (other.engine().lineage(), theirs)
    );
    for (from, fits) in [(&other, false), (&node, true)] {
        let (platform, disk, _) = memory::platform(73);
        let home = Path::new("/c/users");
        for folder in ["db", "wal"] {
            disk.create_folders(&home.join(folder)).unwrap();
        }
        let snapshot = node
            .disk
            .read(&node.backups().join("s.db"), 1 << 30)
            .unwrap();
        disk.publish(&home.join("db/data.mdb"), &snapshot).unwrap();
        let behind = |s: &unisondb_wal::SegmentInfo| s.digest.is_some() && s.first_lsn() > at;
        let segments = from.engine().wal().segments();
        for id in segments.iter().filter(|s| behind(s)).map(|s| s.id) {
            let path = from.backups().join("wal").join(id.file_name());
            let bytes = from.disk.read(&path, 1 << 30).unwrap();
            disk.publish(&home.join("wal").join(id.file_name()), &bytes)
                .unwrap();
        }
        let opened = super::open(&platform, &folders(Path::new("/c")), &options());
        match opened {
            Ok(opened) => {
                assert!(fits && opened.engine.applied() > at, "{fits}");
            }
            Err(super::StartError::Refused(e)) => {
                assert!(!fits && e.contains("another history"), "{fits}: {e}");
                assert!(
                    !disk.exists(&home.join("db/owner")).unwrap(),
                    "not taken over"
                );
            }
            Err(e) => panic!("{fits}: {e}"),
        }
    }
}

#[test]
fn segments_are_moved_aside_newest_first_and_their_folders_synced_once() {
    let (node, at) = twin("a");
    let snapshot = node
        .disk
        .read(&node.backups().join("s.db"), 1 << 30)
        .unwrap();
    let stopped = node.disk.kill();
    stopped.remove_all(Path::new("/a/users/db")).unwrap();
    stopped.create_folder(Path::new("/a/users/db")).unwrap();
    let data = Path::new("/a/users/db/data.mdb");
    stopped.publish(data, &snapshot).unwrap();
    let wanted = Request {
        target: Some(Target::Immediate),
        ..options()
    };
    let wal = Path::new("/a/users/wal");
    let run = |disk: &MemoryDisk| {
        let platform = memory::platform_on(disk, &node.clock, 74);
        super::open(&platform, &folders(Path::new("/a")), &wanted)
    };
    let disk = stopped.kill();
    drop(run(&disk).unwrap());
    let log = disk.log();
    let aside = |p: &Path| p.to_string_lossy().contains("/wal.lineage-");
    let moved: Vec<_> = log
        .iter()
        .filter(|op| op.to.as_deref().is_some_and(aside))
        .collect();
    assert!(moved.len() >= 3, "{moved:?}");
    assert!(moved.is_sorted_by(|a, b| a.path > b.path), "{moved:?}");
    let (first, last) = (moved[0].number, moved[moved.len() - 1].number);
    let between = log.iter().filter(|op| op.kind == OpKind::SyncFolder);
    let between = between
        .filter(|op| (first..=last).contains(&op.number))
        .count();
    assert_eq!(between, 0, "no sync between the moves");
    let synced = log
        .iter()
        .filter(|op| op.kind == OpKind::SyncFolder && aside(&op.path));
    assert_eq!(synced.count(), 1, "one for all");

    // Without power between any two of them, what is left is one log, and the restore goes on.
    for n in first..=last + 2 {
        for seed in 0..4 {
            let disk = stopped.kill();
            disk.freeze_at(n);
            assert!(run(&disk).is_err());
            let lost = disk.crash(seed);
            let left = unisondb_wal::survey(&lost, wal).unwrap().segments;
            let ids: Vec<u64> = left.iter().map(|s| s.id.get()).collect();
            assert!(ids.is_sorted_by(|a, b| a + 1 == *b), "{n}, {seed}: {ids:?}");
            let opened = run(&lost).unwrap();
            let parent = opened.engine.history().parent.clone().unwrap();
            assert_eq!(parent.fork, at, "{n}, {seed}");
        }
    }
}

#[test]
fn segments_copied_by_hand_survive_a_power_loss_after_the_restore() {
    let (node, at) = twin("a");
    let ids: Vec<SegmentId> = node
        .engine()
        .wal()
        .segments()
        .into_iter()
        .filter(|s| s.digest.is_some())
        .map(|s| s.id)
        .collect();
    let (platform, disk, clock) = memory::platform(75);
    let home = Path::new("/c/users");
    for folder in ["db", "wal"] {
        disk.create_folders(&home.join(folder)).unwrap();
    }
    let snapshot = node
        .disk
        .read(&node.backups().join("s.db"), 1 << 30)
        .unwrap();
    disk.publish(&home.join("db/data.mdb"), &snapshot).unwrap();
    for id in &ids {
        let path = node.backups().join("wal").join(id.file_name());
        let bytes = node.disk.read(&path, 1 << 30).unwrap();
        // As cp does it: nobody syncs the bytes, nobody the name.
        let file = disk.open(&home.join("wal").join(id.file_name()), Access::CreateNew);
        file.unwrap().write_all_at(&bytes, 0).unwrap();
    }
    let opened = super::open(&platform, &folders(Path::new("/c")), &options()).unwrap();
    let reached = digest(&opened);
    assert!(opened.engine.applied() > at);
    for seed in 0..12 {
        let lost = disk.crash(seed);
        for id in &ids {
            let path = home.join("wal").join(id.file_name());
            let verified = unisondb_wal::verify(&lost, &path);
            assert!(verified.is_ok(), "seed {seed}, {id}: {verified:?}");
        }
        let platform = memory::platform_on(&lost, &clock, 76);
        let again = super::open(&platform, &folders(Path::new("/c")), &options()).unwrap();
        assert_eq!(digest(&again), reached, "seed {seed}");
        assert!(!again.notes.iter().any(|n| n.degraded), "{:?}", again.notes);
    }
}
