//! A reader of LMDB files that maps nothing.
//!
//! LMDB trusts its file: a cut one kills the process (SIGBUS), a damaged one may read anywhere. So
//! a file that this node did not write itself is read here first, page by page over a [`Source`],
//! and every number in it is checked before it is followed. Any bytes at all give the entries or
//! an [`Error`] that names the page: no panic, no endless loop (a page is visited once, a tree is
//! at most 32 deep), no allocation beyond one value.
//!
//! | call | reads | for |
//! | --- | --- | --- |
//! | [`check_live`] | both meta pages | the file that this node wrote itself |
//! | [`Image::get`] | one path of the tree | the record that says what an image is |
//! | [`Image::iter`] | all entries, in order | recomputing a digest, restoring |
//! | [`Image::scan`] | all pages but values, and the list of free pages | a file of unknown origin, before LMDB may have it |
//!
//! The layout (`docs/formats/snapshot.md`) is that of LMDB 0.9, data version 1, 64 bit, little
//! endian. Only what the store writes is accepted: one unnamed database without flags.

mod error;
mod meta;
mod page;
mod walk;

use bytes::Bytes;

pub use error::Error;
pub use meta::{Meta, check_live};
pub use walk::{Entry, Iter};

use self::meta::Tree;
use self::page::{Page, Value};
use self::walk::{Seen, Values, Walk};
use crate::Source;
use crate::store::{KEY_BYTES, VALUE_BYTES};

/// An LMDB file whose size and meta pages are sound.
#[derive(Debug)]
pub struct Image<S> {
    source: S,
    meta: Meta,
    /// Length of the source, in bytes; a trailer may lie beyond the last page.
    len: u64,
}

/// What [`Image::scan`] counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Entries.
    pub entries: u64,
    /// Pages that hold entries, and the way to them.
    pub used_pages: u64,
    /// Pages that are listed as free.
    pub free_pages: u64,
    /// Pages that are neither used nor free. LMDB can live with such a file, but makes no
    /// compacted copy of it.
    pub leaked_pages: u64,
}

impl<S: Source> Image<S> {
    /// Checks size and meta pages.
    ///
    /// # Errors
    /// What is wrong with the file; see [`Error`].
    pub fn open(source: S) -> Result<Image<S>, Error> {
        let len = source.len()?;
        let meta = Meta::read(&source, len)?;
        let image = Image { source, meta, len };
        image.check_length()?;
        Ok(image)
    }

    /// What the newer meta page says.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// How many bytes lie behind the last page: a trailer, pages of a commit that never came to be,
    /// or what is left of either.
    pub fn bytes_behind(&self) -> u64 {
        self.len.saturating_sub(self.meta.bytes())
    }

    /// The first of those bytes, 16 at most.
    ///
    /// # Errors
    /// What the system says.
    pub fn head_behind(&self) -> std::io::Result<Vec<u8>> {
        let n = usize::try_from(self.bytes_behind()).map_or(16, |n| n.min(16));
        let mut head = vec![0; n];
        self.source.read_at(&mut head, self.meta.bytes())?;
        Ok(head)
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`Error::Corrupted`] when the way there is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let tree = self.meta.main;
        let Some(mut number) = tree.root else {
            return Ok(None);
        };
        for level in 1..=tree.depth {
            let page = self.tree_page(number, tree, level)?;
            if level < tree.depth {
                number = page.child(page.child_towards(key));
                continue;
            }
            let Some(at) = page.position(key) else {
                return Ok(None);
            };
            let value = page.value(at);
            return self.value_bytes(number, &value).map(Some);
        }
        Ok(None)
    }

    /// All entries, in key order. An error is the last item.
    pub fn iter(&self) -> Iter<'_, S> {
        Iter::new(Walk::new(self, self.meta.main, Values::Read))
    }

    /// Follows everything that LMDB would follow: both trees, every page header, every node, the
    /// list of free pages. What passes can be mapped and written to.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn scan(&self) -> Result<Scan, Error> {
        self.scan_pages().map(|(scan, _)| scan)
    }

    fn scan_pages(&self) -> Result<(Scan, Seen), Error> {
        let mut walk = Walk::new(self, self.meta.main, Values::Skip);
        while walk.step()?.is_some() {}
        let entries = walk.entries();
        let seen = walk.into_seen();
        let used_pages = seen.count();

        let mut walk = Walk::new(self, self.meta.free, Values::Read).having_seen(seen);
        let mut free = Vec::new();
        let mut free_pages = 0;
        while let Some((page, entry)) = walk.step()? {
            walk::free_list(page, &entry.value, &mut free)?;
            for &number in &free {
                self.in_file(page, number)?;
                walk.see(page, number)?;
            }
            free_pages += free.len() as u64;
        }
        let seen = walk.into_seen();
        // Pages 0 and 1 are the meta pages.
        let leaked_pages = (self.meta.last_page + 1).saturating_sub(2 + seen.count());
        let scan = Scan {
            entries,
            used_pages,
            free_pages,
            leaked_pages,
        };
        Ok((scan, seen))
    }

    /// A file may end before its last page if what is missing is free: LMDB does not write a page
    /// that was used and freed in one transaction. Every other short file is cut.
    fn check_length(&self) -> Result<(), Error> {
        let want = self.meta.bytes();
        if self.len >= want {
            return Ok(());
        }
        let (have, truncated) = (self.len / self.page_bytes(), self.truncated());
        match self.scan_pages() {
            Ok((_, seen)) if seen.count_from(have) == self.meta.last_page + 1 - have => Ok(()),
            Err(e @ Error::Io(_)) => Err(e),
            _ => Err(truncated),
        }
    }

    fn truncated(&self) -> Error {
        Error::Truncated {
            have: self.len,
            want: self.meta.bytes(),
        }
    }

    fn page_bytes(&self) -> u64 {
        self.meta.page_bytes
    }

    /// Refuses numbers that `from` names and that are not those of pages behind the meta pages.
    fn in_file(&self, from: u64, number: u64) -> Result<(), Error> {
        if (2..=self.meta.last_page).contains(&number) {
            return Ok(());
        }
        let last = self.meta.last_page;
        Err(Error::corrupted(
            from,
            format!("names page {number}, the file has 2 to {last}"),
        ))
    }

    /// Reads and checks a branch page, or a leaf at the bottom of its tree. `number` is in the file.
    fn tree_page(&self, number: u64, tree: Tree, level: u16) -> Result<Page, Error> {
        let bytes = self.read(number, 0, self.page_size())?;
        let page = Page::parse(number, bytes, tree, level)?;
        for child in page.children() {
            self.in_file(number, child)?;
        }
        Ok(page)
    }

    fn page_size(&self) -> usize {
        usize::try_from(self.page_bytes()).expect("pages have at most 32 KiB")
    }

    /// Bytes of the page `number` and those behind it.
    fn read(&self, number: u64, skip: u64, len: usize) -> Result<Bytes, Error> {
        let offset = number * self.page_bytes() + skip;
        if offset + len as u64 > self.len {
            return Err(self.truncated());
        }
        let mut bytes = vec![0; len];
        self.source.read_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    /// How many pages the value on overflow pages from `first` on takes, its header checked.
    fn overflow_pages(&self, leaf: u64, first: u64, len: usize) -> Result<u64, Error> {
        self.in_file(leaf, first)?;
        let header = self.read(first, 0, page::HEADER_BYTES)?;
        let pages = page::overflow_pages(first, &header)?;
        let wanted = (page::HEADER_BYTES as u64 + len as u64).div_ceil(self.page_bytes());
        if pages < wanted {
            let why = format!("has {pages} overflow pages for a value that takes {wanted}");
            return Err(Error::corrupted(first, why));
        }
        self.in_file(first, first.saturating_add(pages - 1))?;
        Ok(pages)
    }

    fn value_bytes(&self, leaf: u64, value: &Value) -> Result<Bytes, Error> {
        match *value {
            Value::Inline(ref bytes) => Ok(bytes.clone()),
            Value::Overflow { first, len } => {
                self.overflow_pages(leaf, first, len)?;
                self.read(first, page::HEADER_BYTES as u64, len)
            }
        }
    }
}

impl Tree {
    /// What keys of this tree must be.
    fn check_key(self, page: u64, key: &[u8]) -> Result<(), Error> {
        let fits = match self.order {
            meta::Order::Bytes => (1..=KEY_BYTES).contains(&key.len()),
            meta::Order::Number => key.len() == 8,
        };
        if fits {
            return Ok(());
        }
        let why = format!("has a key of {} bytes", key.len());
        Err(Error::corrupted(page, why))
    }

    /// What values of this tree may be.
    fn check_value(page: u64, len: usize) -> Result<(), Error> {
        if len <= VALUE_BYTES {
            return Ok(());
        }
        let why = format!("has a value of {len} bytes, which nothing here writes");
        Err(Error::corrupted(page, why))
    }
}

#[cfg(test)]
mod tests;
