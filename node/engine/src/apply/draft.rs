//! [`Draft`]: the changes of one record while they are made. Reads see the draft over the state
//! before it; every change of an entry that counts moves the digest along.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use unisondb_store::Direction;
use unisondb_types::{Lsn, Stamp};

use super::oldest::Oldest;
use crate::Error;
use crate::engine::Shared;
use crate::state::entry::{self, Entry};
use crate::state::position::Position;
use crate::state::table::Table;
use crate::state::view::{self, View};

/// Changed entries, by key.
pub(super) type Changed = BTreeMap<Bytes, Option<Bytes>>;

/// The changes of one record.
pub(super) struct Draft<'a> {
    shared: &'a Shared,
    position: &'a mut Position,
    oldest: &'a mut Oldest,
    changed: Changed,
    /// The record's position.
    pub(super) lsn: Lsn,
    /// The record's stamp.
    pub(super) stamp: Stamp,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        position: &'a mut Position,
        oldest: &'a mut Oldest,
        lsn: Lsn,
        stamp: Stamp,
    ) -> Draft<'a> {
        Draft {
            shared,
            position,
            oldest,
            changed: Changed::new(),
            lsn,
            stamp,
        }
    }

    pub(super) fn position(&mut self) -> &mut Position {
        self.position
    }

    pub(super) fn into_changes(self) -> Changed {
        self.changed
    }

    /// The entry as it is now, checked.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Entry<Bytes>>, Error> {
        let bytes = match self.changed.get(key) {
            Some(changed) => changed.clone(),
            None => view::get(&self.shared.memtable, &self.shared.store, key)?,
        };
        bytes.map(|b| entry::open_shared(key, &b)).transpose()
    }

    /// Sets an entry; gives how long the payload was that it replaces. Whether there was one is
    /// known, and told, only of tables in the digest: the others are written without a look.
    pub(super) fn put(&mut self, key: Bytes, payload: &[u8]) -> Result<Option<usize>, Error> {
        let mut replaced = None;
        let (hash, bytes) = entry::encode(&key, self.lsn, payload);
        if counts(&key) {
            if let Some(old) = self.get(&key)? {
                self.position.digest.remove(&old.hash);
                replaced = Some(old.payload.len());
            }
            self.position.digest.add(&hash);
        }
        if let Some(table) = Table::of(&key) {
            self.oldest.added(table, &key);
        }
        self.changed.insert(key, Some(bytes));
        Ok(replaced)
    }

    /// Removes an entry; gives how long its payload was, if it was there (of tables in the digest).
    pub(super) fn remove(&mut self, key: Bytes) -> Result<Option<usize>, Error> {
        let mut removed = None;
        if counts(&key) {
            let Some(old) = self.get(&key)? else {
                return Ok(None);
            };
            self.position.digest.remove(&old.hash);
            removed = Some(old.payload.len());
        }
        self.changed.insert(key, None);
        Ok(removed)
    }

    /// Keys from `from` (included) to `to` (not), in order. Without their values, of which there
    /// may be more than belongs into memory at once.
    pub(super) fn keys(&self, from: &[u8], to: &[u8]) -> Result<BTreeSet<Bytes>, Error> {
        let view = View::now(&self.shared.memtable, &self.shared.store)?;
        let mut found = BTreeSet::new();
        for item in view.range(from, to, Direction::Forward) {
            found.insert(item?.0);
        }
        for (key, value) in self
            .changed
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
        {
            match value {
                Some(_) => found.insert(key.clone()),
                None => found.remove(key),
            };
        }
        Ok(found)
    }

    /// The oldest key of a table that is kept by age.
    pub(super) fn oldest(&mut self, table: Table) -> Result<Option<Bytes>, Error> {
        let from = self.oldest.of(table);
        let (_, to) = table.bounds();
        let view = View::now(&self.shared.memtable, &self.shared.store)?;
        let gone = |key: &Bytes| matches!(self.changed.get(key), Some(None));
        let (before, visited) = view.first(&from, &to, gone)?;
        let within = (Bound::Included(&from), Bound::Excluded(&to));
        let mut own = self.changed.range::<Bytes, _>(within);
        let own = own
            .find(|(_, value)| value.is_some())
            .map(|(key, _)| key.clone());
        let first = before.into_iter().chain(own).min();
        self.oldest.visited += visited;
        if let Some(key) = &first {
            self.oldest.found(table, key);
        }
        Ok(first)
    }
}

fn counts(key: &[u8]) -> bool {
    Table::of(key).is_some_and(Table::in_digest)
}
