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
use std::path::Path;

use rig::world::{World, segments, world};
use rig::{Rig, request};
use unisondb_engine::start::{Note, OnGap, Request, StartError};
use unisondb_store::Trailer;
use unisondb_types::SegmentId;

/// A trailer is one page.
const TRAILER_BYTES: usize = 4096;

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
fn a_state_that_has_another_name_is_copied_and_the_backup_is_not_written_to() {
    let links: [fn(&Path, &Path) -> std::io::Result<()>; 2] = [
        |from, to| symlink(from, to),
        |from, to| fs::hard_link(from, to),
    ];
    for link in links {
        let w = world();
        let snapshot = fs::read(&w.snapshot).unwrap();
        w.empty("db");
        w.empty("wal");
        let data = w.home.join("db/data.mdb");
        link(&w.snapshot, &data).unwrap();
        let mut rig = w.open(&request()).unwrap();
        rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
        rig.put("new", "value").unwrap();
        rig.close();
        let meta = fs::symlink_metadata(&data).unwrap();
        assert!(meta.is_file() && meta.nlink() == 1);
        assert_eq!(
            fs::read(&w.snapshot).unwrap(),
            snapshot,
            "the backup is what it was"
        );
    }
}

/// A folder with nothing but these bytes as its state.
fn only(w: &World, bytes: &[u8]) {
    w.empty("db");
    w.empty("wal");
    fs::write(w.home.join("db/data.mdb"), bytes).unwrap();
}

#[test]
fn a_snapshot_cut_in_its_trailer_or_added_to_is_corrupted_and_left_as_it_is() {
    let w = world();
    let whole = fs::read(&w.snapshot).unwrap();
    let image = whole.len() - TRAILER_BYTES;
    let mut cases: Vec<Vec<u8>> = [1, 15, 16, 17, 2048, TRAILER_BYTES - 1]
        .iter()
        .map(|n| whole[..image + n].to_vec())
        .collect();
    for more in [1, TRAILER_BYTES] {
        cases.push([&whole[..], &vec![0; more]].concat());
        cases.push([&whole[..image], &vec![7; more]].concat());
    }
    for stale_owner in [false, true] {
        for bytes in &cases {
            only(&w, bytes);
            // An owner left over by who did not empty the folder says nothing about this file.
            if stale_owner {
                if !Trailer::may_begin(&bytes[image..]) {
                    continue;
                }
                fs::write(w.home.join("db/owner"), [5; 16]).unwrap();
            }
            let e = match w.open(&request()) {
                Err(e @ StartError::Corrupted { .. }) => e.to_string(),
                Err(e) => panic!("{e}"),
                Ok(_) => panic!("opened with {} bytes behind the image", bytes.len() - image),
            };
            assert!(e.contains("no whole trailer"), "{e}");
            assert!(
                fs::read(w.home.join("db/data.mdb")).unwrap() == *bytes,
                "untouched"
            );
        }
    }
}

#[test]
fn a_file_without_a_trailer_opens_after_a_full_scan_and_says_so() {
    let w = world();
    let whole = fs::read(&w.snapshot).unwrap();
    only(&w, &whole[..whole.len() - TRAILER_BYTES]);
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
    let said = |n: &&Note| n.field == "verified" && n.text.contains("no trailer");
    assert!(rig.notes.iter().any(|n| said(&n)), "{:?}", rig.notes);
    rig.close();
    let rig = w.open(&request()).unwrap();
    assert!(!rig.notes.iter().any(|n| said(&n)), "said once");
}

#[test]
fn our_own_file_may_be_longer_than_its_last_commit_says() {
    let w = world();
    let data = w.home.join("db/data.mdb");
    let mut bytes = fs::read(&data).unwrap();
    bytes.extend([3; 8192]);
    fs::write(&data, bytes).unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
}

#[test]
fn a_lock_file_that_cannot_be_had_is_named_before_the_trailer_is_cut() {
    let w = world();
    w.put_snapshot();
    let (lock, data) = (w.home.join("db/lock.mdb"), w.home.join("db/data.mdb"));
    // Opened for writing, a folder fails for every user, root too.
    fs::create_dir(&lock).unwrap();
    match w.open(&request()) {
        Err(e) => assert!(e.to_string().contains("lock.mdb"), "{e}"),
        Ok(_) => panic!("opened"),
    }
    assert!(
        fs::read(&data).unwrap() == fs::read(&w.snapshot).unwrap(),
        "untouched"
    );
    fs::remove_dir(&lock).unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
}

#[test]
fn pages_of_a_commit_that_failed_while_a_snapshot_was_taken_over_do_not_make_it_a_cut_one() {
    let w = world();
    let whole = fs::read(&w.snapshot).unwrap();
    // The trailer is off, the id that was to be entered beside, and the sync of that commit failed.
    only(&w, &whole[..whole.len() - TRAILER_BYTES]);
    let data = w.home.join("db/data.mdb");
    let mut bytes = fs::read(&data).unwrap();
    bytes.extend([3; 8192]);
    fs::write(&data, bytes).unwrap();
    fs::write(w.home.join("db/owner.failed"), [5; 16]).unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
    assert!(!w.home.join("db/owner.failed").exists());
}

#[test]
fn a_view_up_to_a_gap_is_made_of_a_state_whose_write_failed_too() {
    let w = world();
    // Once more, with a copy of the live state from before most of the log.
    w.empty("db");
    w.empty("wal");
    fs::remove_file(w.home.join("ids")).unwrap();
    fs::remove_dir_all(w.home.parent().unwrap().join("backups")).unwrap();
    let mut rig = Rig::open(&w.platform, &w.home).unwrap();
    rig.put("early", "1").unwrap();
    let at = rig.seal().unwrap();
    rig.close();
    let db = w.home.join("db");
    let (data, owner) = (
        fs::read(db.join("data.mdb")).unwrap(),
        fs::read(db.join("owner")).unwrap(),
    );
    let mut rig = Rig::open(&w.platform, &w.home).unwrap();
    for i in 0..120 {
        rig.put(&format!("k{i}"), &"x".repeat(200)).unwrap();
    }
    rig.seal().unwrap();
    rig.engine
        .backup_wal(SegmentId::ZERO, "wal/archive")
        .unwrap();
    rig.close();

    w.empty("db");
    fs::write(db.join("data.mdb"), [&data[..], &[3; 8192]].concat()).unwrap();
    fs::write(db.join("owner.failed"), owner).unwrap();
    w.put_archive();
    let there = segments(&w.home.join("wal"));
    fs::remove_file(&there[there.len() - 2]).unwrap();
    let read_only = Request {
        on_gap: OnGap::ReadOnly,
        ..request()
    };
    let rig = w.open(&read_only).unwrap();
    assert!(rig.engine.read_only().is_some());
    assert!(rig.engine.positions().applied > at);
    assert!(rig.keys().contains_key(&b"early"[..]));
}

#[test]
fn a_state_that_is_no_regular_file_is_called_corrupted_and_not_waited_for() {
    let w = world();
    let data = w.home.join("db/data.mdb");
    let pipe = |path: &std::path::Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    let folder = |path: &std::path::Path| fs::create_dir(path).unwrap();
    for (what, make) in [("a pipe", &pipe as &dyn Fn(&_)), ("a folder", &folder)] {
        w.empty("db");
        make(&data);
        match w.open(&request()).map(|r| r.notes) {
            Err(e @ StartError::Corrupted { .. }) => {
                assert!(e.to_string().contains("not a regular file"), "{what}: {e}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}
