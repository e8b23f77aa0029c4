//! What each call of a disk and its files does, and with which error it refuses.

use std::io::ErrorKind;
use std::path::Path;

use super::{get, names, ok, put, refused};
use crate::{Access, Disk, DiskExt, EntryKind, FileExt};

pub(super) fn opening(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    for access in [Access::Read, Access::Write] {
        refused(
            "only what is there opens",
            ErrorKind::NotFound,
            disk.open(&path, access),
        );
        let result = disk.open(folder, access);
        refused("a folder is no file", ErrorKind::IsADirectory, result);
    }
    let orphan = folder.join("no/file");
    let result = disk.open(&orphan, Access::CreateNew);
    refused(
        "a file is made in a folder that is there",
        ErrorKind::NotFound,
        result,
    );

    let file = put(disk, &path, b"abc");
    let result = disk.open(&path, Access::CreateNew);
    refused(
        "CreateNew never opens what is there",
        ErrorKind::AlreadyExists,
        result,
    );
    assert_eq!(
        get(disk, &path),
        b"abc",
        "a refused CreateNew changes nothing"
    );
    let result = disk.open(&path.join("below"), Access::Read);
    refused(
        "nothing lies below a file",
        ErrorKind::NotADirectory,
        result,
    );

    let again = ok("a file opens twice", disk.open(&path, Access::Write));
    ok("the second handle writes", again.write_all_at(b"X", 1));
    let mut seen = [0; 3];
    ok("the first handle reads", file.read_exact_at(&mut seen, 0));
    assert_eq!(
        &seen, b"aXc",
        "written bytes are visible to every reader at once"
    );
    let reader = ok("a file opens for reading", disk.open(&path, Access::Read));
    assert!(reader.write_at(b"no", 0).is_err(), "a reader cannot write");
    assert!(reader.set_len(0).is_err(), "a reader cannot cut");
    assert_eq!(get(disk, &path), b"aXc");
}

pub(super) fn folders(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("folder");
    ok("a folder is made", disk.create_folder(&path));
    let result = disk.create_folder(&path);
    refused("a folder is made once", ErrorKind::AlreadyExists, result);
    let result = disk.create_folder(&folder.join("no/folder"));
    refused("the parent must exist", ErrorKind::NotFound, result);
    let meta = ok("a folder has meta data", disk.meta(&path));
    assert_eq!(meta.kind, EntryKind::Folder);
    let file = folder.join("file");
    put(disk, &file, b"12345");
    let result = disk.create_folder(&file);
    refused(
        "a folder does not replace a file",
        ErrorKind::AlreadyExists,
        result,
    );
    let meta = ok("a file has meta data", disk.meta(&file));
    assert_eq!((meta.kind, meta.len), (EntryKind::File, 5));
    refused(
        "nothing has no meta data",
        ErrorKind::NotFound,
        disk.meta(&folder.join("no")),
    );
}

pub(super) fn listing(disk: &dyn Disk, folder: &Path) {
    assert!(names(disk, folder).is_empty(), "a new folder is empty");
    let wanted = ["10", "9", "B", "Z.tmp", "a", "a.b", "b", "é"];
    for name in ["b", "é", "10", "a.b", "Z.tmp", "9", "a"] {
        put(disk, &folder.join(name), b"");
    }
    ok("a folder is made", disk.create_folder(&folder.join("B")));
    put(disk, &folder.join("B/inside"), b"");
    assert_eq!(
        names(disk, folder),
        wanted,
        "a listing is ordered by bytes, one level deep"
    );
    for entry in ok("a folder is listed", disk.list(folder)) {
        let kind = if entry.name == "B" {
            EntryKind::Folder
        } else {
            EntryKind::File
        };
        assert_eq!(entry.kind, kind, "of {}", entry.name);
    }
    refused(
        "nothing is no list",
        ErrorKind::NotFound,
        disk.list(&folder.join("no")),
    );
    refused(
        "a file is no list",
        ErrorKind::NotADirectory,
        disk.list(&folder.join("a")),
    );
}

pub(super) fn reading_and_writing(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    let file = put(disk, &path, b"");
    assert!(ok("a file has a length", file.is_empty()));
    assert_eq!(ok("nothing is written", file.write_at(b"", 7)), 0);
    assert_eq!(
        ok("a file has a length", file.len()),
        0,
        "no bytes, no growth"
    );
    ok(
        "a file is written past its end",
        file.write_all_at(b"end", 10_000),
    );
    assert_eq!(ok("a file has a length", file.len()), 10_003);
    let mut wanted = vec![0; 10_003];
    wanted[10_000..].copy_from_slice(b"end");
    assert_eq!(get(disk, &path), wanted, "a gap is zeroes");
    let all: Vec<u8> = (0..100_000u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
        .collect();
    ok("a file is overwritten", file.write_all_at(&all, 0));
    assert_eq!(get(disk, &path), all);
    let mut buf = [0; 10];
    assert_eq!(
        ok("the end is no error", file.read_at(&mut buf, 100_000)),
        0
    );
    assert_eq!(
        ok("past the end is no error", file.read_at(&mut buf, 1 << 40)),
        0
    );
    assert_eq!(ok("an empty read is no error", file.read_at(&mut [], 0)), 0);
    let n = ok(
        "a read before the end gives what there is",
        file.read_at(&mut buf, 99_995),
    );
    assert!((1..=5).contains(&n), "{n} bytes of the last 5");
    let result = file.read_exact_at(&mut buf, 99_995);
    refused(
        "an exact read is not short",
        ErrorKind::UnexpectedEof,
        result,
    );
}

pub(super) fn lengths(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    let file = put(disk, &path, &[7; 5000]);
    ok("a file is cut", file.set_len(4500));
    assert_eq!(get(disk, &path), [7; 4500]);
    ok("a file is extended", file.set_len(5000));
    let mut wanted = vec![7; 4500];
    wanted.resize(5000, 0);
    assert_eq!(get(disk, &path), wanted, "what was cut does not come back");
    ok("a file is emptied", file.set_len(0));
    assert!(ok("a file has a length", file.is_empty()));
}

pub(super) fn renaming_files(disk: &dyn Disk, folder: &Path) {
    let [a, b, sub] = ["a", "b", "sub"].map(|name| folder.join(name));
    let file = put(disk, &a, b"first");
    refused(
        "a name is renamed",
        ErrorKind::NotFound,
        disk.rename(&b, &a),
    );
    ok("a file is renamed", disk.rename(&a, &b));
    assert_eq!(names(disk, folder), ["b"], "a rename moves the name");
    ok("a handle outlives a rename", file.write_all_at(b"F", 0));
    assert_eq!(get(disk, &b), b"First");
    let old = put(disk, &a, b"second");
    ok("a rename replaces", disk.rename(&b, &a));
    assert_eq!(names(disk, folder), ["a"]);
    assert_eq!(get(disk, &a), b"First");
    let mut seen = [0; 6];
    ok(
        "what was replaced lives while it is open",
        old.read_exact_at(&mut seen, 0),
    );
    assert_eq!(&seen, b"second");
    ok("a rename to the same name is one", disk.rename(&a, &a));
    ok("a folder is made", disk.create_folder(&sub));
    refused(
        "a file replaces no folder",
        ErrorKind::IsADirectory,
        disk.rename(&a, &sub),
    );
    ok(
        "a file moves to another folder",
        disk.rename(&a, &sub.join("c")),
    );
    assert_eq!(get(disk, &sub.join("c")), b"First");
    assert_eq!(names(disk, folder), ["sub"]);
    let result = disk.rename(&sub.join("c"), &folder.join("no/c"));
    refused("the new folder must exist", ErrorKind::NotFound, result);
}

pub(super) fn renaming_folders(disk: &dyn Disk, folder: &Path) {
    let [a, b, file] = ["a", "b", "file"].map(|name| folder.join(name));
    ok("a folder is made", disk.create_folder(&a));
    put(disk, &a.join("inside"), b"x");
    ok("a folder is renamed", disk.rename(&a, &b));
    assert_eq!(get(disk, &b.join("inside")), b"x", "with all in it");
    assert!(!ok("a name is looked for", disk.exists(&a)));
    put(disk, &file, b"");
    refused(
        "a folder replaces no file",
        ErrorKind::NotADirectory,
        disk.rename(&b, &file),
    );
    let result = disk.rename(&b, &b.join("below"));
    refused(
        "no folder goes into itself",
        ErrorKind::InvalidInput,
        result,
    );
    ok("a folder is made", disk.create_folder(&a));
    put(disk, &a.join("other"), b"y");
    let result = disk.rename(&a, &b);
    refused(
        "what is in a folder is not replaced",
        ErrorKind::DirectoryNotEmpty,
        result,
    );
    assert_eq!(names(disk, &b), ["inside"]);
}

pub(super) fn exchanging(disk: &dyn Disk, folder: &Path) {
    let [a, b, sub] = ["a", "b", "sub"].map(|name| folder.join(name));
    let first = put(disk, &a, b"first");
    put(disk, &b, b"second");
    match disk.exchange(&a, &b) {
        // Said so, and done nothing: who asks has another way.
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            assert_eq!(
                (get(disk, &a), get(disk, &b)),
                (b"first".into(), b"second".into())
            );
            return;
        }
        exchanged => ok("two files are exchanged", exchanged),
    }
    assert_eq!(
        (get(disk, &a), get(disk, &b)),
        (b"second".into(), b"first".into())
    );
    ok("a handle follows its file", first.write_all_at(b"F", 0));
    assert_eq!(get(disk, &b), b"First");
    ok("a folder is made", disk.create_folder(&sub));
    put(disk, &sub.join("inside"), b"x");
    ok("a folder and a file are exchanged", disk.exchange(&a, &sub));
    assert_eq!(get(disk, &a.join("inside")), b"x", "with all in it");
    assert_eq!(get(disk, &sub), b"second");
    ok("across folders too", disk.exchange(&a.join("inside"), &b));
    assert_eq!(
        (get(disk, &a.join("inside")), get(disk, &b)),
        (b"First".into(), b"x".into())
    );
    ok("a name with itself is one", disk.exchange(&b, &b));
    assert_eq!(names(disk, folder), ["a", "b", "sub"]);
    let no = folder.join("no");
    for (one, other) in [(&a, &no), (&no, &a)] {
        let result = disk.exchange(one, other);
        refused("both must be there", ErrorKind::NotFound, result);
    }
    let inside = a.join("inside");
    for (one, other) in [(&a, &inside), (&inside, &a)] {
        let result = disk.exchange(one, other);
        refused(
            "no folder goes into itself",
            ErrorKind::InvalidInput,
            result,
        );
    }
    assert_eq!(
        names(disk, folder),
        ["a", "b", "sub"],
        "refused changes nothing"
    );
}

pub(super) fn removing(disk: &dyn Disk, folder: &Path) {
    let [file, sub] = ["file", "sub"].map(|name| folder.join(name));
    refused(
        "nothing is removed",
        ErrorKind::NotFound,
        disk.remove_file(&file),
    );
    refused(
        "nothing is removed",
        ErrorKind::NotFound,
        disk.remove_folder(&file),
    );
    let open = put(disk, &file, b"abc");
    ok("a folder is made", disk.create_folder(&sub));
    refused(
        "a folder is no file",
        ErrorKind::IsADirectory,
        disk.remove_file(&sub),
    );
    refused(
        "a file is no folder",
        ErrorKind::NotADirectory,
        disk.remove_folder(&file),
    );
    put(disk, &sub.join("inside"), b"");
    let result = disk.remove_folder(&sub);
    refused(
        "only an empty folder is removed",
        ErrorKind::DirectoryNotEmpty,
        result,
    );
    ok("a file is removed", disk.remove_file(&sub.join("inside")));
    ok("an empty folder is removed", disk.remove_folder(&sub));
    ok("an open file is removed", disk.remove_file(&file));
    assert!(names(disk, folder).is_empty());
    let mut seen = [0; 3];
    ok(
        "a removed file lives while it is open",
        open.read_exact_at(&mut seen, 0),
    );
    assert_eq!(&seen, b"abc");
    put(disk, &file, b"new");
    assert_eq!(get(disk, &file), b"new", "its name is free");
}

pub(super) fn locking(disk: &dyn Disk, folder: &Path) {
    let [a, b] = ["a", "b"].map(|name| folder.join(name));
    let lock = ok("a lock makes its file", disk.lock(&a));
    assert_eq!(names(disk, folder), ["a"]);
    refused(
        "a lock is exclusive",
        ErrorKind::WouldBlock,
        disk.lock(&a).map(drop),
    );
    put(disk, &b, b"kept");
    let other = ok("another file is another lock", disk.lock(&b));
    drop(lock);
    drop(ok("a dropped lock is free", disk.lock(&a)));
    drop(other);
    assert_eq!(get(disk, &b), b"kept", "a lock leaves its file as it is");
    let result = disk.lock(&folder.join("no/lock")).map(drop);
    refused(
        "a lock lies in a folder that is there",
        ErrorKind::NotFound,
        result,
    );
}

pub(super) fn syncing_and_space(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    let file = put(disk, &path, b"abc");
    ok("a file is synced", file.sync());
    ok("a file is synced twice", file.sync());
    ok("a folder is synced", disk.sync_folder(folder));
    let no = folder.join("no");
    refused(
        "nothing is not synced",
        ErrorKind::NotFound,
        disk.sync_folder(&no),
    );
    refused(
        "a file is no folder",
        ErrorKind::NotADirectory,
        disk.sync_folder(&path),
    );
    // Which kind it is depends on the machine; files and folders on it say the same.
    assert_eq!(
        ok("a folder's volume has a kind", disk.volume(folder)),
        ok("a file's volume has a kind", disk.volume(&path)),
    );
    refused(
        "nothing has no kind of volume",
        ErrorKind::NotFound,
        disk.volume(&no),
    );
    let space = ok("a volume has a size", disk.space(folder));
    assert!(
        space.total > 0 && space.available <= space.total,
        "{space:?}"
    );
    refused(
        "nothing has no volume",
        ErrorKind::NotFound,
        disk.space(&no),
    );
}

pub(super) fn side_by_side(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    let file = put(disk, &path, b"");
    std::thread::scope(|scope| {
        for n in 0..4u8 {
            let file = &file;
            scope.spawn(move || {
                for at in 0..50u64 {
                    let offset = (at * 4 + u64::from(n)) * 100;
                    ok(
                        "threads write side by side",
                        file.write_all_at(&[n; 100], offset),
                    );
                }
            });
        }
    });
    let wanted: Vec<u8> = (0..20_000u32)
        .map(|at| (at / 100 % 4).to_le_bytes()[0])
        .collect();
    assert_eq!(get(disk, &path), wanted, "every thread's bytes are there");
}
