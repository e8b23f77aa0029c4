//! [`View`]: the state as one commit left it.

use std::fmt;
use std::ops::Bound;

use heed::types::Bytes;
use heed::{Database, RoRange, RoRevRange, RoTxn, WithoutTls};

use crate::gate::Pass;
use crate::store::KEY_BYTES;
use crate::{Error, Stats};

/// The one database of the environment: bytes to bytes, in order of the keys' bytes.
pub(crate) type Main = Database<'static, Bytes, Bytes>;

/// A consistent read of one commit, for as long as it lives; later commits do not show.
///
/// Owned and `Send`, so it can be carried through an async task. Keep it briefly: pages that it can
/// see are not used again, and the map cannot grow under it.
pub struct View {
    // Dropped in this order: the transaction ends before its pass goes back.
    txn: RoTxn<'static, WithoutTls>,
    db: Main,
    _pass: Pass,
}

/// Which way a [`View::range`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest key up.
    Forward,
    /// From the highest key down.
    Backward,
}

impl View {
    pub(crate) fn new(txn: RoTxn<'static, WithoutTls>, db: Main, pass: Pass) -> View {
        View {
            txn,
            db,
            _pass: pass,
        }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`Error::Corrupted`] when LMDB meets a page that cannot be.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        // No entry has such a key; LMDB would answer with an error.
        if key.is_empty() || key.len() > KEY_BYTES {
            return Ok(None);
        }
        self.db
            .get(&self.txn, key)
            .map_err(|e| Error::lmdb("reading an entry", e))
    }

    /// The entries between two keys, either way. An error is the last item.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, direction: Direction) -> Range<'_> {
        // LMDB knows no empty key, and refuses one as a bound too.
        let from = match from {
            Bound::Included([]) | Bound::Excluded([]) => Bound::Unbounded,
            other => other,
        };
        if matches!(to, Bound::Included([]) | Bound::Excluded([])) {
            return Range(Way::Nowhere);
        }
        let bounds = (from, to);
        let way = match direction {
            Direction::Forward => self.db.range(&self.txn, &bounds).map(Way::Forward),
            Direction::Backward => self.db.rev_range(&self.txn, &bounds).map(Way::Backward),
        };
        Range(way.unwrap_or_else(|e| Way::Failed(Box::new(e))))
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// What LMDB says.
    pub fn entries(&self) -> Result<u64, Error> {
        self.db
            .len(&self.txn)
            .map_err(|e| Error::lmdb("counting entries", e))
    }

    /// Number of the commit that this shows: LMDB's transaction id.
    pub fn commit_number(&self) -> u64 {
        self.txn.id() as u64
    }

    pub(crate) fn fill(&self, stats: &mut Stats) -> Result<(), Error> {
        let stat = self
            .db
            .stat(&self.txn)
            .map_err(|e| Error::lmdb("reading statistics", e))?;
        stats.entries = stat.entries as u64;
        stats.used_pages = (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64;
        Ok(())
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View(commit {})", self.commit_number())
    }
}

/// The entries of a range, in order.
pub struct Range<'v>(Way<'v>);

enum Way<'v> {
    Forward(RoRange<'v, Bytes, Bytes>),
    Backward(RoRevRange<'v, Bytes, Bytes>),
    Failed(Box<heed::Error>),
    Nowhere,
}

impl<'v> Iterator for Range<'v> {
    type Item = Result<(&'v [u8], &'v [u8]), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match &mut self.0 {
            Way::Forward(range) => range.next()?,
            Way::Backward(range) => range.next()?,
            Way::Nowhere => return None,
            Way::Failed(_) => match std::mem::replace(&mut self.0, Way::Nowhere) {
                Way::Failed(e) => Err(*e),
                _ => return None,
            },
        };
        Some(next.map_err(|e| {
            // After an error a cursor's place is unknown: the range ends.
            self.0 = Way::Nowhere;
            Error::lmdb("reading a range", e)
        }))
    }
}

impl fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Range")
    }
}
