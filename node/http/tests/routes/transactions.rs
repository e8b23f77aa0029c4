//! Transactions and large objects.

use serde_json::json;

use crate::rig::Rig;

async fn begin(rig: &Rig, operation: &str, entry_type: &str) -> String {
    let body = json!({"operation": operation, "entryType": entry_type}).to_string();
    let answer = rig
        .post("/api/v1/users/tx/begin", body)
        .await
        .is(200)
        .json();
    assert_eq!(answer["success"], true);
    answer["txnId"].as_str().unwrap().to_owned()
}

async fn step(rig: &Rig, id: &str, step: &str, body: impl Into<axum::body::Body>) -> u16 {
    let target = format!("/api/v1/users/tx/{id}/{step}");
    rig.post(&target, body).await.status.as_u16()
}

#[tokio::test]
async fn a_transaction_is_invisible_until_it_is_committed() {
    let rig = Rig::new();
    let id = begin(&rig, "put", "kv").await;
    assert_eq!(
        step(&rig, &id, "kv", r#"{"key":"a","value":"YQ=="}"#).await,
        200
    );
    assert_eq!(
        step(
            &rig,
            &id,
            "kv",
            r#"{"items":[{"key":"b","value":""},{"key":"c","value":""}]}"#
        )
        .await,
        200
    );
    rig.get("/api/v1/users/kv/a").await.is(404);
    let commit = rig.post(&format!("/api/v1/users/tx/{id}/commit"), "").await;
    assert_eq!(commit.is(200).json()["success"], true);
    assert!(!commit.json().as_object().unwrap().contains_key("checksum"));
    for key in ["a", "b", "c"] {
        rig.get(&format!("/api/v1/users/kv/{key}")).await.is(200);
    }
    let twice = rig.post(&format!("/api/v1/users/tx/{id}/commit"), "").await;
    assert_eq!(
        twice.is(409).error(),
        format!("transaction already committed: {id}")
    );
    assert_eq!(
        step(&rig, &id, "kv", r#"{"key":"a","value":""}"#).await,
        409
    );
}

#[tokio::test]
async fn rows_are_put_and_removed_in_transactions() {
    let rig = Rig::new();
    let id = begin(&rig, "update", "row").await;
    assert_eq!(
        step(
            &rig,
            &id,
            "row",
            r#"{"rowKey":"r","columns":{"a":"YQ==","b":""}}"#
        )
        .await,
        200
    );
    assert_eq!(step(&rig, &id, "commit", "").await, 200);
    let id = begin(&rig, "delete", "row").await;
    assert_eq!(
        step(&rig, &id, "row", r#"{"rowKey":"r","columns":["b"]}"#).await,
        200
    );
    assert_eq!(step(&rig, &id, "commit", "").await, 200);
    assert_eq!(
        rig.get("/api/v1/users/row/r").await.json()["columns"].to_string(),
        r#"{"a":"YQ=="}"#
    );
    let id = begin(&rig, "delete", "kv").await;
    assert_eq!(step(&rig, &id, "kv", r#"{"keys":["a"]}"#).await, 200);
    assert_eq!(step(&rig, &id, "kv?key=b", "").await, 200);
    assert_eq!(step(&rig, &id, "commit", "").await, 200);
}

#[tokio::test]
async fn aborted_unknown_and_misfit_steps_have_their_statuses() {
    let rig = Rig::new();
    let id = begin(&rig, "put", "kv").await;
    assert_eq!(
        step(&rig, &id, "row", r#"{"rowKey":"r","columns":{"a":""}}"#).await,
        409
    );
    assert_eq!(step(&rig, &id, "kv", "{").await, 400);
    assert_eq!(step(&rig, &id, "abort", "").await, 200);
    let e = rig.post(&format!("/api/v1/users/tx/{id}/abort"), "").await;
    assert_eq!(
        e.is(409).error(),
        format!("transaction already aborted: {id}")
    );
    for unknown in ["ab".repeat(16), "nonsense".into()] {
        let e = rig
            .post(
                &format!("/api/v1/users/tx/{unknown}/kv"),
                r#"{"key":"a","value":""}"#,
            )
            .await;
        assert_eq!(
            e.is(404).error(),
            format!("transaction not found: {unknown}")
        );
        assert_eq!(step(&rig, &unknown, "commit", "").await, 404);
    }
    // In another namespace it is not there.
    let id = begin(&rig, "put", "kv").await;
    rig.put("/api/v1/orders/kv/x", r#"{"value":""}"#)
        .await
        .is(200);
    rig.post(&format!("/api/v1/orders/tx/{id}/commit"), "")
        .await
        .is(404);
    for bad in [
        "{}",
        r#"{"operation":"put","entryType":"x"}"#,
        r#"{"operation":"merge","entryType":"kv"}"#,
    ] {
        rig.post("/api/v1/users/tx/begin", bad).await.is(400);
    }
}

/// What each way of ending makes of everything that can be asked afterwards.
#[tokio::test]
async fn every_step_and_end_of_a_transaction_that_has_ended_has_its_status() {
    use unisondb_http::Host;
    use unisondb_types::{AbortReason, Action};
    let rig = Rig::new();
    let asked: [(&str, &str, &str); 7] = [
        ("kv", "kv", r#"{"key":"a","value":""}"#),
        ("kv", "kv?key=a", r#"{"value":""}"#),
        ("row", "row", r#"{"rowKey":"r","columns":{"a":""}}"#),
        ("lob", "lob?key=o", "chunk"),
        ("kv", "commit", ""),
        ("lob", "commit", ""),
        ("kv", "abort", ""),
    ];
    for (kind, asked, body) in asked {
        let abort = asked == "abort";
        let ends: [(&str, u16, String); 4] = [
            ("commit", 409, "transaction already committed: ID".into()),
            if abort {
                ("abort", 409, "transaction already aborted: ID".into())
            } else {
                let text = "transaction aborted: ID; begin a new one";
                ("abort", 410, text.into())
            },
            (
                "expire",
                410,
                "transaction expired: ID; begin a new one".into(),
            ),
            ("never", 404, "transaction not found: ID".into()),
        ];
        for (end, status, text) in ends {
            let id = begin(&rig, "put", kind).await;
            let id = match end {
                "expire" => {
                    let action = Action::Abort {
                        id: id.parse().unwrap(),
                        reason: AbortReason::Expired,
                    };
                    let users = "users".parse().unwrap();
                    let writer = rig.host.writer();
                    writer.write(&users, action, None).await.unwrap();
                    id
                }
                "never" => "cd".repeat(16),
                end => {
                    assert_eq!(step(&rig, &id, end, "").await, 200);
                    id
                }
            };
            let target = format!("/api/v1/users/tx/{id}/{asked}");
            let answer = rig.post(&target, body).await;
            assert_eq!(
                (answer.status.as_u16(), answer.error()),
                (status, text.replace("ID", &id)),
                "{asked} after {end}"
            );
        }
    }
}

async fn object(rig: &Rig, key: &str, chunks: &[&[u8]]) -> serde_json::Value {
    let id = begin(rig, "put", "lob").await;
    for chunk in chunks {
        assert_eq!(
            step(rig, &id, &format!("lob?key={key}"), chunk.to_vec()).await,
            200
        );
    }
    rig.post(&format!("/api/v1/users/tx/{id}/commit"), "")
        .await
        .is(200)
        .json()
}

#[tokio::test]
async fn an_object_is_written_in_chunks_and_streamed_back() {
    let rig = Rig::new();
    let whole: Vec<u8> = (0..3_000_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 4])
        .collect();
    let chunks: Vec<&[u8]> = whole.chunks(1 << 20).collect();
    let commit = object(&rig, "a%2Fb", &chunks).await;
    let crc = commit["checksum"].as_u64().unwrap();
    let get = rig.get("/api/v1/users/lob/a%2Fb").await;
    get.is(200);
    assert!(get.body == whole);
    assert_eq!(get.header("content-length"), whole.len().to_string());
    assert_eq!(get.header("x-checksum-crc32c"), crc.to_string());
    assert_eq!(get.header("etag"), format!("\"{}\"", commit["lsn"]));
    let by_query = rig.get("/api/v1/users/lob?key=a%2Fb").await;
    assert!(by_query.body == whole);
    let head = rig.send("HEAD", "/api/v1/users/lob/a%2Fb", &[], "").await;
    assert_eq!(
        head.is(200).header("content-length"),
        whole.len().to_string()
    );
    // Ranges across the borders of chunks.
    let from = (1 << 20) - 5;
    let range = format!("bytes={from}-{}", from + 9);
    let part = rig
        .send("GET", "/api/v1/users/lob/a%2Fb", &[("range", &range)], "")
        .await;
    assert_eq!(part.is(206).body, &whole[from..from + 10]);
    assert_eq!(
        part.header("content-range"),
        format!("bytes {from}-{}/{}", from + 9, whole.len())
    );
    for (validator, status) in [(get.header("etag"), 206), ("\"1\"", 200)] {
        let headers = [("range", range.as_str()), ("if-range", validator)];
        let target = "/api/v1/users/lob/a%2Fb";
        let answer = rig.send("GET", target, &headers, "").await;
        answer.is(status);
    }
    let tail = rig
        .send(
            "GET",
            "/api/v1/users/lob/a%2Fb",
            &[("range", "bytes=-3")],
            "",
        )
        .await;
    assert_eq!(tail.is(206).body, &whole[whole.len() - 3..]);
    let none = rig
        .send(
            "GET",
            "/api/v1/users/lob/a%2Fb",
            &[("range", "bytes=3000000-")],
            "",
        )
        .await;
    assert_eq!(
        none.is(416).header("content-range"),
        format!("bytes */{}", whole.len())
    );
    rig.delete("/api/v1/users/lob/a%2Fb").await.is(200);
    rig.get("/api/v1/users/lob/a%2Fb").await.is(404);
}

#[tokio::test]
async fn an_object_that_is_replaced_while_it_is_read_stays_whole() {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let rig = Rig::new();
    let old = vec![1u8; 1 << 20];
    object(&rig, "o", &[&old, &old]).await;
    let request = http::Request::get("/api/v1/users/lob/o")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = rig.router.clone().oneshot(request).await.unwrap();
    object(&rig, "o", &[b"new"]).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.len() == 2 << 20 && body.iter().all(|&b| b == 1));
    assert_eq!(rig.get("/api/v1/users/lob/o").await.body, b"new");
}

#[tokio::test]
async fn an_empty_object_and_a_delete_transaction() {
    let rig = Rig::new();
    object(&rig, "e", &[b""]).await;
    let get = rig.get("/api/v1/users/lob/e").await;
    assert_eq!(get.is(200).header("content-length"), "0");
    let id = begin(&rig, "delete", "lob").await;
    assert_eq!(step(&rig, &id, "lob?key=e", "").await, 200);
    assert_eq!(step(&rig, &id, "commit", "").await, 200);
    rig.get("/api/v1/users/lob/e").await.is(404);
    assert_eq!(step(&rig, &id, "lob", "").await, 400);
}
