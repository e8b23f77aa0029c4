//! What [`DiskExt`] makes of those calls.

use std::io::ErrorKind;
use std::path::Path;

use super::{get, names, ok, put, refused};
use crate::{Disk, DiskExt};

pub(super) fn whole_files(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    refused(
        "nothing is not read",
        ErrorKind::NotFound,
        disk.read(&path, 10),
    );
    assert!(!ok("a name is looked for", disk.exists(&path)));
    put(disk, &path, b"12345");
    assert!(ok("a name is looked for", disk.exists(&path)));
    assert!(ok("a folder is looked for", disk.exists(folder)));
    assert_eq!(ok("a limit may be reached", disk.read(&path, 5)), b"12345");
    refused(
        "a limit is kept",
        ErrorKind::FileTooLarge,
        disk.read(&path, 4),
    );
}

pub(super) fn publishing(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    ok("bytes are published", disk.publish(&path, b"one"));
    assert_eq!(get(disk, &path), b"one");
    put(
        disk,
        &folder.join("file.tmp"),
        b"left over by a crash, and longer",
    );
    ok("publishing replaces", disk.publish(&path, b"two"));
    assert_eq!(
        get(disk, &path),
        b"two",
        "a stale temporary file is not reused"
    );
    assert_eq!(names(disk, folder), ["file"], "no temporary file stays");
    let result = disk.publish(&folder.join("no/file"), b"");
    refused("the folder must exist", ErrorKind::NotFound, result);
    let sub = folder.join("sub");
    ok("a folder is made", disk.create_folder(&sub));
    let result = disk.publish(&sub, b"bytes");
    refused("a folder is not replaced", ErrorKind::IsADirectory, result);
    assert_eq!(
        names(disk, folder),
        ["file", "sub"],
        "a failed publishing leaves nothing"
    );
}

pub(super) fn folders_with_parents(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("a/b/c");
    ok("parents are made", disk.create_folders(&path));
    ok("what is there is fine", disk.create_folders(&path));
    assert!(names(disk, &path).is_empty());
    put(disk, &folder.join("file"), b"");
    let result = disk.create_folders(&folder.join("file"));
    refused("a file is no folder", ErrorKind::NotADirectory, result);
    let result = disk.create_folders(&folder.join("file/below"));
    refused("a file is no parent", ErrorKind::NotADirectory, result);
}

pub(super) fn removing_all(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("a");
    ok("nothing there is no error", disk.remove_all(&path));
    ok("no parent is no error", disk.remove_all(&path.join("b")));
    ok("folders are made", disk.create_folders(&path.join("b/c")));
    put(disk, &path.join("b/c/file"), b"x");
    put(disk, &path.join("file"), b"y");
    put(disk, &folder.join("other"), b"z");
    ok("a folder goes with all in it", disk.remove_all(&path));
    assert_eq!(names(disk, folder), ["other"], "and nothing else");
    ok("a file goes", disk.remove_all(&folder.join("other")));
    assert!(names(disk, folder).is_empty());
    let result = disk.remove_all(Path::new("/"));
    refused("the root stays", ErrorKind::InvalidInput, result);
}
