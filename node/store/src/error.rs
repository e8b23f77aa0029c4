//! [`Error`]: what can go wrong at the store's door, a variant per thing that a caller would do
//! differently.

use std::io;
use std::path::{Path, PathBuf};

use crate::image;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the environment cannot be used. The file is untouched.
    #[error("{}: {}", said(source), path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no environment, and none was to be made.
    #[error("no database file: {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is not one that may be mapped. It is untouched.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: image::Error,
    },
    /// This process has the environment open already.
    #[error("already open in this process: {}", path.display())]
    AlreadyOpen {
        /// Its folder.
        path: PathBuf,
    },
    /// No room on the device, in the quota, or below the file size limit. The state is the one
    /// before the commit; the same commit can be tried again.
    #[error("no space left for the database: {source}")]
    Full {
        /// What the system said.
        source: io::Error,
    },
    /// The map must grow, and views or copies that forbid it stayed open for too long. The state
    /// is the one before the commit; the same commit can be tried again.
    #[error(
        "the database map of {map_bytes} bytes is full and cannot grow: {open} views are in use"
    )]
    Busy {
        /// Size of the map, in bytes.
        map_bytes: u64,
        /// Views and copies that were open.
        open: usize,
    },
    /// A key or value that no table takes: a mistake of the caller. Nothing was written.
    #[error("a {what} of {bytes} bytes does not fit: {limit}")]
    Size {
        /// `key` or `value`.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// What would fit.
        limit: &'static str,
    },
    /// All reader slots are taken. Close a view and try again.
    #[error("all {0} reader slots of the database are in use")]
    Readers(u32),
    /// A write or sync failed: what is on the disk is unknown until the process starts again, so
    /// nothing more is written. Also the answer to everything asked afterwards.
    #[error("the database takes no more writes until the next start: {why}")]
    Poisoned {
        /// What had failed.
        why: String,
    },
    /// LMDB met a page that cannot be.
    #[error("database file is corrupted: {why}")]
    Corrupted {
        /// What LMDB said.
        why: String,
    },
    /// The receiver of a copy failed; the copy was given up, the store is untouched.
    #[error("the copy's receiver failed: {0}")]
    Sink(#[source] io::Error),
    /// Anything else that LMDB said.
    #[error("{doing}: {source}")]
    Lmdb {
        /// What was being done.
        doing: &'static str,
        /// What LMDB said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// `permission denied`, without the number that the standard library adds: operators are told to
/// look for this text.
fn said(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "read-only file system".to_owned(),
        _ => e.to_string(),
    }
}

impl Error {
    pub(crate) fn open(path: &Path, source: io::Error) -> Error {
        Error::Open {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn file(path: &Path, source: image::Error) -> Error {
        match source {
            image::Error::Io(source) => Error::open(path, source),
            source => Error::File {
                path: path.to_owned(),
                source,
            },
        }
    }

    /// From heed, for everything but a commit, which has to judge I/O errors.
    pub(crate) fn lmdb(doing: &'static str, e: heed::Error) -> Error {
        use heed::MdbError as M;
        match e {
            heed::Error::Mdb(M::Panic) => Error::Poisoned {
                why: "an earlier write of the meta page failed".to_owned(),
            },
            heed::Error::Mdb(m @ (M::Corrupted | M::PageNotFound | M::Invalid)) => {
                Error::Corrupted { why: m.to_string() }
            }
            heed::Error::Mdb(M::ReadersFull) => Error::Readers(crate::open::MAX_READERS),
            other => Error::Lmdb {
                doing,
                source: Box::new(other),
            },
        }
    }
}
