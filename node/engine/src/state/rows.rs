//! What entries hold, kind by kind: the structs behind the payloads (layout in
//! `docs/formats/state.md`). A key-value pair's payload is the value itself, a column's likewise.

use bincode::{Decode, Encode};
use unisondb_types::{
    Chain, ColumnName, Digest, EntryType, Key, LineageId, LineageRecord, Lsn, Members, Op, Outcome,
    SegmentId, Stamp, Term, TxId, TxOperation,
};

/// A large object's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Manifest {
    /// The transaction that brought it: names its chunks.
    pub object: TxId,
    /// Length in bytes.
    pub len: u64,
    /// How many chunks.
    pub chunks: u64,
    /// Running BLAKE3 over the chunks: `h = blake3(h, chunk)`, from 32 zero bytes.
    pub hash: [u8; 32],
    /// CRC-32C of the object's bytes.
    pub crc32c: u32,
}

impl Manifest {
    /// Of an object without a chunk.
    pub fn empty(object: TxId) -> Manifest {
        Manifest {
            object,
            len: 0,
            chunks: 0,
            hash: [0; 32],
            crc32c: 0,
        }
    }

    /// The object gains a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut h = blake3::Hasher::new();
        h.update(&self.hash).update(chunk);
        self.hash = *h.finalize().as_bytes();
        self.crc32c = crc32c::crc32c_append(self.crc32c, chunk);
        self.len += chunk.len() as u64;
        self.chunks += 1;
    }
}

/// A row's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct RowHeader {
    /// How many columns.
    pub columns: u32,
    /// Bytes of their names and values together.
    pub bytes: u64,
}

impl RowHeader {
    /// What a column adds to its row's bytes.
    pub fn cost(name: &ColumnName, value_bytes: usize) -> u64 {
        (name.as_bytes().len() + value_bytes) as u64
    }

    /// The row gains a column.
    pub fn gain(&mut self, name: &ColumnName, value_bytes: usize) {
        self.columns += 1;
        self.bytes += RowHeader::cost(name, value_bytes);
    }

    /// The row loses a column; `None` if it cannot have had it.
    pub fn lose(self, name: &ColumnName, value_bytes: usize) -> Option<RowHeader> {
        Some(RowHeader {
            columns: self.columns.checked_sub(1)?,
            bytes: self.bytes.checked_sub(RowHeader::cost(name, value_bytes))?,
        })
    }
}

/// An open transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TxRow {
    /// What its operations do.
    pub operation: TxOperation,
    /// What they are done to.
    pub entry_type: EntryType,
    /// Stamp of its begin.
    pub begun: Stamp,
    /// Stamp of its last operation.
    pub touched: Stamp,
    /// Operations staged.
    pub ops: u64,
    /// Bytes staged, object chunks not counted.
    pub bytes: u64,
    /// The object it brings.
    pub lob: Option<(Key, Manifest)>,
}

/// What one record staged.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StagedOps(pub Vec<Op>);

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TxEndRow {
    /// How.
    pub how: TxEnded,
    /// When.
    pub stamp: Stamp,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum TxEnded {
    /// By its commit.
    Committed,
    /// By its client's abort.
    Aborted,
    /// By the server, expired or overtaken by a restore.
    Expired,
}

/// An idempotency key's first answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IdempotencyRow {
    /// What it was used for.
    pub fingerprint: [u8; 16],
    /// When.
    pub stamp: Stamp,
    /// The record.
    pub lsn: Lsn,
    /// What that did.
    pub outcome: Outcome,
}

/// Who belongs to the group, as of a record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// The record that says so: a `Membership` or a `Lineage`.
    pub lsn: Lsn,
    /// Its term.
    pub term: Term,
    /// Who.
    pub members: Members,
}

impl Membership {
    /// As of the record that a lineage began with. For states written before members were kept in
    /// them: that record's term is not known then, and is at least the one told here.
    pub fn at_begin(lineage: &LineageRecord) -> Membership {
        let parent = lineage.parent.as_ref();
        Membership {
            lsn: lineage.first_lsn(),
            term: parent.map_or(Term::new(1), |p| p.term.next()),
            members: Members::of(lineage.members.clone()),
        }
    }
}

/// An ended segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SegmentRow {
    /// Its lineage.
    pub lineage: LineageId,
    /// Its first record.
    pub first_lsn: Lsn,
    /// Its last record.
    pub last_lsn: Lsn,
    /// Stamp of that.
    pub last_stamp: Stamp,
    /// State digest after it.
    pub digest: Digest,
    /// Chain up to its end.
    pub chain: Chain,
    /// Whether the log has confirmed it with a `Check`.
    pub checked: bool,
}

impl SegmentRow {
    /// As the record that the leader puts into the log.
    pub fn check(&self, segment: SegmentId) -> unisondb_types::Check {
        unisondb_types::Check {
            segment,
            last_lsn: self.last_lsn,
            digest: self.digest,
            chain: self.chain,
        }
    }
}
