//! One record as bytes: see `docs/formats/segment.md`, "Frame". A frame's CRC is seeded with the
//! CRC of the frame before it, so that only its own successor continues a log.

use bytes::{BufMut, Bytes, BytesMut};
use unisondb_types::{Kind, Lsn, Record, Stamp, Term, limits};

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 44;

/// Why bytes are not the next frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end inside the frame.
    #[error("the file ends inside the frame, which needs {need} bytes")]
    Incomplete {
        /// How many bytes the frame needs, as far as is known.
        need: usize,
    },
    /// Longer than any frame.
    #[error("a payload of {found} bytes is longer than a frame takes")]
    TooLong {
        /// The length found.
        found: u32,
    },
    /// The bytes are not those that were written here.
    #[error("CRC {found:08x} does not match {computed:08x}")]
    Crc {
        /// On the frame.
        found: u32,
        /// Over the frame, seeded with the one before.
        computed: u32,
    },
    /// The CRC is good, and still this cannot stand here.
    #[error("{0}")]
    Order(String),
    /// Of a kind that this release does not know: never skipped (D20).
    #[error("it is of kind {0}, which this release does not know")]
    UnknownKind(u16),
    /// Nothing was ever written here, but something is written further on.
    #[error("zeroes, with written bytes behind them")]
    Hole,
}

/// What stands in a frame's first bytes, kind not yet understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub crc: u32,
    pub payload: u32,
    pub lsn: Lsn,
    pub term: Term,
    pub stamp: Stamp,
    pub committed: Lsn,
    pub kind: u16,
    pub flags: u16,
}

impl FrameHeader {
    /// Reads the fields; `None` when there are fewer than [`FRAME_HEADER_BYTES`]. Checks nothing.
    pub fn parse(bytes: &[u8]) -> Option<FrameHeader> {
        let b: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        Some(FrameHeader {
            crc: u32_at(b, 0),
            payload: u32_at(b, 4),
            lsn: Lsn::new(u64_at(b, 8)),
            term: Term::new(u64_at(b, 16)),
            stamp: Stamp::from_micros(u64_at(b, 24)),
            committed: Lsn::new(u64_at(b, 32)),
            kind: u16_at(b, 40),
            flags: u16_at(b, 42),
        })
    }

    /// The header at the start of `bytes`, and the length of its frame, all of which is there.
    fn whole(bytes: &[u8]) -> Result<(FrameHeader, usize), FrameError> {
        let header = FrameHeader::parse(bytes).ok_or(FrameError::Incomplete {
            need: FRAME_HEADER_BYTES,
        })?;
        let need = header.frame_bytes().ok_or(FrameError::TooLong {
            found: header.payload,
        })?;
        match bytes.len() < need {
            true => Err(FrameError::Incomplete { need }),
            false => Ok((header, need)),
        }
    }

    /// Length of the whole frame; `None` when the payload claims to be longer than any.
    pub fn frame_bytes(&self) -> Option<usize> {
        let payload = self.payload as usize;
        (payload <= limits::FRAME_PAYLOAD_BYTES).then_some(FRAME_HEADER_BYTES + payload)
    }
}

/// One frame as it lies in some log: whole, of a known kind. What it continues is not looked at
/// before it is appended ([`Wal::append_frames`](crate::Wal::append_frames)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    header: FrameHeader,
    kind: Kind,
}

impl Frame {
    /// Takes the frame that `bytes` begin with off them.
    ///
    /// # Errors
    /// [`FrameError::Incomplete`], [`FrameError::TooLong`], [`FrameError::UnknownKind`]; `bytes` are
    /// as they were.
    pub fn split_from(bytes: &mut Bytes) -> Result<Frame, FrameError> {
        let (header, need) = FrameHeader::whole(bytes)?;
        let kind = match Kind::from_number(header.kind) {
            Some(kind) if header.flags == 0 => kind,
            _ => return Err(FrameError::UnknownKind(header.kind)),
        };
        Ok(Frame {
            bytes: bytes.split_to(need),
            header,
            kind,
        })
    }

    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// CRC on it.
    pub fn crc(&self) -> u32 {
        self.header.crc
    }
    /// What it says that it holds: true once a log has taken it.
    pub fn record(&self) -> Record {
        record(
            &self.header,
            self.kind,
            self.bytes.slice(FRAME_HEADER_BYTES..),
        )
    }

    /// Whether its bytes are those that were written behind a frame of this CRC.
    ///
    /// # Errors
    /// [`FrameError::Crc`].
    pub fn check(&self, seed: u32) -> Result<(), FrameError> {
        check(&self.bytes, seed).map(drop)
    }
}

/// Checks the frame at the start of `bytes` against the CRC before it.
///
/// # Errors
/// Every [`FrameError`] but `Order` and `Hole`, which need more than one frame to be seen.
pub(crate) fn check(bytes: &[u8], seed: u32) -> Result<FrameHeader, FrameError> {
    let (header, need) = FrameHeader::whole(bytes)?;
    let computed = crc32c::crc32c_append(seed, &bytes[4..need]);
    if computed != header.crc {
        return Err(FrameError::Crc {
            found: header.crc,
            computed,
        });
    }
    Ok(header)
}

/// Appends the frame of `record` to `out`; gives its CRC.
///
/// # Panics
/// If the payload is longer than a frame takes: appending checks that first.
pub(crate) fn encode(record: &Record, seed: u32, out: &mut BytesMut) -> u32 {
    let payload = u32::try_from(record.payload.len()).expect("checked against the limit before");
    assert!(
        record.payload.len() <= limits::FRAME_PAYLOAD_BYTES,
        "a payload of {payload} bytes reached the encoder"
    );
    let start = out.len();
    put(record, 0, payload, out);
    let crc = crc32c::crc32c_append(seed, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Appends the frame that a log made of `record` to `out`: the very bytes, for the CRC is known.
pub(crate) fn encode_again(record: &Record, crc: u32, out: &mut BytesMut) {
    let payload = u32::try_from(record.payload.len()).expect("it stood in a frame");
    put(record, crc, payload, out);
}

fn put(record: &Record, crc: u32, payload: u32, out: &mut BytesMut) {
    out.put_u32_le(crc);
    out.put_u32_le(payload);
    out.put_u64_le(record.lsn.get());
    out.put_u64_le(record.term.get());
    out.put_u64_le(record.stamp.micros());
    out.put_u64_le(record.committed.get());
    out.put_u16_le(record.kind.number());
    out.put_u16_le(0);
    out.put_slice(&record.payload);
}

/// The record of a checked frame.
pub(crate) fn record(header: &FrameHeader, kind: Kind, payload: Bytes) -> Record {
    Record {
        lsn: header.lsn,
        term: header.term,
        stamp: header.stamp,
        committed: header.committed,
        kind,
        payload,
    }
}

/// Length of the frame that a payload of this length makes.
pub(crate) const fn frame_bytes(payload: usize) -> u64 {
    (FRAME_HEADER_BYTES + payload) as u64
}

pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(b, at))
}
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(b, at))
}
pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(b, at))
}
/// The `N` bytes at a fixed offset of a layout whose whole length was checked.
pub(crate) fn array_at<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    b[at..at + N]
        .try_into()
        .expect("the slice has the length asked for")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn example() -> Record {
        Record {
            lsn: Lsn::new(7),
            term: Term::new(2),
            stamp: Stamp::from_micros(0x0102_0304_0506),
            committed: Lsn::new(5),
            kind: Kind::User,
            payload: Bytes::from_static(b"abc"),
        }
    }

    #[test]
    fn golden_frame() {
        let mut out = BytesMut::new();
        let crc = encode(&example(), 0xdead_beef, &mut out);
        let hex: String = out[4..].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "03000000\
             0700000000000000\
             0200000000000000\
             0605040302010000\
             0500000000000000\
             02000000616263"
        );
        assert_eq!(crc, crc32c::crc32c_append(0xdead_beef, &out[4..]));
        assert_eq!(out[..4], crc.to_le_bytes());
        // By a bitwise implementation of CRC-32C, started from the seed.
        assert_eq!(crc, 3578226598);
    }

    #[test]
    fn a_frame_continues_only_the_frame_it_was_made_after() {
        let mut out = BytesMut::new();
        encode(&example(), 1, &mut out);
        assert!(check(&out, 1).is_ok());
        assert!(matches!(check(&out, 2), Err(FrameError::Crc { .. })));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let mut out = BytesMut::new();
        encode(&example(), 9, &mut out);
        for bit in 0..out.len() * 8 {
            let mut bad = out.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad, 9).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed: u32) {
            prop_assert!(check(&bytes, seed).is_err());
            let before = Bytes::from(bytes);
            let mut rest = before.clone();
            match Frame::split_from(&mut rest) {
                Ok(frame) => prop_assert_eq!([&frame.bytes()[..], &rest[..]].concat(), before),
                Err(_) => prop_assert_eq!(rest, before),
            }
        }
    }
}
