//! [`Oldest`]: where the tables that are kept by age begin.
//!
//! Trimming takes entries from the front of such a table. Until the next flush each leaves a
//! removal in the memtable over an entry that LMDB still has, and a search from the table's first
//! key would walk over all of them, for every record again. So the search begins where the one
//! before ended.
//!
//! | fact | kept by |
//! | --- | --- |
//! | nothing lies in the table before the place | [`Oldest::found`]: the search found nothing there |
//! | that stays so | [`Oldest::added`]: an entry put before the place moves it back |
//!
//! It is derived from the state and only makes a search shorter: a start without it finds the same.

use bytes::Bytes;

use crate::state::table::Table;

/// Where the search for the oldest entry begins, for each table that is kept by age.
#[derive(Debug, Default)]
pub(super) struct Oldest {
    idempotency: Option<Bytes>,
    ends: Option<Bytes>,
    /// Entries and removals that searches have walked over, since the start.
    pub(super) visited: u64,
}

impl Oldest {
    /// Where to begin; the table's first key if that is not known.
    pub(super) fn of(&mut self, table: Table) -> Bytes {
        let known = self.place(table).and_then(|place| place.clone());
        known.unwrap_or_else(|| table.bounds().0)
    }

    /// The oldest entry of `table` has this key.
    pub(super) fn found(&mut self, table: Table, key: &Bytes) {
        if let Some(place) = self.place(table) {
            *place = Some(key.clone());
        }
    }

    /// An entry was put.
    pub(super) fn added(&mut self, table: Table, key: &Bytes) {
        if let Some(Some(place)) = self.place(table)
            && *key < *place
        {
            *place = key.clone();
        }
    }

    fn place(&mut self, table: Table) -> Option<&mut Option<Bytes>> {
        match table {
            Table::IdempotencyOrder => Some(&mut self.idempotency),
            Table::TxEndOrder => Some(&mut self.ends),
            _ => None,
        }
    }
}
