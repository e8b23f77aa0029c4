//! Scrub: what lies at rest is read again from time to time, so that rot is found while a good copy
//! is still somewhere (P13). Sealed segments, spread evenly over the interval; and the state of each
//! namespace, one after the other, once an interval, at a bounded rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use unisondb_engine::Error;
use unisondb_http::Note;
use unisondb_platform::OffloadExt as _;
use unisondb_types::SegmentId;
use unisondb_wal::SegmentState;

use crate::background::stopped_within;
use crate::registry::Registry;
use crate::writer::Lane;

/// How often the scrub takes up its next segments.
const SCRUB_EVERY: Duration = Duration::from_secs(60);
/// Bytes of a state that are read in a second.
const STATE_BYTES_PER_SECOND: usize = 32 << 20;

/// Reads every sealed segment once in `interval`, spread over it.
pub(crate) async fn segments(
    registry: Registry,
    mut stop: watch::Receiver<bool>,
    interval: Duration,
) {
    // A node that is restarted daily must not read the first seventh every time.
    let mut at = SegmentId::new(u64::from_le_bytes(
        registry.platform_of().entropy.id()[..8]
            .try_into()
            .expect("8 of 16 bytes"),
    ));
    let mut credit = Duration::ZERO;
    while !stopped_within(&registry, &mut stop, SCRUB_EVERY).await {
        credit += SCRUB_EVERY;
        let lanes = registry.lanes();
        let sealed = lanes
            .iter()
            .map(|lane| sealed_ids(lane).len())
            .sum::<usize>();
        let Ok(count) = u32::try_from(sealed.max(1)) else {
            continue;
        };
        let each = (interval / count).max(Duration::from_millis(1));
        while credit >= each {
            credit -= each;
            let next = lanes
                .iter()
                .filter_map(|lane| Some((sealed_ids(lane).into_iter().find(|id| *id > at)?, lane)))
                .min_by_key(|(id, _)| *id);
            let Some((id, _)) = next else {
                at = SegmentId::ZERO;
                break;
            };
            at = id;
            // The same id may stand in several logs.
            for lane in &lanes {
                if sealed_ids(lane).contains(&id) {
                    segment(&registry, lane, id).await;
                }
            }
        }
    }
}

fn sealed_ids(lane: &Lane) -> Vec<SegmentId> {
    let segments = lane.engine().wal().segments();
    let sealed = segments
        .iter()
        .filter(|s| s.state == SegmentState::Sealed)
        .map(|s| s.id);
    sealed.collect()
}

async fn segment(registry: &Registry, lane: &Arc<Lane>, id: SegmentId) {
    let task = lane.clone();
    let offload = &registry.platform_of().offload;
    let result = offload
        .blocking(move || task.engine().wal().scrub(id).map(drop))
        .await;
    let namespace = lane.engine().namespace();
    let labels = [("namespace", namespace.to_string())];
    metrics::counter!("wal_scrubbed_segments_total", &labels).increment(1);
    // Purged while it was read: nothing to say.
    let gone = !sealed_ids(lane).contains(&id);
    if let Err(error) = result.map_err(|e| e.to_string())
        && !gone
    {
        metrics::counter!("wal_scrub_failures_total", &labels).increment(1);
        tracing::error!(%namespace, segment = %id, error, "the scrub found a damaged segment");
        lane.note(Note {
            field: "scrub",
            value: "damaged".to_owned(),
            text: format!("segment {id}: {error}; put a backup of it in its place"),
            degraded: true,
        });
    }
}

/// Reads the state of every namespace once in `interval`.
pub(crate) async fn states(
    registry: Registry,
    mut stop: watch::Receiver<bool>,
    interval: Duration,
) {
    // The first one comes at a random time: the nodes of a cluster do not read all at once.
    let random = registry.platform_of().entropy.id();
    let part = u32::from(random[0]) + 1;
    let mut wait = interval * part / 256;
    while !stopped_within(&registry, &mut stop, wait).await {
        for lane in registry.lanes() {
            state(&registry, &lane, &stop).await;
        }
        wait = interval;
    }
}

async fn state(registry: &Registry, lane: &Arc<Lane>, stop: &watch::Receiver<bool>) {
    let engine = lane.engine().clone();
    let (clock, stop) = (registry.platform_of().clock.clone(), stop.clone());
    let (done, result) = oneshot::channel();
    let task = async move {
        let pace = |bytes: usize| {
            let pause =
                Duration::from_secs(1).mul_f64(bytes as f64 / STATE_BYTES_PER_SECOND as f64);
            // Also where the namespace alone was closed: it is waited for.
            let go_on = !*stop.borrow() && engine.stopped().is_none();
            let pause = clock.sleep(pause);
            async move {
                pause.await;
                go_on
            }
        };
        // Nobody waits when the node has stopped meanwhile.
        drop(done.send(engine.scrub_state(pace).await));
    };
    let name = format!("scrub-{}", lane.engine().namespace());
    registry.platform_of().offload.thread(&name, Box::pin(task));
    let namespace = lane.engine().namespace();
    let labels = [("namespace", namespace.to_string())];
    match result.await {
        Ok(Ok(scrubbed)) => {
            metrics::counter!("state_scrubbed_total", &labels).increment(1);
            tracing::info!(%namespace, lsn = %scrubbed.lsn, entries = scrubbed.entries, digest = %scrubbed.digest, "the state was read and is whole");
        }
        // Called off, or stopped for a reason that is told already.
        Ok(Err(Error::Stopped(_))) | Err(_) => {}
        Ok(Err(error)) => {
            metrics::counter!("state_scrub_failures_total", &labels).increment(1);
            tracing::error!(%namespace, %error, "the scrub found damage in the state");
        }
    }
}
