//! Several questions in one message, and their answers, in the same order: what lies behind
//! [`Ask::Several`](super::Ask::Several) and [`Told::Several`](super::Told::Several). Each part is a header and
//! what lies behind that; the envelope around all of them has the checksum. (Layout in `docs/formats/peer.md`.)

use bincode::{Decode, Encode};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use unisondb_types::codec;

use super::envelope::{Damaged, HEADER_BYTES};

/// Most parts of one message: more than a cluster has groups.
pub const PARTS: usize = 1_024;

/// Puts a part behind those that are there.
pub fn put(header: &impl Encode, rest: &[u8], out: &mut BytesMut) {
    put_encoded(&codec::encode(header), rest, out);
}

/// The same with a header that is encoded already.
pub fn put_encoded(header: &[u8], rest: &[u8], out: &mut BytesMut) {
    for bytes in [header, rest] {
        out.put_u32_le(u32::try_from(bytes.len()).expect("a part is no longer than a message"));
        out.put_slice(bytes);
    }
}

/// How many bytes [`put`] makes of a part whose header is encoded in `header` bytes.
#[must_use]
pub fn length(header: usize, rest: usize) -> usize {
    8 + header + rest
}

/// All parts.
///
/// # Errors
/// [`Damaged`]: never a panic, whatever the bytes; and nothing is allocated that they do not hold.
pub fn take<T: Decode<()>>(mut bytes: Bytes) -> Result<Vec<(T, Bytes)>, Damaged> {
    let length = bytes.len();
    let damaged = |why: String| Damaged { bytes: length, why };
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        if parts.len() == PARTS {
            return Err(damaged(format!("it has more than {PARTS} parts")));
        }
        let mut piece = |most: usize| {
            if bytes.len() < 4 {
                return Err(damaged("it ends inside a part".to_owned()));
            }
            let claimed = bytes.get_u32_le() as usize;
            if claimed > most || claimed > bytes.len() {
                return Err(damaged(format!("a part of it claims {claimed} bytes")));
            }
            Ok(bytes.split_to(claimed))
        };
        let header = piece(HEADER_BYTES)?;
        let rest = piece(length)?;
        let header = codec::decode(&header).map_err(|e| damaged(e.to_string()))?;
        parts.push((header, rest));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::peer::{Ask, Told};

    /// Keeps `docs/formats/peer.md`.
    #[test]
    fn golden_parts() {
        let mut out = BytesMut::new();
        put(&Told::Raft, b"ab", &mut out);
        put(&Told::Refused("no".to_owned()), b"", &mut out);
        let golden = [
            &[4, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0][..],
            b"ab",
            &[14, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            b"no",
            &[0, 0, 0, 0],
        ];
        assert_eq!(out, golden.concat());
        assert_eq!(out.len(), length(4, 2) + length(14, 0));
        let back = take::<Told>(out.freeze()).unwrap();
        let refused = Told::Refused("no".to_owned());
        assert_eq!(back, [(Told::Raft, "ab".into()), (refused, Bytes::new())]);
        assert_eq!(take::<Told>(Bytes::new()).unwrap(), []);
    }

    #[test]
    fn more_parts_than_a_message_has_are_refused_and_so_is_one_that_is_cut() {
        let mut out = BytesMut::new();
        for _ in 0..PARTS {
            put(&Ask::Who, b"", &mut out);
        }
        assert_eq!(take::<Ask>(out.clone().freeze()).unwrap().len(), PARTS);
        let cut = out.clone().freeze().slice(..out.len() - 1);
        assert!(take::<Ask>(cut).is_err());
        put(&Ask::Who, b"", &mut out);
        let why = take::<Ask>(out.freeze()).unwrap_err().to_string();
        assert!(why.contains("more than 1024 parts"), "{why}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parts_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(take::<Ask>(bytes.clone().into()));
            // Past the first length, with a header that is there.
            let mut out = BytesMut::new();
            put(&Ask::Who, &bytes, &mut out);
            out.extend_from_slice(&bytes);
            drop(take::<Ask>(out.freeze()));
        }
    }
}
