//! The log loop of one namespace: takes what is queued, makes it durable in one fsync, hands it on.
//!
//! | what fails | answer | then |
//! | --- | --- | --- |
//! | no room reserved | 507, not written | goes on; the background makes room |
//! | disk full at the fsync in spite of that | 504: it stays in the log | 507 until that fsync succeeds, then it is applied |
//! | no descriptor for the next segment's file | 503, not written; 504 at the fsync, as above | asked again at the next write |
//! | any other write or fsync | 500 | final: the log has stopped (P14) |
//! | the clock is not believed | 503, not written | asked again at the next write |

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use unisondb_api::WriteError;
use unisondb_engine::Engine;
use unisondb_platform::Platform;
use unisondb_raft::Office;
use unisondb_types::{Check, Command, Kind, Stamp, Term};
use unisondb_wal::{Entry, Error, FRAME_HEADER_BYTES};

use super::apply::Group;
use super::queued::Waiting;
use super::{LaneState, Proposal, Work};
use crate::ballast::Ballast;
use crate::config::Durability;

/// Payload bytes taken into one group, about: bounds the memory of one fsync's writes.
const GROUP_BYTES: usize = 16 << 20;

pub(super) struct Log {
    pub(super) platform: Platform,
    pub(super) engine: Engine,
    /// A single node is never voted out: its term is that of its start.
    pub(super) term: Term,
    pub(super) office: Office,
    pub(super) durability: Durability,
    pub(super) ballast: Arc<Ballast>,
    pub(super) state: Arc<LaneState>,
    /// Checks of ended segments that are not in the log yet: each is given only once, so what
    /// could not be written is kept for the next try.
    pub(super) owed: Vec<Check>,
    /// A group that met the full disk at its fsync. Truncating it away would have to write as well,
    /// and a truncation that fails half way is final; so it stays, and is synced when there is room.
    pub(super) limbo: Vec<Entry>,
    pub(super) groups: mpsc::Sender<Group>,
}

/// How a group failed.
enum Failure {
    /// Surely not written; the next one may go well.
    Refused(WriteError),
    /// The log has stopped.
    Final(String),
}

impl Log {
    pub(super) async fn run(mut self, mut work: mpsc::Receiver<Work>, wake: Arc<Notify>) {
        loop {
            let mut group = Vec::new();
            let mut stopping = false;
            tokio::select! {
                biased;
                next = work.recv() => match next {
                    Some(Work::Propose(proposal)) => group.push(proposal),
                    // Somebody wants an end, or every handle is gone.
                    Some(Work::Stop) | None => stopping = true,
                },
                () = wake.notified() => {}
            }
            stopping |= gather(&mut work, &mut group);
            self.commit(group).await;
            if stopping {
                break;
            }
        }
        // What comes from now on is refused by the channel; what was queued before is written.
        work.close();
        while !work.is_empty() {
            let mut group = Vec::new();
            gather(&mut work, &mut group);
            self.commit(group).await;
        }
        if self.durability == Durability::Interval {
            self.sync_interval();
        }
    }

    /// Makes one group durable and hands it to the apply loop; or answers it.
    async fn commit(&mut self, group: Vec<Proposal>) {
        self.owed.extend(self.engine.pending_checks());
        let failed = self.state.failed.lock().clone();
        if let Some(why) = failed {
            return refuse(group, &WriteError::Failed(why));
        }
        let written = match self.settle().await {
            Ok(()) => {
                if self.state.sync_due.swap(false, Ordering::AcqRel) {
                    self.sync_interval();
                }
                if group.is_empty() && self.owed.is_empty() {
                    self.look_for_room();
                    // Checked segments may wait for their footers, which a full disk refused.
                    if !self.engine.wal().unsealed_ended().is_empty() {
                        self.hand(Vec::new(), std::iter::empty()).await;
                    }
                    return;
                }
                self.write(&group)
            }
            Err(failure) => Err(failure),
        };
        match written {
            Ok(entries) => {
                let waiting = group.into_iter().map(|p| Some(p.waiting));
                self.hand(entries, waiting).await;
            }
            Err(Failure::Refused(why)) => refuse(group, &why),
            Err(Failure::Final(why)) => {
                self.fail(&why);
                refuse(group, &WriteError::Failed(why));
            }
        }
    }

    /// Hands records to the apply loop; those behind the ones that are waited for are our own.
    async fn hand(&self, entries: Vec<Entry>, waiting: impl Iterator<Item = Option<Waiting>>) {
        let waiting = waiting.chain(std::iter::repeat_with(|| None));
        let group: Group = entries.into_iter().zip(waiting).collect();
        // The apply loop ends only after this one.
        drop(self.groups.send(group).await);
    }

    /// Syncs what met the full disk before, and hands it on: nothing else comes first.
    async fn settle(&mut self) -> Result<(), Failure> {
        if self.limbo.is_empty() {
            return Ok(());
        }
        let synced = self.engine.wal().sync();
        let durable = self.full_or_final(synced)?;
        self.engine.wal().commit(durable);
        let entries = std::mem::take(&mut self.limbo);
        self.hand(entries, std::iter::empty()).await;
        Ok(())
    }

    /// Finds out whether the disk would take again what it refused, without waiting for a client.
    fn look_for_room(&self) {
        let bytes = self.state.refused_bytes.load(Ordering::Relaxed);
        // An error that is final is met by the next write, which has somebody to tell.
        if bytes > 0 && self.ballast.is_held() && self.engine.wal().reserve(bytes).is_ok() {
            self.state.refused_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// [`write_group`](Self::write_group), and writes down how much the full disk refused.
    fn write(&mut self, group: &[Proposal]) -> Result<Vec<Entry>, Failure> {
        let written = self.write_group(group);
        let refused = match &written {
            Ok(_) => 0,
            Err(Failure::Refused(WriteError::Full | WriteError::Unknown(_))) => {
                let frame = |p: &Proposal| (p.payload.len() + FRAME_HEADER_BYTES) as u64;
                group.iter().map(frame).sum::<u64>().max(1)
            }
            Err(_) => return written,
        };
        self.state.refused_bytes.store(refused, Ordering::Relaxed);
        written
    }

    /// Reserve, append, sync, commit.
    fn write_group(&mut self, group: &[Proposal]) -> Result<Vec<Entry>, Failure> {
        if !self.ballast.is_held() && !self.ballast.retake(&self.platform) {
            return Err(Failure::Refused(WriteError::Full));
        }
        let mut commands: Vec<(Kind, Bytes)> =
            group.iter().map(|p| (p.kind, p.payload.clone())).collect();
        let checks = self.owed.iter().map(|check| Command::Check(*check));
        commands.extend(checks.map(|check| (check.kind(), check.payload())));

        let wal = self.engine.wal();
        let frames = commands
            .iter()
            .map(|(_, payload)| (payload.len() + FRAME_HEADER_BYTES) as u64);
        self.full_or_final(wal.reserve(frames.sum()))?;

        let monotonic = self.platform.clock.monotonic();
        let now = self.platform.clock.now();
        let time = self.time(now, monotonic)?;
        let entries = self.full_or_final(wal.append(self.term, time, &commands))?;
        if let Some(last) = entries.last() {
            self.office.gave(last.record.stamp, monotonic);
            *self.state.stamped.lock() = (last.record.stamp, monotonic);
        }
        self.owed.clear();
        self.state.behind.store(
            u64::try_from(self.office.behind(now).as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        let clients_only = commands.iter().all(|(kind, _)| *kind == Kind::User);
        if self.durability == Durability::Interval && clients_only {
            return Ok(entries);
        }
        // Seals and checks are acted on in files: they are durable first, whatever the setting.
        match wal.sync() {
            Ok(durable) => {
                wal.commit(durable);
                Ok(entries)
            }
            Err(e) if e.is_passing() => {
                let why = match e {
                    Error::Full { .. } => {
                        self.state.starved.store(true, Ordering::Relaxed);
                        "the disk was full at the fsync".to_owned()
                    }
                    e => e.to_string(),
                };
                self.limbo = entries;
                Err(Failure::Refused(WriteError::Unknown(why)))
            }
            Err(e) => Err(Failure::Final(e.to_string())),
        }
    }

    fn time(&self, now: Stamp, monotonic: std::time::Duration) -> Result<Stamp, Failure> {
        let time = self.office.time(now, monotonic);
        let mut refused = self.state.clock.lock();
        match time {
            Ok(time) => {
                *refused = None;
                Ok(time)
            }
            Err(why) => {
                *refused = Some(why.clone());
                Err(Failure::Refused(WriteError::Unavailable(why)))
            }
        }
    }

    fn full_or_final<T>(&self, result: Result<T, Error>) -> Result<T, Failure> {
        result.map_err(|e| {
            if matches!(e, Error::Full { .. }) {
                self.state.starved.store(true, Ordering::Relaxed);
                return Failure::Refused(WriteError::Full);
            }
            if e.is_passing() {
                return Failure::Refused(WriteError::Unavailable(e.to_string()));
            }
            Failure::Final(e.to_string())
        })
    }

    /// The fsync of `durability = "interval"`: what it covers is committed.
    fn sync_interval(&self) {
        let wal = self.engine.wal();
        if wal.durable() == wal.last() || self.state.failed.lock().is_some() {
            return;
        }
        match wal.sync() {
            Ok(durable) => wal.commit(durable),
            Err(e) => match self.full_or_final::<()>(Err(e)) {
                // What was answered stays in the log: the next interval tries again.
                Err(Failure::Refused(_)) => {
                    tracing::warn!(namespace = %self.engine.namespace(), "the disk is full or descriptors are short: answered writes are not yet durable");
                }
                Err(Failure::Final(why)) => self.fail(&why),
                Ok(()) => {}
            },
        }
    }

    fn fail(&self, why: &str) {
        tracing::error!(
            namespace = %self.engine.namespace(),
            why,
            "the log has stopped; it takes no more writes until the process restarts"
        );
        self.state.failed.lock().get_or_insert(why.to_owned());
    }
}

/// Takes what is queued into the group. Whether a stop was among it.
fn gather(work: &mut mpsc::Receiver<Work>, group: &mut Vec<Proposal>) -> bool {
    let mut bytes: usize = group.iter().map(|p| p.payload.len()).sum();
    while bytes < GROUP_BYTES {
        match work.try_recv() {
            Ok(Work::Propose(proposal)) => {
                bytes += proposal.payload.len();
                group.push(proposal);
            }
            Ok(Work::Stop) => return true,
            Err(_) => break,
        }
    }
    false
}

fn refuse(group: Vec<Proposal>, why: &WriteError) {
    for proposal in group {
        proposal.waiting.send(Err(why.clone()));
    }
}
