//! Random schedules over a group of three: writes, cut ways, kills, power losses of one and of all at
//! once, failing fsyncs, full disks, handed-over leads. Whatever happens, what was answered is in
//! every log at the position that was told, and all logs and segments are the same.
//!
//! A seed that fails is its own reproduction: `UNISON_RAFT_SEEDS=7..8 cargo test -p unisondb-raft
//! --test schedules`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rig::{Cluster, End, put};
use unisondb_platform::memory::{Effect, OpKind, Random, Rule};
use unisondb_types::{Command, Lsn};

const STEPS: u64 = 100;

/// What a run has come to.
#[derive(Debug, Default)]
struct Told {
    answered: Vec<(Lsn, Command)>,
    not_answered: usize,
    /// Who led, by term.
    leaders: BTreeMap<u64, u64>,
    failed_logs: usize,
    full: usize,
}

async fn run(seed: u64) -> Told {
    let mut cluster = Cluster::of(3, seed).await;
    let mut random = Random::keyed(seed, b"schedule", 0);
    let mut told = Told::default();
    for step in 0..STEPS {
        let n = usize::try_from(random.below(3)).unwrap();
        match random.below(60) {
            0 => cluster.cut(n),
            1 | 2 | 14 => cluster.heal(),
            3 => end_and_start(&mut cluster, &[n], End::Killed).await,
            4 => end_and_start(&mut cluster, &[n], End::PowerLoss).await,
            5 => end_and_start(&mut cluster, &[0, 1, 2], End::PowerLoss).await,
            6 => {
                let (wal, skip) = ("/data/users/wal", random.below(4));
                let rule = Rule::once(OpKind::Sync, wal, Effect::Eio).after(skip);
                cluster.members[n].disk.inject(rule);
            }
            7 => cluster.members[n].disk.set_capacity(Some(0)),
            8 | 9 | 15 => cluster
                .members
                .iter()
                .for_each(|m| m.disk.set_capacity(None)),
            10 => {
                if let Some(leader) = cluster.leading().await {
                    let id = cluster.members[n].id;
                    cluster.members[leader].group().transfer(id).await.unwrap();
                }
            }
            11 => {
                if let Some(leader) = cluster.leading().await {
                    let group = cluster.members[leader].group();
                    let seal = Command::Seal(group.engine().wal().active().id);
                    drop(tokio::time::timeout(Duration::from_secs(5), group.propose(&seal)).await);
                }
            }
            12 | 13 => {
                let millis = random.below(2_000);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            _ => {
                let (key, value) = (format!("k{}", random.below(9)), format!("{seed}-{step}"));
                let value = format!(
                    "{value}-{}",
                    "x".repeat(usize::try_from(random.below(900)).unwrap())
                );
                match cluster.try_put(&key, &value).await {
                    Ok(written) => told.answered.push((written.lsn, put(&key, &value))),
                    Err(unisondb_api::WriteError::Full) => told.full += 1,
                    Err(_) => told.not_answered += 1,
                }
            }
        }
        told.failed_logs += cluster.restart_failed().await;
        for member in &cluster.members {
            let group = member.group();
            if group.leads() {
                let led = told.leaders.insert(group.term().get(), member.id);
                assert!(led.is_none_or(|id| id == member.id), "two lead in one term");
            }
        }
    }
    cluster.heal();
    for member in &cluster.members {
        member.disk.set_capacity(None);
        member.disk.forget_rules();
    }
    cluster.restart_failed().await;
    let last = cluster.put("last", "of all").await;
    told.answered.push((last.lsn, put("last", "of all")));
    cluster.restart_failed().await;
    let log = cluster.agree().await;
    for (lsn, command) in &told.answered {
        let entry = &log[usize::try_from(lsn.get()).unwrap() - 1];
        assert_eq!(entry.record.lsn, *lsn);
        assert_eq!(entry.record.command().unwrap(), *command, "record {lsn}");
    }
    told
}

async fn end_and_start(cluster: &mut Cluster, members: &[usize], end: End) {
    for n in members {
        cluster.end(*n, end).await;
    }
    for n in members {
        cluster.start(*n).await;
    }
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("UNISON_RAFT_SEEDS") else {
        return 1..31;
    };
    let (from, to) = text.split_once("..").expect("FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn what_was_answered_is_in_every_log_whatever_happens() {
    let (mut answered, mut not, mut terms, mut failed, mut full) = (0, 0, 0, 0, 0);
    for seed in seeds() {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let told = runtime.block_on(run(seed));
        answered += told.answered.len();
        not += told.not_answered;
        terms += told.leaders.len();
        failed += told.failed_logs;
        full += told.full;
    }
    println!(
        "{answered} writes answered, {not} not, {full} refused by a full disk, {terms} terms led, {failed} logs failed"
    );
    // A run in which nothing happens proves nothing.
    let seeds = seeds().count();
    assert!(
        answered > 10 * seeds && terms > 2 * seeds && failed > 0,
        "too little happened"
    );
}
