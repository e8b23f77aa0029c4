//! [`Queued`]: how many bytes of writes wait for the logs of this node, all namespaces together. A
//! queue that is bounded in requests alone could hold a thousand times as much as one expects.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unisondb_api::{WriteError, Written};
use unisondb_types::limits;

/// Room for writes that wait.
pub(crate) struct Queued(Arc<Semaphore>);

/// A waiting write's share, given back when it is dropped: with the answer, whoever hears it.
pub(crate) type Share = OwnedSemaphorePermit;

impl Default for Queued {
    fn default() -> Queued {
        Queued(Arc::new(Semaphore::new(limits::PROPOSAL_BYTES)))
    }
}

impl Queued {
    /// Room for `bytes` more.
    ///
    /// # Errors
    /// [`WriteError::Overloaded`]: there is none now.
    pub(crate) fn take(&self, bytes: usize) -> Result<Share, WriteError> {
        let full = || {
            WriteError::Overloaded(format!(
                "{} bytes of writes wait for the log, at most {} may",
                self.bytes(),
                limits::PROPOSAL_BYTES
            ))
        };
        let share = u32::try_from(bytes).map_err(|_| full())?;
        let taken = self.0.clone().try_acquire_many_owned(share);
        taken.map_err(|_| full())
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        limits::PROPOSAL_BYTES - self.0.available_permits()
    }
}

/// Who waits for a record, and its share of what may wait.
pub(crate) struct Waiting {
    pub(super) answer: tokio::sync::oneshot::Sender<Result<Written, WriteError>>,
    /// None for the node's own, which are few and small.
    pub(super) _share: Option<Share>,
}

impl Waiting {
    /// Answers; a client that went away hears nothing.
    pub(super) fn send(self, answer: Result<Written, WriteError>) {
        drop(self.answer.send(answer));
    }
}
