//! Power lost at every operation of both kinds of backup.

use super::*;

/// Loses power at every operation of `backup`; what is found afterwards must satisfy `check`.
fn sweep(
    backup: impl Fn(&Node) -> Result<(), BackupError>,
    done: impl Fn(&MemoryDisk) -> bool,
    check: impl Fn(&MemoryDisk, &str),
) -> u64 {
    let ready = || {
        let (mut node, disk, clock) = in_memory();
        node.fill(2);
        node.engine.flush().unwrap();
        node.wal(1, "wal").unwrap();
        node.snapshot("a").unwrap();
        node.put("more", b"data");
        node.engine.flush().unwrap();
        (node, disk, clock)
    };
    let (node, disk, _) = ready();
    let first = disk.ops();
    backup(&node).unwrap();
    let last = disk.ops();
    for seed in 0..10 {
        assert!(
            done(&disk.crash(seed)),
            "what was answered is durable, seed {seed}"
        );
    }
    for n in first..last {
        let (node, disk, clock) = ready();
        disk.freeze_at(n);
        // Past the publication only the record of it is lost: that fails no backup.
        let failed = backup(&node).is_err();
        for seed in [n, n + 1000] {
            let after = disk.crash(seed);
            let when = format!("power lost at {n} of {first}..{last}, seed {seed}");
            check(&after, &when);
            if !failed {
                continue;
            }
            let again = Node::start(&platform_on(&after, &clock, seed), Path::new("/data"));
            backup(&again).unwrap();
            let left: Vec<_> = again
                .names("wal")
                .into_iter()
                .chain(again.names(""))
                .collect();
            assert!(
                left.iter().all(|n| !n.ends_with(".tmp")),
                "{when}: {left:?}"
            );
        }
    }
    last - first
}

#[test]
fn power_lost_at_any_operation_of_a_wal_backup_leaves_whole_files_only() {
    let check = |disk: &MemoryDisk, when: &str| {
        let folder = Path::new(BACKUPS).join("wal");
        for entry in disk.list(&folder).unwrap() {
            if !entry.name.ends_with(".wal") {
                continue;
            }
            let verified = unisondb_wal::verify(disk, &folder.join(&entry.name));
            verified.unwrap_or_else(|e| panic!("{when}: {}: {e}", entry.name));
        }
        assert!(
            disk.exists(&folder.join("000000002.wal")).unwrap(),
            "{when}: the earlier copy"
        );
    };
    let done = |disk: &MemoryDisk| {
        let folder = Path::new(BACKUPS).join("wal");
        ["000000001.wal", "000000001.wal.sha256"]
            .iter()
            .all(|n| disk.exists(&folder.join(n)).unwrap())
    };
    let operations = sweep(|node| node.wal(0, "wal").map(drop), done, check);
    assert!(operations >= 12, "{operations}");
}

#[test]
fn power_lost_at_any_operation_of_a_snapshot_leaves_the_old_one_or_the_new_one() {
    let check = |disk: &MemoryDisk, when: &str| {
        let bytes = disk.read(&Path::new(BACKUPS).join("a"), 1 << 30).unwrap();
        let trailer = Trailer::find(&bytes)
            .unwrap()
            .unwrap_or_else(|| panic!("{when}: no trailer"));
        trailer
            .verify(&bytes)
            .unwrap_or_else(|e| panic!("{when}: {e}"));
        if let Ok(sum) = disk.read(&Path::new(BACKUPS).join("a.sha256"), 999) {
            assert_eq!(sum, format!("{}  a\n", sha256(&bytes)).as_bytes(), "{when}");
        }
    };
    let done = |disk: &MemoryDisk| {
        let bytes = disk.read(&Path::new(BACKUPS).join("a"), 1 << 30).unwrap();
        let lsn = Trailer::find(&bytes).unwrap().unwrap().lsn;
        // Lineage, two segments (write, seal, check), two more writes: the old one ends before.
        lsn == Lsn::new(9) && disk.exists(&Path::new(BACKUPS).join("a.sha256")).unwrap()
    };
    let operations = sweep(|node| node.snapshot("a").map(drop), done, check);
    assert!(operations >= 10, "{operations}");
}

#[test]
fn what_a_power_loss_left_of_a_snapshot_goes_with_the_next_one_of_another_name() {
    let ready = || {
        let (mut node, disk, clock) = in_memory();
        node.fill(2);
        node.engine.flush().unwrap();
        (node, disk, clock)
    };
    let (node, disk, _) = ready();
    let first = disk.ops();
    node.snapshot("a").unwrap();
    for n in first..disk.ops() {
        let (node, disk, clock) = ready();
        disk.freeze_at(n);
        drop(node.snapshot("a"));
        for seed in 0..20 {
            let after = disk.crash(seed);
            let again = Node::start(&platform_on(&after, &clock, seed), Path::new("/data"));
            again.snapshot("b").unwrap();
            let left = again.names("");
            assert!(
                left.iter().all(|n| !n.ends_with(".tmp")),
                "power lost at {n}, seed {seed}: {left:?}"
            );
        }
    }
}
