//! [`Intake`]: proposals on their way to openraft. What is proposed while one group of records is on its
//! way gathers here and goes with the next, as one message: openraft's work, and the changes of thread
//! around it, are paid a group and not a record.
//!
//! The next group goes when every proposal of the one before is answered: applied, refused, or given
//! up. Let go already when the one before is durable, groups are a third as large, and a node alone
//! takes a quarter less writes (`docs/performance.md`).

use std::collections::VecDeque;
use std::sync::Arc;

use openraft::Raft;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::machine::Machine;
use crate::types::{Proposal, Types};
use crate::under_way::Promise;

/// Payload bytes of a group, about: as much is made into one buffer, and held until it is durable.
const GROUP_BYTES: usize = 16 << 20;

/// A proposal that waits for its group.
struct Waiting {
    proposal: Proposal,
    /// The term in which its proposer saw this node lead.
    term: u64,
    promise: Promise<ClientWriteResult<Types>>,
}

#[derive(Default)]
struct Gathered {
    waiting: VecDeque<Waiting>,
    /// A group is on its way.
    busy: bool,
    closed: bool,
}

/// What is proposed and not yet openraft's.
#[derive(Default)]
pub(crate) struct Intake {
    gathered: Mutex<Gathered>,
    ring: Notify,
}

/// A group on its way: its promises hold it, and the last one to be answered rings for the next group.
pub(crate) struct Flight(Arc<Intake>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.ring.notify_one();
    }
}

impl Intake {
    /// Takes a proposal. Once it is closed the promise is broken at once.
    pub(crate) fn put(
        &self,
        proposal: Proposal,
        term: u64,
        promise: Promise<ClientWriteResult<Types>>,
    ) {
        let mut gathered = self.gathered.lock();
        if gathered.closed {
            return;
        }
        gathered.waiting.push_back(Waiting {
            proposal,
            term,
            promise,
        });
        if !std::mem::replace(&mut gathered.busy, true) {
            self.ring.notify_one();
        }
    }

    /// Breaks the promises that wait here, and all that come.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut gathered = self.gathered.lock();
            gathered.closed = true;
            std::mem::take(&mut gathered.waiting)
        };
        drop(waiting);
        self.ring.notify_one();
    }

    /// The next group, of those that wait; `None` once it is closed.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut gathered = self.gathered.lock();
        if gathered.closed {
            return None;
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES
            && let Some(next) = gathered.waiting.pop_front()
        {
            bytes += next.proposal.payload.len();
            group.push(next);
        }
        gathered.busy = !group.is_empty();
        Some(group)
    }
}

/// Hands group after group to openraft. Ends when the intake is closed.
pub(crate) async fn run(intake: Arc<Intake>, raft: Raft<Types, Machine>) {
    loop {
        intake.ring.notified().await;
        let Some(waiting) = intake.take() else {
            return;
        };
        if waiting.is_empty() {
            continue;
        }
        let flight = Arc::new(Flight(intake.clone()));
        // openraft makes one message of what is sent in a row.
        for one in waiting {
            let promise = one.promise.board(flight.clone());
            let write = raft.write(one.proposal).responder(promise);
            if let Err(error) = write.with_leader(one.term).await {
                // Its promise is broken with it, which its proposer hears.
                tracing::debug!(%error, "openraft takes no proposals any more");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::under_way::UnderWay;
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;
    use unisondb_types::Kind;

    type Answered = oneshot::Receiver<ClientWriteResult<Types>>;

    fn put(intake: &Intake) -> Answered {
        put_bytes(intake, 0)
    }

    fn put_bytes(intake: &Intake, bytes: usize) -> Answered {
        let proposal = Proposal {
            kind: Kind::User,
            payload: Bytes::from(vec![0; bytes]),
        };
        let share = Arc::new(UnderWay::default()).take(1).unwrap();
        let (promise, answered) = Promise::new(share, None);
        intake.put(proposal, 1, promise);
        answered
    }

    fn is_rung(intake: &Intake) -> bool {
        intake.ring.notified().now_or_never().is_some()
    }

    /// As openraft would hold them.
    fn go(intake: &Arc<Intake>) -> Vec<Promise<ClientWriteResult<Types>>> {
        let flight = Arc::new(Flight(intake.clone()));
        let waiting = intake.take().unwrap().into_iter();
        waiting
            .map(|one| one.promise.board(flight.clone()))
            .collect()
    }

    #[test]
    fn what_comes_while_a_group_is_on_its_way_goes_together_once_all_of_that_is_answered() {
        let intake = Arc::new(Intake::default());
        let _answers = [put(&intake), put(&intake)];
        assert!(is_rung(&intake));
        let mut first = go(&intake);
        assert_eq!(first.len(), 2);
        let _more = [put(&intake), put(&intake), put(&intake)];
        first.pop();
        assert!(!is_rung(&intake));
        first.pop();
        assert!(is_rung(&intake));
        let second = go(&intake);
        assert_eq!(second.len(), 3);
        // With nothing behind them, what comes next goes at once.
        drop(second);
        assert!(is_rung(&intake));
        assert_eq!(go(&intake).len(), 0);
        // Of a group of none nothing is answered: it rings, and nobody waits.
        assert!(is_rung(&intake));
        assert_eq!(intake.take().unwrap().len(), 0);
        let _last = put(&intake);
        assert!(is_rung(&intake));
        assert_eq!(go(&intake).len(), 1);
    }

    #[test]
    fn a_group_takes_no_more_than_fits_one_buffer() {
        let intake = Arc::new(Intake::default());
        let _answers = [0; 3].map(|_| put_bytes(&intake, GROUP_BYTES / 2));
        assert!(is_rung(&intake));
        let first = go(&intake);
        assert_eq!(first.len(), 2);
        drop(first);
        assert!(is_rung(&intake));
        assert_eq!(go(&intake).len(), 1);
    }

    #[test]
    fn once_it_is_closed_every_promise_is_broken() {
        let intake = Arc::new(Intake::default());
        let mut waiting = put(&intake);
        intake.close();
        assert!(
            waiting
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        let mut late = put(&intake);
        assert!(
            late.try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        assert!(is_rung(&intake) && intake.take().is_none());
    }
}
