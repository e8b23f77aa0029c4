//! [`View`]: the state at one moment, memtable over an LMDB snapshot; and the merge of the three.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use unisondb_store::{Direction, Store};
use unisondb_types::{Digest, Lsn};

use super::memtable::{Changes, Frozen, Memtable};
use crate::Error;

/// The state at one moment. Holds an LMDB read transaction: keep it for a page, not for a client.
pub struct View {
    active: Changes,
    frozen: Option<Arc<Frozen>>,
    store: unisondb_store::View,
    /// The last record in it.
    pub lsn: Lsn,
    /// Its digest.
    pub digest: Digest,
}

/// A change in the memtable.
type Change<'m> = (&'m Bytes, &'m Option<Bytes>);
/// An entry, or why there is none to be had.
type Found = Result<(Bytes, Bytes), Error>;

/// Looks up one entry: the newest value there is.
///
/// # Errors
/// [`Error::Store`] when LMDB fails.
pub fn get(memtable: &RwLock<Memtable>, store: &Store, key: &[u8]) -> Result<Option<Bytes>, Error> {
    if let Some(found) = memtable.read().get(key) {
        return Ok(found);
    }
    // A flush between the two look-ups has moved the entry into LMDB, where it is found now: the
    // snapshot is taken after the miss.
    Ok(store.read()?.get(key)?.map(Bytes::copy_from_slice))
}

impl View {
    /// The state as it is now.
    ///
    /// # Errors
    /// [`Error::Store`] when LMDB fails.
    pub fn now(memtable: &RwLock<Memtable>, store: &Store) -> Result<View, Error> {
        loop {
            let flushed = memtable.read().flushed;
            let snapshot = store.read()?;
            let m = memtable.read();
            // Unchanged: the memtable has all after `flushed`, the snapshot all up to it. (The
            // snapshot may hold the frozen generation already; then both say the same.)
            if m.flushed == flushed {
                return Ok(View {
                    active: m.active.clone(),
                    frozen: m.frozen.clone(),
                    lsn: m.position.lsn,
                    digest: m.position.digest,
                    store: snapshot,
                });
            }
        }
    }

    /// One entry.
    ///
    /// # Errors
    /// [`Error::Store`] when LMDB fails.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if let Some(found) = self.active.get(key) {
            return Ok(found.clone());
        }
        if let Some(found) = self.frozen.as_ref().and_then(|f| f.changes.get(key)) {
            return Ok(found.clone());
        }
        Ok(self.store.get(key)?.map(Bytes::copy_from_slice))
    }

    /// Entries from `from` (included) to `to` (not), in the order asked for.
    pub fn range<'v>(
        &'v self,
        from: &'v [u8],
        to: &'v [u8],
        direction: Direction,
    ) -> impl Iterator<Item = Found> + 'v {
        self.merge(from, to, direction)
    }

    /// The first key from `from` (included) to `to` (not) that is not `gone`; and how many keys, of
    /// removed entries too, were walked over to find it.
    ///
    /// # Errors
    /// [`Error::Store`] when LMDB fails.
    pub fn first(
        &self,
        from: &[u8],
        to: &[u8],
        gone: impl Fn(&Bytes) -> bool,
    ) -> Result<(Option<Bytes>, u64), Error> {
        let mut merge = self.merge(from, to, Direction::Forward);
        loop {
            match merge.next().transpose()? {
                Some((key, _)) if gone(&key) => {}
                found => return Ok((found.map(|(key, _)| key), merge.visited)),
            }
        }
    }

    fn merge<'v>(
        &'v self,
        from: &'v [u8],
        to: &'v [u8],
        direction: Direction,
    ) -> Merge<
        impl Iterator<Item = Change<'v>>,
        impl Iterator<Item = Change<'v>>,
        impl Iterator<Item = Found>,
    > {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let empty = from >= to;
        let active = (!empty).then(|| in_order(&self.active, bounds, direction));
        let frozen = match &self.frozen {
            Some(f) if !empty => Some(in_order(&f.changes, bounds, direction)),
            _ => None,
        };
        let store = (!empty).then(|| self.store.range(bounds.0, bounds.1, direction));
        Merge {
            active: active.into_iter().flatten().peekable(),
            frozen: frozen.into_iter().flatten().peekable(),
            store: store
                .into_iter()
                .flatten()
                .map(|r| {
                    r.map(|(k, v)| (Bytes::copy_from_slice(k), Bytes::copy_from_slice(v)))
                        .map_err(Error::from)
                })
                .peekable(),
            direction,
            visited: 0,
        }
    }
}

fn in_order<'m>(
    map: &'m Changes,
    bounds: (Bound<&'m [u8]>, Bound<&'m [u8]>),
    direction: Direction,
) -> Box<dyn Iterator<Item = Change<'m>> + 'm> {
    let range = map.range::<_, [u8]>(bounds);
    match direction {
        Direction::Forward => Box::new(range),
        Direction::Backward => Box::new(range.rev()),
    }
}

/// Three ordered runs as one: the newest entry of each key, removed ones left out.
struct Merge<A: Iterator, F: Iterator, S: Iterator> {
    active: std::iter::Peekable<A>,
    frozen: std::iter::Peekable<F>,
    store: std::iter::Peekable<S>,
    direction: Direction,
    /// Keys looked at, those of removed entries too.
    visited: u64,
}

impl<'m, A, F, S> Iterator for Merge<A, F, S>
where
    A: Iterator<Item = Change<'m>>,
    F: Iterator<Item = Change<'m>>,
    S: Iterator<Item = Found>,
{
    type Item = Found;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(Err(_)) = self.store.peek() {
                return self.store.next();
            }
            let mut key: Option<Bytes> = None;
            let heads = [
                self.active.peek().map(|(k, _)| *k),
                self.frozen.peek().map(|(k, _)| *k),
                self.store
                    .peek()
                    .and_then(|r| r.as_ref().ok())
                    .map(|(k, _)| k),
            ];
            for head in heads.into_iter().flatten() {
                let nearer = match key.as_ref().map(|k| head.cmp(k)) {
                    None => true,
                    Some(Ordering::Less) => self.direction == Direction::Forward,
                    Some(Ordering::Greater) => self.direction == Direction::Backward,
                    Some(Ordering::Equal) => false,
                };
                if nearer {
                    key = Some(head.clone());
                }
            }
            let key = key?;
            self.visited += 1;
            let from_active = self
                .active
                .next_if(|(k, _)| **k == key)
                .map(|(_, v)| v.clone());
            let from_frozen = self
                .frozen
                .next_if(|(k, _)| **k == key)
                .map(|(_, v)| v.clone());
            let from_store = self
                .store
                .next_if(|r| r.as_ref().is_ok_and(|(k, _)| *k == key))
                .and_then(Result::ok)
                .map(|(_, v)| Some(v));
            let newest = from_active.or(from_frozen).or(from_store).flatten();
            if let Some(value) = newest {
                return Some(Ok((key, value)));
            }
        }
    }
}
