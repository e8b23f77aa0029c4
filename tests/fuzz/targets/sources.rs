//! Any bytes as a file in a folder of backups: plain, gzip, zstd, tar or a mixture, under names that
//! promise one thing or another. Verified, and planned with.
#![no_main]

use std::io::Write;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use unisondb_engine::restore::{self, BaseFrom, Existing, Request};
use unisondb_platform::memory::MemoryDisk;
use unisondb_platform::{Disk, DiskExt};
use unisondb_types::Target;

const NAMES: [&str; 6] = [
    "000000001.wal",
    "000000001.wal.gz",
    "a.zst",
    "base.db",
    "all.tar",
    "all.tar.gz",
];

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else {
        return;
    };
    let packed = match mode & 3 {
        1 => {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(bytes).expect("into memory");
            gz.finish().expect("into memory")
        }
        2 => zstd::bulk::compress(bytes, 1).expect("into memory"),
        _ => bytes.to_vec(),
    };
    let disk = MemoryDisk::default();
    let folder = PathBuf::from("/backups");
    disk.create_folder(&folder).expect("a boundless disk");
    let name = NAMES[usize::from(mode >> 2) % NAMES.len()];
    disk.publish(&folder.join(name), &packed)
        .expect("a boundless disk");
    drop(restore::verify::verify(
        &disk,
        std::slice::from_ref(&folder),
        &|_| {},
    ));
    let request = Request {
        data_dir: Path::new("/data").to_owned(),
        namespace: "users".parse().expect("a namespace"),
        base: BaseFrom::Folders(vec![folder.clone()]),
        wal: vec![folder],
        target: Target::Latest,
        lineage: None,
        first_segment: None,
        existing: Existing::Refuse,
    };
    drop(restore::plan(&disk, &request, &|_| {}));
});
