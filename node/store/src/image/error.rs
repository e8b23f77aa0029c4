//! [`Error`]: what is wrong with a database file or a snapshot.

use std::io;

use unisondb_types::Sha256Sum;

/// Why bytes are not a database file that can be used. The bytes are untouched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// Something else than LMDB wrote it.
    #[error("not an LMDB file{}", looks_like.map(|l| format!(": {l}")).unwrap_or_default())]
    NotLmdb {
        /// What it seems to be, and what to do about that.
        looks_like: Option<&'static str>,
    },
    /// The end is missing.
    #[error("truncated: {have} of {want} bytes are there")]
    Truncated {
        /// Length found, in bytes.
        have: u64,
        /// Least length that the meta pages ask for, in bytes.
        want: u64,
    },
    /// Another layout of LMDB's files.
    #[error("LMDB data version {found} is not supported, version 1 is")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A machine of the other byte order wrote it.
    #[error("written on a machine of the other byte order (big endian)")]
    ByteOrder,
    /// No machine's page size.
    #[error("page size {found} is not supported: 4096, 8192, 16384 and 32768 are")]
    PageSize {
        /// The size found, in bytes.
        found: u32,
    },
    /// A page is not what it must be.
    #[error("page {page} is damaged: it {why}")]
    Corrupted {
        /// The page's number; its offset is that times the page size.
        page: u64,
        /// What is wrong, as the end of a sentence about the page.
        why: String,
    },
    /// The trailer page of a snapshot is not what it must be.
    #[error("the snapshot's trailer is damaged: {why}")]
    Trailer {
        /// What is wrong.
        why: String,
    },
    /// The bytes before the trailer are not those that it was made for.
    #[error("the snapshot's bytes are damaged: sha256 is {found}, its trailer says {expected}")]
    Sum {
        /// What the trailer says.
        expected: Sha256Sum,
        /// What the bytes give.
        found: Sha256Sum,
    },
}

impl Error {
    pub(crate) fn corrupted(page: u64, why: impl Into<String>) -> Error {
        Error::Corrupted {
            page,
            why: why.into(),
        }
    }

    pub(crate) fn trailer(why: impl Into<String>) -> Error {
        Error::Trailer { why: why.into() }
    }
}
