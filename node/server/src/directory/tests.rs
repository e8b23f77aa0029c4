//! Rules of the data directory.
#![allow(clippy::unwrap_used)]
use super::*;
use unisondb_platform::{Access, Disk as _, real};

fn scratch() -> (tempfile::TempDir, Platform) {
    (tempfile::tempdir().unwrap(), real::platform())
}

fn open(platform: &Platform, path: &Path) -> Result<Directory, DirectoryError> {
    Directory::open(platform, path, None)
}

fn file(platform: &Platform, path: &Path) {
    platform
        .disk
        .create_folders(path.parent().unwrap())
        .unwrap();
    platform.disk.open(path, Access::CreateNew).unwrap();
}

#[test]
fn a_directory_is_used_by_one_process_and_a_stale_lock_means_nothing() {
    let (dir, platform) = scratch();
    let path = dir.path().join("a/b");
    let held = open(&platform, &path).unwrap();
    let error = open(&platform, &path).err().unwrap();
    assert!(matches!(error, DirectoryError::InUse(_)), "{error}");
    drop(held);
    assert!(platform.disk.exists(&path.join("LOCK")).unwrap());
    open(&platform, &path).unwrap();
}

#[test]
fn a_node_stays_who_it_is_and_may_be_renamed() {
    let (dir, platform) = scratch();
    let first = open(&platform, dir.path()).unwrap();
    let (cluster, name) = (first.cluster(), first.name());
    assert!(!name.is_empty());
    let restored = LineageId::from_bytes([7; 16]);
    let users: Namespace = "users".parse().unwrap();
    first.adopt(&users).unwrap();
    drop(first);
    let again = open(&platform, dir.path()).unwrap();
    assert_eq!((again.cluster(), again.name()), (cluster, name));
    assert!(again.is_adopted(&users) && !again.is_released(restored));
    again.release(&users, restored).unwrap();
    drop(again);
    let again = open(&platform, dir.path()).unwrap();
    assert!(again.is_released(restored) && !again.is_adopted(&users));
    assert!(!again.is_released(LineageId::from_bytes([8; 16])));
    drop(again);
    drop(Directory::open(&platform, dir.path(), Some("other")).unwrap());
    assert_eq!(open(&platform, dir.path()).unwrap().name(), "other");
}

#[test]
fn ids_of_a_deleted_namespace_are_never_used_again() {
    let (dir, platform) = scratch();
    let users: Namespace = "users".parse().unwrap();
    let directory = open(&platform, dir.path()).unwrap();
    assert_eq!(directory.retired(&users), None);
    directory.retire(&users, SegmentId::new(7)).unwrap();
    directory.retire(&users, SegmentId::new(3)).unwrap();
    drop(directory);
    let directory = open(&platform, dir.path()).unwrap();
    assert_eq!(directory.retired(&users), Some(SegmentId::new(7)));
}

#[test]
fn a_data_directory_on_a_network_file_system_is_refused_before_anything_is_made() {
    let (platform, disk, _) = unisondb_platform::memory::platform(1);
    let mount = Path::new("/mnt");
    disk.create_folders(mount).unwrap();
    disk.set_volume(mount, VolumeKind::Network("SMB"));
    let before = disk.ops();
    let error = open(&platform, &mount.join("a/b")).err().unwrap();
    assert!(
        error.to_string().starts_with("/mnt/a/b lies on SMB, "),
        "{error}"
    );
    assert_eq!(disk.ops(), before);
    open(&platform, Path::new("/data")).unwrap();
}

#[test]
fn a_damaged_node_file_is_named_not_replaced() {
    let (dir, platform) = scratch();
    let path = dir.path().join(NODE);
    for bad in [
        "",
        "cluster = 1",
        "\u{0}",
        "format = 9\ncluster=\"00000000000000000000000000000000\"\nname=\"x\"",
    ] {
        platform.disk.publish(&path, bad.as_bytes()).unwrap();
        let error = open(&platform, dir.path()).err().unwrap();
        assert!(
            matches!(error, DirectoryError::Node { .. }),
            "{bad:?}: {error}"
        );
        assert_eq!(platform.disk.read(&path, 999).unwrap(), bad.as_bytes());
    }
}

#[test]
fn namespaces_are_the_folders_that_hold_db_or_wal() {
    let (dir, platform) = scratch();
    let directory = open(&platform, dir.path()).unwrap();
    assert_eq!(directory.layout().unwrap(), Layout::Folders(vec![]));
    for folder in [
        "users/db",
        "orders/wal",
        "node/db",
        "ballast/wal",
        "empty",
        "backups/users/wal",
        "backups/wal",
        "trash/old/db",
        "users.partial/db",
        ".hidden/db",
        "lost+found/db",
    ] {
        platform
            .disk
            .create_folders(&dir.path().join(folder))
            .unwrap();
    }
    let found = ["ballast", "node", "orders", "users"].map(|name| name.parse().unwrap());
    assert_eq!(directory.layout().unwrap(), Layout::Folders(found.to_vec()));
}

#[test]
fn a_namespace_that_a_killed_restore_took_away_is_named_not_begun_anew() {
    let (dir, platform) = scratch();
    let directory = open(&platform, dir.path()).unwrap();
    file(&platform, &dir.path().join("users.restore"));
    let e = directory.layout().unwrap_err().to_string();
    assert!(
        e.contains("users.restore") && e.contains("udbctl restore --force"),
        "{e}"
    );
    let home = dir.path().join("users/db");
    platform.disk.create_folders(&home).unwrap();
    let users = Layout::Folders(vec!["users".parse().unwrap()]);
    assert_eq!(
        directory.layout().unwrap(),
        users,
        "the second rename was done"
    );
}

#[test]
fn a_snapshot_directly_in_the_directory_is_the_flat_layout() {
    for inside in ["db/data.mdb", "wal/000000001.wal"] {
        let (dir, platform) = scratch();
        let directory = open(&platform, dir.path()).unwrap();
        platform
            .disk
            .create_folders(&dir.path().join("db"))
            .unwrap();
        platform
            .disk
            .create_folders(&dir.path().join("wal"))
            .unwrap();
        assert_eq!(directory.layout().unwrap(), Layout::Folders(vec![]));
        file(&platform, &dir.path().join(inside));
        assert_eq!(directory.layout().unwrap(), Layout::Flat, "{inside}");
        platform
            .disk
            .create_folders(&dir.path().join("users/db"))
            .unwrap();
        let error = directory.layout().unwrap_err();
        assert!(
            matches!(error, DirectoryError::BothLayouts { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named_in_the_documented_words() {
    let denied = io_error(
        Path::new("/var/unison/data"),
        io::ErrorKind::PermissionDenied.into(),
    );
    assert_eq!(denied.to_string(), "permission denied: /var/unison/data");
}

#[test]
fn a_read_only_volume_is_told_as_a_data_directory_that_is_not_ours() {
    use unisondb_platform::memory::{self, Effect, OpKind, Rule};
    let (platform, disk, _) = memory::platform(1);
    let path = Path::new("/var/data");
    disk.create_folder(Path::new("/var")).unwrap();
    for kind in [OpKind::CreateFolder, OpKind::Lock] {
        disk.inject(Rule::once(kind, "/var/data", Effect::ReadOnly));
        let error = open(&platform, path).err().unwrap().to_string();
        assert_eq!(error, "permission denied: /var/data", "{kind:?}");
    }
    // One that was used before it became read-only.
    drop(open(&platform, path).unwrap());
    disk.inject(Rule::once(OpKind::Lock, "/var/data", Effect::ReadOnly));
    let error = open(&platform, path).err().unwrap().to_string();
    assert_eq!(error, "permission denied: /var/data");
}
