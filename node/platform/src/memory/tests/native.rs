//! Folders that lie on the machine's own file system.

use std::io::ErrorKind;

use super::*;
use crate::EntryKind;

#[test]
fn a_native_folder_is_seen_where_it_belongs() {
    let disk = with_native();
    disk.create_folders(path("/data/db")).unwrap();
    create(&disk, "/data/a", b"");
    create(&disk, "/data/e", b"");
    create(&disk, "/data/db/data.mdb", b"x");
    assert_eq!(names(&disk, "/data"), ["a", "db", "e"]);
    assert_eq!(disk.list(path("/data")).unwrap()[1].kind, EntryKind::Folder);
    let real = disk.native(path("/data/db")).unwrap();
    assert_eq!(std::fs::read(real.join("data.mdb")).unwrap(), b"x");
    assert_eq!(
        disk.native(path("/data")).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let error = disk.create_folder(path("/no/db")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "its parent must exist");
    let error = disk.remove_folder(path("/data")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
    disk.remove_all(path("/data")).unwrap();
    assert!(!real.exists());
}

#[test]
fn a_crash_keeps_native_folders_and_gives_them_a_new_place() {
    let disk = with_native();
    disk.create_folders(path("/data/db")).unwrap();
    create(&disk, "/data/db/data.mdb", b"committed");
    let real = disk.native(path("/data/db")).unwrap();
    let after = disk.crash(3);
    std::fs::write(real.join("data.mdb"), b"written by the dead").unwrap();
    assert_eq!(read(&after, "/data/db/data.mdb").unwrap(), b"committed");
    assert_ne!(after.native(path("/data/db")).unwrap(), real);
    assert_eq!(
        read(&disk.kill(), "/data/db/data.mdb").unwrap(),
        b"committed"
    );
}

#[test]
fn freezing_stops_native_folders_too() {
    let disk = with_native();
    disk.create_folders(path("/data/db")).unwrap();
    let file = create(&disk, "/data/db/owner", b"a");
    let ops = disk.ops();
    disk.freeze_at(ops + 1);
    file.write_all_at(b"b", 0).unwrap();
    file.write_all_at(b"c", 0).unwrap_err();
    file.sync().unwrap_err();
    disk.remove_file(path("/data/db/owner")).unwrap_err();
    disk.rename(path("/data/db"), path("/data/db.old"))
        .unwrap_err();
    disk.create_folder(path("/data/db/more")).unwrap_err();
    assert_eq!(read(&disk.crash(0), "/data/db/owner").unwrap(), b"b");
}

#[test]
fn a_native_folder_goes_where_its_parent_goes() {
    let disk = with_native();
    disk.create_folders(path("/live/name/db")).unwrap();
    disk.create_folders(path("/trash")).unwrap();
    create(&disk, "/live/name/db/data.mdb", b"x");
    let real = disk.native(path("/live/name/db")).unwrap();
    disk.rename(path("/live/name"), path("/trash/name"))
        .unwrap();
    assert_eq!(
        disk.native(path("/trash/name/db")).unwrap(),
        real,
        "nothing was moved"
    );
    let (mut moved, mut stayed) = (false, false);
    for seed in 0..50 {
        let after = disk.crash(seed);
        let [there, here] = ["/trash/name/db/data.mdb", "/live/name/db/data.mdb"];
        let found = [there, here].map(|at| read(&after, at).is_some());
        moved |= found == [true, false];
        stayed |= found == [false, true];
        assert_ne!(found[0], found[1], "in one place");
    }
    assert!(moved && stayed, "the rename was not synced");
}

#[test]
fn a_native_folder_is_lost_with_a_parent_that_was_not_synced() {
    let disk = with_native();
    disk.create_folder(path("/data")).unwrap();
    // Not `create_folders`: that syncs the parent.
    disk.create_folder(path("/data/db")).unwrap();
    create(&disk, "/data/db/data.mdb", b"x");
    let mut ends = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let after = disk.crash(seed);
        ends.insert(after.exists(path("/data")).unwrap());
        if !after.exists(path("/data")).unwrap() {
            after.create_folders(path("/data")).unwrap();
            assert!(
                names(&after, "/data").is_empty(),
                "a new folder of the name is empty"
            );
        }
    }
    assert_eq!(ends.len(), 2);
}

#[test]
fn a_file_moves_into_and_out_of_a_native_folder() {
    let disk = with_native();
    disk.create_folders(path("/data/db")).unwrap();
    create(&disk, "/data/image", b"image");
    disk.rename(path("/data/image"), path("/data/db/data.mdb"))
        .unwrap();
    assert_eq!(names(&disk, "/data"), ["db"]);
    assert_eq!(read(&disk, "/data/db/data.mdb").unwrap(), b"image");
    disk.rename(path("/data/db/data.mdb"), path("/data/back"))
        .unwrap();
    assert_eq!(read(&disk, "/data/back").unwrap(), b"image");
    assert!(names(&disk, "/data/db").is_empty());
    disk.rename(path("/data/db"), path("/data/db.old")).unwrap();
    assert_eq!(names(&disk, "/data"), ["back", "db.old"]);
    let error = disk
        .rename(path("/data/db.old"), path("/data/elsewhere"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CrossesDevices);
}
