//! [`History`]: what clients asked and were told. A write without an answer is unknown: it may be in
//! the log or not (P3); one with an answer is where it was said to be (P1), and a read shows the state
//! of the LSN that it names.

use super::log::{Action, Id, Op, What};
use super::model::Model;
use super::truth::{Truth, hex};

/// A request that was answered with 200.
#[derive(Debug, Clone)]
pub struct Told {
    pub client: String,
    /// Which of its connections it was told on.
    pub connection: u64,
    pub request: String,
    pub lineage: Id,
    pub what: Answer,
}

/// What the answer said.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A write is record `lsn`, and holds this text.
    Written { lsn: u64, marker: Vec<u8> },
    /// An entry of this record has this value; `None`: there is none. Read when at least record
    /// `low` and at most record `high` was applied.
    Read {
        key: Vec<u8>,
        found: Option<(u64, Vec<u8>)>,
        low: u64,
        high: u64,
    },
    /// A page of keys, of one moment between the two records.
    Page {
        items: Vec<(Vec<u8>, Vec<u8>)>,
        low: u64,
        high: u64,
    },
}

/// All that was told in one run.
#[derive(Default)]
pub struct History {
    pub told: Vec<Told>,
    /// Writes whose outcome nobody knows.
    pub unknown: u64,
    pub refused: u64,
}

/// The newest write of a lineage among what was told.
pub fn acknowledged(told: &[Told], lineage: Id) -> u64 {
    let lsns = told.iter().filter_map(|t| match t.what {
        Answer::Written { lsn, .. } if t.lineage == lineage => Some(lsn),
        _ => None,
    });
    lsns.max().unwrap_or(0)
}

impl History {
    /// What was told and is not so.
    pub fn check(&self, truth: &Truth) -> Vec<String> {
        let mut wrong = Vec::new();
        for told in &self.told {
            if let Some(why) = told.check(truth) {
                wrong.push(format!(
                    "{} was told of {}: {why}",
                    told.client, told.request
                ));
            }
        }
        wrong
    }
}

impl Told {
    fn check(&self, truth: &Truth) -> Option<String> {
        match &self.what {
            Answer::Written { lsn, marker } => {
                let Some(record) = truth.record(self.lineage, *lsn) else {
                    return Some(format!(
                        "P1: record {lsn} of lineage {} is nowhere",
                        hex(&self.lineage)
                    ));
                };
                (!holds(&record.what, marker)).then(|| format!("P1: record {lsn} is another one"))
            }
            Answer::Read {
                key,
                found,
                low,
                high,
            } if low > high => Some(format!(
                "P3: it shows record {high}, though {low} had been acknowledged: {} {found:?}",
                key.escape_ascii()
            )),
            Answer::Read {
                key,
                found,
                low,
                high,
            } => self.some_state(truth, *low, *high, |model| {
                match (found, model.kv.get(key)) {
                    (None, there) => there.is_none(),
                    (Some((lsn, value)), Some(there)) => there.1 == *lsn && there.0 == *value,
                    (Some(_), None) => false,
                }
            }),
            Answer::Page { items, low, high } => self.some_state(truth, *low, *high, |model| {
                let there = model.kv.iter().map(|(k, (v, _))| (k, v));
                items.iter().map(|(k, v)| (k, v)).eq(there)
            }),
        }
    }

    /// Whether the answer fits the state after one of these records.
    fn some_state(
        &self,
        truth: &Truth,
        low: u64,
        high: u64,
        fits: impl Fn(&Model) -> bool,
    ) -> Option<String> {
        let mut model = match truth.state(self.lineage, low) {
            Ok(model) => model,
            Err(lsn) => return Some(format!("P1: record {lsn} was applied and is nowhere")),
        };
        loop {
            if fits(&model) {
                return None;
            }
            if model.lsn >= high {
                return Some(format!(
                    "P2, P3: no state between records {low} and {high} shows that"
                ));
            }
            match truth.record(self.lineage, model.lsn + 1) {
                Some(record) => model.apply(record),
                None => {
                    return Some(format!(
                        "P1: record {} was applied and is nowhere",
                        model.lsn + 1
                    ));
                }
            }
        }
    }
}

/// Whether a record holds a text, as an idempotency key or in a value.
pub fn holds(what: &What, marker: &[u8]) -> bool {
    let What::User(idempotency, action) = what else {
        return false;
    };
    let begins = |bytes: &[u8]| bytes.starts_with(marker);
    if idempotency.as_ref().is_some_and(|(key, _)| begins(key)) {
        return true;
    }
    let op = |op: &Op| match op {
        Op::KvPut(_, value) => begins(value),
        Op::RowPut(_, columns) => columns.iter().any(|(_, value)| begins(value)),
        Op::KvDelete(_) | Op::RowDelete(_) | Op::RowDeleteColumns(..) | Op::LobDelete(_) => false,
    };
    match action {
        Action::Write(_, ops) | Action::Stage(_, ops) => ops.iter().any(op),
        Action::Chunk(_, _, data) => begins(data),
        Action::Begin(..) | Action::Commit(_) | Action::Abort(_) => false,
    }
}
