//! [`LogStore`]: the namespace's log as openraft's. Frames are made here, by the leader, once; a
//! follower takes them as they are (D2). The vote lies beside the log in `raft.state` (D8).
//!
//! `append` returns as soon as the entries can be read; [`crate::sync`] tells openraft when they
//! are durable. `purge` moves a floor only: segments go by retention and holds (D10).

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use unisondb_platform::{OffloadExt as _, Platform};
use unisondb_types::{Lsn, Stamp, Term};
use unisondb_wal::raft_state::RaftStateFile;
use unisondb_wal::{Entry, Error, Frame, Wal};

use crate::entry::{Body, RaftEntry};
use crate::office::Office;
use crate::standing::Standing;
use crate::sync::{Durability, Waiting};
use crate::types::{self, LogId, Types, Vote};

/// Frame bytes read at once, about: what one message to a follower holds, and one step of applying.
const READ_BYTES: usize = 1 << 20;

/// What store and readers share.
pub(crate) struct Shared {
    pub(crate) platform: Platform,
    pub(crate) wal: Wal,
    pub(crate) standing: Arc<Standing>,
    pub(crate) durability: Durability,
    /// Up to which record openraft knows of a commit.
    pub(crate) committed: AtomicU64,
    pub(crate) vote: Arc<Mutex<RaftStateFile>>,
    /// Which stamps this process may give, and has seen given.
    pub(crate) office: Mutex<Office>,
    /// Up to which record LMDB went at the start.
    pub(crate) stood: Option<LogId>,
    /// What openraft regards as purged, above what is.
    pub(crate) floor: Mutex<Option<LogId>>,
}

impl Shared {
    /// Frames made from now on vouch for what is committed (D6). They reach the disk behind it; only
    /// with an interval they do not wait for that, and vouch for what is there.
    pub(crate) fn vouch(&self) {
        let committed = Lsn::new(self.committed.load(Ordering::Relaxed));
        self.wal.commit(match self.durability {
            Durability::Always => committed,
            Durability::Interval(_) => committed.min(self.wal.durable()),
        });
    }

    /// The time to give to the next record.
    ///
    /// # Errors
    /// In words for the client: the clock is not believed (D3).
    pub(crate) fn time(&self) -> Result<Stamp, String> {
        let clock = &self.platform.clock;
        self.office.lock().time(clock.now(), clock.monotonic())
    }

    fn is_held(&self, lsn: Lsn) -> bool {
        (self.wal.first()..=self.wal.last()).contains(&lsn)
    }

    /// Whoever leads says what time it is.
    pub(crate) fn heard(&self, time: Stamp) {
        let monotonic = self.platform.clock.monotonic();
        self.office.lock().heard(time, monotonic);
    }
}

/// Reads the log for openraft.
#[derive(Clone)]
pub(crate) struct LogReader(Arc<Shared>);

/// The log as openraft's. There is one a group.
pub(crate) struct LogStore {
    reader: LogReader,
    appended: mpsc::UnboundedSender<Waiting>,
}

impl LogStore {
    pub(crate) fn new(reader: LogReader, appended: mpsc::UnboundedSender<Waiting>) -> LogStore {
        LogStore { reader, appended }
    }

    fn shared(&self) -> &Shared {
        &self.reader.0
    }

    /// Makes frames of proposals: stamps are given here and nowhere else (D2, D3).
    fn propose(&self, term: Term, proposed: &[RaftEntry]) -> Result<Lsn, Error> {
        let commands: Vec<_> = proposed
            .iter()
            .filter_map(|entry| match entry.body() {
                Body::Proposed(kind, payload) => Some((*kind, payload.clone())),
                Body::Logged(_) | Body::Sent(_) => None,
            })
            .collect();
        let shared = self.shared();
        let (_, last) = shared.wal.last_term_and_stamp();
        let monotonic = shared.platform.clock.monotonic();
        // A clock that is not believed stamps nothing but what raft itself has to say, and that as
        // close behind the last record as can be.
        let time = shared.time();
        let entries = shared
            .wal
            .append(term, *time.as_ref().unwrap_or(&last), &commands)?;
        if let (Ok(_), Some(entry)) = (time, entries.last()) {
            shared.office.lock().gave(entry.record.stamp, monotonic);
        }
        let last = shared.wal.last();
        Ok(entries.first().map_or(last, |e| e.record.lsn))
    }

    /// Takes frames of another log.
    fn follow(&self, sent: &[RaftEntry]) -> Result<Lsn, Error> {
        let frames: Vec<Frame> = sent.iter().filter_map(RaftEntry::frame).collect();
        let shared = self.shared();
        let entries = shared.wal.append_frames(&frames)?;
        if let Some(entry) = entries.last() {
            shared.office.lock().took(entry.record.stamp);
        }
        let last = shared.wal.last();
        Ok(entries.first().map_or(last, |e| e.record.lsn))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let shared = self.reader.0.clone();
        let ends = move || {
            let wal = &shared.wal;
            // Of the record before the first one held, the state tells the term if it ends there. If it
            // goes further, the first one held may as well count as purged: its own term is known.
            let purged = match wal.first() {
                Lsn::FIRST => None,
                first
                    if shared
                        .stood
                        .is_some_and(|id| types::position(&id).0.next() == first) =>
                {
                    shared.stood
                }
                first => {
                    let held = wal.read(first, 1)?;
                    let record = held.first().map(|e| &e.record);
                    record.and_then(|r| types::log_id(r.lsn, r.term))
                }
            };
            let (term, _) = wal.last_term_and_stamp();
            Ok::<_, Error>((purged, wal.last(), term))
        };
        let ends = self.shared().platform.offload.blocking(ends).await;
        let (purged, last, term) = ends.map_err(io::Error::other)?;
        Ok(LogState {
            last_purged_log_id: purged.max(*self.shared().floor.lock()),
            last_log_id: types::log_id(last, term),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (synced, go) = oneshot::channel();
        let sent = self.appended.send(Waiting::Vote(synced));
        let durable = sent.is_ok() && go.await.is_ok();
        if !durable {
            return Err(io::Error::other(
                "what was appended before the vote is not durable",
            ));
        }
        let (file, vote) = (self.shared().vote.clone(), *vote);
        let write = move || {
            let mut file = file.lock();
            let state = types::state_of(file.state().raft_id, &vote);
            file.write(state)
        };
        let written = self.shared().platform.offload.blocking(write).await;
        written.map_err(|e| {
            self.shared().standing.fail(&e.to_string());
            io::Error::other(e)
        })
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // At a start it is found again by the frames that vouch for it.
        if let Some(id) = committed {
            let shared = self.shared();
            let lsn = types::position(&id).0.get();
            shared.committed.fetch_max(lsn, Ordering::Relaxed);
            shared.vouch();
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.shared().wal.committed();
        if committed < self.shared().wal.first() {
            return Ok(None);
        }
        let entry = self.reader.one(committed).await.map_err(io::Error::other)?;
        Ok(entry.and_then(|e| types::log_id(e.record.lsn, e.record.term)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        let alike = |a: &RaftEntry, b: &RaftEntry| {
            a.term() == b.term() && a.is_proposed() == b.is_proposed()
        };
        for run in entries.chunk_by(alike) {
            let first = &run[0];
            let placed = match first.is_proposed() {
                true => self.propose(Term::new(first.term()), run),
                false => self.follow(run),
            };
            let refused = |why: String| {
                let why = format!("the log does not take what raft gives it: {why}");
                self.shared().standing.fail(&why);
                io::Error::other(why)
            };
            let lsn = placed.map_err(|e| refused(e.to_string()))?;
            if types::index(lsn) != first.index() {
                let index = first.index();
                return Err(refused(format!("entry {index} went to record {lsn}")));
            }
        }
        // The loop ends with the process only.
        let relaxed = matches!(self.shared().durability, Durability::Interval(_))
            && entries.iter().all(RaftEntry::is_of_a_client);
        self.appended
            .send(Waiting::Append {
                flushed: callback,
                relaxed,
            })
            .map_err(|_| io::Error::other("the log has stopped"))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let wal = self.shared().wal.clone();
        let lsn = last.map_or(Lsn::ZERO, |id| types::position(&id).0);
        let truncated = self
            .shared()
            .platform
            .offload
            .blocking(move || wal.truncate_after(lsn));
        truncated.await.map_err(|e| {
            self.shared().standing.fail(&e.to_string());
            io::Error::other(e)
        })
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let mut floor = self.shared().floor.lock();
        *floor = (*floor).max(Some(log_id));
        Ok(())
    }
}

impl LogReader {
    pub(crate) fn new(shared: Shared) -> LogReader {
        LogReader(Arc::new(shared))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Records from `from` up to `end`, that one left out; at least one if it is there, about `bytes`.
    async fn read(&self, from: Lsn, end: Lsn, bytes: usize) -> Result<Vec<Entry>, Error> {
        let wal = &self.0.wal;
        if from >= end || from > wal.last() {
            return Ok(Vec::new());
        }
        let mut entries = match wal.read_memory(from, bytes) {
            Some(entries) => entries,
            None => {
                let wal = wal.clone();
                let read = move || wal.read(from, bytes);
                self.0.platform.offload.blocking(read).await?
            }
        };
        let within = entries.partition_point(|e| e.record.lsn < end);
        entries.truncate(within);
        Ok(entries)
    }

    /// The record at `lsn`, if it is there.
    async fn one(&self, lsn: Lsn) -> Result<Option<Entry>, Error> {
        let entries = self.read(lsn, lsn.next(), 1).await?;
        Ok(entries.into_iter().next())
    }

    /// Whether `entries` are frames that were written one behind the other, the first behind the record
    /// `previous`. Asked before openraft is, for which a log that does not take them is final. Where
    /// this log has no such record (any more) there is nothing to compare with, and openraft answers.
    ///
    /// # Errors
    /// In words for the sender.
    pub(crate) async fn vet(
        &self,
        previous: Option<&LogId>,
        entries: &[RaftEntry],
    ) -> Result<(), String> {
        let Some((lsn, term)) = previous.map(types::position) else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        let before = match self.one(lsn).await {
            Ok(before) => before.filter(|e| e.record.term == term),
            Err(Error::Missing { .. }) => None,
            Err(e) => return Err(e.to_string()),
        };
        let Some(before) = before else {
            return Ok(());
        };
        let mut crc = before.crc;
        for frame in entries.iter().filter_map(RaftEntry::frame) {
            let damaged = |e| format!("record {} arrived damaged: {e}", frame.record().lsn);
            frame.check(crc).map_err(damaged)?;
            crc = frame.crc();
        }
        Ok(())
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<RaftEntry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut next, end) = bounds(&range);
        let mut all = Vec::new();
        loop {
            let some = self
                .read(next, end, READ_BYTES)
                .await
                .map_err(io::Error::other)?;
            let Some(last) = some.last() else {
                return Ok(all);
            };
            next = last.record.lsn.next();
            all.extend(some.into_iter().map(RaftEntry::logged));
        }
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let first = types::lsn(start);
        match self.read(first, types::lsn(end), READ_BYTES).await {
            Ok(entries) => Ok(entries.into_iter().map(RaftEntry::logged).collect()),
            // Purged meanwhile, or taken back since another leads: openraft shows that it is there, and
            // looks again. (A hole in what is held is none of these.)
            Err(Error::Missing { .. }) if !self.0.is_held(first) => Ok(Vec::new()),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (next, end) = bounds(&range);
        let reader = self.clone();
        let batches = stream::try_unfold(next, move |next| {
            let reader = reader.clone();
            async move {
                let some = reader
                    .read(next, end, READ_BYTES)
                    .await
                    .map_err(io::Error::other)?;
                let after = some.last().map(|e| e.record.lsn.next());
                Ok::<_, io::Error>(after.map(|after| (some, after)))
            }
        });
        use futures_util::{StreamExt as _, TryStreamExt as _};
        let logged = |some: Vec<Entry>| some.into_iter().map(RaftEntry::logged).map(Ok);
        let entries = batches.map_ok(move |some| stream::iter(logged(some)));
        entries.try_flatten().boxed()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(types::vote_of(&self.0.vote.lock().state()))
    }
}

/// A range of indexes as LSNs: the first one, and the one behind the last.
fn bounds(range: &impl RangeBounds<u64>) -> (Lsn, Lsn) {
    let first = match range.start_bound() {
        Bound::Included(index) => types::lsn(*index),
        Bound::Excluded(index) => types::lsn(*index).next(),
        Bound::Unbounded => Lsn::FIRST,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => types::lsn(*index).next(),
        Bound::Excluded(index) => types::lsn(*index),
        Bound::Unbounded => Lsn::MAX,
    };
    (first, end)
}

#[cfg(test)]
mod tests;
