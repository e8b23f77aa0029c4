//! [`UnderWay`]: what is proposed to a group and not yet answered: how much room it will take in the log,
//! and when the last of it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use unisondb_api::WriteError;

/// What is proposed and not yet answered.
#[derive(Default)]
pub(crate) struct UnderWay {
    /// Frame bytes, of each proposal at least its header's: room is kept for all of them (D9).
    bytes: AtomicU64,
    /// Nothing more is taken.
    closed: AtomicBool,
    /// Rung when one is answered after that.
    answered: Notify,
}

/// One proposal's part of it.
pub(crate) struct Share {
    under_way: Arc<UnderWay>,
    bytes: u64,
}

impl UnderWay {
    /// One more proposal, of so many frame bytes.
    ///
    /// # Errors
    /// [`WriteError::Unavailable`] once it is closed.
    pub(crate) fn take(self: &Arc<UnderWay>, bytes: u64) -> Result<Share, WriteError> {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        let share = Share {
            under_way: self.clone(),
            bytes,
        };
        // Counted first: whoever closes waits for it, or it sees that it is closed.
        match self.closed.load(Ordering::SeqCst) {
            true => Err(WriteError::Unavailable("the node is stopping".to_owned())),
            false => Ok(share),
        }
    }

    /// Frame bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Takes nothing more, and waits until all is answered.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        loop {
            let answered = self.answered.notified();
            if self.bytes() == 0 {
                return;
            }
            answered.await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let under_way = &self.under_way;
        under_way.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if under_way.closed.load(Ordering::SeqCst) {
            under_way.answered.notify_waiters();
        }
    }
}
