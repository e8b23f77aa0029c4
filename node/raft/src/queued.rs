//! [`Queued`]: how many bytes of writes wait for the logs of a node, all its groups together. A
//! queue that is bounded in requests alone could hold a thousand times as much as one expects.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unisondb_api::WriteError;
use unisondb_types::limits;

/// Room for writes that wait.
pub struct Queued(Arc<Semaphore>);

/// A waiting write's share, given back when it is dropped.
pub type Share = OwnedSemaphorePermit;

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
    pub fn take(&self, bytes: usize) -> Result<Share, WriteError> {
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
    pub fn bytes(&self) -> usize {
        limits::PROPOSAL_BYTES - self.0.available_permits()
    }
}
