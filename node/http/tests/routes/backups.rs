//! Backup, seal, pull, digest.

use std::os::unix::fs::PermissionsExt;

use futures_util::FutureExt;
use sha2::{Digest, Sha256};
use unisondb_api::WriteError;
use unisondb_http::Settings;
use unisondb_types::Sha256Sum;

use crate::rig::{Kept, Rig};

const WAL: &str = "/api/v1/users/wal/backup";
const BTREE: &str = "/api/v1/users/btree/backup";

fn sum(bytes: &[u8]) -> String {
    Sha256Sum::from_bytes(Sha256::digest(bytes).into()).to_string()
}

#[tokio::test]
async fn a_wal_backup_seals_copies_and_tells() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    // As curl -d sends it.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let done = rig
        .send(
            "POST",
            WAL,
            &form,
            r#"{"afterSegmentId": 0, "backupDir": "wal/daily"}"#,
        )
        .await;
    let json = done.is(200).json();
    let backups = json["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 1);
    assert_eq!(
        (
            &backups[0]["segmentId"],
            &json["sealed"],
            &json["firstAvailable"]
        ),
        (&1.into(), &true.into(), &1.into())
    );
    let path = backups[0]["path"].as_str().unwrap();
    assert_eq!(
        path,
        rig.data()
            .join("backups/users/wal/daily/000000001.wal")
            .to_str()
            .unwrap()
    );
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(backups[0]["sha256"], sum(&bytes));
    // Nothing new: still an answer with an array.
    for after in ["1", "99", "4000000"] {
        let body = format!("{{\"afterSegmentId\":{after},\"backupDir\":\"wal/hourly\"}}");
        let none = rig.post(WAL, body).await;
        assert_eq!(none.is(200).json()["backups"].to_string(), "[]");
    }
    assert!(!rig.data().join("backups/users/wal/hourly").exists());
    // Two more segments: ascending, and all for zero, null or nothing.
    for key in ["b", "c"] {
        rig.put_raw(key, b"x").await;
        rig.post("/api/v1/users/wal/seal", "").await.is(200);
    }
    for body in [
        r#"{"backupDir":"wal/daily"}"#,
        r#"{"afterSegmentId":null,"backupDir":"wal/daily"}"#,
    ] {
        let all = rig.post(WAL, body).await.is(200).json();
        let ids: Vec<_> = all["backups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| b["segmentId"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, [1, 2, 3]);
    }
    let newer = rig
        .post(WAL, r#"{"afterSegmentId":1,"backupDir":"wal/x"}"#)
        .await
        .json();
    assert_eq!(newer["backups"][0]["segmentId"], 2);
    assert_eq!(newer["backups"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_active_segment_stays_open_when_that_is_asked_or_nobody_leads() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let open = rig
        .post(WAL, r#"{"backupDir":"x","seal":false}"#)
        .await
        .is(200)
        .json();
    assert_eq!(
        (&open["backups"].to_string()[..], &open["sealed"]),
        ("[]", &false.into())
    );
    rig.host.switches.lock().unwrap().no_leader = Some(WriteError::Unavailable("no leader".into()));
    let json = rig.post(WAL, r#"{"backupDir":"x"}"#).await.is(200).json();
    assert_eq!(
        (&json["sealed"], &json["reason"]),
        (&false.into(), &"unavailable: no leader".into())
    );
    // A snapshot then holds at least what this node has shown.
    let made = rig.post(BTREE, r#"{"path":"s.db"}"#).await.is(200).json();
    assert_eq!(made["sealed"], false);
    assert!(made["lsn"].as_u64().unwrap() >= rig.engine().applied().get());
    rig.post("/api/v1/users/wal/seal", "").await.is(503);
}

#[tokio::test]
async fn a_snapshot_is_published_whole_at_the_path_asked_for() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let done = rig
        .post(BTREE, r#"{"path": "snapshots/users-20250108.snapshot"}"#)
        .await;
    let json = done.is(200).json();
    let path = json["path"].as_str().unwrap();
    assert_eq!(
        path,
        rig.data()
            .join("backups/users/snapshots/users-20250108.snapshot")
            .to_str()
            .unwrap()
    );
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(json["bytes"], bytes.len() as u64);
    assert_eq!(json["sha256"], sum(&bytes));
    assert_eq!(done.header("x-checksum-sha256"), sum(&bytes));
    assert_eq!(
        (&json["segmentId"], &json["sealed"]),
        (&1.into(), &true.into())
    );
    let digest = rig
        .get(&format!("/api/v1/users/digest?lsn={}", json["lsn"]))
        .await;
    assert_eq!(digest.is(200).json()["digest"], json["digest"]);
}

#[tokio::test]
async fn paths_that_leave_the_root_are_400_and_nothing_is_sealed() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    for bad in [
        "",
        "/etc",
        "../orders",
        "a/../../b",
        "..",
        "a\\u0000b",
        "C:\\\\x",
        "x ",
    ] {
        rig.post(WAL, format!("{{\"backupDir\":\"{bad}\"}}"))
            .await
            .is(400);
        rig.post(BTREE, format!("{{\"path\":\"{bad}\"}}"))
            .await
            .is(400);
    }
    rig.post(BTREE, r#"{"path":"."}"#).await.is(400);
    for missing in [
        "{}",
        r#"{"backupDir":null,"path":null}"#,
        "",
        "[]",
        r#"{"afterSegmentId":-1,"backupDir":"x"}"#,
    ] {
        rig.post(WAL, missing).await.is(400);
    }
    assert!(!rig.data().join("backups").exists());
    let sealed = rig
        .post(WAL, r#"{"backupDir":"x","seal":false}"#)
        .await
        .json();
    assert_eq!(sealed["backups"].to_string(), "[]");
}

#[tokio::test]
async fn an_empty_state_file_is_400_or_mended_where_that_is_configured() {
    let body = r#"{"afterSegmentId": , "backupDir": "wal/x"}"#;
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let e = rig.post(WAL, body).await;
    assert_eq!(
        e.is(400).error(),
        "invalid JSON: expected value at line 1 column 20"
    );
    let rig = Rig::with(Settings {
        lenient_json: true,
        ..Settings::default()
    });
    rig.put_raw("a", b"x").await;
    assert_eq!(
        rig.post(WAL, body).await.is(200).json()["backups"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_gap_is_409_with_the_text_and_the_first_id_after_it() {
    let rig = Rig::new();
    for key in ["a", "b", "c", "d"] {
        rig.put_raw(key, b"x").await;
        rig.post("/api/v1/users/wal/seal", "").await.is(200);
    }
    let wal = rig.engine();
    rig.engine().flush().unwrap();
    wal.wal().purge(unisondb_types::SegmentId::new(3)).unwrap();
    let e = rig
        .post(WAL, r#"{"afterSegmentId":1,"backupDir":"x"}"#)
        .await;
    assert_eq!(
        e.is(409).text(),
        "{\"error\":\"wal gap: segments 2-3 are no longer here\",\"firstAvailable\":4}\n"
    );
    rig.post(WAL, r#"{"afterSegmentId":0,"backupDir":"x"}"#)
        .await
        .is(200);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    // Root may write everywhere: then a file in the way stands in for the missing right.
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let root = rig.data().join("backups/users");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o500)).unwrap();
    let e = rig.post(WAL, r#"{"backupDir":"wal"}"#).await;
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700)).unwrap();
    if e.status == 500 {
        assert_eq!(
            e.error(),
            format!("permission denied: {}", root.join("wal").display())
        );
    } else {
        e.is(200);
    }
    std::fs::write(root.join("file"), b"").unwrap();
    rig.post(WAL, r#"{"backupDir":"file"}"#).await.is(409);
}

#[tokio::test]
async fn a_backup_goes_on_when_its_client_has_left() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    // Polled once, then dropped: the task is under way, and nobody waits for it.
    let left = rig.post(BTREE, r#"{"path":"left.db"}"#).now_or_never();
    assert!(left.is_none(), "a snapshot is not made inline");
    let path = rig.data().join("backups/users/left.db");
    for _ in 0..500 {
        if path.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(path.exists());
}

#[tokio::test]
async fn segments_are_listed_and_pulled_as_they_are() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    rig.post("/api/v1/users/wal/seal", "").await.is(200);
    rig.put_raw("b", b"x").await;
    let list = rig.get("/api/v1/users/wal/segments").await.is(200).json();
    let list = list["segments"].as_array().unwrap();
    assert_eq!(
        (&list[0]["state"], &list[1]["state"]),
        (&"sealed".into(), &"active".into())
    );
    assert_eq!(list[1]["predecessor"]["segmentId"], 1);
    let file = std::fs::read(rig.data().join("users/wal/000000001.wal")).unwrap();
    assert_eq!(
        (&list[0]["sha256"], &list[0]["bytes"]),
        (&sum(&file).into(), &(file.len() as u64).into())
    );
    let pull = rig.get("/api/v1/users/wal/segments/1").await;
    assert!(pull.is(200).body == file);
    assert_eq!(pull.header("etag"), format!("\"{}\"", sum(&file)));
    let part = rig
        .send(
            "GET",
            "/api/v1/users/wal/segments/1",
            &[("range", "bytes=10-19")],
            "",
        )
        .await;
    assert_eq!(part.is(206).body, &file[10..20]);
    let tag = format!("\"{}\"", sum(&file));
    // A part of what it has; of anything else the whole.
    for (validator, status) in [
        (tag.as_str(), 206),
        ("\"other\"", 200),
        (&format!("W/{tag}"), 200),
    ] {
        let headers = [("range", "bytes=10-19"), ("if-range", validator)];
        let target = "/api/v1/users/wal/segments/1";
        let answer = rig.send("GET", target, &headers, "").await;
        answer.is(status);
    }
    rig.send(
        "GET",
        "/api/v1/users/wal/segments/1",
        &[("if-none-match", &tag)],
        "",
    )
    .await
    .is(304);
    let head = rig
        .send("HEAD", "/api/v1/users/wal/segments/1", &[], "")
        .await;
    assert_eq!(
        head.is(200).header("content-length"),
        file.len().to_string()
    );
    let e = rig.get("/api/v1/users/wal/segments/2").await;
    assert_eq!(
        e.is(409).error(),
        "segment 2 is not sealed yet: it is active"
    );
    rig.get("/api/v1/users/wal/segments/7").await.is(404);
    rig.get("/api/v1/users/wal/segments/x").await.is(404);
}

#[tokio::test]
async fn a_damaged_segment_is_never_served() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    rig.post("/api/v1/users/wal/seal", "").await.is(200);
    let path = rig.data().join("users/wal/000000001.wal");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    rig.get("/api/v1/users/wal/segments/1").await.is(500);
    rig.post(WAL, r#"{"backupDir":"x"}"#).await.is(500);
    assert!(!rig.data().join("backups/users/x/000000001.wal").exists());
}

#[tokio::test]
async fn a_snapshot_is_pulled_with_its_sum() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let pull = rig.get("/api/v1/users/btree/snapshot").await;
    pull.is(200);
    assert_eq!(pull.header("etag"), format!("\"{}\"", sum(&pull.body)));
    assert_eq!(pull.header("content-length"), pull.body.len().to_string());
    assert_eq!(
        pull.header("x-unison-snapshot-lsn"),
        rig.engine().applied().to_string()
    );
    let left = std::fs::read_dir(rig.data().join("backups/users")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a pulled snapshot leaves nothing behind");
}

#[tokio::test]
async fn a_digest_is_known_now_and_at_the_end_of_segments() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let now = rig.get("/api/v1/users/digest").await.is(200).json();
    assert_eq!(now["lsn"], rig.engine().applied().get());
    rig.get("/api/v1/users/digest?lsn=1").await.is(404);
    rig.get("/api/v1/users/digest?lsn=99").await.is(404);
    rig.get("/api/v1/users/digest?lsn=x").await.is(400);
}

#[tokio::test]
async fn positions_are_told_on_an_empty_namespace_too() {
    let rig = Rig::new();
    rig.post("/api/v1/namespaces", r#"{"name":"users"}"#)
        .await
        .is(200);
    let offset = rig.get("/api/v1/users/offset").await.is(200).json();
    assert_eq!(
        (&offset["namespace"], &offset["segmentId"]),
        (&"users".into(), &1.into())
    );
    let stats = rig.get("/api/v1/users/stats").await.is(200).json();
    assert!(stats["lastFlushTime"].is_null() && stats["opsReceived"].is_u64());
    let checkpoint = rig.get("/api/v1/users/checkpoint").await.is(200).json();
    assert!(checkpoint["recordProcessed"].is_u64() && checkpoint["lsn"].is_u64());
    // A snapshot of nothing can be made.
    assert!(
        rig.post(BTREE, r#"{"path":"empty.db"}"#)
            .await
            .is(200)
            .json()["bytes"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[tokio::test(start_paused = true)]
async fn a_backup_of_a_namespace_that_does_not_open_counts_as_a_failure() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::with(Settings {
        render_metrics: Some(std::sync::Arc::new(move || handle.render())),
        ..Settings::default()
    });
    rig.host
        .namespaces
        .lock()
        .unwrap()
        .insert("users".into(), Kept::Failed("why".into()));
    rig.post(WAL, r#"{"backupDir":"x"}"#).await.is(503);
    rig.post(WAL, r#"{"backupDir":"/x"}"#).await.is(400);
    let text = rig.get("/metrics").await.text();
    for line in [
        "backup_failures_total{namespace=\"users\",kind=\"wal\"} 1",
        "backup_consecutive_failures{namespace=\"users\",kind=\"wal\"} 1",
        "backup_failures_total{namespace=\"users\",kind=\"btree\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn every_backup_call_leaves_one_audit_line() {
    let rig = Rig::new();
    // A name of its own: the log is everybody's.
    rig.put("/api/v1/audited/kv/a", r#"{"value":""}"#)
        .await
        .is(200);
    rig.post("/api/v1/audited/wal/backup", r#"{"backupDir":"x"}"#)
        .await
        .is(200);
    rig.post("/api/v1/audited/wal/backup", r#"{"backupDir":"../x"}"#)
        .await
        .is(400);
    rig.post("/api/v1/audited/btree/backup", r#"{"path":"s.db"}"#)
        .await
        .is(200);
    rig.post("/api/v1/audited/wal/seal", "").await.is(200);
    rig.get("/api/v1/audited/wal/segments/1").await.is(200);
    rig.get("/api/v1/audited/btree/snapshot").await.is(200);
    let text = crate::rig::log();
    let ours = |l: &&str| l.contains(" audit: ") && l.contains("namespace=audited");
    let lines: Vec<&str> = text.lines().filter(ours).collect();
    assert_eq!(lines.len(), 6, "{text}");
    for (line, parts) in lines.iter().zip([
        ["wal/backup", "result=\"ok\"", "ids=\"1\""],
        ["wal/backup", "status=400", "it holds '..'"],
        ["btree/backup", "result=\"ok\"", "segment 1"],
        ["wal/seal", "result=\"ok\"", "ids=\"1\""],
        ["wal/segments/{id}", "result=\"ok\"", "ids=\"1\""],
        ["btree/snapshot", "result=\"ok\"", "segment 1"],
    ]) {
        for part in parts.iter().chain(&["who=\"unknown\""]) {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
