//! A disk that is full, fails, or loses what it said it had: P1, P14, D6, D9.

use unisondb_platform::memory::{Effect, OpKind, Rule};

use super::*;

#[test]
fn a_full_disk_refuses_a_reservation_and_changes_nothing() {
    let machine = Machine::new();
    machine.begin(&unisondb_types::LineageRecord {
        segment_size: 64 << 10,
        ..created()
    });
    let wal = machine.open();
    fill(&wal, 3);
    let before = wal.segments();
    machine.disk.set_capacity(Some(8 << 10));
    machine.disk.set_other_tenants(8 << 10);
    let refused = wal.reserve(40_000);
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    assert_eq!((wal.segments(), wal.poisoned()), (before, None));
    machine.disk.set_other_tenants(0);
    machine.disk.set_capacity(None);
    wal.reserve(40_000).unwrap();
    fill(&wal, 3);
}

#[test]
fn what_was_reserved_can_be_written_on_a_full_disk_across_a_roll() {
    let machine = Machine::begun();
    let wal = machine.open();
    for n in 2..100 {
        machine.disk.set_capacity(None);
        machine.disk.set_other_tenants(0);
        wal.reserve(644).unwrap();
        machine.disk.set_capacity(Some(4 << 10));
        machine.disk.set_other_tenants(4 << 10);
        wal.append(TERM, time(n), &[user(n, 600)]).unwrap();
        assert_eq!(wal.sync().unwrap(), lsn(n), "{:?}", machine.disk.log());
    }
}

#[test]
fn a_sync_that_meets_a_full_disk_acknowledges_nothing_and_can_be_tried_again_or_undone() {
    for undo in [false, true] {
        let machine = Machine::begun();
        let wal = machine.open();
        fill(&wal, 3);
        let written = all(&wal, 1);
        machine.disk.set_capacity(Some(4 << 10));
        machine.disk.set_other_tenants(4 << 10);
        let commands: Vec<_> = (0..40).map(|n| user(n, 500)).collect();
        wal.append(TERM, time(1), &commands).unwrap();
        let durable = loop {
            let before = wal.durable();
            assert!(matches!(wal.sync(), Err(Error::Full { .. })));
            if wal.durable() == before {
                break before;
            }
        };
        assert!(durable < wal.last());
        assert_eq!(wal.poisoned(), None);
        assert_eq!(
            wal.read(durable.next(), 1).unwrap().len(),
            1,
            "still readable"
        );
        if undo {
            wal.truncate_after(durable).unwrap();
            assert_eq!(wal.last(), durable);
            machine.disk.set_capacity(None);
            let kept = all(&wal, 1);
            assert_eq!(kept[..written.len()], written);
            assert_eq!(all(&machine.crash(1).open(), 1), kept);
        } else {
            machine.disk.set_capacity(None);
            assert_eq!(wal.sync().unwrap(), wal.last());
            let kept = all(&wal, 1);
            assert_eq!(all(&machine.crash(1).open(), 1), kept);
        }
    }
}

#[test]
fn a_failed_sync_is_final_and_what_it_lost_was_never_acknowledged() {
    for seed in 0..20 {
        let machine = Machine::begun();
        machine.disk.set_seed(seed);
        let wal = machine.open();
        fill(&wal, 3);
        let acknowledged = all(&wal, 1);
        machine
            .disk
            .inject(Rule::once(OpKind::Sync, "/", Effect::Eio));
        wal.append(TERM, time(9), &[user(9, 300), user(10, 300)])
            .unwrap();
        assert!(matches!(wal.sync(), Err(Error::Io { .. })));
        assert_eq!(wal.durable(), lsn(4));
        // The disk says Ok from now on; the log does not.
        assert!(matches!(wal.sync(), Err(Error::Poisoned { .. })));
        assert!(matches!(
            wal.append(TERM, time(9), &[blank()]),
            Err(Error::Poisoned { .. })
        ));
        assert!(matches!(wal.reserve(1), Err(Error::Poisoned { .. })));
        assert!(matches!(
            wal.seal(id(1), digest(0)),
            Err(Error::Poisoned { .. })
        ));
        assert!(matches!(
            wal.truncate_after(lsn(4)),
            Err(Error::Poisoned { .. })
        ));
        assert!(wal.poisoned().is_some());
        assert_eq!(wal.read(lsn(1), 1).unwrap().len(), 1, "reading goes on");
        // The next process sees all frames in the page cache, and trusts none before it has
        // written and synced them itself (D7): what it shows survives a power loss.
        let restarted = machine.kill();
        let shown = all(&restarted.open(), 1);
        assert_eq!(shown[..acknowledged.len()], acknowledged);
        assert_eq!(all(&restarted.crash(seed).open(), 1), shown);
    }
}

#[test]
fn a_footer_whose_sync_failed_is_written_again_at_the_next_start() {
    for seed in 0..20 {
        let machine = Machine::begun();
        machine.disk.set_seed(seed);
        let wal = machine.open();
        fill(&wal, 20);
        machine
            .disk
            .inject(Rule::once(OpKind::Sync, "/", Effect::Eio));
        assert!(matches!(wal.seal(id(1), digest(1)), Err(Error::Io { .. })));
        assert!(wal.segment(id(1)).unwrap().digest.is_none());
        let restarted = machine.kill();
        let sealed = restarted.open().segment(id(1)).unwrap().digest;
        let after = restarted.crash(seed).open().segment(id(1)).unwrap().digest;
        assert_eq!(after, sealed);
    }
}

#[test]
fn a_failed_write_is_final() {
    let machine = Machine::begun();
    let wal = machine.open();
    machine
        .disk
        .inject(Rule::once(OpKind::Write, "/", Effect::Eio));
    wal.append(TERM, time(9), &[user(9, 300)]).unwrap();
    assert!(matches!(wal.sync(), Err(Error::Io { .. })));
    assert!(matches!(wal.sync(), Err(Error::Poisoned { .. })));
}

#[test]
fn short_reads_and_writes_and_interruptions_change_nothing() {
    let machine = Machine::begun();
    for n in 0..20 {
        machine
            .disk
            .inject(Rule::once(OpKind::Write, "/", Effect::Interrupted).after(n * 11));
        machine
            .disk
            .inject(Rule::once(OpKind::Read, "/", Effect::Interrupted).after(n * 11));
    }
    machine
        .disk
        .inject(Rule::always(OpKind::Write, "/", Effect::Short(7)));
    machine
        .disk
        .inject(Rule::always(OpKind::Read, "/", Effect::Short(13)));
    let wal = machine.open();
    fill(&wal, 30);
    wal.seal(id(1), digest(1)).unwrap();
    let entries = all(&wal, 1);
    machine.disk.heal();
    assert_eq!(all(&machine.crash(2).open(), 1), entries);
}

#[test]
fn a_read_error_is_told_and_does_no_harm() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    machine
        .disk
        .inject(Rule::always(OpKind::Read, "/", Effect::Eio));
    assert!(matches!(wal.read(lsn(1), 1), Err(Error::Io { .. })));
    machine.disk.heal();
    assert_eq!(all(&wal, 1).len(), 41);
    fill(&wal, 1);
}

#[test]
fn a_frame_that_vouches_for_unsynced_records_is_written_after_they_are_synced() {
    let machine = Machine::begun();
    let wal = machine.open();
    // As on a follower: the leader's frames say that 3 is committed, and 3 is not synced here yet.
    wal.append(TERM, time(2), &[user(2, 300), user(3, 300)])
        .unwrap();
    wal.commit(lsn(3));
    wal.append(TERM, time(4), &[user(4, 300)]).unwrap();
    let before = machine.disk.ops();
    wal.sync().unwrap();
    assert_eq!(
        since(&machine, before)[..4],
        [OpKind::Write, OpKind::Sync, OpKind::Write, OpKind::Sync]
    );
}

#[test]
fn a_group_is_one_write_and_one_sync() {
    let machine = Machine::begun();
    let wal = machine.open();
    wal.reserve(1000).unwrap();
    for n in 0..5 {
        wal.append(TERM, time(n), &[user(n, 20)]).unwrap();
    }
    let before = machine.disk.ops();
    wal.sync().unwrap();
    let done = since(&machine, before);
    assert_eq!(done[..2], [OpKind::Write, OpKind::Sync]);
    let zeroes_ahead = [OpKind::Write];
    assert_eq!(done[2..], zeroes_ahead[..done.len() - 2]);
}

/// What was done to the first segment's file since, whatever name it was opened by.
fn since(machine: &Machine, before: u64) -> Vec<OpKind> {
    let log = machine.disk.log();
    let ours = log.iter().filter(|op| op.number >= before);
    ours.filter(|op| op.path.to_string_lossy().contains(&name(1)))
        .map(|op| op.kind)
        .collect()
}

#[test]
fn want_of_descriptors_refuses_a_reservation_and_a_footer_and_stops_nothing() {
    for folders in [false, true] {
        let machine = Machine::begun();
        let wal = machine.open();
        fill(&wal, 3);
        for kind in [OpKind::Open, OpKind::CreateFile] {
            let rule = Rule::always(kind, "/", Effect::Descriptors);
            machine.disk.inject(rule);
        }
        if folders {
            let rule = Rule::always(OpKind::SyncFolder, "/", Effect::Descriptors);
            machine.disk.inject(rule);
        }
        let mut met = None;
        for n in 0..40 {
            met = wal.reserve(644).err();
            if met.is_none() {
                wal.append(TERM, time(n), &[user(n, 600)]).unwrap();
                met = wal.sync().err();
            }
            if met.is_some() {
                break;
            }
        }
        assert!(matches!(met, Some(Error::Exhausted { .. })), "{met:?}");
        assert_eq!(wal.poisoned(), None);
        let met = wal.sync().err();
        assert!(met.is_none_or(|e| e.is_passing()), "and again");
        machine.disk.heal();
        wal.commit(wal.sync().unwrap());
        machine.disk.inject(Rule::always(
            OpKind::Open,
            crate::testing::dir(),
            Effect::Descriptors,
        ));
        let first = wal.unsealed_ended()[0].id;
        let met = wal.seal(first, digest(1));
        assert!(matches!(met, Err(Error::Exhausted { .. })), "{met:?}");
        machine.disk.heal();
        wal.seal(first, digest(1)).unwrap();
        wal.reserve(644).unwrap();
        fill(&wal, 3);
        let kept = all(&wal, 1);
        assert_eq!(all(&machine.crash(1).open(), 1), kept);
    }
}
