//! Killed at any disk operation, a restore leaves the namespace as it was, or complete; the next
//! run goes through.

use std::path::Path;

use unisondb_platform::memory::{self, Effect, MemoryDisk, OpKind, Rule};
use unisondb_platform::{Disk, DiskExt, Platform};
use unisondb_types::{Lsn, SegmentId, Target};

use super::super::{Existing, Request, RestoreError, Restored};
use super::all_of;
use super::node::{Node, folders, options};
use crate::start;

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

/// How the disk replaces a namespace.
#[derive(Clone, Copy, PartialEq)]
enum Disks {
    Exchange,
    RenameOnly,
}

/// The operations at the end of a run that put the namespace in place: each is a crash of its own.
const PLACING: u64 = 15;

fn sweep(existing: Existing, disks: Disks) {
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
        if disks == Disks::RenameOnly {
            let unsupported = Rule::always(OpKind::Exchange, "/", Effect::Unsupported);
            node.disk.inject(unsupported);
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

    let far = |n: &u64| *n + PLACING >= after || (n - before).is_multiple_of(5);
    for n in (before..after).filter(far) {
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
            assert_whole(&platform, if old { Lsn::new(3) } else { Lsn::new(11) });
        } else if existing == Existing::MoveToTrash {
            assert!(
                disks == Disks::RenameOnly,
                "operation {n}: absent, where names can be exchanged"
            );
            // Between the two renames: the next run takes it back, nothing is lost.
            assert!(!names(&disk, "/b/trash").is_empty(), "operation {n}");
            assert!(names(&disk, "/b").contains(&"users.restore".to_owned()));
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
        if existing == Existing::MoveToTrash {
            let kept = names(&disk, "/b/trash").iter().any(|n| {
                disk.exists(&Path::new("/b/trash").join(n).join("witness"))
                    .unwrap()
            });
            assert!(kept, "operation {n}: the old namespace is kept in trash/");
        }
    }
}

/// `/b/users` would go on, from a restore that ended at `fork`: all of it is there.
#[track_caller]
fn assert_whole(platform: &Platform, fork: Lsn) {
    let plan = start::inspect(platform, &folders(Path::new("/b")), &options()).unwrap();
    assert_eq!(plan.action, start::Action::GoOn);
    let segments = unisondb_wal::survey(platform.disk.as_ref(), Path::new("/b/users/wal"));
    let newest = segments.unwrap().segments.pop().unwrap().found.unwrap();
    assert_eq!(newest.header.first_lsn, fork.next());
}

#[test]
fn a_restore_killed_at_any_operation_leaves_nothing_or_all() {
    sweep(Existing::Refuse, Disks::Exchange);
}

#[test]
fn a_forced_restore_killed_at_any_operation_leaves_the_old_namespace_or_the_new_one_whole() {
    sweep(Existing::MoveToTrash, Disks::Exchange);
}

#[test]
fn without_an_exchange_a_forced_restore_that_is_killed_loses_neither_namespace() {
    sweep(Existing::MoveToTrash, Disks::RenameOnly);
}

#[test]
fn a_data_directory_that_may_not_be_written_is_named_and_not_its_lock() {
    let mut node = Node::new(61);
    node.write(6);
    node.seal();
    node.snapshot("s.db");
    let asked = all_of(&node, "/b", Target::Latest);
    for kind in [OpKind::CreateFolder, OpKind::Lock] {
        for effect in [Effect::ReadOnly, Effect::Denied] {
            node.disk.inject(Rule::once(kind, "/b", effect));
            let said = run(&node.platform, &asked).err().unwrap().to_string();
            assert_eq!(said, "permission denied: /b", "{kind:?} {effect:?}");
        }
    }
    run(&node.platform, &asked).unwrap();
}
