//! Killed at any disk operation, a restore leaves the namespace as it was, or complete; the next
//! run goes through.

use std::path::Path;

use unisondb_platform::memory::{self, MemoryDisk};
use unisondb_platform::{Disk, DiskExt, Platform};
use unisondb_types::{Lsn, SegmentId, Target};

use super::super::{Existing, Request, RestoreError, Restored};
use super::{all_of, node::Node};

fn run(platform: &Platform, asked: &Request) -> Result<Restored, RestoreError> {
    let plan = super::super::plan(platform.disk.as_ref(), asked, &|_| {})?;
    super::super::run(platform, asked, &plan, &|_| {})
}

/// The names in a folder, sorted.
fn names(disk: &MemoryDisk, folder: &str) -> Vec<String> {
    disk.list(Path::new(folder))
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect()
}

fn sweep(existing: Existing) {
    let node = || {
        let mut node = Node::new(60);
        node.write(6);
        node.seal();
        node.snapshot("s.db");
        node.write(8);
        node.back_up_wal(SegmentId::ZERO, "wal");
        if existing == Existing::MoveToTrash {
            run(
                &node.platform,
                &all_of(&node, "/b", Target::Lsn(Lsn::new(3))),
            )
            .unwrap();
            node.disk
                .publish(Path::new("/b/users/witness"), b"old")
                .unwrap();
        }
        let mut asked = all_of(&node, "/b", Target::Lsn(Lsn::new(11)));
        asked.existing = existing;
        (node, asked)
    };
    let (whole, asked) = node();
    let before = whole.disk.ops();
    let done = run(&whole.platform, &asked).unwrap();
    let after = whole.disk.ops();
    let digest = done.digest;
    assert!(after > before + 20, "the restore does something");

    for n in (before..after).step_by(5) {
        let (node, asked) = node();
        node.disk.freeze_at(n);
        run(&node.platform, &asked).unwrap_err();
        let disk = node.disk.crash(n);
        let platform = memory::platform_on(&disk, &node.clock, n + 1000);
        // What a server would find now.
        let there = disk.exists(Path::new("/b/users")).unwrap();
        if there {
            let found = names(&disk, "/b/users");
            let old = found.contains(&"witness".to_owned());
            let new = found.contains(&"db".to_owned()) && found.contains(&"ids".to_owned());
            assert!(old || new, "operation {n}: {found:?}");
        } else if existing == Existing::MoveToTrash {
            // Between the two renames: the next run takes it back, nothing is lost.
            assert!(!names(&disk, "/b/trash").is_empty(), "operation {n}");
        }
        let mut again = asked.clone();
        again.existing = Existing::MoveToTrash;
        let done = run(&platform, &again).unwrap_or_else(|e| panic!("operation {n}: {e}"));
        assert_eq!(done.digest, digest, "operation {n}");
        let left = names(&disk, "/b");
        assert!(
            !left
                .iter()
                .any(|n| n.ends_with(".partial") || n.ends_with(".restore")),
            "{left:?}"
        );
    }
}

#[test]
fn a_restore_killed_at_any_operation_leaves_nothing_or_all() {
    sweep(Existing::Refuse);
}

#[test]
fn a_forced_restore_killed_at_any_operation_loses_neither_namespace() {
    sweep(Existing::MoveToTrash);
}
