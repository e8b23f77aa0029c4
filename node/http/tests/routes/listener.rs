//! The listener loop, over real sockets, and the client of the contract.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unisondb_api::{Client, ClientError};
use unisondb_http::{Connections, serve};
use unisondb_types::SegmentId;

use crate::rig::Rig;

async fn listen(rig: &Rig, bounds: Connections) -> (String, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let router = rig.router.clone();
    let task = tokio::spawn(async move {
        serve(vec![listener], router, None, bounds, async {
            drop(stopped.await)
        })
        .await;
    });
    (at, stop, task)
}

#[tokio::test]
async fn the_client_and_the_node_understand_each_other() {
    let rig = Rig::new();
    let (at, stop, task) = listen(&rig, Connections::default()).await;
    let client = Client::new(&format!("http://{at}"), None).unwrap();
    let odd = b"k/\xff batch\0";
    let lsn = client.put("users", odd, b"value").await.unwrap();
    assert_eq!(
        client.get("users", odd).await.unwrap().as_deref(),
        Some(&b"value"[..])
    );
    assert_eq!(client.get("users", b"nothing").await.unwrap(), None);
    let items = [
        (b"a".to_vec(), b"1".to_vec()),
        (b"\xfe".to_vec(), Vec::new()),
    ];
    assert_eq!(
        client.batch_put("users", &items).await.unwrap().processed,
        2
    );
    assert!(client.delete("users", b"a").await.unwrap() > lsn);
    let tx = client.tx_begin("users", "put", "kv").await.unwrap();
    client.tx_put("users", tx, b"t", b"v").await.unwrap();
    client.tx_commit("users", tx).await.unwrap();
    let tx = client.tx_begin("users", "put", "lob").await.unwrap();
    client
        .tx_chunk("users", tx, b"object", b"chunk")
        .await
        .unwrap();
    assert!(
        client
            .tx_commit("users", tx)
            .await
            .unwrap()
            .checksum
            .is_some()
    );
    let tx = client.tx_begin("users", "put", "kv").await.unwrap();
    client.tx_abort("users", tx).await.unwrap();
    let copied = client
        .wal_backup("users", None, "wal/x", true)
        .await
        .unwrap();
    assert_eq!(copied.backups.len(), 1);
    let made = client.btree_backup("users", "s.db").await.unwrap();
    assert_eq!(
        client.digest("users", Some(made.lsn)).await.unwrap().digest,
        made.digest
    );
    assert_eq!(
        client.seal("users").await.unwrap().segment_id,
        Some(SegmentId::FIRST)
    );
    let list = client.segments("users").await.unwrap();
    assert_eq!(list.segments[0].sha256, Some(copied.backups[0].sha256));
    let mut pull = client
        .pull_segment("users", SegmentId::FIRST)
        .await
        .unwrap();
    let mut len = 0;
    while let Some(piece) = pull.next().await.unwrap() {
        len += piece.len() as u64;
    }
    assert_eq!(len, copied.backups[0].bytes);
    assert_eq!(client.stats("users").await.unwrap().namespace, "users");
    assert_eq!(client.health().await.unwrap().namespaces, ["users"]);
    match client.stats("nothing").await {
        Err(ClientError::Refused { status, error, .. }) => {
            assert_eq!(
                (status.as_u16(), error.as_str()),
                (404, "namespace not found: nothing")
            );
        }
        other => panic!("{other:?}"),
    }
    stop.send(()).unwrap();
    task.await.unwrap();
    assert!(matches!(
        client.health().await,
        Err(ClientError::Unreachable { .. } | ClientError::Lost { .. })
    ));
}

/// Sends bytes as they are, and gives all that comes until the connection is closed.
async fn talk(at: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn raw_requests_are_answered_as_curl_sends_them() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    let (at, stop, task) = listen(&rig, Connections::default()).await;
    let head = "Host: localhost\r\nConnection: close\r\n";
    // HEAD has the length and no body.
    let answer = talk(&at, &format!("HEAD /health HTTP/1.1\r\n{head}\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    assert!(answer.contains("content-length: "), "{answer}");
    let answer = talk(
        &at,
        &format!("HEAD /api/v1/users/wal/backup HTTP/1.1\r\n{head}\r\n"),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    // A body in chunks, of a form's type.
    let chunked = format!(
        "POST /api/v1/users/wal/backup HTTP/1.1\r\n{head}Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{{\"bac\r\nb\r\nkupDir\":\"x\"\r\n1\r\n}}\r\n0\r\n\r\n"
    );
    let answer = talk(&at, &chunked).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"backups\":[{"),
        "{answer}"
    );
    // Expect: 100-continue is answered before the body is there.
    let mut stream = TcpStream::connect(&at).await.unwrap();
    let expect = format!(
        "PUT /api/v1/users/kv/k HTTP/1.1\r\n{head}Content-Length: 12\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(expect.as_bytes()).await.unwrap();
    let mut go = [0; 25];
    stream.read_exact(&mut go).await.unwrap();
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"value\":\"\"}").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{rest}");
    // Bytes that are no HTTP do not disturb anybody.
    let answer = talk(&at, "\u{1}\u{2}\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    stop.send(()).unwrap();
    task.await.unwrap();
}

/// Takes an answer apart: its status, and the field `error` of its one line.
fn refusal(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    let status = head.split(' ').nth(1).expect(answer).parse().unwrap();
    assert!(
        head.contains("content-type: application/json\r\n")
            && head.contains("x-unison-node: node-1\r\n")
            && head.contains("x-unison-role: leader\r\n")
            && head.contains("connection: close"),
        "{head}"
    );
    let line = body.strip_suffix('\n').expect("it ends in a newline");
    assert!(!line.contains('\n'), "{body}");
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())));
    (status, json["error"].as_str().expect(answer).to_owned())
}

#[tokio::test]
async fn what_cannot_be_read_as_a_request_is_answered_in_one_line_of_json_too() {
    let rig = Rig::new();
    let (at, stop, task) = listen(&rig, Connections::default()).await;
    let host = "Host: localhost\r\n";
    let good = format!("GET /livez HTTP/1.1\r\n{host}\r\n");
    let many: String = (0..200).map(|n| format!("a{n}: b\r\n")).collect();
    let long = "a".repeat(70_000);
    let wide = "b".repeat(500_000);
    let lengths = "Content-Length: 1\r\nContent-Length: 2\r\n";
    let cases = [
        ("GET\r\n\r\n".to_owned(), 400, "cannot be read"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400, "cannot be read"),
        ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(), 400, "like TLS"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "cannot"),
        (
            format!("PUT /api/v1/users/kv/k HTTP/1.1\r\n{host}{lengths}\r\nab"),
            400,
            "content-length",
        ),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), 414, "65534"),
        (
            format!("GET / HTTP/1.1\r\n{host}{many}\r\n"),
            431,
            "100 headers",
        ),
        (
            format!("GET / HTTP/1.1\r\nx: {wide}\r\n\r\n"),
            431,
            "409600 bytes",
        ),
    ];
    for (bytes, status, text) in &cases {
        let shown = &bytes[..bytes.len().min(40)];
        let (found, error) = refusal(&talk(&at, bytes).await);
        assert_eq!(found, *status, "{shown}: {error}");
        assert!(error.contains(text), "{shown}: {error}");
        // Behind a good one on the same connection, too.
        let mut stream = TcpStream::connect(&at).await.unwrap();
        stream.write_all(good.as_bytes()).await.unwrap();
        let mut first = [0; 1024];
        let n = stream.read(&mut first).await.unwrap();
        assert!(first[..n].ends_with(b"}\n"));
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(refusal(&rest).0, *status, "{shown}");
    }
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_takes_no_new_ones() {
    let rig = Rig::new();
    let (at, stop, task) = listen(&rig, Connections::default()).await;
    let mut idle = TcpStream::connect(&at).await.unwrap();
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    idle.write_all(request.as_bytes()).await.unwrap();
    let mut some = [0; 512];
    assert!(idle.read(&mut some).await.unwrap() > 0);
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .expect("idle ones do not hold it up")
        .unwrap();
    assert_eq!(idle.read(&mut some).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(&at).await.is_err());
}

#[tokio::test]
async fn a_client_that_sends_no_head_is_cut_off() {
    let rig = Rig::new();
    let bounds = Connections {
        header: Duration::from_millis(50),
        ..Connections::default()
    };
    let (at, stop, task) = listen(&rig, bounds).await;
    let mut slow = TcpStream::connect(&at).await.unwrap();
    slow.write_all(b"GET /hea").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), slow.read_to_end(&mut rest)).await;
    ended.expect("closed by the node").unwrap();
    let (status, error) = refusal(&String::from_utf8(rest).unwrap());
    assert!(status == 408 && error.contains("did not come"), "{error}");
    // One that waits between requests is closed without a word.
    let mut idle = TcpStream::connect(&at).await.unwrap();
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    idle.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("}\n"));
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let rig = Rig::new();
    let bounds = Connections {
        max: 1,
        ..Connections::default()
    };
    let (at, stop, task) = listen(&rig, bounds).await;
    let first = TcpStream::connect(&at).await.unwrap();
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let second = talk(&at, request);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(early.is_err(), "the only turn is taken");
    drop(first);
    assert!(second.await.starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_request_names_its_host_once_and_only_http_1_0_may_leave_it_out() {
    let rig = Rig::new();
    let (at, stop, task) = listen(&rig, Connections::default()).await;
    let close = "Connection: close\r\n\r\n";
    for (head, status) in [
        ("HTTP/1.1\r\nHost: localhost\r\n", "200"),
        ("HTTP/1.1\r\n", "400"),
        ("HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", "400"),
        (
            "HTTP/1.0\r\nHost: localhost\r\nHost: evil.example.com\r\n",
            "400",
        ),
        ("HTTP/1.0\r\n", "200"),
    ] {
        let answer = talk(&at, &format!("GET /health {head}{close}")).await;
        let got = answer.split(' ').nth(1);
        assert_eq!(got, Some(status), "{head:?}: {answer}");
    }
    stop.send(()).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn the_audit_log_says_who_pulled_a_segment_or_a_snapshot() {
    let rig = Rig::new();
    rig.put_raw("a", b"x").await;
    rig.post("/api/v1/users/wal/seal", "").await.is(200);
    let (at, stop, task) = listen(&rig, Connections::default()).await;
    for path in ["wal/segments/1", "wal/segments/77", "btree/snapshot"] {
        let mut stream = TcpStream::connect(&at).await.unwrap();
        let who = format!("who=\"{}\"", stream.local_addr().unwrap());
        let request = format!(
            "GET /api/v1/users/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let log = crate::rig::log();
        assert!(log.contains(&who), "{path}: {who} in {log}");
    }
    stop.send(()).unwrap();
    task.await.unwrap();
}
