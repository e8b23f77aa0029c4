//! The command line tool `udbctl`.
//!
//! | command | does | needs |
//! | --- | --- | --- |
//! | `restore` | brings a namespace back to a record or a moment | the data directory, no server on it |
//! | `verify` | proves files without restoring them | the files |
//! | `wal list`, `inspect`, `stats` | looks into segments, also of a live node | the files |
//! | `backup wal`, `backup btree` | asks a node for a backup | a node |
//! | `status` | asks a node how it is | a node |
//!
//! What scripts may rely on: `--json` gives one JSON object on one line (with `inspect`, one per
//! file or record), errors included; nothing else goes to stdout. The exit code is 0 done ·
//! 1 failed · 2 wrong usage · 3 node not reachable · 4 not found · 5 conflict or gap ·
//! 6 verification failed ([`exit`]). Progress goes to stderr, and only to a terminal.

pub mod cli;
mod cluster;
pub mod exit;
mod inspect;
mod output;
mod progress;
mod remote;
mod restore;
mod verify;
mod wal;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, WalCommand};
use exit::Failure;
use output::Output;

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    // Wrong usage ends here, with clap's message and its code, 2.
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match run(&cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code.number())
        }
    }
}

fn run(cli: &Cli, output: &Output) -> Result<(), Failure> {
    let platform = unisondb_platform::real::platform();
    let disk = platform.disk.as_ref();
    match &cli.command {
        Command::Restore(args) => restore::restore(&platform, args, output),
        Command::Verify(args) => verify::verify(disk, args, output),
        Command::Wal(WalCommand::List(args)) => wal::list(disk, args, output),
        Command::Wal(WalCommand::Stats(args)) => wal::stats(disk, args, output),
        Command::Wal(WalCommand::Inspect(args)) => inspect::inspect(disk, args, output),
        Command::Backup(args) => remote::backup(args, output),
        Command::Status(args) => remote::status(args, output),
        Command::Cluster(what) => cluster::cluster(what, output),
        Command::Namespace(what) => cluster::namespace(what, output),
    }
}
