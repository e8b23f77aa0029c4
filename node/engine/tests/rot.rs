//! Bytes that rot in LMDB's file under a running namespace (P13): found before they are served or
//! copied, and the namespace stops.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use std::os::unix::fs::FileExt;

use rig::Rig;
use unisondb_engine::Error;
use unisondb_platform::real;
use unisondb_types::Key;

const MARK: &str = "a value that is easy to find in the file";

/// A flushed namespace, one byte of one value flipped in its file.
fn rotten(run: impl FnOnce(&Rig, &std::path::Path)) {
    let dir = tempfile::tempdir().unwrap();
    let home = rig::home(dir.path());
    let mut rig = Rig::open(&real::platform(), &home).unwrap();
    for i in 0..50 {
        rig.put(&format!("k{i}"), "whole").unwrap();
    }
    rig.put("bad", MARK).unwrap();
    rig.engine.flush().unwrap();
    let path = home.join("db/data.mdb");
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(MARK.len())
        .rposition(|w| w == MARK.as_bytes())
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"A", at as u64).unwrap();
    run(&rig, dir.path());
    assert!(rig.engine.stopped().is_some(), "damage stops the namespace");
}

#[test]
fn a_rotten_entry_is_not_served() {
    rotten(|rig, _| {
        let key = Key::new("bad").unwrap();
        assert!(matches!(rig.engine.kv(&key), Err(Error::Damaged { .. })));
    });
}

#[test]
fn a_rotten_entry_is_not_copied_into_a_snapshot() {
    rotten(|rig, dir| {
        let through = rig.engine.applied();
        let failed = rig.engine.backup_snapshot("snap/x.db", through);
        assert!(failed.is_err(), "{failed:?}");
        // Nor is anything left of it, its folders included (B12).
        let left = std::fs::read_dir(dir.join("backups"));
        assert!(left.is_err(), "{left:?}");
    });
}

#[test]
fn a_scrub_finds_a_rotten_entry() {
    rotten(|rig, _| {
        assert!(matches!(rig.scrub(), Err(Error::Damaged { .. })));
    });
}
