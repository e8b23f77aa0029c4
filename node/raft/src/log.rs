//! [`LogStore`]: the namespace's log as openraft's. Frames are made here, by the leader, once; a
//! follower takes them as they are (D2). The vote lies beside the log in `raft.state` (D8).
//!
//! `append` returns as soon as the entries can be read; [`crate::sync`] tells openraft when they
//! are durable. `purge` moves a floor only: segments go by retention and holds (D10).

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use unisondb_platform::{OffloadExt as _, Platform};
use unisondb_types::{Lsn, Term};
use unisondb_wal::raft_state::RaftStateFile;
use unisondb_wal::{Frame, Wal};

use crate::entry::{Body, RaftEntry};
use crate::office::{AcceptClock, Office};
use crate::standing::Standing;
use crate::sync::Waiting;
use crate::types::{self, LogId, Types, Vote};

/// Frame bytes read at once, about: what one message to a follower holds, and one step of applying.
const READ_BYTES: usize = 1 << 20;

/// What store and readers share.
pub(crate) struct Shared {
    pub(crate) platform: Platform,
    pub(crate) wal: Wal,
    pub(crate) standing: Arc<Standing>,
    pub(crate) vote: Arc<Mutex<RaftStateFile>>,
    /// What openraft regards as purged, above what is.
    pub(crate) floor: Mutex<Option<LogId>>,
}

/// Reads the log for openraft.
#[derive(Clone)]
pub(crate) struct LogReader(Arc<Shared>);

/// The log as openraft's. There is one a group.
pub(crate) struct LogStore {
    reader: LogReader,
    accept_clock: AcceptClock,
    /// Whose stamps are given: of a term in which this node leads.
    office: Option<(Term, Office)>,
    appended: mpsc::UnboundedSender<Waiting>,
}

impl LogStore {
    pub(crate) fn new(
        shared: Shared,
        accept_clock: AcceptClock,
        appended: mpsc::UnboundedSender<Waiting>,
    ) -> LogStore {
        LogStore {
            reader: LogReader(Arc::new(shared)),
            accept_clock,
            office: None,
            appended,
        }
    }

    fn shared(&self) -> &Shared {
        &self.reader.0
    }

    /// Makes frames of proposals: stamps are given here and nowhere else (D2, D3).
    fn propose(&mut self, term: Term, proposed: &[RaftEntry]) -> Result<Lsn, unisondb_wal::Error> {
        let commands: Vec<_> = proposed
            .iter()
            .filter_map(|entry| match entry.body() {
                Body::Proposed(kind, payload) => Some((*kind, payload.clone())),
                Body::Logged(_) | Body::Sent(_) => None,
            })
            .collect();
        let Shared { platform, wal, .. } = &*self.reader.0;
        let (_, last) = wal.last_term_and_stamp();
        let (now, monotonic) = (platform.clock.now(), platform.clock.monotonic());
        let (_, office) = match &mut self.office {
            Some(office) if office.0 == term => office,
            other => other.insert((term, Office::new(last, self.accept_clock))),
        };
        // Of a clock that is not believed (D3) nothing is taken: as close behind the last record as
        // can be.
        let time = office.time(now, monotonic).unwrap_or(last);
        let entries = wal.append(term, time, &commands)?;
        if let Some(last) = entries.last() {
            office.gave(last.record.stamp, monotonic);
        }
        Ok(entries.first().map_or(wal.last(), |e| e.record.lsn))
    }

    /// Takes frames of another log.
    fn follow(&self, sent: &[RaftEntry]) -> Result<Lsn, unisondb_wal::Error> {
        let frames: Vec<Frame> = sent.iter().filter_map(RaftEntry::frame).collect();
        let entries = self.shared().wal.append_frames(&frames)?;
        let last = self.shared().wal.last();
        Ok(entries.first().map_or(last, |e| e.record.lsn))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let shared = self.reader.0.clone();
        let ends = move || {
            let wal = &shared.wal;
            // The first record held is the last one that counts as purged: its term is known.
            let first = match wal.first() {
                Lsn::FIRST => None,
                first => wal.read(first, 1)?.first().map(|e| e.record.clone()),
            };
            let (term, _) = wal.last_term_and_stamp();
            Ok::<_, unisondb_wal::Error>((first, wal.last(), term))
        };
        let ends = self.shared().platform.offload.blocking(ends).await;
        let (first, last, term) = ends.map_err(io::Error::other)?;
        let held = first.and_then(|record| types::log_id(record.lsn, record.term));
        Ok(LogState {
            last_purged_log_id: held.max(*self.shared().floor.lock()),
            last_log_id: types::log_id(last, term),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
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
        // Frames made from now on vouch for it; at a start it is found again by them (D6).
        if let Some(id) = committed {
            self.shared().wal.commit(types::position(&id).0);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.shared().wal.committed();
        if committed < self.shared().wal.first() {
            return Ok(None);
        }
        let entries = self.reader.read(committed, committed.next()).await?;
        let record = entries.first().and_then(|e| match e.body() {
            Body::Logged(entry) => Some(&entry.record),
            Body::Proposed(..) | Body::Sent(_) => None,
        });
        Ok(record.and_then(|r| types::log_id(r.lsn, r.term)))
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
                tracing::error!(why, "the log does not take what raft gives it");
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
        self.appended
            .send(callback)
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
    /// Records from `from` up to `end`, that one left out; at least one if it is there.
    async fn read(&self, from: Lsn, end: Lsn) -> io::Result<Vec<RaftEntry>> {
        let wal = &self.0.wal;
        if from >= end || from > wal.last() {
            return Ok(Vec::new());
        }
        let entries = match wal.read_memory(from, READ_BYTES) {
            Some(entries) => entries,
            None => {
                let wal = wal.clone();
                let read = move || wal.read(from, READ_BYTES);
                let entries = self.0.platform.offload.blocking(read).await;
                entries.map_err(io::Error::other)?
            }
        };
        let within = entries.into_iter().take_while(|e| e.record.lsn < end);
        Ok(within.map(RaftEntry::logged).collect())
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
            let some = self.read(next, end).await?;
            let Some(last) = some.last() else {
                return Ok(all);
            };
            next = types::lsn(last.index()).next();
            all.extend(some);
        }
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read(types::lsn(start), types::lsn(end)).await
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
                let some = reader.read(next, end).await?;
                let after = some.last().map(|e| types::lsn(e.index()).next());
                Ok::<_, io::Error>(after.map(|after| (some, after)))
            }
        });
        use futures_util::{StreamExt as _, TryStreamExt as _};
        let entries = batches.map_ok(|some| stream::iter(some.into_iter().map(Ok)));
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
