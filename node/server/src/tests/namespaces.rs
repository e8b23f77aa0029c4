//! Rules of namespaces: made, found, deleted, damaged, flat.

use super::*;

#[tokio::test]
async fn many_first_writes_make_one_namespace() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    assert!(node.is_first_start() && node.registry().auto_create());
    assert!(node.registry().find(&users()).is_none());
    let missing = write(&node, "k", "v").await.unwrap_err();
    assert_eq!(missing, WriteError::NotFound(users()));
    let creators: Vec<_> = (0..16)
        .map(|_| {
            let registry = node.registry().clone();
            tokio::spawn(async move { registry.create(&users()).await.unwrap().lineage() })
        })
        .collect();
    let mut lineages = Vec::new();
    for creator in creators {
        lineages.push(creator.await.unwrap());
    }
    lineages.dedup();
    assert_eq!(lineages.len(), 1);
    node.stop().await;
    let node = machine.start(&[]).await;
    assert_eq!(
        engine(&node).await.lineage(),
        lineages[0],
        "found again at the next start"
    );
    assert!(!node.is_first_start());
    node.stop().await;
}

#[tokio::test]
async fn a_namespace_that_cannot_be_made_leaves_no_trace_and_can_be_made_later() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    machine
        .disk
        .inject(Rule::always(OpKind::Write, "/data/users", Effect::Full));
    let refused = node.registry().create(&users()).await.err().unwrap();
    assert!(matches!(refused, HostError::Full), "{refused}");
    assert!(node.registry().find(&users()).is_none());
    machine.disk.heal();
    engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn one_that_was_found_at_the_start_can_be_deleted_and_made_again() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let first = engine(&node).await.lineage();
    node.stop().await;
    let node = machine.start(&[]).await;
    node.registry().delete(&users()).await.unwrap();
    // LMDB's environment is held by nobody any more, or it could not be opened under the same path.
    let again = engine(&node).await;
    assert_ne!(again.lineage(), first);
    let ids: Vec<u64> = again.wal().segments().iter().map(|s| s.id.get()).collect();
    assert_eq!(ids, [1_000_000]);
    drop(again);
    node.stop().await;
}

#[tokio::test]
async fn a_start_on_a_full_disk_waits_for_room() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    machine.disk.freeze();
    let after = machine.on(machine.disk.crash(3));
    after
        .disk
        .inject(Rule::always(OpKind::Write, "/data/users", Effect::Full));
    let mut node = after.begin(&[]).await.unwrap();
    for _ in 0..3 {
        after.clock.advance(Duration::from_secs(1));
        let early = tokio::time::timeout(Duration::from_millis(20), node.ready()).await;
        assert!(early.is_err(), "there is no room yet");
        let state = node.registry().find(&users()).unwrap().state;
        assert!(matches!(&state, State::Starting { doing } if doing.contains("room")));
    }
    after.disk.heal();
    after.clock.advance(Duration::from_secs(1));
    node.ready().await.unwrap();
    let open = engine(&node).await;
    assert_eq!(value(&open, "k").as_deref(), Some(b"v".as_slice()));
    write(&node, "k2", "v").await.unwrap();
    drop(open);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_waits_for_room_can_be_stopped() {
    let machine = Machine::new();
    let rule = Rule::always(OpKind::Write, "/data/users", Effect::Full);
    machine.disk.inject(rule);
    let mut node = machine.begin(&["--namespaces=users"]).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(20), node.ready()).await;
    assert!(early.is_err());
    node.stop().await;
}

#[tokio::test]
async fn namespaces_called_ballast_and_node_live_through_a_restart() {
    let machine = Machine::new();
    let names = ["ballast", "node"].map(|name| name.parse::<Namespace>().unwrap());
    let mut lineages = Vec::new();
    for _ in 0..2 {
        let node = machine.start(&[]).await;
        for name in &names {
            lineages.push(node.registry().create(name).await.unwrap().lineage());
        }
        node.stop().await;
    }
    assert_eq!(lineages[..2], lineages[2..], "they were not made again");
}

#[tokio::test]
async fn a_deleted_namespace_lies_in_the_trash_and_its_ids_are_not_used_again() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let first = engine(&node).await.lineage();
    write(&node, "k", "v").await.unwrap();
    node.registry().delete(&users()).await.unwrap();
    assert!(node.registry().find(&users()).is_none());
    let missing = write(&node, "k", "v").await.unwrap_err();
    assert_eq!(missing, WriteError::NotFound(users()));
    let again = node.registry().delete(&users()).await.unwrap_err();
    assert!(matches!(again, HostError::NotFound(_)), "{again}");
    let trash = machine
        .platform
        .disk
        .list(Path::new("/data/trash"))
        .unwrap();
    assert!(
        trash.len() == 1 && trash[0].name.starts_with("users."),
        "{trash:?}"
    );

    let open = engine(&node).await;
    assert_ne!(open.lineage(), first);
    assert_eq!(value(&open, "k"), None);
    assert_eq!(open.wal().active().id.get(), 1_000_000);
    node.stop().await;
}

#[tokio::test]
async fn a_drill_reads_and_changes_nothing() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    node.stop().await;
    let node = machine.start(&["--drill"]).await;
    let open = engine(&node).await;
    assert!(value(&open, "k").is_some());
    let refused = write(&node, "k", "w").await.unwrap_err();
    assert!(matches!(refused, WriteError::ReadOnly(_)), "{refused}");
    let other: Namespace = "other".parse().unwrap();
    assert!(!node.registry().auto_create());
    assert!(node.registry().create(&other).await.is_err());
    assert!(node.registry().delete(&users()).await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn listed_namespaces_are_made_at_start_and_no_others_by_writing() {
    let machine = Machine::new();
    let node = machine.start(&["--namespaces=users,orders"]).await;
    let names: Vec<String> = node
        .registry()
        .namespaces()
        .into_iter()
        .map(|standing| standing.namespace.to_string())
        .collect();
    assert_eq!(names, ["orders", "users"]);
    assert!(!node.registry().auto_create());
    node.stop().await;
}

#[tokio::test]
async fn the_only_namespace_that_is_damaged_ends_the_node_one_of_two_is_answered_503() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    node.stop().await;
    let data = Path::new("/data/users/db/data.mdb");
    machine
        .platform
        .disk
        .publish(data, b"not a database")
        .unwrap();
    let error = machine.try_start(&[]).await.err().unwrap();
    assert!(
        error.to_string().starts_with("database file is corrupted"),
        "{error}"
    );
    let kept = machine.platform.disk.read(data, 99).unwrap();
    assert_eq!(kept, b"not a database", "the file is untouched");

    let node = machine.start(&["--namespaces=other"]).await;
    let standing = node.registry().find(&users()).unwrap();
    assert!(matches!(&standing.state, State::Failed { reason } if reason.contains("corrupted")));
    let refused = write(&node, "k", "v").await.unwrap_err();
    assert!(matches!(refused, WriteError::Unavailable(_)), "{refused}");
    node.stop().await;

    // The log begins at LSN 1: all of the state can be made again, when that is asked for.
    let node = machine.start(&["--rebuild"]).await;
    assert_eq!(
        value(&engine(&node).await, "k").as_deref(),
        Some(b"v".as_slice())
    );
    node.stop().await;
}

#[tokio::test]
async fn a_flat_directory_is_served_under_the_name_in_its_snapshot() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    let sealed = writer(&node).seal(&users()).await.unwrap();
    let backup = open.backup_snapshot("x.db", sealed.lsn).unwrap();
    let snapshot = machine.platform.disk.read(&backup.path, 1 << 30).unwrap();
    let lineage = open.lineage();
    drop(open);
    node.stop().await;

    let other = Machine::new();
    let disk = &other.platform.disk;
    for folder in ["/data/db", "/data/wal"] {
        disk.create_folders(Path::new(folder)).unwrap();
    }
    disk.publish(Path::new("/data/db/data.mdb"), &snapshot)
        .unwrap();
    let node = other.start(&[]).await;
    let State::Open { engine, .. } = node.registry().find(&users()).unwrap().state else {
        panic!("the flat namespace is not open")
    };
    assert_eq!(value(&engine, "k").as_deref(), Some(b"v".as_slice()));
    assert_ne!(engine.lineage(), lineage, "a restore begins a new lineage");
    assert_eq!(node.registry().about().isolated, Some(true));
    assert!(!node.registry().auto_create());
    assert!(
        !disk.exists(Path::new("/data/users")).unwrap(),
        "the layout stays"
    );
    write(&node, "k2", "v").await.unwrap();
    drop(engine);
    node.stop().await;

    let node = other.start(&["--cluster"]).await;
    assert_eq!(
        node.registry().about().isolated,
        Some(false),
        "--cluster releases it"
    );
    node.stop().await;
    let node = other.start(&[]).await;
    assert_eq!(
        node.registry().about().isolated,
        Some(false),
        "and that is recorded"
    );
    node.stop().await;
}

#[tokio::test]
async fn writes_that_wait_are_bounded_in_bytes_and_all_room_comes_back() {
    use unisondb_types::limits;
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    engine(&node).await;
    let queued = node.registry().queued();
    // A disk so slow that nearly all that may wait does.
    let rest = queued.take(limits::PROPOSAL_BYTES - 10_000).unwrap();
    let value = "x".repeat(3_000);
    for round in 0..3 {
        // Spawned together, they are all asked before the log's loop has its turn.
        let writes = (0..8).map(|n| {
            let (writer, action) = (writer(&node), put(&format!("k{n}"), &value));
            tokio::spawn(async move { writer.write(&users(), action, None).await })
        });
        let writes: Vec<_> = writes.collect();
        tokio::task::yield_now().await;
        assert!(queued.bytes() <= limits::PROPOSAL_BYTES);
        if round == 2 {
            // Clients that go away: what is queued is written all the same, and its room is free.
            writes.iter().for_each(tokio::task::JoinHandle::abort);
        }
        let (mut done, mut refused) = (0, 0);
        for write in writes {
            match write.await {
                Ok(Ok(_)) => done += 1,
                Ok(Err(WriteError::Overloaded(_))) => refused += 1,
                Ok(Err(e)) => panic!("{e}"),
                Err(_) => {}
            }
        }
        if round < 2 {
            assert_eq!((done, refused), (3, 5), "three of 3,000 bytes fit");
        }
        // Sealing is the node's own: it takes no share, and it comes behind all that waited.
        writer(&node).seal(&users()).await.unwrap();
        assert_eq!(queued.bytes(), limits::PROPOSAL_BYTES - 10_000);
    }
    drop(rest);
    assert_eq!(queued.bytes(), 0);
    write(&node, "a", "b").await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn one_of_several_is_refused_in_words_and_nothing_is_written() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let engine = engine(&node).await;
    let own = engine.history().members[0];
    let members = unisondb_types::Members::of(vec![own, own + 1]);
    let command = unisondb_types::Command::Membership(members);
    let wal = engine.wal().clone();
    let (term, stamp) = wal.last_term_and_stamp();
    wal.append(term, stamp, &[(command.kind(), command.payload())])
        .unwrap();
    let last = wal.sync().unwrap();
    drop((engine, wal));
    node.stop().await;
    let again = machine.on(machine.disk.kill());
    let why = again.try_start(&[]).await.err().unwrap().to_string();
    assert!(why.contains("belongs to a group"), "{why}");
    assert!(why.contains(&format!("of {last}")), "{why}");
}
