//! Which of the segments in `wal/` continue the state, and what is missing among them.

use unisondb_types::{LineageId, Lsn, Namespace, SegmentId, Target};
use unisondb_wal::SegmentState;

use super::StartError;
use super::findings::{Findings, Found};

/// Which segments continue the state.
pub(super) struct Path {
    /// By id; the records of each count up to the next one's first.
    pub(super) keep: Vec<SegmentId>,
    /// The rest.
    pub(super) aside: Vec<SegmentId>,
    /// Those among the rest of another namespace or cluster.
    pub(super) foreign: Vec<SegmentId>,
    /// What is missing between the state and the first kept segment, or above the last.
    gap: Option<Gap>,
    /// What is missing below all that the state needs, with more segments below that.
    pub(super) hole_below: Option<(SegmentId, SegmentId)>,
    /// What is missing behind the target, where nothing is needed any more.
    pub(super) hole_behind: Option<(SegmentId, SegmentId)>,
    /// Whether the target lies in the last kept segment: what is behind it is not needed.
    pub(super) to_target: bool,
    /// Segments wholly below what the state needs that were sealed and are so no more: cut, or rotten at
    /// their ends.
    pub(super) unsealed_below: Vec<SegmentId>,
}

/// Why the log cannot be followed all the way.
#[derive(Clone)]
enum Gap {
    /// Nothing of ours is there under these names.
    Missing(SegmentId, SegmentId),
    /// A file is there and cannot be read: which, what is wrong with it, and why it matters.
    Damaged(SegmentId, String, &'static str),
}

impl Gap {
    /// Segments below this one lie before the gap.
    fn begin(&self) -> SegmentId {
        match self {
            Gap::Missing(from, _) => *from,
            Gap::Damaged(id, ..) => *id,
        }
    }
}

/// The path to a target, and not beyond it: what lies behind the segment that the target is in may be
/// missing or damaged.
pub(super) fn to_target(
    found: &Findings,
    namespace: &Namespace,
    target: Target,
) -> Result<Path, StartError> {
    let whole = path(found, namespace)?;
    let mut hole = whole.gap.clone();
    while let Some(behind) = hole {
        let part = below(found, namespace, Some(behind.begin()))?;
        // Of a lineage that others have left, what lies behind the fork is another history.
        let left_at = part.left_at(found, behind.begin());
        if part.gap.is_none() && part.leads_to(found, target, left_at) {
            let hole_behind = match behind {
                Gap::Missing(from, to) => Some((from, to)),
                Gap::Damaged(..) => None,
            };
            return Ok(Path {
                hole_behind,
                to_target: true,
                ..part
            }
            .up_to(found, target));
        }
        hole = part.gap;
    }
    Ok(match whole.gap {
        None => whole.up_to(found, target),
        Some(_) => whole,
    })
}

/// Follows the newest lineage that continues the state, from its last segment down through the
/// predecessors in the headers.
pub(super) fn path(found: &Findings, namespace: &Namespace) -> Result<Path, StartError> {
    below(found, namespace, None)
}

/// The same, of the segments below `bound` alone.
fn below(
    found: &Findings,
    namespace: &Namespace,
    bound: Option<SegmentId>,
) -> Result<Path, StartError> {
    let cluster = found.db.state().map(|s| s.position.cluster).or_else(|| {
        let ours = found
            .segments
            .values()
            .rev()
            .find(|s| s.info.header.namespace == *namespace);
        ours.map(|s| s.info.header.cluster)
    });
    let foreign: Vec<SegmentId> = found
        .segments
        .iter()
        .filter(|(_, s)| {
            s.info.header.namespace != *namespace || Some(s.info.header.cluster) != cluster
        })
        .map(|(id, _)| *id)
        .collect();
    let all = || found.segments.keys().copied();
    let ours = found
        .segments
        .iter()
        .filter(|(id, _)| !foreign.contains(id) && bound.is_none_or(|b| **id < b));
    let unknown_above = |tip| match bound {
        None => unknown_above(found, &foreign, tip),
        Some(_) => None,
    };
    let nothing = |gap| Path {
        keep: Vec::new(),
        aside: all().collect(),
        foreign: foreign.clone(),
        gap,
        hole_below: None,
        hole_behind: None,
        to_target: false,
        unsealed_below: Vec::new(),
    };
    let Some((tip, _)) = ours.clone().rev().find(|(_, s)| continues(found, s)) else {
        return Ok(nothing(unknown_above(SegmentId::ZERO)));
    };
    let at = found.stands_at();
    let mut keep = vec![*tip];
    let mut gap = None;
    let mut hole_below = None;
    let mut segment = &found.segments[tip];
    while let Some(before) = segment
        .info
        .header
        .predecessor
        .filter(|p| p.id > SegmentId::ZERO)
    {
        match found.segments.get(&before.id) {
            Some(s) if s.info.header.lineage == before.lineage => {
                keep.push(before.id);
                segment = s;
            }
            _ => {
                if segment.info.header.first_lsn > at.next() {
                    gap = Some(match found.bad.get(&before.id) {
                        Some(damaged) => Gap::Damaged(
                            before.id,
                            damaged.to_string(),
                            "Records behind it are here",
                        ),
                        None => Gap::Missing(lowest_missing(found, &foreign, before.id), before.id),
                    });
                } else if found
                    .segments
                    .range(..before.id)
                    .any(|(id, _)| !foreign.contains(id))
                {
                    hole_below = Some((lowest_missing(found, &foreign, before.id), before.id));
                }
                break;
            }
        }
    }
    keep.reverse();
    for id in &keep {
        follows(found, &found.segments[id])?;
    }
    gap = gap.or_else(|| unknown_above(*tip));
    // A log that ends below the state says nothing about what follows it.
    let last = end_of(&found.segments[tip]);
    if gap.is_none() && last < at {
        return Ok(nothing(None));
    }
    let unsealed_below = take_unsealed(found, &mut keep);
    let left = |id: &SegmentId| !keep.contains(id) && !unsealed_below.contains(id);
    let aside = all().filter(left).collect();
    Ok(Path {
        keep,
        aside,
        foreign,
        gap,
        hole_below,
        hole_behind: None,
        to_target: false,
        unsealed_below,
    })
}

/// Takes out of `keep` a segment that is sealed no more although one behind it is (so it once was), if the
/// state needs none of its records; with all before it, since nothing leads to those any more.
fn take_unsealed(found: &Findings, keep: &mut Vec<SegmentId>) -> Vec<SegmentId> {
    let sealed = |id: &SegmentId| found.segments[id].info.state == SegmentState::Sealed;
    let Some(last_sealed) = keep.iter().rposition(sealed) else {
        return Vec::new();
    };
    let Some(worst) = keep[..last_sealed].iter().rposition(|id| !sealed(id)) else {
        return Vec::new();
    };
    // The next one's records are needed first: up to where it begins nothing is.
    let next = &found.segments[&keep[worst + 1]].info.header;
    if next.first_lsn > found.stands_at().next() {
        return Vec::new();
    }
    let before: Vec<SegmentId> = keep.drain(..=worst).collect();
    before.into_iter().filter(|id| !sealed(id)).collect()
}

/// Whether a segment's lineage holds the state (without a state: reaches back to LSN 1).
fn continues(found: &Findings, segment: &Found) -> bool {
    let lineage: LineageId = segment.info.header.lineage;
    match found.db.state() {
        None => true,
        Some(s) if s.position.lineage == lineage => true,
        Some(s) => found
            .history(lineage)
            .is_some_and(|h| h.holds(s.position.lineage, s.position.lsn)),
    }
}

/// A segment that begins just behind the state must begin behind this very state: the record before it
/// need not be here to be compared. In the same lineage the first frame is sealed to the one before;
/// a new lineage's record names the state that it was begun from.
fn follows(found: &Findings, segment: &Found) -> Result<(), StartError> {
    let Some(state) = found.db.state() else {
        return Ok(());
    };
    let (p, header) = (&state.position, &segment.info.header);
    if header.first_lsn != p.lsn.next() {
        return Ok(());
    }
    let why = match (header.predecessor, found.lineages.get(&header.lineage)) {
        (_, _) if header.lineage == p.lineage && header.crc_seed != p.crc => Some(format!(
            "it follows a record with CRC {:08x}, the state's last one has {:08x}",
            header.crc_seed, p.crc
        )),
        (Some(before), _)
            if p.chain_lsn == p.lsn && before.lineage == p.lineage && before.chain != p.chain =>
        {
            Some(format!(
                "it follows the chain {}, the state's is {}",
                before.chain, p.chain
            ))
        }
        (_, Some(record)) if header.lineage != p.lineage => record.parent.as_ref().and_then(|parent| {
            let forked = (parent.lineage, parent.fork, parent.term, parent.digest);
            (forked.0 == p.lineage && forked != (p.lineage, p.lsn, p.term, p.digest)).then(|| {
                format!(
                    "its lineage was begun from LSN {} with digest {}, the state is at LSN {} with digest {}",
                    parent.fork, parent.digest, p.lsn, p.digest
                )
            })
        }),
        _ => None,
    };
    match why {
        None => Ok(()),
        Some(why) => Err(StartError::Refused(format!(
            "segment {} begins just behind the state at LSN {}, but does not continue it: {why}. The log belongs to another history; nothing was changed. Way out: empty wal/, or put the segments of this history there, then start again",
            header.id, p.lsn
        ))),
    }
}

/// A lineage above `tip` whose first segment is not here, or not readable: nobody can say whether
/// it continues this state, and passing it over could drop what was acknowledged in it (P11).
fn unknown_above(found: &Findings, foreign: &[SegmentId], tip: SegmentId) -> Option<Gap> {
    let state = found.db.state()?;
    let unknown = found
        .segments
        .range(tip.next()..)
        .filter(|(id, _)| !foreign.contains(id))
        .find(|(_, s)| {
            let lineage = s.info.header.lineage;
            lineage != state.position.lineage && found.history(lineage).is_none()
        });
    let (id, _) = unknown?;
    let begin = SegmentId::new(id.get() / SegmentId::LINEAGE_STEP * SegmentId::LINEAGE_STEP);
    if let Some((id, damaged)) = found.bad.range(begin..*id).next() {
        let why = "It begins a lineage, so nobody can say whether that continues the state";
        return Some(Gap::Damaged(*id, damaged.to_string(), why));
    }
    let last = SegmentId::new(id.get() - 1);
    (begin <= last).then_some(Gap::Missing(begin.max(SegmentId::FIRST), last))
}

/// The first id of a gap that ends with `missing`: behind the nearest lower segment that is here,
/// or behind the state's; at most back to where the lineage of `missing` numbers from.
fn lowest_missing(found: &Findings, foreign: &[SegmentId], missing: SegmentId) -> SegmentId {
    let begin = SegmentId::new(missing.get() / SegmentId::LINEAGE_STEP * SegmentId::LINEAGE_STEP);
    let lower = found
        .segments
        .range(..missing)
        .rfind(|(id, _)| !foreign.contains(id))
        .map(|(id, _)| id.next());
    let in_state = found.db.state().map(|s| {
        let p = &s.position;
        if p.segment_ended {
            p.segment.next()
        } else {
            p.segment
        }
    });
    [lower, in_state]
        .into_iter()
        .flatten()
        .filter(|id| (begin..=missing).contains(id))
        .max()
        .unwrap_or(begin.max(SegmentId::FIRST))
}

/// The last record at or before the end of a segment. One that has just begun has none of its own:
/// the log ends with the record before it.
fn end_of(segment: &Found) -> Lsn {
    let info = &segment.info;
    info.last_lsn.unwrap_or(info.header.first_lsn.prev())
}

impl Path {
    /// Segments too damaged to be told what they are, below all that is needed. (One above is not
    /// passed over: it may hold acknowledged records, so opening the log refuses and names it.)
    pub(super) fn damaged_below(&self, found: &Findings) -> Vec<SegmentId> {
        let first = self.keep.first().copied().unwrap_or(SegmentId::ZERO);
        found.bad.range(..first).map(|(id, _)| *id).collect()
    }

    /// Nothing is missing between the state and the end of the log.
    pub(super) fn whole(&self, found: &Findings) -> Result<(), StartError> {
        match &self.gap {
            None => Ok(()),
            Some(Gap::Damaged(_, damage, why)) => Err(StartError::DamagedSegment {
                damage: damage.clone(),
                why,
            }),
            Some(Gap::Missing(from, to)) => Err(StartError::Gap {
                from: *from,
                to: *to,
                at: found.stands_at(),
                foreign: Path::foreign_in(found, *from, *to),
                wal: found.places.wal.clone(),
            }),
        }
    }

    /// The newest segment of this namespace.
    pub(super) fn newest<'f>(&self, found: &'f Findings) -> Option<&'f Found> {
        let mut newest_first = found.segments.values().rev();
        newest_first.find(|s| !self.foreign.contains(&s.info.id))
    }

    /// A log of our own is whole and ends at or beyond our own state, at `at`. Damage at its end comes
    /// before what then seems to be missing.
    pub(super) fn reaches(&self, found: &Findings, at: Lsn) -> Result<(), StartError> {
        if self.end(found) >= at {
            return self.whole(found);
        }
        let newest = self.newest(found);
        let above = newest.map_or(SegmentId::ZERO, |s| s.info.id);
        let unreadable = found.bad.range(above..).next_back();
        let damage = unreadable
            .map(|(_, damage)| damage.to_string())
            .or_else(|| newest.and_then(|s| s.torn.clone()));
        if let Some(damage) = damage {
            return Err(StartError::DamagedSegment {
                damage,
                why: "The state was made of records behind that",
            });
        }
        self.whole(found)?;
        Err(StartError::Refused(format!(
            "the log in {} ends at LSN {}, but the state stands at LSN {at}: records are missing from it. Ways out: put the missing segments back, or empty wal/ to go on from the state in a new lineage",
            found.places.wal.display(),
            newest.map_or(Lsn::ZERO, end_of)
        )))
    }

    /// Without what lies behind the segment that the target is in, if the log could not be opened with
    /// it: a segment there is sealed no more although one behind it is.
    fn up_to(mut self, found: &Findings, target: Target) -> Path {
        let at = found.stands_at();
        let sealed = |id: &SegmentId| found.segments[id].info.state == SegmentState::Sealed;
        let holds_target = |id: &SegmentId| {
            let info = &found.segments[id].info;
            // Of a segment that is not sealed nobody knows before it is read.
            let last = info.last_lsn.filter(|last| sealed(id) && *last >= at);
            last.is_some_and(|last| match target {
                Target::Latest => false,
                Target::Immediate => true,
                Target::Lsn(n) => last >= n,
                Target::BeforeLsn(n) => last.next() >= n,
                Target::Time(t) => info.last_stamp > t,
                Target::BeforeTime(t) => info.last_stamp >= t,
            })
        };
        let Some(holds) = self.keep.iter().position(holds_target) else {
            return self;
        };
        let behind = &self.keep[holds + 1..];
        let last_sealed = behind.iter().rposition(sealed).unwrap_or(0);
        if behind[..last_sealed].iter().any(|id| !sealed(id)) {
            self.to_target = true;
            self.aside.extend(self.keep.drain(holds + 1..));
        }
        self
    }

    /// What lies under the names of missing segments and is another's, in words.
    fn foreign_in(found: &Findings, from: SegmentId, to: SegmentId) -> String {
        let whose = found.segments.range(from..=to).map(|(id, s)| {
            let h = &s.info.header;
            format!(
                ", but {} there is of lineage {} of namespace {} of cluster {}",
                id.file_name(),
                h.lineage,
                h.namespace,
                h.cluster
            )
        });
        whose.collect()
    }

    /// Where the newest history among the segments from `above` on has left the lineage of the last kept
    /// one, if it has.
    fn left_at(&self, found: &Findings, above: SegmentId) -> Option<(LineageId, Lsn)> {
        let lineage = found.segments[self.keep.last()?].info.header.lineage;
        let newest_first = found.segments.range(above..).rev();
        let ours = newest_first.filter(|(id, _)| !self.foreign.contains(id));
        let mut lineages = ours.map(|(_, s)| s.info.header.lineage).peekable();
        let newest = *lineages.peek()?;
        let mut histories = lineages.filter_map(|l| found.history(l)).peekable();
        if histories.peek().is_none() && newest != lineage {
            // Nobody can say where: nothing but the state counts.
            return Some((lineage, found.stands_at()));
        }
        let ancestor = histories.find_map(|h| h.ancestors.iter().find(|a| a.lineage == lineage));
        ancestor.map(|a| (lineage, a.fork))
    }

    /// Whether its records, up to where its lineage was left, reach or pass a target (as `udbctl restore`
    /// asks it of its plan).
    fn leads_to(
        &self,
        found: &Findings,
        target: Target,
        left_at: Option<(LineageId, Lsn)>,
    ) -> bool {
        let log_ends = self.end(found);
        let left_at = left_at.filter(|(_, fork)| *fork < log_ends);
        let end = left_at
            .map_or(log_ends, |(_, fork)| fork)
            .max(found.stands_at());
        let last = match left_at {
            Some(fork) => found.forks.get(&fork).copied(),
            None => {
                let last = self.keep.last();
                last.map(|id| found.segments[id].info.last_stamp)
            }
        };
        let stamp = last.or_else(|| found.db.state().map(|s| s.position.stamp));
        match target {
            Target::Latest => false,
            Target::Immediate => found.db.state().is_some(),
            Target::Lsn(n) => end >= n,
            Target::BeforeLsn(n) => end.next() >= n,
            Target::Time(t) | Target::BeforeTime(t) => stamp.is_some_and(|last| last >= t),
        }
    }

    /// The last record of the log.
    pub(super) fn end(&self, found: &Findings) -> Lsn {
        self.keep
            .last()
            .map_or(Lsn::ZERO, |id| end_of(&found.segments[id]))
    }
}
