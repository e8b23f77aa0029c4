//! Three nodes: durable PUTs against three nodes of etcd, both asked at their leader; how soon a killed
//! leader is replaced, with default settings; what a hundred idle namespaces cost.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Options;
use super::data::Payloads;
use super::load::{Load, Pace};
use super::machine::{self, cpu_seconds};
use super::peers::{self, Peer, Protocol};
use super::stats::{Goal, Report, Series};
use super::wire::Form;
use crate::http::Client;

/// Connections of the throughput runs.
const CONNECTIONS: usize = 64;
/// Sizes of values in bytes.
const SIZE: usize = 256;
/// How often a leader is killed.
const KILLS: usize = 20;
/// Namespaces that are idle, and for how long.
const NAMESPACES: usize = 100;
const IDLE: Duration = Duration::from_secs(60);
/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// All three.
///
/// # Errors
/// Nodes that do not become a cluster, refuse a write, or do not find a leader again.
pub fn run(options: &Options, folder: &Path) -> Result<Vec<Report>> {
    let mut nodes = peers::unisondb_cluster(&folder.join("three"))?;
    let mut reports = vec![puts(options, folder, &nodes)?, leaders(&mut nodes)?];
    drop(nodes);
    reports.push(idle(folder)?);
    Ok(reports)
}

fn puts(options: &Options, folder: &Path, nodes: &[Peer]) -> Result<Report> {
    let mut report = Report::new("put 256 B, three nodes");
    until("the namespace is made", || {
        Ok(put(&nodes[0], "first").then_some(()))
    })?;
    let ours = &nodes[leader(nodes)?];
    let etcd = match peers::etcd_cluster(&folder.join("etcd"))? {
        Ok(etcd) => etcd,
        Err(missing) => {
            report.note(missing.0);
            Vec::new()
        }
    };
    let payloads = Payloads::new(SIZE);
    let connect = |peer: &Peer, protocol: Protocol, seed| {
        Load::connect(&peer.address, CONNECTIONS, seed, move |to| {
            protocol.wire(to)
        })
    };
    let mut sides = vec![(
        "unisondb JSON",
        connect(ours, Protocol::Http(Form::Json), 1)?,
    )];
    if !etcd.is_empty() {
        let theirs = &etcd[peers::etcd_leader(&etcd)?];
        sides.push(("etcd gRPC", connect(theirs, Protocol::Grpc, 2)?));
    }
    let mut found = vec![[Series::default(), Series::default()]; sides.len()];
    for (_, side) in &mut sides {
        side.write(&payloads, options.time / 4, Pace::Closed)?;
    }
    for round in 0..options.rounds {
        for i in 0..sides.len() {
            let at = (i + round) % sides.len();
            machine::sync_all()?;
            machine::wait_for_quiet(options.patience);
            let run = sides[at].1.write(&payloads, options.time, Pace::Closed)?;
            found[at][0].push(run.rate);
            found[at][1].push(run.percentile(990));
            sides[at].1.read_back(&run, &payloads, 100)?;
            thread::sleep(Duration::from_millis(500));
        }
    }
    if let [ours, theirs] = &found[..] {
        let ratio = ours[0].over(&theirs[0]);
        report.judge("PUT/s, JSON / etcd", "x", ratio, Goal::AtLeast(2.0));
        report.add("64 clients p99 / etcd", "x", ours[1].over(&theirs[1]));
    }
    for ((name, _), [rate, p99]) in sides.iter().zip(found) {
        report.add(format!("{name}: PUT/s, 64"), "/s", rate);
        report.add(format!("{name}: 64 closed p99"), "us", p99);
    }
    report.note(
        "Load and all six nodes share the cores of one machine; each side is asked at its leader.",
    );
    Ok(report)
}

/// Kills whoever leads, again and again: how long until another one answers a write.
fn leaders(nodes: &mut [Peer]) -> Result<Report> {
    let mut report = Report::new("a killed leader");
    let (mut gaps, mut late) = (Series::default(), 0);
    for kill in 0..KILLS {
        let at = leader(nodes)?;
        nodes[at].kill()?;
        let begun = Instant::now();
        let others: Vec<&Peer> = nodes
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != at)
            .map(|(_, p)| p)
            .collect();
        until("another leader", || {
            Ok(others
                .iter()
                .any(|peer| put(peer, &format!("kill-{kill}")))
                .then_some(()))
        })?;
        let gap = begun.elapsed();
        gaps.push(gap.as_secs_f64());
        late += usize::from(gap >= Duration::from_secs(2));
        let folder = nodes[at].folder.clone();
        nodes[at] = peers::unisondb_again(&nodes[at], &folder)?;
        // The next one finds three that have all.
        until("the killed one to follow", || {
            let mut client = Client::new(&*nodes[at].address).deadline(Duration::from_secs(5));
            let path = format!("/api/v1/bench/kv/kill-{kill}");
            Ok(client
                .get(&path)
                .is_ok_and(|a| a.status == 200)
                .then_some(()))
        })?;
    }
    report.judge(
        "longest until a write is answered",
        "s",
        max_of(&gaps),
        Goal::AtMost(2.0),
    );
    report.add("of each", "s", gaps);
    report.note(format!(
        "{} of {KILLS} replaced in less than 2 s, from the kill -9 of the leader to the first answered write at another node.",
        KILLS - late
    ));
    Ok(report)
}

fn max_of(series: &Series) -> Series {
    let mut most = Series::default();
    most.push(series.max());
    most
}

/// What three nodes spend that nobody asks anything.
///
/// # Errors
/// Nodes that do not become a cluster.
pub fn idle(folder: &Path) -> Result<Report> {
    let mut report = Report::new("100 idle namespaces on three nodes");
    let nodes = peers::unisondb_cluster(&folder.join("idle"))?;
    for n in 0..NAMESPACES {
        until("a namespace is made", || {
            let mut client = Client::new(&*nodes[n % 3].address).deadline(Duration::from_secs(15));
            let body = json!({"name": format!("idle-{n}")});
            let made = client.post("/api/v1/namespaces", &body);
            Ok(made.is_ok_and(|a| a.status == 200).then_some(()))
        })?;
    }
    // Every node has them all, and nothing is left to be brought into line.
    until("all namespaces everywhere", || {
        let all = nodes.iter().all(|peer| {
            let listed = get(peer, "/api/v1/namespaces");
            listed.is_some_and(|l| {
                l["namespaces"]
                    .as_array()
                    .is_some_and(|a| a.len() == NAMESPACES)
            })
        });
        Ok(all.then_some(()))
    })?;
    thread::sleep(Duration::from_secs(10));
    let before: Vec<f64> = nodes.iter().map(|p| cpu_seconds(p.pid())).collect();
    let begun = Instant::now();
    thread::sleep(IDLE);
    let took = begun.elapsed().as_secs_f64();
    let (mut cpu, mut memory) = (Series::default(), Series::default());
    for (peer, before) in nodes.iter().zip(before) {
        cpu.push((cpu_seconds(peer.pid()) - before) / took * 100.0);
        memory.push(resident_mebibytes(peer.pid())?);
    }
    report.judge(
        "CPU of a node",
        "% of a core",
        max_of(&cpu),
        Goal::AtMost(5.0),
    );
    report.judge(
        "memory of a node",
        "MiB",
        max_of(&memory),
        Goal::AtMost(300.0),
    );
    report.note("The most of the three nodes, over 60 s without a request; release profile.");
    Ok(report)
}

fn resident_mebibytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kibibytes = line
        .and_then(|l| l.trim().strip_suffix(" kB"))
        .context("VmRSS")?;
    Ok(kibibytes.trim().parse::<f64>()? / 1024.0)
}

fn put(peer: &Peer, key: &str) -> bool {
    let mut client = Client::new(&*peer.address).deadline(Duration::from_secs(15));
    let headers = [
        ("idempotency-key", key),
        ("content-type", "application/octet-stream"),
    ];
    let put = client.request("PUT", &format!("/api/v1/bench/kv/{key}"), &headers, b"x");
    put.is_ok_and(|answer| answer.status == 200)
}

fn get(peer: &Peer, path: &str) -> Option<Value> {
    let mut client = Client::new(&*peer.address).deadline(Duration::from_secs(5));
    let answer = client.get(path).ok()?;
    (answer.status == 200).then(|| answer.json())
}

/// Which node leads the namespace that is written to, when all say the same.
fn leader(nodes: &[Peer]) -> Result<usize> {
    let mut at = 0;
    until("one leader", || {
        let said: Vec<Option<String>> = nodes
            .iter()
            .map(|peer| {
                Some(
                    get(peer, "/api/v1/cluster")?["leaders"]["bench"]
                        .as_str()?
                        .to_owned(),
                )
            })
            .collect();
        let Some(Some(name)) = said.first() else {
            return Ok(None);
        };
        if said.iter().any(|other| other.as_ref() != Some(name)) {
            return Ok(None);
        }
        let number: usize = name.trim_start_matches('n').parse()?;
        ensure!(number <= nodes.len(), "no such node: {name}");
        at = number - 1;
        Ok(Some(()))
    })?;
    Ok(at)
}

fn until(what: &str, mut look: impl FnMut() -> Result<Option<()>>) -> Result<()> {
    let begun = Instant::now();
    while look()?.is_none() {
        if begun.elapsed() > PATIENCE {
            bail!("not after a minute: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
