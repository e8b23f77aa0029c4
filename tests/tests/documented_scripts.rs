//! The backup scripts of the user documentation, byte for byte, against a real node; what those that
//! cannot work do instead; and the shipped scripts doing what was meant. Restores: `documented_restores.rs`.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use unisondb_tests::document;
use unisondb_tests::sandbox::{Ended, Sandbox};

const ROOT: &str = "/var/unison/data/backups/users";

fn node(name: &str) -> Sandbox {
    Sandbox::with_node(
        env!("CARGO_TARGET_TMPDIR"),
        env!("CARGO_BIN_EXE_notify-start"),
        name,
    )
}

/// The names below a folder of the backup root, one a line.
fn listed(sandbox: &mut Sandbox, folder: &str) -> Vec<String> {
    let found = sandbox.sh(&format!(
        "cd {ROOT}/{folder} 2>/dev/null && find . -type f | sort || true"
    ));
    found
        .ok()
        .out
        .lines()
        .map(|l| l.trim_start_matches("./").to_owned())
        .collect()
}

fn wal_names(sandbox: &mut Sandbox, folder: &str) -> Vec<String> {
    let mut names = listed(sandbox, folder);
    names.retain(|n| n.ends_with(".wal"));
    names
}

fn shipped(sandbox: &mut Sandbox, script: &str) -> Ended {
    sandbox.run(&format!("bash /mnt/deploy/{script}"))
}

#[test]
fn the_examples_of_the_endpoints_answer_as_written() {
    let mut sandbox = node("examples");
    sandbox.now("2025-01-08 09:00:00");
    sandbox.sh("put a 1").ok();

    // Nothing lies above segment 100: an answer, not an error.
    let answer = sandbox.documented(document::WAL_EXAMPLE).ok().json();
    assert_eq!(answer["backups"], json!([]));
    assert_eq!(
        listed(&mut sandbox, "wal"),
        [""; 0],
        "no folder for nothing"
    );

    for (script, path) in [
        (
            document::SNAPSHOT_EXAMPLE,
            "snapshots/users-20250108.snapshot",
        ),
        (document::DAILY_SNAPSHOT, "daily/snapshot-20250108.db"),
        (document::BASELINE, "weekly/snapshot-20250108.db"),
    ] {
        let answer = sandbox.documented(script).ok().json();
        assert_eq!(answer["path"], format!("{ROOT}/{path}"), "{}", script.name);
        let size = sandbox.sh(&format!("stat -c %s {ROOT}/{path}")).ok().out;
        assert_eq!(answer["bytes"].to_string(), size.trim(), "{}", script.name);
        // The same day again replaces the file.
        sandbox.documented(script).ok();
        sandbox.sh(&format!("udbctl verify {ROOT}/{path}")).ok();
    }
    let left = listed(&mut sandbox, ".");
    assert!(left.iter().all(|n| !n.ends_with(".tmp")), "{left:?}");
}

#[test]
fn the_hourly_incremental_goes_on_from_hour_to_hour() {
    let mut sandbox = node("hourly");
    let state = |s: &mut Sandbox| {
        s.sh("cat /var/backups/last_wal_id.txt")
            .ok()
            .out
            .trim()
            .to_owned()
    };

    sandbox.now("2025-01-08 10:00:00");
    sandbox.sh("put a 1").ok();
    sandbox.documented(document::HOURLY).ok();
    assert_eq!(state(&mut sandbox), "1");
    assert_eq!(
        wal_names(&mut sandbox, "wal/20250108-10"),
        ["000000001.wal"]
    );

    sandbox.now("2025-01-08 11:00:00");
    sandbox.sh("put b 2").ok();
    sandbox.documented(document::HOURLY).ok();
    assert_eq!(state(&mut sandbox), "2");
    assert_eq!(
        wal_names(&mut sandbox, "wal/20250108-11"),
        ["000000002.wal"]
    );

    // A quiet hour: jq writes `null`, and makes no folder.
    sandbox.now("2025-01-08 12:00:00");
    sandbox.documented(document::HOURLY).ok();
    assert_eq!(state(&mut sandbox), "null");
    assert_eq!(wal_names(&mut sandbox, "wal/20250108-12"), [""; 0]);

    // `null` is sent and means everything: nothing is lost, and it goes on.
    sandbox.now("2025-01-08 13:00:00");
    sandbox.sh("put c 3").ok();
    sandbox.documented(document::HOURLY).ok();
    assert_eq!(state(&mut sandbox), "3");
    let all = ["000000001.wal", "000000002.wal", "000000003.wal"];
    assert_eq!(wal_names(&mut sandbox, "wal/20250108-13"), all);
    sandbox
        .sh(&format!("udbctl verify {ROOT}/wal/20250108-13"))
        .ok();
    // The same segment is the same file in every folder.
    sandbox
        .sh(&format!(
            "cmp {ROOT}/wal/20250108-10/000000001.wal {ROOT}/wal/20250108-13/000000001.wal"
        ))
        .ok();
}

#[test]
fn the_cron_archiver_ships_what_is_new_until_an_upload_fails() {
    let mut sandbox = node("archiver");
    let prefix = "backups/unison/users/wal/";
    let state = |s: &mut Sandbox| {
        s.sh("jq .lastSegmentId /var/lib/unison/wal-archive-state.json")
            .ok()
            .out
    };

    sandbox.sh("put a 1").ok();
    sandbox.documented(document::ARCHIVER).ok();
    sandbox.documented(document::ARCHIVER).ok();
    assert_eq!(state(&mut sandbox).trim(), "1");
    assert_eq!(sandbox.s3(prefix), [format!("{prefix}000000001.wal.gz")]);
    sandbox.sh("put b 2").ok();
    sandbox.documented(document::ARCHIVER).ok();
    assert_eq!(sandbox.s3(prefix).len(), 2);
    sandbox
        .sh("for id in 1 2; do
                 curl -fsS $api/wal/segments/$id >pulled
                 zcat /mnt/s3/backups/unison/users/wal/00000000$id.wal.gz | cmp - pulled
             done")
        .ok();

    // Script bug: the state is saved before the upload. What fails to arrive never does.
    sandbox.sh("put c 3").ok();
    sandbox.s3_answers(false);
    sandbox.documented(document::ARCHIVER);
    sandbox.s3_answers(true);
    assert_eq!(state(&mut sandbox).trim(), "3");
    sandbox.documented(document::ARCHIVER).ok();
    assert_eq!(
        sandbox.s3(prefix).len(),
        2,
        "the hole that the shipped script does not leave"
    );
}

#[test]
fn the_shipped_archiver_leaves_no_hole_when_an_upload_fails() {
    let mut sandbox = node("shipped-archiver");
    let prefix = "backups/unison/users/wal/";
    sandbox
        .sh("put a 1; curl -fsS -X POST $api/wal/seal >/dev/null; put b 2")
        .ok();
    sandbox.s3_answers(false);
    assert_ne!(shipped(&mut sandbox, "unison-wal-archive.sh").code, 0);
    sandbox.s3_answers(true);
    shipped(&mut sandbox, "unison-wal-archive.sh").ok();
    let two = [
        format!("{prefix}000000001.wal.gz"),
        format!("{prefix}000000002.wal.gz"),
    ];
    assert_eq!(sandbox.s3(prefix), two);

    let said = shipped(&mut sandbox, "unison-wal-archive.sh").ok().out;
    assert!(said.contains("0 segments shipped, the last is 2"), "{said}");
    // The node is away: said, and nothing forgotten.
    sandbox.sh("systemctl stop unisondb").ok();
    let ended = shipped(&mut sandbox, "unison-wal-archive.sh");
    assert!(
        ended.code != 0 && ended.err.contains("is the node running?"),
        "{}",
        ended.err
    );
    sandbox
        .sh("jq -e '.lastSegmentId == 2' /var/lib/unison/wal-archive-state-users.json")
        .ok();
}

#[test]
fn the_backup_script_takes_a_snapshot_at_midnight_and_segments_on_every_run() {
    let mut sandbox = node("backup");
    sandbox.documented(document::ENABLE_TIMER).ok();

    sandbox.now("2025-01-08 00:00:00");
    sandbox.sh("put a 1").ok();
    let said = sandbox.documented(document::BACKUP).ok().out;
    assert!(said.ends_with("Backup completed successfully\n"), "{said}");
    sandbox.now("2025-01-08 06:00:00");
    sandbox.sh("put b 2").ok();
    sandbox.documented(document::BACKUP).ok();
    sandbox.now("2025-01-08 06:06:00");
    sandbox.documented(document::BACKUP).ok();

    let keys = sandbox.s3("backups/unison/users/");
    assert_eq!(
        keys,
        [
            "backups/unison/users/snapshots/btree-20250108-0000.db.zst",
            "backups/unison/users/wal/wal-20250108-0000.tar.gz",
            "backups/unison/users/wal/wal-20250108-0600.tar.gz",
        ]
    );
    let names = |s: &mut Sandbox, archive: &str| {
        s.sh(&format!(
            "tar -tzf /mnt/s3/backups/unison/users/wal/{archive} | grep 'wal$'"
        ))
        .ok()
        .out
    };
    // The snapshot sealed segment 1: the run's own WAL backup has it already.
    assert_eq!(
        names(&mut sandbox, "wal-20250108-0000.tar.gz"),
        "wal/20250108-0000/000000001.wal\n"
    );
    assert_eq!(
        names(&mut sandbox, "wal-20250108-0600.tar.gz"),
        "wal/20250108-0600/000000002.wal\n"
    );
}

#[test]
fn the_shipped_backup_script_takes_the_day_s_first_run_and_repeats_a_failed_upload() {
    let mut sandbox = node("shipped-backup");
    // Not in the minute 00:00, and the first upload fails.
    sandbox.now("2025-01-08 00:07:00");
    sandbox.sh("put a 1").ok();
    sandbox.s3_answers(false);
    assert_ne!(shipped(&mut sandbox, "unison-backup.sh").code, 0);
    sandbox.s3_answers(true);
    sandbox.now("2025-01-08 06:00:00");
    sandbox.sh("put b 2").ok();
    shipped(&mut sandbox, "unison-backup.sh").ok();
    sandbox.now("2025-01-08 12:00:00");
    shipped(&mut sandbox, "unison-backup.sh").ok();
    assert_eq!(
        sandbox.s3("backups/unison/users/"),
        [
            "backups/unison/users/snapshots/btree-20250108-0600.db.json",
            "backups/unison/users/snapshots/btree-20250108-0600.db.zst",
            "backups/unison/users/wal/wal-20250108-0600.tar.gz",
        ]
    );
    // Both segments are in it: that of the failed run, too.
    let names = sandbox
        .sh("tar -tzf /mnt/s3/backups/unison/users/wal/*.tar.gz | wc -l")
        .ok()
        .out;
    assert_eq!(names.trim(), "2");
}

#[test]
fn the_s3_script_leaves_an_encrypted_snapshot_and_nothing_here() {
    let mut sandbox = node("s3");
    sandbox.now("2025-01-08 09:00:00");
    sandbox
        .sh("put a 1
             gpg --batch --passphrase '' --quick-gen-key backup@company.com default default never
             gpg --batch --passphrase '' --quick-gen-key backup-key@company.com default default never")
        .ok();
    sandbox.documented(document::S3).ok();
    let key = "company-backups/unison/users/snapshots/btree-20250108.db.zst.gpg";
    assert_eq!(sandbox.s3(""), [key]);
    assert_eq!(listed(&mut sandbox, "snapshots"), [""; 0]);
    // Decrypted and decompressed it is the snapshot that it was.
    sandbox
        .sh(&format!(
            "gpg --batch -q -d /mnt/s3/{key} | zstd -q -d -o back.db && udbctl verify back.db"
        ))
        .ok();
    sandbox.sh("mv back.db backup.db").ok();
    sandbox.documented(document::ENCRYPT).ok();
    sandbox.sh("test -s backup.db.gpg").ok();
}

#[test]
fn the_audit_log_gets_one_line_a_call() {
    let mut sandbox = node("audit");
    sandbox.sh("put a 1").ok();
    for _ in 0..2 {
        sandbox.documented(document::AUDIT).ok();
    }
    let log = sandbox.sh("cat /var/log/unison-backups.log").ok().out;
    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    for line in lines {
        assert_eq!(
            line["backups"][0]["segmentId"], 1,
            "no afterSegmentId: all of them, each time"
        );
    }
    // The node keeps its own record of each call.
    let own = sandbox
        .node_log()
        .lines()
        .filter(|l| l.contains("wal/archive"))
        .count();
    assert!(own >= 2, "{}", sandbox.node_log());
}

#[test]
fn the_metrics_are_there_from_the_first_scrape_and_count() {
    let mut sandbox = node("metrics");
    let value = |out: &str, name: &str, kind: &str| -> f64 {
        let line = out.lines().find(|l| {
            l.starts_with(name) && l.contains("users") && l.contains(&format!("kind=\"{kind}\""))
        });
        line.unwrap_or_else(|| panic!("{name} {kind}:\n{out}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let out = sandbox.documented(document::METRICS).ok().out;
    for name in [
        "backup_success_total",
        "backup_last_timestamp_seconds",
        "backup_bytes_total",
    ] {
        assert!(
            out.lines()
                .any(|l| l.starts_with(name) && l.ends_with(" 0")),
            "{name}:\n{out}"
        );
        assert!(out.contains(&format!("# TYPE {name} ")), "{name}:\n{out}");
    }
    sandbox.sh("put a 1").ok();
    for script in [document::AUDIT, document::AUDIT, document::DAILY_SNAPSHOT] {
        sandbox.documented(script).ok();
    }
    let out = sandbox.documented(document::METRICS).ok().out;
    assert!(
        (value(&out, "backup_success_total", "wal") - 2.0).abs() < 0.1,
        "{out}"
    );
    assert!(
        (value(&out, "backup_success_total", "btree") - 1.0).abs() < 0.1,
        "{out}"
    );
    assert!(value(&out, "backup_bytes_total", "btree") > 4096.0, "{out}");
    let last = value(&out, "backup_last_timestamp_seconds", "btree");

    // Kept over a restart.
    sandbox.sh("systemctl restart unisondb").ok();
    let out = sandbox.documented(document::METRICS).ok().out;
    assert!(
        (value(&out, "backup_last_timestamp_seconds", "btree") - last).abs() < 1.0,
        "{out}"
    );
    let all = sandbox
        .sh("curl -fsS http://localhost:8080/metrics")
        .ok()
        .out;
    for name in [
        "backup_failures_total",
        "backup_last_size_bytes",
        "backup_consecutive_failures",
        "backup_duration_seconds",
        "wal_segment_gap",
        "wal_oldest_segment_id",
        "wal_newest_sealed_segment_id",
    ] {
        assert!(all.lines().any(|l| l.starts_with(name)), "{name}:\n{all}");
    }
}

/// The answer to a WAL backup, whatever its status; and the status.
fn wal_backup(sandbox: &mut Sandbox, folder: &str) -> (Value, String) {
    let ended = sandbox.sh(&format!(
        "curl -sS -w '%{{stderr}}%{{http_code}}' -X POST $api/wal/backup -d '{{\"backupDir\":\"{folder}\"}}'"
    ));
    let answer = ended.json();
    (answer, ended.err)
}

#[test]
fn a_folder_that_cannot_be_written_is_named_and_the_documented_cure_helps() {
    let mut sandbox = node("permission");
    sandbox.sh("put a 1").ok();
    sandbox.sh(&format!("mkdir -p {ROOT}")).ok();
    sandbox.documented(document::ACCESS).ok();
    sandbox.sh(&format!("chmod 500 {ROOT}")).ok();
    let (answer, status) = wal_backup(&mut sandbox, "wal");
    assert_eq!(
        answer,
        json!({"error": "permission denied: /var/unison/data/backups/users/wal"})
    );
    assert_eq!(status, "500");
    sandbox.documented(document::FIX_PERMISSIONS).ok();
    let (answer, status) = wal_backup(&mut sandbox, "wal");
    assert_eq!(
        (answer["backups"][0]["segmentId"].clone(), status.as_str()),
        (json!(1), "200")
    );
    // The operator's mode stays.
    let mode = sandbox.sh("stat -c %a /var/unison/data/backups").ok().out;
    assert_eq!(mode.trim(), "755");
}

#[test]
fn a_full_backup_volume_is_said_and_leaves_the_node_well() {
    let mut sandbox = node("full-disk");
    sandbox
        .sh("mkdir -p /var/unison/data/backups
             mount -t tmpfs -o size=512k,mode=700 tmpfs /var/unison/data/backups
             for i in 1 2 3 4; do
                 head -c 300000 /dev/urandom >blob
                 curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary @blob $api/kv/blob$i >/dev/null
             done")
        .ok();
    for _ in 0..2 {
        let (answer, status) = wal_backup(&mut sandbox, "wal/full");
        assert_eq!(answer, json!({"error": "no space left on device"}));
        assert_eq!(status, "500");
        let ended = sandbox.sh("curl -sS -X POST $api/btree/backup -d '{\"path\":\"s/full.db\"}'");
        assert_eq!(ended.json(), json!({"error": "no space left on device"}));
    }
    assert_eq!(listed(&mut sandbox, "."), [""; 0], "nothing is left behind");
    sandbox.sh("put after 1; [ \"$(get after)\" = 1 ]").ok();
    sandbox.documented(document::FIX_SPACE).ok();

    // A larger volume, no restart.
    sandbox.sh("umount /var/unison/data/backups").ok();
    let (answer, status) = wal_backup(&mut sandbox, "wal/full");
    assert_eq!(status, "200", "{answer}");
    sandbox.sh(&format!("udbctl verify {ROOT}/wal/full")).ok();
}
