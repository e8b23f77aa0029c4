//! How an entry is kept, in the memtable and in LMDB alike: its hash (32 bytes), the LSN of the
//! record that wrote it (8, little-endian), the payload. The hash covers table, key, LSN and
//! payload: it is the entry's checksum (P13) and its part of the digest (D13) in one.

use bytes::{BufMut, Bytes, BytesMut};
use unisondb_types::{EntryHash, Lsn};

use crate::Error;

const HEAD: usize = 32 + 8;

/// An entry that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<B> {
    /// Its hash.
    pub hash: EntryHash,
    /// The record that wrote it.
    pub lsn: Lsn,
    /// What it holds.
    pub payload: B,
}

/// The bytes to keep for `payload` under `key`.
pub fn encode(key: &[u8], lsn: Lsn, payload: &[u8]) -> (EntryHash, Bytes) {
    let hash = hash_of(key, lsn, payload);
    let mut bytes = BytesMut::with_capacity(HEAD + payload.len());
    bytes.put_slice(hash.as_bytes());
    bytes.put_u64_le(lsn.get());
    bytes.put_slice(payload);
    (hash, bytes.freeze())
}

fn hash_of(key: &[u8], lsn: Lsn, payload: &[u8]) -> EntryHash {
    let (table, name) = key
        .split_first()
        .expect("every key begins with its table's number");
    EntryHash::of(*table, name, lsn, payload)
}

/// The entry kept under `key`, checked against its hash.
///
/// # Errors
/// [`Error::Damaged`] when the bytes are not what was written.
pub fn open<'a>(key: &[u8], bytes: &'a [u8]) -> Result<Entry<&'a [u8]>, Error> {
    let damaged = |why: &str| Error::Damaged {
        what: format!("entry {}", key.escape_ascii()),
        why: why.to_owned(),
    };
    let Some((head, payload)) = bytes.split_at_checked(HEAD) else {
        return Err(damaged("it is shorter than an entry's head"));
    };
    let (hash, lsn) = head.split_at(32);
    let hash = EntryHash::from_bytes(hash.try_into().expect("split at 32"));
    let lsn = Lsn::new(u64::from_le_bytes(lsn.try_into().expect("40 less 32")));
    if key.is_empty() || hash_of(key, lsn, payload) != hash {
        return Err(damaged("its checksum does not match"));
    }
    Ok(Entry { hash, lsn, payload })
}

/// As [`open`], sharing the bytes.
///
/// # Errors
/// As [`open`].
pub fn open_shared(key: &[u8], bytes: &Bytes) -> Result<Entry<Bytes>, Error> {
    let e = open(key, bytes)?;
    Ok(Entry {
        hash: e.hash,
        lsn: e.lsn,
        payload: bytes.slice(HEAD..),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_flipped_bit_in_key_lsn_or_payload_is_found(
            key in proptest::collection::vec(any::<u8>(), 1..40),
            payload in proptest::collection::vec(any::<u8>(), 0..80),
            lsn in any::<u64>(), at in any::<usize>(), bit in 0..8u8,
        ) {
            let (_, bytes) = encode(&key, Lsn::new(lsn), &payload);
            prop_assert_eq!(open(&key, &bytes).unwrap().payload, &payload[..]);
            let mut bad = bytes.to_vec();
            let i = at % bad.len();
            bad[i] ^= 1 << bit;
            prop_assert!(open(&key, &bad).is_err());
            let mut other = key.clone();
            let i = at % other.len();
            other[i] ^= 1 << bit;
            prop_assert!(open(&other, &bytes).is_err());
        }

        #[test]
        fn any_bytes_are_an_entry_or_an_error(key in proptest::collection::vec(any::<u8>(), 0..8), bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(open(&key, &bytes));
        }
    }
}
