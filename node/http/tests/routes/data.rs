//! Keys, rows, scans.

use crate::rig::Rig;

const RAW: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test]
async fn a_key_is_written_read_and_removed() {
    let rig = Rig::new();
    let put = rig
        .put("/api/v1/users/kv/k", r#"{"value":"aGVsbG8="}"#)
        .await;
    let lsn = put.json()["lsn"].as_u64().unwrap();
    assert_eq!(put.text(), format!("{{\"success\":true,\"lsn\":{lsn}}}\n"));
    let get = rig.get("/api/v1/users/kv/k").await;
    assert_eq!(
        get.is(200).text(),
        "{\"value\":\"aGVsbG8=\",\"found\":true}\n"
    );
    let raw = rig
        .send(
            "GET",
            "/api/v1/users/kv/k",
            &[("accept", "application/octet-stream")],
            "",
        )
        .await;
    assert_eq!(raw.body, b"hello");
    let head = rig.send("HEAD", "/api/v1/users/kv/k", &[], "").await;
    assert_eq!(
        head.is(200).header("content-length"),
        get.body.len().to_string()
    );
    rig.delete("/api/v1/users/kv/k").await.is(200);
    let miss = rig.get("/api/v1/users/kv/k").await;
    assert_eq!(miss.is(404).text(), "{\"value\":\"\",\"found\":false}\n");
    // Removing what is not there is a success.
    rig.delete("/api/v1/users/kv/k").await.is(200);
}

#[tokio::test]
async fn keys_of_any_bytes_work_in_the_path_and_the_query() {
    let rig = Rig::new();
    for key in [
        "batch", "a%2Fb", "%00%ff", "%25", "..%2f..", "sp%20ace", "a+b", "columns",
    ] {
        rig.send(
            "PUT",
            &format!("/api/v1/users/kv/{key}"),
            &[RAW],
            key.as_bytes().to_vec(),
        )
        .await
        .is(200);
    }
    for key in [
        "batch", "a%2Fb", "%00%ff", "%25", "..%2f..", "sp%20ace", "a%2Bb", "columns",
    ] {
        let by_path = rig.get(&format!("/api/v1/users/kv/{key}")).await;
        let by_query = rig.get(&format!("/api/v1/users/kv?key={key}")).await;
        assert_eq!(by_path.is(200).body, by_query.is(200).body, "{key}");
    }
    assert_ne!(rig.get("/api/v1/users/kv?key=sp+ace").await.status, 404);
    rig.get("/api/v1/users/kv/%zz").await.is(400);
    rig.get("/api/v1/users/kv/a?key=b").await.is(400);
    rig.put("/api/v1/users/kv", r#"{"value":""}"#).await.is(400);
    let long = "x".repeat(481);
    let e = rig
        .put(&format!("/api/v1/users/kv/{long}"), r#"{"value":""}"#)
        .await;
    assert!(e.is(413).error().contains("480"), "{}", e.error());
}

#[tokio::test]
async fn a_put_without_a_value_or_with_bad_base64_is_400() {
    let rig = Rig::new();
    for body in [
        "",
        "{}",
        r#"{"value":null}"#,
        r#"{"value":"?"}"#,
        r#"{"value":1}"#,
        "[]",
        "nonsense",
        "\"a\"",
    ] {
        rig.put("/api/v1/users/kv/k", body).await.is(400);
    }
}

#[tokio::test]
async fn a_batch_is_one_record() {
    let rig = Rig::new();
    let before = rig.put_raw("x", b"").await.get();
    let put = rig
        .post("/api/v1/users/kv/batch", r#"{"operation":"put","items":[{"key":"a","value":"YQ=="},{"key":"b","value":"Yg=="}]}"#)
        .await;
    assert_eq!(
        put.is(200).text(),
        format!(
            "{{\"success\":true,\"processed\":2,\"lsn\":{}}}\n",
            before + 1
        )
    );
    assert_eq!(rig.get("/api/v1/users/kv/b").await.json()["value"], "Yg==");
    let gone = rig
        .post(
            "/api/v1/users/kv/batch",
            r#"{"operation":"delete","keys":["a","b"]}"#,
        )
        .await;
    assert_eq!(gone.is(200).json()["processed"], 2);
    rig.get("/api/v1/users/kv/a").await.is(404);
}

#[tokio::test]
async fn pages_follow_one_another_without_a_hole() {
    let rig = Rig::new();
    for n in 0..25 {
        rig.put_raw(&format!("k%2F{n:02}"), b"v").await;
    }
    rig.put_raw("%ff", b"odd").await;
    for reverse in ["false", "true"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let target = match cursor.as_str() {
                "" => format!("/api/v1/users/kv?prefix=k%2F&limit=10&reverse={reverse}"),
                cursor => format!("/api/v1/users/kv?limit=10&cursor={cursor}"),
            };
            let page = rig.get(&target).await.is(200).json();
            for item in page["items"].as_array().unwrap() {
                seen.push(item["key"].as_str().unwrap().to_owned());
                assert_eq!(item["value"], "dg==");
            }
            match page["cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        let mut all: Vec<_> = (0..25).map(|n| format!("k/{n:02}")).collect();
        if reverse == "true" {
            all.reverse();
        }
        assert_eq!(seen, all);
    }
    let odd = rig
        .get("/api/v1/users/kv?start=l&keysOnly=true")
        .await
        .json();
    assert_eq!(odd["items"].to_string(), r#"[{"keyB64":"/w=="}]"#);
    assert!(odd["cursor"].is_null());
    rig.get("/api/v1/users/kv?limit=10001").await.is(413);
    rig.get("/api/v1/users/kv?cursor=x").await.is(400);
}

#[tokio::test]
async fn rows_merge_and_lose_columns() {
    let rig = Rig::new();
    let row = "/api/v1/users/row/r%2F1";
    rig.put(row, r#"{"columns":{"a":"YQ==","b":"Yg=="}}"#)
        .await
        .is(200);
    rig.put(row, r#"{"columns":{"b":"Qg==","c":"Yw=="}}"#)
        .await
        .is(200);
    let all = rig.get(row).await;
    assert_eq!(
        all.is(200).json()["columns"].to_string(),
        r#"{"a":"YQ==","b":"Qg==","c":"Yw=="}"#
    );
    assert_eq!(
        (&all.json()["rowKey"], &all.json()["found"]),
        (&"r/1".into(), &true.into())
    );
    let some = rig.get(&format!("{row}?columns=c,nothing")).await;
    assert_eq!(
        some.is(200).json()["columns"].to_string(),
        r#"{"c":"Yw=="}"#
    );
    rig.delete(&format!("{row}/columns?columns=a"))
        .await
        .is(200);
    rig.send(
        "DELETE",
        &format!("{row}/columns"),
        &[],
        r#"{"columns":["b"]}"#,
    )
    .await
    .is(200);
    assert_eq!(
        rig.get(row).await.json()["columns"].to_string(),
        r#"{"c":"Yw=="}"#
    );
    rig.delete(&format!("{row}/columns")).await.is(400);
    // A parameter that would be overlooked must not cost the row.
    rig.delete(&format!("{row}?columns=c")).await.is(400);
    rig.delete("/api/v1/users/row/columns?key=r%2F1&columns=c")
        .await
        .is(200);
    let miss = rig.get(row).await;
    assert_eq!(
        miss.is(404).text(),
        "{\"rowKey\":\"r/1\",\"columns\":{},\"found\":false}\n".replace(
            "\"rowKey\":\"r/1\",\"columns\":{},\"found\":false",
            "\"columns\":{},\"found\":false,\"rowKey\":\"r/1\""
        )
    );
    rig.put(row, r#"{"columns":{}}"#).await.is(400);
    rig.put(row, "{}").await.is(400);
}

#[tokio::test]
async fn row_batches_put_and_delete() {
    let rig = Rig::new();
    let put = r#"{"operation":"put","rows":[{"rowKey":"1","columns":{"a":"YQ=="}},{"rowKey":"2","columns":{"a":"YQ==","b":"Yg=="}}]}"#;
    assert_eq!(
        rig.post("/api/v1/users/row/batch", put)
            .await
            .is(200)
            .json()["processed"],
        2
    );
    let del = r#"{"operation":"delete","rows":[{"rowKey":"1"},{"rowKey":"2","columns":["a"]}]}"#;
    rig.post("/api/v1/users/row/batch", del).await.is(200);
    rig.get("/api/v1/users/row/1").await.is(404);
    assert_eq!(
        rig.get("/api/v1/users/row/2").await.json()["columns"].to_string(),
        r#"{"b":"Yg=="}"#
    );
    rig.post("/api/v1/users/row/batch", r#"{"operation":"put"}"#)
        .await
        .is(400);
}

#[tokio::test]
async fn conditional_writes_happen_or_are_412() {
    let rig = Rig::new();
    let key = "/api/v1/users/kv/k";
    let put = |headers: &'static [(&'static str, &'static str)]| {
        rig.send("PUT", key, headers, r#"{"value":""}"#)
    };
    put(&[("if-none-match", "*")]).await.is(200);
    let e = put(&[("if-none-match", "*")]).await;
    let tag = rig.get(key).await.header("etag").to_owned();
    let lsn: u64 = tag.trim_matches('"').parse().unwrap();
    assert_eq!(e.is(412).json()["currentLsn"], lsn);
    let if_match = [("if-match", tag.as_str())];
    rig.send("PUT", key, &if_match, r#"{"value":"YQ=="}"#)
        .await
        .is(200);
    rig.send("PUT", key, &if_match, r#"{"value":"Yg=="}"#)
        .await
        .is(412);
    rig.send("DELETE", key, &if_match, "").await.is(412);
    assert_eq!(rig.get(key).await.json()["value"], "YQ==");
    put(&[("if-match", "*")]).await.is(400);
    // A client that has the value already is told so.
    let tag = rig.get(key).await.header("etag").to_owned();
    rig.send("GET", key, &[("if-none-match", &tag)], "")
        .await
        .is(304);
    let row = "/api/v1/users/row/r";
    let if_new = [("if-none-match", "*")];
    rig.send("PUT", row, &if_new, r#"{"columns":{"a":""}}"#)
        .await
        .is(200);
    rig.send("PUT", row, &if_new, r#"{"columns":{"a":""}}"#)
        .await
        .is(412);
}

#[tokio::test]
async fn a_repeated_write_is_applied_once_and_answered_the_same() {
    let rig = Rig::new();
    let key = [("idempotency-key", "once")];
    let first = rig
        .send("PUT", "/api/v1/users/kv/k", &key, r#"{"value":"YQ=="}"#)
        .await;
    rig.put_raw("k", b"other").await;
    let again = rig
        .send("PUT", "/api/v1/users/kv/k", &key, r#"{"value":"YQ=="}"#)
        .await;
    assert_eq!(again.is(200).body, first.is(200).body);
    assert_eq!(
        rig.get("/api/v1/users/kv/k").await.json()["value"],
        "b3RoZXI="
    );
    rig.send("PUT", "/api/v1/users/kv/k", &key, r#"{"value":"Yg=="}"#)
        .await
        .is(409);
    let begin = |key| {
        let headers = [("idempotency-key", key)];
        let rig = &rig;
        async move {
            let body = r#"{"operation":"put","entryType":"kv"}"#;
            rig.send("POST", "/api/v1/users/tx/begin", &headers, body)
                .await
                .is(200)
                .json()["txnId"]
                .clone()
        }
    };
    assert_eq!(begin("t").await, begin("t").await);
    assert_ne!(begin("t").await, begin("u").await);
}
