//! `bench [put|snapshot|wal-backup|replay|start|cluster|idle|all]`: ratios to redis, etcd, `cp` and LMDB, each
//! measured in interleaved rounds of one run. What is measured and why so: `docs/performance.md`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use unisondb_tests::bench::big::Big;
use unisondb_tests::bench::stats::Report;
use unisondb_tests::bench::{Options, cluster, machine, put, replay};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Durable PUTs against redis and etcd.
    Put,
    /// Snapshot against `cp`, and PUTs meanwhile.
    Snapshot,
    /// WAL backup against `cp`.
    WalBackup,
    /// Restore from the log against LMDB.
    Replay,
    /// Start after kill -9.
    Start,
    /// Three nodes: PUTs against three of etcd, a killed leader, idle namespaces.
    Cluster,
    /// Of `cluster` only this: three nodes with 100 idle namespaces, CPU and memory. Takes about two minutes.
    Idle,
    /// All of them.
    All,
}

/// Measures UnisonDB against its peers on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(value_enum, default_value = "all")]
    scenario: Vec<Scenario>,
    /// Folder for the data of all servers: on a real disk, with 10 GiB free
    #[arg(long, default_value = "target/bench-data")]
    dir: PathBuf,
    /// Interleaved rounds; their median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one throughput run
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Longest wait for a quiet machine before each run, in seconds
    #[arg(long, default_value_t = 20.0)]
    patience: f64,
    /// State and log of the big node, in MiB
    #[arg(long, default_value_t = 1_100)]
    mebibytes: u64,
    /// Keys of a replay
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Folder with another build of unisondb, for `put`: measured beside this one, to judge a change
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// JSON on stdout instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = Options {
        rounds: arguments.rounds.max(1),
        time: Duration::from_secs_f64(arguments.seconds),
        patience: Duration::from_secs_f64(arguments.patience),
        mebibytes: arguments.mebibytes,
        keys: arguments.keys,
        baseline: arguments.baseline,
    };
    let wanted = |s| {
        arguments
            .scenario
            .iter()
            .any(|a| *a == s || *a == Scenario::All)
    };
    fs::create_dir_all(&arguments.dir)?;
    let dir = arguments.dir.canonicalize()?;
    // One run, one folder: a killed run's servers never share files with this one's.
    let folder = dir.join(std::process::id().to_string());
    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;

    let before = machine::load_average();
    let mut reports: Vec<Report> = Vec::new();
    if wanted(Scenario::Put) {
        reports.extend(put::run(&options, &folder)?);
    }
    if [Scenario::Snapshot, Scenario::WalBackup, Scenario::Start]
        .iter()
        .any(|s| wanted(*s))
    {
        let mut big = Big::fill(&options, &folder)?;
        // Before the writes of the others grow the log.
        if wanted(Scenario::WalBackup) {
            reports.push(big.wal_backup(&options)?);
        }
        if wanted(Scenario::Snapshot) {
            reports.push(big.snapshot(&options)?);
        }
        if wanted(Scenario::Start) {
            reports.push(big.start(&options)?);
        }
    }
    if wanted(Scenario::Replay) {
        reports.push(replay::run(&options, &folder)?);
    }
    if wanted(Scenario::Cluster) {
        reports.extend(cluster::run(&options, &folder)?);
    } else if wanted(Scenario::Idle) {
        reports.push(cluster::idle(&folder)?);
    }
    fs::remove_dir_all(&folder)?;

    let after = machine::load_average();
    if arguments.json {
        let scenarios: Vec<_> = reports.iter().map(Report::json).collect();
        let all = serde_json::json!({
            "rounds": options.rounds, "seconds": arguments.seconds,
            "loadBefore": before, "loadAfter": after, "scenarios": scenarios,
        });
        println!("{all}");
    } else {
        for report in &reports {
            print!("{}", report.table());
        }
        println!(
            "\nLoad average before: {before}; after: {after}. {} rounds.",
            options.rounds
        );
    }
    Ok(())
}
