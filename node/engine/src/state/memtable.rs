//! The memtable: what has been applied and is not yet in LMDB.
//!
//! Two generations: `active` takes changes, `frozen` is being written to LMDB. A reader looks at
//! active, then frozen, then the store. Both are persistent maps (`imbl`), so a reader that wants
//! one moment clones them in constant time while the applier goes on.
//!
//! Invariant: every change after `flushed` is in one of the two; `flushed` moves only after the
//! LMDB commit that holds it.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use unisondb_types::{LineageRecord, Lsn};

use super::position::Position;

/// What an entry costs in memory besides its bytes: map node, two handles, allocations.
const ENTRY_OVERHEAD: usize = 128;

/// Changes by key: the entry's bytes, or `None` where it was removed.
pub type Changes = OrdMap<Bytes, Option<Bytes>>;

/// A run of changes, and where the state stands with them.
#[derive(Clone)]
pub struct Frozen {
    /// The changes.
    pub changes: Changes,
    /// The position after the last of them.
    pub position: Position,
    /// The history at that position.
    pub history: Arc<LineageRecord>,
    /// Their size in memory, about.
    pub bytes: usize,
}

/// The state above LMDB. Kept behind one lock.
pub struct Memtable {
    /// Takes changes.
    pub active: Changes,
    /// Being flushed.
    pub frozen: Option<Arc<Frozen>>,
    /// Where the applied state stands.
    pub position: Position,
    /// The history at that position.
    pub history: Arc<LineageRecord>,
    /// The last LSN that is in LMDB, synced.
    pub flushed: Lsn,
    /// Size of `active` in memory, about.
    pub active_bytes: usize,
}

impl Memtable {
    /// Nothing above LMDB, which stands at `position`.
    pub fn new(position: Position, history: Arc<LineageRecord>) -> Memtable {
        Memtable {
            active: OrdMap::new(),
            frozen: None,
            flushed: position.lsn,
            position,
            history,
            active_bytes: 0,
        }
    }

    /// What is known here of `key`: `None` when LMDB must be asked, `Some(None)` when removed.
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        if let Some(found) = self.active.get(key) {
            return Some(found.clone());
        }
        self.frozen
            .as_ref()
            .and_then(|f| f.changes.get(key).cloned())
    }

    /// Takes the changes of one record, all at once for every reader.
    pub fn take(
        &mut self,
        changes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>,
        position: Position,
    ) {
        debug_assert!(
            position.lsn >= self.position.lsn,
            "the applied position never goes back"
        );
        for (key, value) in changes {
            let key_len = key.len();
            let new = value.as_ref().map_or(0, Bytes::len);
            match self.active.insert(key, value) {
                None => self.active_bytes += ENTRY_OVERHEAD + key_len + new,
                Some(old) => {
                    let old = old.as_ref().map_or(0, Bytes::len);
                    self.active_bytes = (self.active_bytes + new).saturating_sub(old);
                }
            }
        }
        self.position = position;
    }

    /// The generation to flush next: the frozen one if there is one, otherwise the active one,
    /// frozen now. `None` when LMDB has all.
    pub fn freeze(&mut self) -> Option<Arc<Frozen>> {
        if self.frozen.is_none() && self.position.lsn > self.flushed {
            self.frozen = Some(Arc::new(Frozen {
                changes: std::mem::take(&mut self.active),
                position: self.position.clone(),
                history: self.history.clone(),
                bytes: std::mem::take(&mut self.active_bytes),
            }));
        }
        self.frozen.clone()
    }

    /// The frozen generation is in LMDB.
    pub fn thawed(&mut self) {
        let frozen = self
            .frozen
            .take()
            .expect("only a frozen generation is flushed");
        self.flushed = frozen.position.lsn;
    }

    /// Size in memory, about.
    pub fn bytes(&self) -> usize {
        self.active_bytes + self.frozen.as_ref().map_or(0, |f| f.bytes)
    }
}
