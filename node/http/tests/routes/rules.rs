//! The rules for every route. That answers are one line of JSON, and errors have no field of a
//! success, is checked by the rig for every answer of every test.

use std::sync::Mutex;

use axum::body::Body;
use proptest::prelude::*;
use unisondb_api::WriteError;
use unisondb_types::limits;

use crate::rig::Rig;

#[tokio::test]
async fn unknown_routes_and_methods_are_answered_in_json_too() {
    let rig = Rig::new();
    rig.get("/").await.is(404);
    rig.get("/api/v1/users/nothing").await.is(404);
    let wrong = rig.get("/api/v1/users/wal/backup").await;
    wrong.is(405);
    assert_eq!(wrong.header("allow"), "POST");
    let head = rig.send("HEAD", "/api/v1/users/wal/backup", &[], "").await;
    head.is(405);
    rig.send("OPTIONS", "/health", &[], "").await.is(405);
    rig.send("BREW", "/health", &[], "").await.is(405);
}

#[tokio::test]
async fn a_body_is_json_whatever_its_type_says() {
    let rig = Rig::new();
    for kind in [
        "application/x-www-form-urlencoded",
        "application/json",
        "text/plain; charset=odd",
        "",
    ] {
        let headers = [("content-type", kind)];
        let put = rig
            .send(
                "PUT",
                "/api/v1/users/kv/a",
                &headers,
                r#"{"value":"YQ==","more":[1]}"#,
            )
            .await;
        put.is(200);
    }
    assert_eq!(
        rig.get("/api/v1/users/kv/a").await.text(),
        "{\"value\":\"YQ==\",\"found\":true}\n"
    );
}

#[tokio::test]
async fn a_body_past_the_limit_is_413_and_names_it() {
    let rig = Rig::new();
    let raw = [("content-type", "application/octet-stream")];
    let most = vec![7; limits::BODY_BYTES];
    rig.send("PUT", "/api/v1/users/kv/a", &raw, most.clone())
        .await
        .is(200);
    let back = rig
        .send(
            "GET",
            "/api/v1/users/kv/a",
            &[("accept", "application/octet-stream")],
            "",
        )
        .await;
    assert_eq!(back.body, most);
    let over = rig
        .send(
            "PUT",
            "/api/v1/users/kv/a",
            &raw,
            vec![7; limits::BODY_BYTES + 1],
        )
        .await;
    over.is(413);
    assert!(over.error().contains("1048576"), "{}", over.error());
    // In pieces, without a length.
    let pieces = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 40_000]));
    let pieces = Body::from_stream(futures_util::stream::iter(pieces));
    rig.post("/api/v1/users/wal/backup", pieces).await.is(413);
    // Announced, and not sent before the answer is there.
    let headers = [("expect", "100-continue"), ("content-length", "2000000")];
    rig.send("PUT", "/api/v1/users/kv/a", &headers, "")
        .await
        .is(413);
}

#[tokio::test]
async fn namespaces_are_checked_and_unknown_ones_are_404() {
    let rig = Rig::new();
    for (target, body) in [
        ("/api/v1/users/wal/backup", r#"{"backupDir":"x"}"#),
        ("/api/v1/users/btree/backup", r#"{"path":"x"}"#),
        ("/api/v1/users/wal/seal", ""),
        (
            "/api/v1/users/tx/00000000000000000000000000000000/commit",
            "",
        ),
    ] {
        let e = rig.post(target, body).await;
        assert_eq!(
            e.is(404).text(),
            "{\"error\":\"namespace not found: users\"}\n"
        );
    }
    for target in [
        "kv/a",
        "kv",
        "row/a",
        "lob/a",
        "offset",
        "stats",
        "checkpoint",
        "digest",
        "wal/segments",
        "btree/snapshot",
    ] {
        let e = rig.get(&format!("/api/v1/users/{target}")).await;
        assert_eq!(e.is(404).error(), "namespace not found: users", "{target}");
    }
    for bad in ["backups", "UPPER", "a.b", "%2e%2e", "%ff", "db"] {
        rig.put(&format!("/api/v1/{bad}/kv/a"), r#"{"value":""}"#)
            .await
            .is(400);
    }
    // Escapes in a name are undone before it is looked at.
    rig.put("/api/v1/%75sers/kv/a", r#"{"value":""}"#)
        .await
        .is(200);
    rig.get("/api/v1/users/kv/a").await.is(200);
}

#[tokio::test]
async fn the_first_write_makes_a_namespace_and_a_refused_one_does_not() {
    for (method, target, body) in [
        ("PUT", "kv/a", r#"{"value":""}"#),
        ("DELETE", "kv/a", ""),
        ("POST", "kv/batch", r#"{"operation":"delete","keys":["a"]}"#),
        ("PUT", "row/a", r#"{"columns":{"c":""}}"#),
        ("DELETE", "lob/a", ""),
        (
            "POST",
            "tx/begin",
            r#"{"operation":"put","entryType":"kv"}"#,
        ),
    ] {
        let rig = Rig::new();
        let target = format!("/api/v1/users/{target}");
        rig.send(method, &target, &[], body).await.is(200);
        assert_eq!(rig.host.namespaces.lock().unwrap().len(), 1, "{target}");
        let rig = Rig::new();
        rig.host.switches.lock().unwrap().fixed = true;
        rig.send(method, &target, &[], body).await.is(404);
    }
    let rig = Rig::new();
    rig.put("/api/v1/users/kv/a", "{").await.is(400);
    rig.post("/api/v1/users/kv/batch", "{}").await.is(400);
    rig.put("/api/v1/users/kv/", r#"{"value":""}"#)
        .await
        .is(400);
    assert!(rig.host.namespaces.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_failure_of_a_write_has_its_status() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let text = || "why".to_owned();
    for (e, status) in [
        (WriteError::TooLarge(text()), 413),
        (WriteError::Overloaded(text()), 429),
        (WriteError::Unavailable(text()), 503),
        (WriteError::ReadOnly(text()), 403),
        (WriteError::Full, 507),
        (WriteError::Failed(text()), 500),
        (WriteError::Unknown(text()), 504),
    ] {
        rig.host.switches.lock().unwrap().refuse = Some(e);
        let answer = rig.delete("/api/v1/users/kv/a").await;
        answer.is(status);
        assert_eq!(answer.json()["unknown"] == true, status == 504);
    }
}

#[tokio::test]
async fn answers_say_where_this_node_stands() {
    let rig = Rig::new();
    let lsn = rig.put_raw("a", b"x").await;
    let get = rig.get("/api/v1/users/kv/a").await;
    assert_eq!(get.header("x-unison-lsn"), lsn.to_string());
    assert_eq!(
        get.header("x-unison-lineage"),
        rig.engine().lineage().to_string()
    );
    assert_eq!(get.header("etag"), format!("\"{lsn}\""));
    // Also on a miss, and not where no namespace is named.
    let miss = rig.get("/api/v1/users/kv/nothing").await;
    assert_eq!(miss.is(404).header("x-unison-lsn"), lsn.to_string());
    assert!(
        !rig.get("/health")
            .await
            .headers
            .contains_key("x-unison-lsn")
    );
}

/// The runtime and node are made once: a case is a few requests.
fn shared() -> &'static Mutex<(tokio::runtime::Runtime, Rig)> {
    static SHARED: std::sync::OnceLock<Mutex<(tokio::runtime::Runtime, Rig)>> =
        std::sync::OnceLock::new();
    SHARED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Mutex::new((runtime, Rig::new()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_as_a_path_and_a_body_give_an_answer(
        path in "(/api/v1/users)?(/(kv|row|lob|tx|wal|btree|batch|begin|backup|segments|columns|[a-z%/.]{0,6})){1,4}(\\?[a-z=%&,+]{0,30})?",
        method in "GET|PUT|POST|DELETE|HEAD|PATCH",
        body: Vec<u8>,
    ) {
        let shared = shared().lock().unwrap();
        let (runtime, rig) = &*shared;
        let answer = runtime.block_on(rig.send(&method, &path, &[], body));
        // Whatever it is, it is no failure of the node.
        prop_assert!(answer.status.as_u16() < 500, "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn bodies_past_what_may_be_in_memory_are_refused_unread_and_all_room_comes_back() {
    use axum::body::Body;
    use tower::ServiceExt;
    use unisondb_types::limits;
    let rig = Rig::new();
    let endless = || {
        let request = http::Request::put("/api/v1/users/kv/k")
            .header("host", "localhost")
            .body(Body::from_stream(futures_util::stream::pending::<
                Result<bytes::Bytes, std::io::Error>,
            >()));
        rig.router.clone().oneshot(request.unwrap())
    };
    for _ in 0..2 {
        // None says how long it is: each may have all that a body may.
        let mut clients = Vec::new();
        for _ in 0..limits::BODIES_BYTES / limits::BODY_BYTES {
            let mut client = Box::pin(endless());
            let mut look = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(client.as_mut().poll(&mut look).is_pending());
            clients.push(client);
        }
        let refused = endless().await.unwrap();
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
        let answer = rig.put("/api/v1/users/kv/a", r#"{"value":""}"#).await;
        assert!(answer.is(429).error().starts_with("overloaded"));
        assert_eq!(answer.header("retry-after"), "1");
        // Without a body nothing is wanted.
        rig.get("/livez").await.is(200);
        // One client goes away: there is room for as much.
        drop(clients.pop());
        let answer = rig.put("/api/v1/users/kv/a", r#"{"value":""}"#).await;
        answer.is(200);
    }
}
