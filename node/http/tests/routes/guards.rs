//! Host, Origin, tokens.

use sha2::{Digest, Sha256};
use unisondb_http::{Settings, Tokens};
use unisondb_types::Sha256Sum;

use crate::rig::Rig;

#[tokio::test]
async fn pages_and_rebound_names_are_turned_away() {
    let rig = Rig::new();
    for host in ["127.0.0.1:8080", "[::1]:8080", "localhost"] {
        rig.send("GET", "/health", &[], "").await.is(200);
        assert!(host_status(&rig, host).await == 200, "{host}");
    }
    for host in ["evil.example.com", "localhost.evil.com:8080"] {
        assert_eq!(host_status(&rig, host).await, 403, "{host}");
    }
    for origin in ["https://evil.example.com", "null", "http://localhost:8080"] {
        rig.send("GET", "/health", &[("origin", origin)], "")
            .await
            .is(403);
    }
}

async fn host_status(rig: &Rig, host: &str) -> u16 {
    use tower::ServiceExt;
    let request = http::Request::get("/health").header("host", host);
    let request = request.body(axum::body::Body::empty()).unwrap();
    rig.router
        .clone()
        .oneshot(request)
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test]
async fn configured_names_and_origins_may_come_in() {
    let rig = Rig::with(Settings {
        allowed_origins: vec!["https://console.example.com".into()],
        allowed_hosts: vec!["db.example.com".into()],
        ..Settings::default()
    });
    assert_eq!(host_status(&rig, "db.example.com:8080").await, 200);
    let origin = [("origin", "https://console.example.com")];
    let get = rig.send("GET", "/health", &origin, "").await;
    assert_eq!(
        get.is(200).header("access-control-allow-origin"),
        origin[0].1
    );
    let ask = rig.send("OPTIONS", "/api/v1/users/kv/k", &origin, "").await;
    assert_eq!(
        ask.is(204).header("access-control-allow-methods"),
        "GET, HEAD, PUT, DELETE"
    );
    rig.send(
        "OPTIONS",
        "/api/v1/users/kv/k",
        &[("origin", "https://x")],
        "",
    )
    .await
    .is(403);
}

#[tokio::test]
async fn a_token_may_what_its_roles_allow_and_no_more() {
    let hash = |secret: &str| Sha256Sum::from_bytes(Sha256::digest(secret).into());
    let text = format!(
        "reader {} read@users\nwriter {} write@users\nbackup {} backup@users\nboss {} admin@*\n",
        hash("r"),
        hash("w"),
        hash("b"),
        hash("a")
    );
    let tokens = Some(Tokens::parse(&text).unwrap());
    let rig = Rig::with(Settings {
        tokens,
        ..Settings::default()
    });
    let call =
        |token: &'static str, method: &'static str, target: &'static str, body: &'static str| {
            let bearer = format!("Bearer {token}");
            let rig = &rig;
            async move {
                rig.send(method, target, &[("authorization", &bearer)], body)
                    .await
                    .status
                    .as_u16()
            }
        };
    let value = r#"{"value":""}"#;
    let kv = "/api/v1/users/kv/k";
    assert_eq!(call("w", "PUT", kv, value).await, 200);
    assert_eq!(call("r", "PUT", kv, value).await, 403);
    assert_eq!(call("r", "GET", kv, "").await, 200);
    assert_eq!(call("w", "GET", kv, "").await, 403);
    assert_eq!(call("b", "GET", kv, "").await, 403);
    assert_eq!(call("w", "PUT", "/api/v1/orders/kv/k", value).await, 403);
    // Without the right nobody learns which namespaces there are.
    assert_eq!(call("w", "PUT", "/api/v1/nothing/kv/k", value).await, 403);
    assert_eq!(
        call(
            "b",
            "POST",
            "/api/v1/users/wal/backup",
            r#"{"backupDir":"x"}"#
        )
        .await,
        200
    );
    assert_eq!(
        call(
            "w",
            "POST",
            "/api/v1/users/wal/backup",
            r#"{"backupDir":"x"}"#
        )
        .await,
        403
    );
    assert_eq!(call("b", "GET", "/api/v1/users/digest", "").await, 200);
    assert_eq!(
        call("r", "POST", "/api/v1/namespaces", r#"{"name":"orders"}"#).await,
        403
    );
    assert_eq!(
        call("a", "POST", "/api/v1/namespaces", r#"{"name":"orders"}"#).await,
        200
    );
    assert_eq!(call("nobody", "GET", kv, "").await, 401);
    let none = rig.get(kv).await;
    assert_eq!(none.is(401).header("www-authenticate"), "Bearer");
    rig.get("/health").await.is(200);
    rig.get("/metrics").await.is(200);
    let seen = rig
        .send(
            "GET",
            "/api/v1/namespaces",
            &[("authorization", "Bearer r")],
            "",
        )
        .await;
    assert_eq!(
        seen.is(200).json()["namespaces"].to_string(),
        r#"["users"]"#
    );
}

#[tokio::test]
async fn monitoring_wants_a_token_where_that_is_configured() {
    let rig = Rig::with(Settings {
        tokens: Some(Tokens::default()),
        guard_monitoring: true,
        ..Settings::default()
    });
    rig.get("/metrics").await.is(401);
    rig.get("/health").await.is(401);
}
