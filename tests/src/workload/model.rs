//! [`Timeline`]: every write that the clients know of, by LSN, and the content at any LSN.
//!
//! Keys begin with their owner and a slash (`c3/k17`): a client writes only under its own name, so
//! an unknown write of one client changes one owner's part and no other. The contended keys under
//! `s/` are only ever written on condition (`If-Match`), so their order is known too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::text::Chance;

/// A value.
pub type Bytes = Arc<[u8]>;

/// A large object, told by its seed and length: its bytes begin with both, the rest follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// What its bytes are made from.
    pub seed: u64,
    /// Length, at least [`Object::MIN`].
    pub len: u64,
}

impl Object {
    /// Least length.
    pub const MIN: u64 = 16;
    /// Length of the parts that are made from a seed each.
    const PART: u64 = 1 << 16;

    /// Its bytes from `from` on, at most `len` of them.
    pub fn bytes(&self, from: u64, len: u64) -> Vec<u8> {
        let to = self.len.min(from + len);
        let mut bytes = Vec::new();
        for part in from / Self::PART..to.div_ceil(Self::PART) {
            let begin = part * Self::PART;
            let mut body = Chance::new(self.seed ^ part << 32).bytes(1 << 16);
            if part == 0 {
                body[..8].copy_from_slice(&self.seed.to_le_bytes());
                body[8..16].copy_from_slice(&self.len.to_le_bytes());
            }
            let cut = |at: u64| {
                usize::try_from(at.clamp(begin, begin + Self::PART) - begin).expect("below a part")
            };
            bytes.extend_from_slice(&body[cut(from)..cut(to)]);
        }
        bytes
    }

    /// Which object these bytes are; `None` if they are not one, whole and exact.
    pub fn of(bytes: &[u8]) -> Option<Object> {
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let object = Object {
            seed: number(0)?,
            len: number(8)?,
        };
        let len = u64::try_from(bytes.len()).ok()?;
        let mut parts = (0u64..).zip(bytes.chunks(1 << 16));
        let same = parts.all(|(i, part)| object.bytes(i * Self::PART, Self::PART) == part);
        (object.len == len && same).then_some(object)
    }
}

/// One change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key is set, or removed.
    Kv(String, Option<Bytes>),
    /// Columns are merged into a row.
    Row(String, BTreeMap<String, Bytes>),
    /// A row is removed.
    DropRow(String),
    /// Columns of a row are removed.
    DropColumns(String, Vec<String>),
    /// An object is set, or removed.
    Lob(String, Option<Object>),
}

impl Change {
    fn key(&self) -> &str {
        match self {
            Change::Kv(k, _)
            | Change::Row(k, _)
            | Change::DropRow(k)
            | Change::DropColumns(k, _)
            | Change::Lob(k, _) => k,
        }
    }
}

/// Whose key this is.
pub fn owner(key: &str) -> &str {
    key.split_once('/').map_or(key, |(owner, _)| owner)
}

/// Where a write stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It was answered with this LSN, or found with it.
    At(u64),
    /// It was never answered, but found to have happened: behind the first, not behind the second.
    Between(u64, u64),
}

impl When {
    /// The first LSN at which it surely has happened.
    pub fn last(self) -> u64 {
        match self {
            When::At(lsn) | When::Between(_, lsn) => lsn,
        }
    }
}

/// One write: what it changed, all of it or nothing.
#[derive(Debug, Clone)]
pub struct Write {
    /// Where.
    pub when: When,
    /// What.
    pub changes: Vec<Change>,
    /// The LSN that its `If-Match` named.
    pub replaces: Option<u64>,
}

/// The content of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Keys.
    pub kv: BTreeMap<String, Bytes>,
    /// Rows that have columns.
    pub rows: BTreeMap<String, BTreeMap<String, Bytes>>,
    /// Objects.
    pub lobs: BTreeMap<String, Object>,
}

impl Content {
    /// Makes one change.
    pub fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Kv(key, Some(value)) => drop(self.kv.insert(key, value)),
            Change::Kv(key, None) => drop(self.kv.remove(&key)),
            Change::Row(row, columns) => self.rows.entry(row).or_default().extend(columns),
            Change::DropRow(row) => drop(self.rows.remove(&row)),
            Change::DropColumns(row, names) => {
                if let Some(columns) = self.rows.get_mut(&row) {
                    columns.retain(|name, _| !names.contains(name));
                    if columns.is_empty() {
                        self.rows.remove(&row);
                    }
                }
            }
            Change::Lob(key, Some(object)) => drop(self.lobs.insert(key, object)),
            Change::Lob(key, None) => drop(self.lobs.remove(&key)),
        }
    }

    /// What one owner has.
    pub fn part(&self, name: &str) -> Content {
        fn keep<T: Clone>(all: &BTreeMap<String, T>, name: &str) -> BTreeMap<String, T> {
            let mine = all.iter().filter(|(key, _)| owner(key) == name);
            mine.map(|(k, v)| (k.clone(), v.clone())).collect()
        }
        Content {
            kv: keep(&self.kv, name),
            rows: keep(&self.rows, name),
            lobs: keep(&self.lobs, name),
        }
    }

    /// All owners.
    pub fn owners(&self) -> BTreeSet<&str> {
        let keys = self
            .kv
            .keys()
            .chain(self.rows.keys())
            .chain(self.lobs.keys());
        keys.map(|key| owner(key)).collect()
    }

    /// How many keys, rows and objects.
    pub fn len(&self) -> usize {
        self.kv.len() + self.rows.len() + self.lobs.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first few entries that differ, in words.
    pub fn differences(&self, found: &Content) -> String {
        fn differ<T: PartialEq>(
            kind: &str,
            (expected, found): (&BTreeMap<String, T>, &BTreeMap<String, T>),
            show: impl Fn(&T) -> String,
            words: &mut Vec<String>,
        ) {
            let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
            for key in keys {
                let (e, f) = (expected.get(key), found.get(key));
                if e != f {
                    let or_none = |v: Option<&T>| v.map_or("none".to_owned(), &show);
                    words.push(format!(
                        "{kind} {key}: expected {}, found {}",
                        or_none(e),
                        or_none(f)
                    ));
                }
            }
        }
        // Values begin with who wrote them and when.
        let value = |v: &Bytes| v[..v.len().min(30)].escape_ascii().to_string();
        let columns = |row: &BTreeMap<String, Bytes>| {
            row.iter()
                .map(|(name, v)| format!("{name}={} ", value(v)))
                .collect::<String>()
        };
        let mut words = Vec::new();
        differ("key", (&self.kv, &found.kv), value, &mut words);
        differ("row", (&self.rows, &found.rows), columns, &mut words);
        differ(
            "object",
            (&self.lobs, &found.lobs),
            |o| format!("{o:?}"),
            &mut words,
        );
        let more = words.len().saturating_sub(5);
        words.truncate(5);
        format!("{}\n({more} more)", words.join("\n"))
    }
}

/// All writes of one history, in order.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    writes: Vec<Write>,
}

impl Timeline {
    /// Adds what clients have written since.
    pub fn extend(&mut self, writes: impl IntoIterator<Item = Write>) {
        self.writes.extend(writes);
        self.writes.sort_by_key(|w| w.when.last());
    }

    /// How many writes it has.
    pub fn len(&self) -> usize {
        self.writes.len()
    }
    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
    /// All writes.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// What is surely there after record `lsn`.
    pub fn at(&self, lsn: u64) -> Content {
        let mut content = Content::default();
        let there = self.writes.iter().take_while(|w| w.when.last() <= lsn);
        there
            .flat_map(|w| &w.changes)
            .for_each(|c| content.apply(c));
        content
    }

    /// The LSN of the last write of each key, as far as it is known exactly, at `lsn`.
    pub fn tags(&self, lsn: u64) -> BTreeMap<&str, u64> {
        let mut tags = BTreeMap::new();
        for write in self.writes.iter().take_while(|w| w.when.last() <= lsn) {
            for change in &write.changes {
                match (change, write.when) {
                    (Change::Kv(key, Some(_)), When::At(lsn)) => drop(tags.insert(&**key, lsn)),
                    (Change::Kv(key, _), _) => drop(tags.remove(&**key)),
                    _ => {}
                }
            }
        }
        tags
    }

    /// Writes that may or may not be there after record `lsn`.
    pub fn unsure(&self, lsn: u64) -> impl Iterator<Item = &Write> {
        self.writes
            .iter()
            .filter(move |w| matches!(w.when, When::Between(a, b) if a < lsn && lsn < b))
    }

    /// The history that a restore to `lsn` begins with; nothing may be unsure there.
    ///
    /// # Panics
    /// When something is.
    pub fn fork(&self, lsn: u64) -> Timeline {
        assert_eq!(
            self.unsure(lsn).count(),
            0,
            "a fork stands where all is known"
        );
        let there = self.writes.iter().take_while(|w| w.when.last() <= lsn);
        Timeline {
            writes: there.cloned().collect(),
        }
    }

    /// Compares what was found with what was there after record `lsn`.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&self, lsn: u64, found: &Content) -> Result<(), String> {
        let expected = self.at(lsn);
        if expected == *found {
            return Ok(());
        }
        for name in expected.owners().union(&found.owners()) {
            let (is, was) = (found.part(name), expected.part(name));
            if is == was {
                continue;
            }
            let mut others = self
                .unsure(lsn)
                .filter(|w| owner(w.changes[0].key()) == *name);
            let with = |write: &Write| {
                let mut content = was.clone();
                write.changes.iter().for_each(|c| content.apply(c));
                content
            };
            if !others.any(|write| with(write) == is) {
                return Err(format!("at LSN {lsn}: {}", was.differences(&is)));
            }
        }
        Ok(())
    }

    /// Each write on condition replaced exactly the one before it: of two that saw the same, one
    /// was refused (P3).
    ///
    /// # Errors
    /// The first that did not.
    pub fn conditions_held(&self) -> Result<usize, String> {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        let mut checked = 0;
        for write in &self.writes {
            let (Some(replaced), When::At(lsn)) = (write.replaces, write.when) else {
                continue;
            };
            let key = write.changes[0].key();
            let before = last.insert(key, lsn).unwrap_or(0);
            if before != replaced {
                return Err(format!(
                    "{key}: the write at LSN {lsn} was to replace {replaced}, but replaced {before}"
                ));
            }
            checked += 1;
        }
        Ok(checked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(when: When, key: &str, value: &str) -> Write {
        let changes = vec![Change::Kv(key.to_owned(), Some(value.as_bytes().into()))];
        Write {
            when,
            changes,
            replaces: None,
        }
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not_but_only_within_its_bounds() {
        let mut line = Timeline::default();
        line.extend([
            put(When::Between(3, 7), "a/x", "2"),
            put(When::At(3), "a/x", "1"),
        ]);
        let content = |value: &str| {
            let mut c = Content::default();
            c.apply(&put(When::At(0), "a/x", value).changes[0]);
            c
        };
        let holds = |lsn, value| line.compare(lsn, &content(value)).is_ok();
        assert!(holds(3, "1") && !holds(3, "2"));
        assert!(holds(4, "1") && holds(6, "2") && !holds(6, "3"));
        assert!(!holds(7, "1") && holds(7, "2"));
        assert!(line.compare(3, &Content::default()).is_err());
    }

    #[test]
    fn an_object_is_known_by_its_bytes_and_no_other() {
        let object = Object {
            seed: 7,
            len: 200_000,
        };
        let bytes = object.bytes(0, u64::MAX >> 1);
        assert_eq!(bytes.len(), 200_000);
        assert_eq!(bytes[70_000..71_000], object.bytes(70_000, 1_000));
        assert_eq!(Object::of(&bytes), Some(object));
        assert_eq!(Object::of(&bytes[..199_999]), None);
        let mut bad = bytes;
        bad[150_000] ^= 1;
        assert_eq!(Object::of(&bad), None);
    }

    #[test]
    fn two_writes_that_replace_the_same_are_told() {
        let cas = |lsn, replaced| Write {
            replaces: Some(replaced),
            ..put(When::At(lsn), "s/x", "v")
        };
        let mut line = Timeline::default();
        line.extend([cas(3, 0), cas(5, 3)]);
        assert_eq!(line.conditions_held(), Ok(2));
        line.extend([cas(6, 3)]);
        assert!(line.conditions_held().is_err());
    }
}
