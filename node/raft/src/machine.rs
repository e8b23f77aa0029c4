//! [`Machine`]: the namespace's state as openraft's. What is committed goes to the apply loop, on a
//! thread of its own, in batches; whoever proposed hears of it from there.
//!
//! Snapshots are told of, not made here: the state in LMDB is one at any time, and openraft only
//! has to know how far it goes (D10).

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{
    ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, SnapshotMeta,
};
use tokio::sync::{Notify, mpsc, oneshot};
use unisondb_engine::{Applier, Engine, Stand};
use unisondb_types::{Kind, SegmentId};
use unisondb_wal::Entry;

use crate::standing::Standing;
use crate::types::{self, Applied, LogId, StoredMembership, Types};

/// Records handed to the apply loop at once, at most.
const BATCH: usize = 256;

/// Committed records, in order, and who waits for each.
pub(crate) struct Batch {
    records: Vec<(Entry, Option<ApplyResponder<Types>>)>,
    done: oneshot::Sender<io::Result<()>>,
}

impl Batch {
    /// Without records: a time to do what is owed.
    pub(crate) fn empty() -> Batch {
        let (done, _) = oneshot::channel();
        let records = Vec::new();
        Batch { records, done }
    }
}

/// How far LMDB goes, as a snapshot that could be made of it.
fn current(engine: &Engine) -> io::Result<Option<SnapshotOf<Types, Stand>>> {
    let stand = engine.flushed_stand().map_err(io::Error::other)?;
    Ok(stand.map(|stand| {
        let (last_log_id, last_membership) = types::stood(&stand);
        openraft::Snapshot {
            meta: SnapshotMeta {
                last_log_id,
                last_membership,
            },
            snapshot: stand,
        }
    }))
}

/// Feeds the apply loop for openraft. There is one a group.
pub(crate) struct Machine {
    engine: Engine,
    batches: mpsc::Sender<Batch>,
}

impl Machine {
    /// The machine, and what its apply loop takes.
    pub(crate) fn new(engine: Engine) -> (Machine, mpsc::Receiver<Batch>) {
        let (batches, taken) = mpsc::channel(1);
        (Machine { engine, batches }, taken)
    }

    /// The way to the apply loop, for as long as the group goes on.
    pub(crate) fn way(&self) -> mpsc::WeakSender<Batch> {
        self.batches.downgrade()
    }

    async fn hand(&self, records: Vec<(Entry, Option<ApplyResponder<Types>>)>) -> io::Result<()> {
        let stopped = || io::Error::other("the namespace has stopped");
        let (done, result) = oneshot::channel();
        let sent = self.batches.send(Batch { records, done }).await;
        sent.map_err(|_| stopped())?;
        result.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Stand;
    type SnapshotBuilder = Told;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let stand = self.engine.applied_stand().map_err(io::Error::other)?;
        Ok(types::stood(&stand))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut ready = entries.ready_chunks(BATCH);
        while let Some(some) = ready.next().await {
            let mut records = Vec::with_capacity(some.len());
            for one in some {
                let (entry, waiting) = one?;
                let entry = entry.into_logged().ok_or_else(|| {
                    io::Error::other("what is committed was not read from the log")
                })?;
                records.push((entry, waiting));
            }
            self.hand(records).await?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Told> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Told {
        Told(self.engine.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        _stand: Stand,
    ) -> io::Result<()> {
        Err(io::Error::other(format!(
            "a snapshot up to {meta} was offered: members take them over at a start"
        )))
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Stand>>> {
        current(&self.engine)
    }
}

/// Says how far LMDB goes.
pub(crate) struct Told(Engine);

impl RaftSnapshotBuilder<Types> for Told {
    type SnapshotData = Stand;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Stand>> {
        let current = current(&self.0)?;
        current.ok_or_else(|| io::Error::other("nothing has been flushed yet"))
    }
}

/// The apply loop: committed records into the state, in order, and the answers. Records that nobody here
/// waits for go no faster than LMDB can follow; whoever proposes is held back before that. Rings `ended`
/// when a segment has ended, so that the leader may propose what it adds up to (D5).
pub(crate) async fn run(
    engine: Engine,
    mut applier: Applier,
    mut batches: mpsc::Receiver<Batch>,
    standing: Arc<Standing>,
    ended: Arc<Notify>,
    at_end: oneshot::Sender<()>,
) {
    let mut segment = SegmentId::ZERO;
    while let Some(Batch { records, done }) = batches.recv().await {
        let mut result = Ok(());
        let mut rang = false;
        for (entry, waiting) in records {
            // A new segment means that the one before has ended; so may a `Seal`.
            rang |= entry.segment != segment || entry.record.kind == Kind::Seal;
            segment = entry.segment;
            if waiting.is_none() {
                tokio::select! {
                    biased;
                    () = engine.room() => {}
                    () = standing.stopping() => {
                        result = Err(io::Error::other("the node stops"));
                        break;
                    }
                }
            }
            match applier.apply(&entry) {
                Ok((lsn, outcome)) => {
                    if let Some(waiting) = waiting {
                        waiting.send(Applied { lsn, outcome });
                    }
                }
                Err(e) => {
                    result = Err(io::Error::other(e));
                    break;
                }
            }
        }
        if let Err(error) = applier.seal_owed() {
            // It has stopped, and says so itself.
            tracing::error!(%error, "a footer cannot be written");
        }
        if rang {
            ended.notify_one();
        }
        // Who asked for it may have gone meanwhile.
        drop(done.send(result));
    }
    drop((applier, engine));
    // Nobody waits for an end that is none in order.
    let _ = at_end.send(());
}
