//! Admission: the limits that are looked at before a record is proposed. Applying reads none of
//! these: what is in the log is done, alike on every machine.
//!
//! They are looked at against the state as it is now, so what is in flight counts only once it is
//! applied. A row may pass [`limits::ROW_BYTES`] by what was in flight or staged when it came near;
//! from then on it only shrinks.

use std::sync::atomic::Ordering;

use unisondb_types::{Action, Idempotency, Op, RowColumns, RowKey, TxId, limits};

use crate::Error;
use crate::engine::{Engine, decode};
use crate::state::entry;
use crate::state::rows::{IdempotencyRow, RowHeader};
use crate::state::table;
use crate::state::view;

/// Why an action is not even proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit: 413.
    #[error("{0}")]
    TooLarge(String),
    /// Too much at once: 429.
    #[error("{0}")]
    Overloaded(String),
    /// The namespace has stopped: 503.
    #[error("{0}")]
    Stopped(String),
}

impl Engine {
    /// Whether an action may be proposed: the limits that only a leader checks, before the log. A
    /// request whose key was used before adds nothing: it is let through to its first answer.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was written.
    pub fn admit(&self, action: &Action, key: Option<&Idempotency>) -> Result<(), Refusal> {
        if let Some(reason) = self.stopped() {
            return Err(Refusal::Stopped(reason));
        }
        self.0.counters.ops_received.fetch_add(1, Ordering::Relaxed);
        // What cannot be read here is for the record's own turn, as below.
        if key.is_some_and(|key| self.was_used(key).unwrap_or(false)) {
            return Ok(());
        }
        match action {
            Action::Begin { .. } => {
                let open = self.0.memtable.read().position.open_transactions;
                if open >= limits::OPEN_TRANSACTIONS {
                    return Err(Refusal::Overloaded(format!(
                        "{open} transactions are open, the most that a namespace has"
                    )));
                }
                Ok(())
            }
            Action::Write { ops, .. } if ops.len() > limits::ITEMS => {
                Err(Refusal::TooLarge(format!(
                    "a batch has at most {} items, this one has {}",
                    limits::ITEMS,
                    ops.len()
                )))
            }
            Action::Write { ops, .. } => self.admit_rows(ops),
            Action::Stage { id, ops } => {
                self.admit_stage(id, ops.len())?;
                self.admit_rows(ops)
            }
            _ => Ok(()),
        }
    }

    /// Whether applying would find the key used: the same question as there, of the state as it is.
    fn was_used(&self, idempotency: &Idempotency) -> Result<bool, Error> {
        let key = table::idempotency(&idempotency.key);
        let Some(bytes) = view::get(&self.0.memtable, &self.0.store, &key)? else {
            return Ok(false);
        };
        let row: IdempotencyRow = decode(&key, entry::open(&key, &bytes)?.payload)?;
        let now = self.0.memtable.read().position.stamp;
        Ok(now.micros_since(row.stamp) <= limits::IDEMPOTENCY_MICROS)
    }

    fn admit_stage(&self, id: &TxId, more: usize) -> Result<(), Refusal> {
        let Ok(Some(row)) = self.tx_row(id) else {
            return Ok(());
        };
        if row.ops + more as u64 > limits::ITEMS as u64 {
            return Err(Refusal::TooLarge(format!(
                "a transaction has at most {} operations",
                limits::ITEMS
            )));
        }
        if row.bytes >= limits::TRANSACTION_BYTES {
            return Err(Refusal::TooLarge(format!(
                "a transaction has at most {} bytes besides object chunks",
                limits::TRANSACTION_BYTES
            )));
        }
        Ok(())
    }

    fn admit_rows(&self, ops: &[Op]) -> Result<(), Refusal> {
        for op in ops {
            let Op::RowPut { row, columns } = op else {
                continue;
            };
            // What cannot be read here is for the record's own turn: it stops the namespace there.
            if let Ok(Some(bytes)) = self.too_large_with(row, columns) {
                return Err(Refusal::TooLarge(format!(
                    "a row has at most {} bytes in the names and values of its columns, this one \
                     would have {bytes}; spread it over several rows, or store a large object",
                    limits::ROW_BYTES
                )));
            }
        }
        Ok(())
    }

    /// The bytes that the row would have with `columns`, if it would grow past the limit.
    fn too_large_with(&self, row: &RowKey, columns: &RowColumns) -> Result<Option<u64>, Error> {
        let now = self.row_header(row)?.bytes;
        let mut with = now;
        for (name, value) in columns {
            with += RowHeader::cost(name, value.as_bytes().len());
        }
        // Nearly always there is room, whatever is replaced.
        if with <= limits::ROW_BYTES {
            return Ok(None);
        }
        for (name, _) in columns {
            let key = table::column(row, name);
            if let Some(bytes) = view::get(&self.0.memtable, &self.0.store, &key)? {
                let replaced = entry::open(&key, &bytes)?.payload.len();
                with = with.saturating_sub(RowHeader::cost(name, replaced));
            }
        }
        Ok((with > limits::ROW_BYTES && with > now).then_some(with))
    }

    fn row_header(&self, row: &RowKey) -> Result<RowHeader, Error> {
        let key = table::row(row);
        match view::get(&self.0.memtable, &self.0.store, &key)? {
            Some(bytes) => decode(&key, entry::open(&key, &bytes)?.payload),
            None => Ok(RowHeader::default()),
        }
    }
}
