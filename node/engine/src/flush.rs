//! Flushing: the memtable's changes become one synced LMDB commit, in LSN order, with the position
//! and the lineage in the same commit (D12). LMDB never holds what the log has not made durable.
//!
//! The lock of [`Flusher`] orders flushes and snapshots: who holds it knows that no commit begins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use unisondb_store::Direction;
use unisondb_types::{Lsn, TxId, codec};

use crate::Error;
use crate::engine::{Engine, Shared};
use crate::state::entry;
use crate::state::memtable::Frozen;
use crate::state::position;
use crate::state::table::{self, Table};

/// Chunks of dead objects freed with one flush: bounds the commit.
const FREED: usize = 4_096;

/// Memtable sizes, in multiples of what triggers a flush, from which on writers wait.
const ROOM: usize = 4;

/// Orders flushes and snapshots.
#[derive(Default)]
pub(crate) struct Flusher {
    lock: Mutex<()>,
    closed: std::sync::atomic::AtomicBool,
}

impl Flusher {
    /// From here on no flush begins until the guard is dropped.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.lock.lock()
    }
}

impl Engine {
    /// Brings everything that is applied now into LMDB. Blocks. Gives the last LSN there.
    ///
    /// # Errors
    /// [`Error::Store`] (full: nothing is lost, try again when there is room), [`Error::Wal`],
    /// [`Error::Stopped`].
    pub fn flush(&self) -> Result<Lsn, Error> {
        let held = self.0.flusher.hold();
        self.flush_held(&held)
    }

    /// As [`flush`](Self::flush), by one who holds the flusher already.
    pub(crate) fn flush_held(&self, _held: &MutexGuard<'_, ()>) -> Result<Lsn, Error> {
        let target = self.applied();
        loop {
            let flushed = self.0.memtable.read().flushed;
            if flushed >= target {
                return Ok(flushed);
            }
            flush_once(&self.0)?;
        }
    }

    /// Flushes what is applied now without waiting for it: the job runs on a thread that may block.
    /// Waits for the one before first, and gives its error.
    ///
    /// # Errors
    /// As [`flush`](Self::flush), of the job before.
    pub(crate) fn flush_beside(&self, before: &mut Beside) -> Result<(), Error> {
        before.wait()?;
        let (done, result) = std::sync::mpsc::sync_channel(1);
        let shared = self.0.clone();
        let job: Job = Box::new(move || {
            let result = {
                let _held = shared.flusher.hold();
                flush_once(&shared)
            };
            // Before the answer: who hears it may want the last handle.
            drop(shared);
            // Nobody waits after a replay that failed.
            drop(done.send(result));
        });
        let job = Arc::new(Mutex::new(Some(job)));
        let taken = job.clone();
        self.0
            .platform
            .offload
            .run(Box::new(move || run_once(&taken)));
        before.0 = Some((job, result));
        Ok(())
    }

    /// Starts the thread that flushes in the background, until [`shut_down`](Self::shut_down).
    pub fn start_flusher(&self) {
        let shared = self.0.clone();
        let name = format!("flush-{}", self.0.namespace);
        self.0.platform.offload.thread(&name, Box::pin(run(shared)));
    }

    /// Waits while the memtable is too far ahead of LMDB: back-pressure on writers.
    pub async fn room(&self) {
        loop {
            let done = self.0.flush_done.notified();
            let bytes = self.0.memtable.read().bytes();
            if bytes < self.0.flush_bytes.saturating_mul(ROOM) || self.stopped().is_some() {
                return;
            }
            self.0.flush_wanted.notify_one();
            done.await;
        }
    }

    /// Brings everything into LMDB and ends the background thread. Blocks. The namespace takes no
    /// more records; LMDB closes when the last handle is dropped.
    ///
    /// # Errors
    /// As [`flush`](Self::flush): the log still has what LMDB has not.
    pub fn shut_down(self) -> Result<(), Error> {
        self.0.flusher.closed.store(true, Ordering::Release);
        let flushed = if self.stopped().is_none() {
            self.flush().map(drop)
        } else {
            Ok(())
        };
        self.0
            .stopped
            .lock()
            .get_or_insert_with(|| "it was shut down".to_owned());
        self.0.flush_wanted.notify_one();
        flushed
    }
}

/// Work that whoever comes first does.
type Job = Box<dyn FnOnce() + Send>;

fn run_once(job: &Mutex<Option<Job>>) {
    let job = job.lock().take();
    if let Some(job) = job {
        job();
    }
}

/// What a flush came to.
type Outcome = std::sync::mpsc::Receiver<Result<(), Error>>;

/// A flush that runs beside its caller.
#[derive(Default)]
pub(crate) struct Beside(Option<(Arc<Mutex<Option<Job>>>, Outcome)>);

impl Beside {
    /// Waits until it is done; does it here if no thread has taken it yet, so that a pool full of
    /// those who wait cannot stand still.
    ///
    /// # Errors
    /// What it failed with.
    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        let Some((job, result)) = self.0.take() else {
            return Ok(());
        };
        run_once(&job);
        result
            .recv()
            .unwrap_or_else(|_| Err(Error::Stopped("a flush was given up".to_owned())))
    }
}

/// The background thread.
async fn run(shared: Arc<Shared>) {
    loop {
        let interval = shared.platform.clock.sleep(shared.flush_interval);
        tokio::select! {
            biased;
            () = shared.flush_wanted.notified() => {}
            () = interval => {}
        }
        if shared.flusher.closed.load(Ordering::Acquire) || shared.stopped().is_some() {
            shared.flush_done.notify_waiters();
            return;
        }
        let result = {
            let _held = shared.flusher.hold();
            flush_once(&shared)
        };
        match result {
            Ok(()) => {}
            Err(e) if e.is_passing() => {
                // The log goes on as long as it has room; writers wait in `room`.
                tracing::warn!(namespace = %shared.namespace, error = %e, "the state cannot be flushed just now; will try again");
            }
            Err(e) => shared.stop(&format!("flush: {e}")),
        }
        shared.flush_done.notify_waiters();
    }
}

/// Flushes one generation, if there is any, and writes down whether LMDB took it. The caller holds
/// the flusher.
fn flush_once(shared: &Shared) -> Result<(), Error> {
    let result = flush_generation(shared);
    match &result {
        Ok(()) => *shared.stalled.lock() = None,
        Err(e) if e.is_passing() => *shared.stalled.lock() = Some(e.to_string()),
        // Told by `stopped`.
        Err(_) => {}
    }
    result
}

fn flush_generation(shared: &Shared) -> Result<(), Error> {
    if let Some(reason) = shared.stopped() {
        return Err(Error::Stopped(reason));
    }
    let Some(frozen) = shared.memtable.write().freeze() else {
        return Ok(());
    };
    // With `durability = "interval"` records are applied before they are durable.
    if shared.wal.durable() < frozen.position.lsn {
        shared.wal.sync()?;
    }
    assert!(
        shared.wal.durable() >= frozen.position.lsn,
        "LMDB never holds what the log has not: flushing {}, durable {}",
        frozen.position.lsn,
        shared.wal.durable()
    );
    let (freed, done) = freeable(shared)?;
    let records = frozen.position.lsn.get() - shared.memtable.read().flushed.get();
    shared.store.commit(commit_of(&frozen, &freed, &done))?;
    shared.memtable.write().thawed();
    let now = shared.platform.clock.now().micros();
    shared.counters.last_flush.store(now, Ordering::Relaxed);
    shared
        .counters
        .ops_flushed
        .fetch_add(records, Ordering::Relaxed);
    Ok(())
}

/// What goes into one commit, in key order: where the state stands, its changes, and the chunks of
/// dead objects that go.
fn commit_of(frozen: &Frozen, freed: &[Bytes], done: &[Bytes]) -> Vec<(Bytes, Option<Bytes>)> {
    let extra = 2 + freed.len() + done.len();
    let mut all = Vec::with_capacity(frozen.changes.len() + extra);
    let lsn = frozen.position.lsn;
    for (name, payload) in [
        (position::POSITION, codec::encode(&frozen.position)),
        (position::LINEAGE, codec::encode(frozen.history.as_ref())),
    ] {
        let key = table::meta(name);
        let bytes = entry::encode(&key, lsn, &payload).1;
        all.push((key, Some(bytes)));
    }
    all.extend(frozen.changes.iter().map(|(k, v)| (k.clone(), v.clone())));
    all.extend(freed.iter().chain(done).map(|key| (key.clone(), None)));
    // Three sorted runs: a stable sort merges them. A key freed and changed at once cannot be: what
    // is freed belongs to an object that no record names any more.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Chunks of dead objects that may go, and the garbage entries that are done with.
///
/// Only entries that are in LMDB count: an object's chunks come before the record that kills it,
/// so what LMDB knows as dead has no chunk in the memtable any more.
fn freeable(shared: &Shared) -> Result<(Vec<Bytes>, Vec<Bytes>), Error> {
    let view = shared.store.read()?;
    let (from, to) = Table::Garbage.bounds();
    let (mut freed, mut done) = (Vec::new(), Vec::new());
    for item in view.range(
        std::ops::Bound::Included(&from),
        std::ops::Bound::Excluded(&to),
        Direction::Forward,
    ) {
        let (garbage, _) = item?;
        let Some(object) = table::tx_id(garbage) else {
            continue;
        };
        if shared.pins.lock().contains_key(&object) {
            continue;
        }
        if freed.len() >= FREED {
            break;
        }
        let first = table::chunk(&object, 0);
        let end = table::behind(&first[..17]);
        let room = FREED - freed.len();
        let before = freed.len();
        for chunk in view
            .range(
                std::ops::Bound::Included(&first),
                std::ops::Bound::Excluded(&end),
                Direction::Forward,
            )
            .take(room)
        {
            freed.push(Bytes::copy_from_slice(chunk?.0));
        }
        if freed.len() - before < room {
            done.push(Bytes::copy_from_slice(garbage));
        }
    }
    Ok((freed, done))
}

/// An object that is being read: its chunks stay until this is dropped.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    object: TxId,
}

impl Pin {
    pub(crate) fn new(shared: &Arc<Shared>, object: TxId) -> Pin {
        *shared.pins.lock().entry(object).or_insert(0) += 1;
        Pin {
            shared: shared.clone(),
            object,
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock();
        if let Some(n) = pins.get_mut(&self.object) {
            *n -= 1;
            if *n == 0 {
                pins.remove(&self.object);
            }
        }
    }
}
