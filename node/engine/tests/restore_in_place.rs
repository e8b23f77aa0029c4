//! The decision table (D21): what a start makes of a folder that somebody restored by copying.
//! Each case is the documented commands, done with files, and then a plain start.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use std::fs;

use rig::request;
use rig::world::world;
use unisondb_engine::start::StartError;
use unisondb_types::{LineageReason, Lsn, SegmentId, Target};

#[test]
fn a_snapshot_over_a_log_left_in_place_loses_nothing_and_stays_in_its_lineage() {
    let w = world();
    w.put_snapshot();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    assert!(
        rig.engine.history().parent.is_none(),
        "the same lineage goes on"
    );
    assert!(
        rig.notes
            .iter()
            .any(|n| n.field == "replayed" && n.value != "0"),
        "{:?}",
        rig.notes
    );
}

#[test]
fn a_snapshot_without_a_log_starts_a_new_lineage_that_keeps_new_writes() {
    let w = world();
    w.put_snapshot();
    w.empty("wal");
    let mut rig = w.open(&request()).unwrap();
    rig::same(&rig.moment().keys, &w.model.at[&w.snapshot_lsn].keys);
    let parent = rig.engine.history().parent.clone().unwrap();
    assert_eq!(parent.fork, w.snapshot_lsn);
    assert_eq!(parent.digest, w.model.at[&w.snapshot_lsn].digest);
    assert_eq!(rig.engine.wal().active().id, SegmentId::new(1_000_000));
    let lsn = rig.put("new", "at once").unwrap();
    assert!(lsn > w.snapshot_lsn);
    drop(rig);
    let rig = w.open(&request()).unwrap();
    assert_eq!(rig.keys()[&b"new"[..]], b"at once");
}

#[test]
fn pitr_stops_exactly_at_lsn_and_time_inclusive_or_not() {
    let w = world();
    let lsns: Vec<Lsn> = w
        .model
        .at
        .keys()
        .copied()
        .filter(|l| *l > w.snapshot_lsn)
        .collect();
    for (i, lsn) in lsns.iter().enumerate().step_by(17) {
        let before = w.model.at.range(..*lsn).next_back().unwrap().1;
        let at = &w.model.at[lsn];
        for (target, expected) in [
            (Target::Lsn(*lsn), at),
            (Target::Time(at.stamp), at),
            (Target::BeforeTime(at.stamp), before),
            (Target::BeforeLsn(*lsn), before),
        ] {
            if i == 0 && expected == before {
                continue;
            }
            w.put_backups();
            let mut rig = w.open(&w.to(target)).unwrap();
            rig::same(&rig.keys(), &expected.keys);
            let history = rig.engine.history();
            assert_eq!(history.reason, LineageReason::Restored(target));
            let parent = history.parent.as_ref().unwrap();
            assert_eq!(parent.digest, expected.digest, "{target:?}");
            // Where it stopped can be compared later, wherever in a segment that was.
            let asked = rig.engine.digest(Some(parent.fork)).unwrap();
            assert_eq!(asked, Some((parent.fork, expected.digest)), "{target:?}");
            rig.put("small", "write").unwrap();
            rig.close();
        }
    }
}

#[test]
fn immediate_replays_nothing_of_a_log_left_in_place() {
    let w = world();
    w.put_snapshot();
    let rig = w.open(&w.to(Target::Immediate)).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
    assert!(rig.engine.history().parent.is_some());
    let aside: Vec<_> = fs::read_dir(&w.home)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with("wal.lineage-"))
        .collect();
    assert_eq!(aside.len(), 1, "what lies behind the fork is kept aside");
}

#[test]
fn a_target_on_a_folder_that_is_not_restored_is_ignored_with_a_note() {
    let w = world();
    let rig = w.open(&w.to(Target::Lsn(Lsn::new(5)))).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    assert!(
        rig.notes.iter().any(|n| n.field == "ignored"),
        "{:?}",
        rig.notes
    );
}

#[test]
fn recovery_toml_is_used_once() {
    let w = world();
    let lsn = Lsn::new(w.snapshot_lsn.get() + 30);
    let lsn = *w.model.at.range(lsn..).next().unwrap().0;
    w.put_backups();
    fs::write(
        w.home.join("recovery.toml"),
        format!("target_lsn = {lsn}\n"),
    )
    .unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&lsn].keys);
    assert!(!w.home.join("recovery.toml").exists());
    assert!(w.home.join("recovery.toml.done").exists());
    fs::write(w.home.join("recovery.toml"), "target = 1\n").unwrap();
    rig.close();
    assert!(matches!(w.open(&request()), Err(StartError::Refused(e)) if e.contains("target_lsn")));
}

#[test]
fn recovery_toml_takes_a_time_as_toml_writes_it_and_as_a_text() {
    let w = world();
    let in_file = |text: &str| {
        w.put_backups();
        fs::write(w.home.join("recovery.toml"), text).unwrap();
        w.open(&request())
    };
    for time in ["2001-02-03T04:05:06Z", "\"2001-02-03T04:05:06Z\""] {
        match in_file(&format!("target_time = {time}\n")) {
            Err(StartError::Refused(e)) => {
                assert!(e.contains("beyond the target (2001-02-03T04:05:06"), "{e}")
            }
            other => panic!("{:?}", other.map(|r| r.notes)),
        }
    }
    for wrong in ["2001-02-03", "2001-02-03T04:05:06", "7", "\"yesterday\""] {
        match in_file(&format!("target_time = {wrong}\n")) {
            Err(StartError::Refused(e)) => assert!(e.contains("recovery.toml"), "{wrong}: {e}"),
            other => panic!("{wrong}: {:?}", other.map(|r| r.notes)),
        }
    }
}

#[test]
fn restores_of_restores_lead_across_forks_and_ids_never_go_back() {
    let w = world();
    let mut model = w.model.clone();
    for round in 1..=3u64 {
        let target = *w
            .model
            .at
            .range(Lsn::new(w.snapshot_lsn.get() + 20 * round)..)
            .next()
            .unwrap()
            .0;
        w.put_snapshot();
        // The archive of all lineages so far, as an operator would copy it back.
        w.put_archive();
        let request = if round == 1 {
            w.to(Target::Lsn(target))
        } else {
            request()
        };
        let mut rig = w.open(&request).unwrap();
        if round > 1 {
            let (_, at) = model.at.iter().next_back().unwrap();
            rig::same(&rig.keys(), &at.keys);
        }
        let id = rig.engine.wal().active().id.get();
        assert!(id >= round * 1_000_000, "round {round}: first segment {id}");
        let fork = rig.engine.history().parent.clone().unwrap().fork;
        model.at.retain(|lsn, _| *lsn <= fork);
        rig.model = model.clone();
        for i in 0..30 {
            rig.put(&format!("round{round}-{i}"), "v").unwrap();
        }
        rig.seal().unwrap();
        model = rig.model.clone();
        rig.engine
            .backup_wal(SegmentId::ZERO, "wal/archive")
            .unwrap();
        rig.close();
    }
}

#[test]
fn the_log_alone_restores_when_it_begins_at_lsn_1() {
    let w = world();
    w.empty("db");
    w.put_archive();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    assert!(rig.engine.history().parent.is_some());
}
