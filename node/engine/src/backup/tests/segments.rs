//! WAL backups.

use super::*;

#[test]
fn sealed_segments_are_copied_byte_for_byte_with_their_checksums() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(3);
    let done = node.engine.backup_wal(SegmentId::ZERO, "./wal/x").unwrap();
    assert_eq!(done.first_available, Some(SegmentId::FIRST));
    assert_eq!(done.copies.len(), 3);
    for (n, copy) in done.copies.iter().enumerate() {
        let name = format!("{:09}.wal", n + 1);
        let shown = format!("{}/./wal/x/{name}", node.backups.display());
        assert_eq!(copy.path.as_os_str().to_str().unwrap(), shown);
        let bytes = node.read(&format!("wal/x/{name}"));
        assert_eq!(
            bytes,
            node.machine
                .disk
                .read(&tmp.path().join("users/wal").join(&name), 1 << 20)
                .unwrap()
        );
        assert_eq!(
            (copy.bytes, copy.sha256),
            (bytes.len() as u64, sha256(&bytes))
        );
        let line = format!("{}  {name}\n", copy.sha256);
        assert_eq!(node.read(&format!("wal/x/{name}.sha256")), line.as_bytes());
    }
    assert_eq!(node.names("wal/x").len(), 6);
    assert_eq!(node.wal(2, "wal/x").unwrap(), [3]);
}

#[test]
fn nothing_new_makes_no_folder() {
    let (mut node, _, _) = in_memory();
    assert!(node.wal(0, "wal/x").unwrap().is_empty());
    node.fill(2);
    assert!(node.wal(2, "wal/x").unwrap().is_empty());
    assert!(node.wal(99, "wal/x").unwrap().is_empty());
    assert!(!node.machine.disk.exists(Path::new(BACKUPS)).unwrap());
    let wal = node.engine.backup_status().wal;
    assert_eq!((wal.successes, wal.failures, wal.bytes), (3, 0, 0));
}

#[test]
fn a_repeated_backup_publishes_fresh_files_of_the_same_bytes() {
    let tmp = tempfile::tempdir().unwrap();
    let mut node = real(tmp.path());
    node.fill(1);
    node.wal(0, "wal").unwrap();
    let path = node.backups.join("wal/000000001.wal");
    let first = stat(&path).unwrap();
    let kept = RealDisk.open(&path, Access::Read).unwrap();
    node.wal(0, "wal").unwrap();
    let second = stat(&path).unwrap();
    // Who still reads the first keeps it; the second is another file, not a link to the log's own.
    assert_ne!(first.st_ino, second.st_ino);
    assert_eq!((second.st_nlink, second.st_mode & 0o777), (1, 0o600));
    drop(kept);
}

#[test]
fn a_checksum_that_still_holds_is_never_away() {
    let (mut node, disk, _) = in_memory();
    node.fill(1);
    node.wal(0, "wal").unwrap();
    let before = disk.ops();
    node.wal(0, "wal").unwrap();
    let sum = Path::new("/data/backups/users/wal/000000001.wal.sha256");
    let log = disk.log();
    let mut since = log.iter().filter(|o| o.number >= before);
    assert!(!since.any(|o| o.kind == OpKind::RemoveFile && o.path == sum));
}

#[test]
fn a_differing_file_is_never_overwritten() {
    let (mut node, disk, _) = in_memory();
    node.fill(2);
    node.wal(0, "wal").unwrap();
    let name = Path::new(BACKUPS).join("wal/000000002.wal");
    disk.flip(&name, 300, 1).unwrap();
    let damaged = node.read("wal/000000002.wal");
    match node.wal(0, "wal") {
        Err(BackupError::Differs { path, .. }) => assert_eq!(path, name),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.read("wal/000000002.wal"), damaged);
    assert!(!node.names("wal").iter().any(|n| n.ends_with(".tmp")));
    assert_eq!(node.engine.backup_status().wal.consecutive_failures, 1);
}

#[test]
fn a_damaged_segment_is_named_and_not_copied() {
    let (mut node, disk, _) = in_memory();
    node.fill(3);
    disk.flip(&Path::new(HOME).join("wal/000000002.wal"), 400, 0x10)
        .unwrap();
    match node.wal(0, "wal") {
        Err(BackupError::Damaged { segment, .. }) => assert_eq!(segment.get(), 2),
        other => panic!("{other:?}"),
    }
    // What came before it is whole; it and what comes after are not there.
    assert_eq!(node.names("wal"), ["000000001.wal", "000000001.wal.sha256"]);
}

#[test]
fn a_purged_segment_is_a_gap_and_a_failure() {
    let (mut node, _, _) = in_memory();
    node.fill(4);
    node.engine.flush().unwrap();
    assert_eq!(node.engine.wal().purge(SegmentId::new(2)).unwrap().len(), 2);
    let gap = node.wal(1, "wal").unwrap_err();
    assert_eq!(gap.to_string(), "wal gap: segments 2-2 are no longer here");
    assert!(node.names("").is_empty());
    assert!(node.engine.backup_status().gap);
    assert_eq!(node.wal(2, "wal").unwrap(), [3, 4]);
    assert_eq!(node.wal(0, "wal").unwrap(), [3, 4]);
    assert!(
        node.engine.backup_status().gap,
        "what is held closes no gap"
    );
    node.snapshot("s.db").unwrap();
    assert!(!node.engine.backup_status().gap);
}

#[test]
fn leftovers_of_a_killed_call_are_removed_and_others_files_are_not() {
    let (mut node, _, _) = in_memory();
    node.fill(1);
    node.wal(0, "wal").unwrap();
    let folder = Path::new(BACKUPS).join("wal");
    let names = [
        "000000009.wal.tmp",
        "000000009.wal.sha256.tmp",
        "mine.tmp",
        "x.wal.tmp",
    ];
    for name in names {
        node.machine
            .disk
            .publish(&folder.join(name), b"half")
            .unwrap();
    }
    assert!(node.wal(1, "wal").unwrap().is_empty());
    assert_eq!(
        node.names("wal"),
        [
            "000000001.wal",
            "000000001.wal.sha256",
            "mine.tmp",
            "x.wal.tmp"
        ]
    );
}

#[test]
fn want_of_descriptors_fails_the_call_with_its_reason_and_the_namespace_goes_on() {
    let (mut node, disk, _) = in_memory();
    node.fill(2);
    for kind in [OpKind::Open, OpKind::CreateFile] {
        for place in ["/data", "/"] {
            disk.inject(Rule::always(kind, place, Effect::Descriptors));
            let met = node.wal(0, "wal/x").unwrap_err();
            assert!(met.to_string().contains("os error 24"), "{met}");
            disk.heal();
        }
    }
    assert_eq!(node.engine.stopped(), None);
    // A footer that cannot be opened for waits, and stops nothing.
    disk.inject(Rule::always(OpKind::Open, "/", Effect::Descriptors));
    node.seal();
    assert_eq!(node.engine.stopped(), None);
    let why = node.engine.footer_waits().unwrap();
    assert!(why.contains("os error 24"), "{why}");
    disk.heal();
    node.put("next", b"v");
    assert_eq!(node.engine.footer_waits(), None);
    assert_eq!(node.wal(0, "wal/x").unwrap(), [1, 2, 3]);
}
