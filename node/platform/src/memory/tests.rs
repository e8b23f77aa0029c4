//! What the in-memory disk does and does not do to those who use it.
#![allow(clippy::unwrap_used)]

mod crashes;
mod errors;
mod model;
mod native;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{MemoryDisk, Native};
use crate::{Access, Disk, DiskExt, File, FileExt, conformance};

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn create(disk: &MemoryDisk, at: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(path(at), Access::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// A file that no crash harms.
fn create_durable(disk: &MemoryDisk, at: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = create(disk, at, bytes);
    file.sync().unwrap();
    disk.sync_folder(path(at).parent().unwrap()).unwrap();
    file
}

fn read(disk: &MemoryDisk, at: &str) -> Option<Vec<u8>> {
    let there = disk.exists(path(at)).unwrap();
    there.then(|| disk.read(path(at), u64::MAX).unwrap())
}

fn names(disk: &MemoryDisk, folder: &str) -> Vec<String> {
    let entries = disk.list(path(folder)).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn with_native() -> MemoryDisk {
    MemoryDisk::new(Native::component("db", tempfile::tempdir().unwrap()))
}

#[test]
fn the_memory_disk_keeps_the_contract() {
    conformance::disk(&|| {
        let disk = MemoryDisk::default();
        disk.create_folder(path("/data")).unwrap();
        (Arc::new(disk), PathBuf::from("/data"))
    });
}

#[test]
fn a_native_folder_keeps_the_contract() {
    let make = || {
        let disk = with_native();
        disk.create_folders(path("/data/main/db")).unwrap();
        (
            Arc::new(disk) as Arc<dyn Disk>,
            PathBuf::from("/data/main/db"),
        )
    };
    conformance::disk(&make);
    let (disk, folder) = make();
    conformance::native(&*disk, &folder);
}

#[test]
fn a_path_has_one_meaning_however_it_is_written() {
    let disk = MemoryDisk::default();
    disk.create_folder(path("/a")).unwrap();
    create(&disk, "/a//./../a/b", b"x");
    assert_eq!(read(&disk, "/a/b").unwrap(), b"x");
    let error = disk.meta(path("a/b")).unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::InvalidInput,
        "paths are absolute"
    );
}
