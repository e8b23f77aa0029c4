//! What `deploy/` ships is sound: scripts to shellcheck, units and calendars to systemd, alert rules
//! to the names of the HTTP contract. And the check bites: the document's own timer, which systemd
//! refuses, is refused.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use unisondb_tests::document;
use unisondb_tests::repository::{root, text};
use unisondb_tests::sandbox::require;

#[test]
fn scripts_and_units_are_sound() {
    require(&[("shellcheck", "shellcheck"), ("systemd-analyze", "systemd")]);
    let out = Command::new(root().join("deploy/verify")).output().unwrap();
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}");
}

#[test]
fn the_check_of_units_would_have_found_the_timer_of_the_document() {
    require(&[("systemd-analyze", "systemd")]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documented-timer");
    fs::create_dir_all(&folder).unwrap();
    let timer = folder.join("unison-backup.timer");
    fs::write(&timer, document::BACKUP_TIMER.text()).unwrap();
    let service = document::BACKUP_SERVICE
        .text()
        .replace("/usr/local/bin/unison-backup.sh", "/bin/true");
    fs::write(folder.join("unison-backup.service"), service).unwrap();
    let out = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&timer)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        said.contains("Failed to parse calendar specification"),
        "{said}"
    );
}

#[test]
fn alert_rules_use_names_of_the_contract() {
    let rules = text(Path::new("deploy/alerts/unisondb.rules.yml"));
    let contract = [
        "backup_success_total",
        "backup_failures_total",
        "backup_last_timestamp_seconds",
        "backup_bytes_total",
        "backup_last_size_bytes",
        "backup_consecutive_failures",
        "backup_duration_seconds",
        "wal_segment_gap",
        "wal_oldest_segment_id",
        "wal_newest_sealed_segment_id",
    ];
    let mut used = 0;
    let mut inside = false;
    for line in rules.lines() {
        let indent = line.trim_start();
        inside = indent.starts_with("expr:") || inside && !indent.contains(": ");
        for word in line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|_| inside)
        {
            if word.starts_with("backup_") || word.starts_with("wal_") {
                assert!(contract.contains(&word), "{word}");
                used += 1;
            }
        }
    }
    assert!(used >= 4, "the four alerts of the documentation");
}

#[test]
fn the_unit_starts_the_node_as_the_documentation_lays_it_out() {
    let unit = text(Path::new("deploy/systemd/unisondb.service"));
    for line in [
        "Type=notify",
        "User=unison",
        "ExecStart=/usr/local/bin/unisondb --data-dir /var/unison/data",
    ] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
    let folders = text(Path::new("deploy/tmpfiles/unisondb.conf"));
    for folder in [
        "/var/unison/data",
        "/var/lib/unison",
        "/var/backups",
        "/var/log/unison-backups.log",
    ] {
        assert!(
            folders
                .lines()
                .any(|l| l.split_whitespace().nth(1) == Some(folder)),
            "{folder}"
        );
    }
}

/// The scripts of a workflow file: what is indented below each `run: |`.
fn scripts(workflow: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = workflow.lines().collect();
    let starts = (0..lines.len()).filter(|n| lines[*n].trim() == "run: |");
    starts
        .map(|n| {
            let below = lines[n + 1..].iter();
            let script = below.take_while(|l| l.is_empty() || indent(l) > indent(lines[n]));
            script.map(|l| format!("{}\n", l.trim())).collect()
        })
        .collect()
}

#[test]
fn the_scripts_of_the_workflow_are_sound_and_what_they_call_is_there() {
    require(&[("shellcheck", "shellcheck")]);
    let workflow = text(Path::new("deploy/ci/github-actions.yml"));
    let scripts = scripts(&workflow);
    assert!(scripts.len() >= 6, "{}", scripts.len());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("workflow.sh");
    for script in &scripts {
        fs::write(&file, format!("#!/usr/bin/env bash\n{script}")).unwrap();
        let out = Command::new("shellcheck").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{said}");
    }
    // Every command and option of the simulator is one that it has: its documentation names them.
    let known = text(Path::new("docs/testing.md")) + &text(Path::new(".ci/run"));
    let calls = scripts.iter().flat_map(|s| s.lines());
    let mut calls = calls
        .filter_map(|l| l.split_once("unisondb-sim "))
        .peekable();
    assert!(calls.peek().is_some());
    for (before, call) in calls.filter(|(before, _)| before.ends_with('/')) {
        let words = call.split_whitespace();
        let names = words.filter(|w| w.starts_with("--") || Some(*w) == call.split(' ').next());
        for name in names {
            assert!(known.contains(name), "{before}unisondb-sim {call}: {name}");
        }
    }
}
