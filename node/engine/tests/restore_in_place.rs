//! The decision table (D21): what a start makes of a folder that somebody restored by copying.
//! Each case is the documented commands, done with files, and then a plain start.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};

use rig::{Model, Rig, request};
use unisondb_engine::start::{OnGap, Request, StartError};
use unisondb_platform::{Platform, real};
use unisondb_types::{LineageReason, Lsn, SegmentId, Target};

/// A namespace with a history, its backups, and what it was at each LSN.
struct World {
    platform: Platform,
    _dir: tempfile::TempDir,
    home: PathBuf,
    snapshot: PathBuf,
    snapshot_lsn: Lsn,
    archive: PathBuf,
    model: Model,
    last: Lsn,
}

/// 60 writes, a snapshot, 120 more; everything sealed and archived.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let home = rig::home(dir.path());
    let platform = real::platform();
    let mut rig = Rig::open(&platform, &home).unwrap();
    let fill = |rig: &mut Rig, from: usize, n: usize| {
        for i in from..from + n {
            rig.put(
                &format!("k{}", i % 40),
                &format!("value {i} {}", "x".repeat(i % 90)),
            )
            .unwrap();
        }
    };
    fill(&mut rig, 0, 60);
    let through = rig.seal().unwrap();
    let snapshot = rig.engine.backup_snapshot("snap/base.db", through).unwrap();
    fill(&mut rig, 60, 120);
    rig.seal().unwrap();
    let copies = rig
        .engine
        .backup_wal(SegmentId::ZERO, "wal/archive")
        .unwrap();
    assert!(copies.copies.len() > 6);
    let world = World {
        home,
        snapshot: snapshot.path,
        snapshot_lsn: snapshot.lsn,
        archive: copies.copies[0].path.parent().unwrap().to_owned(),
        model: rig.model.clone(),
        last: *rig.model.at.keys().next_back().unwrap(),
        platform,
        _dir: dir,
    };
    rig.close();
    world
}

impl World {
    fn open(&self, request: &Request) -> Result<Rig, StartError> {
        Rig::open_with(&self.platform, &self.home, request)
    }
    fn empty(&self, folder: &str) {
        for e in fs::read_dir(self.home.join(folder)).unwrap() {
            fs::remove_file(e.unwrap().path()).unwrap();
        }
    }
    fn put_snapshot(&self) {
        self.empty("db");
        fs::copy(&self.snapshot, self.home.join("db/data.mdb")).unwrap();
    }
    fn put_archive(&self) {
        self.empty("wal");
        for path in segments(&self.archive) {
            fs::copy(&path, self.home.join("wal").join(path.file_name().unwrap())).unwrap();
        }
    }
    fn to(&self, target: Target) -> Request {
        Request {
            target: Some(target),
            ..request()
        }
    }
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|x| x == "wal"))
        .collect();
    all.sort();
    all
}

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
            w.put_snapshot();
            w.put_archive();
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
    w.put_snapshot();
    w.put_archive();
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
    drop(rig);
    assert!(matches!(w.open(&request()), Err(StartError::Refused(e)) if e.contains("target_lsn")));
}

#[test]
fn a_missing_middle_segment_is_named_and_nothing_is_replayed_over_it() {
    let w = world();
    w.put_snapshot();
    w.put_archive();
    let all = segments(&w.home.join("wal"));
    let needed: Vec<_> = all.iter().rev().take(4).collect();
    fs::remove_file(needed[2]).unwrap();
    let missing = needed[2]
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse::<u64>()
        .unwrap();
    let before = fs::read(w.home.join("db/data.mdb")).unwrap();
    match w.open(&request()) {
        Err(StartError::Gap { from, to, .. }) => {
            assert_eq!((from.get(), to.get()), (missing, missing));
        }
        other => panic!("{:?}", other.map(|r| r.notes)),
    }
    assert_eq!(
        fs::read(w.home.join("db/data.mdb")).unwrap(),
        before,
        "untouched"
    );

    let read_only = Request {
        on_gap: OnGap::ReadOnly,
        ..request()
    };
    let rig = w.open(&read_only).unwrap();
    let up_to = rig.engine.history().parent.clone().unwrap().fork;
    assert!(
        up_to > w.snapshot_lsn,
        "what lies before the hole is replayed"
    );
    let (_, at) = w.model.at.range(..=up_to).next_back().unwrap();
    rig::same(&rig.keys(), &at.keys);
    drop(rig);
    assert_eq!(
        fs::read(w.home.join("db/data.mdb")).unwrap(),
        before,
        "still untouched"
    );

    let set_aside = Request {
        on_gap: OnGap::SetAside,
        ..request()
    };
    let rig = w.open(&set_aside).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
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
fn a_folder_whose_state_is_missing_is_refused_never_begun_anew() {
    let w = world();
    // The log begins later than LSN 1, the state is gone.
    w.put_archive();
    fs::remove_file(&segments(&w.home.join("wal"))[0]).unwrap();
    w.empty("db");
    assert!(
        matches!(w.open(&request()), Err(StartError::Corrupted { why, .. }) if why.contains("not 1"))
    );
    // Both are gone.
    w.empty("wal");
    assert!(matches!(w.open(&request()), Err(StartError::Refused(e)) if e.contains("emptied")));
}

#[test]
fn a_bad_data_file_is_named_and_left_as_it_is() {
    let w = world();
    let good = fs::read(&w.snapshot).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let cases: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("half", good[..good.len() / 2].to_vec()),
        (
            "random",
            (0..60_000u32).map(|i| (i * 7 % 251) as u8).collect(),
        ),
        (
            "still compressed",
            [b"\x28\xb5\x2f\xfd".as_slice(), &good[..9_000]].concat(),
        ),
        ("flipped", flipped),
    ];
    for (name, bytes) in cases {
        w.empty("db");
        fs::write(w.home.join("db/data.mdb"), &bytes).unwrap();
        match w.open(&request()) {
            Err(e @ StartError::Corrupted { .. }) => {
                assert!(
                    e.to_string().starts_with("database file is corrupted"),
                    "{e}"
                );
            }
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => panic!("{name}: opened"),
        }
        assert_eq!(
            fs::read(w.home.join("db/data.mdb")).unwrap(),
            bytes,
            "{name}: untouched"
        );
    }
}

#[test]
fn a_copied_live_file_without_a_trailer_is_checked_entry_by_entry() {
    let w = world();
    let live = fs::read(w.home.join("db/data.mdb")).unwrap();
    w.empty("db");
    w.empty("wal");
    fs::write(w.home.join("db/data.mdb"), live).unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
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

#[test]
fn a_log_of_another_history_is_set_aside() {
    let w = world();
    let other = world();
    w.put_snapshot();
    w.empty("wal");
    for path in segments(&other.archive) {
        fs::copy(&path, w.home.join("wal").join(path.file_name().unwrap())).unwrap();
    }
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
    assert!(
        rig.notes.iter().any(|n| n.field == "set-aside"),
        "{:?}",
        rig.notes
    );
}

#[test]
fn an_old_segment_with_a_rotten_header_is_named_and_does_not_stop_a_start() {
    let w = world();
    let old = &segments(&w.home.join("wal"))[1];
    let mut bytes = fs::read(old).unwrap();
    bytes[20] ^= 1;
    fs::write(old, bytes).unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    assert!(
        rig.notes.iter().any(|n| n.field == "damaged" && n.degraded),
        "{:?}",
        rig.notes
    );
    assert!(
        w.home
            .join("wal.damaged")
            .join(old.file_name().unwrap())
            .exists()
    );
}

/// A damaged byte in the middle of a segment's frames.
fn rot(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_new_target_replaces_that_of_a_restore_that_failed() {
    let w = world();
    w.put_snapshot();
    w.put_archive();
    let all = segments(&w.home.join("wal"));
    rot(&all[all.len() - 2]);
    assert!(w.open(&request()).is_err());
    assert!(w.home.join("restoring").exists());
    let target = *w.model.at.range(w.snapshot_lsn.next()..).nth(5).unwrap().0;
    w.put_snapshot();
    w.put_archive();
    let rig = w.open(&w.to(Target::Lsn(target))).unwrap();
    rig::same(&rig.keys(), &w.model.at[&target].keys);
    assert_eq!(rig.engine.history().parent.as_ref().unwrap().fork, target);
}

/// A history with a fork inside a sealed segment, and all its segments in the archive.
fn forked() -> (World, Model, SegmentId) {
    let w = world();
    let target = Lsn::new(w.snapshot_lsn.get() + 20);
    let target = *w.model.at.range(target..).next().unwrap().0;
    w.put_snapshot();
    w.put_archive();
    let mut rig = w.open(&w.to(Target::Lsn(target))).unwrap();
    let first = rig.engine.wal().active().id;
    rig.model = w.model.clone();
    rig.model.at.retain(|lsn, _| *lsn <= target);
    for i in 0..60 {
        rig.put(
            &format!("after{i}"),
            "a value of some length to fill segments",
        )
        .unwrap();
    }
    rig.seal().unwrap();
    rig.engine
        .backup_wal(SegmentId::ZERO, "wal/archive")
        .unwrap();
    let model = rig.model.clone();
    rig.close();
    (w, model, first)
}

#[test]
fn a_lineage_without_its_first_segment_is_never_passed_over() {
    let (w, model, first) = forked();
    for rotten in [false, true] {
        w.put_snapshot();
        w.put_archive();
        let path = w.home.join("wal").join(first.file_name());
        if rotten {
            let mut bytes = fs::read(&path).unwrap();
            bytes[300] ^= 1;
            fs::write(&path, bytes).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let before: Vec<_> = segments(&w.home.join("wal"));
        assert!(w.open(&request()).is_err(), "rotten: {rotten}");
        assert_eq!(segments(&w.home.join("wal")), before, "nothing was moved");
        assert!(!w.home.join("restoring").exists(), "nothing was begun");
        // With the good segment back, all is there.
        fs::copy(w.archive.join(first.file_name()), &path).unwrap();
        let rig = w.open(&request()).unwrap();
        rig::same(&rig.keys(), &model.at.values().next_back().unwrap().keys);
        rig.close();
        fs::remove_dir_all(w.home.join("db")).unwrap();
        fs::create_dir(w.home.join("db")).unwrap();
    }
}

#[test]
fn what_a_target_cuts_off_the_live_log_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let home = rig::home(dir.path());
    let platform = real::platform();
    let mut rig = Rig::open(&platform, &home).unwrap();
    rig.put("a", "1").unwrap();
    let through = rig.seal().unwrap();
    let snapshot = rig.engine.backup_snapshot("s.db", through).unwrap();
    let target = rig.put("b", "2").unwrap();
    rig.put("c", "3").unwrap();
    let lineage = rig.engine.lineage();
    rig.close();
    fs::remove_dir_all(home.join("db")).unwrap();
    fs::create_dir(home.join("db")).unwrap();
    fs::copy(&snapshot.path, home.join("db/data.mdb")).unwrap();
    let to = Request {
        target: Some(Target::Lsn(target)),
        ..request()
    };
    let rig = Rig::open_with(&platform, &home, &to).unwrap();
    assert_eq!(rig.keys().len(), 2);
    let kept = home.join(format!("wal.lineage-{lineage}"));
    let found = segments(&kept).iter().any(|p| {
        let mut reader = unisondb_wal::SegmentReader::open(platform.disk.as_ref(), p).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).any(|e| e.record.lsn > target)
    });
    assert!(
        found,
        "the records behind the target lie in {}",
        kept.display()
    );
}

#[test]
fn a_missing_old_segment_under_a_live_state_is_told() {
    let w = world();
    let all = segments(&w.home.join("wal"));
    fs::remove_file(&all[2]).unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    assert!(
        rig.notes.iter().any(|n| n.field == "gap" && n.degraded),
        "{:?}",
        rig.notes
    );
}

#[test]
fn a_copy_cut_before_its_header_ends_the_log_before_it() {
    let w = world();
    w.put_snapshot();
    w.put_archive();
    let all = segments(&w.home.join("wal"));
    fs::write(all.last().unwrap(), b"").unwrap();
    let rig = w.open(&request()).unwrap();
    assert!(
        rig.notes.iter().any(|n| n.field == "damaged" && n.degraded),
        "{:?}",
        rig.notes
    );
    assert!(rig.engine.history().parent.as_ref().unwrap().fork > w.snapshot_lsn);
}
