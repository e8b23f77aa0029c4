//! [`Engine`]: the shared handle of one open namespace. Reads are in [`crate::read`], the one
//! place that changes state is [`crate::Applier`], LMDB is fed by [`crate::flush`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use unisondb_platform::Platform;
use unisondb_store::{Direction, Store};
use unisondb_types::{
    Check, ClusterId, Digest, LineageId, LineageRecord, Lsn, Namespace, Parent, SegmentId, Stamp,
    TxId, codec, limits,
};
use unisondb_wal::Wal;

use crate::Error;
use crate::flush::Flusher;
use crate::state::entry;
use crate::state::memtable::Memtable;
use crate::state::rows::{SegmentRow, TxRow};
use crate::state::table::{self, Table};
use crate::state::view::{self, View};

/// One open namespace. Cheap to clone; every clone is the same namespace.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Shared>);

/// Whether a namespace that was closed is gone.
#[derive(Clone)]
pub struct Ended(Weak<Shared>);

impl Ended {
    /// Whether nobody has a handle any more, so that it may be opened again.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// What the handle, the applier and the flusher share.
pub(crate) struct Shared {
    pub(crate) platform: Platform,
    pub(crate) namespace: Namespace,
    /// The folder with `db/` and `wal/` in it.
    pub(crate) home: PathBuf,
    /// Where its backups go.
    pub(crate) backups: RwLock<PathBuf>,
    pub(crate) wal: Wal,
    pub(crate) store: Store,
    pub(crate) memtable: RwLock<Memtable>,
    pub(crate) applied: watch::Sender<Lsn>,
    /// The newest segment that a `Check` has confirmed here.
    pub(crate) sealed: watch::Sender<SegmentId>,
    pub(crate) checks: Mutex<Checks>,
    /// Objects that somebody reads just now: their chunks are not freed.
    pub(crate) pins: Mutex<BTreeMap<TxId, usize>>,
    /// Size of the memtable from which on it is flushed, in bytes.
    pub(crate) flush_bytes: usize,
    /// How long a change may stay out of LMDB when nothing else wants a flush.
    pub(crate) flush_interval: Duration,
    pub(crate) flush_wanted: Notify,
    /// Rung after every flush, whether it went well or not.
    pub(crate) flush_done: Notify,
    pub(crate) flusher: Flusher,
    pub(crate) stopped: Mutex<Option<String>>,
    /// Why LMDB could not take the last flush, until one goes well.
    pub(crate) stalled: Mutex<Option<String>>,
    /// Why a footer that is due could not be opened for, until one is written.
    pub(crate) footer_waits: Mutex<Option<String>>,
    /// Why this is a view of the state up to a hole, made again at each start, if it is one.
    pub(crate) read_only: OnceLock<String>,
    pub(crate) counters: Counters,
    pub(crate) backup: crate::backup::Status,
}

/// Counted since the process started.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) ops_received: AtomicU64,
    pub(crate) ops_flushed: AtomicU64,
    pub(crate) last_flush: AtomicU64,
}

/// Ended segments that the log has not confirmed yet.
#[derive(Default)]
pub(crate) struct Checks(BTreeMap<SegmentId, Check>);

impl Checks {
    pub(crate) fn add(&mut self, check: Check) {
        self.0.entry(check.segment).or_insert(check);
    }
    pub(crate) fn done(&mut self, segment: SegmentId) {
        self.0.remove(&segment);
    }
    fn all(&self) -> Vec<Check> {
        self.0.values().copied().collect()
    }
}

/// Where a namespace stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// The last record in the state that readers see.
    pub applied: Lsn,
    /// Its stamp.
    pub applied_stamp: Stamp,
    /// The last record in LMDB, synced.
    pub flushed: Lsn,
    /// The last record fsynced in the log here.
    pub durable: Lsn,
    /// The last record known to be committed.
    pub committed: Lsn,
    /// The last record in the log, durable or not.
    pub last: Lsn,
    /// The segment that the applied record stands in.
    pub segment: SegmentId,
    /// Offset behind the applied record in its segment, in bytes.
    pub offset: u64,
    /// Client operations admitted since the process started.
    pub ops_received: u64,
    /// Records flushed to LMDB since the process started.
    pub ops_flushed: u64,
    /// When LMDB was last written, if it was since the process started.
    pub last_flush: Option<Stamp>,
    /// Records in the state, over all lineages.
    pub records_processed: u64,
    /// Transactions open.
    pub open_transactions: u64,
    /// Size of what is not yet in LMDB, in bytes, about.
    pub memtable_bytes: u64,
}

impl Shared {
    pub(crate) fn stopped(&self) -> Option<String> {
        self.stopped.lock().clone()
    }

    /// Stops the namespace, for good: the first reason stays.
    pub(crate) fn stop(&self, reason: &str) {
        let mut stopped = self.stopped.lock();
        if stopped.is_none() {
            tracing::error!(namespace = %self.namespace, reason, "the namespace stops");
            *stopped = Some(reason.to_owned());
        }
    }
}

impl Engine {
    /// Its name.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// From now on backups go below `root` instead of where the start was told.
    pub fn keep_backups_in(&self, root: PathBuf) {
        *self.0.backups.write() = root;
    }

    /// The history that it continues; of a view up to a hole, the one that it shows.
    pub fn lineage(&self) -> LineageId {
        match self.shown_up_to() {
            Some(parent) => parent.lineage,
            None => self.0.memtable.read().position.lineage,
        }
    }

    /// Why it only shows the state up to a hole in its log (`on_gap = read-only`), if it does. Such a
    /// view leads nothing and is backed up by nobody: the lineage that it began is thrown away.
    pub fn read_only(&self) -> Option<&str> {
        self.0.read_only.get().map(String::as_str)
    }

    /// Where the history that a view shows ends: before the record of its own lineage.
    fn shown_up_to(&self) -> Option<Parent> {
        self.read_only()?;
        self.0.memtable.read().history.parent.clone()
    }

    /// The cluster or single node that it belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.0.memtable.read().position.cluster
    }

    /// The record that its lineage began with: ancestors and forks.
    pub fn history(&self) -> Arc<LineageRecord> {
        self.0.memtable.read().history.clone()
    }

    /// The last record in the state that readers see.
    pub fn applied(&self) -> Lsn {
        let applied = *self.0.applied.borrow();
        self.shown_up_to()
            .map_or(applied, |parent| parent.fork.min(applied))
    }

    /// Told whenever a record is applied.
    pub fn watch_applied(&self) -> watch::Receiver<Lsn> {
        self.0.applied.subscribe()
    }

    /// Told whenever a segment is sealed by its `Check`: the newest one.
    pub fn watch_sealed(&self) -> watch::Receiver<SegmentId> {
        self.0.sealed.subscribe()
    }

    /// Where everything stands.
    pub fn positions(&self) -> Positions {
        let positions = self.own_positions();
        let Some(end) = self.shown_up_to() else {
            return positions;
        };
        let p = &positions;
        Positions {
            applied: p.applied.min(end.fork),
            applied_stamp: p.applied_stamp.min(end.stamp),
            flushed: p.flushed.min(end.fork),
            durable: p.durable.min(end.fork),
            committed: p.committed.min(end.fork),
            last: p.last.min(end.fork),
            segment: end.segment,
            records_processed: p.records_processed.min(end.fork.get()),
            ..positions
        }
    }

    fn own_positions(&self) -> Positions {
        let wal = &self.0.wal;
        let c = &self.0.counters;
        let m = self.0.memtable.read();
        let last_flush = c.last_flush.load(Ordering::Relaxed);
        Positions {
            applied: m.position.lsn,
            applied_stamp: m.position.stamp,
            flushed: m.flushed,
            durable: wal.durable(),
            committed: wal.committed(),
            last: wal.last(),
            segment: m.position.segment,
            offset: m.position.offset,
            ops_received: c.ops_received.load(Ordering::Relaxed),
            ops_flushed: c.ops_flushed.load(Ordering::Relaxed),
            last_flush: (last_flush > 0).then(|| Stamp::from_micros(last_flush)),
            records_processed: m.position.lsn.get(),
            open_transactions: m.position.open_transactions,
            memtable_bytes: m.bytes() as u64,
        }
    }

    /// Its log.
    pub fn wal(&self) -> &Wal {
        &self.0.wal
    }

    /// The folder with `db/` and `wal/` in it.
    pub fn home(&self) -> &Path {
        &self.0.home
    }

    /// Tells, without keeping it open, when the last handle is gone.
    pub fn watch_end(&self) -> Ended {
        Ended(Arc::downgrade(&self.0))
    }

    /// The machine below.
    pub fn platform(&self) -> &Platform {
        &self.0.platform
    }

    /// Why it has stopped, if it has.
    pub fn stopped(&self) -> Option<String> {
        self.0.stopped()
    }

    /// Why an ended segment has no footer yet, if it is want of descriptors: it is tried again.
    pub fn footer_waits(&self) -> Option<String> {
        self.0.footer_waits.lock().clone()
    }

    /// Why LMDB takes nothing more just now, if so: the log has it all, and it is tried again.
    pub fn flush_stalled(&self) -> Option<String> {
        self.0.stalled.lock().clone()
    }

    /// The state digest: at `at`, if that is applied just now, the end of a segment, or the fork
    /// that this lineage began at; at what is applied just now if nothing is asked for. `None` when
    /// that digest is not known.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Damaged`].
    pub fn digest(&self, at: Option<Lsn>) -> Result<Option<(Lsn, Digest)>, Error> {
        if let (None, Some(end)) = (at, self.shown_up_to()) {
            return Ok(Some((end.fork, end.digest)));
        }
        {
            let m = self.0.memtable.read();
            if at.is_none_or(|lsn| lsn == m.position.lsn) {
                return Ok(Some((m.position.lsn, m.position.digest)));
            }
            // Where a restore stopped need not be the end of a segment.
            if let Some(parent) = m.history.parent.as_ref().filter(|p| at == Some(p.fork)) {
                return Ok(Some((parent.fork, parent.digest)));
            }
        }
        let wanted = at.expect("none was answered above");
        let rows = self.segment_rows()?;
        Ok(rows
            .iter()
            .find(|(_, r)| r.last_lsn == wanted)
            .map(|(_, r)| (wanted, r.digest)))
    }

    /// All ended segments that the state remembers, by id.
    pub(crate) fn segment_rows(&self) -> Result<Vec<(SegmentId, SegmentRow)>, Error> {
        let view = View::now(&self.0.memtable, &self.0.store)?;
        let (from, to) = Table::Segment.bounds();
        let mut rows = Vec::new();
        for item in view.range(&from, &to, Direction::Forward) {
            let (key, value) = item?;
            let row = decode(&key, entry::open(&key, &value)?.payload)?;
            if let Some(id) = table::segment_id(&key) {
                rows.push((id, row));
            }
        }
        Ok(rows)
    }

    pub(crate) fn tx_row(&self, id: &TxId) -> Result<Option<TxRow>, Error> {
        let key = table::tx(id);
        let Some(bytes) = view::get(&self.0.memtable, &self.0.store, &key)? else {
            return Ok(None);
        };
        decode(&key, entry::open(&key, &bytes)?.payload).map(Some)
    }

    /// What ended segments add up to that the log has not confirmed, in order: the leader proposes a
    /// `Check` for each, until it has.
    pub fn unconfirmed_checks(&self) -> Vec<Check> {
        self.0.checks.lock().all()
    }

    /// Open transactions whose time is up at `now`: the leader proposes their abort.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Damaged`].
    pub fn expired_transactions(&self, now: Stamp) -> Result<Vec<TxId>, Error> {
        if self.0.memtable.read().position.open_transactions == 0 {
            return Ok(Vec::new());
        }
        let view = View::now(&self.0.memtable, &self.0.store)?;
        let (from, to) = Table::Tx.bounds();
        let mut expired = Vec::new();
        for item in view.range(&from, &to, Direction::Forward) {
            let (key, value) = item?;
            let row: TxRow = decode(&key, entry::open(&key, &value)?.payload)?;
            let over = now.micros_since(row.touched) > limits::TRANSACTION_IDLE_MICROS
                || now.micros_since(row.begun) > limits::TRANSACTION_AGE_MICROS;
            if let Some(id) = table::tx_id(&key).filter(|_| over) {
                expired.push(id);
            }
        }
        Ok(expired)
    }
}

/// An entry's payload as the struct that its table holds.
pub(crate) fn decode<T: bincode::Decode<()>>(key: &[u8], payload: &[u8]) -> Result<T, Error> {
    codec::decode(payload).map_err(|e| Error::Damaged {
        what: format!("entry {}", key.escape_ascii()),
        why: e.to_string(),
    })
}
