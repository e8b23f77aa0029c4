//! The life of one namespace: written, flushed, killed, reopened, sealed; on a real disk.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use rig::Rig;
use unisondb_platform::real;

#[test]
fn what_was_written_is_there_after_a_reopen_with_the_same_digest() {
    let dir = tempfile::tempdir().unwrap();
    let home = rig::home(dir.path());
    let platform = real::platform();
    let mut rig = Rig::open(&platform, &home).unwrap();
    for i in 0..300 {
        rig.put(&format!("k{}", i % 70), &format!("value {i}"))
            .unwrap();
        if i == 100 {
            rig.engine.flush().unwrap();
        }
    }
    rig.seal().unwrap();
    assert!(rig.sealed().len() > 3, "4 KiB segments roll");
    let before = rig.moment();
    drop(rig);
    let rig = Rig::open(&platform, &home).unwrap();
    assert_eq!(rig.moment(), before);
    rig.close();
    let mut rig = Rig::open(&platform, &home).unwrap();
    assert_eq!(rig.moment(), before);
    rig.put("more", "x").unwrap();
    assert_eq!(rig.keys().len(), 71);
}

#[test]
fn without_lmdb_the_state_is_rebuilt_from_the_whole_log() {
    let dir = tempfile::tempdir().unwrap();
    let home = rig::home(dir.path());
    let platform = real::platform();
    let mut rig = Rig::open(&platform, &home).unwrap();
    for i in 0..100 {
        rig.put(&format!("k{i}"), "v").unwrap();
    }
    let before = rig.moment();
    rig.close();
    std::fs::remove_dir_all(home.join("db")).unwrap();
    let rig = Rig::open(&platform, &home).unwrap();
    assert_eq!(rig.moment(), before);
}
