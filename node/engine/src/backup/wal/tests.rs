//! Which segments a WAL backup takes, and what it calls a gap.
#![allow(clippy::unwrap_used)]
use unisondb_types::{Chain, ClusterId, LineageId, Lsn, Stamp, Term};
use unisondb_wal::{Predecessor, SegmentHeader};

use super::*;

fn info(id: u64, before: Option<u64>, state: SegmentState) -> SegmentInfo {
    let lineage = LineageId::from_bytes([1; 16]);
    SegmentInfo {
        id: SegmentId::new(id),
        state,
        header: SegmentHeader {
            id: SegmentId::new(id),
            segment_size: 4096,
            cluster: ClusterId::from_bytes([2; 16]),
            namespace: "users".parse().unwrap(),
            lineage,
            first_lsn: Lsn::new(id),
            predecessor: before.map(|b| Predecessor {
                id: SegmentId::new(b),
                lineage,
                chain: Chain::ZERO,
            }),
            crc_seed: 0,
        },
        last_lsn: Some(Lsn::new(id)),
        first_stamp: Stamp::ZERO,
        last_stamp: Stamp::ZERO,
        last_term: Term::new(1),
        last_crc: 0,
        records: 1,
        bytes: 300,
        user_data: true,
        vouched: Lsn::new(id),
        chain: None,
        digest: None,
        sha256: None,
        cut_by: None,
    }
}

/// Sealed segments, each with what its header names before it.
fn held(ids: &[(u64, u64)]) -> Vec<SegmentInfo> {
    ids.iter()
        .map(|&(id, before)| info(id, (before > 0).then_some(before), SegmentState::Sealed))
        .collect()
}

fn ids(segments: &[SegmentInfo], after: u64) -> Result<Vec<u64>, String> {
    let wanted = wanted(segments, SegmentId::new(after));
    wanted
        .map(|w| w.iter().map(|s| s.id.get()).collect())
        .map_err(|e| e.to_string())
}

#[test]
fn only_sealed_segments_strictly_above_are_wanted() {
    let mut segments = held(&[(1, 0), (2, 1), (3, 2)]);
    segments.push(info(4, Some(3), SegmentState::Rolled));
    segments.push(info(5, Some(4), SegmentState::Active));
    assert_eq!(ids(&segments, 0), Ok(vec![1, 2, 3]));
    assert_eq!(ids(&segments, 1), Ok(vec![2, 3]));
    assert_eq!(ids(&segments, 3), Ok(vec![]));
    assert_eq!(ids(&segments, 4), Ok(vec![]));
    assert_eq!(ids(&segments, u64::MAX), Ok(vec![]));
}

#[test]
fn purged_segments_are_a_gap_unless_all_are_asked_for() {
    let segments = held(&[(52, 51), (53, 52)]);
    assert_eq!(ids(&segments, 0), Ok(vec![52, 53]));
    assert_eq!(ids(&segments, 51), Ok(vec![52, 53]));
    assert_eq!(
        ids(&segments, 42),
        Err("wal gap: segments 43-51 are no longer here".to_owned())
    );
    assert_eq!(
        ids(&segments, 50),
        Err("wal gap: segments 51-51 are no longer here".to_owned())
    );
    let Err(BackupError::Gap {
        first_available, ..
    }) = wanted(&segments, SegmentId::new(42))
    else {
        panic!("not a gap");
    };
    assert_eq!(first_available, SegmentId::new(52));
}

#[test]
fn a_log_that_begins_behind_a_gap_names_it_before_anything_is_sealed() {
    let segments = [info(52, Some(51), SegmentState::Active)];
    assert_eq!(ids(&segments, 0), Ok(vec![]));
    assert_eq!(ids(&segments, 51), Ok(vec![]));
    assert_eq!(ids(&segments, 52), Ok(vec![]));
    assert_eq!(
        ids(&segments, 42),
        Err("wal gap: segments 43-51 are no longer here".to_owned())
    );
}

#[test]
fn a_segment_missing_in_the_middle_is_a_gap() {
    let segments = held(&[(1, 0), (2, 1), (5, 4), (6, 5)]);
    assert_eq!(
        ids(&segments, 1),
        Err("wal gap: segments 3-4 are no longer here".to_owned())
    );
    assert_eq!(ids(&segments, 4), Ok(vec![5, 6]));
}

#[test]
fn ids_between_two_lineages_are_not_missing() {
    // A lineage forked inside segment 7, and one forked from that at its second segment.
    let segments = held(&[
        (6, 5),
        (7, 6),
        (1_000_000, 7),
        (1_000_001, 1_000_000),
        (2_000_000, 1_000_001),
    ]);
    assert_eq!(
        ids(&segments, 6),
        Ok(vec![7, 1_000_000, 1_000_001, 2_000_000])
    );
    assert_eq!(ids(&segments, 7).unwrap()[0], 1_000_000);
    assert_eq!(
        ids(&segments, 9).unwrap()[0],
        1_000_000,
        "what the parent wrote behind the fork"
    );
    // Without the segments of the first fork's lineage.
    let segments = held(&[(2_000_000, 1_000_004)]);
    assert_eq!(
        ids(&segments, 7),
        Err("wal gap: segments 1000000-1000004 are no longer here".to_owned())
    );
    // Forked from a snapshot alone: no segment before it was ever known.
    assert_eq!(ids(&held(&[(1_000_000, 0)]), 7), Ok(vec![1_000_000]));
}
