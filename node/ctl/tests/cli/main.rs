//! `udbctl` as a person or a script meets it: the real binary, real files, exit codes, JSON, text.

#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "black-box tests handle files and processes as a person would"
)]

mod exit_codes;
mod fixture;
mod golden;
mod restores;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `udbctl` with these arguments; no variable of the environment speaks to it.
fn udbctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_udbctl"))
        .args(args)
        .env_remove("UNISONDB_URL")
        .env_remove("UNISONDB_TOKEN")
        .output()
        .unwrap()
}

/// The exit code, and the one JSON object on stdout.
fn json(args: &[&str]) -> (i32, Value) {
    let mut all = vec!["--json"];
    all.extend(args);
    let out = udbctl(&all);
    let stdout = String::from_utf8(out.stdout).unwrap();
    assert!(
        stdout.ends_with('\n') && stdout.lines().count() == 1,
        "{args:?}: {stdout:?}"
    );
    let value: Value = serde_json::from_str(&stdout).unwrap();
    let code = out.status.code().unwrap();
    if code != 0 {
        assert_eq!(value["exitCode"], code, "{value}");
        assert!(
            value["error"].as_str().is_some_and(|e| !e.is_empty()),
            "{value}"
        );
    }
    (code, value)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
