//! One page of a tree, with every offset in it checked before it is used.
//!
//! ```text
//! 0 number u64 | 8 pad u16 | 10 flags u16 | 12 lower u16 | 14 upper u16 | 16 offsets u16 … lower
//!              … free … upper | nodes, each: 0 lo u16 | 2 hi u16 | 4 flags u16 | 6 key length u16
//!                                            | 8 key | value (leaf), or page number (overflow)
//! ```

use std::cmp::Ordering;

use bytes::Bytes;

use super::Error;
use super::meta::{Order, Tree, u16_at, u32_at, u64_at};

/// Length of the header of every page, in bytes.
pub(super) const HEADER_BYTES: usize = 16;
/// Length of a node's header, in bytes.
const NODE_BYTES: usize = 8;
const P_BRANCH: u16 = 0x01;
const P_LEAF: u16 = 0x02;
const P_OVERFLOW: u16 = 0x04;
/// Node flag: the value lies on overflow pages.
const F_BIGDATA: u16 = 0x01;

/// A branch or leaf page that has been checked.
#[derive(Debug, Clone)]
pub(super) struct Page {
    bytes: Bytes,
    leaf: bool,
    order: Order,
}

/// A value in a leaf, or where it is.
#[derive(Debug)]
pub(super) enum Value {
    Inline(Bytes),
    Overflow { first: u64, len: usize },
}

impl Page {
    /// Checks `bytes`, one page read at `number`, as level `level` (from 1) of `tree`.
    pub(super) fn parse(number: u64, bytes: Bytes, tree: Tree, level: u16) -> Result<Page, Error> {
        let wrong = |why: String| Err(Error::corrupted(number, why));
        let leaf = level == tree.depth;
        let own = u64_at(&bytes, 0);
        if own != number {
            return wrong(format!("says that it is page {own}"));
        }
        let (flags, expected) = (u16_at(&bytes, 10), if leaf { P_LEAF } else { P_BRANCH });
        if flags != expected {
            let depth = tree.depth;
            return wrong(format!(
                "has flags {flags:#x} instead of {expected:#x} at level {level} of {depth}"
            ));
        }
        let lower = usize::from(u16_at(&bytes, 12));
        let upper = usize::from(u16_at(&bytes, 14));
        let fits = lower % 2 == 0 && HEADER_BYTES <= lower && lower <= upper;
        if !fits || upper > bytes.len() {
            return wrong(format!("has bounds {lower} and {upper}"));
        }
        let page = Page {
            bytes,
            leaf,
            order: tree.order,
        };
        // LMDB aborts on a branch of entries with one child; among the free pages it may happen.
        let least = if leaf || tree.order == Order::Number {
            1
        } else {
            2
        };
        if page.len() < least {
            return wrong(format!("has {} nodes", page.len()));
        }
        page.check_nodes(number, upper, tree)?;
        Ok(page)
    }

    fn check_nodes(&self, number: u64, upper: usize, tree: Tree) -> Result<(), Error> {
        let wrong = |i: usize, why: &str| Err(Error::corrupted(number, format!("has {why} {i}")));
        let mut spans = Vec::with_capacity(self.len());
        for i in 0..self.len() {
            let at = self.offset(i);
            if at < upper || at + NODE_BYTES > self.bytes.len() {
                return wrong(i, "an offset out of bounds at node");
            }
            let flags = u16_at(&self.bytes, at + 4);
            let key_len = usize::from(u16_at(&self.bytes, at + 6));
            let data_len = match (self.leaf, flags) {
                (false, _) => 0,
                (true, 0) => self.data_len(at),
                (true, F_BIGDATA) => 8,
                (true, _) => return wrong(i, "unknown flags at node"),
            };
            let end = at + NODE_BYTES + key_len + data_len;
            if end > self.bytes.len() {
                return wrong(i, "bytes missing at node");
            }
            spans.push((at, end));
            // The first key of a branch stands for "anything lower" and is not looked at.
            if self.leaf || i > 0 {
                tree.check_key(number, self.key(i))?;
            }
            if self.leaf {
                Tree::check_value(number, self.data_len(at))?;
            }
            let first = usize::from(!self.leaf);
            if i > first && self.compare(self.key(i - 1), self.key(i)) != Ordering::Less {
                return wrong(i, "a key out of order at node");
            }
        }
        spans.sort_unstable();
        if spans.windows(2).any(|w| w[0].1 > w[1].0) {
            return Err(Error::corrupted(number, "has nodes that overlap"));
        }
        Ok(())
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        (usize::from(u16_at(&self.bytes, 12)) - HEADER_BYTES) / 2
    }

    fn offset(&self, i: usize) -> usize {
        usize::from(u16_at(&self.bytes, HEADER_BYTES + 2 * i))
    }

    fn data_len(&self, at: usize) -> usize {
        let (lo, hi) = (u16_at(&self.bytes, at), u16_at(&self.bytes, at + 2));
        usize::from(lo) | usize::from(hi) << 16
    }

    fn key(&self, i: usize) -> &[u8] {
        let at = self.offset(i);
        let len = usize::from(u16_at(&self.bytes, at + 6));
        &self.bytes[at + NODE_BYTES..at + NODE_BYTES + len]
    }

    /// The key of node `i`, sharing the page.
    pub(super) fn key_bytes(&self, i: usize) -> Bytes {
        self.bytes.slice_ref(self.key(i))
    }

    /// The page below node `i` of a branch.
    pub(super) fn child(&self, i: usize) -> u64 {
        let at = self.offset(i);
        let part = |skip: usize| u64::from(u16_at(&self.bytes, at + skip));
        part(0) | part(2) << 16 | part(4) << 32
    }

    /// The pages below a branch; none below a leaf.
    pub(super) fn children(&self) -> impl Iterator<Item = u64> + '_ {
        let len = if self.leaf { 0 } else { self.len() };
        (0..len).map(|i| self.child(i))
    }

    /// The child of a branch below which `key` would be.
    pub(super) fn child_towards(&self, key: &[u8]) -> usize {
        let above = (1..self.len()).find(|&i| self.compare(key, self.key(i)) == Ordering::Less);
        above.unwrap_or(self.len()) - 1
    }

    /// The node of a leaf that holds `key`.
    pub(super) fn position(&self, key: &[u8]) -> Option<usize> {
        (0..self.len()).find(|&i| self.key(i) == key)
    }

    /// The value of node `i` of a leaf.
    pub(super) fn value(&self, i: usize) -> Value {
        let at = self.offset(i);
        let data = at + NODE_BYTES + self.key(i).len();
        let len = self.data_len(at);
        match u16_at(&self.bytes, at + 4) {
            F_BIGDATA => Value::Overflow {
                first: u64_at(&self.bytes, data),
                len,
            },
            _ => Value::Inline(self.bytes.slice(data..data + len)),
        }
    }

    /// Compares two keys as this page's tree does. Numbers have eight bytes (`check_key`).
    pub(super) fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        match self.order {
            Order::Bytes => a.cmp(b),
            Order::Number => u64_at(a, 0).cmp(&u64_at(b, 0)),
        }
    }
}

/// How many pages the overflow run takes that begins with this header.
pub(super) fn overflow_pages(number: u64, header: &[u8]) -> Result<u64, Error> {
    let (own, flags) = (u64_at(header, 0), u16_at(header, 10));
    if own != number || flags != P_OVERFLOW {
        let why = format!("is not an overflow page: it says number {own}, flags {flags:#x}");
        return Err(Error::corrupted(number, why));
    }
    match u32_at(header, 12) {
        0 => Err(Error::corrupted(number, "says that it has no pages")),
        pages => Ok(u64::from(pages)),
    }
}
