//! The checks of a set of files, one after the other: whose they are, whether each is whole, whether
//! they follow one another, whether segments and snapshots agree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use unisondb_platform::{Access, Disk};
use unisondb_store::image::Image;
use unisondb_types::{Chain, ClusterId, LineageId, Lsn, Namespace, SegmentId};

use super::super::reading::{self, Ask, Mark, Reading};
use super::super::sources::{FileSource, Found, Proof, Snapshot};
use super::super::stored::Stored;
use super::super::walk::{self, Place};
use super::super::{Progress, Watch};
use super::{Finding, SegmentProof, SnapshotProof, Wrong};

/// Packed snapshots up to this length are unpacked in memory, to walk their entries too.
const UNPACK_BYTES: u64 = 256 << 20;

/// A segment that could be read.
pub(super) struct ReadSegment {
    found: Found,
    reading: Reading,
    /// What the log adds up to at its end, and at each fork that another segment names.
    ends: BTreeMap<Lsn, (Mark, Chain)>,
}

impl ReadSegment {
    fn id(&self) -> SegmentId {
        self.reading.header.id
    }
    fn lineage(&self) -> LineageId {
        self.reading.header.lineage
    }
    pub(super) fn proof(&self) -> SegmentProof {
        let r = &self.reading;
        SegmentProof {
            file: self.found.place.clone(),
            namespace: r.header.namespace.clone(),
            segment: r.header.id,
            lineage: r.header.lineage,
            sealed: r.footer.is_some(),
            first_lsn: r.header.first_lsn,
            last_lsn: r.last.map(|m| m.lsn),
            first_time: r.first.map(|m| m.stamp),
            last_time: r.last.map(|m| m.stamp),
            records: r.records(),
            bytes: r.bytes,
            chain: r
                .header
                .chain_before()
                .extend(r.header.id, r.content_sha256),
            digest: r.footer.map(|f| f.digest),
        }
    }
}

#[derive(Default)]
/// What was found so far.
pub(super) struct Check {
    pub(super) read: Vec<ReadSegment>,
    pub(super) snapshots: Vec<SnapshotProof>,
    /// Chains that snapshots know: lineage, LSN, chain, file.
    known: Vec<(LineageId, Lsn, Chain, String)>,
    /// Segments that are there and could not be read: named as such, so not missing.
    damaged: BTreeSet<(LineageId, SegmentId)>,
    pub(super) problems: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

impl Check {
    pub(super) fn wrong(&mut self, kind: Wrong, file: Option<String>, why: String) {
        self.problems.push(Finding { kind, file, why });
    }

    /// In one folder all files are of one namespace and cluster: the fewer are the foreign ones.
    pub(super) fn foreign(&mut self, segments: &[Found], snapshots: &[Snapshot]) {
        type Whose = (Namespace, ClusterId);
        let segments = segments
            .iter()
            .map(|s| (&s.place, (s.header.namespace.clone(), s.header.cluster)));
        let snapshots = snapshots
            .iter()
            .map(|s| (&s.place, (s.what.namespace.clone(), s.what.cluster)));
        let mut folders: BTreeMap<PathBuf, BTreeMap<Whose, Vec<&Place>>> = BTreeMap::new();
        for (place, whose) in segments.chain(snapshots) {
            let folder = match &place.member {
                Some(_) => place.file.clone(),
                None => place.file.parent().map(PathBuf::from).unwrap_or_default(),
            };
            folders
                .entry(folder)
                .or_default()
                .entry(whose)
                .or_default()
                .push(place);
        }
        for owners in folders.into_values() {
            let most = owners.values().map(Vec::len).max().unwrap_or(0);
            let Some(((ns, cluster), _)) = owners.iter().find(|(_, p)| p.len() == most) else {
                continue;
            };
            for (whose, places) in &owners {
                if (&whose.0, &whose.1) == (ns, cluster) {
                    continue;
                }
                for place in places {
                    let why = format!(
                        "it belongs to namespace {} of cluster {}, the files beside it to {ns} of {cluster}",
                        whose.0, whose.1
                    );
                    self.wrong(Wrong::Foreign, Some(place.to_string()), why);
                }
            }
        }
    }

    pub(super) fn segments(&mut self, disk: &dyn Disk, found: &[Found], watch: Watch<'_>) {
        // Where other lineages left each segment.
        let mut forks: BTreeMap<(LineageId, SegmentId), BTreeSet<Lsn>> = BTreeMap::new();
        for h in found.iter().map(|f| &f.header) {
            if let Some(p) = h.predecessor.filter(|p| p.lineage != h.lineage) {
                forks
                    .entry((p.lineage, p.id))
                    .or_default()
                    .insert(h.first_lsn.prev());
            }
        }
        watch(Progress::Begin("reading segments", found.len() as u64));
        for one in found {
            self.name_fits(one);
            let h = &one.header;
            let forks = forks.get(&(h.lineage, h.id)).cloned().unwrap_or_default();
            match read_with_forks(disk, one, &forks) {
                Ok(read) => {
                    if let Some(torn) = &read.reading.torn {
                        self.wrong(Wrong::Altered, Some(one.place.to_string()), torn.clone());
                    } else if read.reading.footer.is_none() {
                        self.notes.push(format!(
                            "{} is not sealed: what it holds may still grow",
                            one.place
                        ));
                    }
                    self.read.push(read);
                }
                Err(why) => {
                    self.damaged.insert((h.lineage, h.id));
                    self.wrong(Wrong::Altered, Some(one.place.to_string()), why);
                }
            }
            watch(Progress::Done(1));
        }
        self.read.sort_by(|a, b| {
            let key = |r: &ReadSegment| {
                let h = &r.reading.header;
                (h.namespace.clone(), h.first_lsn, h.id)
            };
            key(a)
                .cmp(&key(b))
                .then_with(|| a.found.place.cmp(&b.found.place))
        });
    }

    fn name_fits(&mut self, one: &Found) {
        let name = one.place.name();
        let plain = name.find(".wal").map_or(name, |at| &name[..at + 4]);
        if let Some(id) = SegmentId::parse_file_name(plain).filter(|id| *id != one.header.id) {
            let why = format!(
                "it is named as segment {id}, and is segment {}",
                one.header.id
            );
            self.wrong(Wrong::Swapped, Some(one.place.to_string()), why);
        }
    }

    pub(super) fn snapshots(&mut self, disk: &dyn Disk, found: Vec<Snapshot>, watch: Watch<'_>) {
        watch(Progress::Begin("reading snapshots", found.len() as u64));
        for snapshot in found {
            let place = snapshot.place.to_string();
            match walk_entries(disk, &snapshot) {
                Ok(entries) => {
                    if entries.is_none() {
                        self.notes.push(format!(
                            "{place}: its checksum is good; its entries were not walked, unpack it to have that done"
                        ));
                    }
                    let what = snapshot.what.clone();
                    self.known
                        .push((what.lineage, what.chain_lsn, what.chain, place));
                    self.snapshots.push(SnapshotProof {
                        segment: snapshot.whole_segment(),
                        file: snapshot.place,
                        namespace: what.namespace,
                        lineage: what.lineage,
                        lsn: what.lsn,
                        time: what.stamp,
                        bytes: snapshot.bytes,
                        digest: what.digest,
                        entries,
                        certified: snapshot.proof != Proof::Bare,
                    });
                }
                Err(why) => self.wrong(Wrong::Altered, Some(place), why),
            }
            watch(Progress::Done(1));
        }
        self.snapshots
            .sort_by(|a, b| (&a.namespace, a.lsn).cmp(&(&b.namespace, b.lsn)));
    }

    /// Each segment against the one that its header names.
    pub(super) fn chains(&mut self) {
        let mut problems = Vec::new();
        let mut named: BTreeMap<(LineageId, SegmentId), &ReadSegment> = BTreeMap::new();
        for s in &self.read {
            let Some(one) = named.insert((s.lineage(), s.id()), s) else {
                continue;
            };
            // A fork may have cut one of the two: the other then goes on behind it.
            let cut = |r: &ReadSegment| r.reading.footer.is_none_or(|f| f.cut_by.is_some());
            if !cut(one) && !cut(s) && one.reading.footer != s.reading.footer {
                problems.push(Finding {
                    kind: Wrong::Differs,
                    file: Some(s.found.place.to_string()),
                    why: format!(
                        "it and {} are both segment {}, and differ",
                        one.found.place,
                        s.id()
                    ),
                });
            }
            if cut(s) && !cut(one) {
                named.insert((s.lineage(), s.id()), one);
            }
        }
        for s in &self.read {
            let header = &s.reading.header;
            let file = Some(s.found.place.to_string());
            let Some(p) = header.predecessor.filter(|p| p.id > SegmentId::ZERO) else {
                continue;
            };
            let Some(before) = named.get(&(p.lineage, p.id)) else {
                if self.damaged.contains(&(p.lineage, p.id)) {
                    continue;
                }
                let lower = named
                    .range((p.lineage, SegmentId::ZERO)..(p.lineage, p.id))
                    .next_back();
                if let Some(((_, lower), _)) = lower {
                    problems.push(Finding {
                        kind: Wrong::Missing,
                        file: None,
                        why: format!(
                            "{} missing from namespace {}",
                            lower.next().to_last(p.id),
                            header.namespace
                        ),
                    });
                }
                continue;
            };
            let Some((mark, chain)) = before.ends.get(&header.first_lsn.prev()) else {
                let why = format!(
                    "it begins at LSN {}, the segment before it, {}, does not hold the record before that",
                    header.first_lsn, before.found.place
                );
                problems.push(Finding {
                    kind: Wrong::Altered,
                    file,
                    why,
                });
                continue;
            };
            let forked = p.lineage != header.lineage;
            let parent = s.found.record.as_ref().and_then(|r| r.parent.as_ref());
            let at_fork = parent.is_none_or(|parent| parent.chain_lsn == parent.fork);
            let expected = if forked && !at_fork {
                before.reading.header.chain_before()
            } else {
                *chain
            };
            if p.chain != expected || (!forked && header.crc_seed != mark.crc) {
                let why = format!(
                    "it was not written after {}: its header says that the chain before it is {}, it is {expected}",
                    before.found.place, p.chain
                );
                problems.push(Finding {
                    kind: Wrong::Altered,
                    file,
                    why,
                });
            }
        }
        problems.dedup();
        self.problems.extend(problems);
    }

    /// Segments and snapshots against each other: digests and chains at the same LSN, and whether
    /// the lineages of a namespace have anything to do with one another.
    pub(super) fn agree(&mut self) {
        let mut problems = Vec::new();
        for snapshot in &self.snapshots {
            let end = self.read.iter().find(|s| {
                s.lineage() == snapshot.lineage
                    && s.reading.last.map(|m| m.lsn) == Some(snapshot.lsn)
            });
            if let Some((s, footer)) = end.and_then(|s| Some((s, s.reading.footer?)))
                && footer.digest != snapshot.digest
            {
                problems.push(Finding {
                    kind: Wrong::Altered,
                    file: Some(snapshot.file.to_string()),
                    why: format!(
                        "its digest at LSN {} is {}, that of {} is {}",
                        snapshot.lsn, snapshot.digest, s.found.place, footer.digest
                    ),
                });
            }
        }
        for (lineage, lsn, chain, file) in &self.known {
            let segments = self.read.iter().filter(|s| s.lineage() == *lineage);
            let mut ends = segments.filter_map(|s| Some((s, s.ends.get(lsn)?)));
            if let Some((s, (_, found))) = ends.find(|(_, (_, found))| found != chain) {
                problems.push(Finding {
                    kind: Wrong::Foreign,
                    file: Some(file.clone()),
                    why: format!(
                        "its chain at LSN {lsn} is {chain}, that of {} is {found}",
                        s.found.place
                    ),
                });
            }
        }
        self.problems.extend(problems);
        self.strangers();
    }

    /// A lineage that no other one here descends from or leads to, beside others.
    fn strangers(&mut self) {
        // Lineages that are known to belong together, by namespace.
        let mut kin: BTreeMap<Namespace, Vec<BTreeSet<LineageId>>> = BTreeMap::new();
        let mut join = |namespace: &Namespace, lineages: BTreeSet<LineageId>| {
            let sets = kin.entry(namespace.clone()).or_default();
            let mut all = lineages;
            sets.retain(|set| {
                let apart = set.is_disjoint(&all);
                if !apart {
                    all.extend(set);
                }
                apart
            });
            sets.push(all);
        };
        for s in &self.read {
            let h = &s.reading.header;
            let mut lineages = BTreeSet::from([h.lineage]);
            lineages.extend(h.predecessor.map(|p| p.lineage));
            let ancestors = s.found.record.iter().flat_map(|r| &r.ancestors);
            lineages.extend(ancestors.map(|a| a.lineage));
            join(&h.namespace, lineages);
        }
        for s in &self.snapshots {
            join(&s.namespace, BTreeSet::from([s.lineage]));
        }
        for (namespace, sets) in kin {
            let Some(most) = sets.iter().map(|set| self.files(set)).max() else {
                continue;
            };
            let mut spared = false;
            for set in &sets {
                if !spared && self.files(set) == most {
                    spared = true;
                    continue;
                }
                let files = self.places(set);
                self.wrong(
                    Wrong::Foreign,
                    files.first().cloned(),
                    format!(
                        "{} file(s) of namespace {namespace} are of a history that has nothing in common with the others",
                        files.len()
                    ),
                );
            }
        }
    }

    fn places(&self, lineages: &BTreeSet<LineageId>) -> Vec<String> {
        let segments = self.read.iter().filter(|s| lineages.contains(&s.lineage()));
        let snapshots = self
            .snapshots
            .iter()
            .filter(|s| lineages.contains(&s.lineage));
        segments
            .map(|s| s.found.place.to_string())
            .chain(snapshots.map(|s| s.file.to_string()))
            .collect()
    }

    fn files(&self, lineages: &BTreeSet<LineageId>) -> usize {
        self.places(lineages).len()
    }
}

/// Reads a segment, once more for every further fork in it.
fn read_with_forks(
    disk: &dyn Disk,
    found: &Found,
    forks: &BTreeSet<Lsn>,
) -> Result<ReadSegment, String> {
    let mut reading = None;
    let mut ends = BTreeMap::new();
    for fork in forks.iter().copied().chain([Lsn::MAX]) {
        let read = read_again(disk, &found.place, Ask { fork, ..Ask::ALL })?;
        ends.extend(read.fork.map(|(mark, chain)| (mark.lsn, (mark, chain))));
        if fork >= read.last.map_or(Lsn::ZERO, |m| m.lsn) {
            reading = Some(read);
            break;
        }
    }
    let reading = reading.ok_or("it changed while it was read")?;
    Ok(ReadSegment {
        found: found.clone(),
        reading,
        ends,
    })
}

fn read_again(disk: &dyn Disk, place: &Place, ask: Ask) -> Result<Reading, String> {
    let mut read = Err("it is gone since it was found".to_owned());
    walk::visit(disk, &place.file, &mut |thing| {
        if thing.place != place {
            return ControlFlow::Continue(());
        }
        read = reading::read(thing.body, ask, &mut |_| {}).map_err(|e| e.to_string());
        ControlFlow::Break(())
    })
    .map_err(|e| e.to_string())?;
    read
}

/// Proves the bytes by the trailer and each entry by its own checksum; how many entries.
fn walk_entries(disk: &dyn Disk, snapshot: &Snapshot) -> Result<Option<u64>, String> {
    let what = &snapshot.what;
    if snapshot.proof != Proof::Proven {
        let file = disk
            .open(&snapshot.place.file, Access::Read)
            .map_err(|e| e.to_string())?;
        let source = FileSource(file);
        if snapshot.proof == Proof::Certified {
            what.verify(&source).map_err(|e| e.to_string())?;
        }
        let image = Image::open(&source).map_err(|e| e.to_string())?;
        image.scan().map_err(|e| e.to_string())?;
        let walked = Stored::of(&image)?.walk(&image, &mut |_| {})?;
        return Ok(Some(walked.entries));
    }
    if snapshot.bytes > UNPACK_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let mut read = Ok(0);
    walk::visit(disk, &snapshot.place.file, &mut |thing| {
        if *thing.place != snapshot.place {
            return ControlFlow::Continue(());
        }
        read = thing.body.take(UNPACK_BYTES + 1).read_to_end(&mut bytes);
        ControlFlow::Break(())
    })
    .and(read)
    .map_err(|e| e.to_string())?;
    let image = Image::open(&bytes).map_err(|e| e.to_string())?;
    image.scan().map_err(|e| e.to_string())?;
    let stored = Stored::of(&image)?;
    if let Some(why) = stored.contradicts(what) {
        return Err(why);
    }
    Ok(Some(stored.walk(&image, &mut |_| {})?.entries))
}
