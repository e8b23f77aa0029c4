//! How a message between nodes is put into bytes: a checksum, a header of ours, and what lies behind
//! it. (Layout in `docs/formats/peer.md`.)

use bincode::{Decode, Encode};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use unisondb_types::codec;

/// Checksum and length of the header.
const PREFIX_BYTES: usize = 8;
/// A header longer than this is none.
pub(super) const HEADER_BYTES: usize = 4 << 10;

/// Why bytes are no message: they end early, or are not those that were sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes is damaged: {why}")]
pub struct Damaged {
    /// How many there are.
    pub bytes: usize,
    /// What is wrong.
    pub why: String,
}

/// A message: `header`, and behind it what `rest` puts there.
pub fn encode(header: &impl Encode, rest: impl FnOnce(&mut BytesMut)) -> Bytes {
    enclose(&codec::encode(header), rest)
}

/// The same around a header that is encoded already, or is none: what a test of a decoder sends past the
/// checksum.
pub fn enclose(header: &[u8], rest: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + header.len());
    out.put_u32_le(0);
    out.put_u32_le(u32::try_from(header.len()).expect("a header is short"));
    out.put_slice(header);
    rest(&mut out);
    let sum = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out.freeze()
}

/// The header of a message, and what lies behind it.
///
/// # Errors
/// [`Damaged`]: never a panic, whatever the bytes; and nothing is allocated that they do not hold.
pub fn decode<T: Decode<()>>(mut bytes: Bytes) -> Result<(T, Bytes), Damaged> {
    let length = bytes.len();
    let damaged = |why: String| Damaged { bytes: length, why };
    if length < PREFIX_BYTES {
        return Err(damaged("it ends inside its beginning".to_owned()));
    }
    let sum = bytes.get_u32_le();
    if crc32c::crc32c(&bytes) != sum {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    let header = bytes.get_u32_le() as usize;
    if header > HEADER_BYTES || header > bytes.len() {
        return Err(damaged(format!("its header claims {header} bytes")));
    }
    let header = bytes.split_to(header);
    let header = codec::decode(&header).map_err(|e| damaged(e.to_string()))?;
    Ok((header, bytes))
}
