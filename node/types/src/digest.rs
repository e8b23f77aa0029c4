//! Hashes that prove: [`Digest`] of the state, [`EntryHash`] of one entry in it, [`Chain`] over the
//! log's bytes, [`Sha256Sum`] of a file.
//!
//! The digest is a sum modulo 2^256 over a 256-bit hash of each entry (Bellare and Micciancio 1997,
//! AdHash), so a change costs one subtraction and one addition whatever the size of the state. It
//! finds faults, not forgers; forgery is the chain's task.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::ids::{Lsn, ParseIdErrorParts, SegmentId};

macro_rules! hash_type {
    ($(#[$doc:meta])* $t:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        pub struct $t([u8; 32]);

        impl $t {
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> $t {
                $t(bytes)
            }
            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($t), "({})"), self)
            }
        }
        impl FromStr for $t {
            type Err = crate::ParseIdError;
            fn from_str(s: &str) -> Result<$t, crate::ParseIdError> {
                let wrong = || ParseIdErrorParts::hex64($what, s);
                if s.len() != 64 || !s.is_ascii() {
                    return Err(wrong());
                }
                let mut bytes = [0u8; 32];
                for (i, b) in bytes.iter_mut().enumerate() {
                    *b = u8::from_str_radix(&s[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
                }
                Ok($t(bytes))
            }
        }
        impl Serialize for $t {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<$t, D::Error> {
                let s = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_type!(
    /// Hash of the whole state of a namespace at one LSN. An empty state has the digest zero.
    Digest,
    "digest"
);
hash_type!(
    /// Hash of one entry of the state: its table, key, LSN and payload.
    EntryHash,
    "entry hash"
);
hash_type!(
    /// Hash over all log bytes of a lineage and its ancestors, up to one point.
    Chain,
    "chain"
);
hash_type!(
    /// SHA-256 of a file or of a run of bytes.
    Sha256Sum,
    "sha256"
);

impl EntryHash {
    /// The hash of an entry: BLAKE3 over table (1 byte), key length (4, little-endian), key,
    /// LSN (8, little-endian), payload.
    pub fn of(table: u8, key: &[u8], lsn: Lsn, payload: &[u8]) -> EntryHash {
        let key_len = u32::try_from(key.len()).expect("keys are at most a few hundred bytes");
        let mut h = blake3::Hasher::new();
        h.update(&[table])
            .update(&key_len.to_le_bytes())
            .update(key);
        h.update(&lsn.get().to_le_bytes()).update(payload);
        EntryHash(*h.finalize().as_bytes())
    }
}

impl Digest {
    /// The digest of the state without any entry.
    pub const EMPTY: Digest = Digest([0; 32]);

    /// The state gains an entry.
    pub fn add(&mut self, entry: &EntryHash) {
        let mut carry = 0u128;
        for (a, b) in self.0.chunks_exact_mut(8).zip(entry.0.chunks_exact(8)) {
            let sum = u128::from(limb(a)) + u128::from(limb(b)) + carry;
            a.copy_from_slice(&low(sum).to_le_bytes());
            carry = sum >> 64;
        }
    }

    /// The state loses an entry.
    pub fn remove(&mut self, entry: &EntryHash) {
        let mut borrow = false;
        for (a, b) in self.0.chunks_exact_mut(8).zip(entry.0.chunks_exact(8)) {
            let (d, under1) = limb(a).overflowing_sub(limb(b));
            let (d, under2) = d.overflowing_sub(u64::from(borrow));
            a.copy_from_slice(&d.to_le_bytes());
            borrow = under1 || under2;
        }
    }
}

fn limb(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low limb is what is wanted"
)]
fn low(sum: u128) -> u64 {
    sum as u64
}

impl Chain {
    /// Before the first segment of a namespace.
    pub const ZERO: Chain = Chain([0; 32]);

    /// The chain after one more segment: SHA-256 over the tag `unisondb-chain-1`, the chain before,
    /// the segment id (8 bytes, little-endian) and the SHA-256 of the segment's content
    /// (header and frames, without footer). For a fork in the middle of a segment, the content
    /// up to the end of the fork's frame.
    #[must_use]
    pub fn extend(self, id: SegmentId, content: Sha256Sum) -> Chain {
        let mut h = sha2::Sha256::new();
        h.update(b"unisondb-chain-1");
        h.update(self.0);
        h.update(id.get().to_le_bytes());
        h.update(content.0);
        Chain(h.finalize().into())
    }

    /// What seeds the CRC of a lineage's first frame: the chain's first four bytes, little-endian.
    pub fn crc_seed(self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digest_does_not_depend_on_order_and_undoes_itself(hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..40)) {
            let mut forward = Digest::EMPTY;
            for h in &hashes {
                forward.add(&EntryHash(*h));
            }
            let mut backward = Digest::EMPTY;
            for h in hashes.iter().rev() {
                backward.add(&EntryHash(*h));
            }
            prop_assert_eq!(forward, backward);
            for h in &hashes {
                forward.remove(&EntryHash(*h));
            }
            prop_assert_eq!(forward, Digest::EMPTY);
        }
    }

    #[test]
    fn sums_carry_into_the_last_limb_and_wrap() {
        let mut one = [0u8; 32];
        one[0] = 1;
        let mut d = Digest([0xff; 32]);
        d.add(&EntryHash(one));
        assert_eq!(d, Digest::EMPTY);
        d.remove(&EntryHash(one));
        assert_eq!(d, Digest([0xff; 32]));
    }

    #[test]
    fn the_chain_depends_on_id_content_and_past() {
        let c = Chain::ZERO.extend(SegmentId::new(1), Sha256Sum([1; 32]));
        assert_ne!(c, Chain::ZERO.extend(SegmentId::new(2), Sha256Sum([1; 32])));
        assert_ne!(c, Chain::ZERO.extend(SegmentId::new(1), Sha256Sum([2; 32])));
        assert_ne!(c, c.extend(SegmentId::new(1), Sha256Sum([1; 32])));
    }
}
