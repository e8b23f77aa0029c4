//! Restores: a lineage forked from another, in the same folder; a restore of a restore.

use unisondb_types::{LineageRecord, Parent};

use super::*;
use crate::{Anchor, chain_at, cut, seal_file};

/// What a lineage record says of a fork that was taken from the segment itself.
fn parent(of: &LineageRecord, segment: u64, fork: u64, anchor: Anchor) -> Parent {
    Parent {
        lineage: of.lineage,
        fork: lsn(fork),
        term: anchor.term,
        stamp: anchor.stamp,
        digest: digest(9),
        segment: id(segment),
        chain: anchor.chain,
        chain_lsn: lsn(fork),
    }
}

#[test]
fn a_lineage_is_begun_once_and_the_same_again_does_nothing() {
    let machine = Machine::begun();
    let file = machine.file(&name(1));
    machine.begin(&created());
    assert_eq!(machine.file(&name(1)), file);
    let wal = machine.open();
    fill(&wal, 2);
    machine.begin(&created());
    let other = LineageRecord {
        lineage: lineage(2),
        ..created()
    };
    let exists = crate::begin(&machine.platform, &dir(), &other, TERM, time(0));
    assert!(matches!(exists, Err(Error::Exists(_))));
    assert_eq!(wal.read(lsn(1), 1).unwrap()[0].record.kind, Kind::Lineage);
}

#[test]
fn a_lineage_goes_on_from_a_fork_in_the_middle_of_an_unsealed_segment_and_again() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    let original = all(&wal, 1);
    let at = wal.segment_of(lsn(30)).unwrap();
    drop(wal);
    for n in 1..at.get() {
        seal_file(&machine.platform, &dir(), id(n), digest(1)).unwrap();
    }
    // What lies wholly behind the fork is set aside by whoever restores; here it just stays.
    let first = forked(
        2,
        &created(),
        parent(
            &created(),
            at.get(),
            30,
            chain_at(on(&machine), &path(at.get()), lsn(30)).unwrap(),
        ),
        id(1_000_000),
    );
    let info = cut(
        &machine.platform,
        &dir(),
        at,
        lsn(30),
        digest(9),
        first.lineage,
    )
    .unwrap();
    assert_eq!(
        (info.last_lsn, info.cut_by),
        (Some(lsn(30)), Some(lineage(2)))
    );
    assert_eq!(info.chain, Some(first.parent.as_ref().unwrap().chain));
    let again = cut(
        &machine.platform,
        &dir(),
        at,
        lsn(30),
        digest(9),
        first.lineage,
    )
    .unwrap();
    assert_eq!(again.chain, info.chain);
    crate::begin(&machine.platform, &dir(), &first, Term::new(2), time(5)).unwrap();
    let (wal, recovery) = machine.try_open(options(), 30).unwrap();
    assert_eq!((recovery.last, wal.active().id), (lsn(31), id(1_000_000)));
    for n in 0..40 {
        wal.append(Term::new(2), time(n), &[user(n, 200)]).unwrap();
    }
    wal.sync().unwrap();
    wal.commit(wal.last());
    let entries = all(&wal, 1);
    assert_eq!(entries[..30], original[..30]);
    assert_eq!(entries[30].record.kind, Kind::Lineage);
    assert!(entries[30].record.stamp > entries[29].record.stamp);
    assert_eq!(entries.len(), 71);
    // A restore of the restore, from a sealed segment, whose records behind the fork do not count.
    let next = wal
        .segments()
        .into_iter()
        .find(|s| s.id > id(1_000_000))
        .unwrap();
    wal.seal(id(1_000_000), digest(2)).unwrap();
    let fork = wal.segment(id(1_000_000)).unwrap().last_lsn.unwrap().get() - 2;
    drop(wal);
    let anchor = chain_at(on(&machine), &path(1_000_000), lsn(fork)).unwrap();
    let second = forked(
        3,
        &first,
        parent(&first, 1_000_000, fork, anchor),
        id(2_000_000),
    );
    crate::begin(&machine.platform, &dir(), &second, Term::new(2), time(5)).unwrap();
    let (wal, recovery) = machine.try_open(options(), fork).unwrap();
    assert!(
        recovery
            .strangers
            .iter()
            .any(|s| s.name == next.id.file_name()),
        "given up"
    );
    assert_eq!(recovery.last, lsn(fork + 1));
    fill_term(&wal, 20);
    let again = all(&wal, 1);
    let upto = usize::try_from(fork).unwrap();
    assert_eq!(again[..upto], entries[..upto]);
    assert_eq!(again[upto].segment, id(2_000_000));
    assert_eq!(wal.segment_of(lsn(fork)), Some(id(1_000_000)));
    assert_eq!(wal.segment_of(lsn(fork + 1)), Some(id(2_000_000)));
    let after = machine.crash(4).open();
    assert_eq!(all(&after, 1), again);
}

fn fill_term(wal: &Wal, count: u64) {
    for n in 0..count {
        wal.append(Term::new(2), time(n), &[user(n, 300)]).unwrap();
    }
    let durable = wal.sync().unwrap();
    wal.commit(durable);
}

#[test]
fn a_lineage_from_a_snapshot_without_segments_begins_a_log_of_its_own() {
    let machine = Machine::new();
    let anchor = Anchor {
        lsn: lsn(500),
        chain: unisondb_types::Chain::from_bytes([5; 32]),
        crc: 1,
        term: Term::new(4),
        stamp: time(900),
    };
    let mut p = parent(&created(), 0, 500, anchor);
    p.chain_lsn = lsn(450);
    let record = forked(2, &created(), p, id(1_000_000));
    crate::begin(&machine.platform, &dir(), &record, Term::new(5), time(0)).unwrap();
    let (wal, recovery) = machine.try_open(options(), 500).unwrap();
    assert_eq!((recovery.first, recovery.last), (lsn(501), lsn(501)));
    let first = &wal.read(lsn(501), 1).unwrap()[0].record;
    assert_eq!(
        first.stamp,
        time(901),
        "after its parent's, though the clock is behind"
    );
    assert_eq!(first.committed, lsn(500));
}

#[test]
fn a_segment_cut_for_a_lineage_that_was_never_begun_is_told_and_can_be_cut_again() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 5);
    drop(wal);
    cut(
        &machine.platform,
        &dir(),
        id(1),
        lsn(4),
        digest(9),
        lineage(2),
    )
    .unwrap();
    match machine.try_open(options(), 0) {
        Err(Error::CutOff { segment, by }) => assert_eq!((segment, by), (id(1), lineage(2))),
        other => panic!("{other:?}"),
    }
    let again = cut(
        &machine.platform,
        &dir(),
        id(1),
        lsn(3),
        digest(8),
        lineage(3),
    )
    .unwrap();
    assert_eq!(
        (again.last_lsn, again.cut_by),
        (Some(lsn(3)), Some(lineage(3)))
    );
    assert_eq!(crate::verify(on(&machine), &path(1)).unwrap().info, again);
    let behind = cut(
        &machine.platform,
        &dir(),
        id(1),
        lsn(4),
        digest(8),
        lineage(3),
    );
    assert!(matches!(behind, Err(Error::NotReady { .. })), "it is gone");
}

#[test]
fn a_sealed_segment_is_never_cut_and_a_damaged_one_not_past_the_damage() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 30);
    wal.seal(id(1), digest(1)).unwrap();
    let in_second = wal.segment(id(2)).unwrap().first_lsn().get();
    drop(wal);
    let sealed = cut(
        &machine.platform,
        &dir(),
        id(1),
        lsn(4),
        digest(9),
        lineage(2),
    );
    assert!(matches!(sealed, Err(Error::NotReady { .. })));
    let none = cut(
        &machine.platform,
        &dir(),
        id(77),
        lsn(4),
        digest(9),
        lineage(2),
    );
    assert!(matches!(none, Err(Error::NoSegment(_))));
    let mut bad = machine.file(&name(2));
    bad[256 + 344 + 100] ^= 1;
    machine.put(&name(2), &bad);
    let past = cut(
        &machine.platform,
        &dir(),
        id(2),
        lsn(in_second + 1),
        digest(9),
        lineage(2),
    );
    assert!(matches!(past, Err(Error::Damaged { .. })));
    assert_eq!(machine.file(&name(2)), bad);
    let refused = seal_file(&machine.platform, &dir(), id(2), digest(1));
    assert!(matches!(refused, Err(Error::Damaged { .. })));
    cut(
        &machine.platform,
        &dir(),
        id(2),
        lsn(in_second),
        digest(9),
        lineage(2),
    )
    .unwrap();
}

#[test]
fn sealing_a_file_gives_the_same_bytes_as_sealing_in_an_open_log() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 30);
    let offline = machine.kill();
    let info = seal_file(&offline.platform, &dir(), id(1), digest(1)).unwrap();
    let again = Machine::begun();
    let wal = again.open();
    fill(&wal, 30);
    assert_eq!(wal.seal(id(1), digest(1)).unwrap(), info);
    assert_eq!(offline.file(&name(1)), again.file(&name(1)));
    assert_eq!(
        seal_file(&offline.platform, &dir(), id(1), digest(1))
            .unwrap()
            .chain,
        info.chain
    );
}
