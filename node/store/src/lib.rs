//! The state on disk: one LMDB environment behind a small door, and a reader of LMDB files that
//! maps nothing.
//!
//! | part | what it is |
//! | --- | --- |
//! | [`Store`] | the live environment: synced commits, consistent [`View`]s, compacted copies |
//! | [`image`] | a reader of LMDB files of unknown origin: any bytes give entries or a typed error |
//! | [`trailer`] | the last page of a snapshot, which says what the snapshot is |
//!
//! Promises: after a crash at any instruction the file holds the last commit that returned (or the
//! one that was under way), whole; a [`View`] is one commit; nothing is mapped before its size and
//! both meta pages have been looked at.
//!
//! Left to others: what keys and values mean (`engine`), whether a folder is ours to open
//! (`engine`), and all files that are not LMDB's own: they are read through [`Source`].
//! This is the only crate that names heed, and the only one with `unsafe`: opening, growing and
//! copying a memory map, each with its reason.

mod copy;
mod error;
mod gate;
pub mod image;
mod open;
mod source;
mod store;
pub mod trailer;
mod view;

pub use error::Error;
pub use open::{Create, DATA_FILE, LOCK_FILE, Options};
pub use source::Source;
pub use store::{KEY_BYTES, Stats, Store, VALUE_BYTES};
pub use trailer::Trailer;
pub use view::{Direction, Range, View};
