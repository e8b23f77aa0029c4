//! Durable PUTs: UnisonDB (JSON, the contract's form, and raw) against redis and etcd, in
//! interleaved rounds. Throughput of 64 connections in a closed loop; latency of one connection;
//! latency of 64 connections at one offered rate for all, below what the slowest can do.

use std::path::Path;

use anyhow::Result;

use super::Options;
use super::data::Payloads;
use super::load::{Load, Pace};
use super::machine::{self, Meter};
use super::peers::{self, Peer, Protocol};
use super::stats::{Goal, Report, Series, percentile};
use super::wire::Form;

/// Connections of the throughput runs.
const CONNECTIONS: usize = 64;
/// Sizes of values in bytes.
const SIZES: [usize; 2] = [256, 1_024];
/// Another build of ours.
const BASELINE: &str = "baseline JSON";
/// Read back after each run.
const SAMPLE: usize = 100;

struct Side {
    name: &'static str,
    server: usize,
    protocol: Protocol,
    closed: Load,
    single: Load,
    found: Found,
}

#[derive(Default)]
struct Found {
    rate: Series,
    cpu: Series,
    closed_p50: Series,
    closed_p99: Series,
    offered_p50: Series,
    offered_p99: Series,
    single_p50: Series,
    single_p99: Series,
}

/// Measures both sizes.
///
/// # Errors
/// A server that does not start, refuses a write, or reads back something else.
pub fn run(options: &Options, folder: &Path) -> Result<Vec<Report>> {
    let mut servers = vec![peers::unisondb(&folder.join("unisondb"))?];
    let mut missing = Vec::new();
    let mut kinds = vec![
        ("unisondb JSON", 0, Protocol::Http(Form::Json)),
        ("unisondb raw", 0, Protocol::Http(Form::Raw)),
    ];
    if let Some(built) = &options.baseline {
        let other = peers::baseline(built, &folder.join("baseline"))?;
        kinds.push((BASELINE, servers.len(), Protocol::Http(Form::Json)));
        servers.push(other);
    }
    let others = [
        (
            "redis always",
            peers::redis(&folder.join("redis"))?,
            Protocol::Resp,
        ),
        (
            "etcd gRPC",
            peers::etcd(&folder.join("etcd"))?,
            Protocol::Grpc,
        ),
    ];
    for (name, peer, protocol) in others {
        match peer {
            Ok(peer) => {
                kinds.push((name, servers.len(), protocol));
                servers.push(peer);
            }
            Err(why) => missing.push(why.0),
        }
    }
    let mut reports = Vec::new();
    for size in SIZES {
        let mut report = size_of(options, folder, size, &servers, &kinds)?;
        for why in &missing {
            report.note(why.clone());
        }
        reports.push(report);
    }
    Ok(reports)
}

fn size_of(
    options: &Options,
    folder: &Path,
    size: usize,
    servers: &[Peer],
    kinds: &[(&'static str, usize, Protocol)],
) -> Result<Report> {
    let payloads = Payloads::new(size);
    let mut sides = Vec::new();
    for (n, (name, server, protocol)) in kinds.iter().enumerate() {
        let address = &servers[*server].address;
        let seed = (size * 100 + n) as u64;
        let connect = |count, seed| {
            let protocol = *protocol;
            Load::connect(address, count, seed, move |to| protocol.wire(to))
        };
        sides.push(Side {
            name,
            server: *server,
            protocol: *protocol,
            closed: connect(CONNECTIONS, seed)?,
            single: connect(1, seed + 50)?,
            found: Found::default(),
        });
    }
    // Page cache, allocators and connection state are warm before anything counts.
    for side in &mut sides {
        side.closed
            .write(&payloads, options.time / 4, Pace::Closed)?;
        machine::settle(servers[side.server].pid());
    }
    let mut sync_p50 = Series::default();
    let mut foreign = Series::default();
    for round in 0..options.rounds {
        let mut slowest = f64::INFINITY;
        let count = sides.len();
        // Each round begins with another one, so that nobody always follows the same neighbour.
        for i in 0..count {
            let side = &mut sides[(i + round) % count];
            let others = closed(options, side, &servers[side.server], &payloads)?;
            foreign.push(others);
            slowest = slowest.min(side.found.rate.last());
        }
        for i in 0..count {
            let at = (i + round) % count;
            let side = &mut sides[at];
            let server = &servers[side.server];
            offered(options, side, server, &payloads, slowest / 2.0)?;
            if at == 0 {
                // Beside our own single client: the disk's mood changes within seconds.
                let probe = machine::fdatasync_probe(folder, options.time / 6)?;
                sync_p50.push(percentile(&probe, 500));
            }
            single(options, side, server, &payloads)?;
        }
    }
    Ok(report(size, &sides, sync_p50, foreign))
}

/// One closed run; how many cores others took.
fn closed(options: &Options, side: &mut Side, server: &Peer, payloads: &Payloads) -> Result<f64> {
    machine::sync_all()?;
    machine::wait_for_quiet(options.patience);
    let meter = Meter::start(server.pid());
    let run = side.closed.write(payloads, options.time, Pace::Closed)?;
    let others = meter.read().others;
    // What it still does after its last answer (flushes) is its cost as well.
    machine::settle(server.pid());
    let done = run.written.len() as f64;
    side.found.rate.push(run.rate);
    side.found.cpu.push(meter.read().server / done * 1e6);
    side.found.closed_p50.push(run.percentile(500));
    side.found.closed_p99.push(run.percentile(990));
    side.closed.read_back(&run, payloads, SAMPLE)?;
    Ok(others)
}

fn offered(
    options: &Options,
    side: &mut Side,
    server: &Peer,
    payloads: &Payloads,
    rate: f64,
) -> Result<()> {
    machine::wait_for_quiet(options.patience);
    let offered = side
        .closed
        .write(payloads, options.time / 2, Pace::Offered(rate))?;
    side.found.offered_p50.push(offered.percentile(500));
    side.found.offered_p99.push(offered.percentile(990));
    machine::settle(server.pid());
    Ok(())
}

fn single(options: &Options, side: &mut Side, server: &Peer, payloads: &Payloads) -> Result<()> {
    let single = side
        .single
        .write(payloads, options.time / 3, Pace::Closed)?;
    side.found.single_p50.push(single.percentile(500));
    side.found.single_p99.push(single.percentile(990));
    machine::settle(server.pid());
    Ok(())
}

fn report(size: usize, sides: &[Side], sync_p50: Series, foreign: Series) -> Report {
    let mut report = Report::new(if size == SIZES[0] {
        "put 256 B"
    } else {
        "put 1 KiB"
    });
    let named = |protocol| sides.iter().find(|s| s.protocol == protocol);
    let json = &sides[0].found;
    let raw = &sides[1].found;
    for (peer, protocol, goal) in [
        ("redis", Protocol::Resp, Goal::AtLeast(0.8)),
        ("etcd", Protocol::Grpc, Goal::AtLeast(2.5)),
    ] {
        let Some(side) = named(protocol) else {
            continue;
        };
        let other = &side.found;
        report.judge(
            format!("PUT/s, JSON / {peer}"),
            "x",
            json.rate.over(&other.rate),
            goal,
        );
        report.judge(
            format!("PUT/s, raw / {peer}"),
            "x",
            raw.rate.over(&other.rate),
            Goal::None,
        );
    }
    if let Some(side) = sides.iter().find(|s| s.name == BASELINE) {
        let ratio = json.rate.over(&side.found.rate);
        report.add("PUT/s, JSON / baseline", "x", ratio);
    }
    let ratio = json.single_p50.over(&sync_p50);
    report.judge(
        "1 client p50 / fdatasync p50",
        "x",
        ratio,
        Goal::AtMost(2.0),
    );
    if let Some(side) = named(Protocol::Grpc) {
        let ratio = json.closed_p99.over(&side.found.closed_p99);
        report.judge("64 clients p99 / etcd", "x", ratio, Goal::AtMost(0.5));
        let ratio = json.offered_p99.over(&side.found.offered_p99);
        report.judge("64 offered p99 / etcd", "x", ratio, Goal::AtMost(0.5));
    }
    report.add("fdatasync 4 KiB, zeroed, p50", "us", sync_p50);
    for side in sides {
        let (name, found) = (side.name, &side.found);
        report.add(format!("{name}: PUT/s, 64"), "/s", found.rate.clone());
        report.add(format!("{name}: server CPU a PUT"), "us", found.cpu.clone());
        report.add(
            format!("{name}: 64 closed p50"),
            "us",
            found.closed_p50.clone(),
        );
        report.add(
            format!("{name}: 64 closed p99"),
            "us",
            found.closed_p99.clone(),
        );
        report.add(
            format!("{name}: 64 offered p50"),
            "us",
            found.offered_p50.clone(),
        );
        report.add(
            format!("{name}: 64 offered p99"),
            "us",
            found.offered_p99.clone(),
        );
        report.add(
            format!("{name}: 1 client p50"),
            "us",
            found.single_p50.clone(),
        );
        report.add(
            format!("{name}: 1 client p99"),
            "us",
            found.single_p99.clone(),
        );
    }
    report.add("cores taken by others meanwhile", "", foreign);
    report.note(
        "Offered: half of the slowest one's closed rate of that round, the same for all; latency \
         from the moment at which a request was due.",
    );
    report
}
