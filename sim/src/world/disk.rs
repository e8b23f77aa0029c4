//! [`Watcher`]: sees every operation of a disk: writes it into the trace, counts syncs for
//! [`SimOffload`](super::offload::SimOffload). What goes wrong is injected as rules by the harness.

use std::sync::atomic::{AtomicU64, Ordering};

use unisondb_platform::memory::{Effect, OpKind, Operation, Policy};

use crate::trace::Trace;

/// Watches one boot.
pub struct Watcher {
    trace: Trace,
    syncs: AtomicU64,
}

impl Watcher {
    pub fn new(trace: &Trace) -> Watcher {
        Watcher {
            trace: trace.clone(),
            syncs: AtomicU64::new(0),
        }
    }

    /// Syncs of files and folders so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

impl Policy for Watcher {
    fn decide(&self, operation: &Operation) -> Option<Effect> {
        if matches!(operation.kind, OpKind::Sync | OpKind::SyncFolder) {
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        self.trace.disk(operation);
        None
    }
}
