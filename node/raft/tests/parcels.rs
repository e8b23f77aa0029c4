//! Members that lack what is purged on all others: they get a parcel and go on, as the members that they
//! were; whoever is killed or loses its power meanwhile, nothing that was answered is lost.
//!
//! A seed that fails is its own reproduction: `UNISON_RAFT_SEEDS=7..8 cargo test -p unisondb-raft
//! --test parcels`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rig::{Cluster, End};
use unisondb_platform::memory::Random;
use unisondb_raft::TakenOver;
use unisondb_types::{Command, Lsn};

/// Enough for a few segments.
async fn write_much(cluster: &Cluster, name: &str) -> Lsn {
    let mut last = Lsn::ZERO;
    for n in 0..40 {
        let value = format!("{name} {n} {}", "x".repeat(900));
        last = cluster.put(&format!("k{}", n % 7), &value).await.lsn;
    }
    let leader = cluster.leader().await;
    let group = cluster.members[leader].group();
    let seal = Command::Seal(group.engine().wal().active().id);
    group.propose(&seal).await.unwrap();
    last
}

/// Purges on all that are up until none of them has the record behind `lsn`.
async fn purge_beyond(cluster: &Cluster, lsn: Lsn) {
    rig::wait("records that go", || async {
        let mut gone = true;
        for n in 0..cluster.members.len() {
            if cluster.members[n].is_up() {
                gone &= cluster.purge(n).await > lsn.next();
            }
        }
        gone.then_some(())
    })
    .await;
}

async fn arrived(cluster: &Cluster, n: usize) {
    let mut arrived = cluster.members[n].group().watch_arrived();
    let waited = tokio::time::timeout(Duration::from_secs(120), arrived.wait_for(|there| *there));
    waited.await.unwrap().unwrap();
}

/// A follower that was away while the others wrote and purged.
async fn one_behind(cluster: &mut Cluster) -> usize {
    let away = (cluster.leader().await + 1) % 3;
    cluster.put("before", "1").await;
    cluster.agree().await;
    let last = cluster.members[away].group().engine().wal().last();
    cluster.end(away, End::Killed).await;
    write_much(cluster, "meanwhile").await;
    purge_beyond(cluster, last).await;
    cluster.start(away).await;
    away
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_longer_than_its_records_comes_back_by_a_parcel() {
    let mut cluster = Cluster::of(3, 1).await;
    let away = one_behind(&mut cluster).await;
    let id = cluster.members[away].id;
    arrived(&cluster, away).await;
    assert_eq!(cluster.take_over(away).await, TakenOver::AtTheStart);
    assert_eq!(cluster.members[away].id, id, "it is the same member");
    write_much(&cluster, "afterwards").await;
    let log = cluster.agree().await;
    assert!(log.len() > 40, "{} records compared", log.len());
    // It counts: with the other follower gone it is the quorum, and it may lead.
    let leader = cluster.leader().await;
    let third = (0..3).find(|n| ![leader, away].contains(n)).unwrap();
    cluster.end(third, End::Killed).await;
    cluster.put("with it", "2").await;
    cluster
        .lead(|leader| (leader != away).then_some(away))
        .await;
    cluster.put("led by it", "3").await;
    cluster.start(third).await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn it_catches_up_while_others_write_and_purge_on() {
    let mut cluster = Cluster::of(3, 2).await;
    let away = one_behind(&mut cluster).await;
    let mut taken = 0;
    for n in 0..200 {
        cluster.put(&format!("w{}", n % 9), &"y".repeat(700)).await;
        for n in 0..3 {
            cluster.purge(n).await;
        }
        taken += cluster.take_over_all().await;
    }
    assert!((1..=2).contains(&taken), "{taken} parcels for one absence");
    cluster.agree().await;
    assert!(cluster.members[away].group().engine().wal().first() > Lsn::new(40));
}

#[tokio::test(start_paused = true)]
async fn a_new_member_begins_with_the_first_record_though_no_other_has_the_second() {
    let mut cluster = Cluster::of(3, 3).await;
    let origin = cluster.origin().await;
    write_much(&cluster, "long ago").await;
    purge_beyond(&cluster, Lsn::new(5)).await;
    let n = cluster.begin_to_join(&origin).await;
    arrived(&cluster, n).await;
    assert_eq!(cluster.take_over(n).await, TakenOver::AtTheStart);
    cluster.vote_all().await;
    write_much(&cluster, "with it").await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_has_caught_up_otherwise_takes_nothing_over() {
    let mut cluster = Cluster::of(3, 4).await;
    let away = one_behind(&mut cluster).await;
    arrived(&cluster, away).await;
    assert_eq!(cluster.take_over(away).await, TakenOver::AtTheStart);
    cluster.agree().await;
    // Nobody has told it to get anything since.
    assert!(!*cluster.members[away].group().watch_arrived().borrow());
    assert_eq!(cluster.take_over(away).await, TakenOver::NotNeeded);
    write_much(&cluster, "afterwards").await;
    cluster.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_starts_again_knows_what_is_purged() {
    let mut cluster = Cluster::of(3, 5).await;
    let away = (cluster.leader().await + 1) % 3;
    cluster.agree().await;
    let last = cluster.members[away].group().engine().wal().last();
    cluster.end(away, End::Killed).await;
    write_much(&cluster, "meanwhile").await;
    purge_beyond(&cluster, last).await;
    for n in (0..3).filter(|n| *n != away) {
        cluster.end(n, End::PowerLoss).await;
    }
    for n in 0..3 {
        cluster.start(n).await;
    }
    arrived(&cluster, away).await;
    assert_eq!(cluster.take_over(away).await, TakenOver::AtTheStart);
    cluster.put("after", "1").await;
    cluster.agree().await;
}

/// Members come and go, logs are purged at all times, and whoever gets a parcel may be killed in any
/// moment of it.
async fn run(seed: u64) -> usize {
    let mut cluster = Cluster::of(3, seed).await;
    let mut random = Random::keyed(seed, b"parcels", 0);
    let (mut answered, mut taken) = (BTreeMap::new(), 0);
    for step in 0..150u64 {
        let n = usize::try_from(random.below(3)).unwrap();
        match random.below(30) {
            // One at a time, and for long.
            0 | 1 if cluster.members.iter().all(rig::Member::is_up) => {
                cluster.end(n, End::Killed).await;
            }
            2 if cluster.members.iter().all(rig::Member::is_up) => {
                cluster.end(n, End::PowerLoss).await;
            }
            3 => {
                for n in 0..3 {
                    if !cluster.members[n].is_up() {
                        cluster.start(n).await;
                    }
                }
            }
            4 => cluster.cut(n),
            5 | 6 => cluster.heal(),
            7..=9 => {
                for n in 0..3 {
                    if cluster.members[n].is_up() {
                        cluster.purge(n).await;
                    }
                }
            }
            10 => tokio::time::sleep(Duration::from_millis(random.below(700))).await,
            11 | 12 => taken += cluster.take_over_all().await,
            13 => {
                if let Some(leader) = cluster.leading().await {
                    let group = cluster.members[leader].group();
                    let seal = Command::Seal(group.engine().wal().active().id);
                    drop(tokio::time::timeout(Duration::from_secs(5), group.propose(&seal)).await);
                }
            }
            _ => {
                let key = format!("k{step}");
                if let Ok(written) = cluster.try_put(&key, &"z".repeat(600)).await {
                    answered.insert(key, written.lsn);
                }
            }
        }
    }
    cluster.heal();
    for n in 0..3 {
        if !cluster.members[n].is_up() {
            cluster.start(n).await;
        }
    }
    // Nobody sees to it in the end but this.
    for _ in 0..100 {
        cluster.restart_failed().await;
        taken += cluster.take_over_all().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cluster.put("last", "1").await;
    cluster.agree().await;
    for member in &cluster.members {
        for (key, lsn) in &answered {
            let key = unisondb_types::Key::new(key.as_bytes().to_vec()).unwrap();
            let found = member.group().engine().kv(&key).unwrap();
            assert_eq!(
                found.map(|entry| entry.lsn),
                Some(*lsn),
                "seed {seed}: {key:?}"
            );
        }
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn random_absences_lose_nothing_that_was_answered() {
    let seeds: Range<u64> = match std::env::var("UNISON_RAFT_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        Err(_) => 0..4,
    };
    let (mut taken, all) = (0, seeds.end - seeds.start);
    for seed in seeds {
        taken += run(seed).await;
    }
    println!("{all} schedules, {taken} parcels taken over");
    assert!(all < 4 || taken > 0, "{taken} parcels in {all} schedules");
}
