//! The first 256 bytes of a segment: what it is and what it continues. Layout in
//! `docs/formats/segment.md`, "Header".

use unisondb_types::{Chain, ClusterId, LineageId, Lsn, Namespace, SegmentId, limits};

use crate::error::SegmentError;
use crate::frame::{array_at, u16_at, u32_at, u64_at};

/// Length of a header.
pub const HEADER_BYTES: usize = 256;
const MAGIC: &[u8; 8] = b"UNISNWAL";
const VERSION: u16 = 1;
const CRC_AT: usize = HEADER_BYTES - 4;

/// What a segment says of itself before its first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its number.
    pub id: SegmentId,
    /// At how many bytes it rolls; fixed when it begins.
    pub segment_size: u64,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The namespace it belongs to.
    pub namespace: Namespace,
    /// The lineage it belongs to.
    pub lineage: LineageId,
    /// Position of its first record.
    pub first_lsn: Lsn,
    /// The segment before it, if the log knows one.
    pub predecessor: Option<Predecessor>,
    /// CRC of the frame before its first one: seeds the CRC of that.
    pub crc_seed: u32,
}

/// The segment that another one continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predecessor {
    /// Its number; zero if the lineage was forked from a snapshot and no segment was known.
    pub id: SegmentId,
    /// Its lineage: another one only before a lineage's first segment.
    pub lineage: LineageId,
    /// The chain at its end (of a fork: at the fork).
    pub chain: Chain,
}

impl SegmentHeader {
    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        b[0..8].copy_from_slice(MAGIC);
        b[8..10].copy_from_slice(&VERSION.to_le_bytes());
        b[10..12].copy_from_slice(&256u16.to_le_bytes());
        b[12..16].copy_from_slice(&self.crc_seed.to_le_bytes());
        b[16..24].copy_from_slice(&self.id.get().to_le_bytes());
        b[24..32].copy_from_slice(&self.segment_size.to_le_bytes());
        b[32..48].copy_from_slice(self.cluster.as_bytes());
        b[48..64].copy_from_slice(self.lineage.as_bytes());
        b[64..72].copy_from_slice(&self.first_lsn.get().to_le_bytes());
        if let Some(p) = &self.predecessor {
            b[72..80].copy_from_slice(&p.id.get().to_le_bytes());
            b[80..96].copy_from_slice(p.lineage.as_bytes());
            b[96..128].copy_from_slice(p.chain.as_bytes());
        }
        let name = self.namespace.as_str().as_bytes();
        b[128] = u8::try_from(name.len()).expect("names of namespaces are at most 64 bytes");
        b[129..129 + name.len()].copy_from_slice(name);
        let crc = crc32c::crc32c(&b[..CRC_AT]);
        b[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// From the first bytes of a file.
    ///
    /// # Errors
    /// [`SegmentError::Header`], [`SegmentError::Version`].
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, SegmentError> {
        let wrong = |why: &str| SegmentError::Header {
            why: why.to_owned(),
        };
        let b: &[u8; HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or_else(|| wrong(&format!("the file has only {} bytes", bytes.len())))?;
        if &b[..8] != MAGIC {
            return Err(wrong("it does not begin with UNISNWAL"));
        }
        let version = u16_at(b, 8);
        if version != VERSION {
            return Err(SegmentError::Version { found: version });
        }
        let (found, computed) = (u32_at(b, CRC_AT), crc32c::crc32c(&b[..CRC_AT]));
        if found != computed {
            return Err(wrong(&format!(
                "CRC {found:08x} does not match {computed:08x}"
            )));
        }
        // The CRC is good: what follows was written so, by us or by somebody who means harm.
        let name_len = usize::from(b[128]);
        let namespace = b[129..193]
            .get(..name_len)
            .and_then(|n| std::str::from_utf8(n).ok())
            .and_then(|n| Namespace::recorded(n).ok())
            .ok_or_else(|| wrong("it does not name a namespace"))?;
        let lineage_before = LineageId::from_bytes(array_at(b, 80));
        let predecessor = (lineage_before != LineageId::from_bytes([0; 16])).then(|| Predecessor {
            id: SegmentId::new(u64_at(b, 72)),
            lineage: lineage_before,
            chain: Chain::from_bytes(array_at(b, 96)),
        });
        let header = SegmentHeader {
            crc_seed: u32_at(b, 12),
            id: SegmentId::new(u64_at(b, 16)),
            segment_size: u64_at(b, 24),
            cluster: ClusterId::from_bytes(array_at(b, 32)),
            lineage: LineageId::from_bytes(array_at(b, 48)),
            first_lsn: Lsn::new(u64_at(b, 64)),
            predecessor,
            namespace,
        };
        if header.id == SegmentId::ZERO || header.first_lsn == Lsn::ZERO {
            return Err(wrong("segment id or first LSN is zero"));
        }
        if !(limits::SEGMENT_MIN_BYTES..=limits::SEGMENT_MAX_BYTES).contains(&header.segment_size) {
            return Err(wrong(&format!(
                "a segment size of {} is out of bounds",
                header.segment_size
            )));
        }
        if header.predecessor.is_some_and(|p| p.id >= header.id) {
            return Err(wrong("its predecessor has no lower id"));
        }
        if header.encode() != *b {
            return Err(wrong("bytes that should be zero are not"));
        }
        Ok(header)
    }

    /// The chain up to where this segment begins.
    pub fn chain_before(&self) -> Chain {
        self.predecessor.map_or(Chain::ZERO, |p| p.chain)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn example() -> SegmentHeader {
        SegmentHeader {
            id: SegmentId::new(43),
            segment_size: 64 << 20,
            cluster: ClusterId::from_bytes([0xc1; 16]),
            namespace: "users".parse().unwrap(),
            lineage: LineageId::from_bytes([0x11; 16]),
            first_lsn: Lsn::new(1000),
            predecessor: Some(Predecessor {
                id: SegmentId::new(42),
                lineage: LineageId::from_bytes([0x12; 16]),
                chain: Chain::from_bytes([0x13; 32]),
            }),
            crc_seed: 0x0102_0304,
        }
    }

    #[test]
    fn golden_header() {
        let hex: String = example()
            .encode()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let expected = [
            "554e4953_4e57414c 0100 0001 04030201",
            "2b00000000000000 0000000400000000",
            &"c1".repeat(16),
            &"11".repeat(16),
            "e803000000000000",
            "2a00000000000000",
            &"12".repeat(16),
            &"13".repeat(32),
            "05 7573657273",
            &"00".repeat(59 + 59),
        ]
        .concat()
        .replace([' ', '_'], "");
        assert_eq!(hex[..504], expected);
        assert_eq!(&hex[504..], GOLDEN_CRC);
        assert_eq!(
            SegmentHeader::decode(&example().encode()).unwrap(),
            example()
        );
    }
    /// By a bitwise implementation of CRC-32C.
    const GOLDEN_CRC: &str = "cb0ed950";

    #[test]
    fn a_header_that_another_release_wrote_is_told_from_a_damaged_one() {
        let mut bytes = example().encode();
        bytes[8] = 2;
        let found = SegmentHeader::decode(&bytes);
        assert!(matches!(found, Err(SegmentError::Version { found: 2 })));
        for at in (0..HEADER_BYTES).filter(|at| !(8..10).contains(at)) {
            let mut bytes = example().encode();
            bytes[at] ^= 4;
            let found = SegmentHeader::decode(&bytes);
            assert!(
                matches!(found, Err(SegmentError::Header { .. })),
                "byte {at}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_with_a_good_crc_are_a_header_or_an_error(
            changes in proptest::collection::vec((0..CRC_AT, any::<u8>()), 0..8)
        ) {
            let mut bytes = example().encode();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let crc = crc32c::crc32c(&bytes[..CRC_AT]);
            bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            if let Ok(header) = SegmentHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
