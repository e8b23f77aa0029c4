//! Positions and identities: [`Lsn`], [`Term`], [`SegmentId`], [`LineageId`], [`ClusterId`],
//! [`TxId`]. Each prints and parses one way.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Position of a record in the log of a namespace: dense from 1, across lineages.
/// (The raft index of the same record is one less.) Zero is "before the first record".
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first record: the position of an empty log.
    pub const ZERO: Lsn = Lsn(0);
    /// The first record of a namespace.
    pub const FIRST: Lsn = Lsn(1);
    /// After every record.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position `n`.
    pub const fn new(n: u64) -> Lsn {
        Lsn(n)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }
    /// The position before this one; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

/// A leader's term of office. Never falls along the log.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Term(u64);

impl Term {
    /// The term `n`.
    pub const fn new(n: u64) -> Term {
        Term(n)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

/// Number of a segment file: 1, 2, 3 … in the first lineage of a namespace; every later lineage
/// begins at a multiple of [`SegmentId::LINEAGE_STEP`] above every id known (P12).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct SegmentId(u64);

impl SegmentId {
    /// "No segment": below every id. What `afterSegmentId` means when it is left out.
    pub const ZERO: SegmentId = SegmentId(0);
    /// The first segment of a namespace that has never had one.
    pub const FIRST: SegmentId = SegmentId(1);
    /// Distance between the blocks of ids that lineages use.
    pub const LINEAGE_STEP: u64 = 1_000_000;

    /// Highest id that may be asked for as the first of a lineage: the names of files keep their nine
    /// digits, and a hundred more lineages have room.
    pub const FIRST_MOST: SegmentId = SegmentId(900_000_000);

    /// The segment `n`.
    pub const fn new(n: u64) -> SegmentId {
        SegmentId(n)
    }
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The id after this one.
    #[must_use]
    pub const fn next(self) -> SegmentId {
        SegmentId(self.0.saturating_add(1))
    }
    /// First id of the next lineage when every id up to and including `self` is known or reserved:
    /// the next multiple of one million above it.
    #[must_use]
    pub const fn next_block(self) -> SegmentId {
        SegmentId(
            (self.0 / Self::LINEAGE_STEP)
                .saturating_add(1)
                .saturating_mul(Self::LINEAGE_STEP),
        )
    }
    /// Last id of the block that this id lies in.
    #[must_use]
    pub const fn block_end(self) -> SegmentId {
        SegmentId(self.next_block().0 - 1)
    }
    /// The segments `self` to `last` as a sentence begins with them: `segment 3 is`,
    /// `segments 3-5 are`.
    pub fn to_last(self, last: SegmentId) -> String {
        if self == last {
            format!("segment {self} is")
        } else {
            format!("segments {self}-{last} are")
        }
    }
    /// The name of the segment's file: nine digits, wider above 999,999,999, and `.wal`.
    pub fn file_name(self) -> String {
        format!("{:09}.wal", self.0)
    }
    /// The id in a segment's file name; `None` for any other name, so a foreign file is never
    /// taken for a segment. Exactly the names that [`file_name`](Self::file_name) makes, id ≥ 1.
    pub fn parse_file_name(name: &str) -> Option<SegmentId> {
        let digits = name.strip_suffix(".wal")?;
        if digits.len() < 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let id = SegmentId(digits.parse().ok()?);
        (id.0 > 0 && id.file_name() == name).then_some(id)
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a {what}: {why}")]
pub struct ParseIdError {
    what: &'static str,
    found: String,
    why: &'static str,
}

/// Lets the other modules of this crate make the error for their own texts.
pub(crate) struct ParseIdErrorParts;

impl ParseIdErrorParts {
    pub(crate) fn hex64(what: &'static str, found: &str) -> ParseIdError {
        let found = found.chars().take(80).collect();
        ParseIdError {
            what,
            found,
            why: "64 hexadecimal digits are wanted",
        }
    }
}

macro_rules! number_text {
    ($t:ident, $what:literal) => {
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($t), "({})"), self.0)
            }
        }
        impl FromStr for $t {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<$t, ParseIdError> {
                s.parse().map($t).map_err(|_| ParseIdError {
                    what: $what,
                    found: s.chars().take(64).collect(),
                    why: "a whole number is wanted",
                })
            }
        }
    };
}
number_text!(Lsn, "log position");
number_text!(Term, "term");
number_text!(SegmentId, "segment id");

macro_rules! hex_id {
    ($(#[$doc:meta])* $t:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $t([u8; 16]);

        impl $t {
            /// From its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> $t {
                $t(bytes)
            }
            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
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
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<$t, ParseIdError> {
                let wrong = |why| ParseIdError {
                    what: $what,
                    found: s.chars().take(64).collect(),
                    why,
                };
                if s.len() != 32 || !s.is_ascii() {
                    return Err(wrong("32 hexadecimal digits are wanted"));
                }
                let mut bytes = [0u8; 16];
                for (i, b) in bytes.iter_mut().enumerate() {
                    *b = u8::from_str_radix(&s[2 * i..2 * i + 2], 16)
                        .map_err(|_| wrong("32 hexadecimal digits are wanted"))?;
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
hex_id!(
    /// One unbroken history of a namespace: 128 random bits. A restore starts a new one.
    LineageId,
    "lineage id"
);
hex_id!(
    /// The cluster (or single node) that a history belongs to: 128 random bits.
    ClusterId,
    "cluster id"
);
hex_id!(
    /// A client's transaction: 128 random bits, drawn by the leader.
    TxId,
    "transaction id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_are_nine_digits_and_only_those_parse() {
        assert_eq!(SegmentId::new(43).file_name(), "000000043.wal");
        assert_eq!(SegmentId::new(1_234_567_890).file_name(), "1234567890.wal");
        for good in [1, 43, 999_999_999, 1_000_000_000, u64::MAX] {
            let id = SegmentId::new(good);
            assert_eq!(SegmentId::parse_file_name(&id.file_name()), Some(id));
        }
        for bad in [
            "",
            "1.wal",
            "000000000.wal",
            "0000000043.wal",
            "000000043.wal.gz",
            "x00000043.wal",
            "+00000043.wal",
        ] {
            assert_eq!(SegmentId::parse_file_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_new_lineage_begins_above_every_known_id() {
        assert_eq!(SegmentId::ZERO.next_block().get(), 1_000_000);
        assert_eq!(SegmentId::new(999_999).next_block().get(), 1_000_000);
        assert_eq!(SegmentId::new(1_000_000).next_block().get(), 2_000_000);
        assert_eq!(SegmentId::new(7).block_end().get(), 999_999);
    }

    #[test]
    fn ids_print_and_parse_one_way() {
        let id = LineageId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<LineageId>(), Ok(id));
        assert!("".parse::<LineageId>().is_err());
        assert!("zz".repeat(16).parse::<LineageId>().is_err());
        assert!("é".repeat(16).parse::<LineageId>().is_err());
        assert_eq!("17".parse::<Lsn>(), Ok(Lsn::new(17)));
        assert!("-1".parse::<Lsn>().is_err());
    }
}
