//! [`Side`]: one namespace of a run as the harness follows it: what its clients were told, and what its
//! log has shown. The operator works on the first of [`NAMESPACES`](super::NAMESPACES); what happens
//! there must leave the other one as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use unisondb_platform::memory::MemoryDisk;

use super::SCRATCH;
use super::node::Node;
use crate::invariants::{self, Seen};
use crate::oracle::history::{Answer, acknowledged, holds};
use crate::oracle::log::{Id, What};
use crate::oracle::truth::{Shown, Truth, hex};
use crate::workload::client::Shared;

#[derive(Clone)]
pub struct Side {
    pub shared: Shared,
    pub truth: Arc<Mutex<Truth>>,
    /// The lineages that it has lived in, in order.
    epochs: Arc<Mutex<Vec<Id>>>,
    /// The newest record that each node's log had, by lineage.
    ends: Arc<Mutex<BTreeMap<(String, Id), u64>>>,
}

impl Side {
    pub fn new(shared: Shared) -> Side {
        Side {
            shared,
            truth: Arc::default(),
            epochs: Arc::default(),
            ends: Arc::default(),
        }
    }

    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    fn is_alone(&self) -> bool {
        self.shared.setting.nodes == 1
    }

    /// Reads what its log on a node's disk shows, and showed in segments `removed` since; what is wrong, in
    /// words.
    pub fn collect(
        &self,
        node: &Node,
        disk: &MemoryDisk,
        removed: &[(PathBuf, Vec<u8>)],
    ) -> Vec<String> {
        let mut truth = self.truth.lock();
        let shown = match self.is_alone() {
            true => Shown::All,
            false => Shown::Committed,
        };
        if !self.is_alone() {
            self.look_for_gap(node);
        }
        let mut wrong = truth.collect_removed(removed, self.namespace());
        wrong.extend(truth.collect(&node.name, disk, self.namespace(), shown));
        wrong
    }

    /// A log that begins behind where it ended was begun anew behind a snapshot.
    fn look_for_gap(&self, node: &Node) {
        let log = node.log(self.namespace());
        let Some(newest) = log.iter().max_by_key(|l| l.2.id) else {
            return;
        };
        let own = log.iter().filter(|l| l.2.lineage == newest.2.lineage);
        let lsns = own.flat_map(|l| l.2.records.iter().map(|r| r.lsn));
        let (Some(first), Some(last)) = (lsns.clone().min(), lsns.max()) else {
            return;
        };
        let key = (node.name.clone(), newest.2.lineage);
        let before = self.ends.lock().insert(key, last);
        if before.map_or(first > 1, |before| first > before + 1) {
            let counters = &self.shared.counters;
            counters.add("a node went on from another's snapshot");
        }
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        let history = self.shared.history.lock();
        let answers = history.told.iter().map(|t| &t.what);
        answers
            .filter(|a| matches!(a, Answer::Written { .. }))
            .count()
    }

    /// A node has ended: what was acknowledged is on the medium, or on that of most nodes, whatever else
    /// is not.
    pub fn node_ended(&self, nodes: &[Node], n: usize) -> Vec<String> {
        if self.namespace() == SCRATCH {
            return Vec::new();
        }
        if !self.is_alone() {
            return self.is_on_most(nodes).err().into_iter().collect();
        }
        let node = &nodes[n];
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

    /// The newest write that was acknowledged is on the disks of most nodes.
    fn is_on_most(&self, nodes: &[Node]) -> Result<(), String> {
        let history = self.shared.history.lock();
        let written = history.told.iter().filter_map(|t| match &t.what {
            Answer::Written { lsn, marker } => Some((*lsn, marker, t.lineage)),
            _ => None,
        });
        let Some((lsn, marker, lineage)) = written.max_by_key(|w| w.0) else {
            return Ok(());
        };
        let has = |node: &&Node| {
            let log = node.log(self.namespace());
            let own = log.iter().filter(|l| l.2.lineage == lineage);
            let mut records = own.flat_map(|l| &l.2.records).peekable();
            // What is purged is in the state.
            let is_purged = records.peek().is_some_and(|first| first.lsn > lsn);
            is_purged || records.any(|r| r.lsn == lsn && holds(&r.what, marker))
        };
        let there: Vec<&str> = nodes.iter().filter(has).map(|n| n.name.as_str()).collect();
        // Of one that has lost its disk nobody knows what it had.
        let lost = nodes.iter().filter(|n| n.is_fresh).count();
        match there.len() + lost > nodes.len() / 2 {
            true => Ok(()),
            false => Err(format!(
                "P1: record {lsn} of {} was acknowledged, and is on the disks of {there:?} only",
                self.namespace()
            )),
        }
    }

    /// At the end all nodes have one log; it is the truth to its last record.
    fn have_one_log(&self, nodes: &[Node]) -> Vec<String> {
        let end = |node: &Node| {
            let log = node.log(self.namespace());
            let records = log.iter().flat_map(|l| &l.2.records);
            let last = records.max_by_key(|r| (r.term, r.lsn));
            last.map(|r| (r.lsn, r.term, r.crc))
        };
        let ends: Vec<_> = nodes.iter().map(|n| (n.name.as_str(), end(n))).collect();
        if ends.iter().any(|(_, end)| *end != ends[0].1) {
            return vec![format!(
                "P4: the logs of {} end at different records (LSN, term, checksum): {ends:?}",
                self.namespace()
            )];
        }
        let disk = nodes[0].machine.borrow().disk.clone();
        let mut truth = self.truth.lock();
        truth.collect("at the end", &disk, self.namespace(), Shown::All)
    }

    /// Whether all nodes vote in its group, by what the logs of most say last.
    pub fn is_everywhere(&self, nodes: &[Node]) -> bool {
        let all_vote = |node: &&Node| {
            let log = node.log(self.namespace());
            let records = log.iter().flat_map(|l| &l.2.records);
            let members = records.filter_map(|r| match &r.what {
                What::Members(voters, learners) => Some((r.lsn, voters, learners)),
                _ => None,
            });
            members
                .max_by_key(|m| m.0)
                .is_some_and(|(_, voters, learners)| {
                    voters.len() == 1 && voters[0].len() == nodes.len() && *learners == 0
                })
        };
        nodes.iter().filter(all_vote).count() == nodes.len()
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
    pub fn judge(&self, nodes: &[Node]) -> Vec<String> {
        let node = &nodes[0];
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
        let mut wrong = Vec::new();
        if !self.is_alone() {
            wrong.extend(self.have_one_log(nodes));
        }
        let truth = self.truth.lock();
        if self.namespace() == SCRATCH {
            // What a deleted one's last records were nobody vouches for any more.
            let mut history = self.shared.history.lock();
            let told = &mut history.told;
            told.retain(|t| match t.what {
                Answer::Written { lsn, .. } => lsn <= truth.last(t.lineage),
                _ => true,
            });
        }
        let (log, files) = (node.log(self.namespace()), node.files());
        wrong.extend(invariants::check(&Seen {
            namespace: self.namespace(),
            is_alone: self.is_alone(),
            truth: &truth,
            history: &self.shared.history.lock(),
            operations: &self.shared.operations.all(),
            epochs: &epochs,
            log: &log,
            files: &files,
            counters: &self.shared.counters,
        }));
        let keys = self.shared.setting.keys;
        for node in nodes {
            let found = node.final_state(&truth, lineage, self.namespace(), keys);
            wrong.extend(
                found
                    .into_iter()
                    .map(|what| format!("{}: {what}", node.name)),
            );
        }
        wrong
    }
}
