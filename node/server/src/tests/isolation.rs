//! What a restored directory must not touch (A5).

use super::*;

const PEERS: (&str, &str) = ("UNISONDB_PEERS", "other:9000");
const BACKUPS: (&str, &str) = ("UNISONDB_BACKUP_DIR", "/production");

/// A namespace whose snapshot was copied over its state while its log was left in place.
async fn copied_over() -> Machine {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    let sealed = writer(&node).seal(&users()).await.unwrap();
    let backup = open.backup_snapshot("x.db", sealed.lsn).unwrap();
    write(&node, "later", "v").await.unwrap();
    drop(open);
    node.stop().await;
    let disk = &machine.platform.disk;
    let snapshot = disk.read(&backup.path, 1 << 30).unwrap();
    let db = Path::new("/data/users/db");
    for entry in disk.list(db).unwrap() {
        disk.remove_file(&db.join(entry.name)).unwrap();
    }
    disk.publish(&db.join("data.mdb"), &snapshot).unwrap();
    machine
}

async fn started(machine: &Machine, args: &[&str], variables: &[(&str, &str)]) -> Running {
    let mut node = machine.begin_with(args, variables).await.unwrap();
    node.ready().await.unwrap();
    node
}

/// Where a snapshot taken now lands.
async fn backup_root(node: &Running) -> std::path::PathBuf {
    let open = engine(node).await;
    let through = open.applied();
    let made = open.backup_snapshot("y.db", through).unwrap();
    made.path.parent().unwrap().to_owned()
}

fn ignored(node: &Running) -> Vec<String> {
    let State::Open { notes, .. } = node.registry().find(&users()).unwrap().state else {
        panic!("it is not open")
    };
    let ignored = notes.into_iter().filter(|note| note.field == "ignored");
    ignored.map(|note| note.value).collect()
}

#[tokio::test]
async fn a_restore_that_kept_its_log_and_lineage_is_isolated_until_the_command_line_says_otherwise()
{
    let machine = copied_over().await;
    let node = started(&machine, &[], &[PEERS, BACKUPS]).await;
    let open = engine(&node).await;
    assert!(value(&open, "later").is_some(), "the log is replayed");
    assert!(open.history().parent.is_none(), "the same lineage goes on");
    drop(open);
    let about = node.registry().about();
    assert!(about.isolated == Some(true) && about.ignores_cluster);
    assert_eq!(ignored(&node), ["UNISONDB_PEERS, UNISONDB_BACKUP_DIR"]);
    node.stop().await;

    let node = started(&machine, &[], &[]).await;
    assert_eq!(
        node.registry().about().isolated,
        Some(true),
        "it is written down"
    );
    node.stop().await;
    let node = started(&machine, &["--cluster"], &[]).await;
    assert_eq!(node.registry().about().isolated, Some(false));
    node.stop().await;
    let node = started(&machine, &[], &[]).await;
    assert_eq!(
        node.registry().about().isolated,
        Some(false),
        "and so is its end"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_kill_while_a_copied_state_is_taken_up_leaves_it_isolated() {
    let machine = copied_over().await;
    // The node file is written first: the mutating operations after it are the taking up itself.
    let before = machine.disk.ops();
    let node = started(&machine, &[], &[]).await;
    let through = machine.disk.ops();
    node.stop().await;
    for n in [before + 6, (before + through) / 2, through - 1] {
        let machine = copied_over().await;
        machine.disk.freeze_at(n);
        if let Ok(mut node) = machine.begin_with(&[], &[]).await {
            drop(node.ready().await);
            node.stop().await;
        }
        let machine = machine.on(machine.disk.kill());
        let node = started(&machine, &[], &[]).await;
        assert_eq!(
            node.registry().about().isolated,
            Some(true),
            "killed at operation {n}"
        );
        node.stop().await;
    }
}

#[tokio::test]
async fn an_isolated_node_writes_no_backup_where_only_the_environment_says() {
    let machine = copied_over().await;
    let node = started(&machine, &[], &[BACKUPS]).await;
    assert_eq!(backup_root(&node).await, Path::new("/data/backups/users"));
    assert!(
        !node.registry().about().ignores_cluster,
        "a balancer may use it"
    );
    node.stop().await;
    let there = machine.platform.disk.exists(Path::new("/production"));
    assert!(!there.unwrap(), "nothing was made there");

    let node = started(&machine, &["--backup-dir=/mine"], &[BACKUPS]).await;
    assert_eq!(node.registry().about().isolated, Some(true));
    assert_eq!(backup_root(&node).await, Path::new("/mine/users"));
    assert_eq!(ignored(&node), [""; 0]);
    node.stop().await;
    let node = started(&machine, &["--cluster"], &[BACKUPS]).await;
    assert_eq!(backup_root(&node).await, Path::new("/production/users"));
    node.stop().await;
}

#[tokio::test]
async fn what_is_made_beside_a_restored_namespace_is_isolated_with_it() {
    let machine = copied_over().await;
    let node = started(&machine, &[], &[BACKUPS]).await;
    let orders: Namespace = "orders".parse().unwrap();
    let open = node.registry().create(&orders).await.unwrap();
    let made = open.backup_snapshot("y.db", open.applied()).unwrap();
    assert!(made.path.starts_with("/data/backups/orders"), "{made:?}");
    drop(open);
    node.stop().await;
}

#[tokio::test]
async fn while_it_waits_for_room_a_restored_directory_is_not_said_to_be_as_any_other() {
    let machine = copied_over().await;
    let full = Rule::always(OpKind::Write, "/data/users", Effect::Full);
    machine.disk.inject(full);
    let mut node = machine.begin(&[]).await.unwrap();
    assert_eq!(node.registry().about().isolated, None, "recovering");
    let early = tokio::time::timeout(Duration::from_millis(50), node.ready()).await;
    assert!(early.is_err(), "there is no room yet");
    assert_eq!(node.registry().about().isolated, None, "waiting");
    machine.disk.heal();
    machine.clock.advance(Duration::from_secs(1));
    node.ready().await.unwrap();
    assert_eq!(node.registry().about().isolated, Some(true));
    node.stop().await;
}
