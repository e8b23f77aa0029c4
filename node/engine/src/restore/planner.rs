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
use unisondb_types::{ClusterId, Lsn, SegmentId, Target};

use super::history::{self, History, Lineages};
use super::plan::{Base, Plan, Point, Problem};
use super::reading::{self, Ask};
use super::row::{self, Chosen, Group, Readings};
use super::sources::{Catalog, FileSource, Proof, Snapshot, Want, one_snapshot};
use super::stored::Stored;
use super::walk::{self, Place};
use super::{BaseFrom, Progress, Request, RestoreError, Watch, in_words, reached};

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
    cluster: ClusterId,
    warnings: Vec<String>,
}

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
        let row = row::lay(catalog.segments, &history)?;
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
            let Some(chosen) = row::choose_copy(group, &readings, &mut self.warnings)? else {
                continue;
            };
            let Some((last, _)) = chosen.reading.fork else {
                continue;
            };
            match (&before, &base) {
                (Some(before), _) => row::continues(before, &chosen)?,
                (None, Some(base)) => row::continues_base(base, &chosen)?,
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

fn cluster_of(catalog: &Catalog, history: &History) -> Option<ClusterId> {
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
