//! [`Side`]: one namespace of a run as the harness follows it: what its clients were told, and what its
//! log has shown. The operator works on the first of [`NAMESPACES`](super::NAMESPACES); what happens
//! there must leave the other one as it is.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use unisondb_platform::memory::MemoryDisk;

use super::node::Node;
use crate::invariants::{self, Seen};
use crate::oracle::history::{Answer, acknowledged};
use crate::oracle::log::Id;
use crate::oracle::truth::{Truth, hex};
use crate::workload::client::Shared;

#[derive(Clone)]
pub struct Side {
    pub shared: Shared,
    pub truth: Arc<Mutex<Truth>>,
    /// The lineages that it has lived in, in order.
    epochs: Arc<Mutex<Vec<Id>>>,
}

impl Side {
    pub fn new(shared: Shared) -> Side {
        Side {
            shared,
            truth: Arc::default(),
            epochs: Arc::default(),
        }
    }

    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// Reads what its log on the disk shows, and showed in segments `removed` since; what is wrong, in
    /// words.
    pub fn collect(&self, disk: &MemoryDisk, removed: &[(PathBuf, Vec<u8>)]) -> Vec<String> {
        let mut truth = self.truth.lock();
        let mut wrong = truth.collect_removed(removed, self.namespace());
        wrong.extend(truth.collect(disk, self.namespace()));
        wrong
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        let history = self.shared.history.lock();
        let answers = history.told.iter().map(|t| &t.what);
        answers
            .filter(|a| matches!(a, Answer::Written { .. }))
            .count()
    }

    /// The node has ended: what was acknowledged is on the medium, whatever else is not.
    pub fn node_ended(&self, node: &Node) -> Vec<String> {
        let Some(lineage) = node.lineage(self.namespace()) else {
            return Vec::new();
        };
        let mut truth = self.truth.lock();
        truth.settle(
            lineage,
            acknowledged(&self.shared.history.lock().told, lineage),
        );
        let committed = truth.committed(lineage);
        let log = node.log(self.namespace());
        let records = log.iter().filter(|l| l.2.lineage == lineage);
        let last = records.filter_map(|l| l.2.records.last()).map(|r| r.lsn);
        let last = last.max().unwrap_or(0);
        truth.cut(lineage, last);
        if last >= committed {
            return Vec::new();
        }
        vec![format!(
            "P1: after the end record {last} is the last of lineage {} of {} on the disk, {committed} was committed",
            hex(&lineage),
            self.namespace()
        )]
    }

    /// A restore in place has led from one lineage to another.
    pub fn restored(&self, before: Id, now: Id) {
        if before == now {
            return;
        }
        let mut epochs = self.epochs.lock();
        if epochs.is_empty() {
            epochs.push(before);
        }
        epochs.push(now);
        self.shared.operations.begin_epoch();
    }

    /// What does not hold of all that was seen.
    pub fn judge(&self, node: &Node) -> Vec<String> {
        let Some(lineage) = node.lineage(self.namespace()) else {
            return vec![format!(
                "nothing was ever written to {}: the run proves nothing",
                self.namespace()
            )];
        };
        let mut epochs = self.epochs.lock().clone();
        if epochs.is_empty() {
            epochs.push(lineage);
        }
        let truth = self.truth.lock();
        let (log, files) = (node.log(self.namespace()), node.files());
        let mut wrong = invariants::check(&Seen {
            namespace: self.namespace(),
            truth: &truth,
            history: &self.shared.history.lock(),
            operations: &self.shared.operations.all(),
            epochs: &epochs,
            log: &log,
            files: &files,
            counters: &self.shared.counters,
        });
        let keys = self.shared.setting.keys;
        wrong.extend(node.final_state(&truth, lineage, self.namespace(), keys));
        wrong
    }
}
