//! The restore scripts of the user documentation, byte for byte, against a real node: full restore,
//! point-in-time recovery (what the page's script does, and the shipped one beside it), the drill,
//! and what a start says of files that it cannot use.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use unisondb_tests::document;
use unisondb_tests::sandbox::{Ended, Sandbox};

fn node(name: &str) -> Sandbox {
    Sandbox::with_node(
        env!("CARGO_TARGET_TMPDIR"),
        env!("CARGO_BIN_EXE_notify-start"),
        name,
    )
}

fn shipped(sandbox: &mut Sandbox, script: &str) -> Ended {
    sandbox.run(&format!("bash /mnt/deploy/{script}"))
}

/// The value of a key.
#[track_caller]
fn value(sandbox: &mut Sandbox, key: &str) -> String {
    sandbox
        .sh(&format!("get {key}"))
        .ok()
        .out
        .trim_end()
        .to_owned()
}

/// A snapshot in S3 under the name that the full restore of the page downloads.
fn snapshot_to_s3(sandbox: &mut Sandbox, name: &str) {
    sandbox
        .sh(&format!(
            "file=$(curl -fsS -X POST $api/btree/backup -d '{{\"path\":\"out/{name}.db\"}}' | jq -r .path)
             zstd -q -f \"$file\" -o {name}.db.zst
             aws s3 cp {name}.db.zst s3://backups/unison/users/snapshots/"
        ))
        .ok();
}

#[test]
fn a_full_restore_replays_the_log_that_is_still_there() {
    let mut sandbox = node("full-restore");
    sandbox.sh("put test-key before").ok();
    snapshot_to_s3(&mut sandbox, "btree-20250108");
    sandbox.sh("put test-key after; crash").ok();

    let answer = sandbox.documented(document::FULL_RESTORE).ok().json();
    assert_eq!(answer["found"], true, "{answer}");
    assert_eq!(
        value(&mut sandbox, "test-key"),
        "after",
        "nothing acknowledged is lost"
    );
    // It goes on in the same history.
    sandbox.sh("put more 1; curl -fsS -X POST $api/wal/backup -d '{\"backupDir\":\"w\"}' | jq -e '.backups[-1].segmentId < 1000000'").ok();
}

#[test]
fn a_full_restore_after_the_loss_of_everything_serves_the_snapshot_and_takes_writes() {
    let mut sandbox = node("full-loss");
    sandbox.sh("put test-key kept").ok();
    snapshot_to_s3(&mut sandbox, "btree-20250108");
    sandbox
        .sh("put test-key lost; crash; rm -rf /var/unison/data/users")
        .ok();

    let answer = sandbox.documented(document::FULL_RESTORE).ok().json();
    assert_eq!(answer["found"], true, "{answer}");
    assert_eq!(value(&mut sandbox, "test-key"), "kept");
    sandbox.sh("put new 1; crash").ok();
    sandbox
        .sh("systemctl start unisondb; [ \"$(get new)\" = 1 ]")
        .ok();
    // P12: the next segment lies above every id that any script may remember.
    sandbox
        .sh("curl -fsS -X POST $api/wal/backup -d '{\"afterSegmentId\":999,\"backupDir\":\"w\"}' >answer
             jq -e '.backups[-1].segmentId >= 1000000' answer")
        .ok();
}

#[test]
fn the_shipped_full_restore_keeps_what_it_replaces() {
    let mut sandbox = node("shipped-full-restore");
    sandbox.now("2025-01-08 03:00:00");
    sandbox.sh("put test-key before").ok();
    shipped(&mut sandbox, "unison-backup.sh").ok();
    sandbox.sh("put test-key after").ok();
    shipped(&mut sandbox, "unison-full-restore.sh").ok();
    assert_eq!(value(&mut sandbox, "test-key"), "after");
    sandbox.sh("ls /var/unison/data/trash/*/data.mdb").ok();

    // Not a snapshot: refused before the node is stopped.
    sandbox
        .sh(
            "zstd -q -f /mnt/unisondb.service -o btree-20250109-0000.db.zst
             aws s3 cp btree-20250109-0000.db.zst s3://backups/unison/users/snapshots/",
        )
        .ok();
    assert_ne!(shipped(&mut sandbox, "unison-full-restore.sh").code, 0);
    assert_eq!(value(&mut sandbox, "test-key"), "after");
}

/// A history of four values of `x`: 1 in the snapshot, 2 and 3 in the WAL of 06:00, 4 nowhere but
/// here. Gives the moment between 2 and 3.
fn history(sandbox: &mut Sandbox, backup: &mut dyn FnMut(&mut Sandbox)) -> String {
    sandbox.now("2025-01-08 00:00:00");
    sandbox.sh("put x 1").ok();
    backup(sandbox);
    sandbox.sh("put x 2; sleep 0.05").ok();
    let moment = sandbox
        .sh("/bin/date -u +%Y-%m-%dT%H:%M:%S.%6NZ; sleep 0.05")
        .ok()
        .out
        .trim()
        .to_owned();
    sandbox.sh("put x 3").ok();
    sandbox.now("2025-01-08 06:00:00");
    backup(sandbox);
    sandbox.sh("put x 4").ok();
    moment
}

#[test]
fn the_documented_pitr_chooses_no_snapshot_and_replays_all_that_was_archived() {
    let mut sandbox = node("pitr-verbatim");
    history(&mut sandbox, &mut |s| {
        drop(s.documented(document::BACKUP).ok())
    });

    // Script bugs, held on to: the comparison selects nothing, the copy of a database fails, the
    // target goes nowhere. The log reaches back to LSN 1, so the node can and does rebuild from it.
    let ended = sandbox.documented(document::PITR).ok();
    assert!(
        ended.out.lines().any(|l| l == "Using baseline snapshot: "),
        "{}",
        ended.out
    );
    assert!(
        ended.err.contains("cannot stat '/tmp/restore.db'"),
        "{}",
        ended.err
    );
    assert_eq!(
        value(&mut sandbox, "x"),
        "3",
        "everything archived, whatever the target"
    );
    sandbox.sh("put y 1").ok();
}

#[test]
fn the_documented_pitr_over_a_log_with_a_hole_is_refused_by_name() {
    let mut sandbox = node("pitr-hole");
    history(&mut sandbox, &mut |s| {
        drop(s.documented(document::BACKUP).ok())
    });
    sandbox
        .sh("rm /mnt/s3/backups/unison/users/wal/wal-20250108-0000.tar.gz")
        .ok();
    let before = sandbox.node_log().len();
    assert_ne!(
        sandbox.documented(document::PITR).code,
        0,
        "it must not start"
    );
    let said = sandbox.node_log().split_off(before);
    assert!(said.contains("ERROR: database file is corrupted"), "{said}");
    // And nothing was made up: no database beside the log.
    sandbox
        .sh("test ! -e /var/unison/data/users/db/data.mdb")
        .ok();
}

#[test]
fn the_shipped_pitr_restores_to_the_moment() {
    for (backup, state) in [
        ("unison-backup.sh", "wal-state-users.json"),
        ("unison-wal-archive.sh", "wal-archive-state-users.json"),
    ] {
        let mut sandbox = node(&format!("pitr-{backup}"));
        let moment = history(&mut sandbox, &mut |s| {
            // Either flow: tars, or single gzipped segments beside the day's snapshot.
            shipped(s, "unison-backup.sh").ok();
            shipped(s, backup).ok();
        });
        if backup == "unison-wal-archive.sh" {
            sandbox
                .sh("rm /mnt/s3/backups/unison/users/wal/*.tar.gz")
                .ok();
        }
        let said = shipped(&mut sandbox, &format!("unison-pitr-restore.sh {moment}")).ok();
        assert_eq!(value(&mut sandbox, "x"), "2", "{}\n{}", said.out, said.err);
        sandbox.sh("ls -d /var/unison/data/trash/*").ok();

        // Before any write: what is restored from the archive to the latest moment is what was restored,
        // not what was undone.
        if backup == "unison-backup.sh" {
            shipped(&mut sandbox, backup).ok();
            sandbox
                .sh("mkdir -p /tmp/latest; cd /tmp/latest
                     cp /mnt/s3/backups/unison/users/snapshots/*.zst .; zstd -q -d --rm ./*.zst
                     udbctl restore --data-dir /tmp/latest/data --namespace users --from . \
                         --wal /mnt/s3/backups/unison/users/wal --to-latest --json >plan.json
                     [ \"$(jq -r .plan.lineage plan.json)\" = \"$(curl -s -D - -o /dev/null \
                         localhost:8080/api/v1/users/offset | tr -d '\\r' |
                         awk 'tolower($1) == \"x-unison-lineage:\" {print $2}')\" ]")
                .ok();
        }

        // The history has forked: the archiver goes on with its state, and hides nothing.
        sandbox.sh("put x 5").ok();
        shipped(&mut sandbox, backup).ok();
        sandbox
            .sh(&format!(
                "jq -e '.lastSegmentId >= 1000000' /var/lib/unison/{state}"
            ))
            .ok();
    }
}

#[test]
fn the_shipped_pitr_touches_nothing_when_the_moment_is_not_reached() {
    let mut sandbox = node("pitr-short");
    history(&mut sandbox, &mut |s| {
        drop(shipped(s, "unison-backup.sh").ok())
    });
    let ended = shipped(&mut sandbox, "unison-pitr-restore.sh 2099-01-01T00:00:00Z");
    assert_eq!(ended.code, 5, "{}\n{}", ended.out, ended.err);
    assert_eq!(
        value(&mut sandbox, "x"),
        "4",
        "the node was not even stopped"
    );
}

#[test]
fn a_copied_snapshot_and_log_stop_where_recovery_toml_says() {
    let mut sandbox = node("pitr-cp");
    let moment = history(&mut sandbox, &mut |s| {
        drop(s.documented(document::BACKUP).ok())
    });
    sandbox
        .sh(&format!(
            "cd /var/unison/data/users
             systemctl stop unisondb
             rm -rf db/* wal/*
             zstd -q -d /mnt/s3/backups/unison/users/snapshots/btree-20250108-0000.db.zst -o db/data.mdb
             for archive in /mnt/s3/backups/unison/users/wal/*.tar.gz; do
                 tar -xzf $archive -C wal --strip-components=2
             done
             echo 'target_time = \"{moment}\"' >recovery.toml
             systemctl start unisondb"
        ))
        .ok();
    assert_eq!(value(&mut sandbox, "x"), "2");
    sandbox
        .sh("cd /var/unison/data/users; test -e recovery.toml.done; test ! -e recovery.toml")
        .ok();
    // Consumed once: a restart keeps what was written since.
    sandbox
        .sh("put x 6; systemctl restart unisondb; [ \"$(get x)\" = 6 ]")
        .ok();
}

#[test]
fn the_documented_drill_runs_beside_the_server() {
    let mut sandbox = node("drill");
    sandbox.sh("put test-key proof").ok();
    // Script bug: nobody makes `latest`; the test does.
    snapshot_to_s3(&mut sandbox, "latest");
    sandbox.sh("put test-key newer").ok();

    let out = sandbox.documented(document::DRILL).ok().out;
    assert!(
        out.ends_with("Restore test completed successfully\n"),
        "{out}"
    );
    let answers: Vec<serde_json::Value> = out
        .lines()
        .filter(|l| l.starts_with('{'))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(answers.len(), 2, "{out}");
    assert_eq!(
        (&answers[0]["status"], &answers[0]["namespaces"]),
        (&json!("ok"), &json!(["users"]))
    );
    assert_eq!(
        (&answers[1]["found"], &answers[1]["value"]),
        (&json!(true), &json!("cHJvb2Y=")),
        "{out}"
    );
    assert_eq!(
        value(&mut sandbox, "test-key"),
        "newer",
        "the server beside it is untouched"
    );
    sandbox
        .sh("test -z \"$(ls -d /tmp/restore-test-* 2>/dev/null)\"")
        .ok();
}

#[test]
fn the_shipped_drill_compares_and_fails_when_it_should() {
    let mut sandbox = node("shipped-drill");
    sandbox.now("2025-01-08 00:00:00");
    sandbox.sh("put test-key proof").ok();
    shipped(&mut sandbox, "unison-backup.sh").ok();
    let said = shipped(&mut sandbox, "unison-restore-drill.sh test-key")
        .ok()
        .out;
    assert!(said.contains("is as the backup said"), "{said}");
    let ended = shipped(&mut sandbox, "unison-restore-drill.sh no-such-key");
    assert!(
        ended.code != 0 && ended.err.contains("no-such-key"),
        "{}",
        ended.err
    );
    // A backup that says another digest than its snapshot has.
    sandbox
        .sh("cd /mnt/s3/backups/unison/users/snapshots
             jq -c '.digest |= (if startswith(\"0\") then \"1\" else \"0\" end) + .[1:]' *.json >/tmp/j
             cp /tmp/j btree-20250108-0000.db.json")
        .ok();
    let ended = shipped(&mut sandbox, "unison-restore-drill.sh");
    assert!(
        ended.code != 0 && ended.err.contains("the backup said"),
        "{}",
        ended.err
    );
    // A snapshot that is cut.
    sandbox
        .sh("cd /mnt/s3/backups/unison/users/snapshots
             zstd -q -dc *.zst | head -c 9000 | zstd -q -o /tmp/cut.zst
             cp /tmp/cut.zst btree-20250108-0000.db.zst")
        .ok();
    let ended = shipped(&mut sandbox, "unison-restore-drill.sh");
    assert!(
        ended.code != 0 && ended.err.contains("ERROR: database file is corrupted"),
        "{}",
        ended.err
    );
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let mut sandbox = node("corrupted");
    sandbox.sh("put a 1").ok();
    snapshot_to_s3(&mut sandbox, "btree-20250107");
    snapshot_to_s3(&mut sandbox, "btree-20250108");
    sandbox
        .sh("systemctl stop unisondb; zstd -q -d btree-20250108.db.zst -o good.db")
        .ok();
    for (what, make) in [
        ("cut", "head -c $(($(stat -c %s good.db) / 2)) good.db"),
        ("empty", "true"),
        ("still compressed", "cat btree-20250108.db.zst"),
        ("random", "head -c 100000 /dev/urandom"),
    ] {
        let before = sandbox.node_log().len();
        let ended = sandbox.sh(&format!(
            "cd /tmp; rm -rf /var/unison/data/users/db/*; {make} >/var/unison/data/users/db/data.mdb
             sha256sum /var/unison/data/users/db/data.mdb >sum
             ! systemctl start unisondb
             sha256sum --status -c sum"
        ));
        let said = sandbox.node_log().split_off(before);
        assert_eq!(ended.code, 0, "{what}: {}\n{said}", ended.err);
        assert!(
            said.lines()
                .any(|l| l.contains("ERROR: database file is corrupted")),
            "{what}: {said}"
        );
    }
    // The documented cure: look at the checksum, take the one before.
    sandbox.sh("cp good.db backup.db").ok();
    let out = sandbox.documented(document::FIX_CORRUPTED).ok().out;
    assert!(
        out.contains("backup.db\n") && out.trim_end().ends_with("btree-20250108.db.zst"),
        "{out}"
    );
    sandbox
        .sh("rm -rf /var/unison/data/users/db/*
             zstd -q -d btree-20250107.db.zst -o /var/unison/data/users/db/data.mdb
             systemctl start unisondb; [ \"$(get a)\" = 1 ]")
        .ok();
}

#[test]
fn a_database_that_the_service_cannot_open_is_named() {
    let mut sandbox = node("not-ours");
    sandbox.sh("put a 1").ok();
    snapshot_to_s3(&mut sandbox, "btree-20250108");
    // As left by root's cp: the service may read it and not write.
    let before = sandbox.node_log().len();
    sandbox
        .sh("systemctl stop unisondb; rm -rf /var/unison/data/users/db/*
             zstd -q -d btree-20250108.db.zst -o /var/unison/data/users/db/data.mdb
             chmod 444 /var/unison/data/users/db/data.mdb
             ! systemctl start unisondb")
        .ok();
    let said = sandbox.node_log().split_off(before);
    assert!(
        said.contains("permission denied: /var/unison/data/users/db/data.mdb"),
        "{said}"
    );
    sandbox.sh("chmod 644 /var/unison/data/users/db/data.mdb; systemctl start unisondb; [ \"$(get a)\" = 1 ]").ok();
}
