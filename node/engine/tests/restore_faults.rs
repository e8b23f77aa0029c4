//! Restores by copying that go wrong: what is missing, cut, rotten, foreign or in the way is named,
//! and nothing that was there is lost (P11).

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use std::fs;
use std::path::Path;

use rig::world::{World, all_below, segments, small_world, world};
use rig::{Model, request};
use unisondb_engine::backup::BackupError;
use unisondb_engine::start::{OnGap, Request, StartError};
use unisondb_types::{Lsn, SegmentId, Target};

#[test]
fn a_missing_middle_segment_is_named_and_nothing_is_replayed_over_it() {
    let w = world();
    w.put_backups();
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
    // It shows the history that it ends, not the one that it will throw away, and none can be made
    // of it.
    let parent = rig.engine.history().parent.clone().unwrap();
    let p = rig.engine.positions();
    assert_eq!(rig.engine.lineage(), parent.lineage);
    assert_eq!((p.applied, p.committed, p.last), (up_to, up_to, up_to));
    let digest = rig.engine.digest(None).unwrap();
    assert_eq!(digest, Some((up_to, at.digest)));
    assert!(rig.engine.read_only().unwrap().contains("missing"));
    let refused =
        |e: BackupError| matches!(&e, BackupError::ReadOnly(why) if why.contains("missing"));
    let engine = &rig.engine;
    assert!(refused(
        engine.backup_snapshot("s/x.db", up_to).unwrap_err()
    ));
    assert!(refused(engine.snapshot_file(up_to).map(drop).unwrap_err()));
    let copied = engine.backup_wal(SegmentId::ZERO, "wal/other");
    assert!(refused(copied.unwrap_err()));
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

/// What may happen to a segment's file.
type Damage = (&'static str, fn(&Path));

const DAMAGE: [Damage; 5] = [
    ("a flipped bit", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }),
    ("cut in its frames", |path| cut(path, 1000)),
    ("cut in its header", |path| cut(path, 20)),
    ("empty", |path| cut(path, 0)),
    ("another's bytes", |path| {
        let all = segments(path.parent().unwrap());
        fs::copy(&all[all.len() - 2], path).unwrap();
    }),
];

fn cut(path: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

/// A footer that says another digest, with a good CRC.
fn forge_digest(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - unisondb_wal::FOOTER_BYTES;
    let mut footer = unisondb_wal::Footer::decode(&bytes[at..]).unwrap();
    footer.digest = unisondb_types::Digest::from_bytes([9; 32]);
    bytes[at..].copy_from_slice(&footer.encode());
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_in_a_needed_segment_is_named_before_anything_is_changed() {
    for ((damage, do_damage), new_log) in DAMAGE.iter().flat_map(|d| [(d, false), (d, true)]) {
        let w = world();
        w.put_snapshot();
        if new_log {
            w.put_archive();
        }
        let all = segments(&w.home.join("wal"));
        let bad = &all[all.len() - 3];
        do_damage(bad);
        let before = all_below(&w.home);
        let e = match w.open(&request()) {
            Err(e @ StartError::DamagedSegment { .. }) if e.is_damage() => e.to_string(),
            Err(e) => panic!("{damage}: {e}"),
            Ok(_) => panic!("{damage}: opened"),
        };
        let name = bad.file_name().unwrap().to_str().unwrap();
        for part in ["database file is corrupted: ", name, "Way out: "] {
            assert!(e.contains(part), "{damage}: {part} is not in {e}");
        }
        assert!(
            all_below(&w.home) == before,
            "{damage}: nothing was changed"
        );
        // Not needed, not in the way.
        let target = Target::Lsn(w.snapshot_lsn.next().next());
        let rig = w.open(&w.to(target)).unwrap();
        rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn.next().next()].keys);
    }
}

#[test]
fn a_new_target_replaces_that_of_a_restore_that_failed() {
    let w = world();
    w.put_backups();
    // The replay fails, at a state that is not the one recorded.
    let all = segments(&w.home.join("wal"));
    forge_digest(&all[all.len() - 2]);
    assert!(w.open(&request()).is_err());
    assert!(w.home.join("restoring").exists());
    let target = *w.model.at.range(w.snapshot_lsn.next()..).nth(5).unwrap().0;
    w.put_backups();
    let rig = w.open(&w.to(Target::Lsn(target))).unwrap();
    rig::same(&rig.keys(), &w.model.at[&target].keys);
    assert_eq!(rig.engine.history().parent.as_ref().unwrap().fork, target);
}

/// A history with a fork inside a sealed segment, and all its segments in the archive.
fn forked() -> (World, Model, SegmentId) {
    let w = world();
    let target = Lsn::new(w.snapshot_lsn.get() + 20);
    let target = *w.model.at.range(target..).next().unwrap().0;
    w.put_backups();
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
        w.put_backups();
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
    let w = small_world();
    let target = w.last.prev();
    w.put_snapshot();
    let rig = w.open(&w.to(Target::Lsn(target))).unwrap();
    assert_eq!(rig.keys().len(), 2);
    let lineage = rig.engine.history().parent.as_ref().unwrap().lineage;
    let kept = w.home.join(format!("wal.lineage-{lineage}"));
    let found = segments(&kept).iter().any(|p| {
        let mut reader = unisondb_wal::SegmentReader::open(w.platform.disk.as_ref(), p).unwrap();
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
    w.put_backups();
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

#[test]
fn an_archive_that_ends_with_a_cut_segment_restores_to_its_end() {
    let w = small_world();
    let target = w.last.prev();
    w.put_snapshot();
    let rig = w.open(&w.to(Target::Lsn(target))).unwrap();
    // The new lineage has archived nothing of its own yet when it is lost.
    let copies = rig
        .engine
        .backup_wal(SegmentId::ZERO, "wal/archive")
        .unwrap();
    assert_eq!(copies.copies.len(), 2);
    rig.close();
    w.put_backups();
    let mut rig = w.open(&request()).unwrap();
    assert_eq!(rig.keys().len(), 2);
    assert_eq!(rig.engine.history().parent.as_ref().unwrap().fork, target);
    rig.put("d", "4").unwrap();
    rig.close();
    assert_eq!(w.open(&request()).unwrap().keys().len(), 3);
}

#[test]
fn bad_bytes_in_the_unsealed_segment_below_our_own_state_are_named_and_nothing_is_changed() {
    for begins_a_lineage in [false, true] {
        let w = small_world();
        if begins_a_lineage {
            w.empty("wal");
            w.open(&request()).unwrap().close();
        }
        let newest = segments(&w.home.join("wal")).pop().unwrap();
        let good = fs::read(&newest).unwrap();
        let first_frame = 256 + 20;
        let mut bytes = good.clone();
        bytes[first_frame] ^= 1;
        fs::write(&newest, bytes).unwrap();
        let before = all_below(&w.home);
        match w.open(&request()) {
            Err(e @ StartError::DamagedSegment { .. }) if e.is_damage() => {
                let e = e.to_string();
                let name = newest.file_name().unwrap().to_str().unwrap();
                assert!(e.contains(name) && e.contains("offset 256"), "{e}");
            }
            other => panic!("{:?}", other.map(|r| r.notes)),
        }
        assert!(all_below(&w.home) == before, "nothing was changed");
        fs::write(&newest, good).unwrap();
        let rig = w.open(&request()).unwrap();
        rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    }
}

#[test]
fn a_segment_of_another_namespace_under_a_needed_name_is_named_in_the_gap() {
    let w = world();
    let other = world();
    w.put_backups();
    let all = segments(&w.home.join("wal"));
    let needed = all[all.len() - 3].clone();
    let name = needed.file_name().unwrap();
    fs::copy(other.archive.join(name), &needed).unwrap();
    let id = SegmentId::parse_file_name(name.to_str().unwrap()).unwrap();
    let before = all_below(&w.home);
    match w.open(&request()) {
        Err(e @ StartError::Gap { .. }) => {
            let e = e.to_string();
            let start = format!(
                "wal gap: segment {id} is missing behind LSN {}, but {} there is of lineage ",
                w.snapshot_lsn,
                id.file_name()
            );
            assert!(e.starts_with(&start), "{e}");
            assert!(e.contains("--recovery-on-gap set-aside"), "{e}");
        }
        other => panic!("{:?}", other.map(|r| r.notes)),
    }
    assert!(all_below(&w.home) == before, "nothing was changed");
}

/// The folder after `forked`, copied back without the first segment of the child: what the parent wrote
/// behind the fork is there, and nothing tells where the child left it.
#[test]
fn without_the_record_of_a_fork_no_target_is_looked_for_in_the_older_branch() {
    let (w, _, first) = forked();
    let fork = *w
        .model
        .at
        .range(Lsn::new(w.snapshot_lsn.get() + 20)..)
        .next()
        .unwrap()
        .0;
    let put = || {
        w.put_backups();
        fs::remove_file(w.home.join("wal").join(first.file_name())).unwrap();
    };
    for target in [fork.next().next(), fork, w.snapshot_lsn.next()] {
        put();
        match w.open(&w.to(Target::Lsn(target))) {
            Err(StartError::Gap { .. }) => {}
            other => panic!("{target}: {:?}", other.map(|r| r.notes)),
        }
    }
    // The state itself needs nothing of the log.
    put();
    let rig = w.open(&w.to(Target::Lsn(w.snapshot_lsn))).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.snapshot_lsn].keys);
}

#[test]
fn damage_in_a_log_without_a_state_is_named_beside_what_then_seems_to_be_missing() {
    // The one segment that there is, and the first of many.
    for alone in [true, false] {
        let w = small_world();
        w.empty("db");
        let all = segments(&w.home.join("wal"));
        if alone {
            all[1..].iter().for_each(|s| fs::remove_file(s).unwrap());
        }
        let good = fs::read(&all[0]).unwrap();
        // In the first record, and in the header.
        for at in [256 + 20, 40] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&all[0], bytes).unwrap();
            let before = all_below(&w.home);
            match w.open(&request()) {
                Err(e @ StartError::Corrupted { .. }) if e.is_damage() => {
                    let e = e.to_string();
                    assert!(
                        e.contains(&format!("is damaged: {}", all[0].display())),
                        "{e}"
                    );
                    let readable = if alone { "no record" } else { "begins at LSN" };
                    assert!(e.contains(readable), "{e}");
                    assert!(e.contains("put good copies of the damaged ones"), "{e}");
                }
                other => panic!("{alone}, {at}: {:?}", other.map(|r| r.notes)),
            }
            assert!(all_below(&w.home) == before, "nothing was changed");
        }
        fs::write(&all[0], good).unwrap();
        w.open(&request()).unwrap();
    }
}
