//! [`LineageRecord`]: the first record of a history, and what it says of the one before.
//! (D1 in `docs/architecture.md`; layout in `docs/formats/records.md`.)

use bincode::{Decode, Encode};

use crate::{Chain, ClusterId, Digest, LineageId, Lsn, Namespace, SegmentId, Stamp, Term};

/// The record that a lineage begins with: at LSN 1, or at the target of a restore plus one.
/// Written by exactly one node, straight into the log; never proposed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LineageRecord {
    /// The cluster or single node that this history belongs to.
    pub cluster: ClusterId,
    /// The namespace.
    pub namespace: Namespace,
    /// The name of this history.
    pub lineage: LineageId,
    /// Where it was forked from; `None` for a namespace made new.
    pub parent: Option<Parent>,
    /// All older histories that this one continues, nearest first, the parent included.
    pub ancestors: Vec<Ancestor>,
    /// Id of the segment that this record stands in.
    pub first_segment: SegmentId,
    /// Segment size that the lineage begins with, in bytes.
    pub segment_size: u64,
    /// Raft ids of the first voters: one, for a single node.
    pub members: Vec<u64>,
    /// Why the lineage was begun.
    pub reason: LineageReason,
}

/// Where a lineage was forked from its parent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Parent {
    /// The parent's name.
    pub lineage: LineageId,
    /// The last LSN that both have: the fork.
    pub fork: Lsn,
    /// Term of the parent's record at the fork.
    pub term: Term,
    /// Stamp of the parent's record at the fork.
    pub stamp: Stamp,
    /// State digest at the fork.
    pub digest: Digest,
    /// The parent's segment that holds the fork; zero if no segment of it was ever known here.
    pub segment: SegmentId,
    /// The parent's chain up to and including `chain_lsn`.
    pub chain: Chain,
    /// What `chain` covers: the fork itself, or, when only a snapshot was at hand that was not
    /// taken at a segment's end, the end of the last whole segment below it.
    pub chain_lsn: Lsn,
}

/// One older history, and the last LSN taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ancestor {
    /// Its name.
    pub lineage: LineageId,
    /// The last LSN that belongs to both.
    pub fork: Lsn,
}

/// Why a lineage was begun.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum LineageReason {
    /// A namespace made new.
    Created,
    /// A restore that stopped at this target.
    Restored(Target),
}

/// Where a restore stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Target {
    /// The last record there is.
    Latest,
    /// As soon as the base is consistent: nothing of the log is replayed.
    Immediate,
    /// The state after this record.
    Lsn(Lsn),
    /// The state before this record.
    BeforeLsn(Lsn),
    /// After the last record stamped at or before this time.
    Time(Stamp),
    /// After the last record stamped before this time.
    BeforeTime(Stamp),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Latest => f.write_str("the last record there is"),
            Target::Immediate => f.write_str("the snapshot itself"),
            Target::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Target::BeforeLsn(lsn) => write!(f, "just before LSN {lsn}"),
            Target::Time(time) => write!(f, "{time}"),
            Target::BeforeTime(time) => write!(f, "just before {time}"),
        }
    }
}

impl LineageRecord {
    /// Whether the history of this lineage holds position `lsn` of `lineage`: its own, or that of
    /// an ancestor at or below the fork.
    pub fn holds(&self, lineage: LineageId, lsn: Lsn) -> bool {
        lineage == self.lineage
            || self
                .ancestors
                .iter()
                .any(|a| a.lineage == lineage && lsn <= a.fork)
    }

    /// The first LSN of this lineage.
    pub fn first_lsn(&self) -> Lsn {
        self.parent.as_ref().map_or(Lsn::FIRST, |p| p.fork.next())
    }
}

impl Target {
    /// Whether a record with this position and stamp lies within the target.
    pub fn includes(&self, lsn: Lsn, stamp: Stamp) -> bool {
        match *self {
            Target::Latest => true,
            Target::Immediate => false,
            Target::Lsn(n) => lsn <= n,
            Target::BeforeLsn(n) => lsn < n,
            Target::Time(t) => stamp <= t,
            Target::BeforeTime(t) => stamp < t,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AbortReason, EntryType, TxOperation};

    #[test]
    fn what_operators_read_is_in_words_and_never_in_rust() {
        let time = Stamp::from_micros(1_736_346_600_000_000);
        let all: [(&dyn std::fmt::Display, &str); 12] = [
            (&Target::Latest, "the last record there is"),
            (&Target::Immediate, "the snapshot itself"),
            (&Target::Lsn(Lsn::new(7)), "LSN 7"),
            (&Target::BeforeLsn(Lsn::new(7)), "just before LSN 7"),
            (&Target::Time(time), &time.to_string()),
            (&Target::BeforeTime(time), &format!("just before {time}")),
            (&TxOperation::Put, "put"),
            (&TxOperation::Delete, "delete"),
            (&EntryType::Kv, "kv"),
            (&EntryType::Lob, "lob"),
            (&AbortReason::Client, "the client asked"),
            (&AbortReason::Expired, "idle or open for too long"),
        ];
        for (value, words) in all {
            assert_eq!(value.to_string(), words);
        }
    }
}
