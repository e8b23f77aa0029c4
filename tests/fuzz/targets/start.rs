//! Any bytes as one of the files that a start looks at: it decides or refuses, and changes nothing.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use unisondb_engine::start::{self, Folders, Request};
use unisondb_platform::DiskExt;
use unisondb_platform::memory::{MemoryClock, MemoryDisk, platform_on};
use unisondb_types::ClusterId;

const FILES: [&str; 5] = [
    "ids",
    "restoring",
    "recovery.toml",
    "wal/raft.state",
    "wal/000000001.wal",
];

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    let disk = MemoryDisk::default();
    let home = Path::new("/data/users");
    disk.create_folders(&home.join("wal"))
        .expect("a boundless disk");
    let mut bytes = bytes.to_vec();
    let name = FILES[usize::from(*which) % FILES.len()];
    if *which >= 128 && matches!(name, "ids" | "restoring") {
        let crc = format!("\ncrc32c {:08x}\n", crc32c::crc32c(&bytes));
        bytes.extend_from_slice(crc.as_bytes());
    }
    disk.publish(&home.join(name), &bytes)
        .expect("a boundless disk");
    let folders = Folders {
        namespace: Some("users".parse().expect("a namespace")),
        home: home.to_owned(),
        backups: Path::new("/data/backups/users").to_owned(),
    };
    let request = Request {
        create: Some(ClusterId::from_bytes([9; 16])),
        ..Request::default()
    };
    let platform = platform_on(&disk, &MemoryClock::default(), 1);
    let before = disk.ops();
    drop(start::inspect(&platform, &folders, &request));
    assert_eq!(disk.ops(), before, "looking changes nothing");
});
