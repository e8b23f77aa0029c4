//! Backup: copies of sealed segments and images of the store, published whole or not at all (P9).
//!
//! ```text
//! wal       which segments, one proving pass each ─┐
//! snapshot  flush, image, trailer ─────────────────┤
//!                              root (reach the folder) ─> publish (NAME.tmp, sync, rename, NAME.sha256)
//! status    how it went, for metrics and alerts       └> early (sync while writing)
//! handed    what the snapshots of the last hour need
//! leftovers what dead calls left unfinished goes
//! outgoing  what a member of the group gets that lacks purged records
//! ```
//!
//! Every file is a copy of its own (never a link), of mode 0600 in folders of mode 0700, dated by
//! when it was made, and never touched again: what changes is replaced by a rename.
//!
//! These calls block: run them through `platform::Offload`. They know nothing of leaders: whoever
//! calls seals first, through the `Writer`, and passes on what that came to.

mod early;
mod handed;
mod leftovers;
mod outgoing;
mod publish;
mod root;
mod snapshot;
mod status;
mod wal;

use std::path::PathBuf;

pub(crate) use outgoing::PASSING;
pub use outgoing::{Outgoing, Parcel};
pub use snapshot::SnapshotFile;
pub(crate) use status::Status;
pub use status::{BackupKind, BackupStatus, KindStatus};
use unisondb_types::{Digest, LineageId, Lsn, SegmentId, Sha256Sum, Stamp};

/// A segment that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The segment.
    pub segment: SegmentId,
    /// Where the copy lies: the backup root as configured, made absolute, and the folder as asked.
    pub path: PathBuf,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, equal to that of the original.
    pub sha256: Sha256Sum,
}

/// What a WAL backup copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalBackup {
    /// Ascending by id.
    pub copies: Vec<Copied>,
    /// The oldest sealed segment that this node holds.
    pub first_available: Option<SegmentId>,
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotBackup {
    /// Where it lies.
    pub path: PathBuf,
    /// Length in bytes, trailer included.
    pub bytes: u64,
    /// The state is the one after this record.
    pub lsn: Lsn,
    /// Stamp of that record.
    pub stamp: Stamp,
    /// Its lineage.
    pub lineage: LineageId,
    /// Replay needs only segments above this one.
    pub segment: SegmentId,
    /// The state's digest.
    pub digest: Digest,
    /// SHA-256 of the file.
    pub sha256: Sha256Sum,
}

/// Why a backup was not made. What had its name before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The path is not one below the backup root: 400.
    #[error("{0}")]
    BadPath(String),
    /// 409: `wal gap: segments 43-51 are no longer here`.
    #[error("wal gap: segments {from}-{to} are no longer here")]
    Gap {
        /// First missing id.
        from: SegmentId,
        /// Last missing id.
        to: SegmentId,
        /// The first id after the gap.
        first_available: SegmentId,
    },
    /// 409: a file of that name is there with other bytes, or a folder.
    #[error("{path} is there already and differs from {what}; nothing was overwritten", path = path.display())]
    Differs {
        /// The file in the way.
        path: PathBuf,
        /// What should have been written.
        what: String,
    },
    /// 500, exactly `permission denied: /abs/path`.
    #[error("permission denied: {}", .0.display())]
    Permission(PathBuf),
    /// 500, exactly `no space left on device`.
    #[error("no space left on device")]
    NoSpace,
    /// 500: what is to be copied is damaged (P13); named, never copied out.
    #[error("segment {segment} is damaged at offset {offset}: {why}; it was not copied")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Where.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// 500: anything else of the disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// 503: what the snapshot must hold is not applied here yet.
    #[error("record {through} is not applied here yet, {applied} is")]
    Behind {
        /// What it must hold.
        through: Lsn,
        /// The last record applied.
        applied: Lsn,
    },
    /// 503: this shows the state up to a hole, in a lineage that the next start throws away.
    #[error(
        "not backed up: {0}; this node shows the state up to the hole, read-only. Way out: put the missing segments back, restart, and take the backup then"
    )]
    ReadOnly(String),
    /// The engine failed or has stopped.
    #[error(transparent)]
    Engine(crate::Error),
}

impl From<crate::Error> for BackupError {
    fn from(e: crate::Error) -> BackupError {
        // Of which volume does not matter to who asked: one has to be given room.
        if e.is_full() {
            BackupError::NoSpace
        } else {
            BackupError::Engine(e)
        }
    }
}

impl crate::Engine {
    /// A view up to a hole is no history that anybody could restore and go on with.
    fn may_be_backed_up(&self) -> Result<(), BackupError> {
        let refuse = |why: &str| Err(BackupError::ReadOnly(why.to_owned()));
        self.read_only().map_or(Ok(()), refuse)
    }

    /// How backups have gone.
    pub fn backup_status(&self) -> BackupStatus {
        self.0.backup.get()
    }

    /// The segments above this one are needed by a snapshot that was handed out less than an hour
    /// before `now`; `None`: there is no such snapshot.
    pub fn snapshots_need(&self, now: Stamp) -> Option<SegmentId> {
        self.0.backup.snapshots_need(now)
    }
}

#[cfg(test)]
mod tests;
