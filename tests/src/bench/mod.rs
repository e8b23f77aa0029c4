//! Benchmarks: how fast, as ratios to something measured in the same minute on the same machine.
//! The program is `src/bin/bench.rs`; method, goals and results are in `docs/performance.md`.
//!
//! - [`put`]: durable writes against redis and etcd.
//! - [`big`]: a node with a gibibyte: snapshot and WAL backup against `cp`, writes meanwhile, start
//!   after kill -9.
//! - [`replay`]: a restore from the log alone against LMDB in random batches.
//! - [`load`], [`wire`], [`data`]: the load generator. [`peers`]: the servers. [`machine`]: what
//!   else is going on, and what the disk can do. [`stats`]: medians and tables.

use std::path::PathBuf;
use std::time::Duration;

pub mod big;
pub mod cluster;
pub mod data;
pub mod load;
pub mod machine;
pub mod peers;
pub mod put;
pub mod replay;
pub mod stats;
pub mod wire;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Interleaved rounds; the median of them counts.
    pub rounds: usize,
    /// Length of one closed throughput run.
    pub time: Duration,
    /// Longest wait for a quiet machine before a run.
    pub patience: Duration,
    /// State and log of the big node, in MiB.
    pub mebibytes: u64,
    /// Keys of a replay.
    pub keys: u64,
    /// A folder with another `unisondb`, to be measured beside this one.
    pub baseline: Option<PathBuf>,
}
