//! A node that was away longer than its log is kept comes back by itself: three real processes whose
//! segments are tiny and kept for a second; one is killed, the others write and purge, and it gets a
//! snapshot from one of them. Killed in the middle of that, again and again, it comes back all the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use unisondb_tests::cluster::{Anywhere, Cluster, sealed};
use unisondb_tests::node::Node;
use unisondb_tests::workload::NAMESPACE;

const FLAGS: [&str; 4] = [
    "--ballast-bytes=0B",
    "--segment-size=4KiB",
    "--wal-retention=1s",
    "--flush-interval=200ms",
];

/// An empty folder of this test's.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{name}"));
    // What an earlier run left.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn at(namespace: &str, path: &str) -> String {
    format!("/api/v1/{namespace}{path}")
}

/// Writes so much that many segments end; gives the last LSN.
fn write_much(client: &mut Anywhere, namespace: &str, name: &str, n: usize) -> u64 {
    let mut last = 0;
    for i in 0..n {
        // 400 bytes, in base64.
        let value = json!({"value": "QUJD".repeat(133)}).to_string();
        let path = at(namespace, &format!("/kv/{name}-{i}"));
        let put = client.send("PUT", &path, &[], value.as_bytes());
        last = put.expect("an answer").expect(200).json()["lsn"]
            .as_u64()
            .unwrap();
    }
    last
}

fn segments(cluster: &Cluster, node: usize, namespace: &str) -> Option<Vec<Value>> {
    let answer = cluster.client(node).get(&at(namespace, "/wal/segments"));
    let answer = answer.ok().filter(|answer| answer.status == 200)?;
    answer.json()["segments"].as_array().cloned()
}

/// The segment that a node's log begins with.
fn first(cluster: &Cluster, node: usize, namespace: &str) -> Option<u64> {
    segments(cluster, node, namespace)?.first()?["segmentId"].as_u64()
}

/// Waits until none of `nodes` has a segment up to `id`.
fn purged(cluster: &Cluster, nodes: &[usize], namespace: &str, id: u64) {
    for node in nodes {
        cluster.until(
            &format!("segment above {id} that n{} begins with", node + 1),
            || first(cluster, *node, namespace).filter(|first| *first > id),
        );
    }
}

/// All nodes have the same state at `lsn` and, as far as they hold them, the same sealed segments. Gives how
/// many of these all hold.
fn agree(cluster: &Cluster, namespace: &str, lsn: u64) -> usize {
    let digests = cluster.digests(namespace, lsn);
    assert_eq!(digests.len(), 3);
    let all = cluster.until("one digest at one LSN", || {
        let now = cluster.digests(namespace, lsn);
        now.windows(2)
            .all(|two| two[0].0 == two[1].0)
            .then_some(now)
    });
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
    let of: Vec<BTreeMap<u64, String>> = (0..3)
        .map(|node| {
            sealed(&mut cluster.client(node), namespace)
                .into_iter()
                .collect()
        })
        .collect();
    let mut held_by_all = 0;
    for (id, sum) in &of[0] {
        let others: Vec<&String> = of[1..].iter().filter_map(|them| them.get(id)).collect();
        assert!(others.iter().all(|other| *other == sum), "segment {id}");
        held_by_all += usize::from(others.len() == 2 && !sum.is_empty());
    }
    held_by_all
}

#[test]
fn a_node_that_was_away_longer_than_the_logs_are_kept_comes_back_by_itself() {
    let folder = folder("snapshots");
    let mut cluster = Cluster::start(&folder, 3, &FLAGS);
    let mut client = Anywhere::new(cluster.addresses(), 0);
    let last = write_much(&mut client, NAMESPACE, "before", 10);
    cluster.digests(NAMESPACE, last);
    let away = (cluster.leader() + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|node| *node != away).collect();
    let had = segments(&cluster, away, NAMESPACE).unwrap();
    let had = had.last().unwrap()["segmentId"].as_u64().unwrap();
    cluster.kill(away);

    let mut client = Anywhere::new(cluster.addresses(), others[0]);
    // The log of _cluster goes on, too, and what is made meanwhile is purged before it was ever there.
    for n in 0..8 {
        let made = json!({"name": format!("made-{n}")}).to_string();
        let made = client.send("POST", "/api/v1/namespaces", &[], made.as_bytes());
        let made = made.unwrap();
        assert!([200, 201].contains(&made.status), "{}", made.text());
    }
    let made = write_much(&mut client, "made-0", "meanwhile", 40);
    let last = write_much(&mut client, NAMESPACE, "meanwhile", 60);
    purged(&cluster, &others, NAMESPACE, had + 1);
    purged(&cluster, &others, "made-0", 1);

    cluster.launch(away);
    agree(&cluster, NAMESPACE, last);
    agree(&cluster, "made-0", made);
    assert!(
        first(&cluster, away, NAMESPACE).unwrap() > had,
        "its log goes on behind the gap"
    );
    // What it lacks it says by name.
    let asked = json!({"backupDir": "wal", "afterSegmentId": 1, "seal": false});
    let gap = cluster
        .client(away)
        .post(&at(NAMESPACE, "/wal/backup"), &asked);
    let gap = gap.unwrap();
    assert_eq!(gap.status, 409, "{}", gap.text());
    assert!(
        gap.text().contains("wal gap: segments 2-"),
        "{}",
        gap.text()
    );

    // Killed while it does it once more, at whatever moment.
    let had = segments(&cluster, away, NAMESPACE).unwrap();
    let had = had.last().unwrap()["segmentId"].as_u64().unwrap();
    cluster.kill(away);
    let last = write_much(&mut client, NAMESPACE, "again", 60);
    purged(&cluster, &others, NAMESPACE, had + 1);
    for n in 1..=10 {
        cluster.launch(away);
        thread::sleep(Duration::from_millis(60 * n));
        cluster.kill(away);
    }
    cluster.launch(away);
    agree(&cluster, NAMESPACE, last);
    // It is one of them: with another one gone, what is written needs it.
    client.turn_to(cluster.addresses());
    cluster.kill(others[1]);
    let last = write_much(&mut client, NAMESPACE, "with-it", 12);
    cluster.launch(others[1]);
    let seal = client.send("POST", &at(NAMESPACE, "/wal/seal"), &[], b"{}");
    seal.unwrap().expect(200);
    agree(&cluster, NAMESPACE, last);
}

#[test]
fn a_node_that_ran_alone_for_long_founds_a_cluster_though_its_log_begins_late() {
    let folder = folder("late");
    let flags = FLAGS;
    let alone = Node::start(&folder.join("n2"), &flags);
    let mut client = Anywhere::new(&[alone.address().to_owned()], 0);
    write_much(&mut client, NAMESPACE, "alone", 60);
    let begun = Instant::now();
    loop {
        let listed = alone.client().get(&at(NAMESPACE, "/wal/segments"));
        let listed = listed.unwrap().expect(200).json();
        if listed["segments"][0]["segmentId"].as_u64().unwrap() > 1 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{listed}");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(alone.stop().success());

    let cluster = Cluster::start(&folder, 3, &FLAGS);
    let mut client = Anywhere::new(cluster.addresses(), 0);
    let last = write_much(&mut client, NAMESPACE, "together", 30);
    let seal = client.send("POST", &at(NAMESPACE, "/wal/seal"), &[], b"{}");
    seal.unwrap().expect(200);
    agree(&cluster, NAMESPACE, last);
    for node in 0..3 {
        let path = at(NAMESPACE, "/kv/alone-59?consistency=linearizable");
        cluster.until("what it wrote alone on every node", || {
            let found = cluster.client(node).get(&path).ok()?;
            (found.status == 200).then_some(())
        });
    }
}
