//! [`Position`]: where in the log a state stands, kept in LMDB in the same commit as the state.

use bincode::{Decode, Encode};
use unisondb_types::{Chain, ClusterId, Digest, LineageId, Lsn, Namespace, SegmentId, Stamp, Term};

/// Name of the position among the meta entries.
pub const POSITION: &str = "position";
/// Name of the lineage record among the meta entries.
pub const LINEAGE: &str = "lineage";
/// Name of the members among the meta entries.
pub const MEMBERS: &str = "members";
/// Name of the owner id among the meta entries (D16).
pub const OWNER: &str = "owner";
/// The layout of the state that this release writes and reads.
pub const FORMAT: u16 = 1;

/// Where a state stands: the last record in it, and what the next one must follow.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Position {
    /// Layout of the state: [`FORMAT`].
    pub format: u16,
    /// Whose state it is.
    pub namespace: Namespace,
    /// Its cluster or single node.
    pub cluster: ClusterId,
    /// Its lineage.
    pub lineage: LineageId,
    /// The last record applied.
    pub lsn: Lsn,
    /// That record's term.
    pub term: Term,
    /// That record's stamp.
    pub stamp: Stamp,
    /// CRC of that record's frame.
    pub crc: u32,
    /// The segment that holds that record.
    pub segment: SegmentId,
    /// Offset behind that record in its segment.
    pub offset: u64,
    /// Whether that segment ended with that record.
    pub segment_ended: bool,
    /// State digest.
    pub digest: Digest,
    /// Chain up to `chain_lsn`.
    pub chain: Chain,
    /// End of the last whole segment at or below `lsn`.
    pub chain_lsn: Lsn,
    /// Transactions open.
    pub open_transactions: u64,
    /// Idempotency keys remembered.
    pub idempotency_keys: u64,
}

impl Position {
    /// The newest segment that lies wholly in the state: replay needs only those above it.
    /// Zero when there is none.
    pub fn whole_segment(&self, last_ended: Option<SegmentId>) -> SegmentId {
        if self.segment_ended {
            self.segment
        } else {
            last_ended.unwrap_or(SegmentId::ZERO)
        }
    }
}
