//! `cargo test` builds the simulator without the flag that makes it deterministic: it must refuse to run.
#![allow(clippy::unwrap_used)]

use std::process::Command;

// With the flag it runs.
#[cfg(not(tokio_unstable))]
#[test]
fn a_build_that_cannot_repeat_a_run_refuses_and_says_why() {
    let refused = Command::new(env!("CARGO_BIN_EXE_unisondb-sim"))
        .args(["replay", "1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("tokio_unstable"), "{said}");
}

#[test]
fn a_check_of_backups_runs_no_simulation_and_so_needs_no_flag() {
    let folder = tempfile::tempdir().unwrap();
    for (path, wanted) in [("", "holds no backup"), ("absent", "no such folder")] {
        let refused = Command::new(env!("CARGO_BIN_EXE_unisondb-sim"))
            .arg("check")
            .arg(folder.path().join(path))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted), "{said}");
        assert!(!said.contains("tokio_unstable"), "{said}");
    }
}
