//! Timers of groups that idle (D18): what rests, what goes with others, and that nobody who waits for an
//! answer notices.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use std::sync::atomic::Ordering;
use std::time::Duration;

use rig::{Cluster, End, put};

/// What may go with others to the same node (D18) waits for them here so long that openraft gives it up: only
/// that the leader is there may be said so.
#[tokio::test(start_paused = true)]
async fn neither_a_write_nor_a_read_waits_for_what_may_go_with_others() {
    let cluster = Cluster::of(3, 7).await;
    let leader = cluster.leader().await;
    let group = cluster.members[leader].group().clone();
    cluster.net.soon_millis.store(200, Ordering::Relaxed);
    let sent = |haste: usize| cluster.net.hastes[haste].load(Ordering::Relaxed);
    for n in 0..50u64 {
        // At another moment between two heartbeats each time.
        tokio::time::sleep(Duration::from_millis(300 + n * 7)).await;
        let soon = sent(1);
        let begun = tokio::time::Instant::now();
        group.barrier().await.unwrap();
        let read = begun.elapsed();
        let begun = tokio::time::Instant::now();
        let written = group.propose(&put(&format!("k{n}"), "v")).await.unwrap();
        let write = begun.elapsed();
        // There and back takes 40 ms at most; a read may meet a heartbeat that is on its way.
        assert!(read < Duration::from_millis(90), "{n}: {read:?}");
        assert!(write < Duration::from_millis(90), "{n}: {write:?}");
        assert!(soon > 0 && sent(1) >= soon);
        // Followers apply it though nothing follows it: the commit is no news that may wait.
        for member in &cluster.members {
            let mut applied = member.group().engine().watch_applied();
            let told = applied.wait_for(|lsn| *lsn >= written.lsn);
            let told = tokio::time::timeout(Duration::from_millis(90), told).await;
            assert!(told.is_ok(), "{n}: a follower heard of the commit late");
        }
    }
}

/// openraft ticks rest while the leader is heard (D18); that changes no moment at which one is replaced.
#[tokio::test(start_paused = true)]
async fn a_leader_that_falls_silent_after_long_idleness_is_replaced_in_time() {
    let mut cluster = Cluster::of(3, 8).await;
    // As in one data centre: where messages take 20 ms two often stand at once, and each time half a second goes.
    cluster.net.travel_micros.store(1_000, Ordering::Relaxed);
    for round in 0..6 {
        let leader = cluster.leader().await;
        let term = cluster.members[leader].group().term();
        tokio::time::sleep(Duration::from_secs(30 + round)).await;
        assert_eq!(cluster.members[leader].group().term(), term, "nobody stood");
        cluster.end(leader, End::Killed).await;
        let begun = tokio::time::Instant::now();
        let another = cluster.leader().await;
        let took = begun.elapsed();
        // 1.2 s of silence, and the votes.
        assert!(
            another != leader && took < Duration::from_millis(1_600),
            "{took:?}"
        );
        cluster.start(leader).await;
        cluster.put("back", "x").await;
    }
}

/// A group that nobody asks sends what shows its leader, and that only: no oftener than it must.
#[tokio::test(start_paused = true)]
async fn an_idle_leader_shows_itself_four_times_a_second_and_in_no_haste() {
    let cluster = Cluster::of(3, 9).await;
    cluster.leader().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sent = |haste: usize| cluster.net.hastes[haste].load(Ordering::Relaxed);
    let (now, soon) = (sent(0), sent(1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sent(0) - now, 0);
    let beats = sent(1) - soon;
    assert!((2 * 4 * 59..=2 * 4 * 61).contains(&beats), "{beats}");
}
