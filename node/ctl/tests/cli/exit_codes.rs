//! Each way to fail has its own exit code, and says what to do next.

use std::fs;

use super::fixture::Fixture;
use super::{json, text, udbctl};

#[test]
fn wrong_usage_is_2() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["restore", "--data-dir", "/x", "--namespace", "users"],
        &[
            "restore",
            "--data-dir",
            "/x",
            "--namespace",
            "../users",
            "--wal",
            "/y",
        ],
        &[
            "restore",
            "--data-dir",
            "/x",
            "--namespace",
            "u",
            "--wal",
            "/y",
            "--to-time",
            "noon",
        ],
        &[
            "restore",
            "--data-dir",
            "/x",
            "--namespace",
            "u",
            "--wal",
            "/y",
            "--to-lsn",
            "1",
            "--to-latest",
        ],
        &[
            "restore",
            "--data-dir",
            "/x",
            "--namespace",
            "u",
            "--wal",
            "/y",
            "--exclusive",
        ],
        &[
            "restore",
            "--data-dir",
            "/x",
            "--namespace",
            "u",
            "--wal",
            "/y",
            "--first-segment-id",
            "900000001",
        ],
        &[
            "restore",
            "--data-dir",
            "/x",
            "--namespace",
            "u",
            "--btree",
            "/y",
            "--from",
            "/z",
        ],
        &["verify"],
        &["status", "--url", "https://localhost:1"],
    ] {
        let out = udbctl(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_0_and_name_the_exit_codes() {
    let help = udbctl(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("6 verification failed"));
    for args in [
        &["--version"][..],
        &["restore", "--help"],
        &["wal", "inspect", "--help"],
    ] {
        assert_eq!(udbctl(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_node_that_does_not_listen_is_3() {
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let wal = [
        "backup",
        "wal",
        "--url",
        &url,
        "--namespace",
        "users",
        "--dir",
        "wal/x",
    ];
    let btree = [
        "backup",
        "btree",
        "--url",
        &url,
        "--namespace",
        "users",
        "--path",
        "s.db",
    ];
    for args in [&["status", "--url", &url][..], &wal, &btree] {
        let (code, answer) = json(args);
        assert_eq!(code, 3, "{answer}");
        assert!(
            answer["error"]
                .as_str()
                .unwrap()
                .contains("is the node running?"),
            "{answer}"
        );
    }
}

#[test]
fn what_is_not_there_is_4() {
    let fixture = Fixture::new();
    let backups = fixture.path("backups");
    let empty = fixture.path("empty");
    fs::create_dir(&empty).unwrap();
    let data = fixture.path("data");
    let gone = fixture.path("gone");
    let restore = |namespace, from| {
        json(&[
            "restore",
            "--data-dir",
            text(&data),
            "--namespace",
            namespace,
            "--from",
            text(from),
        ])
        .0
    };
    assert_eq!(restore("users", &gone), 4);
    assert_eq!(restore("users", &empty), 4);
    assert_eq!(restore("orders", &backups), 4);
    for args in [
        &["verify", text(&gone)][..],
        &["verify", text(&empty)],
        &["wal", "list", text(&gone)],
        &["wal", "list", text(&empty)],
        &["wal", "stats", text(&empty)],
        &["wal", "inspect", text(&gone)],
    ] {
        assert_eq!(json(args).0, 4, "{args:?}");
    }
    assert!(!data.exists(), "nothing may be made");
}

#[test]
fn what_is_in_the_way_or_missing_is_5() {
    let fixture = Fixture::new();
    let args = |more: &[&str]| fixture.restore("data", more);
    let run = |args: &[String]| json(&args.iter().map(String::as_str).collect::<Vec<_>>());

    // Short: no record reaches the target.
    let (code, answer) = run(&args(&["--to-time", "2100-01-01T00:00:00Z"]));
    assert_eq!(code, 5);
    assert_eq!(answer["plan"]["problem"]["kind"], "short");
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.starts_with("reached 2025-01-01T") && error.contains("< asked 2100"),
        "{error}"
    );

    // A server is running.
    fs::create_dir(fixture.path("data")).unwrap();
    let platform = unisondb_platform::real::platform();
    let held = platform.disk.lock(&fixture.path("data/LOCK")).unwrap();
    let (code, answer) = run(&args(&[]));
    assert_eq!(code, 5);
    assert!(
        answer["error"].as_str().unwrap().contains("stop it first"),
        "{answer}"
    );
    drop(held);

    // The namespace is there.
    assert_eq!(run(&args(&[])).0, 0);
    assert_eq!(run(&args(&[])).0, 5);
    assert_eq!(run(&args(&["--dry-run"])).0, 5);

    // A hole.
    fs::remove_file(fixture.path("backups/wal/000000003.wal")).unwrap();
    let (code, answer) = run(&fixture.restore("other", &[]));
    assert_eq!(code, 5);
    let problem = &answer["plan"]["problem"];
    assert_eq!(problem["kind"], "gap", "{answer}");
    assert_eq!(
        (&problem["fromSegment"], &problem["toSegment"]),
        (&3.into(), &3.into())
    );
    assert!(!fixture.path("other").exists());
}

#[test]
fn what_is_not_what_it_must_be_is_6() {
    let fixture = Fixture::new();
    let segment = fixture.path("backups/wal/000000003.wal");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[700] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, answer) = json(&["verify", text(&fixture.path("backups"))]);
    assert_eq!(code, 6, "{answer}");
    assert_eq!(answer["ok"], false);
    assert_eq!(answer["problems"][0]["kind"], "altered");
    assert!(
        answer["problems"][0]["file"]
            .as_str()
            .unwrap()
            .ends_with("000000003.wal")
    );
    assert_eq!(json(&["wal", "inspect", text(&segment)]).0, 6);
    let args = fixture.restore("data", &[]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let (code, answer) = json(&args);
    assert_eq!(code, 6, "{answer}");
    assert!(
        answer["error"].as_str().unwrap().contains("000000003.wal"),
        "{answer}"
    );
    assert!(!fixture.path("data").exists());

    let snapshot = fixture.path("backups/snapshots/s.db");
    let bytes = fs::read(&snapshot).unwrap();
    fs::write(&snapshot, &bytes[..bytes.len() / 2]).unwrap();
    let (code, answer) = json(&["verify", text(&snapshot)]);
    assert_eq!(code, 6, "{answer}");
}

#[test]
fn a_list_shows_what_is_damaged_and_what_is_missing_and_ends_with_6() {
    let fixture = Fixture::new();
    let wal = fixture.path("backups/wal");
    let segment = fixture.path("backups/wal/000000003.wal");
    let states = || -> (i32, Vec<String>) {
        let (code, answer) = json(&["wal", "list", text(&wal)]);
        let rows = answer["segments"].as_array().unwrap();
        let row = |r: &serde_json::Value| format!("{} {}", r["segment"], r["state"]);
        (code, rows.iter().map(row).collect())
    };
    assert_eq!(states().0, 0);
    let good = fs::read(&segment).unwrap();
    let mut bytes = good.clone();
    bytes[700] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (code, found) = states();
    let shown = |state: &str| format!("3 \"{state}\"");
    assert!(code == 6 && found[2] == shown("damaged"), "{found:?}");
    fs::remove_file(&segment).unwrap();
    let (code, found) = states();
    assert!(code == 6 && found[2] == shown("missing"), "{found:?}");
    // Shown, not only counted.
    let out = udbctl(&["wal", "list", text(&wal)]);
    assert_eq!(out.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&out.stdout).contains("not here; segment 4 follows it"));
    // What lies before the oldest is nobody's loss.
    fs::remove_file(fixture.path("backups/wal/000000001.wal")).unwrap();
    fs::write(&segment, good).unwrap();
    assert_eq!(states().0, 0);
}

#[test]
fn a_file_named_by_hand_that_is_nothing_of_ours_is_6_and_says_why() {
    let fixture = Fixture::new();
    let why = |name: &str, bytes: &[u8]| {
        let file = fixture.path(name);
        fs::write(&file, bytes).unwrap();
        let (code, answer) = json(&["verify", text(&file)]);
        assert_eq!(code, 6, "{answer}");
        answer["problems"][0]["why"].as_str().unwrap().to_owned()
    };
    assert_eq!(why("empty.db", b""), "it is empty (0 bytes)");
    assert!(why("notes.txt", b"hello").starts_with("it is not ours"));
    // Beside good ones it is told too; checksums, which `*` names as well, are passed over.
    let wal = fixture.path("backups/wal");
    let (code, _) = json(&["verify", text(&wal), text(&fixture.path("notes.txt"))]);
    assert_eq!(code, 6);
    let sum = fixture.path("backups/wal/x.sha256");
    fs::write(&sum, "00  x").unwrap();
    assert_eq!(json(&["verify", text(&wal), text(&sum)]).0, 0);
    // A folder is no segment.
    let (code, answer) = json(&["wal", "inspect", text(&wal)]);
    let error = answer["error"].as_str().unwrap();
    assert!(code == 2 && error.contains("udbctl wal list"), "{error}");
}

#[test]
fn a_stderr_that_cannot_be_written_changes_no_exit_code() {
    let status = std::process::Command::new("sh")
        .args([
            "-c",
            r#"exec "$0" status --url https://localhost:1 2>/dev/full"#,
        ])
        .arg(env!("CARGO_BIN_EXE_udbctl"))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_named_pipe_among_the_files_is_6_and_not_waited_for() {
    let fixture = Fixture::new();
    let pipe = fixture.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let (code, answer) = json(&["verify", text(&pipe)]);
    assert_eq!(code, 6, "{answer}");
    assert!(
        answer.to_string().contains("not a regular file"),
        "{answer}"
    );
}
