//! The last 256 bytes of a sealed segment: what it holds, and what it proves. Layout in
//! `docs/formats/segment.md`, "Footer".

use unisondb_types::{Chain, Digest, LineageId, Lsn, SegmentId, Sha256Sum, Stamp, Term};

use crate::frame::{array_at, u16_at, u32_at, u64_at};

/// Length of a footer.
pub const FOOTER_BYTES: usize = 256;
/// What a footer begins with. Read as a frame it would claim a payload of more than 1 GiB, so no
/// frame is ever taken for a footer.
pub(crate) const MAGIC: &[u8; 8] = b"UNISNEND";
const VERSION: u16 = 1;
const CRC_AT: usize = FOOTER_BYTES - 4;
const USER_DATA: u32 = 1;

/// What a sealed segment says of itself behind its last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// The segment's number, again.
    pub id: SegmentId,
    /// How many records.
    pub records: u64,
    /// Position of the first.
    pub first_lsn: Lsn,
    /// Position of the last.
    pub last_lsn: Lsn,
    /// Time of the first.
    pub first_stamp: Stamp,
    /// Time of the last.
    pub last_stamp: Stamp,
    /// Term of the last.
    pub last_term: Term,
    /// CRC of the last frame: seeds the next segment's first.
    pub last_crc: u32,
    /// Whether there is a record with user data.
    pub user_data: bool,
    /// State digest after the last record.
    pub digest: Digest,
    /// Chain up to and including this segment.
    pub chain: Chain,
    /// Bytes of header and frames.
    pub content_bytes: u64,
    /// SHA-256 of header and frames.
    pub content_sha256: Sha256Sum,
    /// The lineage whose fork ended this segment before its time.
    pub cut_by: Option<LineageId>,
}

impl Footer {
    /// As bytes.
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut b = [0; FOOTER_BYTES];
        b[0..8].copy_from_slice(MAGIC);
        b[8..10].copy_from_slice(&VERSION.to_le_bytes());
        b[10..12].copy_from_slice(&256u16.to_le_bytes());
        let flags = if self.user_data { USER_DATA } else { 0 };
        b[12..16].copy_from_slice(&flags.to_le_bytes());
        b[16..24].copy_from_slice(&self.id.get().to_le_bytes());
        b[24..32].copy_from_slice(&self.records.to_le_bytes());
        b[32..40].copy_from_slice(&self.first_lsn.get().to_le_bytes());
        b[40..48].copy_from_slice(&self.last_lsn.get().to_le_bytes());
        b[48..56].copy_from_slice(&self.first_stamp.micros().to_le_bytes());
        b[56..64].copy_from_slice(&self.last_stamp.micros().to_le_bytes());
        b[64..72].copy_from_slice(&self.last_term.get().to_le_bytes());
        b[72..76].copy_from_slice(&self.last_crc.to_le_bytes());
        b[80..112].copy_from_slice(self.digest.as_bytes());
        b[112..144].copy_from_slice(self.chain.as_bytes());
        b[144..152].copy_from_slice(&self.content_bytes.to_le_bytes());
        b[152..184].copy_from_slice(self.content_sha256.as_bytes());
        if let Some(by) = &self.cut_by {
            b[184..200].copy_from_slice(by.as_bytes());
        }
        let crc = crc32c::crc32c(&b[..CRC_AT]);
        b[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// From exactly the last bytes of a file.
    ///
    /// # Errors
    /// In words, what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Footer, String> {
        let b: &[u8; FOOTER_BYTES] = bytes
            .try_into()
            .map_err(|_| format!("{} bytes are no footer", bytes.len()))?;
        if &b[..8] != MAGIC {
            return Err("it does not begin with UNISNEND".to_owned());
        }
        let (found, computed) = (u32_at(b, CRC_AT), crc32c::crc32c(&b[..CRC_AT]));
        if found != computed {
            return Err(format!("CRC {found:08x} does not match {computed:08x}"));
        }
        let version = u16_at(b, 8);
        if version != VERSION {
            return Err(format!("version {version} is not known here (known: 1)"));
        }
        let cut_by = LineageId::from_bytes(array_at(b, 184));
        let footer = Footer {
            user_data: u32_at(b, 12) & USER_DATA != 0,
            id: SegmentId::new(u64_at(b, 16)),
            records: u64_at(b, 24),
            first_lsn: Lsn::new(u64_at(b, 32)),
            last_lsn: Lsn::new(u64_at(b, 40)),
            first_stamp: Stamp::from_micros(u64_at(b, 48)),
            last_stamp: Stamp::from_micros(u64_at(b, 56)),
            last_term: Term::new(u64_at(b, 64)),
            last_crc: u32_at(b, 72),
            digest: Digest::from_bytes(array_at(b, 80)),
            chain: Chain::from_bytes(array_at(b, 112)),
            content_bytes: u64_at(b, 144),
            content_sha256: Sha256Sum::from_bytes(array_at(b, 152)),
            cut_by: (cut_by != LineageId::from_bytes([0; 16])).then_some(cut_by),
        };
        let records = footer.last_lsn.get().checked_sub(footer.first_lsn.get());
        if records.and_then(|n| n.checked_add(1)) != Some(footer.records) {
            return Err(format!(
                "{} records do not fit {} to {}",
                footer.records, footer.first_lsn, footer.last_lsn
            ));
        }
        if footer.encode() != *b {
            return Err("bytes that should be zero are not".to_owned());
        }
        Ok(footer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn example() -> Footer {
        Footer {
            id: SegmentId::new(43),
            records: 3,
            first_lsn: Lsn::new(1000),
            last_lsn: Lsn::new(1002),
            first_stamp: Stamp::from_micros(5),
            last_stamp: Stamp::from_micros(9),
            last_term: Term::new(2),
            last_crc: 0x0102_0304,
            user_data: true,
            digest: Digest::from_bytes([0xd1; 32]),
            chain: Chain::from_bytes([0xd2; 32]),
            content_bytes: 777,
            content_sha256: Sha256Sum::from_bytes([0xd3; 32]),
            cut_by: Some(LineageId::from_bytes([0xd4; 16])),
        }
    }

    #[test]
    fn golden_footer() {
        let hex: String = example()
            .encode()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let expected = [
            "554e4953_4e454e44 0100 0001 01000000",
            "2b00000000000000 0300000000000000",
            "e803000000000000 ea03000000000000",
            "0500000000000000 0900000000000000",
            "0200000000000000 04030201 00000000",
            &"d1".repeat(32),
            &"d2".repeat(32),
            "0903000000000000",
            &"d3".repeat(32),
            &"d4".repeat(16),
            &"00".repeat(52),
        ]
        .concat()
        .replace([' ', '_'], "");
        assert_eq!(hex[..504], expected);
        assert_eq!(&hex[504..], GOLDEN_CRC);
        assert_eq!(Footer::decode(&example().encode()).unwrap(), example());
    }
    /// By a bitwise implementation of CRC-32C.
    const GOLDEN_CRC: &str = "bf89bc01";

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        for at in 0..FOOTER_BYTES {
            let mut bytes = example().encode();
            bytes[at] ^= 4;
            assert!(Footer::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_footer_is_never_a_frame() {
        let bytes = example().encode();
        let read = crate::frame::check(&bytes, 0);
        assert!(matches!(
            read,
            Err(crate::frame::FrameError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_with_a_good_crc_are_a_footer_or_an_error(
            changes in proptest::collection::vec((0..CRC_AT, any::<u8>()), 0..8)
        ) {
            let mut bytes = example().encode();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let crc = crc32c::crc32c(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            if let Ok(footer) = Footer::decode(&bytes) {
                prop_assert_eq!(footer.encode(), bytes);
            }
        }
    }
}
