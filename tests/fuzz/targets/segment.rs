//! Any bytes as a segment file: read, verified, surveyed, cut at an LSN. The checksums are made to
//! fit first, every other time, so that what lies behind them is reached.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use unisondb_platform::DiskExt;
use unisondb_platform::memory::MemoryDisk;
use unisondb_types::Lsn;
use unisondb_wal::{FOOTER_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, SegmentReader};

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if mode & 1 == 1 {
        mend(&mut bytes);
    }
    let read = SegmentReader::stream(&bytes[..]).and_then(|mut reader| {
        while let Some(entry) = reader.next()? {
            // Whatever has a good checksum is still only bytes.
            drop(entry.record.command());
        }
        Ok(reader.info())
    });
    let disk = MemoryDisk::default();
    let (folder, path) = (Path::new("/"), Path::new("/000000001.wal"));
    disk.publish(path, &bytes).expect("a boundless disk");
    let verified = unisondb_wal::verify(&disk, path);
    assert_eq!(
        read.is_ok(),
        verified.is_ok(),
        "both read the same: {read:?}, {verified:?}"
    );
    unisondb_wal::survey(&disk, folder).expect("what is wrong stands with the file");
    drop(unisondb_wal::chain_at(
        &disk,
        path,
        Lsn::new(u64::from(*mode)),
    ));
});

/// Puts the right checksum into the header, each frame as far as they adjoin, and the footer.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    put(bytes, 0, HEADER_BYTES);
    let mut seed = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
    let mut at = HEADER_BYTES;
    while let Some(head) = bytes.get(at..at + FRAME_HEADER_BYTES) {
        if head.starts_with(b"UNISNEND") {
            if bytes.len() >= at + FOOTER_BYTES {
                put(bytes, at, FOOTER_BYTES);
            }
            return;
        }
        let payload = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        let end = at + FRAME_HEADER_BYTES + payload;
        let Some(frame) = bytes.get(at + 4..end) else {
            return;
        };
        seed = crc32c::crc32c_append(seed, frame);
        bytes[at..at + 4].copy_from_slice(&seed.to_le_bytes());
        at = end;
    }
}

fn put(bytes: &mut [u8], at: usize, len: usize) {
    let crc = crc32c::crc32c(&bytes[at..at + len - 4]);
    bytes[at + len - 4..at + len].copy_from_slice(&crc.to_le_bytes());
}
