//! `unisondb-sim`: the product in one thread, with a seed for everything that goes wrong; proves that
//! every backup restores to exactly the state it claims. What it does and how to read it:
//! `docs/testing.md`.
//!
//! Exit codes: 0 nothing found, 1 something found, 2 wrong usage or a plan that is none.

mod check;
mod commands;
mod invariants;
mod oracle;
mod page;
mod plan;
mod report;
mod restores;
mod run;
mod timeline;
mod trace;
mod workload;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = commands::Arguments::parse();
    if !cfg!(tokio_unstable) && arguments.simulates() {
        eprintln!(
            "this build cannot repeat a run: without --cfg tokio_unstable nobody seeds the order in which tasks run. Build it with RUSTFLAGS=\"--cfg tokio_unstable\" CARGO_TARGET_DIR=target/sim cargo build --release -p unisondb-sim (or `just sim`)"
        );
        return ExitCode::from(2);
    }
    match commands::run(arguments) {
        Ok(commands::Found::Nothing) => ExitCode::SUCCESS,
        Ok(commands::Found::Something) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}
