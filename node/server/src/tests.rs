//! Rules of a node put together, on a machine in memory: every fault is asked for, nothing waits
//! for a clock.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use unisondb_api::{WriteError, Writer, Written};
use unisondb_engine::Engine;
use unisondb_http::{Host as _, HostError, State};
use unisondb_platform::memory::{self, Effect, MemoryClock, MemoryDisk, OpKind, Rule};
use unisondb_platform::{DiskExt as _, Platform};
use unisondb_types::{
    Action, EntryType, Key, Lsn, Namespace, Op, Outcome, TxId, TxOperation, Value,
};
use unisondb_wal::SegmentState;

use crate::config::{self, Invocation};
use crate::{Parts, Running, StartError, start};

struct Machine {
    platform: Platform,
    disk: MemoryDisk,
    clock: MemoryClock,
}

impl Machine {
    fn new() -> Machine {
        let (platform, disk, clock) = memory::platform(7);
        Machine {
            platform,
            disk,
            clock,
        }
    }

    /// The same machine after a crash or a kill.
    fn on(&self, disk: MemoryDisk) -> Machine {
        let clock = self.clock.clone();
        let platform = memory::platform_on(&disk, &clock, 8);
        Machine {
            platform,
            disk,
            clock,
        }
    }

    async fn try_start(&self, args: &[&str]) -> Result<Running, StartError> {
        let base = [
            "unisondb",
            "--data-dir=/data",
            "--ballast-bytes=0",
            "--map-size=16MiB",
        ];
        let args = base.iter().chain(args).map(Into::into);
        let loaded = config::load(args, [], self.platform.disk.as_ref()).unwrap();
        let Invocation::Serve(effective) = loaded else {
            panic!("no check was asked for")
        };
        let parts = Parts {
            platform: self.platform.clone(),
            effective: *effective,
            listeners: Vec::new(),
            render_metrics: None,
        };
        let mut node = start(parts).await?;
        match node.ready().await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    async fn start(&self, args: &[&str]) -> Running {
        self.try_start(args).await.unwrap_or_else(|e| panic!("{e}"))
    }
}

fn users() -> Namespace {
    "users".parse().unwrap()
}

fn writer(node: &Running) -> Arc<dyn Writer> {
    node.registry().writer()
}

async fn engine(node: &Running) -> Engine {
    node.registry().create(&users()).await.unwrap()
}

fn put(key: &str, value: &str) -> Action {
    Action::Write {
        conditions: Vec::new(),
        ops: vec![Op::KvPut {
            key: Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap(),
            value: Value::new(Bytes::copy_from_slice(value.as_bytes())),
        }],
    }
}

async fn write(node: &Running, key: &str, value: &str) -> Result<Written, WriteError> {
    writer(node).write(&users(), put(key, value), None).await
}

fn value(engine: &Engine, key: &str) -> Option<Bytes> {
    let key = Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap();
    engine.kv(&key).unwrap().map(|entry| entry.value)
}

fn degraded(node: &Running) -> Vec<&'static str> {
    match node.registry().find(&users()).unwrap().state {
        State::Open { notes, .. } => {
            let bad = notes.into_iter().filter(|note| note.degraded);
            bad.map(|note| note.field).collect()
        }
        State::Starting { .. } | State::Failed { .. } => vec!["closed"],
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_stop_and_after_a_power_loss() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    engine(&node).await;
    for n in 0..20 {
        write(&node, &format!("a{n}"), "1").await.unwrap();
    }
    node.stop().await;

    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    for n in 0..20 {
        assert_eq!(
            value(&open, &format!("a{n}")).as_deref(),
            Some(b"1".as_slice())
        );
    }
    write(&node, "b", "2").await.unwrap();
    machine.disk.freeze();
    for seed in 0..5 {
        let after = machine.on(machine.disk.crash(seed));
        let node = after.start(&[]).await;
        let open = engine(&node).await;
        assert_eq!(
            value(&open, "b").as_deref(),
            Some(b"2".as_slice()),
            "seed {seed}"
        );
        write(&node, "c", "3").await.unwrap();
        node.stop().await;
    }
}

#[tokio::test]
async fn writes_that_wait_together_are_durable_with_one_fsync() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    write(&node, "first", "0").await.unwrap();
    let before = machine.disk.log().len();
    let writes = (0..200).map(|n| {
        let writer = writer(&node);
        tokio::spawn(async move {
            writer
                .write(&users(), put(&format!("k{n}"), "v"), None)
                .await
        })
    });
    let writes: Vec<_> = writes.collect();
    let mut lsns: Vec<Lsn> = Vec::new();
    for write in writes {
        lsns.push(write.await.unwrap().unwrap().lsn);
    }
    lsns.sort();
    lsns.dedup();
    assert_eq!(lsns.len(), 200, "each write is a record of its own");
    let log = machine.disk.log();
    let syncs = log[before..]
        .iter()
        .filter(|op| op.kind == OpKind::Sync)
        .count();
    assert!(
        syncs < 20,
        "{syncs} fsyncs for 200 writes that came at once"
    );
    assert!(open.wal().committed() >= *lsns.last().unwrap());
    assert!(open.wal().durable() >= *lsns.last().unwrap());
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_back() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    let asked = writer(&node);
    let name = users();
    {
        let mut gone = asked.write(&name, put("left", "1"), None);
        // Polled once: queued, not answered.
        let queued = std::future::poll_fn(|cx| std::task::Poll::Ready(gone.as_mut().poll(cx)));
        assert!(queued.await.is_pending());
    }
    write(&node, "after", "1").await.unwrap();
    assert_eq!(value(&open, "left").as_deref(), Some(b"1".as_slice()));
    node.stop().await;
}

#[tokio::test]
async fn a_seal_closes_what_holds_data_and_makes_no_empty_segment() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    let asked = writer(&node);
    let name = users();
    let nothing = asked.seal(&name).await.unwrap();
    assert_eq!(nothing.segment, None, "nothing but the lineage's record");
    let written = write(&node, "k", "v").await.unwrap();
    let (one, two) = tokio::join!(asked.seal(&name), asked.seal(&name));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.segment, two.segment);
    assert!(one.lsn >= written.lsn && two.lsn >= written.lsn);
    let again = asked.seal(&name).await.unwrap();
    assert_eq!(again.segment, one.segment);
    let segments = open.wal().segments();
    let sealed = segments.iter().filter(|s| s.state == SegmentState::Sealed);
    assert_eq!(sealed.count(), 1, "{segments:?}");
    assert!(
        open.digest(Some(segments[0].last_lsn.unwrap()))
            .unwrap()
            .is_some()
    );
    assert!(asked.barrier(&name).await.unwrap() >= written.lsn);
    node.stop().await;
}

#[tokio::test]
async fn segments_that_end_by_size_are_checked_and_sealed_by_themselves() {
    let machine = Machine::new();
    let node = machine.start(&["--segment-size=4KiB"]).await;
    let open = engine(&node).await;
    for n in 0..40 {
        write(&node, &format!("k{n}"), &"x".repeat(400))
            .await
            .unwrap();
    }
    let sealed = writer(&node).seal(&users()).await.unwrap();
    assert!(sealed.segment.unwrap().get() >= 4);
    assert!(open.wal().unsealed_ended().is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_failed_fsync_is_final_until_the_process_restarts() {
    // A disk that is full only at the fsync has lost pages like any other that fails it.
    for effect in [Effect::Eio, Effect::Full] {
        let machine = Machine::new();
        let node = machine.start(&[]).await;
        engine(&node).await;
        write(&node, "good", "1").await.unwrap();
        machine
            .disk
            .inject(Rule::once(OpKind::Sync, "/data/users/wal", effect));
        let failed = write(&node, "bad", "1").await.unwrap_err();
        assert!(matches!(failed, WriteError::Failed(_)), "{failed}");
        // The disk is well again, and still nothing is taken (P14).
        let failed = write(&node, "later", "1").await.unwrap_err();
        assert!(matches!(failed, WriteError::Failed(_)), "{failed}");
        assert!(degraded(&node).contains(&"log"));
        machine.disk.freeze();
        let after = machine.on(machine.disk.crash(1));
        let node = after.start(&[]).await;
        let open = engine(&node).await;
        assert!(value(&open, "good").is_some() && value(&open, "later").is_none());
        write(&node, "later", "1").await.unwrap();
        assert!(degraded(&node).is_empty());
        node.stop().await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_goes_on_when_there_is_room() {
    enum How {
        /// The volume is full.
        Volume,
        /// Room that was reserved is not there when it is written (copy on write, a quota).
        AtTheWrite,
    }
    for how in [How::Volume, How::AtTheWrite] {
        let machine = Machine::new();
        let node = machine.start(&[]).await;
        engine(&node).await;
        write(&node, "good", "1").await.unwrap();
        match how {
            How::Volume => machine.disk.set_capacity(Some(1)),
            How::AtTheWrite => {
                machine
                    .disk
                    .inject(Rule::always(OpKind::Write, "/data/users/wal", Effect::Full));
            }
        }
        // Room that was reserved is used up first.
        let mut refused = None;
        for n in 0..4_000 {
            if let Err(why) = write(&node, &format!("full{n}"), &"x".repeat(2_000)).await {
                refused = Some((n, why));
                break;
            }
        }
        let (n, why) = refused.expect("the disk is full some time");
        match how {
            How::Volume => assert_eq!(why, WriteError::Full),
            // It stays in the log: whether it will be written is not known yet.
            How::AtTheWrite => {
                assert!(matches!(why, WriteError::Unknown(_)), "{why}");
                let next = write(&node, "next", "1").await.unwrap_err();
                assert_eq!(next, WriteError::Full);
            }
        }
        machine.disk.set_capacity(None);
        machine.disk.heal();
        write(&node, "again", "1").await.unwrap();
        machine.disk.freeze();
        let after = machine.on(machine.disk.crash(3));
        let node = after.start(&[]).await;
        let open = engine(&node).await;
        for key in ["good", "again"] {
            assert!(value(&open, key).is_some(), "{key}");
        }
        // 507 means surely not written; the unknown one came first, and was written after all.
        let unknown = value(&open, &format!("full{n}")).is_some();
        assert_eq!(unknown, matches!(how, How::AtTheWrite));
        assert!(value(&open, "next").is_none());
        node.stop().await;
    }
}

#[tokio::test]
async fn interval_durability_answers_first_and_commits_what_it_has_synced() {
    let machine = Machine::new();
    let node = machine
        .start(&["--durability=interval", "--durability-interval=1s"])
        .await;
    let open = engine(&node).await;
    let written = write(&node, "k", "v").await.unwrap();
    assert!(
        value(&open, "k").is_some(),
        "the read moves with the answer"
    );
    assert!(open.wal().durable() < written.lsn && open.wal().committed() < written.lsn);
    assert!(writer(&node).barrier(&users()).await.unwrap() >= written.lsn);
    // A seal, and so a backup, waits until all of it is durable.
    let sealed = writer(&node).seal(&users()).await.unwrap();
    assert!(open.wal().committed() >= sealed.lsn && sealed.lsn > written.lsn);
    let written = write(&node, "k2", "v").await.unwrap();
    let mut durable = open.wal().subscribe();
    machine.clock.advance(Duration::from_secs(2));
    durable
        .wait_for(|p| p.committed >= written.lsn)
        .await
        .unwrap();
    write(&node, "k3", "v").await.unwrap();
    drop(open);
    node.stop().await;
    let node = machine.start(&[]).await;
    assert!(
        value(&engine(&node).await, "k3").is_some(),
        "an orderly stop loses nothing"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_clock_far_past_the_log_keeps_writes_out_until_it_is_accepted() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    node.stop().await;
    machine.clock.step(8 * 86_400_000_000);
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    let refused = write(&node, "k", "w").await.unwrap_err();
    assert!(
        matches!(&refused, WriteError::Unavailable(why) if why.contains("--accept-clock")),
        "{refused}"
    );
    assert_eq!(
        value(&open, "k").as_deref(),
        Some(b"v".as_slice()),
        "reads are served"
    );
    assert_eq!(degraded(&node), ["clock"]);
    machine.clock.step(-2 * 86_400_000_000);
    write(&node, "k", "w").await.unwrap();
    assert!(
        degraded(&node).is_empty(),
        "a clock that was set right is believed"
    );
    drop(open);
    node.stop().await;
    machine.clock.step(30 * 86_400_000_000);
    let node = machine.start(&["--accept-clock"]).await;
    write(&node, "k", "x").await.unwrap();
    node.stop().await;
}

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
async fn a_transaction_whose_time_is_up_is_aborted() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    let id = TxId::from_bytes([9; 16]);
    let begin = Action::Begin {
        id,
        operation: TxOperation::Put,
        entry_type: EntryType::Kv,
    };
    let begun = writer(&node).write(&users(), begin, None).await.unwrap();
    assert_eq!(begun.outcome, Outcome::Begun(id));
    let mut applied = open.watch_applied();
    machine.clock.advance(Duration::from_secs(121));
    applied.wait_for(|lsn| *lsn > begun.lsn).await.unwrap();
    let late = writer(&node)
        .write(&users(), Action::Commit { id }, None)
        .await
        .unwrap();
    assert_eq!(late.outcome, Outcome::TxExpired);
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
    assert!(node.registry().about().isolated);
    assert!(!node.registry().auto_create());
    assert!(
        !disk.exists(Path::new("/data/users")).unwrap(),
        "the layout stays"
    );
    write(&node, "k2", "v").await.unwrap();
    drop(engine);
    node.stop().await;

    let node = other.start(&["--cluster"]).await;
    assert!(!node.registry().about().isolated, "--cluster releases it");
    node.stop().await;
    let node = other.start(&[]).await;
    assert!(!node.registry().about().isolated, "and that is recorded");
    node.stop().await;
}
