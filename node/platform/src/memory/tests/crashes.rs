//! Power loss, kill, freezing.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;
use crate::memory::{Effect, OpKind, Rule};

const SEEDS: std::ops::Range<u64> = 0..300;

/// Every end that a crash of `disk` may have, as `look` sees it.
fn ends<T: Ord>(disk: &MemoryDisk, look: impl Fn(&MemoryDisk) -> T) -> BTreeSet<T> {
    SEEDS.map(|seed| look(&disk.crash(seed))).collect()
}

#[test]
fn what_was_synced_with_its_folder_survives_every_crash() {
    let disk = MemoryDisk::default();
    disk.create_folders(path("/a/b")).unwrap();
    create_durable(&disk, "/a/b/file", b"kept");
    disk.publish(path("/a/published"), b"whole").unwrap();
    assert_eq!(disk.durable(path("/a/b/file")).unwrap(), b"kept");
    let seen = ends(&disk, |disk| {
        (read(disk, "/a/b/file"), read(disk, "/a/published"))
    });
    assert_eq!(
        seen,
        BTreeSet::from([(Some(b"kept".to_vec()), Some(b"whole".to_vec()))])
    );
}

#[test]
fn an_unsynced_write_survives_not_at_all_whole_as_a_beginning_or_in_sectors() {
    let disk = MemoryDisk::default();
    let file = create_durable(&disk, "/file", &[0; 2048]);
    file.write_all_at(&[1; 2048], 0).unwrap();
    let seen = ends(&disk, |disk| read(disk, "/file").unwrap());
    let sectors = |bytes: &[u8]| bytes.chunks(512).all(|s| s.iter().all(|b| *b == s[0]));
    let beginning = |bytes: &[u8]| bytes.is_sorted_by(|a, b| a >= b);
    for bytes in &seen {
        assert_eq!(bytes.len(), 2048);
        assert!(sectors(bytes) || beginning(bytes), "neither torn nor whole");
    }
    assert!(seen.contains(&vec![0; 2048]) && seen.contains(&vec![1; 2048]));
    assert!(seen.iter().any(|b| !sectors(b)), "a torn sector");
    assert!(
        seen.iter().any(|b| sectors(b) && !beginning(b)),
        "sectors out of order"
    );
}

#[test]
fn a_later_write_may_survive_an_earlier_one_unless_a_sync_lay_between() {
    for synced in [false, true] {
        let disk = MemoryDisk::default();
        let file = create_durable(&disk, "/file", b"");
        file.write_all_at(b"a", 0).unwrap();
        if synced {
            file.sync().unwrap();
        }
        file.write_all_at(b"b", 600).unwrap();
        let only_later = ends(&disk, |disk| {
            let bytes = read(disk, "/file").unwrap();
            bytes.len() == 601 && bytes[0] == 0
        });
        assert_eq!(
            only_later.contains(&true),
            !synced,
            "with a sync between: {synced}"
        );
    }
}

#[test]
fn changes_of_length_survive_in_order() {
    let disk = MemoryDisk::default();
    let file = create_durable(&disk, "/file", &[1; 100]);
    for len in [80, 60, 40] {
        file.set_len(len).unwrap();
    }
    let seen = ends(&disk, |disk| read(disk, "/file").unwrap().len());
    assert_eq!(seen, BTreeSet::from([100, 80, 60, 40]));
}

#[test]
fn a_synced_file_without_a_synced_name_may_be_gone() {
    let disk = MemoryDisk::default();
    create(&disk, "/file", b"abc").sync().unwrap();
    let seen = ends(&disk, |disk| read(disk, "/file"));
    assert_eq!(seen, BTreeSet::from([None, Some(b"abc".to_vec())]));
    assert_eq!(disk.durable(path("/file")), None);
}

#[test]
fn a_rename_without_folder_sync_may_not_survive() {
    let disk = MemoryDisk::default();
    create_durable(&disk, "/old", b"new");
    create_durable(&disk, "/name", b"old");
    disk.rename(path("/old"), path("/name")).unwrap();
    let look = |disk: &MemoryDisk| (names(disk, "/").len(), read(disk, "/name").unwrap());
    let both = BTreeSet::from([(1, b"new".to_vec()), (2, b"old".to_vec())]);
    assert_eq!(ends(&disk, look), both, "old or new, never neither");
    // A crash freezes the disk it is asked of.
    let disk = disk.kill();
    disk.sync_folder(path("/")).unwrap();
    assert_eq!(ends(&disk, look), BTreeSet::from([(1, b"new".to_vec())]));
}

#[test]
fn an_exchange_survives_a_crash_whole_or_not_at_all() {
    for synced in [None, Some("/a"), Some("/b")] {
        let disk = MemoryDisk::default();
        disk.create_folders(path("/a")).unwrap();
        disk.create_folders(path("/b")).unwrap();
        create_durable(&disk, "/a/one", b"1");
        create_durable(&disk, "/b/two", b"2");
        create(&disk, "/b/earlier", b"");
        disk.exchange(path("/a/one"), path("/b/two")).unwrap();
        create(&disk, "/a/later", b"");
        if let Some(folder) = synced {
            disk.sync_folder(path(folder)).unwrap();
        }
        let look =
            |disk: &MemoryDisk| (read(disk, "/a/one").unwrap(), read(disk, "/b/two").unwrap());
        let mut wanted = BTreeSet::from([(b"2".to_vec(), b"1".to_vec())]);
        if synced.is_none() {
            wanted.insert((b"1".to_vec(), b"2".to_vec()));
        }
        assert_eq!(ends(&disk, look), wanted, "synced: {synced:?}");
    }
}

#[test]
fn a_rename_between_folders_is_there_once() {
    for synced in [None, Some("/a"), Some("/b")] {
        let disk = MemoryDisk::default();
        disk.create_folders(path("/a")).unwrap();
        disk.create_folders(path("/b")).unwrap();
        create_durable(&disk, "/a/file", b"x");
        create(&disk, "/b/earlier", b"");
        disk.rename(path("/a/file"), path("/b/file")).unwrap();
        create(&disk, "/a/later", b"");
        create(&disk, "/b/next", b"");
        if let Some(folder) = synced {
            disk.sync_folder(path(folder)).unwrap();
        }
        let seen = ends(&disk, |disk| {
            (names(disk, "/a").join(","), names(disk, "/b").join(","))
        });
        for (a, b) in &seen {
            assert_ne!(
                a.contains("file"),
                b.contains("file"),
                "in {a:?} or in {b:?}"
            );
            assert!(
                !b.contains("file") || b.contains("earlier"),
                "what was before it is there"
            );
            assert!(
                !b.contains("next") || b.contains("file"),
                "what came after it is not alone"
            );
        }
        let moved = seen.iter().all(|(_, b)| b.contains("file"));
        assert_eq!(moved, synced.is_some(), "durable with either folder");
        let later = seen.iter().all(|(a, _)| a.contains("later"));
        assert_eq!(
            later,
            synced == Some("/a"),
            "a folder's later names wait for its own sync"
        );
    }
}

#[test]
fn names_survive_as_a_beginning_of_what_was_done() {
    let disk = MemoryDisk::default();
    for name in ["/a", "/b", "/c"] {
        create(&disk, name, b"");
    }
    disk.remove_file(path("/a")).unwrap();
    let seen = ends(&disk, |disk| names(disk, "/").concat());
    assert_eq!(seen, ["", "a", "ab", "abc", "bc"].map(String::from).into());
}

#[test]
fn a_folder_that_is_lost_takes_all_in_it() {
    let disk = MemoryDisk::default();
    disk.create_folder(path("/a")).unwrap();
    create_durable(&disk, "/a/file", b"x");
    let seen = ends(&disk, |disk| disk.exists(path("/a")).unwrap());
    assert_eq!(seen, BTreeSet::from([false, true]));
}

#[test]
fn a_failed_sync_loses_bytes_and_the_next_sync_says_ok() {
    let mut lost = BTreeSet::new();
    for seed in 0..20 {
        let disk = MemoryDisk::default();
        disk.set_seed(seed);
        let file = create_durable(&disk, "/file", &[0; 2048]);
        for n in 0..4 {
            file.write_all_at(&[1; 512], n * 512).unwrap();
        }
        disk.inject(Rule::once(OpKind::Sync, "/file", Effect::Eio));
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.sync().unwrap();
        assert_eq!(
            read(&disk, "/file").unwrap(),
            [1; 2048],
            "they stay readable"
        );
        let killed = disk.kill();
        assert_eq!(
            read(&killed, "/file").unwrap(),
            [1; 2048],
            "also after a kill"
        );
        let seen = ends(&killed, |disk| read(disk, "/file").unwrap());
        assert_eq!(seen.len(), 1, "what is lost was decided by the sync");
        let bytes = seen.into_iter().next().unwrap();
        assert!(bytes.contains(&0), "a failed sync has lost something");
        lost.insert(bytes);
    }
    assert!(lost.len() > 4, "and not always the same");
}

#[test]
fn a_failed_sync_of_a_grown_file_leaves_a_hole() {
    let disk = MemoryDisk::default();
    let file = create_durable(&disk, "/file", b"");
    file.write_all_at(&[1; 512], 0).unwrap();
    disk.inject(Rule::once(OpKind::Sync, "/", Effect::Full));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::StorageFull);
    file.sync().unwrap();
    assert_eq!(read(&disk.crash(1), "/file").unwrap(), [0; 512]);
}

#[test]
fn a_failed_folder_sync_loses_names_and_the_next_sync_says_ok() {
    let disk = MemoryDisk::default();
    create(&disk, "/file", b"x").sync().unwrap();
    disk.inject(Rule::once(OpKind::SyncFolder, "/", Effect::Eio));
    disk.sync_folder(path("/")).unwrap_err();
    disk.sync_folder(path("/")).unwrap();
    assert_eq!(read(&disk, "/file").unwrap(), b"x", "seen until the crash");
    assert_eq!(
        ends(&disk, |disk| read(disk, "/file")),
        BTreeSet::from([None])
    );
}

#[test]
fn a_kill_keeps_all_that_was_written_and_frees_locks() {
    let disk = MemoryDisk::default();
    let _held = disk.lock(path("/lock")).unwrap();
    let _open = create(&disk, "/file", b"unsynced");
    disk.remove_file(path("/lock")).unwrap();
    let killed = disk.kill();
    assert_eq!(names(&killed, "/"), ["file"]);
    assert_eq!(read(&killed, "/file").unwrap(), b"unsynced");
    let _lock = killed.lock(path("/lock")).unwrap();
    let seen = ends(&killed, |disk| read(disk, "/file").is_some());
    assert_eq!(seen.len(), 2, "what was not synced is still at risk");
}

#[test]
fn from_the_frozen_operation_on_nothing_changes() {
    let disk = MemoryDisk::default();
    let file = create_durable(&disk, "/file", b"before");
    let next = disk.ops();
    disk.freeze_at(next + 1);
    file.write_all_at(b"B", 0).unwrap();
    assert!(!disk.is_frozen());
    let eio = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
    eio(file.write_all_at(b"C", 0));
    assert!(disk.is_frozen());
    eio(file.sync());
    eio(disk.remove_file(path("/file")));
    eio(disk.list(path("/")).map(drop));
    eio(file.read_at(&mut [0], 0).map(drop));
    drop(file);
    assert_eq!(disk.ops(), next + 1, "what is refused is not counted");
    assert_eq!(read(&disk.kill(), "/file").unwrap(), b"Before");
}

#[test]
fn the_same_seed_leaves_the_same_bytes_whatever_happened_elsewhere() {
    let run = |elsewhere: bool| {
        let disk = MemoryDisk::default();
        let here = create_durable(&disk, "/here", &[0; 4096]);
        let there = create_durable(&disk, "/there", b"");
        for n in 0..8 {
            if elsewhere {
                there.write_all_at(&[9; 1000], n * 1000).unwrap();
            }
            here.write_all_at(&[1; 512], n * 512).unwrap();
        }
        SEEDS
            .map(|seed| read(&disk.crash(seed), "/here").unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(true), run(true));
    assert_eq!(run(true), run(false));
}

/// The sweep that every layer above uses must catch who leaves a sync out.
#[test]
fn a_crash_sweep_catches_a_missing_sync() {
    type Step = fn(&MemoryDisk) -> std::io::Result<()>;
    let publish: Step = |disk| disk.publish(path("/name"), b"new");
    let without_file_sync: Step = |disk| {
        let file = disk.open(path("/name.tmp"), Access::CreateNew)?;
        file.write_all_at(b"new", 0)?;
        disk.rename(path("/name.tmp"), path("/name"))?;
        disk.sync_folder(path("/"))
    };
    let without_folder_sync: Step = |disk| {
        let file = disk.open(path("/name.tmp"), Access::CreateNew)?;
        file.write_all_at(b"new", 0)?;
        file.sync()?;
        disk.rename(path("/name.tmp"), path("/name"))
    };
    let in_place: Step = |disk| {
        let file = disk.open(path("/name"), Access::Write)?;
        file.write_all_at(b"new", 0)?;
        file.sync()
    };
    let holds = |step: Step| {
        let fresh = || {
            let disk = MemoryDisk::default();
            disk.publish(path("/name"), b"old").unwrap();
            disk
        };
        let disk = fresh();
        let first = disk.ops();
        step(&disk).unwrap();
        let ops = disk.ops();
        (first..=ops).all(|n| {
            let disk = fresh();
            disk.freeze_at(n);
            let done = step(&disk).is_ok();
            assert_eq!(done, n == ops, "{:?}", disk.log());
            (0..100).all(|seed| {
                let bytes = read(&disk.crash(seed), "/name");
                let bytes = bytes.as_deref();
                bytes == Some(b"new") || (!done && bytes == Some(b"old"))
            })
        })
    };
    assert!(holds(publish));
    assert!(!holds(without_file_sync));
    assert!(!holds(without_folder_sync));
    assert!(!holds(in_place));
}
