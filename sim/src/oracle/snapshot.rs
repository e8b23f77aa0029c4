//! Snapshots, read by `docs/formats/snapshot.md` alone, as far as one who copies a file compares it with
//! its checksum.

use sha2::{Digest as _, Sha256};

use super::bytes::Reader;

const TRAILER: usize = 4_096;

/// Whether a snapshot's image is what its trailer says.
pub fn is_whole(file: &[u8]) -> bool {
    let read = || {
        let image = file.len().checked_sub(TRAILER)?;
        let (image, trailer) = file.split_at_checked(image)?;
        let mut r = Reader(trailer);
        let magic = r.take(16)?;
        let (_layout, _entries, len) = (r.int()?, r.int()?, r.long()?);
        let same = magic == b"UNISONDB-SNAP\0\r\n"
            && usize::try_from(len) == Ok(image.len())
            && r.array::<32>()? == <[u8; 32]>::from(Sha256::digest(image));
        Some(same)
    };
    read() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_image_that_is_what_its_trailer_says_is_whole() {
        let mut file = vec![7; 8_192];
        let mut trailer = b"UNISONDB-SNAP\0\r\n".to_vec();
        trailer.extend([0; 8]);
        trailer.extend(8_192_u64.to_le_bytes());
        trailer.extend(Sha256::digest(&file));
        trailer.resize(TRAILER, 0);
        file.extend(trailer);
        assert!(is_whole(&file));
        assert!(!is_whole(&file[..8_192]), "the trailer is gone");
        assert!(!is_whole(&file[4_096..]), "the beginning is gone");
        assert!(!is_whole(&[]));
        for at in [0, 8_191, 8_192, 8_192 + 24, 8_192 + 63] {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(!is_whole(&damaged), "a bit of byte {at}");
        }
    }
}
