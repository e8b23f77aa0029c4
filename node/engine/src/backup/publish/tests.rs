//! Publishing a file: whole under its name or not there, whatever fails meanwhile (P9).
#![allow(clippy::unwrap_used)]
use std::path::Path;
use std::time::Duration;

use unisondb_platform::memory::{self, Effect, MemoryClock, MemoryDisk, OpKind, Rule};
use unisondb_platform::{Disk, DiskExt};

use super::super::root::{Asked, Missing};
use super::*;

const ROOT: &str = "/backups/users";
const FILE: &str = "/backups/users/daily/x.bak";

/// A folder below the root, made if it is missing.
fn folder(disk: &MemoryDisk, name: &str) -> Result<Folder, BackupError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let asked = Asked::folder(name).unwrap();
    let found = Folder::reach(&disk, Path::new(ROOT), &asked, Missing::Make)?;
    Ok(found.expect("it was made"))
}

fn publish(disk: &MemoryDisk, bytes: &[u8]) -> Result<(), BackupError> {
    let folder = folder(disk, "daily")?;
    let mut draft = Draft::begin(&folder, "x.bak")?;
    for block in bytes.chunks(700) {
        draft.write(block)?;
    }
    draft.sync()?;
    draft.publish_with_sum(&Sha256Sum::from_bytes(Sha256::digest(bytes).into()))?;
    folder.sync()
}

fn old() -> Vec<u8> {
    b"old ".repeat(500)
}

fn new() -> Vec<u8> {
    b"new".repeat(900)
}

fn with_old() -> MemoryDisk {
    let disk = MemoryDisk::default();
    publish(&disk, &old()).unwrap();
    disk
}

fn sum_line(bytes: &[u8]) -> Vec<u8> {
    let sum = Sha256Sum::from_bytes(Sha256::digest(bytes).into());
    format!("{sum}  x.bak\n").into_bytes()
}

/// What a reader may rely on, whatever happened: a whole file, and no checksum but its own.
fn check(disk: &MemoryDisk, when: &str) -> Vec<u8> {
    let found = disk.read(Path::new(FILE), 1 << 20).unwrap();
    assert!(
        found == old() || found == new(),
        "{when}: {} bytes",
        found.len()
    );
    match disk.read(&Path::new(FILE).with_extension("bak.sha256"), 999) {
        Ok(sum) => assert_eq!(sum, sum_line(&found), "{when}"),
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::NotFound, "{when}"),
    }
    found
}

fn temporary(disk: &MemoryDisk) -> usize {
    let names = disk.list(Path::new("/backups/users/daily")).unwrap();
    names.iter().filter(|e| e.name.ends_with(TMP)).count()
}

#[test]
fn a_published_file_and_its_checksum_are_durable() {
    let disk = with_old();
    publish(&disk, &new()).unwrap();
    for seed in 0..20 {
        let after = disk.crash(seed);
        assert_eq!(check(&after, "after success"), new());
        assert!(
            after
                .exists(&Path::new(FILE).with_extension("bak.sha256"))
                .unwrap()
        );
        assert_eq!(temporary(&after), 0);
    }
}

#[test]
fn power_lost_at_any_operation_leaves_the_old_file_or_the_new_one_whole() {
    let disk = with_old();
    let first = disk.ops();
    publish(&disk, &new()).unwrap();
    let (mut kept, mut replaced) = (0, 0);
    for n in first..disk.ops() {
        let disk = with_old();
        disk.freeze_at(n);
        publish(&disk, &new()).unwrap_err();
        for seed in 0..10 {
            let after = disk.crash(seed);
            let found = check(&after, &format!("power lost at {n}, seed {seed}"));
            if found == old() {
                kept += 1
            } else {
                replaced += 1
            }
            // The next call finds its way, leftovers or not.
            publish(&after, &new()).unwrap();
            assert_eq!((check(&after, "again"), temporary(&after)), (new(), 0));
        }
    }
    assert!(kept > 0 && replaced > 0, "{kept} kept, {replaced} replaced");
}

#[test]
fn a_process_killed_at_any_operation_leaves_the_old_file_or_the_new_one_whole() {
    let disk = with_old();
    let first = disk.ops();
    publish(&disk, &new()).unwrap();
    for n in first..disk.ops() {
        let disk = with_old();
        disk.freeze_at(n);
        publish(&disk, &new()).unwrap_err();
        let after = disk.kill();
        check(&after, &format!("killed at {n}"));
        publish(&after, &new()).unwrap();
        assert_eq!((check(&after, "again"), temporary(&after)), (new(), 0));
    }
}

#[test]
fn every_failure_is_told_in_its_words_and_leaves_the_old_file_and_no_temporary_one() {
    let kinds = [
        OpKind::CreateFile,
        OpKind::Write,
        OpKind::Sync,
        OpKind::Rename,
    ];
    for kind in kinds {
        for (effect, text) in [
            (Effect::Full, "no space left on device"),
            (Effect::Quota, "no space left on device"),
            (Effect::Denied, "permission denied: /backups/users/daily"),
            (Effect::Eio, "/backups/users/daily/x.bak"),
        ] {
            let disk = with_old();
            disk.inject(Rule::once(kind, "/backups", effect));
            let said = publish(&disk, &new()).unwrap_err().to_string();
            if effect == Effect::Denied {
                assert!(said.starts_with(text), "{kind:?} {effect:?}: {said}");
            } else if effect == Effect::Eio {
                assert!(
                    said.starts_with(text) && said.contains("os error 5"),
                    "{kind:?}: {said}"
                );
            } else {
                assert_eq!(said, text, "{kind:?} {effect:?}");
            }
            assert_eq!(check(&disk, &format!("{kind:?} {effect:?}")), old());
            assert_eq!(temporary(&disk), 0, "{kind:?} {effect:?}");
            publish(&disk, &new()).unwrap();
            assert_eq!(check(&disk, "again"), new());
        }
    }
    let disk = with_old();
    disk.inject(Rule::once(OpKind::SyncFolder, "/backups", Effect::Full));
    assert!(matches!(publish(&disk, &new()), Err(BackupError::NoSpace)));
    check(&disk, "the folder could not be synced");
}

#[test]
fn a_folder_that_takes_no_new_file_is_the_one_named() {
    let disk = with_old();
    disk.inject(Rule::once(OpKind::CreateFile, "/backups", Effect::Denied));
    let said = publish(&disk, &new()).unwrap_err().to_string();
    assert_eq!(said, "permission denied: /backups/users/daily");
}

#[test]
fn short_and_interrupted_writes_are_finished() {
    let disk = with_old();
    disk.inject(Rule::always(OpKind::Write, "/backups", Effect::Short(13)));
    publish(&disk, &new()).unwrap();
    assert_eq!(check(&disk, "short"), new());
    let disk = with_old();
    disk.inject(Rule::once(OpKind::Write, "/backups", Effect::Interrupted).after(1));
    publish(&disk, &new()).unwrap();
    assert_eq!(check(&disk, "interrupted"), new());
}

#[test]
fn a_failed_sync_is_not_tried_again_on_the_same_file() {
    let disk = with_old();
    disk.inject(Rule::once(OpKind::Sync, "/backups", Effect::Eio));
    let before = disk.ops();
    publish(&disk, &new()).unwrap_err();
    let log = disk.log();
    let after: Vec<_> = log
        .iter()
        .filter(|o| o.number >= before)
        .map(|o| o.kind)
        .collect();
    let last = after.iter().rposition(|k| *k == OpKind::Sync).unwrap();
    assert_eq!(
        after[last + 1..],
        [OpKind::RemoveFile],
        "thrown away at once"
    );
}

#[test]
fn backups_give_up_while_the_log_still_has_room() {
    let disk = with_old();
    disk.set_capacity(Some(4 << 30));
    disk.set_other_tenants((4 << 30) - (80 << 20));
    publish(&disk, &new()).unwrap();
    disk.set_other_tenants((4 << 30) - (60 << 20));
    let found = check(&disk, "before");
    assert!(matches!(publish(&disk, &old()), Err(BackupError::NoSpace)));
    assert_eq!((check(&disk, "refused"), temporary(&disk)), (found, 0));
    disk.set_other_tenants(0);
    publish(&disk, &old()).unwrap();
}

#[test]
fn a_long_file_stops_before_it_has_taken_the_logs_room() {
    let disk = MemoryDisk::default();
    disk.set_capacity(Some(1 << 30));
    disk.set_other_tenants((1 << 30) - (50 << 20));
    let folder = folder(&disk, ".").unwrap();
    let mut draft = Draft::begin(&folder, "x").unwrap();
    let block = vec![1; 1 << 20];
    let failed = (0..60).find_map(|_| draft.write(&block).err()).unwrap();
    assert!(matches!(failed, BackupError::NoSpace));
    let left = disk.space(Path::new("/")).unwrap().available;
    assert!(left > 10 << 20, "{left} bytes are left");
    drop(draft);
    assert!(!disk.exists(Path::new("/backups/users/x.tmp")).unwrap());
}

#[test]
fn what_a_draft_is_known_by_is_on_the_medium_before_the_rest_is_written() {
    let disk = MemoryDisk::default();
    let folder = folder(&disk, ".").unwrap();
    let block = vec![1; 4 << 10];
    let kinds_of = |name: &str| -> Vec<OpKind> {
        let first = disk.ops();
        let mut draft = Draft::begin(&folder, name).unwrap();
        draft.write(&block).unwrap();
        draft.write(&block).unwrap();
        let of_file = disk.log().into_iter().filter(|o| o.number >= first);
        of_file
            .map(|o| o.kind)
            .filter(|k| matches!(k, OpKind::Write | OpKind::Sync))
            .collect()
    };
    let (write, sync) = (OpKind::Write, OpKind::Sync);
    assert_eq!(kinds_of("a.db"), [write, sync, write, write]);
    // Known by their names, whatever is in them.
    assert_eq!(kinds_of("000000001.wal"), [write, write]);
    disk.inject(Rule::once(OpKind::Sync, ROOT, Effect::Eio));
    let failed = Draft::begin(&folder, "b.db").unwrap().write(&block);
    assert!(matches!(failed, Err(BackupError::Io { .. })), "{failed:?}");
}

#[test]
fn a_failed_early_sync_ends_the_file() {
    let disk = MemoryDisk::default();
    let folder = folder(&disk, ".").unwrap();
    let platform = memory::platform_on(&disk, &MemoryClock::default(), 1);
    let mut draft = Draft::begin(&folder, "x").unwrap().long(&platform);
    draft.write(&[1; 513]).unwrap();
    disk.inject(Rule::once(OpKind::Sync, ROOT, Effect::Eio));
    draft.write(&vec![1; 16 << 20]).unwrap();
    assert!(matches!(draft.sync(), Err(BackupError::Io { .. })));
    assert!(
        matches!(draft.sync(), Err(BackupError::Io { .. })),
        "nor is it good later"
    );
    drop(draft);
    assert!(disk.list(Path::new(ROOT)).unwrap().is_empty());
}

#[test]
fn a_long_file_is_synced_in_small_steps_while_a_log_is_written() {
    let disk = MemoryDisk::default();
    let platform = memory::platform_on(&disk, &MemoryClock::default(), 1);
    let folder = folder(&disk, ".").unwrap();
    let mut draft = Draft::begin(&folder, "x").unwrap().long(&platform);
    let syncs = || disk.log().iter().filter(|o| o.kind == OpKind::Sync).count();
    draft.write(&[1; 513]).unwrap();
    let before = syncs();
    let mebibyte = vec![1; 1 << 20];
    for _ in 0..4 {
        draft.write(&mebibyte).unwrap();
    }
    assert_eq!(syncs(), before, "the logs are quiet");
    for n in 1..=4 {
        platform.pulse.beat();
        draft.write(&mebibyte).unwrap();
        assert_eq!(syncs(), before + n, "a sync a mebibyte");
    }
    platform.pulse.beat();
    disk.inject(Rule::once(OpKind::Sync, ROOT, Effect::Eio));
    let failed = draft.write(&mebibyte);
    assert!(matches!(failed, Err(BackupError::Io { .. })), "{failed:?}");
}

#[test]
fn an_unnamed_file_is_read_for_as_long_as_it_is_kept() {
    let disk = MemoryDisk::default();
    let folder = folder(&disk, ".").unwrap();
    let mut draft = Draft::begin(&folder, ".snapshot").unwrap();
    draft.write(b"abc").unwrap();
    let file = draft.unnamed().unwrap();
    assert!(disk.list(Path::new(ROOT)).unwrap().is_empty());
    let mut read = [0; 3];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"abc");
}

#[test]
fn one_call_at_a_time_works_on_a_target() {
    let targets = Targets::default();
    let mut first = Some(targets.enter("a".into()));
    drop(targets.enter("b".into()));
    std::thread::scope(|s| {
        let (told, done) = std::sync::mpsc::channel();
        let targets = &targets;
        s.spawn(move || {
            let _second = targets.enter("a".into());
            told.send(()).unwrap();
        });
        let early = done.recv_timeout(Duration::from_millis(50));
        drop(first.take());
        assert!(early.is_err(), "the second call did not wait");
        done.recv_timeout(Duration::from_secs(10)).unwrap();
    });
}
