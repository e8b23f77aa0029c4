//! `run`: many seeds, a process each, a progress line, a summary; JSON and JUnit for CI.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{Found, pool};
use crate::page::escape;
use crate::plan::Profile;
use crate::report::Report;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// From seed A to before seed B
    #[arg(long, value_name = "A..B", required_unless_present = "fresh")]
    seeds: Option<String>,
    /// So many seeds from the number that the revision decides
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    fresh: Option<u64>,
    /// The revision, when it is not that of the git repository here
    #[arg(long, value_name = "HASH")]
    revision: Option<String>,
    /// Processes at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    #[arg(long, value_enum, default_value = "swarm")]
    profile: Profile,
    /// Begins no further seed after so many minutes
    #[arg(long)]
    minutes: Option<f64>,
    /// Fails if fewer seeds were run by then
    #[arg(long, value_name = "N", requires = "minutes")]
    least: Option<usize>,
    /// The summary as one line of JSON
    #[arg(long)]
    json: bool,
    /// The findings as JUnit's XML, in this file
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Fails if fewer than so many seeds reach something, or it is reached fewer than 20 times
    #[arg(long)]
    coverage: Option<u64>,
}

impl Options {
    fn range(&self) -> anyhow::Result<(u64, u64)> {
        match (&self.seeds, self.fresh) {
            (Some(seeds), _) => pool::range(seeds),
            (None, count) => {
                let count = count.unwrap_or_default();
                ensure!(count > 0, "--fresh 0 is no seed");
                let from = pool::number_of(self.revision.as_deref())?;
                Ok((from, from + count))
            }
        }
    }
}

/// What a long run over several nodes must have reached.
const REACHED_BY_SEVERAL: &[&str] = &[
    "a broken node was restarted",
    "a key's history was found linearizable",
    "a lost node was replaced",
    "a namespace was deleted",
    "a namespace was made",
    "a node went on from another's snapshot",
    "a record of one leader gave way to another's",
    "a snapshot was archived",
    "a snapshot was taken without a leader",
    "a write was left unknown",
    "an intruder was refused",
    "an unknown write was tried again",
    "another leader wrote",
    "answer 412",
    "answer 503",
    "answer 504",
    "answer 507",
    "btree/backup 500",
    "restores refused as they must be",
    "restores with a base of 50 records or more",
    "segments were archived",
    "wal/backup 500",
];

/// What a long run must have reached.
const REACHED: &[&str] = &[
    "a broken node was restarted",
    "a damaged active segment was refused",
    "a damaged data.mdb was refused",
    "a gap was told",
    "a key's history was found linearizable",
    "a restore began a lineage at the right record",
    "a snapshot was archived",
    "a write was left unknown",
    "an intruder was refused",
    "an unknown write was tried again",
    "answer 412",
    "answer 503",
    "answer 507",
    "btree/backup 500",
    "in-place restore CopyAll",
    "in-place restore KeepLog",
    "in-place restore SnapshotOnly",
    "in-place restore Udbctl",
    "restores refused as they must be",
    "restores with a base of 50 records or more",
    "segments were archived",
    "wal/backup 500",
];

pub fn run(options: &Options) -> anyhow::Result<Found> {
    let (from, to) = options.range()?;
    ensure!(options.jobs > 0, "--jobs is at least 1");
    let begun = pool::now();
    let until = options.minutes.map(|m| Duration::from_secs_f64(m * 60.0));
    let late = || until.is_some_and(|most| begun.elapsed() > most);
    let mut reports: Vec<Report> = Vec::new();
    let mut bad = 0;
    let this = std::env::current_exe().context("this program has a path")?;
    let seeds = (from..to).take_while(|_| !late());
    pool::each(&this, options.profile, seeds, options.jobs, |report| {
        if !report.findings.is_empty() {
            bad += 1;
            eprintln!("\nseed {}: {}", report.seed, report.verdict());
        }
        reports.push(report);
        if reports.len().is_multiple_of(10) {
            eprint!("\r{} seeds, {bad} with findings", reports.len());
        }
        true
    });
    eprintln!();
    reports.sort_by_key(|r| r.seed);
    ensure!(!reports.is_empty(), "no seed was run");
    let summary = Summary::of(&reports, begun.elapsed());
    if let Some(path) = &options.junit {
        std::fs::write(path, junit(&reports)).with_context(|| path.display().to_string())?;
    }
    if options.json {
        println!("{}", summary.json(&reports));
    } else {
        print!("{}", summary.in_words(&reports));
    }
    let mut found = match bad {
        0 => Found::Nothing,
        _ => Found::Something,
    };
    if let Some(least) = options.least.filter(|least| reports.len() < *least) {
        println!(
            "too slow: {} seeds, at least {least} are wanted",
            reports.len()
        );
        found = Found::Something;
    }
    if let Some(seeds) = options.coverage {
        let reached = match options.profile {
            Profile::Cluster => REACHED_BY_SEVERAL,
            _ => REACHED,
        };
        for name in reached {
            let (times, in_seeds) = summary.reached.get(*name).copied().unwrap_or_default();
            if times < 20 || in_seeds < seeds {
                println!("not reached enough: {name:?}, {times} times in {in_seeds} seeds");
                found = Found::Something;
            }
        }
    }
    Ok(found)
}

/// All runs together.
struct Summary {
    wall: Duration,
    simulated_ms: u64,
    records: u64,
    restores: u64,
    inside: u64,
    across: u64,
    faults: BTreeMap<String, u64>,
    /// How often something was reached, and in how many seeds.
    reached: BTreeMap<String, (u64, u64)>,
}

impl Summary {
    fn of(reports: &[Report], wall: Duration) -> Summary {
        let mut summary = Summary {
            wall,
            simulated_ms: 0,
            records: 0,
            restores: 0,
            inside: 0,
            across: 0,
            faults: BTreeMap::new(),
            reached: BTreeMap::new(),
        };
        for report in reports {
            summary.simulated_ms += report.simulated_ms;
            summary.records += report.records;
            summary.restores += report.restores;
            summary.inside += report.inside_segment;
            summary.across += report.across_fork;
            for (name, n) in &report.faults {
                *summary.faults.entry(name.clone()).or_default() += n;
            }
            for (name, n) in report.counters.iter().filter(|(_, n)| **n > 0) {
                let (times, seeds) = summary.reached.entry(name.clone()).or_default();
                *times += n;
                *seeds += 1;
            }
        }
        summary
    }

    fn in_words(&self, reports: &[Report]) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let simulated = self.simulated_ms as f64 / 1e3;
        let wall = self.wall.as_secs_f64();
        let mut line = |text: String| writeln!(out, "{text}").expect("a String takes all");
        line(format!(
            "seeds      {} ({} to {})",
            reports.len(),
            reports[0].seed,
            reports[reports.len() - 1].seed
        ));
        line(format!(
            "simulated  {:.1} h in {wall:.0} s: {:.0} s a second",
            simulated / 3600.0,
            simulated / wall
        ));
        line(format!("records    {}", self.records));
        line(format!(
            "restores   {} compared with the model, {} inside a segment, {} across a fork",
            self.restores, self.inside, self.across
        ));
        line(format!("faults     {} kinds", self.faults.len()));
        self.faults
            .iter()
            .for_each(|(name, n)| line(format!("  {n:>8}  {name}")));
        line("reached    times, in seeds".to_owned());
        self.reached
            .iter()
            .for_each(|(name, (n, s))| line(format!("  {n:>8} {s:>6}  {name}")));
        let bad: Vec<_> = reports.iter().filter(|r| !r.findings.is_empty()).collect();
        line(format!("findings   {} seeds", bad.len()));
        bad.iter()
            .for_each(|r| line(format!("  seed {}: {}", r.seed, r.verdict())));
        out
    }

    fn json(&self, reports: &[Report]) -> serde_json::Value {
        let bad = reports.iter().filter(|r| !r.findings.is_empty());
        json!({
            "seeds": reports.len(), "from": reports[0].seed, "wallSeconds": self.wall.as_secs_f64(),
            "simulatedMs": self.simulated_ms, "records": self.records, "restores": self.restores,
            "insideSegment": self.inside, "acrossFork": self.across, "faults": self.faults,
            "reached": self.reached,
            "findings": bad.map(|r| json!({"seed": r.seed, "findings": r.findings})).collect::<Vec<_>>(),
        })
    }
}

fn junit(reports: &[Report]) -> String {
    let cases = reports.iter().map(|r| {
        let failures = r
            .findings
            .iter()
            .map(|f| format!("<failure message=\"{}\"/>", escape(f)));
        format!(
            "<testcase classname=\"simulation\" name=\"seed {}\">{}</testcase>\n",
            r.seed,
            failures.collect::<String>()
        )
    });
    let bad = reports.iter().filter(|r| !r.findings.is_empty()).count();
    format!(
        "<?xml version=\"1.0\"?>\n<testsuite name=\"unisondb-sim\" tests=\"{}\" failures=\"{bad}\">\n{}</testsuite>\n",
        reports.len(),
        cases.collect::<String>()
    )
}
