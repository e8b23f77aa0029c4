//! The world that a node is put into: one thread, a clock, a network and a disk that do as the plan
//! says. [`Machine`] is what outlives a node's crash; [`host`] is what dies with it.

pub mod clock;
pub mod disk;
pub mod host;
pub mod lmdb;
pub mod network;
pub mod offload;

use std::sync::Arc;

use parking_lot::Mutex;
use unisondb_platform::Platform;
use unisondb_platform::memory::{MemoryDisk, MemoryEntropy, Native};

use crate::plan::Setting;
use crate::trace::Trace;
use crate::world::clock::SimClock;
use crate::world::disk::{Removed, Watcher};
use crate::world::offload::SimOffload;

/// Name of the host of a node that is alone.
pub const NODE: &str = "node";
/// Where a node listens to clients, and to other nodes.
pub const PORT: u16 = 8080;
pub const PEER_PORT: u16 = 9080;
/// A node's data directory.
pub const DATA: &str = "/data";

/// Names of the hosts that nodes run on: so many.
pub fn hosts(nodes: u64) -> Vec<String> {
    match nodes {
        1 => vec![NODE.to_owned()],
        _ => (1..=nodes).map(|n| format!("n{n}")).collect(),
    }
}

/// What outlives a crash of the node.
pub struct Machine {
    /// Of the host.
    pub name: String,
    pub disk: MemoryDisk,
    pub clock: Arc<SimClock>,
    /// How often the node was started: each start draws other chances.
    pub boots: u64,
    /// Further flags of the next start.
    pub flags: Vec<String>,
    pub status: Arc<Mutex<host::Status>>,
    /// What the process has seen of itself that must not be.
    pub wrong: Arc<Mutex<Vec<String>>>,
    /// Segments that nobody finds on the disk any more.
    pub removed: Removed,
    trace: Trace,
    seed: u64,
}

impl Machine {
    /// A fresh one, the `number`th of a run.
    pub fn new(setting: &Setting, seed: u64, trace: &Trace, number: usize, name: &str) -> Machine {
        // Machines of one run draw other chances each.
        let seed = seed ^ (number as u64).rotate_left(52);
        let scratch = tempfile::tempdir().expect("the machine below has a temporary folder");
        let disk = MemoryDisk::new(Native::component("db", scratch));
        disk.set_seed(seed);
        let clock = Arc::new(SimClock::new(setting.epoch_seconds));
        Machine {
            name: name.to_owned(),
            disk,
            clock,
            boots: 0,
            flags: Vec::new(),
            status: Arc::default(),
            wrong: Arc::default(),
            removed: Removed::default(),
            trace: trace.clone(),
            seed,
        }
    }

    /// The seams for a command that an operator runs while the node is down.
    pub fn beside(&self) -> Platform {
        let watcher = Arc::new(Watcher::new(&self.name, &self.trace, &self.removed));
        Platform {
            disk: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            entropy: Arc::new(MemoryEntropy::new(self.seed ^ self.boots.rotate_left(20))),
            offload: Arc::new(SimOffload::new(watcher, self.seed)),
            pulse: Arc::default(),
        }
    }

    /// The seams for one boot of the node.
    pub fn boot(&mut self) -> Platform {
        self.boots += 1;
        let watcher = Arc::new(Watcher::new(&self.name, &self.trace, &self.removed));
        self.disk.set_policy(watcher.clone());
        Platform {
            disk: Arc::new(self.disk.clone()),
            clock: self.clock.clone(),
            entropy: Arc::new(MemoryEntropy::new(self.seed ^ self.boots.rotate_left(40))),
            offload: Arc::new(SimOffload::new(watcher, self.seed ^ self.boots)),
            pulse: Arc::default(),
        }
    }
}
