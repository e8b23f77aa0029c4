//! The binaries under test. `UNISON_BIN_DIR` names their folder; otherwise they are built by cargo
//! into the folder and profile that the running test came from, once a process (cargo's own lock
//! keeps two test programs apart), so that a test never runs yesterday's server.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The server.
pub fn unisondb() -> PathBuf {
    binaries().join("unisondb")
}

/// The command line tool.
pub fn udbctl() -> PathBuf {
    binaries().join("udbctl")
}

/// The folder that holds the binaries.
pub fn binaries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| env::var_os("UNISON_BIN_DIR").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    // target/PROFILE/deps/TEST-HASH
    let test = env::current_exe().expect("a program knows where it is");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let target = profile.parent().expect("target/PROFILE");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::repository::root());
    cargo.args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "unisondb-server",
        "-p",
        "unisondb-ctl",
    ]);
    cargo.arg("--bins").arg("--target-dir").arg(target);
    match profile.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => {}
        Some(other) => {
            cargo.args(["--profile", other]);
        }
    }
    // What cargo told the test about the test's own package would make build scripts run again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "OUT_DIR"
        {
            cargo.env_remove(&name);
        }
    }
    let done = cargo.output().expect("cargo can be run");
    assert!(
        done.status.success(),
        "the server and the tool could not be built:\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    profile.to_owned()
}
