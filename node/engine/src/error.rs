//! [`Error`]: what can go wrong in a namespace, by what the caller does about it.

use std::path::PathBuf;

use unisondb_types::{Lsn, SegmentId};

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log failed.
    #[error(transparent)]
    Wal(#[from] unisondb_wal::Error),
    /// LMDB failed.
    #[error(transparent)]
    Store(#[from] unisondb_store::Error),
    /// A file of the namespace could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An entry of the state is not what was written (P13): the namespace stops serving.
    #[error("the state is damaged at {what}: {why}; restore from a backup or rebuild from the log")]
    Damaged {
        /// Which entry.
        what: String,
        /// How it is known.
        why: String,
    },
    /// What a record did here differs from what the leader recorded (P7).
    #[error(
        "digest mismatch at the end of segment {segment} (LSN {lsn}): the log says {expected}, this state has {found}"
    )]
    Diverged {
        /// The segment checked.
        segment: SegmentId,
        /// Its last record.
        lsn: Lsn,
        /// As recorded.
        expected: String,
        /// As found here.
        found: String,
    },
    /// The namespace has stopped after an earlier failure.
    #[error("the namespace has stopped: {0}")]
    Stopped(String),
}

impl Error {
    /// Whether trying again later may do: want of room or of descriptors, or a map that readers
    /// keep from growing.
    pub fn is_passing(&self) -> bool {
        self.is_full()
            || self.is_exhausted()
            || matches!(self, Error::Store(unisondb_store::Error::Busy { .. }))
    }

    /// Whether no descriptor was left to open a file by, and it goes away when one is closed.
    pub fn is_exhausted(&self) -> bool {
        match self {
            Error::Wal(e) => matches!(e, unisondb_wal::Error::Exhausted { .. }),
            Error::Store(unisondb_store::Error::Open { source, .. }) | Error::Io { source, .. } => {
                unisondb_platform::is_exhausted(source)
            }
            _ => false,
        }
    }

    /// Whether it is want of room, and goes away when there is some.
    pub fn is_full(&self) -> bool {
        match self {
            Error::Wal(e) => matches!(e, unisondb_wal::Error::Full { .. }),
            Error::Store(e) => matches!(e, unisondb_store::Error::Full { .. }),
            Error::Io { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }
}
