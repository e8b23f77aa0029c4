//! [`UnderWay`]: what is proposed to a group and not yet answered: how much of it there is, how much room
//! it will take in the log, and when the last of it is answered. [`Promise`]: who waits for one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use openraft::OptionalSend;
use openraft::raft::responder::Responder;
use tokio::sync::{Notify, oneshot};
use unisondb_api::WriteError;
use unisondb_types::limits;

use crate::intake::Flight;
use crate::queued;
use crate::types::Types;

/// What is proposed and not yet answered.
#[derive(Default)]
pub(crate) struct UnderWay {
    /// Frame bytes, of each proposal at least its header's: room is kept for all of them (D9).
    bytes: AtomicU64,
    /// How many there are.
    count: AtomicUsize,
    /// For how many bytes the disk had no room when it was last asked; 0: it had.
    refused: AtomicU64,
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
    /// [`WriteError::Unavailable`] once it is closed, [`WriteError::Overloaded`] where too many wait.
    pub(crate) fn take(self: &Arc<UnderWay>, bytes: u64) -> Result<Share, WriteError> {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let share = Share {
            under_way: self.clone(),
            bytes,
        };
        if before >= limits::PROPOSALS {
            let why = format!("{} writes wait for the log", limits::PROPOSALS);
            return Err(WriteError::Overloaded(why));
        }
        // Counted first: whoever closes waits for it, or it sees that it is closed.
        match self.closed.load(Ordering::SeqCst) {
            true => Err(WriteError::Unavailable("the node is stopping".to_owned())),
            false => Ok(share),
        }
    }

    /// The disk has no room for so many bytes; 0: it has.
    pub(crate) fn set_refused(&self, bytes: u64) {
        self.refused.store(bytes, Ordering::Relaxed);
    }

    /// For how many bytes the disk had no room when it was last asked; 0: it had.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
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
        under_way.count.fetch_sub(1, Ordering::Relaxed);
        under_way.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if under_way.closed.load(Ordering::SeqCst) {
            under_way.answered.notify_waiters();
        }
    }
}

/// Who waits for a proposal's answer. What the proposal takes of what may wait is given back with the
/// answer, whoever hears it: a client that goes away takes nothing back, and frees nothing.
pub(crate) struct Promise<T> {
    answer: oneshot::Sender<T>,
    _share: Share,
    /// Of what may wait for all groups of a node.
    _queued: Option<queued::Share>,
    /// With whom it goes to openraft.
    _flight: Option<Arc<Flight>>,
}

impl<T> Promise<T> {
    /// A promise, and where the answer comes out: none, if the group ends before.
    pub(crate) fn new(
        share: Share,
        queued: Option<queued::Share>,
    ) -> (Promise<T>, oneshot::Receiver<T>) {
        let (answer, answered) = oneshot::channel();
        let promise = Promise {
            answer,
            _share: share,
            _queued: queued,
            _flight: None,
        };
        (promise, answered)
    }

    /// The same on its way to openraft.
    pub(crate) fn board(self, flight: Arc<Flight>) -> Promise<T> {
        Promise {
            _flight: Some(flight),
            ..self
        }
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Promise<T> {
    fn on_complete(self, result: T) {
        // Whoever asked may have gone meanwhile.
        drop(self.answer.send(result));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_proposal_takes_comes_back_with_the_answer_though_nobody_hears_it() {
        let under_way = Arc::new(UnderWay::default());
        let queued = queued::Queued::default();
        let share = under_way.take(100).unwrap();
        let (promise, answered) = Promise::new(share, Some(queued.take(60).unwrap()));
        drop(answered);
        assert_eq!((under_way.bytes(), queued.bytes()), (100, 60));
        promise.on_complete(());
        assert_eq!((under_way.bytes(), queued.bytes()), (0, 0));
    }

    #[test]
    fn so_many_proposals_wait_and_no_more() {
        let under_way = Arc::new(UnderWay::default());
        let take = || under_way.take(1);
        let waiting: Vec<Share> = (0..limits::PROPOSALS).map(|_| take().unwrap()).collect();
        assert!(matches!(take(), Err(WriteError::Overloaded(_))));
        assert_eq!(under_way.bytes(), limits::PROPOSALS as u64);
        drop(waiting);
        assert!(take().is_ok());
    }
}
