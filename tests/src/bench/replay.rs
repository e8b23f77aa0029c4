//! Restore from the log alone against LMDB: the same keys and values (16 B + 256 B, random), in the
//! same order. Ours is the whole of `udbctl restore`: process start, verification of every frame,
//! replay, digest, synced commits. LMDB's is bare puts, once 1,000 a synced commit, and once as many
//! a commit as fill one of our flushes, which is as fast as it gets without sorting.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, EnvOpenOptions};
use serde_json::{Value, json};

use super::Options;
use super::big::put_batch;
use super::data::{Draw, Payloads};
use super::load::{Load, Pace};
use super::machine;
use super::peers::{self, Peer, Protocol};
use super::stats::{Goal, Report, Series};
use super::wire::Form;
use crate::http::Client;

const VALUE: usize = 256;
/// Items of a batch in the log.
const BATCH: u64 = 1_000;
/// Puts of a transaction of LMDB's: small, and about 32 MiB.
const SMALL: usize = 1_000;
const LARGE: usize = 100_000;
const SEED: u64 = 4_711;

/// Measures a log of batches, and one of single PUTs (one record a key).
///
/// # Errors
/// The node's, `udbctl`'s, LMDB's; a restore that does not hold what was written.
pub fn run(options: &Options, folder: &Path) -> Result<Report> {
    let mut report = Report::new("replay");
    let payloads = Payloads::new(VALUE);
    let batches = folder.join("batches");
    let written = batched(options, &batches, &payloads)?;
    measure(
        options,
        folder,
        &mut report,
        "batches of 1,000",
        &written,
        &payloads,
    )?;
    let written = singles(options, &folder.join("singles"), &payloads)?;
    measure(
        options,
        folder,
        &mut report,
        "single PUTs",
        &written,
        &payloads,
    )?;
    report.note(
        "udbctl restore from process start to end, verification and digest included; LMDB: the \
         same pairs in the same order, every commit synced, nothing else.",
    );
    Ok(report)
}

struct Written {
    segments: PathBuf,
    items: Vec<super::data::Item>,
}

fn backup(node: &Peer) -> Result<PathBuf> {
    let mut client = Client::new(&*node.address).deadline(Duration::from_secs(600));
    let made = client.post("/api/v1/bench/wal/backup", &json!({"backupDir": "all"}))?;
    let made: Value = serde_json::from_slice(&made.body)?;
    let first = made["backups"][0]["path"].as_str();
    let first = first.with_context(|| made.to_string())?;
    Ok(Path::new(first).parent().context("a folder")?.to_owned())
}

fn batched(options: &Options, folder: &Path, payloads: &Payloads) -> Result<Written> {
    let node = peers::unisondb(folder)?;
    let mut client = Client::new(&*node.address).deadline(Duration::from_secs(60));
    let mut draw = Draw::new(SEED);
    for _ in 0..options.keys / BATCH {
        put_batch(&mut client, &mut draw, BATCH, payloads)?;
    }
    let mut draw = Draw::new(SEED);
    Ok(Written {
        segments: backup(&node)?,
        items: (0..options.keys / BATCH * BATCH)
            .map(|_| draw.item())
            .collect(),
    })
}

fn singles(options: &Options, folder: &Path, payloads: &Payloads) -> Result<Written> {
    let node = peers::unisondb(folder)?;
    let protocol = Protocol::Http(Form::Raw);
    let mut load = Load::connect(&node.address, 64, SEED, move |to| protocol.wire(to))?;
    let mut items = Vec::new();
    // A third of the keys: they come one by one.
    while (items.len() as u64) < options.keys / 3 {
        items.extend(
            load.write(payloads, Duration::from_secs(2), Pace::Closed)?
                .written,
        );
    }
    Ok(Written {
        segments: backup(&node)?,
        items,
    })
}

fn measure(
    options: &Options,
    folder: &Path,
    report: &mut Report,
    what: &str,
    written: &Written,
    payloads: &Payloads,
) -> Result<()> {
    let keys = written.items.len() as f64;
    let mut ours = Series::default();
    let mut lmdb = [(SMALL, Series::default()), (LARGE, Series::default())];
    for round in 0..=options.rounds {
        let target = folder.join("restored");
        machine::sync_all()?;
        machine::wait_for_quiet(options.patience);
        let mut restore = Command::new(peers::built("udbctl")?);
        restore.args([
            "restore",
            "--namespace",
            "bench",
            "--to-latest",
            "--json",
            "--data-dir",
        ]);
        restore.arg(&target).arg("--wal").arg(&written.segments);
        let begun = Instant::now();
        machine::run(restore)?;
        let took = begun.elapsed().as_secs_f64();
        if round == 0 {
            check(&target, written, payloads)?;
        }
        fs::remove_dir_all(&target)?;
        // The first round warms both up.
        if round > 0 {
            ours.push(keys / took);
        }
        for (batch, series) in &mut lmdb {
            machine::sync_all()?;
            let direct = lmdb_random(&folder.join("lmdb"), written, payloads, *batch)?;
            if round > 0 {
                series.push(keys / direct);
            }
        }
    }
    for (batch, series) in &lmdb {
        let name = format!("replay of {what} / LMDB, {batch} a commit");
        report.judge(name, "x", ours.over(series), Goal::AtLeast(0.8));
    }
    report.add(format!("replay of {what}: {keys} keys"), "/s", ours);
    for (batch, series) in lmdb {
        report.add(format!("LMDB, {batch} a commit"), "/s", series);
    }
    Ok(())
}

/// The restored node has what was written.
fn check(target: &Path, written: &Written, payloads: &Payloads) -> Result<()> {
    let node = peers::unisondb(target)?;
    let mut client = Client::new(&*node.address);
    for item in written.items.iter().step_by(written.items.len() / 500 + 1) {
        let path = format!("/api/v1/bench/kv/{}", String::from_utf8_lossy(&item.key()));
        let answer =
            client.request("GET", &path, &[("accept", "application/octet-stream")], b"")?;
        ensure!(
            answer.body == payloads.raw(*item),
            "{path}: restored otherwise"
        );
    }
    Ok(())
}

#[expect(unsafe_code, reason = "LMDB maps its file; nobody else opens this one")]
fn lmdb_random(folder: &Path, written: &Written, payloads: &Payloads, batch: usize) -> Result<f64> {
    fs::create_dir_all(folder)?;
    let begun = Instant::now();
    // SAFETY: the folder was made above for this run alone and is removed after it.
    let env = unsafe { EnvOpenOptions::new().map_size(16 << 30).open(folder)? };
    let database: Database<Bytes, Bytes> = env
        .create_databases_and_commit(env.write_txn()?, |open, txn| {
            open.create_database(txn, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    for items in written.items.chunks(batch) {
        let mut txn = env.write_txn()?;
        for item in items {
            database.put(&mut txn, &item.key(), payloads.raw(*item))?;
        }
        txn.commit()?;
    }
    let took = begun.elapsed().as_secs_f64();
    env.prepare_for_closing().wait();
    fs::remove_dir_all(folder)?;
    Ok(took)
}
