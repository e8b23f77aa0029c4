//! What callers are told: [`Entry`], a record and where it stands; [`SegmentInfo`], a segment and
//! what is known of it.

use bytes::BytesMut;
use unisondb_types::{Chain, Digest, LineageId, Lsn, Record, SegmentId, Sha256Sum, Stamp, Term};

use crate::frame;
use crate::header::SegmentHeader;

/// A record of the log, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// The segment that holds it.
    pub segment: SegmentId,
    /// CRC on its frame.
    pub crc: u32,
    /// Offset behind its frame in the segment's file.
    pub end: u64,
}

impl Entry {
    /// Length of its frame.
    pub fn frame_bytes(&self) -> u64 {
        frame::frame_bytes(self.record.payload.len())
    }
    /// Appends its frame, byte for byte as it lies in the log, to `out`.
    pub fn put_frame(&self, out: &mut BytesMut) {
        frame::encode_again(&self.record, self.crc, out);
    }
    /// Where its frame begins in the segment's file.
    pub fn start(&self) -> u64 {
        self.end - self.frame_bytes()
    }
}

/// How far a segment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentState {
    /// Appended to.
    Active,
    /// Ended, not yet final.
    Rolled,
    /// Final: never changes again.
    Sealed,
}

impl SegmentState {
    /// The word for it in answers and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            SegmentState::Active => "active",
            SegmentState::Rolled => "rolled",
            SegmentState::Sealed => "sealed",
        }
    }
}

/// What is known of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub id: SegmentId,
    /// How far it is in its life.
    pub state: SegmentState,
    /// Its header: lineage, first LSN, predecessor, segment size.
    pub header: SegmentHeader,
    /// Its last record; `None` while it has none.
    pub last_lsn: Option<Lsn>,
    /// Time of its first record; zero while it has none.
    pub first_stamp: Stamp,
    /// Time of its last record; zero while it has none.
    pub last_stamp: Stamp,
    /// Term of its last record; zero while it has none.
    pub last_term: Term,
    /// CRC of its last frame; while it has none, of the last one before it.
    pub last_crc: u32,
    /// How many records it holds.
    pub records: u64,
    /// Length of its file, without zeroes ahead.
    pub bytes: u64,
    /// Whether it holds a record with user data.
    pub user_data: bool,
    /// Highest LSN that its frames vouch for (D6); of a segment known by its footer only, its
    /// last LSN.
    pub vouched: Lsn,
    /// Chain up to its end; not while it is active.
    pub chain: Option<Chain>,
    /// State digest at its end; only when sealed.
    pub digest: Option<Digest>,
    /// SHA-256 of the whole file; only when sealed, and only once it has been computed.
    pub sha256: Option<Sha256Sum>,
    /// The lineage whose fork ended it; only when cut.
    pub cut_by: Option<LineageId>,
}

impl SegmentInfo {
    /// Position of its first record, there or to come.
    pub fn first_lsn(&self) -> Lsn {
        self.header.first_lsn
    }
    /// Whether its records end at or above `lsn`, and begin at or below.
    pub fn holds(&self, lsn: Lsn) -> bool {
        self.header.first_lsn <= lsn && self.last_lsn.is_some_and(|last| lsn <= last)
    }
}
