//! What is told of a full disk, and that it ends by itself.

use super::*;

/// Lets time pass until `/health` names exactly these fields of the namespace.
pub(super) async fn until_degraded_by(machine: &Machine, node: &Running, wanted: &[&str]) {
    let told = async {
        while degraded(node) != wanted {
            machine.clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    assert!(told.is_ok(), "{:?}, wanted {wanted:?}", degraded(node));
}

#[tokio::test]
async fn health_is_degraded_while_the_disk_is_full_and_ok_again_by_itself() {
    for ballast in ["--ballast-bytes=0", "--ballast-bytes=1MiB"] {
        let machine = Machine::new();
        let args = ["--durability=interval", "--durability-interval=1h", ballast];
        let node = machine.start(&args).await;
        let open = engine(&node).await;
        let full = Rule::always(OpKind::Write, "/data/users/wal", Effect::Full);
        machine.disk.inject(full);
        // Room for it was there before; it is not yet written.
        write(&node, "k", "v").await.unwrap();
        assert!(degraded(&node).is_empty());
        assert!(open.flush().unwrap_err().is_full());
        assert_eq!(degraded(&node), ["flush"], "the state cannot follow");
        let large = "x".repeat(1 << 20);
        // Room that was reserved is used up first.
        let mut last = Ok(());
        for _ in 0..99 {
            last = write(&node, "l", &large).await.map(drop);
            if last.is_err() {
                break;
            }
        }
        assert_eq!(last, Err(WriteError::Full));
        assert_eq!(degraded(&node), ["flush", "disk"], "writes are refused");
        machine.clock.advance(Duration::from_secs(2));
        until_degraded_by(&machine, &node, &["flush", "disk"]).await;
        machine.disk.heal();
        until_degraded_by(&machine, &node, &[]).await;
        write(&node, "l", &large).await.unwrap();
        drop(open);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_room_that_was_given_up_is_told_until_it_is_taken_back() {
    let machine = Machine::new();
    let args = ["--durability=interval", "--durability-interval=1h"];
    let args = [args[0], args[1], "--ballast-bytes=1MiB"];
    let node = machine.start(&args).await;
    let open = engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    machine.disk.set_capacity(Some(1));
    assert!(node.registry().ballast().give_up(&machine.platform));
    assert_eq!(degraded(&node), ["disk"]);
    let refused = write(&node, "l", "v").await;
    assert_eq!(refused, Err(WriteError::Full));
    machine.disk.set_capacity(None);
    until_degraded_by(&machine, &node, &[]).await;
    write(&node, "l", "v").await.unwrap();
    drop(open);
    node.stop().await;
}

#[tokio::test]
async fn a_start_on_a_full_disk_reads_with_the_room_kept_aside_and_waits_for_room_without() {
    for ballast in ["--ballast-bytes=1MiB", "--ballast-bytes=0"] {
        let machine = Machine::new();
        let node = machine.start(&[ballast]).await;
        engine(&node).await;
        write(&node, "k", "v").await.unwrap();
        node.stop().await;
        let after = machine.on(machine.disk.kill());
        after.disk.set_capacity(Some(1 << 30));
        let space = after.platform.disk.space(Path::new("/data")).unwrap();
        // Others take what a start frees first, too: the file made ready for the next segment.
        let spare = Path::new("/data/users/wal/next.tmp");
        let spare = after.platform.disk.meta(spare).map_or(0, |meta| meta.len);
        let others = space.available + spare.next_multiple_of(4_096);
        after.disk.set_other_tenants(others);
        let mut node = after.begin(&[ballast]).await.unwrap();
        if ballast.ends_with("=0") {
            // The tail of the log must be written anew before it may be believed.
            until_degraded_by(&after, &node, &["closed"]).await;
            let early = tokio::time::timeout(Duration::from_millis(50), node.ready()).await;
            assert!(early.is_err(), "there is no room yet");
        } else {
            node.ready().await.unwrap();
            let open = engine(&node).await;
            assert_eq!(value(&open, "k").as_deref(), Some(b"v".as_slice()));
            assert_eq!(degraded(&node), ["disk"]);
            assert_eq!(write(&node, "l", "v").await, Err(WriteError::Full));
        }
        after.disk.set_other_tenants(0);
        until_degraded_by(&after, &node, &[]).await;
        node.ready().await.unwrap();
        write(&node, "l", "v").await.unwrap();
        node.stop().await;
    }
}

#[tokio::test]
async fn want_of_descriptors_refuses_writes_and_is_over_when_there_are_some_again() {
    let machine = Machine::new();
    let node = machine.start(&["--ballast-bytes=0"]).await;
    let open = engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    for kind in [OpKind::Open, OpKind::CreateFile, OpKind::SyncFolder] {
        let rule = Rule::always(kind, "/data/users/wal", Effect::Descriptors);
        machine.disk.inject(rule);
    }
    let large = "x".repeat(1 << 20);
    let mut last = Ok(());
    for _ in 0..200 {
        last = write(&node, "l", &large).await.map(drop);
        if last.is_err() {
            break;
        }
    }
    let met = last.unwrap_err();
    assert!(met.to_string().contains("os error 24"), "{met}");
    assert_eq!(open.stopped(), None, "it passes");
    assert_eq!(value(&open, "k").as_deref(), Some(&b"v"[..]));
    until_degraded_by(&machine, &node, &["log"]).await;
    machine.disk.heal();
    until_degraded_by(&machine, &node, &[]).await;
    write(&node, "n", "again").await.unwrap();
    assert_eq!(value(&open, "n").as_deref(), Some(&b"again"[..]));
    drop(open);
    node.stop().await;
}
