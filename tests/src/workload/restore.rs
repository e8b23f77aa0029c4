//! `udbctl restore` into a new folder, and the times of records from `udbctl wal inspect`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::NAMESPACE;
use crate::build;

/// Where a restore is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// After this record.
    Lsn(u64),
    /// Before this record.
    BeforeLsn(u64),
    /// After the last record at or before this time.
    Time(String),
    /// After the last record before this time.
    BeforeTime(String),
    /// After the last record there is.
    Latest,
}

impl Target {
    fn flags(&self) -> Vec<String> {
        match self {
            Target::Lsn(n) => vec!["--to-lsn".into(), n.to_string()],
            Target::BeforeLsn(n) => vec!["--to-lsn".into(), n.to_string(), "--exclusive".into()],
            Target::Time(t) => vec!["--to-time".into(), t.clone()],
            Target::BeforeTime(t) => vec!["--to-time".into(), t.clone(), "--exclusive".into()],
            Target::Latest => vec!["--to-latest".into()],
        }
    }
}

/// What a restore says that it did.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The last record restored.
    pub lsn: u64,
    /// The state's digest there.
    pub digest: String,
    /// All that it printed.
    pub report: Value,
}

/// Where a restore takes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The folder with snapshots and segments.
    pub from: PathBuf,
    /// Folders with segments.
    pub wal: Vec<PathBuf>,
    /// The history to follow, when it is not the newest.
    pub lineage: Option<String>,
}

/// Restores into the data directory `into`.
///
/// # Panics
/// When it fails, with all it said.
pub fn restore(into: &Path, Sources { from, wal, lineage }: &Sources, target: &Target) -> Restored {
    let mut command = Command::new(build::udbctl());
    command
        .args(["restore", "--json", "--namespace", NAMESPACE, "--data-dir"])
        .arg(into);
    command.arg("--from").arg(from);
    for folder in wal {
        command.arg("--wal").arg(folder);
    }
    if let Some(lineage) = lineage {
        command.args(["--lineage", lineage]);
    }
    command.args(target.flags());
    let report = json(command).pop().expect("it prints what it did");
    let done = &report["restored"];
    Restored {
        lsn: done["lsn"]
            .as_u64()
            .unwrap_or_else(|| panic!("no lsn: {report}")),
        digest: done["digest"]
            .as_str()
            .unwrap_or_else(|| panic!("no digest: {report}"))
            .to_owned(),
        report,
    }
}

/// `udbctl verify`: nothing in these folders is missing, swapped, altered or foreign.
///
/// # Panics
/// When something is, with all it said.
pub fn verify(folders: &[&Path]) {
    let mut command = Command::new(build::udbctl());
    command.args(["verify", "--json"]).args(folders);
    json(command);
}

/// The stamp of each of these records, out of the segments in `folder`.
///
/// # Panics
/// When one is in none of them.
pub fn times(folder: &Path, wanted: &[u64]) -> BTreeMap<u64, String> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .collect();
    files.sort();
    let mut times = BTreeMap::new();
    for whole in inspect(&files, &[]) {
        let (first, last) = (whole["firstLsn"].as_u64(), whole["lastLsn"].as_u64());
        let within =
            |lsn: &u64| first.is_some_and(|n| n <= *lsn) && last.is_some_and(|n| *lsn <= n);
        if !wanted.iter().any(within) {
            continue;
        }
        let file = PathBuf::from(whole["file"].as_str().expect("a file"));
        // Each record, then the segment again.
        for record in inspect(&[file], &["--records"]) {
            if let (Some(lsn), Some(time)) = (record["lsn"].as_u64(), record["time"].as_str())
                && wanted.contains(&lsn)
            {
                times.insert(lsn, time.to_owned());
            }
        }
    }
    for lsn in wanted {
        assert!(
            times.contains_key(lsn),
            "record {lsn} is in no segment of {}",
            folder.display()
        );
    }
    times
}

fn inspect(files: &[PathBuf], more: &[&str]) -> Vec<Value> {
    let mut command = Command::new(build::udbctl());
    command
        .args(["wal", "inspect", "--json"])
        .args(more)
        .args(files);
    json(command)
}

/// The objects that it prints, one a line.
fn json(mut command: Command) -> Vec<Value> {
    let out = command.output().expect("udbctl can be run");
    let text = String::from_utf8_lossy(&out.stdout);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{command:?}: {}\n{text}\n{said}",
        out.status
    );
    let line = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{command:?}: {e}: {line}"))
    };
    text.lines().map(line).collect()
}

/// A time between two stamps, not the later one: in the middle where they have a second in common.
pub fn between(earlier: &str, later: &str) -> String {
    let split = |t: &str| -> Option<(String, u64)> {
        let (second, rest) = t.split_once('.')?;
        let digits = rest.strip_suffix('Z').filter(|d| d.len() == 6)?;
        Some((second.to_owned(), digits.parse().ok()?))
    };
    match (split(earlier), split(later)) {
        (Some((a, from)), Some((b, to))) if a == b => format!("{a}.{:06}Z", from + (to - from) / 2),
        _ => earlier.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_between_two_stamps_is_never_the_later_one() {
        let at = |micros| format!("2025-01-08T14:30:00.{micros:06}Z");
        assert_eq!(between(&at(10), &at(20)), at(15));
        assert_eq!(between(&at(10), &at(11)), at(10));
        assert_eq!(between(&at(10), "2025-01-08T14:30:01.000000Z"), at(10));
    }
}
