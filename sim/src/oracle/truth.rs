//! [`Truth`]: every record that a log on a node's disk has shown, by lineage and LSN, and the state at
//! each. Of several nodes' logs only what is committed: what lies behind that one may lose again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use unisondb_platform::memory::MemoryDisk;

use super::log::{self, Id, Record, What};
use super::model::Model;
use crate::world::DATA;

/// The records of one namespace.
#[derive(Default)]
pub struct Truth {
    records: BTreeMap<(Id, u64), Record>,
    parents: BTreeMap<Id, Option<(Id, u64)>>,
    /// Up to where a lineage's records were surely committed: told to a client, or vouched for.
    committed: BTreeMap<Id, u64>,
    /// Every segment id seen, and the lineage that it was seen of first.
    ids: BTreeMap<u64, Id>,
    /// Sealed bytes, by lineage and segment.
    sealed: BTreeMap<(Id, u64), [u8; 32]>,
    /// Digests on record, by lineage and LSN.
    digests: BTreeMap<(Id, u64), [u8; 32]>,
    /// Checksum of each record that any log has shown, by term too: a term has one leader, and a record one
    /// frame.
    frames: BTreeMap<(Id, u64, u64), u32>,
    /// Files already read whole, by node.
    read: BTreeMap<(String, String), [u8; 32]>,
}

impl Truth {
    /// Reads what lies in the log folders of a namespace on a node now; what is wrong, in words.
    pub fn collect(
        &mut self,
        node: &str,
        disk: &MemoryDisk,
        namespace: &str,
        shown: Shown,
    ) -> Vec<String> {
        let home = format!("{DATA}/{namespace}");
        let mut segments = Vec::new();
        let trash = format!("{DATA}/trash/{namespace}.");
        let deleted = disk.files(Path::new(&format!("{DATA}/trash"))).into_iter();
        let deleted = deleted.filter(|(path, _)| {
            let path = path.to_string_lossy();
            path.starts_with(&trash) && path.contains("/wal") && path.ends_with(".wal")
        });
        let there = disk.files(Path::new(&home)).into_iter();
        let there = there.filter(|(path, _)| is_segment(path, &home));
        for (path, bytes) in deleted.chain(there) {
            let file = (node.to_owned(), path.to_string_lossy().into_owned());
            let sum = *blake3::hash(&bytes).as_bytes();
            if self.read.insert(file, sum) == Some(sum) {
                continue;
            }
            segments.extend(log::segment(&bytes).map(|segment| (segment, bytes)));
        }
        let upto = match shown {
            Shown::All => u64::MAX,
            Shown::Committed => segments.iter().map(|s| s.0.vouched()).max().unwrap_or(0),
        };
        let add = |(segment, bytes): &(log::Segment, Vec<u8>)| {
            self.add_to(segment, bytes, Source::Disk, upto)
        };
        segments.iter().flat_map(add).collect()
    }

    /// The same, of segments that were purged before anybody looked. One that was not sealed may hold
    /// what was never committed.
    pub fn collect_removed(&mut self, removed: &[(PathBuf, Vec<u8>)], ns: &str) -> Vec<String> {
        let home = format!("{DATA}/{ns}");
        let ours = removed.iter().filter(|(path, _)| is_segment(path, &home));
        let segments = ours.filter_map(|(_, bytes)| Some((log::segment(bytes)?, bytes)));
        let sealed = segments.filter(|(segment, _)| segment.footer.is_some());
        sealed
            .flat_map(|(segment, bytes)| self.add(&segment, bytes, Source::Disk))
            .collect()
    }

    /// Takes over what a segment shows.
    pub fn add(&mut self, segment: &log::Segment, bytes: &[u8], source: Source) -> Vec<String> {
        self.add_to(segment, bytes, source, u64::MAX)
    }

    fn add_to(
        &mut self,
        segment: &log::Segment,
        bytes: &[u8],
        source: Source,
        upto: u64,
    ) -> Vec<String> {
        let mut wrong = self.id(segment);
        if upto < u64::MAX {
            let last = segment.records.iter().map(|r| r.lsn).max().unwrap_or(0);
            self.settle(segment.lineage, upto.min(last));
        }
        let mut last_stamp = 0;
        for record in &segment.records {
            if record.stamp <= last_stamp {
                wrong.push(format!(
                    "record {} is stamped {} behind {last_stamp}",
                    record.lsn, record.stamp
                ));
            }
            last_stamp = record.stamp;
            let frame = (segment.lineage, record.lsn, record.term);
            if *self.frames.entry(frame).or_insert(record.crc) != record.crc {
                wrong.push(format!(
                    "P1: two records {} of term {} of lineage {}",
                    record.lsn,
                    record.term,
                    hex(&segment.lineage)
                ));
            }
            if record.lsn > upto {
                continue;
            }
            if let What::Lineage(l) = &record.what {
                self.parents.insert(l.id, l.parent);
            }
            if let What::Check { last, digest, .. } = &record.what {
                wrong.extend(self.digest(segment.lineage, *last, *digest, "a check"));
            }
            let key = (segment.lineage, record.lsn);
            let settled = self.committed(segment.lineage) >= record.lsn;
            match self.records.get(&key) {
                Some(before) if before != record && settled => wrong.push(format!(
                    "P1: record {} of lineage {} was committed and is another one now",
                    record.lsn,
                    hex(&segment.lineage)
                )),
                _ => drop(self.records.insert(key, record.clone())),
            }
        }
        if let Some(footer) = &segment.footer {
            let sum = *blake3::hash(&bytes[..segment.bytes + 256]).as_bytes();
            let key = (segment.lineage, segment.id);
            if *self.sealed.entry(key).or_insert(sum) != sum {
                wrong.push(format!(
                    "P4: sealed segment {} has other bytes than before ({source:?})",
                    segment.id
                ));
            }
            wrong.extend(self.digest(segment.lineage, footer.last, footer.digest, "a footer"));
            self.settle(segment.lineage, footer.last);
        }
        wrong
    }

    /// P12: an id belongs to one lineage for ever, and a new lineage's first one is above all others.
    fn id(&mut self, segment: &log::Segment) -> Vec<String> {
        let mut wrong = Vec::new();
        // A namespace that two nodes have made at once is one of them: in the other nobody has written.
        let is_user = |r: &Record| matches!(r.what, What::User(..));
        if segment.footer.is_none() && !segment.records.iter().any(is_user) {
            return wrong;
        }
        let newest = self.ids.last_key_value().map_or(0, |(id, _)| *id);
        let begins = self.ids.values().all(|l| *l != segment.lineage);
        if begins && segment.id <= newest {
            wrong.push(format!(
                "P12: lineage {} begins with segment {}, but {newest} was used before",
                hex(&segment.lineage),
                segment.id
            ));
        }
        let owner = *self.ids.entry(segment.id).or_insert(segment.lineage);
        if owner != segment.lineage {
            wrong.push(format!(
                "P12: segment {} is of two lineages, {} and {}",
                segment.id,
                hex(&owner),
                hex(&segment.lineage)
            ));
        }
        wrong
    }

    /// A digest that somebody has named.
    pub fn digest(&mut self, lineage: Id, lsn: u64, digest: [u8; 32], who: &str) -> Vec<String> {
        let (lineage, lsn) = self.owner(lineage, lsn);
        let known = self.digests.entry((lineage, lsn)).or_insert(digest);
        if *known == digest {
            return Vec::new();
        }
        vec![format!(
            "P7: {who} names another digest at LSN {lsn} than was named before"
        )]
    }

    /// The digest that was named for a history's record.
    pub fn known_digest(&self, lineage: Id, lsn: u64) -> Option<[u8; 32]> {
        self.digests.get(&self.owner(lineage, lsn)).copied()
    }

    /// The lineage that a record of a history belongs to.
    fn owner(&self, mut lineage: Id, lsn: u64) -> (Id, u64) {
        while let Some(Some((parent, fork))) = self.parents.get(&lineage) {
            if lsn > *fork {
                break;
            }
            lineage = *parent;
        }
        (lineage, lsn)
    }

    pub fn committed(&self, lineage: Id) -> u64 {
        self.committed.get(&lineage).copied().unwrap_or(0)
    }

    /// Records up to `lsn` are committed.
    pub fn settle(&mut self, lineage: Id, lsn: u64) {
        let known = self.committed.entry(lineage).or_default();
        *known = lsn.max(*known);
    }

    pub fn record(&self, lineage: Id, lsn: u64) -> Option<&Record> {
        self.records.get(&self.owner(lineage, lsn))
    }

    /// How many leaders after the first one wrote something, and how many records of one gave way to
    /// another's.
    pub fn changes(&self) -> (u64, u64) {
        let (mut terms, mut places) = (BTreeSet::new(), BTreeSet::new());
        for (lineage, lsn, term) in self.frames.keys() {
            terms.insert((lineage, term));
            places.insert((lineage, lsn));
        }
        let leaders = (terms.len() as u64).saturating_sub(1);
        (leaders, (self.frames.len() - places.len()) as u64)
    }

    /// The records of a history from LSN 1 to `lsn`; the first one that is not known.
    pub fn path(&self, lineage: Id, lsn: u64) -> Result<Vec<&Record>, u64> {
        (1..=lsn)
            .map(|n| self.record(lineage, n).ok_or(n))
            .collect()
    }

    /// The state of a history after record `lsn`.
    pub fn state(&self, lineage: Id, lsn: u64) -> Result<Model, u64> {
        let mut model = Model::default();
        for record in self.path(lineage, lsn)? {
            model.apply(record);
        }
        Ok(model)
    }

    /// The last record of a lineage that is known.
    pub fn last(&self, lineage: Id) -> u64 {
        let own = self
            .records
            .range((lineage, 0)..=(lineage, u64::MAX))
            .next_back();
        let fork = self
            .parents
            .get(&lineage)
            .copied()
            .flatten()
            .map_or(0, |p| p.1);
        own.map_or(fork, |((_, lsn), _)| *lsn)
    }

    /// Forgets records of a lineage behind `lsn`: a crash has taken them, uncommitted.
    pub fn cut(&mut self, lineage: Id, lsn: u64) {
        self.records.retain(|(l, n), _| *l != lineage || *n <= lsn);
    }

    /// Lineages known, and how each began.
    pub fn lineages(&self) -> &BTreeMap<Id, Option<(Id, u64)>> {
        &self.parents
    }
}

/// Whether a file lies in one of the log folders of a namespace, and is called a segment.
fn is_segment(path: &Path, home: &str) -> bool {
    let path = path.to_string_lossy();
    path.starts_with(&format!("{home}/wal")) && path.ends_with(".wal")
}

/// What of a log counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// All that is in it: there is no other node that could have something else.
    All,
    /// What it vouches for.
    Committed,
}

/// Where a segment was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Disk,
    Backup,
}

/// An id as text.
pub fn hex(id: &Id) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

/// An id or digest from text.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(bytes)
}
