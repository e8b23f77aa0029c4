//! What a record asks of the state: [`Command`], the client's [`Action`]s, and the [`Outcome`]
//! that applying one gives on every node alike.
//!
//! Variants are encoded by their order: they are only ever appended (golden bytes in the tests).

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::codec;
use crate::{
    Chain, ColumnName, Digest, IdempotencyKey, Key, Kind, LineageRecord, Lsn, Members, RowKey,
    SegmentId, TxId, Value,
};

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A lineage begins.
    Lineage(Box<LineageRecord>),
    /// A client's action.
    User {
        /// The client's key for retries, if it gave one.
        idempotency: Option<Idempotency>,
        /// What it asks for.
        action: Action,
    },
    /// End the active segment if it has this id and holds user data.
    Seal(SegmentId),
    /// What a rolled segment adds up to; each node compares its own.
    Check(Check),
    /// Nothing.
    Blank,
    /// Who belongs to the group from here on.
    Membership(Members),
}

impl Command {
    /// The number for the frame.
    pub fn kind(&self) -> Kind {
        match self {
            Command::Lineage(_) => Kind::Lineage,
            Command::User { .. } => Kind::User,
            Command::Seal(_) => Kind::Seal,
            Command::Check(_) => Kind::Check,
            Command::Blank => Kind::Blank,
            Command::Membership(_) => Kind::Membership,
        }
    }

    /// The bytes for the frame, kind excluded.
    pub fn payload(&self) -> Bytes {
        Bytes::from(match self {
            Command::Lineage(l) => codec::encode(l.as_ref()),
            Command::User {
                idempotency,
                action,
            } => codec::encode(&(idempotency, action)),
            Command::Seal(id) => codec::encode(id),
            Command::Check(check) => codec::encode(check),
            Command::Blank => Vec::new(),
            Command::Membership(members) => codec::encode(members),
        })
    }
}

/// What the leader found when a rolled segment was applied (D5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Check {
    /// The segment.
    pub segment: SegmentId,
    /// Its last record.
    pub last_lsn: Lsn,
    /// The state digest after that record.
    pub digest: Digest,
    /// The chain over all bytes up to the end of that record.
    pub chain: Chain,
}

/// A client's key for safe retries, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Idempotency {
    /// The key.
    pub key: IdempotencyKey,
    /// First 16 bytes of BLAKE3 over the encoded action: another request under the same key is a
    /// conflict, not a repetition.
    pub fingerprint: [u8; 16],
}

/// What a client asks for in one record: all of it happens, or none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Put and delete entries, if every condition holds.
    Write {
        /// What must hold before; checked in apply, so alike on every node.
        conditions: Vec<Condition>,
        /// What is done, in order.
        ops: Vec<Op>,
    },
    /// Open a transaction.
    Begin {
        /// Its id, drawn by the leader.
        id: TxId,
        /// What its operations do.
        operation: TxOperation,
        /// What they are done to.
        entry_type: EntryType,
    },
    /// Add operations to an open transaction.
    Stage {
        /// The transaction.
        id: TxId,
        /// The operations, in order.
        ops: Vec<Op>,
    },
    /// Add the next chunk of a large object to an open transaction.
    Chunk {
        /// The transaction.
        id: TxId,
        /// The object's key: the same for all chunks of a transaction.
        key: Key,
        /// The bytes.
        data: Value,
    },
    /// Make all that a transaction staged visible at once.
    Commit {
        /// The transaction.
        id: TxId,
    },
    /// Forget what a transaction staged.
    Abort {
        /// The transaction.
        id: TxId,
        /// Who wanted it.
        reason: AbortReason,
    },
}

/// One change of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    /// Set a key.
    KvPut {
        /// The key.
        key: Key,
        /// Its value.
        value: Value,
    },
    /// Remove a key; one that is not there is no error.
    KvDelete {
        /// The key.
        key: Key,
    },
    /// Merge columns into a row.
    RowPut {
        /// The row.
        row: RowKey,
        /// The columns, at least one.
        columns: RowColumns,
    },
    /// Remove a row with all its columns.
    RowDelete {
        /// The row.
        row: RowKey,
    },
    /// Remove some columns; a row whose last column goes is gone.
    RowDeleteColumns {
        /// The row.
        row: RowKey,
        /// Their names.
        columns: Vec<ColumnName>,
    },
    /// Remove a large object.
    LobDelete {
        /// Its key.
        key: Key,
    },
}

/// Columns of a row: names and values.
pub type RowColumns = Vec<(ColumnName, Value)>;

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Condition {
    /// The key is not there (`If-None-Match: *`).
    KvAbsent(Key),
    /// The key was last written by this record (`If-Match`).
    KvAt(Key, Lsn),
    /// The row is not there.
    RowAbsent(RowKey),
    /// The row was last written by this record.
    RowAt(RowKey, Lsn),
    /// The object is not there.
    LobAbsent(Key),
    /// The object was last written by this record.
    LobAt(Key, Lsn),
}

/// What the operations of a transaction do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum TxOperation {
    /// Set entries.
    Put,
    /// Set entries (rows: merge columns).
    Update,
    /// Remove entries.
    Delete,
}

/// What kind of entries a transaction is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum EntryType {
    /// Key-value pairs.
    Kv,
    /// Rows.
    Row,
    /// One large object.
    Lob,
}

/// Why a transaction ended without a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum AbortReason {
    /// The client asked.
    Client,
    /// Idle or open for too long.
    Expired,
    /// A new lineage began.
    Lineage,
}

impl std::fmt::Display for TxOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TxOperation::Put => "put",
            TxOperation::Update => "update",
            TxOperation::Delete => "delete",
        })
    }
}

impl std::fmt::Display for EntryType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EntryType::Kv => "kv",
            EntryType::Row => "row",
            EntryType::Lob => "lob",
        })
    }
}

impl std::fmt::Display for AbortReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AbortReason::Client => "the client asked",
            AbortReason::Expired => "idle or open for too long",
            AbortReason::Lineage => "a new lineage began",
        })
    }
}

/// What applying an action gave; remembered under its idempotency key and given again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Written: how many operations.
    Written {
        /// How many operations were applied.
        processed: u32,
    },
    /// A condition did not hold; nothing was changed. The entry's LSN, if it is there.
    ConditionFailed {
        /// Last change of the entry that did not match; `None` if it is absent.
        found: Option<Lsn>,
    },
    /// The transaction is open.
    Begun(TxId),
    /// The operations are staged.
    Staged,
    /// The transaction is committed; CRC-32C of the object if it wrote one.
    Committed {
        /// CRC-32C of the object's bytes.
        checksum: Option<u32>,
        /// How many operations were applied.
        processed: u32,
    },
    /// The transaction is aborted, as asked.
    Aborted,
    /// No such transaction here: 404.
    TxUnknown,
    /// Already committed: 409; or aborted by the client: 410, for another abort 409.
    TxFinished {
        /// Committed, or aborted.
        committed: bool,
    },
    /// Aborted by the server, expired or overtaken by a restore: 410.
    TxExpired,
    /// The operation does not fit the transaction (kind or key): 409, transaction unchanged.
    TxMisfit {
        /// In words.
        reason: String,
    },
    /// The idempotency key was used before for another request: 409.
    KeyReused,
    /// The transaction would pass one of its limits: 413, transaction unchanged.
    TxTooLarge {
        /// The limit, in words.
        reason: String,
    },
}
