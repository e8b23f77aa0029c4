//! [`SingleWriter`]: the [`Writer`] of a node without a cluster: what is durable here is committed.
//!
//! ```text
//!  write() --admit, room--> queue --> log loop: reserve, append, sync, commit --> apply loop --> answer
//!                                        ^                                           |
//!                                        +------ Check for every ended segment ------+
//! ```
//!
//! Each namespace has two threads of its own: while one waits for the disk, proposals gather and go
//! with the next fsync (group commit without a delay); applying overlaps the next group's fsync.
//!
//! What holds:
//! - An answer of success comes after the record is durable, committed and applied (P1), in the
//!   order of the log. With `durability = "interval"` it comes before the fsync, nothing else moves.
//! - A client that goes away takes nothing back: what was queued is written.
//! - A full disk refuses (507) and goes on when there is room; any other failure of the log is
//!   final for it (P14), and `/health` says so.

mod apply;
mod log;
pub(crate) mod queued;

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use unisondb_api::{Answer, Sealed, WriteError, Writer, Written};
use unisondb_engine::start::Opened;
use unisondb_engine::{Engine, Refusal};
use unisondb_http::Note;
use unisondb_platform::Platform;
use unisondb_raft::{AcceptClock, Office};
use unisondb_types::{
    AbortReason, Action, Command, Idempotency, Kind, Lsn, Namespace, Stamp, TxId, limits,
};
use unisondb_wal::SegmentState;

use self::queued::{Queued, Waiting};
use crate::ballast::Ballast;
use crate::config::Durability;
use crate::namespaces::Namespaces;

/// How long a write waits for the store to catch up before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long a seal waits for the ended segments to be checked and sealed.
const SEAL_WAIT: Duration = Duration::from_secs(30);
/// Groups that may wait to be applied: bounds how far the log runs ahead of the state.
const GROUPS: usize = 16;
/// The field of `/health` that says how the disk is.
const DISK: &str = "disk";
/// Less room than this on the volume is none.
const NO_ROOM_BYTES: u64 = 1 << 20;

/// What is asked of the log loop.
enum Work {
    Propose(Proposal),
    /// Write what is queued, then end.
    Stop,
}

/// A record to be, and who waits for it.
struct Proposal {
    kind: Kind,
    payload: Bytes,
    waiting: Waiting,
}

/// How a namespace is written to.
#[derive(Clone)]
pub(crate) struct Mode {
    /// When a write is answered.
    pub(crate) durability: Durability,
    /// Which clock is believed.
    pub(crate) accept_clock: AcceptClock,
    /// Why clients may not write, if so.
    pub(crate) read_only: Option<String>,
    /// Room kept for a full disk.
    pub(crate) ballast: Arc<Ballast>,
}

/// The way into one namespace's log.
pub(crate) struct Lane {
    platform: Platform,
    engine: Engine,
    home: PathBuf,
    queue: mpsc::Sender<Work>,
    wake: Arc<Notify>,
    state: Arc<LaneState>,
    ballast: Arc<Ballast>,
    read_only: Option<String>,
    /// What an operator should know of it.
    notes: Mutex<Vec<Note>>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// What both loops and the handle know of each other.
pub(crate) struct LaneState {
    /// Why the log takes nothing more.
    failed: Mutex<Option<String>>,
    /// The disk was full at the last try: the background makes room.
    starved: AtomicBool,
    /// Bytes that the full disk refused to take for the log, until it would take as many; 0: none.
    refused_bytes: AtomicU64,
    stopping: AtomicBool,
    /// The interval of `durability = "interval"` is over.
    sync_due: AtomicBool,
    /// How far the wall clock is behind the log, in microseconds.
    behind: AtomicU64,
    /// Why the clock is not believed.
    clock: Mutex<Option<String>>,
    /// The last stamp of the log, and the monotonic time at which it was given or found.
    stamped: Mutex<(Stamp, Duration)>,
}

impl Lane {
    /// Starts the two loops of a namespace that lies in `home`.
    pub(crate) fn start(platform: &Platform, home: PathBuf, opened: Opened, mode: Mode) -> Lane {
        let Opened {
            engine,
            applier,
            notes,
            vote,
            read_only,
            ..
        } = opened;
        let term = vote.state().term;
        let (queue, work) = mpsc::channel(limits::PROPOSALS);
        let (groups, to_apply) = mpsc::channel(GROUPS);
        let (done, ended) = oneshot::channel();
        let wake = Arc::new(Notify::new());
        let last = engine.positions().applied_stamp;
        // What the start says of a full disk holds until there is room, not for ever.
        let found_full = notes.iter().any(|note| note.field == DISK);
        let state = Arc::new(LaneState {
            failed: Mutex::new(None),
            starved: AtomicBool::new(false),
            refused_bytes: u64::from(found_full).into(),
            stopping: AtomicBool::new(false),
            sync_due: AtomicBool::new(false),
            behind: 0.into(),
            clock: Mutex::new(None),
            stamped: Mutex::new((last, platform.clock.monotonic())),
        });
        let office = Office::new(last, mode.accept_clock);
        let log = log::Log {
            platform: platform.clone(),
            engine: engine.clone(),
            term,
            office,
            durability: mode.durability,
            ballast: mode.ballast.clone(),
            state: state.clone(),
            owed: Vec::new(),
            limbo: Vec::new(),
            groups,
        };
        let name = engine.namespace();
        let offload = &platform.offload;
        offload.thread(
            &format!("log-{name}"),
            Box::pin(log.run(work, wake.clone())),
        );
        offload.thread(
            &format!("apply-{name}"),
            Box::pin(apply::run(applier, to_apply, wake.clone(), done)),
        );
        let notes = notes.into_iter().filter(|note| note.field != DISK);
        let notes = notes.map(|note| Note {
            field: note.field,
            value: note.value,
            text: note.text,
            degraded: note.degraded,
        });
        Lane {
            platform: platform.clone(),
            engine,
            home,
            queue,
            wake,
            state,
            ballast: mode.ballast,
            read_only: read_only.or(mode.read_only),
            notes: Mutex::new(notes.collect()),
            ended: Mutex::new(Some(ended)),
        }
    }

    /// The namespace.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// All that an operator should know of it now.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let mut notes = self.notes.lock().clone();
        let mut degraded = |field, value: &str, text: String| {
            notes.push(Note {
                field,
                value: value.to_owned(),
                text,
                degraded: true,
            });
        };
        if let Some(why) = self.failed() {
            degraded("log", "stopped", why);
        }
        if let Some(why) = self.engine.stopped() {
            degraded("state", "stopped", why);
        }
        if let Some(why) = self.engine.flush_stalled() {
            let text = format!(
                "the state cannot be brought into LMDB just now, which is tried again by itself; the log has it all: {why}"
            );
            degraded("flush", "waiting", text);
        }
        if self.is_refused() || !self.ballast.is_held() {
            let text = "the disk is full: writes are refused (507) until there is room".to_owned();
            degraded(DISK, "full", text);
        }
        if let Some(why) = self.state.clock.lock().clone() {
            degraded("clock", "refused", why);
        }
        notes
    }

    /// Adds something that an operator should know; the same field is told once.
    pub(crate) fn note(&self, note: Note) {
        let mut notes = self.notes.lock();
        notes.retain(|known| known.field != note.field);
        notes.push(note);
    }

    /// Why the log takes nothing more, if so.
    pub(crate) fn failed(&self) -> Option<String> {
        self.state.failed.lock().clone()
    }

    /// How far the wall clock is behind the log.
    pub(crate) fn clock_behind(&self) -> Duration {
        Duration::from_micros(self.state.behind.load(Ordering::Relaxed))
    }

    /// What time it is by this log: the wall clock, as far as the monotonic time since the last
    /// stamp bears it out. What is aged by it outlives any jump of the wall clock (D3).
    pub(crate) fn log_now(&self) -> Stamp {
        let clock = &self.platform.clock;
        let (last, given) = *self.state.stamped.lock();
        unisondb_raft::office::at_most(clock.now(), last, clock.monotonic().saturating_sub(given))
    }

    /// Whether the disk was full since the last call.
    pub(crate) fn take_starved(&self) -> bool {
        self.state.starved.swap(false, Ordering::Relaxed)
    }

    /// Whether the log met the full disk and has not found room since.
    pub(crate) fn is_refused(&self) -> bool {
        self.state.refused_bytes.load(Ordering::Relaxed) > 0
    }

    /// Lets the log loop write the checks that it owes, and the apply loop its footers.
    pub(crate) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Lets the log loop sync what it has answered (`durability = "interval"`).
    pub(crate) fn tick(&self) {
        self.state.sync_due.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Writes what is queued and ends both loops.
    pub(crate) async fn stop(&self) {
        self.state.stopping.store(true, Ordering::Release);
        drop(self.queue.send(Work::Stop).await);
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            drop(ended.await);
        }
    }

    /// Aborts a transaction whose time is up.
    pub(crate) async fn expire(&self, id: TxId) -> Result<(), WriteError> {
        let command = Command::User {
            idempotency: None,
            action: Action::Abort {
                id,
                reason: AbortReason::Expired,
            },
        };
        self.propose(&command, None).await.map(drop)
    }

    async fn write(
        &self,
        action: Action,
        idempotency: Option<Idempotency>,
        queued: &Queued,
    ) -> Result<Written, WriteError> {
        if let Some(why) = &self.read_only {
            return Err(WriteError::ReadOnly(why.clone()));
        }
        self.engine
            .admit(&action, idempotency.as_ref())
            .map_err(|refusal| match refusal {
                Refusal::TooLarge(why) => WriteError::TooLarge(why),
                Refusal::Overloaded(why) => WriteError::Overloaded(why),
                Refusal::Stopped(why) => WriteError::Unavailable(why),
            })?;
        self.room().await?;
        let command = Command::User {
            idempotency,
            action,
        };
        self.propose(&command, Some(queued)).await
    }

    /// Waits, for a while, until the store has caught up.
    async fn room(&self) -> Result<(), WriteError> {
        let mut room = pin!(self.engine.room());
        // Nearly always there is room: no timer is made for it.
        if poll_fn(|cx| Poll::Ready(room.as_mut().poll(cx).is_ready())).await {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = room => Ok(()),
            () = self.platform.clock.sleep(ROOM_WAIT) => {
                let space = self.platform.disk.space(&self.home);
                match space {
                    Ok(space) if space.available < NO_ROOM_BYTES => {
                        self.state.starved.store(true, Ordering::Relaxed);
                        Err(WriteError::Full)
                    }
                    _ => Err(WriteError::Overloaded("the store falls behind the log".to_owned())),
                }
            }
        }
    }

    /// Queues a record and waits until it is applied. A client's takes its share of what may wait.
    async fn propose(
        &self,
        command: &Command,
        queued: Option<&Queued>,
    ) -> Result<Written, WriteError> {
        if self.state.stopping.load(Ordering::Acquire) {
            return Err(WriteError::Unavailable("the node is stopping".to_owned()));
        }
        if let Some(why) = self.failed() {
            return Err(WriteError::Failed(why));
        }
        let (kind, payload) = (command.kind(), command.payload());
        if payload.len() > limits::FRAME_PAYLOAD_BYTES {
            return Err(WriteError::TooLarge(format!(
                "a record has at most {} bytes, this one has {}",
                limits::FRAME_PAYLOAD_BYTES,
                payload.len()
            )));
        }
        let share = queued.map(|q| q.take(payload.len())).transpose()?;
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal {
            kind,
            payload,
            waiting: Waiting {
                answer,
                _share: share,
            },
        };
        self.queue
            .try_send(Work::Propose(proposal))
            .map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => {
                    WriteError::Overloaded(format!("{} writes wait for the log", limits::PROPOSALS))
                }
                mpsc::error::TrySendError::Closed(_) => {
                    WriteError::Unavailable("the node is stopping".to_owned())
                }
            })?;
        // The loops answer everything that they take; only a dying process drops an answer.
        answered
            .await
            .unwrap_or_else(|_| Err(WriteError::Unknown("the node stopped".to_owned())))
    }

    async fn seal(&self) -> Result<Sealed, WriteError> {
        let wal = self.engine.wal();
        let active = wal.active();
        let lsn = if active.user_data {
            self.propose(&Command::Seal(active.id), None).await?.lsn
        } else {
            self.acknowledged()
        };
        let mut sealed = self.engine.watch_sealed();
        let mut deadline = self.platform.clock.sleep(SEAL_WAIT);
        loop {
            sealed.borrow_and_update();
            // Segments that end meanwhile are another call's.
            let waiting = wal.unsealed_ended();
            let Some(first) = waiting.iter().find(|s| s.first_lsn() <= lsn) else {
                break;
            };
            if let Some(why) = self.failed().or_else(|| self.engine.stopped()) {
                return Err(WriteError::Unavailable(why));
            }
            let id = first.id;
            self.wake.notify_one();
            tokio::select! {
                biased;
                changed = sealed.changed() => {
                    changed.map_err(|_| WriteError::Unavailable("the namespace was closed".to_owned()))?;
                }
                () = &mut deadline => {
                    return Err(WriteError::Unavailable(format!(
                        "segment {id} was not sealed within {} s",
                        SEAL_WAIT.as_secs()
                    )));
                }
            }
        }
        let newest = wal
            .segments()
            .into_iter()
            .rfind(|s| s.state == SegmentState::Sealed);
        Ok(Sealed {
            segment: newest.map(|s| s.id),
            lsn,
        })
    }

    /// At or above every write that was answered. With `durability = "interval"` answers run ahead
    /// of what is committed, but never of what is applied.
    fn acknowledged(&self) -> Lsn {
        self.engine.wal().committed().max(self.engine.applied())
    }
}

/// Writes to the namespaces of this node.
pub struct SingleWriter {
    namespaces: Arc<Namespaces>,
}

impl SingleWriter {
    pub(crate) fn new(namespaces: Arc<Namespaces>) -> SingleWriter {
        SingleWriter { namespaces }
    }
}

impl Writer for SingleWriter {
    fn write<'a>(
        &'a self,
        namespace: &'a Namespace,
        action: Action,
        idempotency: Option<Idempotency>,
    ) -> Answer<'a, Written> {
        Box::pin(async move {
            let lane = self.namespaces.lane(namespace)?;
            lane.write(action, idempotency, self.namespaces.queued())
                .await
        })
    }

    fn seal<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Sealed> {
        Box::pin(async move { self.namespaces.lane(namespace)?.seal().await })
    }

    fn barrier<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Lsn> {
        Box::pin(async move { Ok(self.namespaces.lane(namespace)?.acknowledged()) })
    }
}
