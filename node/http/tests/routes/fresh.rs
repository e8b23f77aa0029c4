//! How fresh a read is: `consistency`, `minLsn`.

use unisondb_api::WriteError;

use crate::rig::{Kept, Rig};

#[tokio::test]
async fn a_read_of_ones_own_writes_is_served_once_they_are_applied() {
    let rig = Rig::new();
    let lsn = rig.put_raw("k", b"v").await;
    let lineage = rig.engine().lineage();
    for ask in [format!("{lsn}"), format!("{lineage}:{lsn}")] {
        for what in ["kv/k", "kv", "digest"] {
            rig.get(&format!("/api/v1/users/{what}?minLsn={ask}"))
                .await
                .is(200);
        }
    }
    rig.get("/api/v1/users/kv/k?consistency=linearizable")
        .await
        .is(200);
    rig.get("/api/v1/users/kv/k?consistency=local")
        .await
        .is(200);
    for bad in ["consistency=eventual", "minLsn=x", "minLsn=abc:7"] {
        rig.get(&format!("/api/v1/users/kv/k?{bad}")).await.is(400);
    }
}

#[tokio::test]
async fn a_position_of_another_history_is_409_at_once() {
    let rig = Rig::new();
    rig.put_raw("k", b"v").await;
    let other = "ab".repeat(16);
    let e = rig
        .get(&format!("/api/v1/users/kv/k?minLsn={other}:1"))
        .await;
    assert!(e.is(409).json()["forkLsn"].is_null());
    assert!(e.error().contains(&other), "{}", e.error());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_applied_in_time_is_503() {
    let rig = Rig::new();
    let lsn = rig.put_raw("k", b"v").await.get();
    let e = rig
        .get(&format!("/api/v1/users/kv/k?minLsn={}", lsn + 1))
        .await;
    assert!(
        e.is(503).error().contains("not applied here yet"),
        "{}",
        e.error()
    );
    rig.host.switches.lock().unwrap().no_leader = Some(WriteError::Unavailable("no leader".into()));
    rig.get("/api/v1/users/kv/k?consistency=linearizable")
        .await
        .is(503);
    rig.get("/api/v1/users/kv/k").await.is(200);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_starts_is_waited_for_and_then_503() {
    let rig = Rig::new();
    rig.host
        .namespaces
        .lock()
        .unwrap()
        .insert("users".into(), Kept::Starting);
    let e = rig.get("/api/v1/users/kv/k").await;
    assert_eq!(e.is(503).error(), "namespace users is starting: replaying");
    // It opens while somebody waits.
    let get = rig.get("/api/v1/users/kv/k");
    let open = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        rig.host.namespaces.lock().unwrap().clear();
        rig.put_raw("k", b"v").await;
    };
    let (get, ()) = tokio::join!(get, open);
    // Between the two it was unknown for a moment, or open.
    assert!([200, 404].contains(&get.status.as_u16()));
    let failed = Kept::Failed("database file is corrupted".into());
    rig.host
        .namespaces
        .lock()
        .unwrap()
        .insert("users".into(), failed);
    let e = rig.get("/api/v1/users/kv/k").await;
    assert!(e.is(503).error().contains("database file is corrupted"));
}

#[tokio::test]
async fn fields_that_are_null_are_left_out_and_unknown_ones_ignored_on_every_write() {
    let rig = Rig::new();
    for (method, target, body) in [
        ("PUT", "/kv/a", r#"{"value":"","ttl":7,"x":null}"#),
        (
            "POST",
            "/kv/batch",
            r#"{"operation":"put","items":[{"key":"a","value":"","n":1}],"keys":null,"x":{}}"#,
        ),
        (
            "POST",
            "/kv/batch",
            r#"{"operation":"delete","keys":["a"],"items":null}"#,
        ),
        (
            "PUT",
            "/row/r",
            r#"{"columns":{"c":""},"rowKey":null,"x":[]}"#,
        ),
        (
            "POST",
            "/row/batch",
            r#"{"operation":"put","rows":[{"rowKey":"r","columns":{"c":""},"x":1}],"x":1}"#,
        ),
        (
            "POST",
            "/tx/begin",
            r#"{"operation":"put","entryType":"kv","timeout":null}"#,
        ),
        (
            "POST",
            "/wal/backup",
            r#"{"afterSegmentId":null,"backupDir":"x","seal":null,"x":1}"#,
        ),
        (
            "POST",
            "/btree/backup",
            r#"{"path":"s.db","compress":null}"#,
        ),
    ] {
        let target = format!("/api/v1/users{target}");
        rig.send(method, &target, &[], body).await.is(200);
    }
}

#[tokio::test]
async fn every_route_refuses_other_methods_in_json_and_names_its_own() {
    let rig = Rig::new();
    for (target, allowed) in [
        ("/health", "GET"),
        ("/metrics", "GET"),
        ("/api/v1/namespaces", "POST"),
        ("/api/v1/users/kv/a", "PUT"),
        ("/api/v1/users/kv/batch", "POST"),
        ("/api/v1/users/row/r", "DELETE"),
        ("/api/v1/users/lob/o", "GET"),
        ("/api/v1/users/tx/begin", "POST"),
        ("/api/v1/users/wal/backup", "POST"),
        ("/api/v1/users/wal/segments", "GET"),
        ("/api/v1/users/btree/snapshot", "GET"),
        ("/api/v1/users/offset", "GET"),
        ("/api/v1/users/digest", "GET"),
    ] {
        let answer = rig.send("PATCH", target, &[], "").await;
        answer.is(405);
        let allow = answer.header("allow");
        assert!(allow.split(", ").any(|m| m == allowed), "{target}: {allow}");
        assert!(answer.error().contains(allow), "{target}");
    }
}
