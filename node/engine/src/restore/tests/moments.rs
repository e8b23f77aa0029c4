//! Every moment can be restored, to the record and to the microsecond (P10), also across forks.

use std::path::Path;

use unisondb_types::{LineageId, Lsn, SegmentId, Stamp, Target};

use super::super::{BaseFrom, Existing, Problem, RestoreError};
use super::{all_of, node::Node, plan, problem, request, restore};

#[test]
fn every_lsn_and_time_gives_the_state_after_just_that_record() {
    let mut node = Node::new(1);
    node.write(20);
    node.seal();
    node.snapshot("snapshots/one.db");
    node.write(30);
    node.snapshot("snapshots/mid-segment.snapshot");
    node.write(25);
    node.back_up_wal(SegmentId::ZERO, "wal/all");
    let end = node.last();

    let sealed_end = Lsn::new(end.get() - 1);
    for n in (1..sealed_end.get()).step_by(13) {
        let data = format!("/lsn-{n}");
        let done = restore(&node, &all_of(&node, &data, Target::Lsn(Lsn::new(n)))).unwrap();
        let moment = node.moment(Lsn::new(n));
        assert_eq!(
            (done.lsn, done.time, done.digest),
            (Lsn::new(n), moment.stamp, moment.digest)
        );
    }
    for n in (2..sealed_end.get()).step_by(23) {
        let stamp = node.moment(Lsn::new(n)).stamp;
        let between = Stamp::from_micros(stamp.micros() + 100);
        let data = format!("/time-{n}");
        let done = restore(&node, &all_of(&node, &data, Target::Time(between))).unwrap();
        assert_eq!(
            (done.lsn, done.digest),
            (Lsn::new(n), node.moment(Lsn::new(n)).digest)
        );
        let data = format!("/before-{n}");
        let done = restore(&node, &all_of(&node, &data, Target::BeforeTime(stamp))).unwrap();
        assert_eq!(
            done.lsn,
            Lsn::new(n - 1),
            "exclusive leaves the record at that time out"
        );
    }
    let done = restore(&node, &all_of(&node, "/latest", Target::Latest)).unwrap();
    assert!(done.lsn >= sealed_end, "{} of {end}", done.lsn);
}

#[test]
fn a_log_from_lsn_1_needs_no_base() {
    let mut node = Node::new(2);
    node.write(40);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let folder = node.backups().join("wal");
    let target = Target::Lsn(Lsn::new(17));
    let none = BaseFrom::Folders(vec![]);
    let asked = request("/b", none, &[&folder], target);
    let plan = plan(&node, &asked).unwrap();
    assert!(plan.base.is_none());
    assert_eq!(plan.segments[0].segment, SegmentId::FIRST);
    let done = restore(&node, &asked).unwrap();
    assert_eq!(done.digest, node.moment(Lsn::new(17)).digest);
    assert_eq!(done.first_segment.get(), SegmentId::LINEAGE_STEP);
    assert!(plan.to_string().contains("base      none"), "{plan}");
}

#[test]
fn a_restore_of_a_restore_of_a_restore_crosses_every_fork() {
    let mut first = Node::new(3);
    first.write(30);
    first.seal();
    first.snapshot("snapshots/base.db");
    first.write(30);
    first.back_up_wal(SegmentId::ZERO, "wal/l1");

    // L2 leaves L1 in the middle of a segment; L3 leaves L2 likewise.
    let fork = Lsn::new(45);
    restore(&first, &all_of(&first, "/b", Target::Lsn(fork))).unwrap();
    let mut second = first.restored_in("/b", fork);
    second.write(30);
    second.back_up_wal(SegmentId::ZERO, "wal/l2");
    let everything = [first.backups(), second.backups()];
    let from = |target| {
        let base = BaseFrom::Folders(everything.to_vec());
        move |data: &str| request(data, base.clone(), &[], target)
    };
    let fork2 = Lsn::new(60);
    let asked = from(Target::Lsn(fork2))("/c");
    let done = restore(&second, &asked).unwrap();
    assert_eq!(done.digest, second.moment(fork2).digest);
    assert_eq!(done.first_segment.get(), 2 * SegmentId::LINEAGE_STEP);
    let mut third = second.restored_in("/c", fork2);
    third.write(12);
    third.back_up_wal(SegmentId::ZERO, "wal/l3");

    let all: Vec<_> = [&first, &second, &third].map(Node::backups).to_vec();
    for n in [20, 44, 45, 46, 59, 60, 61, 62, 70] {
        let lsn = Lsn::new(n);
        let base = BaseFrom::Folders(all.clone());
        let asked = request(&format!("/d-{n}"), base, &[], Target::Lsn(lsn));
        let done = restore(&third, &asked).unwrap();
        assert_eq!(
            (done.lsn, done.digest),
            (lsn, third.moment(lsn).digest),
            "LSN {n}"
        );
    }
    // The past that was given up is there for who names it.
    let lineage = first.engine().lineage();
    let lsn = Lsn::new(58);
    let mut asked = request("/e", BaseFrom::Folders(all), &[], Target::Lsn(lsn));
    asked.lineage = Some(lineage);
    assert_eq!(
        restore(&third, &asked).unwrap().digest,
        first.moment(lsn).digest
    );
    asked.lineage = Some(LineageId::from_bytes([1; 16]));
    assert!(matches!(
        plan(&third, &asked),
        Err(RestoreError::NoLineage { .. })
    ));
}

#[test]
fn a_second_restore_from_the_same_base_is_newer_than_the_first() {
    let mut first = Node::new(4);
    first.write(30);
    first.seal();
    first.snapshot("base.db");
    first.write(20);
    first.back_up_wal(SegmentId::ZERO, "wal");
    let mut backups = vec![first.backups()];
    let mut node = None;
    for (i, data) in ["/b", "/c"].iter().enumerate() {
        let asked = request(
            data,
            BaseFrom::Folders(backups.clone()),
            &[],
            Target::Lsn(Lsn::new(38)),
        );
        let mut asked = asked;
        asked.lineage = Some(first.engine().lineage());
        let done = restore(&first, &asked).unwrap();
        assert_eq!(
            done.first_segment.get(),
            (i as u64 + 1) * SegmentId::LINEAGE_STEP
        );
        let mut restored = first.restored_in(data, Lsn::new(38));
        restored.put("who", data);
        restored.write(5);
        restored.back_up_wal(SegmentId::ZERO, "wal");
        backups.push(restored.backups());
        node = Some(restored);
    }
    let node = node.unwrap();
    let asked = request(
        "/d",
        BaseFrom::Folders(backups),
        &[],
        Target::Lsn(Lsn::new(42)),
    );
    let plan = plan(&node, &asked).unwrap();
    assert_eq!(plan.lineage, node.engine().lineage());
    assert!(
        plan.warnings.iter().any(|w| w.contains("is not followed")),
        "{plan}"
    );
    assert_eq!(
        restore(&node, &asked).unwrap().digest,
        node.moment(Lsn::new(42)).digest
    );
}

#[test]
fn what_no_record_reaches_or_passes_is_refused_with_the_moment_reached() {
    let mut node = Node::new(5);
    node.write(20);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let folder = node.backups().join("wal");
    let asked = |target| request("/b", BaseFrom::Folders(vec![]), &[&folder], target);
    let reached = plan(&node, &asked(Target::Latest))
        .unwrap()
        .reached
        .unwrap();
    match problem(&node, &asked(Target::Lsn(Lsn::new(9999)))) {
        Problem::Short { reached: found, .. } => assert_eq!(found, reached),
        other => panic!("{other}"),
    }
    let later = Target::Time(reached.time.plus_micros(1));
    let short = problem(&node, &asked(later));
    assert!(
        short
            .to_string()
            .starts_with(&format!("reached {} < asked", reached.time)),
        "{short}"
    );
    // Exactly the last record's time is reached.
    assert!(
        plan(&node, &asked(Target::Time(reached.time)))
            .unwrap()
            .problem
            .is_none()
    );
}

#[test]
fn a_hole_is_named_by_ids_and_lsns_and_nothing_is_written() {
    let mut node = Node::new(6);
    node.write(80);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let wal = node.backups().join("wal");
    for id in [3, 4] {
        node.platform
            .disk
            .remove_file(&wal.join(SegmentId::new(id).file_name()))
            .unwrap();
    }
    let asked = |target| request("/b", BaseFrom::Folders(vec![]), &[&wal], target);
    let gap = problem(&node, &asked(Target::Latest));
    let Problem::Gap {
        from_segment,
        to_segment,
        from_lsn,
        to_lsn,
        ..
    } = gap
    else {
        panic!("{gap}");
    };
    assert_eq!((from_segment.get(), to_segment.get()), (3, 4));
    assert!(from_lsn < to_lsn);
    let text = problem(&node, &asked(Target::Lsn(to_lsn.next()))).to_string();
    assert!(
        text.starts_with("wal gap: segments 3-4 are missing"),
        "{text}"
    );
    // Before the hole there is no hole.
    assert_eq!(
        restore(&node, &asked(Target::Lsn(from_lsn.prev())))
            .unwrap()
            .lsn,
        from_lsn.prev()
    );
}

#[test]
fn a_missing_first_segment_or_a_base_past_the_target_is_named() {
    let mut node = Node::new(7);
    node.write(40);
    let early = node.last();
    node.seal();
    node.snapshot("snapshots/a.db");
    node.write(20);
    node.back_up_wal(SegmentId::new(2), "wal");
    let text = problem(&node, &all_of(&node, "/b", Target::Lsn(Lsn::new(3)))).to_string();
    assert!(text.contains("the earliest snapshot is of LSN"), "{text}");
    let file = BaseFrom::File(node.backups().join("snapshots/a.db"));
    let wal = node.backups().join("wal");
    let asked = request("/b", file, &[&wal], Target::Lsn(early.prev()));
    assert!(matches!(
        plan(&node, &asked),
        Err(RestoreError::BasePastTarget { .. })
    ));
}

#[test]
fn an_existing_namespace_is_refused_and_with_force_goes_to_trash() {
    let mut node = Node::new(8);
    node.write(20);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let mut asked = all_of(&node, "/b", Target::Latest);
    let first = restore(&node, &asked).unwrap();
    assert!(matches!(
        restore(&node, &asked),
        Err(RestoreError::Exists(_))
    ));
    asked.existing = Existing::MoveToTrash;
    let second = restore(&node, &asked).unwrap();
    let moved = second.moved_to.clone().expect("the old one was moved");
    assert!(moved.starts_with("/b/trash"));
    assert!(node.platform.disk.meta(&moved.join("db/data.mdb")).is_ok());
    assert!(
        second.first_segment > first.first_segment,
        "ids never go back (P12)"
    );
    // And once more: what lies in trash/ counts too.
    node.platform
        .disk
        .rename(&moved, Path::new("/b/trash/users.kept"))
        .unwrap();
    assert!(restore(&node, &asked).unwrap().first_segment > second.first_segment);
}

#[test]
fn a_running_server_is_not_restored_over() {
    let mut node = Node::new(9);
    node.write(20);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let asked = all_of(&node, "/b", Target::Latest);
    node.platform.disk.create_folder(Path::new("/b")).unwrap();
    let held = node.platform.disk.lock(Path::new("/b/LOCK")).unwrap();
    assert!(matches!(
        restore(&node, &asked),
        Err(RestoreError::Running(_))
    ));
    drop(held);
    restore(&node, &asked).unwrap();
}

#[test]
fn a_fork_inside_a_segment_that_was_never_sealed_is_crossed() {
    let mut first = Node::new(10);
    first.write(30);
    let live = first.data.join("users/wal");
    // Out of a copy of a live log: its active segment ends where it was written to.
    let wal = BaseFrom::Folders(vec![]);
    let fork = first.last().prev();
    let asked = request("/b", wal.clone(), &[&live], Target::Lsn(fork));
    let planned = plan(&first, &asked).unwrap();
    assert!(
        planned.segments.last().is_some_and(|s| !s.sealed),
        "{planned}"
    );
    restore(&first, &asked).unwrap();
    let mut second = first.restored_in("/b", fork);
    second.write(15);
    second.back_up_wal(SegmentId::new(SegmentId::LINEAGE_STEP - 1), "wal");
    first.write(3);

    let theirs = second.backups().join("wal");
    for lsn in [fork, Lsn::new(fork.get() + 1), Lsn::new(fork.get() + 9)] {
        let data = format!("/c-{lsn}");
        let asked = request(&data, wal.clone(), &[&live, &theirs], Target::Lsn(lsn));
        let done = restore(&second, &asked).unwrap();
        assert_eq!((done.lsn, done.digest), (lsn, second.moment(lsn).digest));
    }
}

#[test]
fn a_time_between_a_fork_and_its_lineages_first_record_is_the_state_at_the_fork() {
    let mut first = Node::new(11);
    first.write(40);
    first.back_up_wal(SegmentId::ZERO, "wal");
    // In the middle of a sealed segment, an hour before the lineage that leaves it begins.
    let sealed = first.engine().wal().segment(SegmentId::new(2)).unwrap();
    let fork = Lsn::new(sealed.last_lsn.unwrap().get() - 3);
    first.clock.advance(std::time::Duration::from_secs(3_600));
    restore(&first, &all_of(&first, "/b", Target::Lsn(fork))).unwrap();
    let mut second = first.restored_in("/b", fork);
    let began = second.engine().positions().applied_stamp;
    second.write(5);
    second.back_up_wal(SegmentId::ZERO, "wal");
    let from = BaseFrom::Folders(vec![first.backups(), second.backups()]);
    for (n, target) in [
        Target::Time(Stamp::from_micros(began.micros() - 1)),
        Target::BeforeTime(began),
    ]
    .into_iter()
    .enumerate()
    {
        let asked = request(&format!("/c-{n}"), from.clone(), &[], target);
        let done = restore(&second, &asked).unwrap();
        assert_eq!((done.lsn, done.digest), (fork, first.moment(fork).digest));
    }
}
