//! The segments of one history in a row: which copy of each serves, and whether each continues the
//! one before it by id, lineage, chain and CRC (P6).

use std::collections::BTreeMap;

use unisondb_types::{LineageId, Lsn, SegmentId, Stamp};

use super::RestoreError;
use super::history::History;
use super::plan::Step;
use super::reading::{Mark, Reading};
use super::sources::{Found, Snapshot};
use super::walk::Place;

/// All copies of one segment.
pub(super) struct Group {
    pub(super) id: SegmentId,
    pub(super) lineage: LineageId,
    pub(super) first_lsn: Lsn,
    /// Time of its first record, once it has one.
    pub(super) first_stamp: Option<Stamp>,
    pub(super) copies: Vec<Found>,
}

/// A segment that was read, from the copy that serves best.
pub(super) struct Chosen<'p> {
    pub(super) group: &'p Group,
    pub(super) place: &'p Place,
    pub(super) reading: &'p Reading,
}

/// What reading each copy showed, or why it cannot be read.
pub(super) type Readings = BTreeMap<Place, Result<Reading, String>>;

impl Chosen<'_> {
    /// What is replayed of it: from behind `after` to `stop`.
    pub(super) fn step(&self, after: Lsn, stop: Mark) -> Step {
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

/// Lays the segments of a history in a row.
pub(super) fn lay(segments: Vec<Found>, history: &History) -> Result<Vec<Group>, RestoreError> {
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
pub(super) fn choose_copy<'p>(
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
pub(super) fn continues(before: &Chosen<'_>, next: &Chosen<'_>) -> Result<(), RestoreError> {
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
pub(super) fn continues_base(base: &Snapshot, next: &Chosen<'_>) -> Result<(), RestoreError> {
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
