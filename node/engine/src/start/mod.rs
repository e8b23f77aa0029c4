//! How a namespace starts: what lies in its folder is looked at without touching it, one table
//! decides what that means (D21; for operators in `docs/operations/restore.md`), and only then is
//! anything changed.
//!
//! ```text
//! findings (read-only) --> decide (pure) --> act: go on | make new | rebuild | restore
//! ```
//!
//! | `db/data.mdb` | `wal/` | `raft.state` | what happens |
//! | --- | --- | --- | --- |
//! | none | none | none | a new namespace, if one is wanted |
//! | ours | continues it | there | go on: replay what LMDB does not have yet |
//! | none | begins at LSN 1 | there | rebuild LMDB from the log |
//! | a snapshot | continues it | there, no target | go on in the same lineage, all of the log replayed |
//! | a snapshot, or ours | any | none, or a target | restore: replay to the target, begin a new lineage |
//! | none | begins at LSN 1 | none | restore from the log alone |
//! | none | begins later | any | refuse: the state before it is missing |
//! | any | a needed segment is damaged | any | refuse: `database file is corrupted`, nothing changed |
//! | damaged | any | any | refuse: `database file is corrupted`, file untouched |
//!
//! Where another member of the group gave this one a snapshot and the beginning of a log (`install/`), they
//! take the places of state and log before anything else is looked at.
//!
//! In a directory that is restored, segments that lie in `wal/` packed are unpacked before the decision.
//!
//! A restore first writes `restoring`; a start that finds that file goes on with it. Every step can
//! be done again, so a kill between any two is the same as a later start.

mod act;
mod adopt;
mod aside;
mod decide;
mod files;
mod findings;
mod incoming;
mod install;
mod join;
mod path;
mod proof;
mod restore;
mod unpack;
pub(crate) mod volume;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use unisondb_platform::{Platform, is_denied};
use unisondb_types::{ClusterId, Lsn, Namespace, SegmentId, Stamp, Target};

use unisondb_wal::raft_state::RaftStateFile;

use crate::{Applier, Engine};

pub use decide::{Action, Plan};
pub use incoming::{Arrived, Incoming, give_up, prepare, put_aside};
pub use join::{Origin, is_there, join};
pub use volume::NetworkVolume;

/// Where a namespace lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Its name; `None` in the flat layout: whatever the state in it says.
    pub namespace: Option<Namespace>,
    /// The folder with `db/` and `wal/` in it.
    pub home: PathBuf,
    /// The root of its backups.
    pub backups: PathBuf,
}

/// How a namespace is to be started.
#[derive(Debug, Clone)]
pub struct Request {
    /// Size of segments begun from now on, in bytes.
    pub segment_size: u64,
    /// Whether they have the size of the newest one that is there instead, whatever is configured: the
    /// namespace is one of several nodes'.
    pub keep_segment_size: bool,
    /// First size of LMDB's map, in bytes.
    pub map_size: u64,
    /// Memtable size that triggers a flush, in bytes.
    pub flush_bytes: usize,
    /// Longest time that a change stays out of LMDB.
    pub flush_interval: Duration,
    /// Where a restore stops; means nothing to a folder that is not restored.
    pub target: Option<Target>,
    /// What to do when segments are missing.
    pub on_gap: OnGap,
    /// The next lineage's first segment id is above this too.
    pub ids_above: Option<SegmentId>,
    /// Make the namespace, for this cluster, if there is nothing.
    pub create: Option<ClusterId>,
}

impl Default for Request {
    fn default() -> Request {
        Request {
            segment_size: 64 << 20,
            keep_segment_size: false,
            map_size: 64 << 30,
            flush_bytes: 32 << 20,
            flush_interval: Duration::from_secs(2),
            target: None,
            on_gap: OnGap::Refuse,
            ids_above: None,
            create: None,
        }
    }
}

/// What to do when the log has a hole behind the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnGap {
    /// Name the missing segments and do nothing.
    #[default]
    Refuse,
    /// Serve the state up to the hole, take no writes, change nothing.
    ReadOnly,
    /// Set the log aside, go on from the state alone in a new lineage.
    SetAside,
}

/// A namespace that is open.
pub struct Opened {
    /// Its handle.
    pub engine: Engine,
    /// The one place that changes its state.
    pub applier: Applier,
    /// What an operator should know.
    pub notes: Vec<Note>,
    /// Raft id, term and vote: synced, and as old as the log at least.
    pub vote: RaftStateFile,
    /// Takes no writes (after a gap, with `on_gap = read-only`).
    pub read_only: Option<String>,
}

/// Something an operator should know of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// A word for `/health`: `recovery`, `replayed`, `set-aside`, `ignored`.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// In words.
    pub text: String,
    /// Whether it makes the node `degraded`.
    pub degraded: bool,
}

/// Why a namespace was not started. Nothing that was there is lost.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing, and nothing was to be made.
    #[error("{} holds no namespace", .0.display())]
    Nothing(PathBuf),
    /// The documented line: `permission denied: PATH`.
    #[error("permission denied: {}", .0.display())]
    Permission(PathBuf),
    /// The documented line: `database file is corrupted`.
    #[error(
        "database file is corrupted: {}: {why}. The file was not touched. Ways out: put an earlier snapshot in its place, or `udbctl restore` from the backups{rebuild}",
        path.display()
    )]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// A further way out, if there is one.
        rebuild: &'static str,
    },
    /// The documented line too: a segment that is needed is damaged. Nothing was changed.
    #[error(
        "database file is corrupted: {damage}. {why}; nothing was replayed and nothing was changed. Way out: put a good copy of that segment from a backup in its place (`udbctl verify` finds one), then start again"
    )]
    DamagedSegment {
        /// Segment, file, offset, cause.
        damage: String,
        /// Why it cannot be passed over.
        why: &'static str,
    },
    /// A network file system.
    #[error(transparent)]
    Network(#[from] NetworkVolume),
    /// Segments are missing.
    #[error(
        "wal gap: {} missing behind LSN {at}{foreign}; nothing was replayed. Ways out: put what is missing into {}, or start with --recovery-on-gap set-aside (goes on from LSN {at} without the log) or --recovery-on-gap read-only",
        from.to_last(*to),
        wal.display()
    )]
    Gap {
        /// First missing segment.
        from: SegmentId,
        /// Last missing segment.
        to: SegmentId,
        /// Where the state stands.
        at: Lsn,
        /// What lies under a missing one's name and is another's: `, but ...`, or nothing.
        foreign: String,
        /// The folder.
        wal: PathBuf,
    },
    /// The folder's parts do not fit together, or what is asked for cannot be.
    #[error("{0}")]
    Refused(String),
    /// No room.
    #[error("no space left on device: {}", .0.display())]
    Full(PathBuf),
    /// The disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Replay failed.
    #[error(transparent)]
    Engine(#[from] crate::Error),
}

impl StartError {
    /// Whether it is damage to what lies on the disk: told by the documented line.
    pub fn is_damage(&self) -> bool {
        use crate::Error as E;
        match self {
            StartError::Corrupted { .. } | StartError::DamagedSegment { .. } => true,
            StartError::Engine(e) => matches!(
                e,
                E::Damaged { .. }
                    | E::Wal(unisondb_wal::Error::Damaged { .. })
                    | E::Store(
                        unisondb_store::Error::Corrupted { .. }
                            | unisondb_store::Error::File { .. }
                    )
            ),
            _ => false,
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> StartError {
        match source.kind() {
            _ if is_denied(&source) => StartError::Permission(path.to_owned()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StartError::Full(path.to_owned())
            }
            _ => StartError::Io {
                path: path.to_owned(),
                source,
            },
        }
    }
}

impl From<unisondb_wal::Error> for StartError {
    fn from(e: unisondb_wal::Error) -> StartError {
        match e {
            unisondb_wal::Error::Io { path, source, .. }
            | unisondb_wal::Error::Exhausted { path, source, .. } => StartError::io(&path, source),
            unisondb_wal::Error::Full { path } => StartError::Full(path),
            other => StartError::Engine(other.into()),
        }
    }
}

impl From<unisondb_store::Error> for StartError {
    fn from(e: unisondb_store::Error) -> StartError {
        match e {
            unisondb_store::Error::Open { path, source } => StartError::io(&path, source),
            other => StartError::Engine(other.into()),
        }
    }
}

/// Makes one target of what flags or a file say.
///
/// # Errors
/// In words, when more than one was named, or `exclusive` without a time or LSN.
pub fn target(
    time: Option<Stamp>,
    lsn: Option<Lsn>,
    immediate: bool,
    exclusive: bool,
) -> Result<Option<Target>, String> {
    match (time, lsn, immediate) {
        (None, None, false) if exclusive => {
            Err("exclusive goes with a target time or LSN".to_owned())
        }
        (None, None, false) => Ok(None),
        (None, None, true) if exclusive => {
            Err("exclusive means nothing to an immediate target".to_owned())
        }
        (None, None, true) => Ok(Some(Target::Immediate)),
        (Some(t), None, false) => Ok(Some(if exclusive {
            Target::BeforeTime(t)
        } else {
            Target::Time(t)
        })),
        (None, Some(n), false) => Ok(Some(if exclusive {
            Target::BeforeLsn(n)
        } else {
            Target::Lsn(n)
        })),
        _ => Err("one target only: a time, an LSN, or immediate".to_owned()),
    }
}

/// Looks at a folder and says what a start would do. Changes nothing.
///
/// # Errors
/// As [`open`], for what can be told beforehand.
pub fn inspect(
    platform: &Platform,
    folders: &Folders,
    request: &Request,
) -> Result<Plan, StartError> {
    let notes = volume::check(platform.disk.as_ref(), &folders.home)?;
    let found = findings::look(platform, folders, request)?;
    let mut plan = decide::decide(&found, folders, request)?;
    plan.notes.extend(notes);
    Ok(plan)
}

/// Starts a namespace: decides, restores or goes on, replays, and opens it. Blocks.
///
/// # Errors
/// [`StartError`]: each says what to do next. A restore that was begun goes on at the next start.
pub fn open(
    platform: &Platform,
    folders: &Folders,
    request: &Request,
) -> Result<Opened, StartError> {
    open_decided(platform, folders, request, |_| Ok(()))
}

/// As [`open`]; `decided` is told what will be done before it is, and may refuse it. (Packed segments
/// have been unpacked beside themselves by then: what will be done depends on what is in them.)
///
/// # Errors
/// As [`open`], and what `decided` says.
pub fn open_decided(
    platform: &Platform,
    folders: &Folders,
    request: &Request,
    decided: impl FnOnce(&Plan) -> Result<(), StartError>,
) -> Result<Opened, StartError> {
    let disk = platform.disk.as_ref();
    let notes = volume::check(disk, &folders.home)?;
    install::take(disk, &files::Places::of(&folders.home))?;
    let mut found = findings::look(platform, folders, request)?;
    let unpacked = unpack::unpack(disk, &found)?;
    if !unpacked.is_empty() {
        found = findings::look(platform, folders, request)?;
    }
    let mut plan = decide::decide(&found, folders, request)?;
    plan.notes.extend(notes);
    decided(&plan)?;
    for note in &plan.notes {
        tracing::warn!(home = %folders.home.display(), "{}", note.text);
    }
    plan.notes.extend(unpacked);
    act::carry_out(platform, folders, request, found, plan)
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
