//! Rules of writing: what an answer promises, through stops, power losses, bad disks and clocks.

use super::fullness::until_degraded_by;
use super::*;

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

/// Makes a namespace, writes, seals, writes: whatever was answered.
async fn scenario(machine: &Machine) -> Result<Vec<String>, Vec<String>> {
    let mut answered = Vec::new();
    let Ok(node) = machine.try_start(&["--segment-size=4KiB"]).await else {
        return Err(answered);
    };
    let mut failed = node.registry().create(&users()).await.is_err();
    for n in 0..5 {
        if failed {
            break;
        }
        let key = format!("k{n}");
        match write(&node, &key, &"x".repeat(600)).await {
            Ok(_) => answered.push(key),
            Err(_) => failed = true,
        }
        if n == 2 {
            failed |= writer(&node).seal(&users()).await.is_err();
        }
    }
    node.stop().await;
    if failed { Err(answered) } else { Ok(answered) }
}

#[tokio::test]
async fn power_may_fail_at_any_disk_operation_and_nothing_answered_is_lost() {
    let machine = Machine::new();
    assert_eq!(scenario(&machine).await.unwrap().len(), 5);
    let operations = machine.disk.ops();
    assert!(operations > 50, "{operations}");
    // Every third: the log and the engine sweep theirs without a gap.
    for n in (0..operations).step_by(3) {
        let machine = Machine::new();
        machine.disk.freeze_at(n);
        let answered = match scenario(&machine).await {
            Ok(answered) | Err(answered) => answered,
        };
        let after = machine.on(machine.disk.crash(n));
        let node = after.start(&["--segment-size=4KiB"]).await;
        let open = engine(&node).await;
        for key in &answered {
            assert!(
                value(&open, key).is_some(),
                "{key}, power lost at operation {n}"
            );
        }
        write(&node, "after", "1")
            .await
            .unwrap_or_else(|e| panic!("operation {n}: {e}"));
        drop(open);
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
        // It was on its way to the disk: whether it came there, nobody can say.
        let failed = write(&node, "bad", "1").await.unwrap_err();
        assert!(
            matches!(&failed, WriteError::Unknown(why) if why.contains("cannot sync")),
            "{failed}"
        );
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
        until_degraded_by(&machine, &node, &[]).await;
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
async fn a_footer_that_the_full_disk_refused_is_written_when_there_is_room_without_a_write() {
    let machine = Machine::new();
    let node = machine.start(&[]).await;
    let open = engine(&node).await;
    write(&node, "k", "v").await.unwrap();
    let first = open.wal().active().id;
    // Full for its footer; its frames go through the name that the file had before.
    let file = format!("/data/users/wal/{}", first.file_name());
    machine
        .disk
        .inject(Rule::always(OpKind::Write, &file, Effect::Full));
    let asked = writer(&node);
    let name = users();
    let seal = tokio::spawn(async move { asked.seal(&name).await });
    let refused = |op: &Operation| op.kind == OpKind::Write && op.path == Path::new(&file);
    while !machine.disk.log().iter().any(refused) {
        tokio::task::yield_now().await;
    }
    let waiting = open.wal().unsealed_ended();
    assert_eq!(waiting.first().map(|s| s.id), Some(first));
    let last = open.wal().last();
    machine.disk.heal();
    machine.clock.advance(Duration::from_secs(2));
    let sealed = seal.await.unwrap().unwrap();
    assert_eq!(sealed.segment, Some(first));
    assert_eq!(open.wal().last(), last, "no record was needed");
    assert!(degraded(&node).is_empty());
    node.stop().await;
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

/// Lets what was woken run; loops of the background included.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_purges_and_expires_nothing() {
    let machine = Machine::new();
    let node = machine
        .start(&["--segment-size=4KiB", "--wal-retention=1h"])
        .await;
    let open = engine(&node).await;
    for n in 0..40 {
        let key = format!("k{n}");
        write(&node, &key, &"x".repeat(400)).await.unwrap();
    }
    let id = TxId::from_bytes([9; 16]);
    let begin = Action::Begin {
        id,
        operation: TxOperation::Put,
        entry_type: EntryType::Kv,
    };
    writer(&node).write(&users(), begin, None).await.unwrap();
    writer(&node).seal(&users()).await.unwrap();
    open.flush().unwrap();
    let segments = open.wal().segments().len();
    let last = open.applied();
    assert!(segments > 4, "{segments}");

    machine.clock.step(30 * 86_400_000_000);
    machine.clock.advance(Duration::from_secs(31));
    settle().await;
    assert_eq!(open.wal().segments().len(), segments);
    assert_eq!(open.applied(), last, "no transaction was aborted");

    // Time that has really passed ages both.
    machine.clock.step(-30 * 86_400_000_000);
    machine.clock.advance(Duration::from_secs(3_700));
    settle().await;
    assert!(open.wal().segments().len() < segments);
    assert!(open.applied() > last);
    drop(open);
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
