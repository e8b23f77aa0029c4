//! Where a `data.mdb` may come from, and what a start does before LMDB may have it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};

use rig::request;
use rig::world::world;

#[test]
fn a_file_of_unknown_origin_is_written_afresh_before_it_is_mapped() {
    let w = world();
    let data = w.home.join("db/data.mdb");
    // The documented way of a copy: what was written to it may be in the page cache alone.
    fs::remove_file(w.home.join("db/owner")).unwrap();
    let before = fs::metadata(&data).unwrap().ino();
    let mut held = fs::File::open(&data).unwrap();
    let bytes = fs::read(&data).unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    assert_ne!(fs::metadata(&data).unwrap().ino(), before, "a new file");
    let mut old = Vec::new();
    held.read_to_end(&mut old).unwrap();
    assert!(old == bytes, "the old one was not written to");
    assert!(!w.home.join("db/data.mdb.tmp").exists());
}

#[test]
fn a_state_behind_a_link_is_copied_and_nothing_is_written_through_the_link() {
    let w = world();
    let snapshot = fs::read(&w.snapshot).unwrap();
    w.empty("db");
    w.empty("wal");
    let data = w.home.join("db/data.mdb");
    symlink(&w.snapshot, &data).unwrap();
    let mut rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
    rig.put("new", "value").unwrap();
    rig.close();
    assert!(!fs::symlink_metadata(&data).unwrap().is_symlink());
    assert_eq!(
        fs::read(&w.snapshot).unwrap(),
        snapshot,
        "the backup is what it was"
    );
}
