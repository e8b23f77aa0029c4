//! Restore: from backups in any order, form and place to a namespace at any moment.
//!
//! ```text
//!  files, folders, archives ──walk──▶ Catalog ──choose──▶ History, base, segments
//!                                                              │ read in full (reading)
//!            D/N ◀──rename── D/N.partial ◀──start::open── Plan ◀──┘
//! ```
//!
//! | part | what it does |
//! | --- | --- |
//! | [`walk`] | shows every file and archive member as a stream |
//! | [`sources`] | finds segments and snapshots among them |
//! | [`history`] | says which lineage each LSN belongs to |
//! | [`reading`] | reads a segment through, believing nothing |
//! | [`stored`] | reads a state out of a `data.mdb` without mapping it |
//! | [`mod@plan`] | decides: base, segments, what is reached, or what is missing |
//! | [`mod@run`] | carries a plan out |
//! | [`verify`] | proves a set of files without restoring it |
//!
//! What holds: nothing is written before everything needed has been read and proven (P11). What is
//! missing or bad is named, and never replayed over. The plan and the run are for a folder that no
//! server holds; replay itself is that of a server's start, so both give the same state.

use std::io;
use std::path::{Path, PathBuf};

use unisondb_platform::is_denied;
use unisondb_types::{LineageId, Lsn, Namespace, SegmentId, Stamp, Target};

mod copying;
pub mod history;
pub mod plan;
mod planner;
pub mod reading;
mod row;
pub mod run;
pub mod sources;
pub mod stored;
pub mod verify;
pub mod walk;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;

pub use plan::{Plan, Problem, plan};
pub use run::{Restored, admit, run};

/// What is to be restored, from where, to which moment.
#[derive(Debug, Clone)]
pub struct Request {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The namespace.
    pub namespace: Namespace,
    /// The base.
    pub base: BaseFrom,
    /// Files and folders with segments.
    pub wal: Vec<PathBuf>,
    /// Where to stop.
    pub target: Target,
    /// The history to follow, when it is not that of the newest lineage found.
    pub lineage: Option<LineageId>,
    /// Id of the new lineage's first segment, when it must be higher than what is known here
    /// asks for.
    pub first_segment: Option<SegmentId>,
    /// What to do with a namespace that is there already.
    pub existing: Existing,
}

/// Where the base comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseFrom {
    /// This snapshot and no other.
    File(PathBuf),
    /// The best of those in these folders, whose segments are used too.
    Folders(Vec<PathBuf>),
}

/// What to do with a namespace that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and refuse.
    Refuse,
    /// Move it to `trash/`.
    MoveToTrash,
}

/// How far a long reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A step of so many units begins.
    Begin(&'a str, u64),
    /// So many more of them are done.
    Done(u64),
}

/// Who is told how far it is.
pub type Watch<'a> = &'a dyn Fn(Progress<'_>);

/// Why nothing was restored. What was there is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A file or folder that was named is not there.
    #[error("no such file or folder: {}", .0.display())]
    NotFound(PathBuf),
    /// There is neither a segment nor a snapshot in the places given.
    #[error("neither a segment nor a snapshot was found; give the folders that hold the backups")]
    Nothing,
    /// All that was found belongs to other namespaces.
    #[error("nothing of namespace {wanted} was found, only of {}", found.join(", "))]
    OtherNamespaces {
        /// What was asked for.
        wanted: Namespace,
        /// What is there.
        found: Vec<String>,
    },
    /// The lineage asked for is not there.
    #[error("nothing of lineage {wanted} was found, only of {}", list(found))]
    NoLineage {
        /// What was asked for.
        wanted: LineageId,
        /// What is there.
        found: Vec<LineageId>,
    },
    /// Several histories end here, and nothing says which one is meant.
    #[error(
        "these files hold several histories, none of which continues another: {}; choose one with --lineage, or give fewer folders",
        list(lineages)
    )]
    Ambiguous {
        /// Their lineages.
        lineages: Vec<LineageId>,
    },
    /// A snapshot that was named cannot be the base.
    #[error("{place} cannot be the base: {why}")]
    BadBase {
        /// The file.
        place: String,
        /// Why not.
        why: String,
    },
    /// The snapshot that was named is of a later moment than the target.
    #[error(
        "{place} is of LSN {lsn} at {time}, which lies past the target ({asked}); choose an older one"
    )]
    BasePastTarget {
        /// The file.
        place: String,
        /// The last record in it.
        lsn: Lsn,
        /// That record's time.
        time: Stamp,
        /// The target, in words.
        asked: String,
    },
    /// Two files claim to be the same segment and differ.
    #[error(
        "segment {segment} is there twice, and the two differ: {one} and {other}; find out which one is true and leave the other away"
    )]
    Differs {
        /// The segment.
        segment: SegmentId,
        /// One of them.
        one: String,
        /// The other.
        other: String,
    },
    /// A segment that is needed is damaged, and there is no good copy.
    #[error("segment {segment} is damaged: {place}: {why}; look for another copy of it")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Where it lies.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Two segments that should follow one another do not.
    #[error("segment {segment} does not continue what is before it: {place}: {why}")]
    Broken {
        /// The later one.
        segment: SegmentId,
        /// Where it lies.
        place: String,
        /// Which fact differs.
        why: String,
    },
    /// What is at hand does not lead to the target.
    #[error("{0}")]
    Plan(Problem),
    /// The namespace is there already.
    #[error("{} is there already; --force moves it to trash/ first", .0.display())]
    Exists(PathBuf),
    /// The data directory is one namespace by itself.
    #[error("{} is in the flat layout, with db/ right in it; namespaces cannot lie beside that: choose another --data-dir", .0.display())]
    Flat(PathBuf),
    /// A server holds the data directory.
    #[error("a server is running on {}; stop it first", .0.display())]
    Running(PathBuf),
    /// No room.
    #[error("no space left on device: {wanted} bytes are wanted below {}, {available} are free", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What the restored namespace takes, about.
        wanted: u64,
        /// What there is.
        available: u64,
    },
    /// The disk failed, or a permission is missing.
    #[error("{}", io_in_words(path, source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log could not be put together.
    #[error(transparent)]
    Wal(#[from] unisondb_wal::Error),
    /// Replay failed.
    #[error("replay failed: {0}")]
    Start(#[from] crate::start::StartError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] crate::Error),
    /// Replay came to another end than the files say.
    #[error("replay ended at LSN {found}, the plan says {planned}; nothing was put in place")]
    OtherEnd {
        /// By plan.
        planned: Lsn,
        /// By replay.
        found: Lsn,
    },
}

/// `permission denied: PATH` is what operators are told to look for.
fn io_in_words(path: &Path, source: &io::Error) -> String {
    match is_denied(source) {
        true => format!("permission denied: {}", path.display()),
        false => format!("{}: {source}", path.display()),
    }
}

fn list(lineages: &[LineageId]) -> String {
    lineages
        .iter()
        .map(LineageId::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A target in words.
pub fn in_words(target: Target) -> String {
    match target {
        Target::Latest => "the last record there is".to_owned(),
        Target::Immediate => "the base alone".to_owned(),
        Target::Lsn(n) => format!("LSN {n}"),
        Target::BeforeLsn(n) => format!("just before LSN {n}"),
        Target::Time(t) => format!("{t}"),
        Target::BeforeTime(t) => format!("just before {t}"),
    }
}

/// Whether a state whose last record is `(lsn, stamp)` is what `target` asks for, when the next
/// record, if there is one, is past the target: some record reaches or passes it (P11).
fn reached(target: Target, lsn: Lsn, stamp: Stamp, past: bool) -> bool {
    past || match target {
        Target::Latest | Target::Immediate => true,
        Target::Lsn(n) => lsn >= n,
        Target::BeforeLsn(n) => lsn.next() >= n,
        Target::Time(t) => stamp >= t,
        Target::BeforeTime(t) => stamp.plus_micros(1) >= t,
    }
}

/// An error of the disk, with the path.
fn at(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io {
        path: path.clone(),
        source,
    }
}
