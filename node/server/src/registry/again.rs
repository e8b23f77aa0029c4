//! Closing a namespace and opening it again while the node runs: a snapshot has arrived for it from another
//! node, which the start takes over (D11). Meanwhile it answers 503, and says why.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use unisondb_engine::Ended;
use unisondb_platform::OffloadExt as _;
use unisondb_raft::TakenOver;

use super::{Inner, LOOK, OnFailure, Registry, Wanted, close, open};
use crate::namespaces::{Slot, TAKING_OVER};
use crate::writer::Lane;

/// How long those who still read are waited for before it is said that they are.
const READERS: Duration = Duration::from_secs(10);

impl Registry {
    /// Begins with each namespace that something has arrived for.
    pub(crate) fn take_over_what_has_arrived(&self) {
        for lane in self.lanes() {
            if *lane.group().watch_arrived().borrow() {
                self.take_over(lane);
            }
        }
    }

    fn take_over(&self, lane: Arc<Lane>) {
        let inner = self.0.clone();
        let namespace = lane.engine().namespace().clone();
        let (told, outcome) = watch::channel(None);
        let is_ours = inner.namespaces.change(&namespace, |slot, _| match slot {
            Some(Slot::Open(there)) if Arc::ptr_eq(there, &lane) => {
                let doing = TAKING_OVER;
                (Some(Slot::Busy { doing, outcome }), true)
            }
            _ => (None, false),
        });
        if !is_ours {
            return;
        }
        tokio::spawn(async move {
            let wanted = Wanted::Again(namespace, lane.is_open_to_clients());
            let ended = inner.end_for_parcel(lane).await;
            if inner.until_over(&ended).await {
                open(inner, wanted, OnFailure::Keep, told).await;
            }
        });
    }
}

impl Inner {
    /// Ends it, and has what arrived lie where the start finds it.
    async fn end_for_parcel(&self, lane: Arc<Lane>) -> Ended {
        close(&self.platform, &lane).await;
        let ended = lane.engine().watch_end();
        let namespace = lane.engine().namespace().clone();
        let group = lane.group().clone();
        drop(lane);
        let taken = self.platform.offload.blocking(move || group.take_over());
        match taken.await {
            Ok(TakenOver::AtTheStart) => {
                tracing::info!(%namespace, "closed, to take over a snapshot from another node");
            }
            Ok(TakenOver::NotNeeded) => {
                tracing::info!(%namespace, "it has caught up otherwise: no snapshot is taken over");
            }
            // It is opened as it is, and asked for again.
            Err(error) => tracing::warn!(%namespace, %error, "a snapshot cannot be taken over"),
        }
        ended
    }

    /// Waits for those who still read it: what they read must not be opened twice. Whether the node goes on.
    async fn until_over(&self, ended: &Ended) -> bool {
        let clock = &self.platform.clock;
        let began = clock.monotonic();
        let mut said = false;
        while !ended.is_over() {
            if *self.stopping.borrow() {
                return false;
            }
            if !said && clock.monotonic().saturating_sub(began) > READERS {
                said = true;
                tracing::warn!(
                    "a namespace that was closed is still being read; it is opened again when that has ended"
                );
            }
            clock.sleep(LOOK).await;
        }
        true
    }
}
