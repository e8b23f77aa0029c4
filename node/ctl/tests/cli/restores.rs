//! What a restore puts in place, and what looking leaves alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::fixture::{Fixture, value};
use super::{json, text, udbctl};

fn run(args: &[String]) -> (i32, Value) {
    json(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_dry_run_says_what_a_restore_then_does() {
    let fixture = Fixture::new();
    let (code, dry) = run(&fixture.restore("data", &["--dry-run", "--to-lsn", "20"]));
    assert_eq!(code, 0, "{dry}");
    assert!(!fixture.path("data").exists(), "a dry run writes nothing");
    assert_eq!(dry["dryRun"], true);
    assert_eq!(dry["restored"], Value::Null);
    let (code, done) = run(&fixture.restore("data", &["--to-lsn", "20"]));
    assert_eq!(code, 0, "{done}");
    assert_eq!(done["plan"], dry["plan"]);
    assert_eq!(done["plan"]["target"]["kind"], "lsn");
    assert_eq!(done["plan"]["reached"]["lsn"], 20);
    assert_eq!(done["restored"]["lsn"], 20);
    assert_eq!(done["restored"]["firstSegment"], 1_000_000);
    assert_eq!(done["restored"]["home"], text(&fixture.path("data/users")));
    // Of the record: LSN 1 begins the lineage, 13 and 14 seal and check the first segment.
    assert!(value(&fixture.path("data"), "key-0").is_some());
}

#[test]
fn force_moves_the_old_namespace_to_trash_and_keeps_it_whole() {
    let fixture = Fixture::new();
    assert_eq!(run(&fixture.restore("data", &["--to-lsn", "5"])).0, 0);
    let early = value(&fixture.path("data"), "key-3");
    let (code, done) = run(&fixture.restore("data", &["--force"]));
    assert_eq!(code, 0, "{done}");
    assert_eq!(done["restored"]["firstSegment"], 2_000_000);
    let moved = PathBuf::from(done["restored"]["movedTo"].as_str().unwrap());
    assert!(moved.starts_with(fixture.path("data/trash")));
    assert_ne!(value(&fixture.path("data"), "key-3"), early);
    let names: Vec<_> = fs::read_dir(fixture.path("data"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|n| n.contains('.')), "{names:?}");
}

#[test]
fn a_snapshot_alone_a_log_alone_and_both_give_the_same_state() {
    let fixture = Fixture::new();
    let snapshot = fixture.path("backups/snapshots/s.db");
    let wal = fixture.path("backups/wal");
    let restore = |data: &str, more: &[&str]| {
        let data = fixture.path(data);
        let mut args = vec!["restore", "--namespace", "users", "--data-dir", text(&data)];
        args.extend(more);
        let (code, done) = json(&args);
        assert_eq!(code, 0, "{done}");
        done
    };
    let base = restore("a", &["--btree", text(&snapshot)]);
    let lsn = base["restored"]["lsn"].to_string();
    let log = restore("b", &["--wal", text(&wal), "--to-lsn", &lsn]);
    assert_eq!(log["plan"]["base"], Value::Null);
    assert_eq!(log["restored"]["digest"], base["restored"]["digest"]);
    let both = restore("c", &["--btree", text(&snapshot), "--wal", text(&wal)]);
    let all = restore("d", &["--wal", text(&wal)]);
    assert_eq!(both["restored"]["digest"], all["restored"]["digest"]);
    assert_eq!(both["restored"]["lsn"], fixture.end.get());
    assert_eq!(value(&fixture.path("c"), "key-4"), Some("39".to_owned()));
}

/// Every file below `folder`: bytes and time of the last change.
fn state_of(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(state_of(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            all.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    all
}

#[test]
fn looking_at_a_live_directory_changes_nothing_in_it() {
    let fixture = Fixture::new();
    let before = state_of(fixture.root.path());
    let live = fixture.path("live");
    let wal = fixture.path("live/wal");
    let backups = fixture.path("backups");
    let active = fixture.path("live/wal/000000005.wal");
    for args in [
        &["wal", "list", text(&live)][..],
        &["wal", "list", text(&wal)],
        &["wal", "stats", text(&live)],
        &["wal", "inspect", text(&active)],
        &["wal", "inspect", "--records", text(&active)],
        &["verify", text(&backups), text(&wal)],
    ] {
        let out = udbctl(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {out:?}");
    }
    assert!(state_of(fixture.root.path()) == before);
    let (_, listing) = json(&["wal", "list", text(&live)]);
    let states: Vec<_> = listing["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["state"].clone())
        .collect();
    assert_eq!(states, ["sealed", "sealed", "sealed", "sealed", "active"]);
}

#[test]
fn inspect_gives_first_and_last_time_and_lsn_of_each_file() {
    let fixture = Fixture::new();
    let (one, two) = (
        fixture.path("backups/wal/000000001.wal"),
        fixture.path("backups/wal/000000002.wal"),
    );
    let out = udbctl(&["wal", "inspect", "--json", text(&one), text(&two)]);
    let lines: Vec<Value> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["firstLsn"], 1);
    assert_eq!(lines[0]["firstTime"], "2025-01-01T00:00:00.000000Z");
    assert_eq!(lines[0]["sealed"], true);
    assert_eq!(lines[0]["kinds"]["user"], 10);
    let next = lines[0]["lastLsn"].as_u64().unwrap() + 1;
    assert_eq!(lines[1]["firstLsn"], next);
    assert!(lines[1]["lastTime"].as_str() > lines[0]["lastTime"].as_str());
    assert_eq!(lines[1]["predecessor"]["chain"], lines[0]["chain"]);

    let out = udbctl(&["wal", "inspect", "--json", "--records", text(&one)]);
    let out = String::from_utf8(out.stdout).unwrap();
    let records: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        records.len() as u64,
        lines[0]["records"].as_u64().unwrap() + 1
    );
    assert_eq!(
        (&records[1]["lsn"], &records[1]["kind"]),
        (&2.into(), &"user".into())
    );
}
