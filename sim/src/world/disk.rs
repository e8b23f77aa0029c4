//! [`Watcher`]: sees every operation of a disk: writes it into the trace, counts syncs for
//! [`SimOffload`](super::offload::SimOffload). What goes wrong is injected as rules by the harness.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use unisondb_platform::memory::{Effect, OpKind, Operation, Policy};

use crate::trace::Trace;
use crate::world::NODE;

/// Segments that were removed since somebody last looked: a full volume is made room on at once.
pub type Removed = Arc<Mutex<Vec<(PathBuf, Vec<u8>)>>>;

/// Watches one boot.
pub struct Watcher {
    /// Who is named in the trace.
    who: String,
    trace: Trace,
    removed: Removed,
    syncs: AtomicU64,
}

impl Watcher {
    pub fn new(host: &str, trace: &Trace, removed: &Removed) -> Watcher {
        let who = match host {
            NODE => "disk".to_owned(),
            host => format!("{host}.disk"),
        };
        Watcher {
            who,
            trace: trace.clone(),
            removed: removed.clone(),
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
        self.trace.disk(&self.who, operation);
        None
    }

    fn removed(&self, path: &Path, bytes: &dyn Fn() -> Vec<u8>) {
        if path.extension().is_some_and(|e| e == "wal") {
            self.removed.lock().push((path.to_owned(), bytes()));
        }
    }
}
