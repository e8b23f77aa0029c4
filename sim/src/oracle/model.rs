//! [`Model`]: the state that a log adds up to, by the simplest code that can say it.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{Action, Condition, Id, Op, Record, Space, What};

/// A value and the LSN of the record that wrote it.
type Entry<T> = (T, u64);
/// A row's values by column name.
type Columns = BTreeMap<Vec<u8>, Vec<u8>>;

/// Everything that a client can read, at one LSN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub lsn: u64,
    pub stamp: u64,
    pub kv: BTreeMap<Vec<u8>, Entry<Vec<u8>>>,
    pub rows: BTreeMap<Vec<u8>, Entry<Columns>>,
    pub lobs: BTreeMap<Vec<u8>, Entry<Vec<u8>>>,
    open: BTreeMap<Id, Open>,
    /// Idempotency keys used.
    used: BTreeSet<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    operation: u32,
    entry_type: u32,
    ops: Vec<Op>,
    lob: Option<(Vec<u8>, Vec<u8>)>,
}

const DELETE: u32 = 2;

impl Model {
    /// The state after one record more.
    ///
    /// # Panics
    /// When the record does not follow the one before.
    pub fn apply(&mut self, record: &Record) {
        assert_eq!(record.lsn, self.lsn + 1, "records are applied in order");
        self.lsn = record.lsn;
        self.stamp = record.stamp;
        match &record.what {
            What::User(idempotency, action) => {
                if let Some((key, _)) = idempotency
                    && !self.used.insert(key.clone())
                {
                    return;
                }
                self.act(action);
            }
            // What was begun before a fork is never committed behind it.
            What::Lineage(_) => self.open.clear(),
            What::Seal(_) | What::Check { .. } | What::Members(..) | What::Other(_) => {}
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Write(conditions, ops) => {
                if conditions.iter().all(|c| self.holds(c)) {
                    self.ops(ops);
                }
            }
            Action::Begin(id, operation, entry_type) => {
                let open = Open {
                    operation: *operation,
                    entry_type: *entry_type,
                    ops: Vec::new(),
                    lob: None,
                };
                self.open.insert(*id, open);
            }
            Action::Stage(id, ops) => {
                if let Some(open) = self.open.get_mut(id)
                    && ops.iter().all(|op| open.takes(op))
                {
                    open.ops.extend(ops.iter().cloned());
                }
            }
            Action::Chunk(id, key, data) => {
                let Some(open) = self.open.get_mut(id) else {
                    return;
                };
                if open.entry_type != 2 || open.operation == DELETE {
                    return;
                }
                let (name, bytes) = open.lob.get_or_insert_with(|| (key.clone(), Vec::new()));
                if name == key {
                    bytes.extend_from_slice(data);
                }
            }
            Action::Commit(id) => {
                let Some(open) = self.open.remove(id) else {
                    return;
                };
                self.ops(&open.ops);
                if let Some((key, bytes)) = open.lob {
                    self.lobs.insert(key, (bytes, self.lsn));
                }
            }
            Action::Abort(id) => drop(self.open.remove(id)),
        }
    }

    fn holds(&self, (space, key, wanted): &Condition) -> bool {
        let found = match space {
            Space::Kv => self.kv.get(key).map(|e| e.1),
            Space::Row => self.rows.get(key).map(|e| e.1),
            Space::Lob => self.lobs.get(key).map(|e| e.1),
        };
        found == *wanted
    }

    fn ops(&mut self, ops: &[Op]) {
        let lsn = self.lsn;
        for op in ops {
            match op {
                Op::KvPut(key, value) => drop(self.kv.insert(key.clone(), (value.clone(), lsn))),
                Op::KvDelete(key) => drop(self.kv.remove(key)),
                Op::RowPut(row, columns) => {
                    let there = self.rows.contains_key(row);
                    if columns.is_empty() && !there {
                        continue;
                    }
                    let entry = self.rows.entry(row.clone()).or_default();
                    entry.0.extend(columns.iter().cloned());
                    entry.1 = lsn;
                }
                Op::RowDelete(row) => drop(self.rows.remove(row)),
                Op::RowDeleteColumns(row, names) => {
                    let Some(entry) = self.rows.get_mut(row) else {
                        continue;
                    };
                    let before = entry.0.len();
                    names.iter().for_each(|name| drop(entry.0.remove(name)));
                    if entry.0.len() < before {
                        entry.1 = lsn;
                    }
                    if entry.0.is_empty() {
                        self.rows.remove(row);
                    }
                }
                Op::LobDelete(key) => drop(self.lobs.remove(key)),
            }
        }
    }

    /// What differs from another state, in words; of the first few.
    pub fn differences(&self, other: &Model) -> Vec<String> {
        let mut found = Vec::new();
        compare("key", &self.kv, &other.kv, &mut found);
        compare("row", &self.rows, &other.rows, &mut found);
        compare("object", &self.lobs, &other.lobs, &mut found);
        found.truncate(8);
        found
    }
}

impl Open {
    fn takes(&self, op: &Op) -> bool {
        let (entry_type, deletes) = match op {
            Op::KvPut(..) => (0, false),
            Op::KvDelete(_) => (0, true),
            Op::RowPut(..) => (1, false),
            Op::RowDelete(_) | Op::RowDeleteColumns(..) => (1, true),
            Op::LobDelete(_) => (2, true),
        };
        entry_type == self.entry_type && deletes == (self.operation == DELETE)
    }
}

fn compare<T: PartialEq + std::fmt::Debug>(
    kind: &str,
    want: &BTreeMap<Vec<u8>, Entry<T>>,
    have: &BTreeMap<Vec<u8>, Entry<T>>,
    found: &mut Vec<String>,
) {
    let keys: BTreeSet<_> = want.keys().chain(have.keys()).collect();
    for key in keys {
        let name = key.escape_ascii();
        match (want.get(key), have.get(key)) {
            (Some(want), Some(have)) if want == have => {}
            (Some(want), Some(have)) if want.1 != have.1 => {
                found.push(format!(
                    "{kind} {name} is of record {}, not {}",
                    have.1, want.1
                ));
            }
            (Some(want), Some(_)) => found.push(format!(
                "{kind} {name} of record {} has another value",
                want.1
            )),
            (Some(want), None) => {
                found.push(format!("{kind} {name} of record {} is missing", want.1))
            }
            (None, Some(have)) => found.push(format!(
                "{kind} {name} of record {} should not be there",
                have.1
            )),
            (None, None) => {}
        }
    }
}
