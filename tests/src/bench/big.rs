//! A node with a gibibyte of state and of log: snapshot and WAL backup against `cp` with sync of
//! the same bytes, writes while snapshots are taken, and the start after kill -9.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Options;
use super::data::{Draw, Item, Payloads};
use super::load::{Load, Pace};
use super::machine;
use super::peers::{self, Peer, Protocol};
use super::stats::{Goal, Report, Series};
use super::wire::Form;
use crate::http::Client;

/// Bytes of a value in the big state.
const VALUE: usize = 1_024;
/// Items of a batch that fills it: about 1 MiB of JSON, the limit of a body.
const BATCH: u64 = 700;
const SEED: u64 = 77;

/// A filled node.
#[derive(Debug)]
pub struct Big {
    node: Peer,
    folder: PathBuf,
    items: u64,
    payloads: Payloads,
}

fn post(client: &mut Client, route: &str, body: &Value) -> Result<Value> {
    let answer = client.post(&format!("/api/v1/bench/{route}"), body)?;
    ensure!(
        answer.status == 200,
        "{route}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(serde_json::from_slice(&answer.body)?)
}

fn client(node: &Peer) -> Client {
    Client::new(&*node.address).deadline(Duration::from_secs(600))
}

impl Big {
    /// Starts a node and writes until it holds what the options say.
    ///
    /// # Errors
    /// The node's refusals.
    pub fn fill(options: &Options, folder: &Path) -> Result<Big> {
        let node = peers::unisondb(&folder.join("big"))?;
        let payloads = Payloads::new(VALUE);
        let items = (options.mebibytes << 20) / (VALUE as u64 + 16);
        let (mut draw, mut client) = (Draw::new(SEED), client(&node));
        let mut left = items;
        let begun = Instant::now();
        while left > 0 {
            let count = left.min(BATCH);
            put_batch(&mut client, &mut draw, count, &payloads)?;
            left -= count;
        }
        post(&mut client, "wal/seal", &json!({}))?;
        eprintln!(
            "filled with {items} keys in {:.0} s",
            begun.elapsed().as_secs_f64()
        );
        machine::settle(node.pid());
        Ok(Big {
            node,
            folder: folder.to_owned(),
            items,
            payloads,
        })
    }

    /// Snapshot against `cp` + `sync` of the very file that it made; then writes meanwhile.
    ///
    /// # Errors
    /// The node's or the disk's.
    pub fn snapshot(&mut self, options: &Options) -> Result<Report> {
        let mut report = Report::new("snapshot");
        let mut client = client(&self.node);
        let (mut ours, mut cp, mut size) = (Series::default(), Series::default(), 0.0);
        // The first round is thrown away: page cache, first touch of the files.
        for round in 0..=options.rounds {
            machine::sync_all()?;
            machine::wait_for_quiet(options.patience);
            let begun = Instant::now();
            let made = post(&mut client, "btree/backup", &json!({"path": "snapshot.db"}))?;
            let took = begun.elapsed().as_secs_f64();
            let path = PathBuf::from(made["path"].as_str().context("a path")?);
            size = made["bytes"].as_f64().context("bytes")? / 1e6;
            machine::sync_all()?;
            let copied =
                machine::copy_with_sync(std::slice::from_ref(&path), &self.folder.join("copy"))?;
            fs::remove_dir_all(self.folder.join("copy"))?;
            // The next one writes a new file, as `cp` does.
            fs::remove_file(&path)?;
            if round > 0 {
                ours.push(size / took);
                cp.push(size / copied);
            }
        }
        report.judge(
            "snapshot / cp with sync",
            "x",
            ours.over(&cp),
            Goal::AtLeast(0.9),
        );
        report.add("snapshot", "MB/s", ours);
        report.add("cp and sync of the same file", "MB/s", cp);
        report.note(format!(
            "The snapshot is {size:.0} MB, hashed and certified while it is written."
        ));
        self.writes_meanwhile(options, &mut report)?;
        Ok(report)
    }

    fn writes_meanwhile(&mut self, options: &Options, report: &mut Report) -> Result<()> {
        let payloads = Payloads::new(256);
        let protocol = Protocol::Http(Form::Json);
        let mut load = Load::connect(&self.node.address, 64, 9, move |to| protocol.wire(to))?;
        let mut quiet = [Series::default(), Series::default()];
        let mut busy = [Series::default(), Series::default()];
        let mut snapshots = 0;
        for _ in 0..options.rounds {
            machine::settle(self.node.pid());
            machine::wait_for_quiet(options.patience);
            let run = load.write(&payloads, options.time, Pace::Closed)?;
            quiet[0].push(run.rate);
            quiet[1].push(run.percentile(990));
            machine::settle(self.node.pid());
            let over = AtomicBool::new(false);
            let (run, made) = thread::scope(|scope| {
                let taker = scope.spawn(|| snapshots_until(&self.node, &over));
                let run = load.write(&payloads, options.time, Pace::Closed);
                over.store(true, Ordering::Relaxed);
                let made = taker.join().expect("it returns its errors");
                Ok::<_, anyhow::Error>((run?, made?))
            })?;
            snapshots += made;
            busy[0].push(run.rate);
            busy[1].push(run.percentile(990));
        }
        let throughput = busy[0].over(&quiet[0]);
        report.judge(
            "PUT/s while snapshots / without",
            "x",
            throughput,
            Goal::AtLeast(0.7),
        );
        let p99 = busy[1].over(&quiet[1]);
        report.judge(
            "PUT p99 while snapshots / without",
            "x",
            p99,
            Goal::AtMost(2.0),
        );
        for (name, [rate, p99]) in [("without", quiet), ("while snapshots", busy)] {
            report.add(format!("PUT/s, 64, 256 B, {name}"), "/s", rate);
            report.add(format!("PUT p99, 64, 256 B, {name}"), "us", p99);
        }
        report.note(format!("Snapshots one after another, {snapshots} in all."));
        Ok(())
    }

    /// WAL backup of all sealed segments against `cp` + `sync` of the same files.
    ///
    /// # Errors
    /// The node's or the disk's.
    pub fn wal_backup(&mut self, options: &Options) -> Result<Report> {
        let mut report = Report::new("wal-backup");
        let mut client = client(&self.node);
        let (mut ours, mut cp, mut size, mut count) = (Series::default(), Series::default(), 0, 0);
        for round in 0..=options.rounds {
            machine::sync_all()?;
            machine::wait_for_quiet(options.patience);
            let begun = Instant::now();
            let body = json!({"afterSegmentId": 0, "backupDir": "bench"});
            let made = post(&mut client, "wal/backup", &body)?;
            let took = begun.elapsed().as_secs_f64();
            let backups = made["backups"].as_array().context("backups")?;
            let paths = backups
                .iter()
                .map(|b| b["path"].as_str().map(PathBuf::from));
            let files: Vec<PathBuf> = paths.collect::<Option<_>>().context("paths")?;
            let sizes = files.iter().map(|f| Ok(fs::metadata(f)?.len()));
            size = sizes.sum::<Result<u64>>()?;
            count = files.len();
            machine::sync_all()?;
            let copied = machine::copy_with_sync(&files, &self.folder.join("copy"))?;
            fs::remove_dir_all(self.folder.join("copy"))?;
            let folder = files[0].parent().context("a folder")?;
            fs::remove_dir_all(folder)?;
            if round > 0 {
                ours.push(size as f64 / 1e6 / took);
                cp.push(size as f64 / 1e6 / copied);
            }
        }
        report.judge(
            "WAL backup / cp with sync",
            "x",
            ours.over(&cp),
            Goal::AtLeast(0.8),
        );
        report.add("WAL backup, verified", "MB/s", ours);
        report.add("cp and sync of the same files", "MB/s", cp);
        report.note(format!("{count} segments, {:.0} MB.", size as f64 / 1e6));
        Ok(report)
    }

    /// kill -9, and the time from the new process to the first linearizable read.
    ///
    /// # Errors
    /// A node that does not come back, or without its data.
    pub fn start(&mut self, options: &Options) -> Result<Report> {
        let mut report = Report::new("start");
        let (mut warm, mut cold) = (Series::default(), Series::default());
        let state = self.node.folder.join("bench/db/data.mdb");
        let size = fs::metadata(&state)
            .with_context(|| state.display().to_string())?
            .len();
        for _ in 0..options.rounds {
            // Some of it only in the log: replay is part of a start.
            let mut client = client(&self.node);
            put_batch(&mut client, &mut Draw::new(SEED), BATCH, &self.payloads)?;
            warm.push(self.restart(|| Ok(()))?);
        }
        for _ in 0..options.rounds {
            match self.restart(machine::drop_page_cache) {
                Ok(seconds) => cold.push(seconds),
                Err(why) => {
                    report.note(format!("No cold start: {why:#}"));
                    self.node = peers::unisondb(&self.node.folder)?;
                    break;
                }
            }
        }
        report.judge("kill -9 to linearizable read", "s", warm, Goal::AtMost(1.0));
        report.judge("the same, page cache dropped", "s", cold, Goal::AtMost(1.0));
        report.note(format!(
            "{} keys, data.mdb {:.0} MB.",
            self.items,
            size as f64 / 1e6
        ));
        Ok(report)
    }

    fn restart(&mut self, between: impl Fn() -> Result<()>) -> Result<f64> {
        self.node.kill()?;
        between()?;
        let item = Draw::new(SEED).item();
        let begun = Instant::now();
        let folder = self.node.folder.clone();
        self.node = peers::launch_unisondb(&folder)?;
        loop {
            if first_read(&self.node, item, &self.payloads).unwrap_or(false) {
                return Ok(begun.elapsed().as_secs_f64());
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(300),
                "no read after five minutes"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether a linearizable read answers; an error means not yet.
fn first_read(node: &Peer, item: Item, payloads: &Payloads) -> Result<bool> {
    let key = String::from_utf8_lossy(&item.key()).into_owned();
    let path = format!("/api/v1/bench/kv/{key}?consistency=linearizable");
    let answer =
        client(node).request("GET", &path, &[("accept", "application/octet-stream")], b"")?;
    Ok(answer.status == 200 && answer.body == payloads.raw(item))
}

/// Takes snapshots one after another until told; how many.
fn snapshots_until(node: &Peer, over: &AtomicBool) -> Result<u32> {
    let mut client = client(node);
    let mut made = 0;
    while !over.load(Ordering::Relaxed) {
        post(
            &mut client,
            "btree/backup",
            &json!({"path": "meanwhile.db"}),
        )?;
        made += 1;
    }
    Ok(made)
}

/// Writes the next `count` items of a stream as one batch.
///
/// # Errors
/// The node's refusal.
pub fn put_batch(
    client: &mut Client,
    draw: &mut Draw,
    count: u64,
    payloads: &Payloads,
) -> Result<()> {
    let mut body = String::from("{\"operation\":\"put\",\"items\":[");
    for n in 0..count {
        let item = draw.item();
        let key = item.key();
        body.push_str(if n == 0 {
            "{\"key\":\""
        } else {
            ",{\"key\":\""
        });
        body.push_str(std::str::from_utf8(&key)?);
        body.push_str("\",\"value\":\"");
        body.push_str(payloads.base64(item));
        body.push_str("\"}");
    }
    body.push_str("]}");
    // Below the limit of proposals there is always an answer; 503 would mean: slow down.
    loop {
        let answer = client.request("POST", "/api/v1/bench/kv/batch", &[], body.as_bytes())?;
        match answer.status {
            200 => return Ok(()),
            503 => thread::sleep(Duration::from_millis(20)),
            other => anyhow::bail!("{other} {}", answer.text()),
        }
    }
}
