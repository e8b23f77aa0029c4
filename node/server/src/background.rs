//! What a node does by itself: expires transactions, purges sealed segments, makes room on a
//! full disk, lets each log do what is due, and starts the [`scrub`].
//!
//! Promises: nothing is purged that is not sealed and flushed, nor the newest sealed segment, nor
//! what a snapshot of the last hour, a hold, or a member that is just being sent it needs (D10). Segments go by the age of their last
//! record, by the time of their log: a wall clock that jumps ages nothing; when all logs together fill more than their share of the volume, the oldest go early,
//! with a warning and `wal_purged_early_total`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use unisondb_platform::{OffloadExt as _, Platform};
use unisondb_types::{Namespace, SegmentId, Stamp};
use unisondb_wal::{SegmentInfo, SegmentState};

use crate::config::Setting as _;
use crate::registry::Registry;
use crate::scrub;
use crate::writer::Lane;

/// How often a full disk, owed checks and owed footers are looked after.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// How often transactions are looked through for those whose time is up.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// How often old segments are looked for; more often where they are kept for less.
const PURGE_EVERY: Duration = Duration::from_secs(30);

/// Starts all of it; each ends when `stop` turns true.
pub(crate) fn start(registry: &Registry, stop: &watch::Receiver<bool>) -> JoinSet<()> {
    let config = registry.config();
    let mut tasks = JoinSet::new();
    tasks.spawn(repeat(
        registry.clone(),
        stop.clone(),
        ROOM_EVERY,
        make_room,
    ));
    tasks.spawn(repeat(registry.clone(), stop.clone(), EXPIRE_EVERY, expire));
    let purge_every = PURGE_EVERY.min(config.wal_retention.max(ROOM_EVERY));
    tasks.spawn(repeat(registry.clone(), stop.clone(), purge_every, purge));
    if !config.scrub_interval.is_zero() {
        tasks.spawn(scrub::segments(
            registry.clone(),
            stop.clone(),
            config.scrub_interval,
        ));
        tasks.spawn(scrub::states(
            registry.clone(),
            stop.clone(),
            config.scrub_interval,
        ));
    }
    tasks
}

async fn repeat<F: Future<Output = ()> + Send>(
    registry: Registry,
    mut stop: watch::Receiver<bool>,
    every: Duration,
    act: impl Fn(Registry) -> F + Send,
) {
    while !stopped_within(&registry, &mut stop, every).await {
        act(registry.clone()).await;
    }
}

/// Waits; whether the node stops.
pub(crate) async fn stopped_within(
    registry: &Registry,
    stop: &mut watch::Receiver<bool>,
    time: Duration,
) -> bool {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => true,
        () = registry.platform_of().clock.sleep(time) => false,
    }
}

/// Aborts transactions that were idle or open for too long.
async fn expire(registry: Registry) {
    // Whoever leads does it.
    for lane in registry
        .lanes()
        .into_iter()
        .filter(|lane| lane.group().leads())
    {
        let expired = match lane.engine().expired_transactions(lane.log_now()) {
            Ok(expired) => expired,
            Err(error) => {
                tracing::warn!(namespace = %lane.engine().namespace(), %error, "transactions cannot be looked through");
                continue;
            }
        };
        for id in expired {
            let done = tokio::select! {
                biased;
                done = lane.expire(id) => done.map_err(|e| e.to_string()),
                () = registry.platform_of().clock.sleep(EXPIRE_EVERY) => Err("no quorum".to_owned()),
            };
            if let Err(error) = done {
                tracing::debug!(%id, error, "an expired transaction is not yet aborted");
                break;
            }
        }
    }
}

/// On a full disk: flush and purge, with the room kept for that if they need it.
async fn make_room(registry: Registry) {
    let mut starved = false;
    for lane in registry.lanes() {
        let labels = [("namespace", lane.engine().namespace().to_string())];
        metrics::gauge!("clock_behind_log_seconds", &labels).set(lane.clock_behind().as_secs_f64());
        let full = lane.take_starved();
        if full || !lane.engine().wal().unsealed_ended().is_empty() {
            lane.nudge().await;
        }
        starved |= full;
    }
    if !starved && registry.ballast().is_held() {
        return;
    }
    let lanes = registry.lanes();
    let task = registry.clone();
    let offload = &registry.platform_of().offload;
    let flush_wants_room = offload.blocking(move || {
        let platform = task.platform_of();
        let full = |lane: &Arc<Lane>| matches!(lane.engine().flush(), Err(e) if e.is_full());
        if starved && lanes.iter().any(full) && task.ballast().give_up(platform) {
            lanes.iter().any(full)
        } else {
            task.ballast().retake(platform);
            false
        }
    });
    if flush_wants_room.await {
        tracing::warn!("the disk is full: the state cannot be flushed; free some room");
    }
    if starved {
        purge(registry).await;
    }
}

/// A segment that may go.
#[derive(Debug, Clone)]
struct Candidate {
    lane: usize,
    id: SegmentId,
    bytes: u64,
    last: Stamp,
    /// By the time of its own log.
    age_micros: u64,
}

/// Segments that are to go from one log.
struct Going {
    lane: Arc<Lane>,
    up_to: SegmentId,
    /// Up to which they go before their time, if any do.
    crowded: Option<SegmentId>,
}

/// Removes what need not be kept.
async fn purge(registry: Registry) {
    let offload = registry.platform_of().offload.clone();
    let task = registry.clone();
    let all = offload.blocking(move || chosen(&task)).await;
    let share = registry.config().wal_retention_share.print();
    for Going {
        lane,
        up_to,
        crowded,
    } in all
    {
        let wal = lane.engine().wal().clone();
        let namespace = lane.engine().namespace();
        let Some(last) = wal.purgeable(up_to) else {
            continue;
        };
        // Nobody is sent them any more, or they stay until nobody is.
        if !lane.group().release(last).await {
            tracing::debug!(%namespace, %last, "old segments are in use");
            continue;
        }
        let up_to = wal.segment_of(last).unwrap_or(up_to).min(up_to);
        let remove = move || wal.purge(up_to);
        match offload.blocking(remove).await {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => {
                tracing::info!(%namespace, segments = gone.len(), up_to = %up_to, "old segments removed");
                if let Some(up_to) = crowded.filter(|id| gone.contains(id)) {
                    early_purge(namespace, up_to, &share);
                }
            }
            Err(error) => tracing::warn!(%namespace, %error, "old segments cannot be removed"),
        }
    }
}

fn chosen(registry: &Registry) -> Vec<Going> {
    let config = registry.config();
    let platform = registry.platform_of();
    let lanes = registry.lanes();
    let mut candidates = Vec::new();
    let mut held = 0;
    for (at, lane) in lanes.iter().enumerate() {
        let segments = lane.engine().wal().segments();
        held += segments.iter().map(|s| s.bytes).sum::<u64>();
        candidates.extend(may_go(at, lane, &segments));
    }
    let most = share_of_volume(
        platform,
        registry.directory().path(),
        config.wal_retention_share,
    );
    let keep = micros(config.wal_retention);
    let (by_age, early) = choose(candidates, keep, held, most);
    let mut all = Vec::new();
    for (at, lane) in lanes.into_iter().enumerate() {
        let newest = |chosen: &[Candidate]| {
            let mine = chosen.iter().filter(|c| c.lane == at).map(|c| c.id);
            mine.max()
        };
        let (aged, crowded) = (newest(&by_age), newest(&early));
        all.extend(aged.max(crowded).map(|up_to| Going {
            lane,
            up_to,
            crowded,
        }));
    }
    all
}

fn early_purge(namespace: &Namespace, up_to: SegmentId, share: &str) {
    let labels = [("namespace", namespace.to_string())];
    metrics::counter!("wal_purged_early_total", &labels).increment(1);
    tracing::warn!(
        %namespace, %up_to, share,
        "segments younger than wal_retention were removed: the logs fill their share of the volume; back up more often, or give them a larger volume"
    );
}

/// Segments of one log that nothing needs, oldest first; without regard to their age.
fn may_go(at: usize, lane: &Lane, segments: &[SegmentInfo]) -> Vec<Candidate> {
    let now = lane.log_now();
    let flushed = lane.engine().positions().flushed;
    // Whoever took a snapshot lately will want what was written since.
    let needed = lane.engine().snapshots_need(now);
    let free = segments.iter().take_while(|s| {
        s.state == SegmentState::Sealed
            && s.last_lsn.is_some_and(|lsn| lsn <= flushed)
            && needed.is_none_or(|above| s.id <= above)
    });
    free.map(|s| Candidate {
        lane: at,
        id: s.id,
        bytes: s.bytes,
        last: s.last_stamp,
        age_micros: now.micros_since(s.last_stamp),
    })
    .collect()
}

/// Which of the candidates go: by age, and early because all logs hold `held` of at most `most`.
fn choose(
    mut candidates: Vec<Candidate>,
    keep_micros: u64,
    held: u64,
    most: u64,
) -> (Vec<Candidate>, Vec<Candidate>) {
    candidates.sort_by_key(|c| (c.last, c.lane, c.id));
    let (aged, young): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|c| c.age_micros > keep_micros);
    let mut left = held - aged.iter().map(|c| c.bytes).sum::<u64>();
    let early = young.into_iter().take_while(|c| {
        let over = left > most;
        left = left.saturating_sub(if over { c.bytes } else { 0 });
        over
    });
    let early = early.collect();
    (aged, early)
}

fn share_of_volume(platform: &Platform, path: &Path, share: crate::config::Share) -> u64 {
    // A volume that cannot be asked has no limit: age alone decides.
    let space = platform.disk.space(path);
    space.map_or(u64::MAX, |space| share.of(space.total))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn candidate(lane: usize, id: u64, hours: u64) -> Candidate {
        Candidate {
            lane,
            id: SegmentId::new(id),
            bytes: 10,
            last: Stamp::from_micros(hours * HOUR),
            age_micros: (100 - hours) * HOUR,
        }
    }

    fn ids(chosen: &[Candidate]) -> Vec<(usize, u64)> {
        chosen.iter().map(|c| (c.lane, c.id.get())).collect()
    }

    #[test]
    fn segments_go_by_age_and_early_only_as_far_as_the_share_wants() {
        let all = vec![
            candidate(0, 1, 10),
            candidate(0, 2, 60),
            candidate(0, 3, 90),
            candidate(1, 1, 20),
            candidate(1, 2, 70),
        ];
        let (aged, early) = choose(all.clone(), 50 * HOUR, 50, 100);
        assert_eq!((ids(&aged), ids(&early)), (vec![(0, 1), (1, 1)], vec![]));
        let (aged, early) = choose(all.clone(), 50 * HOUR, 50, 15);
        assert_eq!(ids(&aged), [(0, 1), (1, 1)]);
        assert_eq!(
            ids(&early),
            [(0, 2), (1, 2)],
            "30 held, 15 allowed: the two oldest"
        );
        let (_, early) = choose(all, 50 * HOUR, 50, 0);
        assert_eq!(early.len(), 3);
    }
}
