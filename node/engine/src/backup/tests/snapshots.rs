//! Snapshots.

use unisondb_platform::Clock as _;

use super::*;

#[test]
fn a_snapshot_says_what_it_is_and_proves_it() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(2);
    let about = node.snapshot("daily/a.db").unwrap();
    assert_eq!(about.path, node.backups.join("daily/a.db"));
    assert_eq!((about.lsn, about.segment.get()), (node.engine.applied(), 2));
    assert_eq!(
        Some((about.lsn, about.digest)),
        node.engine.digest(None).unwrap()
    );
    check_snapshot(node.read("daily/a.db"), &about);
    let line = format!("{}  a.db\n", about.sha256);
    assert_eq!(node.read("daily/a.db.sha256"), line.as_bytes());
    assert_eq!(node.names("daily"), ["a.db", "a.db.sha256"]);

    node.seal();
    let sealed = node.snapshot("daily/a.db").unwrap();
    assert_eq!(sealed.segment.get(), 3);
    check_snapshot(node.read("daily/a.db"), &sealed);
    assert_eq!(node.engine.backup_status().btree.last_bytes, sealed.bytes);
}

#[test]
fn a_snapshot_of_an_empty_namespace_works() {
    let (node, _, _) = in_memory();
    let about = node.snapshot("a").unwrap();
    assert_eq!((about.lsn, about.segment), (Lsn::FIRST, SegmentId::ZERO));
    check_snapshot(node.read("a"), &about);
}

#[test]
fn a_snapshot_copied_into_db_starts_with_all_that_was_written() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(2);
    let about = node.snapshot("a.db").unwrap();
    let elsewhere = tmp.path().join("elsewhere");
    let db = elsewhere.join("users/db");
    RealDisk.create_folders(&db).unwrap();
    RealDisk
        .publish(&db.join(DATA_FILE), &node.read("a.db"))
        .unwrap();
    let restored = real(&elsewhere);
    let key = Key::new(Bytes::from_static(b"last")).unwrap();
    assert_eq!(
        restored.engine.kv(&key).unwrap(),
        node.engine.kv(&key).unwrap()
    );
    assert!(restored.engine.kv(&key).unwrap().is_some());
    assert!(restored.engine.history().holds(about.lineage, about.lsn));
}

#[test]
fn a_snapshot_waits_for_nothing_that_is_not_applied() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    let ahead = node.engine.applied().next();
    match node.engine.backup_snapshot("a", ahead) {
        Err(BackupError::Behind { through, applied }) => {
            assert_eq!((through, applied), (ahead, node.engine.applied()));
        }
        other => panic!("{other:?}"),
    }
    assert!(node.names("").is_empty());
}

#[test]
fn a_streamed_snapshot_is_the_same_file_and_leaves_none() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    let mut bytes = Vec::new();
    let about = node
        .engine
        .snapshot_to(node.engine.applied(), &mut |block| {
            bytes.extend_from_slice(block);
            Ok(())
        })
        .unwrap();
    check_snapshot(bytes, &about);
    assert_eq!(about.path, PathBuf::new());
    assert!(node.names("").is_empty());
    // Whoever left: nothing stays either.
    let gone = node
        .engine
        .snapshot_to(Lsn::ZERO, &mut |_| Err(io::ErrorKind::BrokenPipe.into()));
    assert!(matches!(gone, Err(BackupError::Io { .. })));
    assert!(node.names("").is_empty());
}

#[test]
fn a_full_or_failing_target_is_told_in_its_words_and_the_previous_snapshot_stays() {
    let (mut node, disk, _) = in_memory();
    node.fill(2);
    let good = node.snapshot("a").unwrap();
    node.put("more", b"data");
    node.engine.flush().unwrap();
    let no_room = "no space left on device";
    for (kind, effect, text) in [
        (OpKind::CreateFile, Effect::Full, no_room),
        (OpKind::Write, Effect::Full, no_room),
        (OpKind::Write, Effect::Quota, no_room),
        (OpKind::Sync, Effect::Full, no_room),
        (OpKind::Rename, Effect::Full, no_room),
        (
            OpKind::CreateFile,
            Effect::Denied,
            "permission denied: /data/backups/users",
        ),
        (
            OpKind::CreateFile,
            Effect::ReadOnly,
            "permission denied: /data/backups/users",
        ),
        (
            OpKind::Write,
            Effect::ReadOnly,
            "permission denied: /data/backups/users",
        ),
        (OpKind::Sync, Effect::Eio, "/data/backups/users/a.tmp: "),
    ] {
        disk.inject(Rule::once(kind, BACKUPS, effect));
        let said = node.snapshot("a").unwrap_err().to_string();
        assert!(said.starts_with(text), "{kind:?} {effect:?}: {said}");
        assert!(
            !(text == no_room || text.starts_with("permission")) || said == text,
            "{said}"
        );
        check_snapshot(node.read("a"), &good);
        assert!(
            node.names("").iter().all(|n| !n.ends_with(".tmp")),
            "{kind:?} {effect:?}"
        );
    }
    let failures = node.engine.backup_status().btree.consecutive_failures;
    assert_eq!(failures, 9);
    // The namespace itself never noticed.
    assert_eq!(node.engine.stopped(), None);
    let again = node.snapshot("a").unwrap();
    check_snapshot(node.read("a"), &again);
    assert_eq!(node.engine.backup_status().btree.consecutive_failures, 0);
}

#[test]
fn a_snapshot_is_kept_as_it_was_while_the_namespace_goes_on() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    let at = node.engine.applied();
    let taken = node.engine.snapshot_file(at).unwrap();
    node.put("later", b"x");
    node.engine.flush().unwrap();
    let mut bytes = vec![0; usize::try_from(taken.about.bytes).unwrap()];
    taken.read_exact_at(&mut bytes, 0).unwrap();
    check_snapshot(bytes, &taken.about);
    assert_eq!(taken.about.lsn, at);
}

#[test]
fn what_a_snapshot_needs_stays_while_it_is_read_and_an_hour_beyond() {
    let hour = std::time::Duration::from_secs(3_600);
    let (mut node, _, clock) = in_memory();
    node.fill(2);
    let taken = node.engine.snapshot_file(node.engine.applied()).unwrap();
    let need = taken.about.segment;
    node.fill(2);
    node.engine.flush().unwrap();
    clock.advance(2 * hour);
    // Whatever retention says: somebody reads it.
    let newest = node.engine.wal().segments().last().unwrap().id;
    let gone = node.engine.wal().purge(newest).unwrap();
    assert_eq!(gone.last(), Some(&need), "{gone:?}");
    assert_eq!(node.engine.snapshots_need(clock.now()), None);
    drop(taken);
    assert_eq!(node.engine.snapshots_need(clock.now()), Some(need));
    clock.advance(hour);
    assert_eq!(node.engine.snapshots_need(clock.now()), None);
    let later = node.snapshot("a").unwrap().segment;
    assert_eq!(node.engine.snapshots_need(clock.now()), Some(later));
}

#[test]
fn a_backup_where_nothing_may_be_written_names_the_folder() {
    let (machine, disk, _clock) = platform(1);
    let mut node = Node::start(&machine, Path::new("/data"));
    node.put("k", b"v");
    for (kind, place, effect, named) in [
        // The root is not there and cannot be made.
        (
            OpKind::CreateFolder,
            BACKUPS,
            Effect::ReadOnly,
            "/data/backups",
        ),
        (
            OpKind::CreateFolder,
            "/data/backups/users/s",
            Effect::ReadOnly,
            "/data/backups/users/s",
        ),
        // A folder of mode 000: it can be opened, but nothing in it can be looked at.
        (
            OpKind::Meta,
            "/data/backups/users/s/a",
            Effect::Denied,
            "/data/backups/users/s",
        ),
    ] {
        if named == "/data/backups" {
            disk.inject(Rule::once(kind, "/data/backups", effect));
        } else {
            disk.inject(Rule::once(kind, place, effect));
        }
        let said = node.snapshot("s/a").unwrap_err().to_string();
        assert_eq!(
            said,
            format!("permission denied: {named}"),
            "{kind:?} {effect:?}"
        );
    }
    node.snapshot("s/a").unwrap();
}

/// The names below the data directory's `backups`, if it is there.
fn below(disk: &MemoryDisk, folder: &str) -> Vec<String> {
    let entries = disk.list(Path::new(folder)).unwrap_or_default();
    entries.into_iter().map(|e| e.name).collect()
}

#[test]
fn a_failed_backup_leaves_no_folder_that_it_made_and_takes_none_that_was_there() {
    let (machine, disk, _clock) = platform(1);
    let mut node = Node::start(&machine, Path::new("/data"));
    node.fill(1);
    let calls: [&dyn Fn(&Node) -> bool; 3] = [
        &|node| node.snapshot("a/b/c").is_err(),
        &|node| node.wal(0, "a/b").is_err(),
        &|node| node.engine.snapshot_file(node.engine.applied()).is_err(),
    ];
    for call in calls {
        for kind in [OpKind::CreateFile, OpKind::Write] {
            disk.inject(Rule::always(kind, "/data/backups", Effect::Full));
            assert!(call(&node));
            let there = disk.exists(Path::new("/data/backups")).unwrap();
            assert!(!there, "{kind:?}: {:?}", below(&disk, "/data/backups"));
            disk.heal();
        }
        // Killed half way down.
        disk.inject(Rule::once(
            OpKind::CreateFolder,
            "/data/backups/users/a/b",
            Effect::Full,
        ));
        call(&node);
        disk.heal();
        disk.remove_all(Path::new("/data/backups")).unwrap();
    }
    disk.create_folders(Path::new("/data/backups/users/a"))
        .unwrap();
    for call in &calls[..2] {
        disk.inject(Rule::always(
            OpKind::CreateFile,
            "/data/backups",
            Effect::Full,
        ));
        assert!(call(&node));
        assert_eq!(below(&disk, "/data/backups/users"), ["a"]);
        assert!(below(&disk, "/data/backups/users/a").is_empty());
        disk.heal();
    }
    // Another call that is at work may be about to write there.
    let other = node.engine.0.backup.targets.enter("other".into());
    disk.inject(Rule::always(
        OpKind::CreateFile,
        "/data/backups",
        Effect::Full,
    ));
    assert!(node.snapshot("a/b/c").is_err());
    assert_eq!(below(&disk, "/data/backups/users/a"), ["b"]);
    drop(other);
}

#[test]
fn what_a_dead_call_left_under_another_name_goes_and_what_a_live_one_writes_or_others_made_stays() {
    let (machine, disk, _clock) = platform(1);
    let mut node = Node::start(&machine, Path::new("/data"));
    node.fill(1);
    node.snapshot("s/a").unwrap();
    let folder = Path::new(BACKUPS).join("s");
    let begun = disk.read(&folder.join("a"), 1 << 30).unwrap();
    let sum = disk.read(&folder.join("a.sha256"), 1 << 10).unwrap();
    let sum = String::from_utf8(sum).unwrap().replace("  a", "  dead");
    let put = |name: &str, bytes: &[u8]| disk.publish(&folder.join(name), bytes).unwrap();
    let leave = || {
        put("dead.tmp", &begun[..9_000]);
        put("empty.tmp", b"");
        put("lost.tmp", &[0; 512]);
        put("lost.sha256.tmp", &[0; 64 + "  lost\n".len()]);
        put("room.tmp", &[0; 513]);
        put("small.tmp", &[0; 100]);
        put("dead.sha256.tmp", &sum.as_bytes()[..70]);
        put("000000009.wal.tmp", b"half");
        put("live.tmp", &begun[..9_000]);
        put("mine.tmp", b"half");
        put("mine.sha256.tmp", b"half");
        put("other.sha256.tmp", sum.as_bytes());
        put("mine.wal.tmp", &begun[..9_000]);
        put(
            "unread.sha256.tmp",
            sum.replace("dead", "unread").as_bytes(),
        );
        disk.spoil(&folder.join("unread.sha256.tmp"), 0).unwrap();
    };
    let stays = [
        "a",
        "a.sha256",
        "live.tmp",
        "mine.sha256.tmp",
        "mine.tmp",
        "mine.wal.tmp",
        "other.sha256.tmp",
        "room.tmp",
        "small.tmp",
        "unread.sha256.tmp",
    ];
    leave();
    let targets = &node.engine.0.backup.targets;
    let live = targets.enter("s/live".into());
    node.snapshot("s/a").unwrap();
    assert_eq!(node.names("s"), stays);
    leave();
    node.wal(1, "s").unwrap();
    assert_eq!(node.names("s"), stays);
    // A WAL backup that works on this folder writes its segments.
    leave();
    let copying = targets.enter("s".into());
    node.snapshot("s/a").unwrap();
    assert!(node.names("s").contains(&"000000009.wal.tmp".to_owned()));
    drop((live, copying));
    node.snapshot("s/a").unwrap();
    assert!(
        !node.names("s").contains(&"live.tmp".to_owned()),
        "its call is dead"
    );
}

#[test]
fn on_a_real_disk_too_a_failed_backup_leaves_no_folder_that_it_made() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.put("k", b"v");
    let ahead = node.engine.applied().next();
    let failed = node.engine.backup_snapshot("a/b/c", ahead);
    assert!(matches!(failed, Err(BackupError::Behind { .. })));
    assert!(!node.machine.disk.exists(&node.backups).unwrap());
    node.snapshot("a/b/c").unwrap();
    assert!(node.engine.backup_snapshot("a/x/c", ahead).is_err());
    assert_eq!(node.names("a"), ["b"]);
}
