//! Metrics: the names of the contract, through the `metrics` facade; counts and latencies of
//! requests, in plain atomics of their own.
//!
//! What backups came to is counted by the engine, which keeps the last success over restarts; a
//! scrape reads it there and never waits for a backup. Everything exists from the first scrape on,
//! with zero, and a namespace that is gone takes its lines along.
//!
//! Requests do not go through the facade: its histograms keep every sample until somebody scrapes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use http::StatusCode;
use unisondb_api::route::PATTERNS;
use unisondb_engine::Engine;
use unisondb_engine::backup::{BackupKind, KindStatus};
use unisondb_types::{Namespace, SegmentId};
use unisondb_wal::SegmentState;

use crate::host::State;
use crate::{Host, RenderMetrics};

const SUCCESSES: &str = "backup_success_total";
const FAILURES: &str = "backup_failures_total";
const FAILURES_IN_A_ROW: &str = "backup_consecutive_failures";
const LAST_SUCCESS: &str = "backup_last_timestamp_seconds";
const BYTES: &str = "backup_bytes_total";
const LAST_BYTES: &str = "backup_last_size_bytes";
const DURATION: &str = "backup_duration_seconds";
const GAP: &str = "wal_segment_gap";
const OLDEST: &str = "wal_oldest_segment_id";
const NEWEST: &str = "wal_newest_sealed_segment_id";

const KINDS: [(BackupKind, &str); 2] = [(BackupKind::Wal, "wal"), (BackupKind::Btree, "btree")];

fn label(kind: BackupKind) -> &'static str {
    match kind {
        BackupKind::Wal => "wal",
        BackupKind::Btree => "btree",
    }
}

/// A backup of this kind took so long.
pub(crate) fn took(namespace: &Namespace, kind: BackupKind, duration: Duration) {
    let ns = namespace.to_string();
    histogram!(DURATION, "namespace" => ns, "kind" => label(kind)).record(duration);
}

/// Backup calls that failed before any engine could count them: a namespace that does not open.
#[derive(Default)]
pub(crate) struct Missed(Mutex<BTreeMap<(Namespace, &'static str), Miss>>);

#[derive(Clone, Copy, Default)]
struct Miss {
    total: u64,
    in_a_row: u64,
}

impl Missed {
    /// One more.
    pub(crate) fn failed(&self, namespace: &Namespace, kind: BackupKind) {
        let mut all = self.0.lock().expect("nothing panics while it is held");
        let miss = all.entry((namespace.clone(), label(kind))).or_default();
        miss.total += 1;
        miss.in_a_row += 1;
    }

    /// The row of failures is over.
    pub(crate) fn succeeded(&self, namespace: &Namespace, kind: BackupKind) {
        let mut all = self.0.lock().expect("nothing panics while it is held");
        if let Some(miss) = all.get_mut(&(namespace.clone(), label(kind))) {
            miss.in_a_row = 0;
        }
    }

    fn of(&self, namespace: &Namespace, kind: &'static str) -> Miss {
        let all = self.0.lock().expect("nothing panics while it is held");
        all.get(&(namespace.clone(), kind))
            .copied()
            .unwrap_or_default()
    }
}

/// The text of a scrape.
pub(crate) fn scrape(
    host: &dyn Host,
    missed: &Missed,
    requests: &Requests,
    render: Option<&RenderMetrics>,
) -> String {
    describe();
    let standings = host.namespaces();
    for standing in &standings {
        let (engine, gap) = match &standing.state {
            // A hole that the start found is one, whatever backups have said since.
            State::Open { engine, notes } => (Some(engine), notes.iter().any(|n| n.field == "gap")),
            State::Failed { reason } => (None, reason.contains("wal gap: ")),
            State::Starting { .. } => (None, false),
        };
        let ns = &standing.namespace;
        publish(ns.as_str(), engine, gap, |kind| missed.of(ns, kind));
    }
    if standings.is_empty() {
        publish("", None, false, |_| Miss::default());
    }
    let names: Vec<&str> = standings.iter().map(|s| s.namespace.as_str()).collect();
    let mut text = match render {
        Some(render) => only_known(&render(), &names),
        None => String::new(),
    };
    requests.render(&mut text);
    text
}

fn publish(ns: &str, engine: Option<&Engine>, gap: bool, missed: impl Fn(&'static str) -> Miss) {
    let status = engine.map(Engine::backup_status).unwrap_or_default();
    for (kind, name) in KINDS {
        let of: KindStatus = match kind {
            BackupKind::Wal => status.wal,
            BackupKind::Btree => status.btree,
        };
        let missed = missed(name);
        let labels = [("namespace", ns.to_owned()), ("kind", name.to_owned())];
        counter!(SUCCESSES, &labels).absolute(of.successes);
        counter!(FAILURES, &labels).absolute(of.failures + missed.total);
        counter!(BYTES, &labels).absolute(of.bytes);
        let in_a_row = of.consecutive_failures + missed.in_a_row;
        gauge!(FAILURES_IN_A_ROW, &labels).set(float(in_a_row));
        let last = of.last_success.map_or(0.0, |s| float(s.micros()) / 1e6);
        gauge!(LAST_SUCCESS, &labels).set(last);
        gauge!(LAST_BYTES, &labels).set(float(of.last_bytes));
        // Being named is enough to exist.
        drop(histogram!(DURATION, &labels));
    }
    let labels = [("namespace", ns.to_owned())];
    gauge!(GAP, &labels).set(if status.gap || gap { 1.0 } else { 0.0 });
    let segments = engine.map(|e| e.wal().segments()).unwrap_or_default();
    let sealed = segments.iter().filter(|s| s.state == SegmentState::Sealed);
    let newest = sealed.map(|s| s.id).max().unwrap_or(SegmentId::ZERO);
    let oldest = segments
        .iter()
        .map(|s| s.id)
        .min()
        .unwrap_or(SegmentId::ZERO);
    gauge!(OLDEST, &labels).set(float(oldest.get()));
    gauge!(NEWEST, &labels).set(float(newest.get()));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has nothing but floats"
)]
fn float(n: u64) -> f64 {
    n as f64
}

fn describe() {
    describe_counter!(SUCCESSES, "Backups that succeeded, 'nothing new' included");
    describe_counter!(FAILURES, "Backups that failed; refused requests are none");
    describe_gauge!(FAILURES_IN_A_ROW, "Failures since the last success");
    describe_gauge!(
        LAST_SUCCESS,
        "Unix time of the last success, 0 if there was none; kept over restarts"
    );
    describe_counter!(BYTES, "Bytes written by backups");
    describe_gauge!(LAST_BYTES, "Size of the last backup that wrote anything");
    describe_histogram!(DURATION, "How long backups took");
    describe_gauge!(
        GAP,
        "1 if the last WAL backup missed segments that are no longer here"
    );
    describe_gauge!(OLDEST, "The oldest segment held, 0 if none");
    describe_gauge!(NEWEST, "The newest sealed segment held, 0 if none");
}

/// Drops the lines of namespaces that are gone, and the placeholder's once there is a namespace:
/// a recorder keeps what it has once seen, and an alert on age would fire for ever.
fn only_known(text: &str, names: &[&str]) -> String {
    let known = |line: &&str| {
        let Some((_, rest)) = line.split_once("namespace=\"") else {
            return true;
        };
        let name = rest.split('"').next().unwrap_or_default();
        line.starts_with('#') || names.contains(&name) || (name.is_empty() && names.is_empty())
    };
    let mut kept = String::with_capacity(text.len());
    for line in text.lines().filter(known) {
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// The number of requests that have no route.
pub(crate) const UNROUTED: usize = PATTERNS.len();
const ROUTES: usize = PATTERNS.len() + 1;
/// Upper bounds in microseconds.
const BOUNDS: [u64; 13] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000,
    10_000_000,
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts and latencies of requests by route. Fixed size; counting is three atomic additions.
pub(crate) struct Requests(Box<[Route; ROUTES]>);

#[derive(Default)]
struct Route {
    by_class: [AtomicU64; CLASSES.len()],
    /// One more than there are bounds: what lies above all.
    by_time: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests(Box::new(std::array::from_fn(|_| Route::default())))
    }
}

impl Requests {
    /// One more: until its answer began.
    pub(crate) fn count(&self, route: usize, status: StatusCode, took: Duration) {
        let route = &self.0[route];
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let slot = BOUNDS.partition_point(|&bound| bound < micros);
        route.by_class[class].fetch_add(1, Ordering::Relaxed);
        route.by_time[slot].fetch_add(1, Ordering::Relaxed);
        route.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn render(&self, text: &mut String) {
        const INFALLIBLE: &str = "a String takes all that is written";
        let name = |i: usize| PATTERNS.get(i).copied().unwrap_or("none");
        text.push_str("# HELP http_requests_total Requests answered\n");
        text.push_str("# TYPE http_requests_total counter\n");
        for (i, route) in self.0.iter().enumerate() {
            for (class, count) in CLASSES.iter().zip(&route.by_class) {
                let n = count.load(Ordering::Relaxed);
                if n > 0 {
                    let route = name(i);
                    writeln!(
                        text,
                        "http_requests_total{{route=\"{route}\",status=\"{class}\"}} {n}"
                    )
                    .expect(INFALLIBLE);
                }
            }
        }
        text.push_str("\n# HELP http_request_duration_seconds Time until an answer began\n");
        text.push_str("# TYPE http_request_duration_seconds histogram\n");
        for (i, route) in self.0.iter().enumerate() {
            let counts = route.by_time.each_ref().map(|n| n.load(Ordering::Relaxed));
            let all: u64 = counts.iter().sum();
            if all == 0 {
                continue;
            }
            let route_name = name(i);
            let mut below = 0;
            for (bound, n) in BOUNDS.iter().zip(counts) {
                below += n;
                let le = float(*bound) / 1e6;
                writeln!(
                    text,
                    "http_request_duration_seconds_bucket{{route=\"{route_name}\",le=\"{le}\"}} {below}"
                )
                .expect(INFALLIBLE);
            }
            let sum = float(route.micros.load(Ordering::Relaxed)) / 1e6;
            writeln!(
                text,
                "http_request_duration_seconds_bucket{{route=\"{route_name}\",le=\"+Inf\"}} {all}\n\
                 http_request_duration_seconds_sum{{route=\"{route_name}\"}} {sum}\n\
                 http_request_duration_seconds_count{{route=\"{route_name}\"}} {all}"
            )
            .expect(INFALLIBLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_namespaces_that_are_gone_are_dropped() {
        let text = "# TYPE a gauge\na{namespace=\"\"} 0\na{namespace=\"users\",kind=\"wal\"} 1\na{namespace=\"old\"} 2\nb 3\n";
        assert_eq!(
            only_known(text, &["users"]),
            "# TYPE a gauge\na{namespace=\"users\",kind=\"wal\"} 1\nb 3\n"
        );
        assert_eq!(
            only_known(text, &[]),
            "# TYPE a gauge\na{namespace=\"\"} 0\nb 3\n"
        );
    }

    #[test]
    fn requests_are_counted_by_route_class_and_time() {
        let requests = Requests::default();
        requests.count(9, StatusCode::OK, Duration::from_micros(100));
        requests.count(9, StatusCode::NOT_FOUND, Duration::from_secs(60));
        requests.count(UNROUTED, StatusCode::NOT_FOUND, Duration::ZERO);
        let mut text = String::new();
        requests.render(&mut text);
        for line in [
            "http_requests_total{route=\"/api/v1/{namespace}/kv/{key}\",status=\"2xx\"} 1",
            "http_requests_total{route=\"none\",status=\"4xx\"} 1",
            "http_request_duration_seconds_bucket{route=\"/api/v1/{namespace}/kv/{key}\",le=\"0.0001\"} 1",
            "http_request_duration_seconds_bucket{route=\"/api/v1/{namespace}/kv/{key}\",le=\"10\"} 1",
            "http_request_duration_seconds_bucket{route=\"/api/v1/{namespace}/kv/{key}\",le=\"+Inf\"} 2",
            "http_request_duration_seconds_count{route=\"/api/v1/{namespace}/kv/{key}\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn failures_before_an_engine_are_counted_and_a_row_of_them_ends() {
        let missed = Missed::default();
        let ns: Namespace = "users".parse().expect("a name");
        missed.failed(&ns, BackupKind::Wal);
        missed.failed(&ns, BackupKind::Wal);
        assert_eq!(
            (missed.of(&ns, "wal").total, missed.of(&ns, "wal").in_a_row),
            (2, 2)
        );
        missed.succeeded(&ns, BackupKind::Wal);
        assert_eq!(
            (missed.of(&ns, "wal").total, missed.of(&ns, "wal").in_a_row),
            (2, 0)
        );
        assert_eq!(missed.of(&ns, "btree").total, 0);
    }
}
