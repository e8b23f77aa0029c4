//! Reads of single entries, rows, pages and transactions.

use bytes::Bytes;
use unisondb_store::Direction;
use unisondb_types::{ColumnName, Key, RowKey, TxId, Value, limits};

use super::{KvEntry, Page, Row, Scan, TxInfo, TxStatus};
use crate::Error;
use crate::engine::{Engine, decode};
use crate::state::entry;
use crate::state::rows::{RowHeader, TxEndRow, TxEnded};
use crate::state::table;
use crate::state::view::{self, View};

impl Engine {
    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its checksum does not match: the namespace stops; [`Error::Store`].
    pub fn kv(&self, key: &Key) -> Result<Option<KvEntry>, Error> {
        let name = table::kv(key);
        let Some(bytes) = self.fetch(&name)? else {
            return Ok(None);
        };
        let e = self.checked(entry::open_shared(&name, &bytes))?;
        Ok(Some(KvEntry {
            lsn: e.lsn,
            value: e.payload,
        }))
    }

    /// A row with all its columns, or with those asked for that it has.
    ///
    /// # Errors
    /// As [`kv`](Self::kv).
    pub fn row(&self, row: &RowKey, columns: Option<&[ColumnName]>) -> Result<Option<Row>, Error> {
        let view = View::now(&self.0.memtable, &self.0.store)?;
        let header = table::row(row);
        let Some(bytes) = view.get(&header)? else {
            return Ok(None);
        };
        let opened = self.checked(entry::open(&header, &bytes))?;
        let lsn = opened.lsn;
        let of_row: RowHeader = self.checked(decode(&header, opened.payload))?;
        let mut found = Vec::new();
        match columns {
            Some(names) => {
                for name in names {
                    let key = table::column(row, name);
                    if let Some(bytes) = view.get(&key)? {
                        let e = self.checked(entry::open_shared(&key, &bytes))?;
                        found.push((name.clone(), Value::new(e.payload)));
                    }
                }
                found.sort_by(|a, b| a.0.cmp(&b.0));
                found.dedup_by(|a, b| a.0 == b.0);
            }
            None => {
                for item in view.range(&header, &table::behind(&header), Direction::Forward) {
                    let (key, bytes) = item?;
                    if let Some(name) = table::column_name(row, &key) {
                        let e = self.checked(entry::open_shared(&key, &bytes))?;
                        found.push((name, Value::new(e.payload)));
                    }
                }
            }
        }
        Ok(Some(Row {
            lsn,
            bytes: of_row.bytes,
            columns: found,
        }))
    }

    /// One page of keys, as they are at one moment.
    ///
    /// # Errors
    /// As [`kv`](Self::kv).
    pub fn scan(&self, scan: &Scan) -> Result<Page, Error> {
        let (from, to) = bounds(scan);
        let direction = if scan.reverse {
            Direction::Backward
        } else {
            Direction::Forward
        };
        let limit = scan.limit.clamp(1, limits::PAGE_ITEMS);
        let view = View::now(&self.0.memtable, &self.0.store)?;
        let mut page = Page {
            items: Vec::new(),
            next: None,
            lsn: view.lsn,
        };
        let mut bytes = 0;
        for item in view.range(&from, &to, direction) {
            let (key, value) = item?;
            let entry = self.checked(entry::open_shared(&key, &value))?;
            if page.items.len() >= limit || bytes >= limits::PAGE_BYTES {
                page.next = page.items.last().map(|(k, _)| k.clone());
                break;
            }
            let Some(name) = table::kv_name(&key) else {
                continue;
            };
            bytes += key.len();
            let value = (!scan.keys_only).then(|| {
                bytes += entry.payload.len();
                entry.payload
            });
            page.items.push((name, value));
        }
        Ok(page)
    }

    /// How a transaction stands.
    ///
    /// # Errors
    /// As [`kv`](Self::kv).
    pub fn transaction(&self, id: &TxId) -> Result<TxStatus, Error> {
        if let Some(row) = self.tx_row(id)? {
            let (lob, lob_bytes) = match row.lob {
                Some((key, manifest)) => (Some(key), manifest.len),
                None => (None, 0),
            };
            return Ok(TxStatus::Open(TxInfo {
                operation: row.operation,
                entry_type: row.entry_type,
                ops: row.ops,
                bytes: row.bytes,
                lob,
                lob_bytes,
                begun: row.begun,
                touched: row.touched,
            }));
        }
        let key = table::tx_end(id);
        let Some(bytes) = self.fetch(&key)? else {
            return Ok(TxStatus::Unknown);
        };
        let end: TxEndRow = decode(&key, self.checked(entry::open(&key, &bytes))?.payload)?;
        Ok(match end.how {
            TxEnded::Committed => TxStatus::Finished { committed: true },
            TxEnded::Aborted => TxStatus::Finished { committed: false },
            TxEnded::Expired => TxStatus::Expired,
        })
    }

    pub(super) fn fetch(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        view::get(&self.0.memtable, &self.0.store, key)
    }

    /// Passes on what was read; damage stops the namespace before anything of it is served (P13).
    pub(super) fn checked<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        if let Err(e @ Error::Damaged { .. }) = &read {
            self.0.stop(&e.to_string());
        }
        read
    }
}

/// The keys that a scan runs over: from (included), to (not).
fn bounds(scan: &Scan) -> (Bytes, Bytes) {
    let prefix = table::kv_bound(&scan.prefix);
    let mut from = prefix.clone();
    let mut to = table::behind(&prefix);
    if let Some(start) = &scan.start {
        from = from.max(table::kv_bound(start));
    }
    if let Some(end) = &scan.end {
        to = to.min(table::kv_bound(end));
    }
    if let Some(after) = &scan.after {
        let after = table::kv(after);
        if scan.reverse {
            to = to.min(after);
        } else {
            // The first key behind `after`.
            let mut next = after.to_vec();
            next.push(0);
            from = from.max(Bytes::from(next));
        }
    }
    (from, to)
}
