//! Walking a tree from its first entry to its last, each page once.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::meta::{Tree, u64_at};
use super::page::{Page, Value};
use super::{Error, Image};
use crate::Source;

/// An entry of an image. Both fields may share the bytes of their page: copy what is kept long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// The entries of an image, in key order.
pub struct Iter<'i, S>(Option<Walk<'i, S>>);

impl<'i, S: Source> Iter<'i, S> {
    pub(super) fn new(walk: Walk<'i, S>) -> Iter<'i, S> {
        Iter(Some(walk))
    }
}

impl<S: Source> Iterator for Iter<'_, S> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.0.as_mut()?.step();
        match step {
            Ok(Some((_, entry))) => return Some(Ok(entry)),
            Ok(None) => self.0 = None,
            Err(e) => {
                self.0 = None;
                return Some(Err(e));
            }
        }
        None
    }
}

impl<S> fmt::Debug for Iter<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Iter")
    }
}

/// Whether a walk reads values that lie on pages of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Read,
    Skip,
}

/// A walk under way.
pub(super) struct Walk<'i, S> {
    image: &'i Image<S>,
    tree: Tree,
    values: Values,
    /// From the root down; the last is the leaf, once one has been reached.
    path: Vec<Step>,
    begun: bool,
    seen: Seen,
    entries: u64,
}

/// One page on the path, and which of its nodes comes next.
struct Step {
    number: u64,
    page: Page,
    next: usize,
    /// All keys below are at least this, if there is a lower neighbour …
    from: Option<Bytes>,
    /// … and lower than this, if there is a higher one.
    to: Option<Bytes>,
}

impl<'i, S: Source> Walk<'i, S> {
    pub(super) fn new(image: &'i Image<S>, tree: Tree, values: Values) -> Walk<'i, S> {
        Walk {
            image,
            tree,
            values,
            path: Vec::new(),
            begun: false,
            seen: Seen::default(),
            entries: 0,
        }
    }

    /// Goes on from what another walk has seen: no page belongs to both.
    pub(super) fn having_seen(mut self, seen: Seen) -> Walk<'i, S> {
        self.seen = seen;
        self
    }

    pub(super) fn into_seen(self) -> Seen {
        self.seen
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry, and the number of its leaf; `None` after the last.
    pub(super) fn step(&mut self) -> Result<Option<(u64, Entry)>, Error> {
        if !self.begun {
            self.begun = true;
            if let Some(root) = self.tree.root {
                self.descend(0, root, None, None)?;
            }
        }
        loop {
            let level = self.path.len();
            let Some(step) = self.path.last_mut() else {
                return self.end().map(|()| None);
            };
            let i = step.next;
            if i == step.page.len() {
                self.path.pop();
                continue;
            }
            step.next += 1;
            if level < usize::from(self.tree.depth) {
                let key = |i: usize| (i < step.page.len()).then(|| step.page.key_bytes(i));
                let from = if i == 0 { step.from.clone() } else { key(i) };
                let to = key(i + 1).or_else(|| step.to.clone());
                let (parent, child) = (step.number, step.page.child(i));
                self.descend(parent, child, from, to)?;
                continue;
            }
            let (leaf, key, value) = (step.number, step.page.key_bytes(i), step.page.value(i));
            let value = self.value(leaf, &value)?;
            self.entries += 1;
            return Ok(Some((leaf, Entry { key, value })));
        }
    }

    /// Notes that `from` names page `number`, which nothing else may.
    pub(super) fn see(&mut self, from: u64, number: u64) -> Result<(), Error> {
        if self.seen.insert(number) {
            return Ok(());
        }
        let why = format!("names page {number}, which is in use elsewhere");
        Err(Error::corrupted(from, why))
    }

    fn descend(
        &mut self,
        parent: u64,
        number: u64,
        from: Option<Bytes>,
        to: Option<Bytes>,
    ) -> Result<(), Error> {
        self.see(parent, number)?;
        // A tree is at most 32 deep, and a path stops at its depth.
        let level = u16::try_from(self.path.len() + 1).expect("a path has at most 32 steps");
        let page = self.image.tree_page(number, self.tree, level)?;
        // A branch's first key is not looked at.
        let first = usize::from(level < self.tree.depth);
        let low = from.as_ref().is_some_and(|from| {
            first < page.len() && page.compare(&page.key_bytes(first), from) == Ordering::Less
        });
        let high = to.as_ref().is_some_and(|to| {
            page.compare(&page.key_bytes(page.len() - 1), to) != Ordering::Less
                && page.len() > first
        });
        if low || high {
            let why = "has keys that belong on another page";
            return Err(Error::corrupted(number, why));
        }
        self.path.push(Step {
            number,
            page,
            next: 0,
            from,
            to,
        });
        Ok(())
    }

    fn value(&mut self, leaf: u64, value: &Value) -> Result<Bytes, Error> {
        if let Value::Overflow { first, len } = *value {
            let pages = self.image.overflow_pages(leaf, first, len)?;
            for number in first..first + pages {
                self.see(leaf, number)?;
            }
            if self.values == Values::Skip {
                return Ok(Bytes::new());
            }
        }
        self.image.value_bytes(leaf, value)
    }

    fn end(&self) -> Result<(), Error> {
        let (found, said) = (self.entries, self.tree.entries);
        if found == said {
            return Ok(());
        }
        // The meta page that LMDB would use for this commit.
        let page = self.image.meta.commit % 2;
        Err(Error::corrupted(
            page,
            format!("says that there are {said} entries, {found} were found"),
        ))
    }
}

/// The page numbers in an entry of the list of free pages: a count, then so many numbers, highest
/// first (`MDB_IDL`). Room behind them may be left over.
pub(super) fn free_list(page: u64, value: &[u8], into: &mut Vec<u64>) -> Result<(), Error> {
    into.clear();
    let room = value.len() / 8;
    let count = (room > 0).then(|| u64_at(value, 0));
    let count = count.and_then(|c| usize::try_from(c).ok());
    let count = count.filter(|&c| c < room && value.len().is_multiple_of(8));
    let Some(count) = count else {
        return Err(Error::corrupted(page, "has a broken list of free pages"));
    };
    into.extend((1..=count).map(|i| u64_at(value, 8 * i)));
    if into.windows(2).any(|w| w[0] <= w[1]) {
        return Err(Error::corrupted(page, "has free pages out of order"));
    }
    Ok(())
}

/// A set of page numbers, as large as what is in it and no larger.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bits of 4,096 pages by the pages' number / 4,096.
    blocks: BTreeMap<u64, Box<[u64; 64]>>,
    count: u64,
}

impl Seen {
    /// Whether it was not there yet.
    fn insert(&mut self, number: u64) -> bool {
        let block = self.blocks.entry(number / 4_096);
        let word = &mut block.or_insert_with(|| Box::new([0; 64]))[word(number)];
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// How many are at or above `from`.
    pub(super) fn count_from(&self, from: u64) -> u64 {
        let blocks = self.blocks.range(from / 4_096..);
        blocks
            .flat_map(|(block, words)| {
                let numbers = block * 4_096..(block + 1) * 4_096;
                numbers.filter(|&n| n >= from && words[word(n)] & (1 << (n % 64)) != 0)
            })
            .count() as u64
    }
}

/// Which word of its block holds the bit of `number`.
fn word(number: u64) -> usize {
    usize::try_from(number % 4_096 / 64).expect("less than 64")
}
