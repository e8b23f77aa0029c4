//! The apply loop of one namespace: committed records into the state, in order, and the answers.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};
use unisondb_api::{WriteError, Written};
use unisondb_engine::Applier;
use unisondb_types::{Kind, SegmentId};
use unisondb_wal::Entry;

use super::queued::Waiting;

/// Records that became durable together. Without any: a time to do what is owed.
pub(super) type Group = Vec<(Entry, Option<Waiting>)>;

/// Ends when the log loop has; then tells `done`.
pub(super) async fn run(
    mut applier: Applier,
    mut groups: mpsc::Receiver<Group>,
    wake: Arc<Notify>,
    done: oneshot::Sender<()>,
) {
    let mut segment = SegmentId::ZERO;
    while let Some(group) = groups.recv().await {
        let mut ended = false;
        for (entry, waiting) in group {
            // A new segment means that the one before has ended; so may a `Seal`.
            ended |= entry.segment != segment || entry.record.kind == Kind::Seal;
            segment = entry.segment;
            let answer = match applier.apply(&entry) {
                Ok((lsn, outcome)) => Ok(Written { lsn, outcome }),
                // It is in the log, and the next start applies it or says why not.
                Err(e) => Err(WriteError::Unknown(e.to_string())),
            };
            if let Some(waiting) = waiting {
                waiting.send(answer);
            }
        }
        if let Err(error) = applier.seal_owed() {
            // It has stopped, and `/health` says so.
            tracing::error!(%error, "a footer cannot be written");
        }
        if ended {
            wake.notify_one();
        }
    }
    // Who asked for the end may have gone meanwhile.
    let _ = done.send(());
}
