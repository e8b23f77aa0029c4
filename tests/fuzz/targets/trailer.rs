//! Any page as a snapshot's trailer, with a good magic and checksum every other time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unisondb_store::Trailer;
use unisondb_store::trailer::{MAGIC, TRAILER_BYTES};

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else {
        return;
    };
    let mut page = [0; TRAILER_BYTES];
    let len = bytes.len().min(TRAILER_BYTES);
    page[..len].copy_from_slice(&bytes[..len]);
    if mode & 1 == 1 {
        page[..MAGIC.len()].copy_from_slice(&MAGIC);
        let crc = crc32c::crc32c(&page[..TRAILER_BYTES - 4]);
        page[TRAILER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    if let Ok(Some(trailer)) = Trailer::decode(&page) {
        let again = trailer.encode();
        assert_eq!(Trailer::decode(&again).expect("our own"), Some(trailer));
    }
});
