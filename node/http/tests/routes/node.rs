//! Health, readiness, metrics, namespaces, cluster.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use unisondb_http::{Note, Settings};

use crate::rig::{CLUSTER, Kept, Rig};

#[tokio::test]
async fn health_tells_how_the_node_is() {
    let rig = Rig::new();
    let empty = rig.get("/health").await.is(200).json();
    assert_eq!(
        (&empty["status"], empty["namespaces"].to_string().as_str()),
        (&"ok".into(), "[]")
    );
    rig.put_raw("a", b"x").await;
    for path in ["/health", "/healthz"] {
        let ok = rig.get(path).await.is(200).json();
        assert_eq!(
            (&ok["status"], ok["namespaces"].to_string().as_str()),
            (&"ok".into(), "[\"users\"]")
        );
        assert_eq!(
            (&ok["isolated"], &ok["durability"]),
            (&false.into(), &"always".into())
        );
    }
    rig.host.switches.lock().unwrap().notes = vec![Note {
        field: "recovery",
        value: "short".into(),
        text: "reached T1, asked T2".into(),
        degraded: true,
    }];
    let short = rig.get("/health").await.is(200).json();
    assert_eq!(
        (&short["status"], &short["recovery"]),
        (&"degraded".into(), &"short".into())
    );
    rig.host
        .namespaces
        .lock()
        .unwrap()
        .insert("orders".into(), Kept::Starting);
    let starting = rig.get("/health").await.is(200).json();
    assert_eq!(
        (&starting["status"], &starting["states"]["orders"]),
        (&"degraded".into(), &"starting".into())
    );
}

#[tokio::test]
async fn all_health_routes_answer_head() {
    let rig = Rig::new();
    for path in [
        "/health", "/healthz", "/livez", "/readyz", "/primary", "/metrics",
    ] {
        let get = rig.get(path).await;
        let head = rig.send("HEAD", path, &[], "").await;
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.headers.contains_key("content-length"), "{path}");
    }
}

#[tokio::test]
async fn readiness_follows_role_recovery_and_isolation() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    for (target, status) in [
        ("/readyz", 200),
        ("/readyz?role=leader&maxLagLsn=0&maxLagMs=0", 200),
        ("/readyz?role=replica", 503),
        ("/readyz?role=king", 400),
        ("/readyz?maxLagLsn=x", 400),
        ("/readyz?namespace=users", 200),
        ("/readyz?namespace=orders", 404),
        ("/primary", 200),
        ("/replica?maxLagMs=10", 503),
    ] {
        rig.get(target).await.is(status);
    }
    rig.host
        .namespaces
        .lock()
        .unwrap()
        .insert("orders".into(), Kept::Starting);
    rig.get("/readyz").await.is(503);
    rig.get("/readyz?namespace=users").await.is(200);
    rig.get("/livez").await.is(200);
    rig.host.namespaces.lock().unwrap().remove("orders");
    // A snapshot that is being looked at has no name yet, and is not to be overlooked for that.
    rig.host.switches.lock().unwrap().unnamed = Some("being recovered".to_owned());
    for target in ["/readyz", "/readyz?namespace=users"] {
        rig.get(target).await.is(503);
    }
    rig.host.switches.lock().unwrap().unnamed = None;
    // A restored directory alone is ready: there is no cluster that it could be taken for.
    rig.host.switches.lock().unwrap().isolated = true;
    rig.get("/readyz").await.is(200);
    rig.host.switches.lock().unwrap().ignores_cluster = true;
    for target in ["/readyz", "/primary", "/replica"] {
        rig.get(target).await.is(503);
    }
    rig.get("/livez").await.is(200);
}

#[tokio::test]
async fn health_says_isolated_only_once_it_is_known() {
    let rig = Rig::new();
    for isolated in [false, true] {
        rig.host.switches.lock().unwrap().isolated = isolated;
        let health = rig.get("/health").await.is(200).json();
        assert_eq!(health["isolated"], isolated);
    }
    rig.host.switches.lock().unwrap().origin_unknown = true;
    let health = rig.get("/health").await.is(200).json();
    assert!(health.get("isolated").is_none(), "{health}");
}

#[tokio::test]
async fn namespaces_are_made_listed_and_removed_only_when_confirmed() {
    let rig = Rig::new();
    for _ in 0..2 {
        rig.post("/api/v1/namespaces", r#"{"name":"users"}"#)
            .await
            .is(200);
    }
    for bad in ["{}", r#"{"name":"backups"}"#, r#"{"name":"A"}"#] {
        rig.post("/api/v1/namespaces", bad).await.is(400);
    }
    let list = rig.get("/api/v1/namespaces").await.is(200).json();
    assert_eq!(list["namespaces"].to_string(), r#"["users"]"#);
    rig.delete("/api/v1/namespaces/users").await.is(400);
    rig.delete("/api/v1/namespaces/users?confirm=orders")
        .await
        .is(400);
    rig.delete("/api/v1/namespaces/users?confirm=users")
        .await
        .is(200);
    rig.delete("/api/v1/namespaces/users?confirm=users")
        .await
        .is(404);
    let cluster = rig.get("/api/v1/cluster").await.is(200).json();
    assert_eq!(
        (&cluster["cluster"], &cluster["nodes"][0]["role"]),
        (&CLUSTER.to_string().into(), &"leader".into())
    );
}

const ALL: [&str; 7] = [
    "backup_success_total",
    "backup_failures_total",
    "backup_last_timestamp_seconds",
    "backup_bytes_total",
    "backup_last_size_bytes",
    "backup_consecutive_failures",
    "backup_duration_seconds_count",
];
const LOG: [&str; 3] = [
    "wal_segment_gap",
    "wal_oldest_segment_id",
    "wal_newest_sealed_segment_id",
];

fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|l| l.starts_with(&format!("{series} ")))?;
    line.rsplit(' ').next().unwrap().parse().ok()
}

#[tokio::test]
async fn metrics_are_there_from_the_first_scrape_and_count_backups() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::with(Settings {
        render_metrics: Some(Arc::new(move || handle.render())),
        ..Settings::default()
    });
    let first = rig.get("/metrics").await;
    assert_eq!(
        first.is(200).header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let first = first.text();
    for kind in ["wal", "btree"] {
        for name in ALL {
            let series = format!("{name}{{namespace=\"\",kind=\"{kind}\"}}");
            assert_eq!(value(&first, &series), Some(0.0), "{series} in\n{first}");
        }
    }
    for name in LOG {
        assert_eq!(
            value(&first, &format!("{name}{{namespace=\"\"}}")),
            Some(0.0),
            "{name}"
        );
    }
    assert!(first.contains("# TYPE backup_success_total counter"));
    assert!(first.contains("# TYPE backup_last_timestamp_seconds gauge"));

    rig.put_raw("a", b"x").await;
    let backup = |body: &'static str| rig.post("/api/v1/users/wal/backup", body);
    backup(r#"{"backupDir":"x"}"#).await.is(200);
    backup(r#"{"afterSegmentId":1,"backupDir":"x"}"#)
        .await
        .is(200);
    backup(r#"{"backupDir":"../x"}"#).await.is(400);
    let made = rig
        .post("/api/v1/users/btree/backup", r#"{"path":"s.db"}"#)
        .await
        .is(200)
        .json();
    let text = rig.get("/metrics").await.text();
    let users = |name: &str, kind: &str| {
        value(
            &text,
            &format!("{name}{{namespace=\"users\",kind=\"{kind}\"}}"),
        )
        .unwrap_or_else(|| panic!("{name} in\n{text}"))
    };
    // 'Nothing new' is a success, and a refused request is nothing.
    assert_eq!(users("backup_success_total", "wal"), 2.0);
    assert_eq!(users("backup_failures_total", "wal"), 0.0);
    assert_eq!(
        users("backup_last_size_bytes", "btree"),
        made["bytes"].as_f64().unwrap()
    );
    assert_eq!(
        users("backup_bytes_total", "btree"),
        made["bytes"].as_f64().unwrap()
    );
    assert!(users("backup_last_timestamp_seconds", "wal") > 1.7e9);
    assert_eq!(
        value(&text, "wal_newest_sealed_segment_id{namespace=\"users\"}"),
        Some(1.0)
    );
    assert!(!text.contains("namespace=\"\""), "{text}");
    assert!(text.contains(
        "http_requests_total{route=\"/api/v1/{namespace}/wal/backup\",status=\"2xx\"} 2"
    ));

    rig.engine().flush().unwrap();
    rig.delete("/api/v1/namespaces/users?confirm=users")
        .await
        .is(200);
    let gone = rig.get("/metrics").await.text();
    assert!(!gone.contains("namespace=\"users\""), "{gone}");
}

#[tokio::test]
async fn a_gap_shows_in_metrics_until_a_snapshot_whatever_other_archivers_do() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::with(Settings {
        render_metrics: Some(Arc::new(move || handle.render())),
        ..Settings::default()
    });
    for key in ["a", "b", "c"] {
        rig.put_raw(key, b"x").await;
        rig.post("/api/v1/users/wal/seal", "").await.is(200);
    }
    rig.engine().flush().unwrap();
    rig.engine()
        .wal()
        .purge(unisondb_types::SegmentId::new(2))
        .unwrap();
    let gap = || async {
        let text = rig.get("/metrics").await.text();
        (
            value(&text, "wal_segment_gap{namespace=\"users\"}"),
            value(
                &text,
                "backup_consecutive_failures{namespace=\"users\",kind=\"wal\"}",
            ),
            value(&text, "wal_oldest_segment_id{namespace=\"users\"}"),
        )
    };
    rig.post(
        "/api/v1/users/wal/backup",
        r#"{"afterSegmentId":1,"backupDir":"x"}"#,
    )
    .await
    .is(409);
    assert_eq!(gap().await, (Some(1.0), Some(1.0), Some(3.0)));
    let others = r#"{"afterSegmentId":2,"backupDir":"x"}"#;
    let wal = "/api/v1/users/wal/backup";
    rig.post(wal, others).await.is(200);
    assert_eq!(gap().await, (Some(1.0), Some(1.0), Some(3.0)));
    let snapshot = rig.post("/api/v1/users/btree/backup", r#"{"path":"s.db"}"#);
    snapshot.await.is(200);
    rig.post(wal, others).await.is(200);
    assert_eq!(gap().await, (Some(0.0), Some(0.0), Some(3.0)));
}

#[tokio::test]
async fn a_gap_that_the_start_found_shows_in_metrics_whatever_backups_say() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rig = Rig::with(Settings {
        render_metrics: Some(Arc::new(move || handle.render())),
        ..Settings::default()
    });
    rig.put_raw("a", b"x").await;
    let gap = || async {
        let text = rig.get("/metrics").await.text();
        value(&text, "wal_segment_gap{namespace=\"users\"}")
    };
    assert_eq!(gap().await, Some(0.0));
    rig.host.switches.lock().unwrap().notes = vec![Note {
        field: "gap",
        value: "3-4".into(),
        text: "segments 3-4 are missing".into(),
        degraded: true,
    }];
    assert_eq!(gap().await, Some(1.0));
    let body = r#"{"backupDir":"x"}"#;
    rig.post("/api/v1/users/wal/backup", body).await.is(200);
    assert_eq!(
        gap().await,
        Some(1.0),
        "a backup that went well does not fill the hole"
    );
    rig.host.switches.lock().unwrap().notes.clear();
    assert_eq!(gap().await, Some(0.0));
}

#[tokio::test]
async fn a_view_up_to_a_gap_is_no_leader_and_is_not_backed_up() {
    let rig = Rig::new();
    for n in 0..12 {
        rig.put_raw(&format!("k{n}"), &[b'x'; 900]).await;
    }
    let made = rig
        .post("/api/v1/users/btree/backup", r#"{"path":"s.db"}"#)
        .await
        .is(200)
        .json();
    for n in 0..24 {
        rig.put_raw(&format!("k{n}"), &[b'y'; 900]).await;
    }
    rig.post("/api/v1/users/wal/backup", r#"{"backupDir":"wal"}"#)
        .await
        .is(200);
    let lineage = rig.engine().lineage();
    // Stopped, restored, and a segment is missing.
    rig.host.namespaces.lock().unwrap().clear();
    let home = rig.data().join("users");
    std::fs::remove_dir_all(home.join("db")).unwrap();
    std::fs::create_dir(home.join("db")).unwrap();
    std::fs::copy(made["path"].as_str().unwrap(), home.join("db/data.mdb")).unwrap();
    let first = made["segmentId"].as_u64().unwrap();
    std::fs::remove_file(home.join(format!("wal/{:09}.wal", first + 3))).unwrap();
    let users = "users".parse().unwrap();
    unisondb_http::Host::create(&*rig.host, &users)
        .await
        .unwrap();

    rig.get("/api/v1/users/kv/k3").await.is(200);
    rig.get("/readyz").await.is(200);
    for leader in [
        "/readyz?role=leader",
        "/primary",
        "/primary?namespace=users",
    ] {
        let answer = rig.get(leader).await;
        assert!(answer.is(503).error().contains("read-only"), "{leader}");
    }
    for (kind, body) in [
        ("btree", r#"{"path":"gap.db"}"#),
        ("wal", r#"{"backupDir":"gap"}"#),
    ] {
        let answer = rig
            .post(&format!("/api/v1/users/{kind}/backup"), body)
            .await;
        assert!(answer.is(503).error().contains("not backed up"), "{kind}");
    }
    rig.get("/api/v1/users/btree/snapshot").await.is(503);
    let stats = rig.get("/api/v1/users/stats").await.is(200).json();
    assert_eq!(
        stats["lineage"],
        lineage.to_string(),
        "not the one thrown away"
    );
    assert_eq!(stats["lsn"], stats["lastLsn"]);
}
