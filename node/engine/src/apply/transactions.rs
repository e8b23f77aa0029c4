//! Transactions are state (D14): what they stage lies in the log and under their own keys, out of
//! every reader's sight, until the commit makes it visible in one record.

use std::collections::BTreeSet;

use bytes::Bytes;
use unisondb_types::{AbortReason, EntryType, Key, Op, Outcome, TxId, TxOperation, codec, limits};

use super::draft::Draft;
use crate::Error;
use crate::engine::decode as decoded;
use crate::state::rows::{Manifest, StagedOps, TxEndRow, TxEnded, TxRow};
use crate::state::table::{self, Table};

/// Old ends that one record trims: more than one record adds.
const TRIM: usize = 4;

impl Draft<'_> {
    pub(super) fn begin(
        &mut self,
        id: &TxId,
        operation: TxOperation,
        entry_type: EntryType,
    ) -> Result<Outcome, Error> {
        let row = TxRow {
            operation,
            entry_type,
            begun: self.stamp,
            touched: self.stamp,
            ops: 0,
            bytes: 0,
            lob: None,
        };
        if self.put(table::tx(id), &codec::encode(&row))?.is_none() {
            self.position().open_transactions += 1;
        }
        Ok(Outcome::Begun(*id))
    }

    pub(super) fn stage(&mut self, id: &TxId, ops: Vec<Op>) -> Result<Outcome, Error> {
        let Some(mut row) = self.open_tx(id)? else {
            return self.not_open(id);
        };
        if let Some(op) = ops.iter().find(|op| !fits(op, &row)) {
            let (entry_type, deletes) = kind(op);
            let doing = if deletes { "a delete" } else { "a put" };
            let reason = format!(
                "the transaction was begun for {} of entries of type {}; {doing} of type \
                 {entry_type} does not fit",
                row.operation, row.entry_type
            );
            return Ok(Outcome::TxMisfit { reason });
        }
        let staged = codec::encode(&StagedOps(ops.clone()));
        row.ops += ops.len() as u64;
        row.bytes += staged.len() as u64;
        // The leader has looked before, but many may look at once. Constants: alike everywhere.
        if row.ops > limits::ITEMS as u64 || row.bytes > limits::TRANSACTION_BYTES {
            let reason = format!(
                "a transaction has at most {} operations and {} bytes besides object chunks",
                limits::ITEMS,
                limits::TRANSACTION_BYTES
            );
            return Ok(Outcome::TxTooLarge { reason });
        }
        row.touched = self.stamp;
        self.put(table::tx_op(id, self.lsn), &staged)?;
        self.put(table::tx(id), &codec::encode(&row))?;
        Ok(Outcome::Staged)
    }

    pub(super) fn chunk(&mut self, id: &TxId, key: &Key, data: &[u8]) -> Result<Outcome, Error> {
        let Some(mut row) = self.open_tx(id)? else {
            return self.not_open(id);
        };
        if row.entry_type != EntryType::Lob || row.operation == TxOperation::Delete {
            let reason = "the transaction does not write a large object".to_owned();
            return Ok(Outcome::TxMisfit { reason });
        }
        let (name, mut manifest) = row
            .lob
            .take()
            .unwrap_or_else(|| (key.clone(), Manifest::empty(*id)));
        if name != *key {
            let reason = "a transaction writes one large object; this chunk names another key";
            return Ok(Outcome::TxMisfit {
                reason: reason.to_owned(),
            });
        }
        if !data.is_empty() {
            self.put(table::chunk(id, manifest.len), data)?;
            manifest.push(data);
        }
        row.lob = Some((name, manifest));
        row.touched = self.stamp;
        self.put(table::tx(id), &codec::encode(&row))?;
        Ok(Outcome::Staged)
    }

    pub(super) fn commit(&mut self, id: &TxId) -> Result<Outcome, Error> {
        let Some(row) = self.open_tx(id)? else {
            return self.not_open(id);
        };
        let mut processed = 0;
        for key in self.staged(id)? {
            let Some(entry) = self.get(&key)? else {
                continue;
            };
            let staged: StagedOps = decoded(&key, &entry.payload)?;
            processed += self.ops(staged.0)?;
        }
        let mut checksum = None;
        if let Some((key, manifest)) = &row.lob {
            let name = table::lob(key);
            if let Some(old) = self.get(&name)? {
                self.free(&decoded(&name, &old.payload)?)?;
            }
            self.put(name, &codec::encode(manifest))?;
            checksum = Some(manifest.crc32c);
            processed += 1;
        }
        self.end(id, TxEnded::Committed)?;
        Ok(Outcome::Committed {
            checksum,
            processed,
        })
    }

    pub(super) fn abort(&mut self, id: &TxId, reason: AbortReason) -> Result<Outcome, Error> {
        let Some(row) = self.open_tx(id)? else {
            return self.not_open(id);
        };
        if let Some((_, manifest)) = &row.lob {
            self.free(manifest)?;
        }
        self.end(
            id,
            match reason {
                AbortReason::Client => TxEnded::Aborted,
                AbortReason::Expired | AbortReason::Lineage => TxEnded::Expired,
            },
        )?;
        Ok(Outcome::Aborted)
    }

    pub(super) fn abort_for_lineage(&mut self, id: &TxId) -> Result<(), Error> {
        self.abort(id, AbortReason::Lineage).map(drop)
    }

    fn open_tx(&self, id: &TxId) -> Result<Option<TxRow>, Error> {
        let key = table::tx(id);
        self.get(&key)?
            .map(|e| decoded(&key, &e.payload))
            .transpose()
    }

    /// What to say of a transaction that is not open.
    fn not_open(&self, id: &TxId) -> Result<Outcome, Error> {
        let key = table::tx_end(id);
        let Some(entry) = self.get(&key)? else {
            return Ok(Outcome::TxUnknown);
        };
        let row: TxEndRow = decoded(&key, &entry.payload)?;
        Ok(match row.how {
            TxEnded::Committed => Outcome::TxFinished { committed: true },
            TxEnded::Aborted => Outcome::TxFinished { committed: false },
            TxEnded::Expired => Outcome::TxExpired,
        })
    }

    /// The keys of what a transaction has staged, oldest first.
    fn staged(&self, id: &TxId) -> Result<BTreeSet<Bytes>, Error> {
        let first = table::tx_op(id, unisondb_types::Lsn::ZERO);
        let prefix = first.slice(..17);
        self.keys(&prefix, &table::behind(&prefix))
    }

    fn end(&mut self, id: &TxId, how: TxEnded) -> Result<(), Error> {
        for key in self.staged(id)? {
            self.remove(key)?;
        }
        self.remove(table::tx(id))?;
        self.position().open_transactions -= 1;
        let row = TxEndRow {
            how,
            stamp: self.stamp,
        };
        self.put(table::tx_end(id), &codec::encode(&row))?;
        self.put(table::tx_end_order(self.stamp, id), &[])?;
        self.trim_ends()
    }

    fn trim_ends(&mut self) -> Result<(), Error> {
        for _ in 0..TRIM {
            let Some(oldest) = self.oldest(Table::TxEndOrder)? else {
                return Ok(());
            };
            let Some((stamp, id)) = table::ordered(&oldest) else {
                return Ok(());
            };
            if self.stamp.micros_since(stamp) <= limits::TRANSACTION_MEMORY_MICROS {
                return Ok(());
            }
            if let Ok(id) = id.try_into() {
                self.remove(table::tx_end(&TxId::from_bytes(id)))?;
            }
            self.remove(oldest)?;
        }
        Ok(())
    }
}

/// Whether an operation is of the kind that the transaction was opened for.
fn fits(op: &Op, row: &TxRow) -> bool {
    let (entry_type, deletes) = kind(op);
    entry_type == row.entry_type && deletes == (row.operation == TxOperation::Delete)
}

/// Of what an operation is, and whether it deletes.
fn kind(op: &Op) -> (EntryType, bool) {
    match op {
        Op::KvPut { .. } => (EntryType::Kv, false),
        Op::KvDelete { .. } => (EntryType::Kv, true),
        Op::RowPut { .. } => (EntryType::Row, false),
        Op::RowDelete { .. } | Op::RowDeleteColumns { .. } => (EntryType::Row, true),
        Op::LobDelete { .. } => (EntryType::Lob, true),
    }
}
