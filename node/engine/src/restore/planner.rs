//! How a [`Plan`] is found: which history, which base, which segments, and whether they lead to
//! the target without a hole.
//!
//! Headers and first records suffice to lay the segments of a history in a row; only those between
//! base and target are then read in full. Each must continue the one before it by id, lineage and
//! chain: a foreign, swapped or altered file cannot stand in the row (P6).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

use unisondb_platform::{Access, Disk};
use unisondb_store::image::Image;
use unisondb_types::{LineageId, Lsn, SegmentId, Stamp, Target};

use super::history::{self, History, Lineages};
use super::plan::{Base, Plan, Point, Problem, Step};
use super::reading::{self, Ask, Mark, Reading};
use super::sources::{Catalog, FileSource, Found, Proof, Snapshot, Want, one_snapshot};
use super::stored::Stored;
use super::walk::{self, Place};
use super::{BaseFrom, Progress, Request, RestoreError, Watch, in_words, reached};

/// All copies of one segment.
struct Group {
    id: SegmentId,
    lineage: LineageId,
    first_lsn: Lsn,
    /// Time of its first record, once it has one.
    first_stamp: Option<Stamp>,
    copies: Vec<Found>,
}

/// A segment that was read, from the copy that serves best.
struct Chosen<'p> {
    group: &'p Group,
    place: &'p Place,
    reading: &'p Reading,
}

pub(super) struct Planner<'r> {
    disk: &'r dyn Disk,
    request: &'r Request,
    watch: Watch<'r>,
    history: History,
    /// The segments of the history, by LSN.
    row: Vec<Group>,
    /// Snapshots on the history, within the target, the newest first.
    bases: Vec<Snapshot>,
    /// The earliest snapshot on the history.
    earliest: Option<Point>,
    newest_segment: SegmentId,
    cluster: unisondb_types::ClusterId,
    warnings: Vec<String>,
}

type Readings = BTreeMap<Place, Result<Reading, String>>;

impl<'r> Planner<'r> {
    /// Looks through the sources and chooses the history.
    pub(super) fn new(
        disk: &'r dyn Disk,
        request: &'r Request,
        watch: Watch<'r>,
    ) -> Result<Planner<'r>, RestoreError> {
        let mut roots: Vec<(PathBuf, Want)> = request
            .wal
            .iter()
            .map(|path| (path.clone(), Want::Segments))
            .collect();
        let mut forced = None;
        match &request.base {
            BaseFrom::File(file) => forced = Some(one_snapshot(disk, file)?),
            BaseFrom::Folders(folders) => {
                roots.extend(folders.iter().map(|path| (path.clone(), Want::Everything)));
            }
        }
        let mut catalog = Catalog::of(disk, &roots, watch)?;
        catalog.snapshots.extend(forced.clone());
        let mut warnings = Vec::new();
        for bad in &catalog.unusable {
            warnings.push(format!("{}: {}", bad.place, bad.why));
        }
        keep_namespace(&mut catalog, request, &mut warnings)?;

        let through = forced.as_ref().map(|s| (s.what.lineage, s.what.lsn));
        let (history, others) = history::choose(&lineages(&catalog), request.lineage, through)?;
        for other in others {
            warnings.push(format!(
                "lineage {other} ends here too and is not followed; --lineage {other} does"
            ));
        }
        let newest_segment = newest(&catalog);
        let cluster = cluster_of(&catalog, &history).ok_or(RestoreError::Nothing)?;
        let row = lay(catalog.segments, &history)?;
        let mut bases: Vec<_> = catalog
            .snapshots
            .into_iter()
            .filter(|s| history.holds(s.what.lineage, s.what.lsn))
            .collect();
        // Of two of the same LSN, the one that need not be unpacked.
        bases.sort_by_key(|s| (s.what.lsn, s.proof != Proof::Proven));
        bases.reverse();
        let earliest = bases.last().map(|s| Point {
            lsn: s.what.lsn,
            time: s.what.stamp,
        });
        let target = request.target;
        bases.retain(|s| target == Target::Immediate || target.includes(s.what.lsn, s.what.stamp));
        if let (Some(forced), true) = (&forced, bases.is_empty()) {
            return Err(RestoreError::BasePastTarget {
                place: forced.place.to_string(),
                lsn: forced.what.lsn,
                time: forced.what.stamp,
                asked: in_words(target),
            });
        }
        Ok(Planner {
            disk,
            request,
            watch,
            history,
            row,
            bases,
            earliest,
            newest_segment,
            cluster,
            warnings,
        })
    }

    /// Chooses the base and follows the row from it.
    pub(super) fn plan(mut self) -> Result<Plan, RestoreError> {
        let mut base = None;
        for snapshot in std::mem::take(&mut self.bases) {
            match prove(self.disk, &snapshot, self.watch) {
                Ok(()) => {
                    base = Some(snapshot);
                    break;
                }
                Err(why) if matches!(self.request.base, BaseFrom::File(_)) => {
                    let place = snapshot.place.to_string();
                    return Err(RestoreError::BadBase { place, why });
                }
                // An older one gives the same state, given the segments between.
                Err(why) => self.warnings.push(format!("{}: {why}", snapshot.place)),
            }
        }
        let mut plan = Plan {
            namespace: self.request.namespace.clone(),
            cluster: self.cluster,
            lineage: self.history.lineage(),
            target: self.request.target,
            base: base.as_ref().map(|s| Base {
                file: s.place.clone(),
                lsn: s.what.lsn,
                time: s.what.stamp,
                lineage: s.what.lineage,
                bytes: s.bytes,
                certified: s.proof != Proof::Bare,
            }),
            segments: Vec::new(),
            records: 0,
            reached: base.as_ref().map(|s| Point {
                lsn: s.what.lsn,
                time: s.what.stamp,
            }),
            problem: None,
            warnings: Vec::new(),
            newest_segment: self.newest_segment,
            snapshot: base,
        };
        if plan.base.is_none() && (self.begins() != Some(Lsn::FIRST) || self.immediate()) {
            plan.problem = Some(self.too_early());
        } else if !self.immediate() {
            self.follow(&mut plan)?;
        }
        plan.warnings = self.warnings;
        Ok(plan)
    }

    fn immediate(&self) -> bool {
        self.request.target == Target::Immediate
    }

    fn begins(&self) -> Option<Lsn> {
        self.row.first().map(|g| g.first_lsn)
    }

    fn too_early(&self) -> Problem {
        Problem::TooEarly {
            asked: in_words(self.request.target),
            earliest: self.earliest,
            log_begins: self.begins(),
        }
    }

    /// Follows the row from the base to the target, or to where it ends.
    fn follow(&mut self, plan: &mut Plan) -> Result<(), RestoreError> {
        let base = plan.snapshot.clone();
        let start = plan.reached.map_or(Lsn::ZERO, |p| p.lsn);
        let target = self.request.target;
        let from = self.first_needed(start, base.as_ref());
        let within = |g: &&Group| {
            g.first_stamp
                .is_none_or(|t| target.includes(g.first_lsn, t))
        };
        let wanted = self.row[from..].iter().take_while(within).count();
        let (needed, rest) = self.row[from..].split_at(wanted);
        let readings = self.read(needed)?;

        let mut before: Option<Chosen<'_>> = None;
        let mut past = false;
        let mut ended_at = from;
        for group in needed {
            let after = plan.reached.map_or(Lsn::ZERO, |p| p.lsn);
            if group.first_lsn > after.next() {
                break;
            }
            ended_at += 1;
            let Some(chosen) = choose_copy(group, &readings, &mut self.warnings)? else {
                continue;
            };
            let Some((last, _)) = chosen.reading.fork else {
                continue;
            };
            match (&before, &base) {
                (Some(before), _) => continues(before, &chosen)?,
                (None, Some(base)) => continues_base(base, &chosen)?,
                (None, None) => {}
            }
            let stop = chosen.reading.within.filter(|m| m.lsn > after);
            if let Some(stop) = stop {
                let step = chosen.step(after, stop);
                plan.records += step.last_lsn.get() - step.first_lsn.prev().get();
                plan.segments.push(step);
                plan.reached = Some(Point {
                    lsn: stop.lsn,
                    time: stop.stamp,
                });
            }
            if last.lsn > stop.map_or(after, |m| m.lsn) {
                past = true;
                break;
            }
            before = Some(chosen);
        }
        let next = self.row[from..].get(ended_at - from);
        let Some(end) = plan.reached else {
            plan.problem = Some(self.too_early());
            return Ok(());
        };
        // The first record behind the last one replayed need not be read to show that it is past.
        past |= next.is_some_and(|g| g.first_lsn == end.lsn.next() && g.first_stamp.is_some());
        let hole = next.filter(|g| g.first_lsn > end.lsn.next());
        let all_wanted = target == Target::Latest && rest.is_empty() && hole.is_some();
        if all_wanted || !reached(target, end.lsn, end.time, past) {
            plan.problem = Some(match hole {
                Some(group) => self.gap(plan, group),
                None => Problem::Short {
                    asked: in_words(target),
                    reached: end,
                },
            });
        }
        Ok(())
    }

    /// Index of the first segment of the row that may hold record `start + 1`.
    fn first_needed(&self, start: Lsn, base: Option<&Snapshot>) -> usize {
        let behind = self.row.partition_point(|g| g.first_lsn <= start.next());
        let Some(index) = behind.checked_sub(1) else {
            return 0;
        };
        let in_base = base.is_some_and(|b| {
            b.what.lineage == self.row[index].lineage && self.row[index].id <= b.whole_segment()
        });
        if in_base { behind } else { index }
    }

    fn gap(&self, plan: &Plan, behind: &Group) -> Problem {
        let end = plan.reached.map_or(Lsn::ZERO, |p| p.lsn);
        let header = &behind.copies[0].header;
        let to = header.predecessor.map_or(behind.id, |p| p.id);
        let last = plan.segments.last().map(|s| (s.lineage, s.segment));
        let base = plan
            .snapshot
            .as_ref()
            .map(|s| (s.what.lineage, s.whole_segment()));
        let from = match last.or(base) {
            Some((lineage, id)) if header.predecessor.is_some_and(|p| p.lineage == lineage) => {
                id.next().min(to)
            }
            // Ids between two lineages do not exist: only the last one missing is known.
            _ => to,
        };
        Problem::Gap {
            from_segment: from,
            to_segment: to,
            from_lsn: end.next(),
            to_lsn: behind.first_lsn.prev(),
            reached: plan.reached,
        }
    }

    /// Reads every copy of these segments in full, each file once.
    fn read(&self, groups: &[Group]) -> Result<Readings, RestoreError> {
        let mut files: BTreeMap<PathBuf, BTreeMap<Place, Ask>> = BTreeMap::new();
        for copy in groups.iter().flat_map(|g| &g.copies) {
            let ask = Ask {
                fork: self.history.at(copy.header.first_lsn).1,
                target: self.request.target,
            };
            files
                .entry(copy.place.file.clone())
                .or_default()
                .insert(copy.place.clone(), ask);
        }
        let mut readings = Readings::new();
        (self.watch)(Progress::Begin("reading segments", files.len() as u64));
        for (file, mut wanted) in files {
            let seen = walk::visit(self.disk, &file, &mut |thing| {
                if let Some(ask) = wanted.remove(thing.place) {
                    let read = reading::read(thing.body, ask, &mut |_| {});
                    readings.insert(thing.place.clone(), read.map_err(|e| e.to_string()));
                }
                if wanted.is_empty() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            let why = match seen {
                Ok(_) => "it is gone since it was found".to_owned(),
                Err(e) => e.to_string(),
            };
            readings.extend(wanted.into_keys().map(|place| (place, Err(why.clone()))));
            (self.watch)(Progress::Done(1));
        }
        Ok(readings)
    }
}

impl Chosen<'_> {
    fn step(&self, after: Lsn, stop: Mark) -> Step {
        let r = self.reading;
        Step {
            segment: self.group.id,
            lineage: self.group.lineage,
            file: self.place.clone(),
            first_lsn: after.next(),
            last_lsn: stop.lsn,
            last_time: stop.stamp,
            sealed: r.footer.is_some(),
            bytes: if r.footer.is_some() {
                r.bytes
            } else {
                r.content_bytes
            },
            content_bytes: r.content_bytes,
            content_sha256: r.content_sha256,
            record: self.group.copies.iter().find_map(|c| c.record.clone()),
        }
    }
}

/// Leaves out what belongs to other namespaces, and says so.
fn keep_namespace(
    catalog: &mut Catalog,
    request: &Request,
    warnings: &mut Vec<String>,
) -> Result<(), RestoreError> {
    let wanted = &request.namespace;
    let mut found = BTreeSet::new();
    let mut keep = |namespace: &unisondb_types::Namespace, place: &Place| {
        if namespace == wanted {
            return true;
        }
        found.insert(namespace.to_string());
        warnings.push(format!(
            "{place} belongs to namespace {namespace}; it is left aside"
        ));
        false
    };
    catalog
        .segments
        .retain(|s| keep(&s.header.namespace, &s.place));
    catalog
        .snapshots
        .retain(|s| keep(&s.what.namespace, &s.place));
    if !catalog.segments.is_empty() || !catalog.snapshots.is_empty() {
        return Ok(());
    }
    match (found.is_empty(), catalog.unusable.first()) {
        (false, _) => Err(RestoreError::OtherNamespaces {
            wanted: wanted.clone(),
            found: found.into_iter().collect(),
        }),
        (true, Some(bad)) => Err(RestoreError::BadBase {
            place: bad.place.clone(),
            why: bad.why.clone(),
        }),
        (true, None) => Err(RestoreError::Nothing),
    }
}

fn lineages(catalog: &Catalog) -> Lineages {
    let mut all = Lineages::new();
    for s in &catalog.segments {
        let seen = all.entry(s.header.lineage).or_default();
        seen.newest = seen.newest.max(s.header.id);
        seen.record = seen.record.take().or_else(|| s.record.clone());
    }
    for s in &catalog.snapshots {
        let seen = all.entry(s.what.lineage).or_default();
        seen.newest = seen.newest.max(s.what.segment);
        seen.record = seen.record.take().or_else(|| s.record.clone());
    }
    all
}

fn newest(catalog: &Catalog) -> SegmentId {
    let segments = catalog.segments.iter().map(|s| s.header.id);
    let snapshots = catalog
        .snapshots
        .iter()
        .map(|s| s.what.segment.max(s.what.next_segment));
    segments.chain(snapshots).max().unwrap_or(SegmentId::ZERO)
}

fn cluster_of(catalog: &Catalog, history: &History) -> Option<unisondb_types::ClusterId> {
    let segments = catalog
        .segments
        .iter()
        .map(|s| (s.header.lineage, s.header.cluster));
    let snapshots = catalog
        .snapshots
        .iter()
        .map(|s| (s.what.lineage, s.what.cluster));
    let mut all = segments.chain(snapshots);
    all.find(|(lineage, _)| *lineage == history.lineage())
        .map(|(_, cluster)| cluster)
}

/// Lays the segments of a history in a row.
fn lay(segments: Vec<Found>, history: &History) -> Result<Vec<Group>, RestoreError> {
    let mut row: BTreeMap<(Lsn, SegmentId), Group> = BTreeMap::new();
    for found in segments {
        let h = &found.header;
        if history.at(h.first_lsn).0 != h.lineage {
            continue;
        }
        let group = row.entry((h.first_lsn, h.id)).or_insert_with(|| Group {
            id: h.id,
            lineage: h.lineage,
            first_lsn: h.first_lsn,
            first_stamp: None,
            copies: Vec::new(),
        });
        if let Some(one) = group
            .copies
            .first()
            .filter(|one| one.header != found.header)
        {
            return Err(differ(group.id, &one.place, &found.place));
        }
        group.first_stamp = group.first_stamp.or(found.first_stamp);
        group.copies.push(found);
    }
    let row: Vec<_> = row.into_values().collect();
    // Along a history both rise; of the same id with two beginnings, one is not what it says.
    for pair in row.windows(2) {
        let same = pair[0].lineage == pair[1].lineage;
        if same && (pair[0].id >= pair[1].id || pair[0].first_lsn == pair[1].first_lsn) {
            return Err(differ(
                pair[1].id,
                &pair[0].copies[0].place,
                &pair[1].copies[0].place,
            ));
        }
    }
    Ok(row)
}

fn differ(segment: SegmentId, one: &Place, other: &Place) -> RestoreError {
    RestoreError::Differs {
        segment,
        one: one.to_string(),
        other: other.to_string(),
    }
}

/// The copy that goes furthest, sealed rather than not; `None` when no copy holds a record.
/// Sealed copies must be the same bytes, unless a fork has cut them.
fn choose_copy<'p>(
    group: &'p Group,
    readings: &'p Readings,
    warnings: &mut Vec<String>,
) -> Result<Option<Chosen<'p>>, RestoreError> {
    let mut whole: Option<&Chosen<'_>> = None;
    let mut good: Vec<Chosen<'_>> = Vec::new();
    let mut bad = None;
    for copy in &group.copies {
        match &readings[&copy.place] {
            Ok(reading) => good.push(Chosen {
                group,
                place: &copy.place,
                reading,
            }),
            Err(why) => {
                warnings.push(format!("{}: {why}", copy.place));
                bad = Some((copy.place.to_string(), why.clone()));
            }
        }
    }
    for chosen in &good {
        if chosen.reading.footer.is_none_or(|f| f.cut_by.is_some()) {
            continue;
        }
        if let Some(first) = whole.filter(|w| w.reading.footer != chosen.reading.footer) {
            return Err(differ(group.id, first.place, chosen.place));
        }
        whole.get_or_insert(chosen);
    }
    let best = good.into_iter().max_by_key(|c| {
        (
            c.reading.last.map(|m| m.lsn),
            c.reading.footer.is_some(),
            c.place.member.is_none(),
        )
    });
    match (best, bad) {
        (Some(best), _) => {
            if let Some(torn) = &best.reading.torn {
                warnings.push(format!("{} is not whole: {torn}", best.place));
            }
            Ok(best.reading.last.is_some().then_some(best))
        }
        (None, Some((place, why))) => Err(RestoreError::Damaged {
            segment: group.id,
            place,
            why,
        }),
        (None, None) => Ok(None),
    }
}

/// Whether `next` continues `before` by id, lineage, chain and CRC.
fn continues(before: &Chosen<'_>, next: &Chosen<'_>) -> Result<(), RestoreError> {
    let broken = |why: String| {
        Err(RestoreError::Broken {
            segment: next.group.id,
            place: next.place.to_string(),
            why,
        })
    };
    let header = &next.reading.header;
    let Some((end, chain)) = before
        .reading
        .fork
        .filter(|(m, _)| m.lsn.next() == header.first_lsn)
    else {
        // It does not begin where that one ends: a gap, and named as one.
        return Ok(());
    };
    let Some(said) = header.predecessor else {
        return broken(format!(
            "its header names no predecessor, segment {} is one",
            before.group.id
        ));
    };
    let same_lineage = said.lineage == header.lineage;
    if said.lineage != before.group.lineage || (said.id != before.group.id && same_lineage) {
        return broken(format!(
            "its header names segment {} of lineage {} as the one before, {} of {} is there",
            said.id, said.lineage, before.group.id, before.group.lineage
        ));
    }
    let chain = if same_lineage {
        chain
    } else {
        // A lineage that was begun from a snapshot may know its parent's chain only up to the end
        // of the parent's last whole segment.
        let record = next.group.copies.iter().find_map(|c| c.record.as_ref());
        match record.and_then(|r| r.parent.as_ref()).map(|p| p.chain_lsn) {
            Some(lsn) if lsn == end.lsn => chain,
            Some(lsn) if lsn.next() == before.group.first_lsn => {
                before.reading.header.chain_before()
            }
            _ => return Ok(()),
        }
    };
    if said.chain != chain {
        return broken(format!(
            "its header says that the chain before it is {}, it is {chain}: {} is not the segment that it was written after",
            said.chain, before.place
        ));
    }
    if same_lineage && header.crc_seed != end.crc {
        return broken(format!(
            "CRC {:08x} should be {:08x}",
            header.crc_seed, end.crc
        ));
    }
    Ok(())
}

/// Whether the log at hand is the one that the base was made from.
fn continues_base(base: &Snapshot, next: &Chosen<'_>) -> Result<(), RestoreError> {
    let header = &next.reading.header;
    let known = base.what.chain_lsn.next() == header.first_lsn
        && base.what.lineage == header.lineage
        && header
            .predecessor
            .is_some_and(|p| p.lineage == header.lineage);
    if known && header.chain_before() != base.what.chain {
        return Err(RestoreError::Broken {
            segment: next.group.id,
            place: next.place.to_string(),
            why: format!(
                "its header says that the chain before it is {}, the base {} says {}",
                header.chain_before(),
                base.place,
                base.what.chain
            ),
        });
    }
    Ok(())
}

/// Proves the bytes of a snapshot: by its trailer, or entry by entry.
fn prove(disk: &dyn Disk, snapshot: &Snapshot, watch: Watch<'_>) -> Result<(), String> {
    if snapshot.proof == Proof::Proven {
        return Ok(());
    }
    watch(Progress::Begin("proving the base", 1));
    let file = disk
        .open(&snapshot.place.file, Access::Read)
        .map_err(|e| e.to_string())?;
    let source = FileSource(file);
    match snapshot.proof {
        Proof::Proven => {}
        Proof::Certified => snapshot.what.verify(&source).map_err(|e| e.to_string())?,
        Proof::Bare => {
            let image = Image::open(&source).map_err(|e| e.to_string())?;
            image.scan().map_err(|e| e.to_string())?;
            Stored::of(&image)?.walk(&image, &mut |_| {})?;
        }
    }
    watch(Progress::Done(1));
    Ok(())
}
