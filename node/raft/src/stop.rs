//! How a group ends: in order, for whoever waits for an answer and for the other members; or at once.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft_rt::WatchReceiver as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::group::Group;
use crate::standing;

/// How long an end in order may take.
const IN_ORDER: Duration = Duration::from_secs(5);

/// How long another may take to lead: one election, or nobody is there to.
const HAND_OVER: Duration = Duration::from_secs(1);

/// What ends with a group.
#[derive(Default)]
pub(crate) struct Ends {
    /// Rung at the end of the loops that have threads of their own.
    pub(crate) threads: Vec<oneshot::Receiver<()>>,
    pub(crate) tasks: JoinSet<()>,
}

impl Group {
    /// Takes part no longer: answers what is under way, hands the lead to another voter if there is one,
    /// and syncs what waits for that. A disk that has no room, or a quorum that is gone, is not
    /// waited for long.
    pub async fn stop(&self) {
        let clock = self.engine().platform().clock.clone();
        let in_order = async {
            self.under_way.close().await;
            tokio::select! {
                biased;
                () = self.hand_over() => {}
                () = clock.sleep(HAND_OVER) => {}
            }
        };
        let mut stuck = self.standing().stuck();
        tokio::select! {
            biased;
            () = in_order => {}
            _ = standing::stuck_now(&mut stuck) => {}
            () = clock.sleep(IN_ORDER) => {}
        }
        self.halt().await;
    }

    /// Takes part no longer, at once. What is proposed and not answered is unknown. Of its own, nothing
    /// holds the namespace afterwards.
    pub async fn halt(&self) {
        self.standing().stop();
        self.ended().notify_one();
        self.intake.close();
        // It may have died of an error before, which was said then.
        drop(self.raft.shutdown().await);
        let mut ends = self.ends.lock().await;
        for thread in std::mem::take(&mut ends.threads) {
            // Dropped if it could not be started.
            drop(thread.await);
        }
        while ends.tasks.join_next().await.is_some() {}
    }

    /// Lets the other voter lead that has most, if this node leads and there is one.
    async fn hand_over(&self) {
        let to = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            let others = metrics.replication.iter().flatten();
            let others = others.filter(|(id, _)| **id != self.own() && voters.contains(id));
            others.max_by_key(|(_, at)| **at).map(|(id, _)| *id)
        };
        let Some(to) = to.filter(|_| self.leads()) else {
            return;
        };
        if let Err(error) = self.transfer(to).await {
            tracing::debug!(%error, "the lead is not handed over");
            return;
        }
        let mut office = self.watch_office();
        loop {
            let leads = office.borrow_watched().current_leader == Some(self.own());
            if !leads || office.changed().await.is_err() {
                return;
            }
        }
    }
}
