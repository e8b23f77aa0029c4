//! The words of UnisonDB, one meaning each: positions, lineages, names, keys, commands, records.
//!
//! Lowest layer: no I/O, no async, no clock. Every type parses at the edge and is then trusted;
//! whatever reaches disk has its number written out and its layout in `docs/formats/`.
//! The meaning of each word is in `docs/glossary.md`.

pub mod codec;
mod command;
mod digest;
mod ids;
mod key;
pub mod limits;
mod lineage;
mod members;
mod namespace;
mod record;
mod stamp;

pub use command::{
    AbortReason, Action, Check, Command, Condition, EntryType, Idempotency, Op, Outcome,
    RowColumns, TxOperation,
};
pub use digest::{Chain, Digest, EntryHash, Sha256Sum};
pub use ids::{ClusterId, LineageId, Lsn, ParseIdError, SegmentId, Term, TxId};
pub use key::{ColumnName, IdempotencyKey, Key, KeyError, RowKey, Value};
pub use lineage::{Ancestor, LineageReason, LineageRecord, Parent, Target};
pub use members::Members;
pub use namespace::{Namespace, NamespaceError};
pub use record::{Kind, Record};
pub use stamp::{ParseStampError, Stamp};
