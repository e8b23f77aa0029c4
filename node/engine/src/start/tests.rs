//! What only the inside can do: a store that fails, a disk that loses power at a chosen moment.

use std::path::Path;

use unisondb_platform::DiskExt;
use unisondb_platform::memory::{self, MemoryDisk, OpKind};
use unisondb_types::Target;

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
