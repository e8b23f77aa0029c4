//! What a run came to: counters of what was reached, faults by kind, and what was found.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::trace::Event;

/// Counts by name.
#[derive(Clone, Default)]
pub struct Counters(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counters {
    pub fn add(&self, name: &str) {
        *self.0.lock().entry(name.to_owned()).or_default() += 1;
    }

    pub fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}

/// One run's result; printed as a line of JSON by the process that ran it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub seed: u64,
    pub hash: String,
    pub simulated_ms: u64,
    pub records: u64,
    pub restores: u64,
    pub inside_segment: u64,
    pub across_fork: u64,
    pub disk_ops: u64,
    pub faults: BTreeMap<String, u64>,
    pub counters: BTreeMap<String, u64>,
    pub findings: Vec<String>,
    pub lines: Vec<String>,
    #[serde(skip)]
    pub events: Vec<Event>,
}

impl Report {
    /// In a line.
    pub fn verdict(&self) -> String {
        match self.findings.first() {
            None => "nothing found".to_owned(),
            Some(first) => {
                let more = self.findings.len() - 1;
                let first: String = first.chars().take(300).collect();
                format!(
                    "{first}{}",
                    if more > 0 {
                        format!(" (and {more} more)")
                    } else {
                        String::new()
                    }
                )
            }
        }
    }

    /// All of it.
    pub fn in_words(&self) -> String {
        let mut out = format!(
            "seed       {}\ntrace      {}\nsimulated  {:.1} s, {} records, {} disk operations\nrestores   {} compared, {} inside a segment, {} across a fork\n",
            self.seed,
            self.hash,
            self.simulated_ms as f64 / 1e3,
            self.records,
            self.disk_ops,
            self.restores,
            self.inside_segment,
            self.across_fork,
        );
        for (name, n) in self.faults.iter().chain(&self.counters) {
            out.push_str(&format!("  {n:>6}  {name}\n"));
        }
        match self.findings.is_empty() {
            true => out.push_str("nothing found\n"),
            false => self
                .findings
                .iter()
                .for_each(|f| out.push_str(&format!("FOUND      {f}\n"))),
        }
        out
    }
}
