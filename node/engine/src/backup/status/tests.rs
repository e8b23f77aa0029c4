//! What is remembered of past backups, and that it survives a restart.
#![allow(clippy::unwrap_used)]
use unisondb_platform::memory::{Effect, OpKind, Rule, platform, platform_on};
use unisondb_types::SegmentId;

use super::*;

const HOME: &str = "/data/users";
const AFTER: SegmentId = SegmentId::new(2);

fn failure() -> BackupError {
    BackupError::NoSpace
}

#[test]
fn the_last_success_and_failures_in_a_row_outlive_the_process() {
    let (machine, disk, clock) = platform(1);
    machine.disk.create_folders(Path::new(HOME)).unwrap();
    let status = Status::load(&machine, Path::new(HOME));
    assert_eq!(status.get(), BackupStatus::default());
    status.count(Call::Btree, || Ok(700), |b| *b).unwrap();
    let at = machine.clock.now();
    clock.advance(std::time::Duration::from_secs(60));
    for _ in 0..2 {
        status
            .count(Call::Btree, || Err::<u64, _>(failure()), |b| *b)
            .unwrap_err();
    }
    status.hand_out(SegmentId::new(4));
    status.keep();
    let before = status.get().btree;
    assert_eq!(
        (before.successes, before.failures, before.bytes),
        (1, 2, 700)
    );

    let again = disk.crash(3);
    let machine = platform_on(&again, &clock, 2);
    let after = Status::load(&machine, Path::new(HOME));
    let need = after.snapshots_need(machine.clock.now());
    assert_eq!(need, Some(SegmentId::new(4)));
    let after = after.get();
    assert_eq!(
        after.btree,
        KindStatus {
            last_success: Some(at),
            last_bytes: 700,
            consecutive_failures: 2,
            ..KindStatus::default()
        }
    );
    assert_eq!(after.wal, KindStatus::default());
}

#[test]
fn nothing_new_is_a_success_that_keeps_the_last_size() {
    let (machine, _, clock) = platform(1);
    machine.disk.create_folders(Path::new(HOME)).unwrap();
    let status = Status::load(&machine, Path::new(HOME));
    status.count(Call::Wal(AFTER), || Ok(500), |b| *b).unwrap();
    clock.advance(std::time::Duration::from_secs(9));
    status.count(Call::Wal(AFTER), || Ok(0), |b| *b).unwrap();
    let wal = *status.get().of(BackupKind::Wal);
    assert_eq!((wal.successes, wal.bytes, wal.last_bytes), (2, 500, 500));
    assert_eq!(wal.last_success, Some(machine.clock.now()));
}

#[test]
fn a_refused_path_counts_as_nothing_and_a_gap_as_a_failure_until_the_next_success() {
    let (machine, _, _) = platform(1);
    machine.disk.create_folders(Path::new(HOME)).unwrap();
    let status = Status::load(&machine, Path::new(HOME));
    let bad = || Err::<u64, _>(BackupError::BadPath("no".to_owned()));
    status.count(Call::Wal(AFTER), bad, |b| *b).unwrap_err();
    assert_eq!(status.get(), BackupStatus::default());
    let ids = SegmentId::new(3);
    let gap = || {
        Err::<u64, _>(BackupError::Gap {
            from: ids,
            to: ids,
            first_available: ids.next(),
        })
    };
    status.count(Call::Wal(AFTER), gap, |b| *b).unwrap_err();
    assert!(status.get().gap);
    assert_eq!(status.get().wal.consecutive_failures, 1);
    let failed = || Err::<u64, _>(failure());
    status.count(Call::Btree, failed, |b| *b).unwrap_err();
    assert!(status.get().gap, "a snapshot that failed closes nothing");
    status.count(Call::Wal(AFTER), || Ok(0), |b| *b).unwrap();
    assert!(!status.get().gap);
    assert_eq!(status.get().wal.consecutive_failures, 0);
}

#[test]
fn a_damaged_or_unwritable_record_never_stands_in_the_way() {
    let (machine, disk, _) = platform(1);
    let file = Path::new(HOME).join(FILE);
    machine.disk.create_folders(Path::new(HOME)).unwrap();
    for bytes in [
        &b""[..],
        b"{",
        b"[1]",
        b"{\"wal\":{\"lastBytes\":-1}}",
        &[0xff; 100],
    ] {
        machine.disk.publish(&file, bytes).unwrap();
        assert_eq!(
            Status::load(&machine, Path::new(HOME)).get(),
            BackupStatus::default()
        );
    }
    let long = vec![b' '; 70 << 10];
    machine.disk.publish(&file, &long).unwrap();
    let status = Status::load(&machine, Path::new(HOME));
    disk.inject(Rule::always(OpKind::CreateFile, HOME, Effect::Full));
    status.count(Call::Wal(AFTER), || Ok(5), |b| *b).unwrap();
    assert_eq!(status.get().wal.successes, 1);
}

#[test]
fn a_gap_and_failures_in_a_row_stay_when_another_archiver_has_nothing_new() {
    let (machine, _, _) = platform(1);
    machine.disk.create_folders(Path::new(HOME)).unwrap();
    let after = |n| Call::Wal(SegmentId::new(n));
    let gap = || {
        Err::<u64, _>(BackupError::Gap {
            from: SegmentId::new(4),
            to: SegmentId::new(5),
            first_available: SegmentId::new(6),
        })
    };
    let told = |status: &Status| {
        let now = status.get();
        (now.gap, now.wal.consecutive_failures)
    };
    let met = || {
        let status = Status::load(&machine, Path::new(HOME));
        status.now.lock().wal.consecutive_failures = 0;
        status.count(after(3), gap, |b| *b).unwrap_err();
        status
            .count(after(5), || Err(failure()), |b: &u64| *b)
            .unwrap_err();
        for bytes in [0, 700] {
            status.count(after(8), || Ok(bytes), |b| *b).unwrap();
            assert_eq!(told(&status), (true, 2), "it was owed from 3 on");
        }
        status
    };
    // Everything that is held makes up for failures, and closes no gap.
    let status = met();
    status.count(after(0), || Ok(700), |b| *b).unwrap();
    assert_eq!(told(&status), (true, 0));
    status.count(after(3), || Ok(700), |b| *b).unwrap();
    assert_eq!(told(&status), (false, 0));
    // After a snapshot any archive goes on.
    let status = met();
    status.count(Call::Btree, || Ok(1), |b| *b).unwrap();
    assert_eq!(told(&status), (false, 2));
    status.count(after(8), || Ok(0), |b| *b).unwrap();
    assert_eq!(told(&status), (false, 0));
}
