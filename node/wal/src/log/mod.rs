//! [`Wal`]: the log of one namespace while it is open.
//!
//! | lock | guards | held while |
//! | --- | --- | --- |
//! | `io` | the open file and the spare one | files are written, synced, made, removed |
//! | `state` | segments, recent frames, positions | memory is looked at or changed |
//!
//! Always `io` before `state`. `append` and `read` from memory take `state` only, so they go on
//! while a sync waits for the disk; truncation alone holds both while it writes.

mod append;
mod choose;
mod follow;
mod read;
mod recovery;
mod resync;
mod room;
mod seal;
mod state;
mod sync;
mod truncate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::watch;
use unisondb_platform::{Disk, File, Offload, Platform};
use unisondb_types::{ClusterId, Lsn, Namespace, SegmentId, Stamp, Term};

use crate::error::Error;
use crate::info::SegmentInfo;
use crate::survey::Stranger;
use read::Cursors;
use state::State;
use sync::Io;

pub use seal::Hold;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Segment size of segments that are begun from now on, in bytes.
    pub segment_size: u64,
    /// Whether they have the size of the newest one instead: where others have the same log, what is in
    /// a file must not follow from one node's settings (D4).
    pub keep_segment_size: bool,
    /// How far the active segment is zeroed ahead while little is written; grows to eight times
    /// as much under load.
    pub zero_ahead: u64,
    /// Largest payload that [`Wal::reserve`] keeps room for in the segment after the active one.
    pub largest_payload: usize,
    /// Most bytes of recent frames kept in memory. (What is not yet durable is kept besides.)
    pub memory: u64,
    /// What becomes of a torn tail.
    pub cut_bytes: CutBytes,
    /// Whether a log may end with a segment that was cut for a lineage that is not here.
    pub after_cut: AfterCut,
    /// Namespace that every segment must belong to; `None`: that of the newest.
    pub namespace: Option<Namespace>,
    /// Cluster that every segment must belong to; `None`: that of the newest.
    pub cluster: Option<ClusterId>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_size: 64 << 20,
            keep_segment_size: false,
            zero_ahead: 1 << 20,
            largest_payload: unisondb_types::limits::FRAME_PAYLOAD_BYTES,
            memory: 16 << 20,
            cut_bytes: CutBytes::Drop,
            after_cut: AfterCut::Refuse,
            namespace: None,
            cluster: None,
        }
    }
}

/// What becomes of bytes that recovery cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutBytes {
    /// They are gone: after a crash of this node they mean nothing.
    Drop,
    /// They are kept in a file beside the segment: in a folder that was restored by copying.
    KeepAside,
}

/// What to make of a log that ends with a segment cut for a lineage that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCut {
    /// [`Error::CutOff`]: the lineage's own segments are missing.
    Refuse,
    /// The log ends there: a restore from backups that were made before that lineage had any.
    Accept,
}

/// How far the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// The last record there is.
    pub last: Lsn,
    /// The last record that is on stable storage here.
    pub durable: Lsn,
    /// The last record known to be committed.
    pub committed: Lsn,
}

/// What opening found.
#[derive(Debug)]
pub struct Recovery {
    /// The lowest position held.
    pub first: Lsn,
    /// The last position held.
    pub last: Lsn,
    /// Highest LSN that the frames found vouch for.
    pub vouched: Lsn,
    /// What was cut from the end of the last segment.
    pub cut: Option<Cut>,
    /// Segments that were rewritten and synced (D7).
    pub rewritten: Vec<SegmentId>,
    /// What lies in the folder and is not of this log; untouched.
    pub strangers: Vec<Stranger>,
    /// Whether space for the active segment could not be reserved: opened, but full.
    pub full: bool,
}

/// A torn tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub segment: SegmentId,
    /// Where the cut was made: behind the last good frame.
    pub offset: u64,
    /// How many bytes lay behind it, zeroes at the end not counted.
    pub lost_bytes: u64,
    /// What is wrong with them.
    pub why: String,
    /// Where they are now, if they were kept.
    pub kept: Option<PathBuf>,
}

/// A sealed segment, open.
#[derive(Clone)]
pub struct SealedFile {
    /// About it.
    pub info: SegmentInfo,
    /// Its file.
    pub file: Arc<dyn File>,
    /// Its length.
    pub len: u64,
    /// Its name, for messages.
    pub path: PathBuf,
    pub(crate) offload: Arc<dyn Offload>,
}

/// The log of one namespace. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
}

struct Inner {
    platform: Platform,
    dir: PathBuf,
    options: Options,
    io: Mutex<Io>,
    state: Mutex<State>,
    positions: watch::Sender<Positions>,
    cursors: Mutex<Cursors>,
    holds: Mutex<BTreeMap<u64, (String, SegmentId)>>,
    /// Why nothing more is taken; set once, never cleared (P14).
    poison: OnceLock<String>,
}

impl Wal {
    /// The last record there is.
    pub fn last(&self) -> Lsn {
        self.inner.state.lock().positions.last
    }
    /// Term and time of the last record there is.
    pub fn last_term_and_stamp(&self) -> (Term, Stamp) {
        let state = self.inner.state.lock();
        (state.last_term, state.last_stamp)
    }
    /// The last record on stable storage here.
    pub fn durable(&self) -> Lsn {
        self.inner.state.lock().positions.durable
    }
    /// The last record known to be committed.
    pub fn committed(&self) -> Lsn {
        self.inner.state.lock().positions.committed
    }
    /// The lowest position held.
    pub fn first(&self) -> Lsn {
        self.inner.state.lock().first()
    }
    /// All positions, of one moment.
    pub fn positions(&self) -> Positions {
        self.inner.state.lock().positions
    }
    /// Tells the log what is committed; it never goes back, and never past the last record.
    pub fn commit(&self, lsn: Lsn) {
        let mut state = self.inner.state.lock();
        let committed = lsn.min(state.positions.last);
        if committed > state.positions.committed {
            state.positions.committed = committed;
            self.publish(&state);
        }
    }
    /// Told of every change of position.
    pub fn subscribe(&self) -> watch::Receiver<Positions> {
        self.inner.positions.subscribe()
    }
    /// Why the log takes nothing more, if so.
    pub fn poisoned(&self) -> Option<String> {
        self.inner.poison.get().cloned()
    }

    /// All segments, by id.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.inner.state.lock();
        state.segments.iter().map(state::Segment::info).collect()
    }
    /// One segment.
    pub fn segment(&self, id: SegmentId) -> Option<SegmentInfo> {
        let state = self.inner.state.lock();
        state.segment(id).map(state::Segment::info)
    }
    /// The segment that is appended to.
    pub fn active(&self) -> SegmentInfo {
        self.inner.state.lock().active().info()
    }
    /// The segment that holds a record.
    pub fn segment_of(&self, lsn: Lsn) -> Option<SegmentId> {
        let state = self.inner.state.lock();
        state.holding(lsn).map(|i| state.segments[i].id())
    }
    /// The segments that have ended and wait for their footer, in order.
    pub fn unsealed_ended(&self) -> Vec<SegmentInfo> {
        let state = self.inner.state.lock();
        let rolled = state.segments.iter().filter(|s| s.is_rolled());
        rolled.map(state::Segment::info).collect()
    }

    fn disk(&self) -> &dyn Disk {
        &*self.inner.platform.disk
    }
    fn path(&self, id: SegmentId) -> PathBuf {
        self.inner.dir.join(id.file_name())
    }
    /// Called with the state locked, so that positions are told in order.
    fn publish(&self, state: &State) {
        self.inner.positions.send_replace(state.positions);
    }
    /// Whether the log still takes anything.
    fn sound(&self) -> Result<(), Error> {
        match self.inner.poison.get() {
            None => Ok(()),
            Some(why) => Err(Error::Poisoned { why: why.clone() }),
        }
    }
    /// A write or sync failed: that is final, unless it was want of room or of a descriptor.
    fn failed(&self, error: Error) -> Error {
        if !error.is_passing() && !matches!(error, Error::Poisoned { .. }) {
            self.poison(&error);
        }
        error
    }
    /// From here on nothing is taken.
    fn poison(&self, error: &Error) {
        let why = error.to_string();
        if self.inner.poison.set(why.clone()).is_ok() {
            tracing::error!(dir = %self.inner.dir.display(), why, "the log takes nothing more until the process restarts");
        }
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.inner.dir)
            .finish_non_exhaustive()
    }
}
