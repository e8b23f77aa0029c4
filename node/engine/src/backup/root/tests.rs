//! Paths below the backup root: none leaves it, on the real disk and in memory.
#![allow(clippy::unwrap_used)]
use rustix::fs::symlink;
use unisondb_platform::memory::{Effect, MemoryDisk, OpKind, Rule};
use unisondb_platform::real::RealDisk;
use unisondb_platform::{Access, DiskExt, FileExt};

use super::*;

fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn reach(
    disk: &Arc<dyn Disk>,
    root: &Path,
    asked: &str,
    missing: Missing,
) -> Result<Option<Folder>, BackupError> {
    Folder::reach(disk, root, &Asked::folder(asked).unwrap(), missing)
}

fn put(folder: &Folder, name: &str, bytes: &[u8]) {
    let file = folder
        .disk
        .open(&folder.path(name), Access::CreateNew)
        .unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

#[test]
fn paths_that_are_not_below_the_root_are_refused_by_their_text() {
    let long = "a/".repeat(600);
    let wide = "a".repeat(COMPONENT_BYTES + 1);
    for bad in [
        "",
        "/",
        "/etc",
        "//a",
        "..",
        "../a",
        "a/..",
        "a/../b",
        "./..",
        "a/b/../..",
        "a\0b",
        "a\nb",
        "\u{7f}",
        "C:\\x",
        "c:/x",
        "a\\b",
        "\\",
        "wal ",
        "wal /x",
        "wal/x ",
        "wal/\u{a0}",
        " ",
        &long,
        &wide,
    ] {
        assert!(
            matches!(Asked::folder(bad), Err(BackupError::BadPath(_))),
            "{bad:?}"
        );
        assert!(
            matches!(Asked::file(bad), Err(BackupError::BadPath(_))),
            "{bad:?}"
        );
    }
    for no_file in [
        ".",
        "./",
        "a/",
        "a/.",
        "x.tmp",
        "a/x.sha256",
        "000000001.wal",
    ] {
        assert!(
            matches!(Asked::file(no_file), Err(BackupError::BadPath(_))),
            "{no_file:?}"
        );
    }
}

#[test]
fn an_accepted_path_comes_back_byte_for_byte() {
    let root = Path::new("/data/backups/users");
    for text in [
        "a", "a/b", "./a", "a//b", "a/./b/", ".", "a..b", "%2e%2e", "ä/日 x", " a", "Wal", "...",
        "ab:c",
    ] {
        let whole = Asked::folder(text).unwrap().below(root);
        assert_eq!(
            whole.as_os_str().to_str().unwrap(),
            format!("/data/backups/users/{text}")
        );
    }
    let same =
        |a: &str, b: &str| Asked::folder(a).unwrap().place() == Asked::folder(b).unwrap().place();
    assert!(same("a/b", "./a//b/") && same(".", "./") && !same("a", "A"));
    let (folder, name) = Asked::file("a/b/x.db").unwrap();
    assert_eq!(
        (folder.place(), name.as_str()),
        (PathBuf::from("a/b"), "x.db")
    );
}

#[test]
fn folders_are_made_when_wanted_and_only_then() {
    let tmp = tempfile::tempdir().unwrap();
    let root = tmp.path().join("data/backups/users");
    let disk = real();
    assert!(
        reach(&disk, &root, "wal/x", Missing::Leave)
            .unwrap()
            .is_none()
    );
    assert!(!tmp.path().join("data").exists());
    let folder = reach(&disk, &root, "wal/x", Missing::Make)
        .unwrap()
        .unwrap();
    assert_eq!(folder.shown, root.join("wal/x"));
    put(&folder, "f", b"1");
    assert_eq!(disk.read(&root.join("wal/x/f"), 9).unwrap(), b"1");
    for made in ["", "wal", "wal/x"] {
        let mode = stat(root.join(made)).unwrap().st_mode;
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
    assert!(
        reach(&disk, &root, "wal/y", Missing::Leave)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_link_below_the_root_is_refused_and_the_root_may_be_one() {
    let tmp = tempfile::tempdir().unwrap();
    let (other, volume) = (tmp.path().join("orders"), tmp.path().join("volume"));
    for folder in [&other, &volume] {
        RealDisk.create_folder(folder).unwrap();
    }
    let root = tmp.path().join("users");
    symlink(&volume, &root).unwrap();
    symlink(&other, volume.join("out")).unwrap();
    symlink("inside", volume.join("in")).unwrap();
    symlink("nowhere", volume.join("broken")).unwrap();
    RealDisk.create_folder(&volume.join("inside")).unwrap();
    let disk = real();
    for path in ["out", "out/x", "in", "in/x", "broken", "broken/x"] {
        let made = reach(&disk, &root, path, Missing::Make);
        assert!(matches!(made, Err(BackupError::BadPath(_))), "{path}");
    }
    assert!(RealDisk.list(&other).unwrap().is_empty());
    assert!(!tmp.path().join("volume/nowhere").exists());
    let folder = reach(&disk, &root, "inside", Missing::Leave)
        .unwrap()
        .unwrap();
    symlink(other.join("f"), volume.join("inside/f")).unwrap();
    assert!(matches!(
        folder.has_file("f", "it"),
        Err(BackupError::BadPath(_))
    ));
    // The link is shown as it was configured, not as it leads.
    assert_eq!(folder.shown, root.join("inside"));
}

#[test]
fn a_folder_swapped_for_a_link_after_the_walk_leads_nowhere() {
    let tmp = tempfile::tempdir().unwrap();
    let (root, other) = (tmp.path().join("users"), tmp.path().join("orders"));
    RealDisk.create_folder(&other).unwrap();
    let disk = real();
    let folder = reach(&disk, &root, "wal", Missing::Make).unwrap().unwrap();
    RealDisk
        .rename(&root.join("wal"), &root.join("aside"))
        .unwrap();
    symlink(&other, root.join("wal")).unwrap();
    put(&folder, "f", b"1");
    folder.sync().unwrap();
    assert!(RealDisk.list(&other).unwrap().is_empty());
    assert!(root.join("aside/f").exists());
}

#[test]
fn what_is_in_the_way_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let disk = real();
    let folder = reach(&disk, tmp.path(), "a/b", Missing::Make)
        .unwrap()
        .unwrap();
    put(&folder, "f", b"1");
    let path = match reach(&disk, tmp.path(), "a/b/f/c", Missing::Make) {
        Err(BackupError::Differs { path, .. }) => path,
        other => panic!("{:?}", other.err()),
    };
    assert_eq!(path, tmp.path().join("a/b/f"));
    let a = reach(&disk, tmp.path(), "a", Missing::Leave)
        .unwrap()
        .unwrap();
    assert!(matches!(
        a.has_file("b", "it"),
        Err(BackupError::Differs { .. })
    ));
    assert!(folder.has_file("f", "it").unwrap() && !folder.has_file("g", "it").unwrap());
}

#[test]
fn the_folder_that_cannot_be_made_is_named_in_the_documented_words() {
    let disk = MemoryDisk::default();
    let root = Path::new("/data/backups/users");
    let denied = |at: &str| {
        let dynamic: Arc<dyn Disk> = Arc::new(disk.clone());
        disk.heal();
        disk.inject(Rule::always(OpKind::CreateFolder, at, Effect::Denied));
        reach(&dynamic, root, "wal/x", Missing::Make)
            .err()
            .unwrap()
            .to_string()
    };
    assert_eq!(denied("/data/backups"), "permission denied: /data/backups");
    assert_eq!(
        denied("/data/backups/users"),
        "permission denied: /data/backups/users"
    );
    assert_eq!(
        denied("/data/backups/users/wal"),
        "permission denied: /data/backups/users/wal"
    );
    assert_eq!(
        denied("/data/backups/users/wal/x"),
        "permission denied: /data/backups/users/wal/x"
    );
    disk.heal();
    disk.inject(Rule::always(OpKind::CreateFolder, "/", Effect::Quota));
    let dynamic: Arc<dyn Disk> = Arc::new(disk.clone());
    let full = reach(&dynamic, root, "wal/x", Missing::Make).err().unwrap();
    assert_eq!(full.to_string(), "no space left on device");
}
