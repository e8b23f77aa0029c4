//! [`GroupWriter`]: the [`Writer`] of a node: each namespace through its raft group.
//!
//! ```text
//!  write() --admit, room--> Group::propose: reserve, append, fsync, commit, apply --> answer
//! ```
//!
//! A node alone is a group of one. What holds of an answer, of the order and of clients that go away
//! is the group's to keep (`unisondb_raft::group`). What is added here:
//! - A write that cannot fit, or for which the state has no room, is refused before it is proposed.
//! - A full disk refuses (507) and goes on when there is room; any other failure of the log is
//!   final for it (P14), and `/health` says so.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use unisondb_api::peer::GroupId;
use unisondb_api::{Answer, Peer, Sealed, WriteError, Writer, Written};
use unisondb_engine::start::{Opened, StartError};
use unisondb_engine::{Engine, Refusal};
use unisondb_http::Note;
use unisondb_platform::{Clock, Platform};
use unisondb_raft::{AcceptClock, Durability, Group, Parts, Queued};
use unisondb_types::{AbortReason, Action, Command, Idempotency, Lsn, Namespace, Stamp, TxId};
use unisondb_wal::SegmentState;

use crate::ballast::Ballast;
use crate::cluster::{Forward, Position, Ways};
use crate::namespaces::Namespaces;

/// How long a write waits for the store to catch up before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long a seal waits for the ended segments to be checked and sealed.
const SEAL_WAIT: Duration = Duration::from_secs(30);
/// The field of `/health` that says how the disk is.
const DISK: &str = "disk";
/// Less room than this on the volume is none.
const NO_ROOM_BYTES: u64 = 1 << 20;

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
    /// The way to the group's other members.
    pub(crate) peer: Arc<dyn Peer>,
    /// Whether clients may write before [`Lane::open_to_clients`].
    pub(crate) open: bool,
}

/// The way into one namespace's log.
pub(crate) struct Lane {
    platform: Platform,
    group: Group,
    home: PathBuf,
    ballast: Arc<Ballast>,
    read_only: Option<String>,
    /// Whether what is written now would lie on as many nodes as it should.
    open: AtomicBool,
    /// What an operator should know of it.
    notes: Mutex<Vec<Note>>,
    /// A write met the full disk before it came to the log: the background makes room.
    starved: AtomicBool,
}

impl Lane {
    /// Takes part in the group of a namespace that lies in `home`.
    ///
    /// # Errors
    /// [`StartError::Refused`]: log or vote are not such as a group can begin with.
    pub(crate) async fn start(
        platform: &Platform,
        home: PathBuf,
        opened: Opened,
        mode: Mode,
    ) -> Result<Lane, StartError> {
        // What the start says of a full disk holds until there is room, not for ever.
        let found_full = opened.notes.iter().any(|note| note.field == DISK);
        let notes = opened.notes.iter().filter(|note| note.field != DISK);
        let notes = notes.map(|note| Note {
            field: note.field,
            value: note.value.clone(),
            text: note.text.clone(),
            degraded: note.degraded,
        });
        let notes = notes.collect();
        let read_only = opened.read_only.clone().or(mode.read_only);
        let group = Group::start(Parts {
            platform: platform.clone(),
            opened,
            peer: mode.peer,
            accept_clock: mode.accept_clock,
            durability: mode.durability,
            may_take_room: {
                let ballast = mode.ballast.clone();
                Arc::new(move || ballast.is_held())
            },
        });
        let group = group.await;
        let group = group.map_err(|e| StartError::Refused(e.to_string()))?;
        if found_full {
            // Whether it still is, is told from now on.
            drop(group.make_room(1).await);
        }
        Ok(Lane {
            platform: platform.clone(),
            group,
            home,
            ballast: mode.ballast,
            read_only,
            open: AtomicBool::new(mode.open),
            notes: Mutex::new(notes),
            starved: AtomicBool::new(false),
        })
    }

    /// The namespace.
    pub(crate) fn engine(&self) -> &Engine {
        self.group.engine()
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
        if let Some(WriteError::Unavailable(why)) = &*self.group.standing().stuck().borrow() {
            let text = format!(
                "what was written last cannot be brought to the disk just now, which is tried again by itself: {why}"
            );
            degraded("log", "waiting", text);
        }
        if let Some(why) = self.engine().stopped() {
            degraded("state", "stopped", why);
        }
        if let Some(why) = self.engine().flush_stalled() {
            let text = format!(
                "the state cannot be brought into LMDB just now, which is tried again by itself; the log has it all: {why}"
            );
            degraded("flush", "waiting", text);
        }
        if self.group.is_full() || !self.ballast.is_held() {
            let text = "the disk is full: writes are refused (507) until there is room".to_owned();
            degraded(DISK, "full", text);
        }
        if let Some(why) = self.group.clock_refused() {
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

    /// Its group.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Its group, as other nodes know it.
    pub(crate) fn group_id(&self) -> GroupId {
        GroupId {
            namespace: self.engine().namespace().clone(),
            lineage: self.engine().history().lineage,
        }
    }

    /// What clients write lies on enough nodes from now on.
    pub(crate) fn open_to_clients(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// This node is not one of those any more that clients write to.
    pub(crate) fn close_to_clients(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// Whether it is [`open_to_clients`](Self::open_to_clients).
    pub(crate) fn is_open_to_clients(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Why clients may not write, if it is not.
    pub(crate) fn closed_to_clients(&self) -> Option<WriteError> {
        let why =
            "not enough nodes have this namespace yet, or this one is no longer of its cluster";
        (!self.is_open_to_clients()).then(|| WriteError::Unavailable(why.to_owned()))
    }

    /// Why the log takes nothing more, if so.
    pub(crate) fn failed(&self) -> Option<String> {
        self.group.standing().failed()
    }

    /// How far the wall clock is behind the log.
    pub(crate) fn clock_behind(&self) -> Duration {
        self.group.clock_behind()
    }

    /// What time it is by this log (D3).
    pub(crate) fn log_now(&self) -> Stamp {
        self.group.log_now()
    }

    /// Whether the disk is full, or was since the last call.
    pub(crate) fn take_starved(&self) -> bool {
        self.starved.swap(false, Ordering::Relaxed) | self.group.is_full()
    }

    /// Tries again what the full disk refused: checks and footers that are owed, and room for as much.
    pub(crate) async fn nudge(&self) {
        self.group.nudge();
        if self.ballast.is_held() {
            self.group.look_for_room().await;
        }
    }

    /// Answers what is under way and takes part no longer.
    pub(crate) async fn stop(&self) {
        self.group.stop().await;
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
        self.group.propose(&command).await.map(drop)
    }

    /// Commits a client's action, if this node leads.
    pub(crate) async fn write(
        &self,
        command: &Command,
        queued: &Queued,
    ) -> Result<Written, WriteError> {
        let Command::User {
            idempotency,
            action,
        } = command
        else {
            unreachable!("clients write nothing else");
        };
        if let Some(why) = &self.read_only {
            return Err(WriteError::ReadOnly(why.clone()));
        }
        if let Some(why) = self.closed_to_clients() {
            return Err(why);
        }
        self.engine()
            .admit(action, idempotency.as_ref())
            .map_err(|refusal| match refusal {
                Refusal::TooLarge(why) => WriteError::TooLarge(why),
                Refusal::Overloaded(why) => WriteError::Overloaded(why),
                Refusal::Stopped(why) => WriteError::Unavailable(why),
            })?;
        self.room().await?;
        self.group.propose_within(command, Some(queued)).await
    }

    /// Waits, for a while, until the store has caught up.
    async fn room(&self) -> Result<(), WriteError> {
        let mut room = pin!(self.engine().room());
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
                        self.starved.store(true, Ordering::Relaxed);
                        Err(WriteError::Full)
                    }
                    _ => Err(WriteError::Overloaded("the store falls behind the log".to_owned())),
                }
            }
        }
    }

    /// Ends the active segment, if it holds user data and this node leads: gives a position at or above
    /// every write acknowledged before, which lies in a segment that has ended.
    pub(crate) async fn end_segment(&self) -> Result<Lsn, WriteError> {
        let active = self.engine().wal().active();
        if active.user_data {
            let written = self.group.propose(&Command::Seal(active.id)).await?;
            return Ok(written.lsn);
        }
        self.group.barrier().await
    }

    /// Waits until what ended at or below `lsn` is sealed here.
    async fn sealed_through(&self, lsn: Lsn) -> Result<Sealed, WriteError> {
        tokio::select! {
            biased;
            sealed = self.sealed_in_time(lsn) => sealed,
            // Whoever waits holds the namespace, which is closed meanwhile: nothing more is applied to it.
            () = self.group.standing().stopping() => {
                Err(WriteError::Unavailable("the namespace is being closed".to_owned()))
            }
        }
    }

    async fn sealed_in_time(&self, lsn: Lsn) -> Result<Sealed, WriteError> {
        let wal = self.engine().wal();
        let mut sealed = self.engine().watch_sealed();
        let mut deadline = self.platform.clock.sleep(SEAL_WAIT);
        let mut applied = self.engine().watch_applied();
        if *applied.borrow() < lsn
            && let Some(why) = self.failed().or_else(|| self.engine().stopped())
        {
            return Err(WriteError::Unavailable(why));
        }
        tokio::select! {
            biased;
            reached = applied.wait_for(|applied| *applied >= lsn) => {
                reached.map_err(|_| WriteError::Unavailable("the namespace was closed".to_owned()))?;
            }
            () = &mut deadline => {
                return Err(WriteError::Unavailable(format!(
                    "LSN {lsn} was not applied here within {} s",
                    SEAL_WAIT.as_secs()
                )));
            }
        }
        loop {
            sealed.borrow_and_update();
            // Segments that end meanwhile are another call's.
            let waiting = wal.unsealed_ended();
            let Some(first) = waiting.iter().find(|s| s.first_lsn() <= lsn) else {
                break;
            };
            if let Some(why) = self.failed().or_else(|| self.engine().stopped()) {
                return Err(WriteError::Unavailable(why));
            }
            let id = first.id;
            self.group.nudge();
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
}

/// Writes to the namespaces of this node, or has their leaders do it.
pub struct GroupWriter {
    namespaces: Arc<Namespaces>,
    clock: Arc<dyn Clock>,
    /// The ways to other nodes, if it is one of several.
    ways: Option<Arc<Ways>>,
}

impl GroupWriter {
    pub(crate) fn new(
        namespaces: Arc<Namespaces>,
        clock: Arc<dyn Clock>,
        ways: Option<Arc<Ways>>,
    ) -> GroupWriter {
        GroupWriter {
            namespaces,
            clock,
            ways,
        }
    }

    /// How to ask a namespace's leader, where that may be another node.
    fn forward<'a>(&'a self, lane: &'a Lane) -> Option<Forward<'a>> {
        let ways = self.ways.as_deref()?;
        Some(Forward {
            ways,
            lane,
            clock: self.clock.as_ref(),
        })
    }
}

impl Writer for GroupWriter {
    fn write<'a>(
        &'a self,
        namespace: &'a Namespace,
        action: Action,
        idempotency: Option<Idempotency>,
    ) -> Answer<'a, Written> {
        Box::pin(async move {
            let lane = self.namespaces.lane(namespace)?;
            let command = Command::User {
                idempotency,
                action,
            };
            match self.forward(&lane) {
                None => lane.write(&command, self.namespaces.queued()).await,
                Some(forward) => forward.write(&command, self.namespaces.queued()).await,
            }
        })
    }

    fn seal<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Sealed> {
        Box::pin(async move {
            let lane = self.namespaces.lane(namespace)?;
            let lsn = match self.forward(&lane) {
                None => lane.end_segment().await?,
                Some(forward) => forward.position(Position::SegmentsEnd).await?,
            };
            lane.sealed_through(lsn).await
        })
    }

    fn barrier<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Lsn> {
        Box::pin(async move {
            let lane = self.namespaces.lane(namespace)?;
            match self.forward(&lane) {
                None => lane.group.barrier().await,
                Some(forward) => forward.position(Position::Acknowledged).await,
            }
        })
    }
}
