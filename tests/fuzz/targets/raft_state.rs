//! Any bytes as `raft.state`: looked at, opened, written on.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use unisondb_platform::DiskExt;
use unisondb_platform::memory::MemoryDisk;
use unisondb_wal::raft_state::{self, Found, RaftStateFile, SLOT_BYTES};

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if mode & 1 == 1 {
        for slot in bytes.chunks_exact_mut(SLOT_BYTES) {
            let crc = crc32c::crc32c(&slot[..SLOT_BYTES - 4]);
            slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let disk = MemoryDisk::default();
    let path = Path::new("/raft.state");
    disk.publish(path, &bytes).expect("a boundless disk");
    let found = raft_state::read(&disk, path).expect("a sound disk");
    let opened = RaftStateFile::open(&disk, path).expect("a sound disk");
    let (Found::Valid(state), Some(mut file)) = (found, opened) else {
        assert_eq!(found, Found::Damaged);
        return;
    };
    assert_eq!(file.state(), state);
    for _ in 0..3 {
        file.write(state).expect("a sound disk");
        assert_eq!(
            raft_state::read(&disk, path).expect("a sound disk"),
            Found::Valid(state)
        );
    }
});
