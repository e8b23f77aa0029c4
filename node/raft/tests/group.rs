//! A group of members over logs in memory and real LMDB: what is acknowledged stays, on every member
//! the same bytes, through elections, cut ways and power losses.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use std::sync::atomic::Ordering;
use std::time::Duration;

use rig::{Cluster, End, put};
use unisondb_api::WriteError;
use unisondb_platform::memory::{Effect, OpKind, Rule};
use unisondb_raft::Durability;
use unisondb_types::{Command, Key, Kind, Lsn};

fn key(k: &str) -> Key {
    Key::new(k.as_bytes().to_vec()).unwrap()
}

fn value(cluster: &Cluster, member: usize, k: &str) -> Option<Vec<u8>> {
    let engine = cluster.members[member].group().engine();
    engine
        .kv(&key(k))
        .unwrap()
        .map(|entry| entry.value.to_vec())
}

#[tokio::test(start_paused = true)]
async fn a_group_of_one_leads_at_once_and_again_after_a_restart() {
    let mut cluster = Cluster::one(1).await;
    let first = cluster.put("a", "1").await;
    // The lineage, then the blank record of the first term in office.
    assert_eq!(first.lsn, Lsn::new(3));
    let term = cluster.members[0].group().term();
    cluster.end(0, End::PowerLoss).await;
    cluster.start(0).await;
    let second = cluster.put("b", "2").await;
    assert_eq!(second.lsn, Lsn::new(5));
    assert!(cluster.members[0].group().term() > term);
    assert_eq!(value(&cluster, 0, "a").unwrap(), b"1");
    let log = cluster.agree().await;
    let kinds: Vec<Kind> = log.iter().map(|e| e.record.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Lineage,
            Kind::Blank,
            Kind::User,
            Kind::Blank,
            Kind::User
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn three_members_have_the_same_segments_byte_for_byte() {
    let cluster = Cluster::of(3, 1).await;
    for n in 0..120 {
        cluster
            .put(&format!("k{}", n % 17), &"x".repeat(n * 7))
            .await;
        if n % 40 == 20 {
            let leader = cluster.leader().await;
            let group = cluster.members[leader].group();
            let active = group.engine().wal().active().id;
            group.propose(&Command::Seal(active)).await.unwrap();
        }
    }
    let log = cluster.agree().await;
    let sealed = cluster.members[0].group().engine().wal().segments();
    assert!(sealed.len() > 4, "{}", sealed.len());
    let members = log.iter().filter(|e| e.record.kind == Kind::Membership);
    assert!(members.count() >= 4, "learners, then voters");
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_stays_though_leaders_go() {
    let mut cluster = Cluster::of(3, 1).await;
    let mut answered = Vec::new();
    for round in 0..4 {
        for n in 0..15 {
            let (k, v) = (format!("k{round}-{n}"), format!("v{round}-{n}"));
            answered.push((cluster.put(&k, &v).await.lsn, k, v));
        }
        let leader = cluster.leader().await;
        cluster.end(leader, End::PowerLoss).await;
        cluster.put(&format!("without-{leader}"), "x").await;
        cluster.start(leader).await;
    }
    let log = cluster.agree().await;
    for (lsn, k, v) in answered {
        let entry = log.iter().find(|e| e.record.lsn == lsn).unwrap();
        assert_eq!(entry.record.command().unwrap(), put(&k, &v));
        for member in 0..3 {
            assert_eq!(value(&cluster, member, &k).unwrap(), v.as_bytes());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_commits_nothing_and_its_tail_is_taken_back() {
    let cluster = Cluster::of(3, 1).await;
    cluster.put("a", "1").await;
    let old = cluster.leader().await;
    cluster.cut(old);
    let lost = put("lost", "x");
    let alone = cluster.members[old].group();
    let outcome = tokio::time::timeout(Duration::from_secs(2), alone.propose(&lost)).await;
    assert!(
        !matches!(outcome, Ok(Ok(_))),
        "nobody else has it: {outcome:?}"
    );
    assert!(alone.engine().wal().last() > alone.engine().applied());
    cluster.put("b", "2").await;
    let read = tokio::time::timeout(Duration::from_secs(5), alone.barrier()).await;
    assert!(
        !matches!(read, Ok(Ok(_))),
        "it cannot know what the others did: {read:?}"
    );
    assert_ne!(cluster.leader().await, old);
    cluster.heal();
    cluster.put("c", "3").await;
    let log = cluster.agree().await;
    let has_lost = log.iter().any(|e| e.record.command().unwrap() == lost);
    assert!(!has_lost, "a later leader never had it");
    assert_eq!(value(&cluster, old, "b").unwrap(), b"2");
}

#[tokio::test(start_paused = true)]
async fn a_follower_refuses_writes_and_says_who_leads() {
    let cluster = Cluster::of(3, 1).await;
    let leader = cluster.leader().await;
    let id = cluster.members[leader].id;
    let follower = (leader + 1) % 3;
    rig::wait("the follower knows its leader", || async {
        (cluster.members[follower].group().leader() == Some(id)).then_some(())
    })
    .await;
    let refused = cluster.members[follower]
        .group()
        .propose(&put("a", "1"))
        .await;
    let Err(WriteError::Unavailable(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains(&id.to_string()), "{why}");
}

#[tokio::test(start_paused = true)]
async fn the_lead_is_handed_over() {
    let cluster = Cluster::of(3, 1).await;
    let from = cluster.leader().await;
    let to = (from + 1) % 3;
    let id = cluster.members[to].id;
    cluster.members[from].group().transfer(id).await.unwrap();
    rig::wait("the other leads", || async {
        (cluster.leader().await == to).then_some(())
    })
    .await;
    cluster.put("a", "1").await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn damaged_messages_change_nothing() {
    let cluster = Cluster::of(3, 1).await;
    cluster.put("a", "1").await;
    let follower = (cluster.leader().await + 1) % 3;
    let group = cluster.members[follower].group();
    for bytes in [&b""[..], b"1234567", &[0; 8], &[0xff; 64]] {
        let answer = group.answer(bytes::Bytes::copy_from_slice(bytes)).await;
        assert!(!answer.is_empty(), "it is answered");
    }
    cluster.put("b", "2").await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn frames_that_were_damaged_before_they_were_sent_stop_nobody() {
    let cluster = Cluster::of(3, 1).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    cluster.net.spoil.store(true, Ordering::Relaxed);
    let answer = cluster.try_put("b", "2").await;
    assert!(answer.is_err(), "nobody took it: {answer:?}");
    cluster.net.spoil.store(false, Ordering::Relaxed);
    for member in &cluster.members {
        let failed = member.group().standing().failed();
        assert_eq!(failed, None, "member {}, {leader} led", member.id);
    }
    cluster.put("c", "3").await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_days_ahead_after_a_start_refuses_writes_until_it_is_right() {
    let mut cluster = Cluster::of(3, 1).await;
    let before = cluster.put("a", "1").await.lsn;
    cluster.agree().await;
    cluster.all_days_ahead(8, [0, 1, 2]).await;
    let leader = cluster.leader().await;
    let refused = cluster.try_put("b", "2").await;
    let Err(WriteError::Unavailable(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("--accept-clock"), "{why}");
    // Another leader has no better clock, though it has seen a record of that one.
    let next = (leader + 1) % 3;
    cluster.lead(|now| (now != next).then_some(next)).await;
    let refused = cluster.try_put("b", "2").await;
    assert!(
        matches!(refused, Err(WriteError::Unavailable(_))),
        "{refused:?}"
    );
    for member in &cluster.members {
        member.ahead.store(0, Ordering::Relaxed);
    }
    let after = cluster.put("b", "2").await.lsn;
    let log = cluster.agree().await;
    let stamp = |lsn: Lsn| {
        log.iter()
            .find(|e| e.record.lsn == lsn)
            .unwrap()
            .record
            .stamp
    };
    let between = stamp(after).micros_since(stamp(before));
    assert!(between < 600_000_000, "{between} us, and no days");
}

#[tokio::test(start_paused = true)]
async fn who_caught_up_with_old_records_still_believes_its_clock() {
    let mut cluster = Cluster::of(3, 1).await;
    cluster.put("a", "1").await;
    let late = (cluster.leader().await + 1) % 3;
    cluster.end(late, End::Killed).await;
    let before = cluster.put("b", "2").await.lsn;
    // Whoever has the record first: the late one gets it from them, days after.
    let order = [(late + 1) % 3, (late + 2) % 3, late];
    cluster.all_days_ahead(6, order).await;
    let log = cluster.agree().await;
    assert!(log.iter().any(|e| e.record.lsn == before));
    cluster.lead(|now| (now != late).then_some(late)).await;
    let after = cluster.put("c", "3").await.lsn;
    let log = cluster.agree().await;
    let stamp = |lsn: Lsn| log[usize::try_from(lsn.get()).unwrap() - 1].record.stamp;
    let between = stamp(after).micros_since(stamp(before));
    assert!(between >= 6 * 86_400_000_000, "{between} us");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_follow_holds_up_the_applying_and_not_the_memory() {
    let mut cluster = Cluster::of(3, 1).await;
    cluster.put("a", "1").await;
    let slow = (cluster.leader().await + 1) % 3;
    cluster.end(slow, End::Killed).await;
    let net = cluster.net.clone();
    let engine = cluster.members[slow].begin(&net).await;
    // Whoever leads waits for its own state.
    let other = (slow + 1) % 3;
    cluster.lead(|now| (now == slow).then_some(other)).await;
    for n in 0..120 {
        cluster.put(&format!("k{n}"), &"x".repeat(2_000)).await;
    }
    rig::wait("its log has it all", || async {
        let leader = cluster.members[cluster.leader().await].group();
        (engine.wal().last() == leader.engine().wal().last()).then_some(())
    })
    .await;
    let behind = engine.wal().last().get() - engine.applied().get();
    assert!(behind > 40, "only {behind} records are kept back");
    // An end does not wait for a state that cannot follow.
    drop(engine);
    let ended = tokio::time::timeout(Duration::from_secs(10), cluster.stop(slow)).await;
    assert!(ended.is_ok(), "it still waits");
    cluster.start(slow).await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_of_one_takes_writes_as_soon_as_it_has_started() {
    let mut cluster = Cluster::one(1).await;
    for end in [End::Killed, End::PowerLoss] {
        // Not tried again: a start that is over has an election behind it.
        let group = cluster.members[0].group();
        group.propose(&put("a", "1")).await.unwrap();
        cluster.end(0, end).await;
        cluster.start(0).await;
    }
    let group = cluster.members[0].group();
    group.propose(&put("a", "2")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_admitted_is_answered_though_nothing_comes_into_lmdb() {
    let mut cluster = Cluster::one(1).await;
    cluster.put("a", "1").await;
    cluster.stop(0).await;
    let net = cluster.net.clone();
    let engine = cluster.members[0].begin(&net).await;
    // Four times what the state may be ahead of LMDB.
    let value = "x".repeat(4 << 10);
    for n in 0..64 {
        cluster.put(&format!("k{n}"), &value).await;
    }
    let second = Duration::from_secs(1);
    let room = tokio::time::timeout(second, engine.room()).await;
    assert!(
        room.is_err(),
        "it is not too far ahead: this proves nothing"
    );
    engine.flush().unwrap();
    tokio::time::timeout(second, engine.room()).await.unwrap();
    cluster.put("b", "2").await;
}

#[tokio::test(start_paused = true)]
async fn an_end_does_not_wait_for_a_disk_that_has_no_room() {
    let mut cluster = Cluster::of(3, 1).await;
    let full = (cluster.leader().await + 1) % 3;
    // The next segment's file cannot be made there.
    let no_room = Rule::always(OpKind::CreateFile, "/data/users/wal/next.tmp", Effect::Full);
    cluster.members[full].disk.inject(no_room);
    let mut stuck = cluster.members[full].group().standing().stuck();
    for n in 0..8 {
        let leader = cluster.leader().await;
        cluster.put(&format!("k{n}"), "x").await;
        let group = cluster.members[leader].group();
        let seal = Command::Seal(group.engine().wal().active().id);
        drop(tokio::time::timeout(Duration::from_secs(5), group.propose(&seal)).await);
    }
    assert_eq!(*stuck.borrow_and_update(), Some(WriteError::Full));
    let ended = tokio::time::timeout(Duration::from_secs(10), cluster.stop(full)).await;
    assert!(ended.is_ok(), "it still waits");
    cluster.members[full].disk.forget_rules();
    cluster.start(full).await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_state_takes_no_more_says_so_and_what_it_answered_is_read() {
    let cluster = Cluster::one(1).await;
    let answered = cluster.put("a", "1").await;
    let group = cluster.members[0].group();
    group.engine().clone().shut_down().unwrap();
    // It is in the log, and openraft has died of it.
    let lost = group.propose(&put("b", "2")).await;
    assert!(matches!(lost, Err(WriteError::Unknown(_))), "{lost:?}");
    let why = rig::wait("it says so", || async { group.standing().failed() }).await;
    assert!(why.starts_with("raft: "), "{why}");
    let later = group.propose(&put("c", "3")).await;
    assert!(matches!(later, Err(WriteError::Failed(_))), "{later:?}");
    assert!(group.barrier().await.unwrap() >= answered.lsn);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_begins_where_the_state_ends_goes_on_after_a_start() {
    let mut cluster = Cluster::one(1).await;
    cluster.put("a", "1").await;
    let engine = cluster.members[0].group().engine().clone();
    let seal = || async {
        let active = engine.wal().active().id;
        let seal = Command::Seal(active);
        cluster.members[0].group().propose(&seal).await.unwrap();
        active
    };
    let sealed = seal().await;
    // Before what the segment adds up to is in the next one, and applied.
    engine.flush().unwrap();
    // The newest sealed segment is never purged.
    cluster.put("b", "2").await;
    seal().await;
    rig::wait("both are sealed", || async {
        engine.wal().unsealed_ended().is_empty().then_some(())
    })
    .await;
    engine.wal().purge(sealed).unwrap();
    assert!(engine.wal().first() > Lsn::FIRST);
    assert_eq!(engine.positions().flushed.next(), engine.wal().first());
    drop(engine);
    cluster.end(0, End::PowerLoss).await;
    cluster.start(0).await;
    cluster.put("c", "3").await;
    assert_eq!(value(&cluster, 0, "a").unwrap(), b"1");
}

#[tokio::test(start_paused = true)]
async fn with_an_interval_the_fsync_follows_the_answer_and_an_end_in_order_waits_for_it() {
    let interval = Durability::Interval(Duration::from_millis(300));
    let mut cluster = Cluster::one_that(1, interval).await;
    let group = cluster.members[0].group().clone();
    let refused = group.add_learner(7).await.unwrap_err().to_string();
    assert!(refused.contains("a node alone"), "{refused}");
    let wal = group.engine().wal().clone();
    drop(group);
    let first = cluster.put("a", "1").await.lsn;
    assert!(wal.durable() < first);
    assert!(wal.committed() < first, "frames vouch for what is durable");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((wal.durable(), wal.committed()), (first, first));
    let second = cluster.put("b", "2").await.lsn;
    assert!(wal.durable() < second);
    drop(wal);
    cluster.stop(0).await;
    cluster.start(0).await;
    assert_eq!(value(&cluster, 0, "b").unwrap(), b"2");
    cluster.put("c", "3").await;
    cluster.end(0, End::PowerLoss).await;
    cluster.start(0).await;
    assert_eq!(value(&cluster, 0, "c"), None, "it was told that it may go");
    assert_eq!(value(&cluster, 0, "a").unwrap(), b"1");
}

#[tokio::test(start_paused = true)]
async fn an_end_in_order_answers_what_is_under_way() {
    let mut cluster = Cluster::one(1).await;
    cluster.put("a", "1").await;
    let group = cluster.members[0].group().clone();
    let writes: Vec<_> = (0..40)
        .map(|n| {
            let group = group.clone();
            tokio::spawn(async move { (n, group.propose(&put(&format!("k{n}"), "x")).await) })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(group);
    cluster.stop(0).await;
    cluster.start(0).await;
    let mut written = 0;
    for write in writes {
        let (n, answer) = write.await.unwrap();
        let is_there = value(&cluster, 0, &format!("k{n}")).is_some();
        match answer {
            Ok(_) => assert!(is_there),
            Err(WriteError::Unavailable(_)) => assert!(!is_there),
            other => panic!("{other:?}"),
        }
        written += u32::from(is_there);
    }
    assert!(written > 0, "nothing was under way");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_in_order_hands_the_lead_over_before() {
    let mut cluster = Cluster::of(3, 1).await;
    cluster.put("a", "1").await;
    let old = cluster.leader().await;
    cluster.stop(old).await;
    let began = tokio::time::Instant::now();
    cluster.put("b", "2").await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_millis(300),
        "an election's wait: {took:?}"
    );
    cluster.start(old).await;
    cluster.agree().await;
}
