//! [`History`]: which lineage each LSN belongs to, seen from one lineage. A restore begins a new
//! lineage, so what is found in folders may belong to many; exactly one line through them is
//! replayed, and this says which.
//!
//! ```text
//! L1  1 ────────── 66 ─ ─ ─ 80          seen from L3:  1..=66 is L1, 67..=90 is L2, then L3
//! L2              67 ───── 90 ─ ─       (what L1 and L2 wrote behind their forks is another past)
//! L3                      91 ─────
//! ```

use std::collections::BTreeMap;

use unisondb_types::{LineageId, LineageRecord, Lsn, SegmentId};

use super::RestoreError;

/// One line through all lineages, from LSN 1 to the newest record of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The lineage it is seen from.
    lineage: LineageId,
    /// Each lineage and the last LSN taken from it, oldest first; the last one has no end.
    spans: Vec<(LineageId, Lsn)>,
}

impl History {
    /// The history that `record` begins a new part of.
    pub fn of(record: &LineageRecord) -> History {
        let older = record.ancestors.iter().rev().map(|a| (a.lineage, a.fork));
        History {
            lineage: record.lineage,
            spans: older.chain([(record.lineage, Lsn::MAX)]).collect(),
        }
    }

    /// The history of a lineage of which nothing but the name is known.
    pub fn unknown(lineage: LineageId) -> History {
        History {
            lineage,
            spans: vec![(lineage, Lsn::MAX)],
        }
    }

    /// The lineage it is seen from.
    pub fn lineage(&self) -> LineageId {
        self.lineage
    }

    /// The lineage that wrote record `lsn` of this history, and the last LSN taken from it.
    pub fn at(&self, lsn: Lsn) -> (LineageId, Lsn) {
        let span = self.spans.iter().find(|(_, last)| lsn <= *last);
        *span.expect("the last span has no end")
    }

    /// Whether position `lsn` of `lineage` lies on this history.
    pub fn holds(&self, lineage: LineageId, lsn: Lsn) -> bool {
        self.spans
            .iter()
            .any(|(l, last)| *l == lineage && lsn <= *last)
    }

    /// Whether `lineage` is on it at all.
    pub fn names(&self, lineage: LineageId) -> bool {
        self.spans.iter().any(|(l, _)| *l == lineage)
    }
}

/// A lineage as far as the sources tell.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its first record, from its first segment or out of a snapshot.
    pub record: Option<LineageRecord>,
    /// The highest segment id of it.
    pub newest: SegmentId,
}

/// Every lineage that the sources hold anything of.
pub type Lineages = BTreeMap<LineageId, Seen>;

/// The history to restore: `wanted`, or else that of the one lineage that no other continues. Of
/// several, the one with the highest segment ids is the last that was begun here (P12), and the
/// others are given too, to be named. With `through`, only histories that hold that position (of a
/// base that must be used).
///
/// # Errors
/// [`RestoreError::NoLineage`] when `wanted` is not among them; [`RestoreError::Ambiguous`] when
/// ids do not tell which was begun last: they come from different places.
pub fn choose(
    lineages: &Lineages,
    wanted: Option<LineageId>,
    through: Option<(LineageId, Lsn)>,
) -> Result<(History, Vec<LineageId>), RestoreError> {
    let history = |lineage: LineageId, seen: &Seen| match &seen.record {
        Some(record) => History::of(record),
        None => History::unknown(lineage),
    };
    if let Some(wanted) = wanted {
        let seen = lineages.get(&wanted).ok_or(RestoreError::NoLineage {
            wanted,
            found: lineages.keys().copied().collect(),
        })?;
        return Ok((history(wanted, seen), Vec::new()));
    }
    let fits = |lineage: LineageId, seen: &Seen| {
        through.is_none_or(|(l, lsn)| history(lineage, seen).holds(l, lsn))
    };
    let all: Vec<_> = lineages
        .iter()
        .filter(|(l, seen)| fits(**l, seen))
        .collect();
    let continued = |lineage: &LineageId| {
        let mut records = all.iter().filter_map(|(_, seen)| seen.record.as_ref());
        records.any(|r| r.lineage != *lineage && r.ancestors.iter().any(|a| a.lineage == *lineage))
    };
    let mut last: Vec<_> = all.iter().filter(|(l, _)| !continued(l)).copied().collect();
    last.sort_by_key(|(_, seen)| seen.newest);
    let Some((lineage, seen)) = last.pop() else {
        return Err(RestoreError::Nothing);
    };
    if let Some((other, same)) = last.last()
        && same.newest.next_block() == seen.newest.next_block()
    {
        return Err(RestoreError::Ambiguous {
            lineages: vec![*lineage, **other],
        });
    }
    let others = last.iter().map(|(l, _)| **l).collect();
    Ok((history(*lineage, seen), others))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use unisondb_types::{Ancestor, ClusterId, LineageReason};

    fn id(n: u8) -> LineageId {
        LineageId::from_bytes([n; 16])
    }

    fn record(n: u8, ancestors: &[(u8, u64)]) -> LineageRecord {
        LineageRecord {
            cluster: ClusterId::from_bytes([9; 16]),
            namespace: "users".parse().unwrap(),
            lineage: id(n),
            parent: None,
            ancestors: ancestors
                .iter()
                .map(|&(l, fork)| Ancestor {
                    lineage: id(l),
                    fork: Lsn::new(fork),
                })
                .collect(),
            first_segment: SegmentId::FIRST,
            segment_size: 4096,
            members: vec![],
            reason: LineageReason::Created,
        }
    }

    fn seen(record: LineageRecord, newest: u64) -> (LineageId, Seen) {
        let lineage = record.lineage;
        (
            lineage,
            Seen {
                record: Some(record),
                newest: SegmentId::new(newest),
            },
        )
    }

    #[test]
    fn each_position_belongs_to_the_lineage_below_whose_fork_it_lies() {
        let h = History::of(&record(3, &[(2, 90), (1, 66)]));
        assert_eq!(h.at(Lsn::new(1)).0, id(1));
        assert_eq!(h.at(Lsn::new(66)), (id(1), Lsn::new(66)));
        assert_eq!(h.at(Lsn::new(67)), (id(2), Lsn::new(90)));
        assert_eq!(h.at(Lsn::new(91)), (id(3), Lsn::MAX));
        assert!(h.holds(id(1), Lsn::new(66)) && !h.holds(id(1), Lsn::new(67)));
        assert!(!h.holds(id(7), Lsn::new(1)));
    }

    #[test]
    fn a_fork_below_an_older_fork_leaves_the_lineage_between_out() {
        // L2 forked from L1 at 66, L3 from L2 at 60, which both have.
        let h = History::of(&record(3, &[(2, 60), (1, 60)]));
        assert_eq!(h.at(Lsn::new(60)).0, id(1));
        assert_eq!(h.at(Lsn::new(61)).0, id(3));
    }

    #[test]
    fn the_lineage_that_none_continues_is_chosen_and_of_several_the_newest() {
        let mut all = Lineages::from([
            seen(record(1, &[]), 9),
            seen(record(2, &[(1, 66)]), 1_000_000),
        ]);
        assert_eq!(choose(&all, None, None).unwrap().0.lineage(), id(2));
        assert_eq!(choose(&all, Some(id(1)), None).unwrap().0.lineage(), id(1));
        assert!(matches!(
            choose(&all, Some(id(7)), None),
            Err(RestoreError::NoLineage { .. })
        ));

        all.extend([seen(record(3, &[(1, 66)]), 2_000_003)]);
        // A base behind the fork of L1 is on no later history.
        let behind = choose(&all, None, Some((id(1), Lsn::new(67)))).unwrap();
        assert_eq!(behind.0.lineage(), id(1));
        let (history, others) = choose(&all, None, None).unwrap();
        assert_eq!((history.lineage(), others), (id(3), vec![id(2)]));

        all.extend([seen(record(4, &[(1, 50)]), 2_000_001)]);
        assert!(matches!(
            choose(&all, None, None),
            Err(RestoreError::Ambiguous { .. })
        ));
        assert!(matches!(
            choose(&Lineages::new(), None, None),
            Err(RestoreError::Nothing)
        ));
    }
}
