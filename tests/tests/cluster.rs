//! Three real processes that are one cluster: any of them takes any request, each may be killed, and
//! incremental backups that change the node every time restore to the exact digest.
//!
//! `UNISON_SOAK_SECONDS=N` is how long the load runs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use unisondb_tests::build;
use unisondb_tests::cluster::{Anywhere, Cluster, run, sealed};
use unisondb_tests::node::Node;
use unisondb_tests::workload::NAMESPACE;
use unisondb_tests::workload::restore::{Sources, Target, restore, verify};

/// An empty folder of this test's.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{name}"));
    // What an earlier run left.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn at(path: &str) -> String {
    format!("/api/v1/{NAMESPACE}{path}")
}

fn lsn(answer: &unisondb_tests::http::Answer) -> u64 {
    answer.json()["lsn"].as_u64().unwrap()
}

#[test]
fn three_nodes_become_one_cluster_and_any_takes_any_request() {
    let folder = folder("any");
    let mut cluster = Cluster::start(&folder, 3, &["--ballast-bytes=0B"]);
    let mut last = 0;
    for node in 0..3 {
        // The first makes the namespace, in the whole cluster.
        let mut client = Anywhere::new(cluster.addresses(), node);
        let put = client
            .send(
                "PUT",
                &at(&format!("/kv/k{node}")),
                &[],
                br#"{"value":"YQ=="}"#,
            )
            .unwrap_or_else(|| panic!("n{}: {}", node + 1, cluster.logs()));
        last = lsn(&put.expect(200));
    }
    for reader in 0..3 {
        for key in 0..3 {
            let path = at(&format!("/kv/k{key}?consistency=linearizable"));
            let found = cluster.client(reader).get(&path).unwrap().expect(200);
            assert_eq!(found.json()["value"], "YQ==", "k{key} on n{}", reader + 1);
        }
    }
    let digests = cluster.digests(NAMESPACE, last);
    assert!(
        digests.windows(2).all(|two| two[0] == two[1]),
        "{digests:?}"
    );
    // A transaction begun here, staged there, committed at the third.
    let begun = json!({"operation": "put", "entryType": "kv"});
    let begun = cluster.client(0).post(&at("/tx/begin"), &begun).unwrap();
    let id = begun.expect(200).json()["txnId"]
        .as_str()
        .unwrap()
        .to_owned();
    let staged = json!({"key": "t", "value": "dA=="});
    let staged = cluster
        .client(1)
        .post(&at(&format!("/tx/{id}/kv")), &staged);
    staged.unwrap().expect(200);
    let done = cluster
        .client(2)
        .post(&at(&format!("/tx/{id}/commit")), &json!({}));
    let done = lsn(&done.unwrap().expect(200));
    let found = cluster.client(0).get(&at(&format!("/kv/t?minLsn={done}")));
    assert_eq!(found.unwrap().expect(200).json()["value"], "dA==");
    // Sealed by one, the same bytes on all.
    cluster
        .client(1)
        .post(&at("/wal/seal"), &json!({}))
        .unwrap()
        .expect(200);
    let all = (0..3).map(|node| {
        cluster.until("sealed segment", || {
            let found = sealed(&mut cluster.client(node), NAMESPACE);
            (!found.is_empty()).then_some(found)
        })
    });
    let all: Vec<_> = all.collect();
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
    // All of them stopped and started: the same cluster.
    for node in 0..3 {
        cluster.stop(node);
    }
    for node in 0..3 {
        cluster.launch(node);
    }
    let mut client = Anywhere::new(cluster.addresses(), 0);
    let again = client.send("GET", &at(&format!("/kv/t?minLsn={done}")), &[], b"");
    assert_eq!(again.unwrap().expect(200).json()["value"], "dA==");
    // Deleted on one, gone on all, and made again above what was.
    let path = format!("/api/v1/namespaces/{NAMESPACE}?confirm={NAMESPACE}");
    let deleted = client.send("DELETE", &path, &[], b"");
    deleted.unwrap().expect(200);
    for node in 0..3 {
        cluster.until("end of the namespace", || {
            let listed = cluster.client(node).get("/api/v1/namespaces").ok()?;
            listed.json()["namespaces"]
                .as_array()?
                .is_empty()
                .then_some(())
        });
    }
    let put = client.send("PUT", &at("/kv/again"), &[], br#"{"value":"YQ=="}"#);
    put.unwrap().expect(200);
    let first = cluster
        .client(2)
        .get(&at("/wal/segments"))
        .unwrap()
        .expect(200);
    let first = first.json()["segments"][0]["segmentId"].as_u64().unwrap();
    assert_eq!(first, 1_000_000, "ids never go back");
}

#[test]
fn a_node_that_ran_alone_becomes_the_first_of_a_cluster() {
    let folder = folder("grown");
    // Not the one whose address is likely to come first: it founds because it has data.
    let alone = Node::start(&folder.join("n3"), &["--ballast-bytes=0B"]);
    let put = alone
        .client()
        .put(&at("/kv/before"), b"1")
        .unwrap()
        .expect(200);
    let before = lsn(&put);
    assert!(alone.stop().success());
    // What others are told to make segments of is not what they are made of.
    let flags = ["--ballast-bytes=0B", "--segment-size=4KiB"];
    let cluster = Cluster::start(&folder, 3, &flags);
    for node in 0..3 {
        cluster.until("the namespace everywhere", || {
            let path = at(&format!("/kv/before?minLsn={before}"));
            let found = cluster.client(node).get(&path).ok()?;
            (found.status == 200).then_some(())
        });
    }
    let mut client = Anywhere::new(cluster.addresses(), 0);
    let mut last = 0;
    for n in 0..100 {
        let value = vec![b'x'; 200];
        let headers = [("content-type", "application/octet-stream")];
        let put = client.send("PUT", &at(&format!("/kv/k{n}")), &headers, &value);
        last = lsn(&put.unwrap().expect(200));
    }
    let digests = cluster.digests(NAMESPACE, last);
    assert!(
        digests.windows(2).all(|two| two[0] == two[1]),
        "{digests:?}"
    );
    for node in 0..3 {
        cluster
            .client(node)
            .post(&at("/wal/seal"), &json!({}))
            .unwrap()
            .expect(200);
        let found = sealed(&mut cluster.client(node), NAMESPACE);
        assert_eq!(
            found.len(),
            1,
            "20 KB in segments of 64 MiB, as the log began: {found:?}"
        );
    }
    same_segments(&cluster, 3);
}

#[test]
fn a_lost_node_is_replaced_and_another_is_taken_out() {
    let folder = folder("members");
    let mut cluster = Cluster::start(&folder, 3, &["--ballast-bytes=0B"]);
    let mut client = Anywhere::new(cluster.addresses(), 1);
    let put = client.send("PUT", &at("/kv/a"), &[], br#"{"value":"YQ=="}"#);
    let first = lsn(&put
        .unwrap_or_else(|| panic!("{}", cluster.logs()))
        .expect(200));
    let udbctl = |cluster: &Cluster, args: &[&str]| {
        let mut command = Command::new(build::udbctl());
        let url = format!("http://{}", cluster.addresses()[1]);
        command.args(args).args(["--url", &url]);
        run(&mut command)
    };
    let status = udbctl(&cluster, &["cluster", "status"]);
    assert!(
        status.contains("n3") && !status.contains("not yet"),
        "{status}"
    );

    // The first loses its disk: with the flags of the founding it founds nothing, and is let in by nobody.
    cluster.kill(0);
    fs::remove_dir_all(cluster.data(0)).unwrap();
    cluster.launch(0);
    cluster.until("word that it waits", || {
        let health = cluster.client(0).get("/health").ok()?.json();
        health["notes"]
            .to_string()
            .contains("waiting to be taken")
            .then_some(())
    });
    assert_eq!(cluster.client(0).get("/readyz").unwrap().status, 503);
    let unknown = cluster.client(0).get(&at("/kv/a")).unwrap();
    assert_eq!(unknown.status, 503, "not here: {}", unknown.text());
    let old = cluster.peer(0).to_owned();
    let body = json!({"address": old});
    cluster.until("refusal: its address is a known node's", || {
        let refused = cluster.client(1).post("/api/v1/cluster/members", &body);
        refused.is_ok_and(|a| a.status == 403).then_some(())
    });
    udbctl(&cluster, &["cluster", "replace", "n1", &old]);
    cluster.until("all of it on the new node", || {
        let found = cluster
            .client(0)
            .get(&at(&format!("/kv/a?minLsn={first}")))
            .ok()?;
        (found.status == 200).then_some(())
    });

    // One that is taken out while it runs takes no more writes; the others go on.
    udbctl(&cluster, &["cluster", "remove", "n3"]);
    cluster.until("word that it was taken out", || {
        let health = cluster.client(2).get("/health").ok()?.json();
        health["notes"]
            .to_string()
            .contains("taken out")
            .then_some(())
    });
    let put = cluster.client(2).put(&at("/kv/late"), b"1").unwrap();
    assert_eq!(put.status, 503, "{}", put.text());
    cluster.stop(2);
    let mut client = Anywhere::new(&cluster.addresses()[..2], 0);
    let put = client.send("PUT", &at("/kv/b"), &[], br#"{"value":"Yg=="}"#);
    let last = lsn(&put
        .unwrap_or_else(|| panic!("{}", cluster.logs()))
        .expect(200));
    let digests = cluster.digests(NAMESPACE, last);
    assert!(
        digests.len() == 2 && digests[0] == digests[1],
        "{digests:?}"
    );
    let status = udbctl(&cluster, &["cluster", "status"]);
    assert!(!status.contains("n3"), "{status}");
    same_segments(&cluster, 2);
}

#[test]
fn what_was_restored_on_one_node_is_not_the_clusters() {
    let folder = folder("restored");
    let backups = folder.join("backups");
    let backup_dir = format!("--backup-dir={}", backups.display());
    let mut cluster = Cluster::start(&folder, 3, &["--ballast-bytes=0B", &backup_dir]);
    let mut client = Anywhere::new(cluster.addresses(), 0);
    let put = client.send("PUT", &at("/kv/a"), &[], br#"{"value":"YQ=="}"#);
    put.unwrap_or_else(|| panic!("{}", cluster.logs()))
        .expect(200);
    backup(&mut client, 0);
    let put = client.send("PUT", &at("/kv/b"), &[], br#"{"value":"Yg=="}"#);
    let last = lsn(&put.unwrap().expect(200));

    // An operator brings the namespace back to before, on one node alone, beside `_cluster`.
    cluster.stop(0);
    fs::remove_dir_all(cluster.data(0).join(NAMESPACE)).unwrap();
    let sources = Sources {
        from: backups.join(NAMESPACE),
        wal: vec![backups.join(NAMESPACE).join("wal")],
        lineage: None,
    };
    restore(&cluster.data(0), &sources, &Target::Latest);
    cluster.launch(0);
    cluster.until("word that it is apart", || {
        let health = cluster.client(0).get("/health").ok()?.json();
        health["notes"]
            .to_string()
            .contains("not the cluster's")
            .then_some(())
    });
    let put = cluster.client(0).put(&at("/kv/c"), b"1").unwrap();
    assert_eq!(put.status, 503, "one disk is no quorum: {}", put.text());
    // The others go on with what they have.
    let mut client = Anywhere::new(&cluster.addresses()[1..], 0);
    let put = client.send("PUT", &at("/kv/d"), &[], br#"{"value":"ZA=="}"#);
    put.unwrap_or_else(|| panic!("{}", cluster.logs()))
        .expect(200);
    for node in 1..3 {
        let path = at(&format!("/kv/b?minLsn={last}"));
        cluster.client(node).get(&path).unwrap().expect(200);
    }
    // Moved away, the node has the cluster's again.
    cluster.stop(0);
    fs::remove_dir_all(cluster.data(0).join(NAMESPACE)).unwrap();
    cluster.launch(0);
    cluster.until("the cluster's namespace", || {
        let found = cluster
            .client(0)
            .get(&at(&format!("/kv/b?minLsn={last}")))
            .ok()?;
        (found.status == 200).then_some(())
    });
}

/// Writes unique keys through whichever node answers; gives what was acknowledged.
fn write(
    addresses: Arc<Mutex<Vec<String>>>,
    number: usize,
    stop: Arc<AtomicBool>,
) -> BTreeMap<String, u64> {
    let mut acknowledged = BTreeMap::new();
    let mut client = Anywhere::new(&addresses.lock().unwrap(), number);
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        client.turn_to(&addresses.lock().unwrap());
        let key = format!("w{number}-{n}");
        let put = client.send(
            "PUT",
            &at(&format!("/kv/{key}")),
            &[("idempotency-key", &key)],
            br#"{"value":"dmFsdWU="}"#,
        );
        let put = put.expect("some node answers within a minute").expect(200);
        acknowledged.insert(key, lsn(&put));
    }
    acknowledged
}

/// Incremental backups, each from another node, all into one folder: what a script does behind a balancer.
fn back_up(addresses: Arc<Mutex<Vec<String>>>, stop: Arc<AtomicBool>) -> u64 {
    let mut after = 0;
    let mut client = Anywhere::new(&addresses.lock().unwrap(), 0);
    while !stop.load(Ordering::Relaxed) {
        client.turn_to(&addresses.lock().unwrap());
        after = backup(&mut client, after);
        client = Anywhere::new(&addresses.lock().unwrap(), usize::try_from(after).unwrap());
        thread::sleep(Duration::from_millis(300));
    }
    after
}

fn backup(client: &mut Anywhere, after: u64) -> u64 {
    let body = json!({"afterSegmentId": after, "backupDir": "wal"}).to_string();
    let answer = client.send("POST", &at("/wal/backup"), &[], body.as_bytes());
    let answer = answer
        .expect("some node answers within a minute")
        .expect(200);
    let backups = answer.json()["backups"].as_array().unwrap().clone();
    let newest = backups.iter().filter_map(|b| b["segmentId"].as_u64()).max();
    newest.unwrap_or(after)
}

#[test]
fn a_cluster_under_load_loses_nothing_while_its_nodes_are_killed_and_paused() {
    let seconds = std::env::var("UNISON_SOAK_SECONDS");
    let seconds = seconds.map_or(15, |text| text.parse().unwrap());
    let folder = folder("load");
    let backups = folder.join("backups");
    let backup_dir = format!("--backup-dir={}", backups.display());
    let flags = ["--ballast-bytes=0B", "--segment-size=64KiB", &backup_dir];
    let mut cluster = Cluster::start(&folder, 3, &flags);
    let mut client = Anywhere::new(cluster.addresses(), 0);
    let first = client.send("PUT", &at("/kv/first"), &[], br#"{"value":"YQ=="}"#);
    first
        .unwrap_or_else(|| panic!("{}", cluster.logs()))
        .expect(200);

    let addresses = Arc::new(Mutex::new(cluster.addresses().to_vec()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|number| {
            let (addresses, stop) = (addresses.clone(), stop.clone());
            thread::spawn(move || write(addresses, number, stop))
        })
        .collect();
    let backing = thread::spawn({
        let (addresses, stop) = (addresses.clone(), stop.clone());
        move || back_up(addresses, stop)
    });
    let begun = Instant::now();
    let (mut killed, mut paused) = (0, 0);
    for round in 0.. {
        if begun.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        // The leader every other time: it is the one whose loss is felt.
        let at = match round % 2 {
            0 => cluster.leader(),
            _ => round / 2 % 3,
        };
        if round % 3 == 2 {
            cluster.signal(at, "-STOP");
            thread::sleep(Duration::from_secs(2));
            cluster.signal(at, "-CONT");
            paused += 1;
        } else {
            cluster.kill(at);
            thread::sleep(Duration::from_millis(500));
            cluster.launch(at);
            cluster
                .addresses()
                .clone_into(&mut addresses.lock().unwrap());
            killed += 1;
        }
        thread::sleep(Duration::from_secs(2));
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.join().unwrap());
    }
    let after = backing.join().unwrap();

    let mut client = Anywhere::new(cluster.addresses(), 1);
    let last = client.send("PUT", &at("/kv/last"), &[], br#"{"value":"YQ=="}"#);
    let last = lsn(&last.unwrap().expect(200));
    let digests = cluster.digests(NAMESPACE, last);
    assert!(
        digests.windows(2).all(|two| two[0] == two[1]),
        "{digests:?}"
    );
    for node in 0..3 {
        let mut client = cluster.client(node);
        for key in acknowledged.keys() {
            let found = client.get(&at(&format!("/kv/{key}"))).unwrap();
            assert_eq!(
                found.status,
                200,
                "{key} on n{}: acknowledged and lost",
                node + 1
            );
        }
    }
    let newest = backup(&mut client, after);
    assert!(newest > after, "the last write is in a segment of its own");
    same_segments(&cluster, 3);
    restores(&cluster, &folder, &backups.join(NAMESPACE), last);
    println!(
        "{} writes acknowledged, {killed} kills, {paused} pauses, {newest} segments",
        acknowledged.len()
    );
}

/// Sealed segments that two nodes both hold are equal.
fn same_segments(cluster: &Cluster, nodes: usize) {
    let mut known: BTreeMap<u64, String> = BTreeMap::new();
    for node in 0..nodes {
        for (id, sum) in sealed(&mut cluster.client(node), NAMESPACE) {
            let first = known.entry(id).or_insert_with(|| sum.clone());
            assert_eq!(*first, sum, "segment {id} on n{}", node + 1);
        }
    }
}

/// The union of all incremental backups is whole, and adds up to the state that the nodes have.
fn restores(cluster: &Cluster, folder: &Path, backups: &Path, last: u64) {
    verify(&[&backups.join("wal")]);
    let sources = Sources {
        from: backups.to_owned(),
        wal: vec![backups.join("wal")],
        lineage: None,
    };
    let restored = restore(&folder.join("restored"), &sources, &Target::Latest);
    assert!(
        restored.lsn >= last,
        "the last write is in it: {}",
        restored.lsn
    );
    let path = at(&format!("/digest?lsn={}", restored.lsn));
    let digest = cluster.client(0).get(&path).unwrap().expect(200).json();
    assert_eq!(restored.digest, digest["digest"].as_str().unwrap());
}
