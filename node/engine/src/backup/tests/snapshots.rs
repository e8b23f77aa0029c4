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
