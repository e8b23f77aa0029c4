//! Rules of the program `unisondb` as a process: what a person, a script or a service manager sees.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn unisondb(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unisondb"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("UNISONDB_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A node that listens; killed when it is dropped.
struct Node {
    child: Child,
    port: u16,
    log: BufReader<ChildStderr>,
}

impl Node {
    fn start(data: &Path, args: &[&str]) -> Node {
        Node::spawn(unisondb(&[]), data, args)
    }

    fn spawn(mut command: Command, data: &Path, args: &[&str]) -> Node {
        command
            .args(["--data-dir", data.to_str().unwrap()])
            .args([
                "--http-addr=localhost:0",
                "--log-format=json",
                "--ballast-bytes=0",
            ])
            .args(args);
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(
                log.read_line(&mut line).unwrap() > 0,
                "it ended before it listened"
            );
            let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            if entry["message"] == "listening" {
                let addresses = entry["addresses"].as_str().unwrap();
                let digits: String = addresses
                    .chars()
                    .skip_while(|c| *c != ':')
                    .skip(1)
                    .take_while(char::is_ascii_digit)
                    .collect();
                break digits.parse().unwrap();
            }
        };
        Node { child, port, log }
    }

    /// Waits for a line of the log.
    fn wait_for(&mut self, message: &str) {
        let mut line = String::new();
        while !line.contains(message) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "no {message:?}");
        }
    }

    fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    fn put(&self, key: &str) -> u16 {
        let path = format!("/api/v1/users/kv/{key}");
        self.request("PUT", &path, r#"{"value":"aGVsbG8="}"#).0
    }

    fn get(&self, key: &str) -> (u16, String) {
        self.request("GET", &format!("/api/v1/users/kv/{key}"), "")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Ends it in order.
    fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs to the end: exit code and stderr.
fn run(args: &[&str]) -> (i32, String) {
    let output = unisondb(args).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

const HELLO: &str = "{\"value\":\"aGVsbG8=\",\"found\":true}\n";

#[test]
fn what_was_answered_survives_kill_9_and_an_orderly_stop() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    for n in 0..30 {
        assert_eq!(node.put(&format!("k{n}")), 200);
    }
    node.signal(Signal::KILL);
    drop(node);
    let mut node = Node::start(dir.path(), &[]);
    node.wait_for("\"ready\"");
    for n in 0..30 {
        assert_eq!(node.get(&format!("k{n}")), (200, HELLO.to_owned()), "k{n}");
    }
    let last = node.request("PUT", "/api/v1/users/kv/last", r#"{"value":"aGVsbG8="}"#);
    assert_eq!(last.0, 200, "{}", last.1);
    assert_eq!(node.stop().code(), Some(0), "SIGTERM is an orderly end");
    let mut node = Node::start(dir.path(), &[]);
    node.wait_for("\"ready\"");
    assert_eq!(node.get("last").0, 200);
    node.signal(Signal::INT);
    assert_eq!(node.child.wait().unwrap().code(), Some(0), "so is SIGINT");
}

#[test]
fn health_names_the_namespaces_and_a_snapshot_starts_a_flat_node_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"), &[]);
    assert_eq!(node.put("test-key"), 200);
    let (status, body) = node.request(
        "POST",
        "/api/v1/users/btree/backup",
        r#"{"path":"snapshots/latest.db"}"#,
    );
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let snapshot = Path::new(answer["path"].as_str().unwrap());
    assert_eq!(
        std::fs::metadata(snapshot).unwrap().len(),
        answer["bytes"].as_u64().unwrap()
    );

    let test = dir.path().join("test");
    std::fs::create_dir_all(test.join("db")).unwrap();
    std::fs::create_dir_all(test.join("wal")).unwrap();
    std::fs::copy(snapshot, test.join("db/data.mdb")).unwrap();
    let mut drill = Node::start(&test, &[]);
    drill.wait_for("\"ready\"");
    let (status, body) = drill.request("GET", "/health", "");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &health["status"]), (200, &"ok".into()), "{body}");
    assert_eq!(health["namespaces"], serde_json::json!(["users"]));
    assert_eq!(health["isolated"], true);
    assert_eq!(drill.get("test-key"), (200, HELLO.to_owned()));
    assert!(!test.join("users").exists());
    assert_eq!(drill.stop().code(), Some(0));
    assert_eq!(node.get("test-key").0, 200, "the node beside it goes on");
}

#[test]
fn a_damaged_state_is_told_in_the_documented_words_and_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    assert_eq!(node.put("k"), 200);
    node.stop();
    let state = dir.path().join("users/db/data.mdb");
    for bad in [b"".as_slice(), b"\x28\xb5\x2f\xfd still compressed"] {
        std::fs::write(&state, bad).unwrap();
        let data = dir.path().to_str().unwrap();
        let (code, text) = run(&["--data-dir", data, "--http-addr=localhost:0"]);
        assert_eq!(code, 1, "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines.contains(&"ERROR: database file is corrupted"),
            "{text}"
        );
        assert!(text.contains("data.mdb"), "{text}");
        assert_eq!(std::fs::read(&state).unwrap(), bad, "the file is untouched");
    }
}

#[test]
fn a_damaged_segment_behind_a_snapshot_is_told_in_the_documented_words_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    let mut snapshots = Vec::new();
    for key in ["a", "b", "c"] {
        assert_eq!(node.put(key), 200);
        let body = format!("{{\"path\":\"{key}.db\"}}");
        let (status, body) = node.request("POST", "/api/v1/users/btree/backup", &body);
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        snapshots.push(answer["path"].as_str().unwrap().to_owned());
    }
    node.stop();
    let home = dir.path().join("users");
    std::fs::remove_dir_all(home.join("db")).unwrap();
    std::fs::create_dir(home.join("db")).unwrap();
    std::fs::copy(&snapshots[0], home.join("db/data.mdb")).unwrap();
    let segment = home.join("wal/000000002.wal");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let data = dir.path().to_str().unwrap();
    let (code, text) = run(&["--data-dir", data, "--http-addr=localhost:0"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.lines()
            .any(|l| l == "ERROR: database file is corrupted"),
        "{text}"
    );
    assert!(
        text.contains("000000002.wal") && text.contains("at offset") && text.contains("Way out"),
        "{text}"
    );
    let state = std::fs::read(home.join("db/data.mdb")).unwrap();
    assert_eq!(
        state,
        std::fs::read(&snapshots[0]).unwrap(),
        "not taken over"
    );
}

#[test]
fn a_directory_or_a_port_in_use_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]);
    let data = dir.path().to_str().unwrap();
    let (code, text) = run(&["--data-dir", data, "--http-addr", "localhost:0"]);
    assert!(
        code == 1 && text.contains("in use by another process (it holds LOCK)"),
        "{text}"
    );
    let other = tempfile::tempdir().unwrap();
    let busy = format!("localhost:{}", node.port);
    let data = other.path().to_str().unwrap();
    let (code, text) = run(&["--data-dir", data, "--http-addr", &busy]);
    assert!(
        code == 1 && text.contains("in use by another process; choose"),
        "{text}"
    );
    assert_eq!(node.put("k"), 200, "the first one goes on");
}

#[test]
fn wrong_configuration_ends_with_exit_code_2_and_check_prints_what_is_in_force() {
    let (code, text) = run(&["--segment-size", "big"]);
    assert!(code == 2 && text.starts_with("--segment-size: "), "{text}");
    let (code, text) = run(&["--no-such-flag"]);
    assert!(code == 2 && text.contains("--no-such-flag"), "{text}");
    let output = unisondb(&[])
        .env("UNISONDB_DATADIR", "/x")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text.contains("did you mean \"UNISONDB_DATA_DIR\"?"),
        "{text}"
    );
    let output = unisondb(&["config", "check", "--drill"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("drill = \"true\"  # --drill"),
        "{text}"
    );
}

#[test]
fn the_service_manager_is_told_when_it_serves_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let told = || {
        let mut buf = [0; 200];
        let n = manager.recv(&mut buf).unwrap();
        String::from_utf8_lossy(&buf[..n]).into_owned()
    };
    let mut command = unisondb(&[]);
    command.env("NOTIFY_SOCKET", &socket);
    let node = Node::spawn(command, &dir.path().join("data"), &["--namespaces=users"]);
    assert!(told().contains("READY=1"));
    let miss = node.get("nothing");
    assert_eq!(miss, (404, "{\"value\":\"\",\"found\":false}\n".to_owned()));
    assert_eq!(node.stop().code(), Some(0));
    assert!(told().contains("STOPPING=1"));
}

#[test]
fn a_first_start_says_what_to_paste() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), &[]);
    node.wait_for("curl -X PUT http://localhost:");
    node.wait_for("btree/backup");
    node.wait_for("rm -rf");
}

#[test]
fn metrics_are_on_the_same_port_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path(), &["--namespaces=users"]);
    node.wait_for("\"ready\"");
    let (status, text) = node.request("GET", "/metrics", "");
    assert_eq!(status, 200);
    for name in [
        "backup_success_total",
        "backup_last_timestamp_seconds",
        "backup_bytes_total",
    ] {
        let line = format!("{name}{{namespace=\"users\",kind=\"wal\"}} 0");
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_stderr_that_cannot_be_written_changes_no_exit_code_and_stops_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--http-addr={}", taken.local_addr().unwrap());
    let data = format!("--data-dir={}", dir.path().display());
    for (args, code) in [
        (&["--segment-size=1KiB"][..], 2),
        (&["--no-such-flag"], 2),
        (&[&data, &taken], 1),
    ] {
        let status = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 2>/dev/full"#])
            .arg(env!("CARGO_BIN_EXE_unisondb"))
            .args(args)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}
