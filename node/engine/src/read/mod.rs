//! Reads: one entry, a page of entries, an object. Each answer is one moment of the state.

mod entries;
mod lob;
mod members;

pub use lob::Lob;
pub use members::Stand;

use bytes::Bytes;
use unisondb_types::{ColumnName, EntryType, Key, Lsn, Stamp, TxOperation, Value};

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The record that wrote it: its ETag.
    pub lsn: Lsn,
    /// The value.
    pub value: Bytes,
}

/// A row, or the columns asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The record that changed the row last: its ETag.
    pub lsn: Lsn,
    /// Bytes of the names and values of all its columns, those not asked for too.
    pub bytes: u64,
    /// Columns in the order of their names' bytes.
    pub columns: Vec<(ColumnName, Value)>,
}

/// Which page of the keys is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Only keys that begin so.
    pub prefix: Bytes,
    /// Only keys at or after this, if given.
    pub start: Option<Bytes>,
    /// Only keys before this, if given.
    pub end: Option<Bytes>,
    /// Go on behind this key (the last one of the page before), in scan direction.
    pub after: Option<Key>,
    /// From the last key to the first.
    pub reverse: bool,
    /// At most so many entries (bounded by `limits::PAGE_ITEMS`).
    pub limit: usize,
    /// Leave values out.
    pub keys_only: bool,
}

/// One page, one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Entries in scan order; the value is `None` when only keys were asked for.
    pub items: Vec<(Key, Option<Bytes>)>,
    /// The last key, if more follows.
    pub next: Option<Key>,
    /// The LSN that the page reflects.
    pub lsn: Lsn,
}

/// How a transaction stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxStatus {
    /// Open.
    Open(TxInfo),
    /// Committed, or aborted by the client.
    Finished {
        /// Committed, or aborted.
        committed: bool,
    },
    /// Aborted by the server.
    Expired,
    /// Not known here.
    Unknown,
}

/// An open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxInfo {
    /// What its operations do.
    pub operation: TxOperation,
    /// What they are done to.
    pub entry_type: EntryType,
    /// Operations staged.
    pub ops: u64,
    /// Bytes staged, object chunks not counted.
    pub bytes: u64,
    /// The object's key, once a chunk is there.
    pub lob: Option<Key>,
    /// Object bytes staged.
    pub lob_bytes: u64,
    /// When it began.
    pub begun: Stamp,
    /// Its last operation.
    pub touched: Stamp,
}
