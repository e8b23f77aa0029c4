//! Restores by copying from a log that is not whole, where nothing that is needed is missing: the last
//! footer, what lies behind the target, what lies below the snapshot.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};

use rig::world::{World, segments, world};
use rig::{request, same};
use unisondb_engine::start::StartError;
use unisondb_types::{Lsn, Target};

fn cut(path: &Path, by: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(by)).unwrap();
}

/// The state after the restore is the model's after this record.
fn stands_after(w: &World, rig: &rig::Rig, lsn: Lsn) {
    let fork = rig.engine.history().parent.clone().unwrap().fork;
    assert_eq!(fork, lsn);
    let (_, at) = w.model.at.range(..=lsn).next_back().unwrap();
    same(&rig.keys(), &at.keys);
}

/// First and last LSN of a copied segment, by its place among all.
fn bounds(w: &World, n: usize) -> (PathBuf, Lsn, Lsn) {
    let path = segments(&w.home.join("wal"))[n].clone();
    let info = unisondb_wal::verify(w.platform.disk.as_ref(), &path)
        .unwrap()
        .info;
    (path, info.header.first_lsn, info.last_lsn.unwrap())
}

#[test]
fn a_last_segment_that_lost_its_footer_counts_to_its_last_record() {
    for by in [1, 100, 255, 256] {
        let w = world();
        w.put_backups();
        let all = segments(&w.home.join("wal"));
        let (last, _, end) = bounds(&w, all.len() - 1);
        cut(&last, by);
        let rig = w
            .open(&request())
            .unwrap_or_else(|e| panic!("{by} bytes less: {e}"));
        stands_after(&w, &rig, end);
        rig.close();
    }
}

#[test]
fn a_hole_behind_the_target_is_no_gap_and_one_before_it_is() {
    let w = world();
    w.put_backups();
    let n = segments(&w.home.join("wal")).len();
    let (hole, first, last) = bounds(&w, n - 3);
    let before = bounds(&w, n - 4);
    let inside = Lsn::new(before.1.get() + 2);
    let targets = [
        (Target::Lsn(inside), inside),
        (Target::Lsn(first.prev()), first.prev()),
        (Target::BeforeLsn(first), first.prev()),
        (Target::Immediate, w.snapshot_lsn),
    ];
    for (target, lsn) in targets {
        w.put_backups();
        fs::remove_file(&hole).unwrap();
        let rig = w
            .open(&w.to(target))
            .unwrap_or_else(|e| panic!("{target:?}: {e}"));
        stands_after(&w, &rig, lsn);
        assert!(
            target == Target::Immediate
                || rig
                    .notes
                    .iter()
                    .any(|n| n.text.contains("behind the target")),
            "{:?}",
            rig.notes
        );
        rig.close();
        start_over(&w);
    }
    for target in [Target::Latest, Target::Lsn(last), Target::Lsn(first)] {
        w.put_backups();
        fs::remove_file(&hole).unwrap();
        let refused = w.open(&w.to(target)).map(|r| r.notes);
        assert!(
            matches!(refused, Err(StartError::Gap { .. })),
            "{target:?}: {refused:?}"
        );
    }
}

/// As an operator empties a namespace before the next try.
fn start_over(w: &World) {
    for e in fs::read_dir(&w.home).unwrap() {
        let path = e.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
    for folder in ["db", "wal"] {
        fs::create_dir(w.home.join(folder)).unwrap();
    }
}

#[test]
fn a_time_is_reached_by_a_record_of_that_stamp_or_a_later_one_before_the_hole() {
    let w = world();
    w.put_backups();
    let n = segments(&w.home.join("wal")).len();
    let (hole, ..) = bounds(&w, n - 3);
    let (_, _, end) = bounds(&w, n - 4);
    let path = segments(&w.home.join("wal"))[n - 4].clone();
    let info = unisondb_wal::verify(w.platform.disk.as_ref(), &path)
        .unwrap()
        .info;
    fs::remove_file(&hole).unwrap();
    let rig = w.open(&w.to(Target::Time(info.last_stamp))).unwrap();
    stands_after(&w, &rig, end);
    rig.close();
    start_over(&w);
    w.put_backups();
    fs::remove_file(&hole).unwrap();
    let later = Target::Time(info.last_stamp.plus_micros(1));
    let refused = w.open(&w.to(later)).map(|r| r.notes);
    assert!(
        matches!(refused, Err(StartError::Gap { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_segment_cut_below_the_snapshot_is_moved_aside_and_said() {
    for by in [1, 300, 2_000] {
        let w = world();
        w.put_backups();
        let (first, _, last) = bounds(&w, 0);
        assert!(last < w.snapshot_lsn);
        cut(&first, by);
        let n = segments(&w.home.join("wal")).len();
        let (_, _, end) = bounds(&w, n - 1);
        let rig = w
            .open(&request())
            .unwrap_or_else(|e| panic!("{by} bytes less: {e}"));
        stands_after(&w, &rig, end);
        let note = rig.notes.iter().find(|n| n.field == "damaged").unwrap();
        assert!(
            note.degraded && note.text.contains("put a backup of it"),
            "{note:?}"
        );
        let moved = w.home.join("wal.damaged").join(first.file_name().unwrap());
        assert!(moved.exists());
        rig.close();
    }
}
