//! What can go wrong: [`SegmentError`] in one file, [`Error`] for the log as a whole.

use std::io;
use std::path::{Path, PathBuf};

use unisondb_platform::is_exhausted;
use unisondb_types::{LineageId, Lsn, SegmentId};

use crate::frame::FrameError;

/// Why the bytes of one file are not a (whole) segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file does not begin as a segment does.
    #[error("bad segment header: {why}")]
    Header {
        /// In words.
        why: String,
    },
    /// Written by a release that this one does not know.
    #[error("segment format version {found} is not known here (known: 1)")]
    Version {
        /// The version found.
        found: u16,
    },
    /// What stands at this offset does not continue the log.
    #[error("bad frame at offset {offset}, after record {after}: {why}")]
    Frame {
        /// Where the frame begins in the file.
        offset: u64,
        /// The last good record before it.
        after: Lsn,
        /// What is wrong.
        why: FrameError,
    },
    /// The frame is whole, but of a kind that this release does not know: never skipped.
    #[error(
        "record {lsn} at offset {offset} is of kind {number}, which this release does not know"
    )]
    UnknownKind {
        /// Where the frame begins in the file.
        offset: u64,
        /// Its position.
        lsn: Lsn,
        /// The number on it.
        number: u16,
    },
    /// The footer is damaged, or does not fit what lies before it.
    #[error("bad footer at offset {offset}: {why}")]
    Footer {
        /// Where the footer begins in the file.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// The file has no footer, and one was needed.
    #[error("the segment is not sealed")]
    NotSealed,
    /// The record asked for is not in this segment.
    #[error("record {lsn} is not in this segment")]
    NoSuchRecord {
        /// The record.
        lsn: Lsn,
    },
}

impl SegmentError {
    /// Where in the file, if it is one place.
    pub fn offset(&self) -> Option<u64> {
        match self {
            SegmentError::Header { .. } | SegmentError::Version { .. } => Some(0),
            SegmentError::Frame { offset, .. }
            | SegmentError::UnknownKind { offset, .. }
            | SegmentError::Footer { offset, .. } => Some(*offset),
            SegmentError::Io(_) | SegmentError::NotSealed | SegmentError::NoSuchRecord { .. } => {
                None
            }
        }
    }
}

/// What the log answers when it cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space left (or no quota). Nothing was changed; it goes on when there is room.
    #[error("no space left on device ({})", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// No descriptor is left to open it by. Nothing was changed; it goes on when one is closed.
    #[error("{action} {}: {source}", path.display())]
    Exhausted {
        /// What was tried: "cannot open".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier write or sync failed: nothing more is taken until the process restarts.
    #[error("the log takes nothing more until the process restarts, since {why}")]
    Poisoned {
        /// What failed.
        why: String,
    },
    /// The disk failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried: "cannot write", "cannot sync".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file holds bytes that it must not.
    #[error("segment {segment} is damaged: {}: {source}", path.display())]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Its file.
        path: PathBuf,
        /// Where and why.
        source: SegmentError,
    },
    /// Two segments that should follow one another do not.
    #[error("segment {segment} ({}) does not continue segment {before}: {why}", path.display())]
    Broken {
        /// The later segment.
        segment: SegmentId,
        /// The one it should continue.
        before: SegmentId,
        /// The later one's file.
        path: PathBuf,
        /// Which fact differs, with both values.
        why: String,
    },
    /// Segments that lie between others are not there.
    #[error("wal gap: segments {from}-{to} are not here")]
    MissingSegments {
        /// The first missing one.
        from: SegmentId,
        /// The last missing one.
        to: SegmentId,
    },
    /// Records that are known to exist are not there.
    #[error("records {from} to {to} are not in the log")]
    Missing {
        /// The first missing one.
        from: Lsn,
        /// The last missing one.
        to: Lsn,
    },
    /// The folder holds no segment.
    #[error("{} holds no segment", dir.display())]
    Empty {
        /// The folder.
        dir: PathBuf,
    },
    /// A segment of another namespace or cluster.
    #[error("{} belongs to {found}, not to {expected}", path.display())]
    Foreign {
        /// Its file.
        path: PathBuf,
        /// Namespace and cluster that were expected.
        expected: String,
        /// Namespace and cluster in its header.
        found: String,
    },
    /// The last segment was cut for a lineage that was never begun.
    #[error("segment {segment} was cut for lineage {by}, which has no segment here")]
    CutOff {
        /// The cut segment.
        segment: SegmentId,
        /// The lineage.
        by: LineageId,
    },
    /// Truncation would take records that are committed.
    #[error("cannot truncate after {asked}: records up to {committed} are committed")]
    BelowCommitted {
        /// Where truncation was asked for.
        asked: Lsn,
        /// What is committed.
        committed: Lsn,
    },
    /// No such segment here.
    #[error("segment {0} is not here")]
    NoSegment(SegmentId),
    /// The segment is not in a state that allows what was asked.
    #[error("segment {segment} cannot be {wanted}: {why}")]
    NotReady {
        /// The segment.
        segment: SegmentId,
        /// What was asked: "sealed", "cut".
        wanted: &'static str,
        /// Why not.
        why: String,
    },
    /// A file of that name is there, with other content.
    #[error("{} is there already, with other content", .0.display())]
    Exists(PathBuf),
    /// A record that no frame takes.
    #[error("a record of {bytes} bytes is longer than a frame takes ({limit})")]
    TooLong {
        /// Its payload.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A frame of another log does not continue this one. Nothing was taken.
    #[error("a frame cannot follow record {after}: {why}")]
    NotNext {
        /// The record that it was to follow.
        after: Lsn,
        /// What is wrong with it.
        why: FrameError,
    },
    /// A term lower than that of the last record.
    #[error("term {asked} is lower than {last}, that of the last record")]
    TermFell {
        /// The term of the append.
        asked: unisondb_types::Term,
        /// The last record's.
        last: unisondb_types::Term,
    },
}

impl Error {
    /// Whether nothing was changed, and trying again later may do: want of room, or of descriptors.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Full { .. } | Error::Exhausted { .. })
    }

    /// Sorts an I/O error: neither a full disk nor want of descriptors is a failure.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path },
            _ if is_exhausted(&source) => Error::Exhausted {
                action,
                path,
                source,
            },
            _ => Error::Io {
                action,
                path,
                source,
            },
        }
    }

    pub(crate) fn damaged(segment: SegmentId, path: &Path, source: SegmentError) -> Error {
        match source {
            SegmentError::Io(source) => Error::io("cannot read", path, source),
            source => Error::Damaged {
                segment,
                path: path.to_owned(),
                source,
            },
        }
    }
}
