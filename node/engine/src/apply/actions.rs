//! A client's actions: conditions, operations on keys, rows and objects, idempotency keys.

use unisondb_types::{
    Action, ColumnName, Condition, Idempotency, Key, Lsn, Op, Outcome, RowColumns, RowKey, codec,
    limits,
};

use super::draft::Draft;
use crate::Error;
use crate::engine::decode as decoded;
use crate::state::rows::{IdempotencyRow, Manifest, RowHeader};
use crate::state::table::{self, Table};

/// Old entries that one record trims from a table that is kept by age: more than one record adds.
const TRIM: usize = 4;

impl Draft<'_> {
    /// Applies an action, once per idempotency key.
    pub(super) fn user(
        &mut self,
        idempotency: Option<Idempotency>,
        action: Action,
    ) -> Result<(Lsn, Outcome), Error> {
        let Some(idempotency) = idempotency else {
            return Ok((self.lsn, self.act(action)?));
        };
        if let Some(first) = self.remembered(&idempotency)? {
            return Ok(if first.fingerprint == idempotency.fingerprint {
                (first.lsn, first.outcome)
            } else {
                (self.lsn, Outcome::KeyReused)
            });
        }
        let outcome = self.act(action)?;
        self.remember(&idempotency, &outcome)?;
        Ok((self.lsn, outcome))
    }

    fn act(&mut self, action: Action) -> Result<Outcome, Error> {
        match action {
            Action::Write { conditions, ops } => self.write(&conditions, ops),
            Action::Begin {
                id,
                operation,
                entry_type,
            } => self.begin(&id, operation, entry_type),
            Action::Stage { id, ops } => self.stage(&id, ops),
            Action::Chunk { id, key, data } => self.chunk(&id, &key, data.as_bytes()),
            Action::Commit { id } => self.commit(&id),
            Action::Abort { id, reason } => self.abort(&id, reason),
        }
    }

    fn write(&mut self, conditions: &[Condition], ops: Vec<Op>) -> Result<Outcome, Error> {
        for condition in conditions {
            let (key, wanted) = match condition {
                Condition::KvAbsent(k) => (table::kv(k), None),
                Condition::KvAt(k, lsn) => (table::kv(k), Some(*lsn)),
                Condition::RowAbsent(r) => (table::row(r), None),
                Condition::RowAt(r, lsn) => (table::row(r), Some(*lsn)),
                Condition::LobAbsent(k) => (table::lob(k), None),
                Condition::LobAt(k, lsn) => (table::lob(k), Some(*lsn)),
            };
            let found = self.get(&key)?.map(|e| e.lsn);
            if found != wanted {
                return Ok(Outcome::ConditionFailed { found });
            }
        }
        Ok(Outcome::Written {
            processed: self.ops(ops)?,
        })
    }

    /// Does all operations, in order; gives how many.
    pub(super) fn ops(&mut self, ops: Vec<Op>) -> Result<u32, Error> {
        let processed = u32::try_from(ops.len()).unwrap_or(u32::MAX);
        for op in ops {
            match op {
                Op::KvPut { key, value } => {
                    self.put(table::kv(&key), value.as_bytes())?;
                }
                Op::KvDelete { key } => {
                    self.remove(table::kv(&key))?;
                }
                Op::RowPut { row, columns } => self.row_put(&row, &columns)?,
                Op::RowDelete { row } => self.row_delete(&row)?,
                Op::RowDeleteColumns { row, columns } => self.row_delete_columns(&row, &columns)?,
                Op::LobDelete { key } => self.lob_delete(&key)?,
            }
        }
        Ok(processed)
    }

    fn row_put(&mut self, row: &RowKey, columns: &RowColumns) -> Result<(), Error> {
        let mut header = self.row_header(row)?;
        for (name, value) in columns {
            if let Some(replaced) = self.put(table::column(row, name), value.as_bytes())? {
                header = without(header, row, name, replaced)?;
            }
            header.gain(name, value.as_bytes().len());
        }
        self.set_row_header(row, header)
    }

    fn row_delete(&mut self, row: &RowKey) -> Result<(), Error> {
        let header = table::row(row);
        if self.get(&header)?.is_none() {
            return Ok(());
        }
        for key in self.keys(&header, &table::behind(&header))? {
            self.remove(key)?;
        }
        Ok(())
    }

    fn row_delete_columns(&mut self, row: &RowKey, columns: &[ColumnName]) -> Result<(), Error> {
        let before = self.row_header(row)?;
        let mut header = before;
        for name in columns {
            if let Some(removed) = self.remove(table::column(row, name))? {
                header = without(header, row, name, removed)?;
            }
        }
        if header == before {
            return Ok(());
        }
        self.set_row_header(row, header)
    }

    /// A row's header; that of an empty row if it is not there.
    fn row_header(&self, row: &RowKey) -> Result<RowHeader, Error> {
        let key = table::row(row);
        let entry = self.get(&key)?;
        entry.map_or(Ok(RowHeader::default()), |e| decoded(&key, &e.payload))
    }

    /// A row without columns is not there.
    fn set_row_header(&mut self, row: &RowKey, header: RowHeader) -> Result<(), Error> {
        let key = table::row(row);
        if header.columns == 0 {
            self.remove(key)?;
        } else {
            self.put(key, &codec::encode(&header))?;
        }
        Ok(())
    }

    fn lob_delete(&mut self, key: &Key) -> Result<(), Error> {
        let name = table::lob(key);
        let Some(old) = self.get(&name)? else {
            return Ok(());
        };
        let manifest: Manifest = decoded(&name, &old.payload)?;
        self.remove(name)?;
        self.free(&manifest)
    }

    /// The object's chunks belong to nobody any more: the flusher frees them in the background.
    pub(super) fn free(&mut self, manifest: &Manifest) -> Result<(), Error> {
        if manifest.chunks > 0 {
            self.put(table::garbage(&manifest.object), &[])?;
        }
        Ok(())
    }

    fn remembered(&self, idempotency: &Idempotency) -> Result<Option<IdempotencyRow>, Error> {
        let key = table::idempotency(&idempotency.key);
        let Some(entry) = self.get(&key)? else {
            return Ok(None);
        };
        let row: IdempotencyRow = decoded(&key, &entry.payload)?;
        let fresh = self.stamp.micros_since(row.stamp) <= limits::IDEMPOTENCY_MICROS;
        Ok(fresh.then_some(row))
    }

    fn remember(&mut self, idempotency: &Idempotency, outcome: &Outcome) -> Result<(), Error> {
        let key = table::idempotency(&idempotency.key);
        // An expired use of the same key that has not been trimmed yet: its place in the order of
        // ages goes with it.
        if let Some(old) = self.get(&key)? {
            let row: IdempotencyRow = decoded(&key, &old.payload)?;
            self.remove(table::idempotency_order(
                row.stamp,
                idempotency.key.as_bytes(),
            ))?;
            self.position().idempotency_keys -= 1;
        }
        let row = IdempotencyRow {
            fingerprint: idempotency.fingerprint,
            stamp: self.stamp,
            lsn: self.lsn,
            outcome: outcome.clone(),
        };
        self.put(key, &codec::encode(&row))?;
        self.put(
            table::idempotency_order(self.stamp, idempotency.key.as_bytes()),
            &[],
        )?;
        self.position().idempotency_keys += 1;
        self.trim_idempotency()
    }

    fn trim_idempotency(&mut self) -> Result<(), Error> {
        for _ in 0..TRIM {
            let Some(oldest) = self.oldest(Table::IdempotencyOrder)? else {
                return Ok(());
            };
            let Some((stamp, name)) = table::ordered(&oldest) else {
                return Ok(());
            };
            let old = self.stamp.micros_since(stamp) > limits::IDEMPOTENCY_MICROS;
            if !old && self.position().idempotency_keys <= limits::IDEMPOTENCY_KEYS {
                return Ok(());
            }
            let name = unisondb_types::IdempotencyKey::new(bytes::Bytes::copy_from_slice(name))
                .map_err(|e| Error::Damaged {
                    what: "an idempotency key's age".to_owned(),
                    why: e.to_string(),
                })?;
            self.remove(table::idempotency(&name))?;
            self.remove(oldest)?;
            self.position().idempotency_keys -= 1;
        }
        Ok(())
    }
}

/// What a row's header says once the row has lost a column.
fn without(
    header: RowHeader,
    row: &RowKey,
    name: &ColumnName,
    value_bytes: usize,
) -> Result<RowHeader, Error> {
    header
        .lose(name, value_bytes)
        .ok_or_else(|| Error::Damaged {
            what: format!("row \"{}\"", row.as_bytes().escape_ascii()),
            why: format!(
                "its header leaves no room for its column \"{}\"",
                name.as_bytes().escape_ascii()
            ),
        })
}
