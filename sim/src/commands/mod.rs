//! The commands. A run is a process of its own: what a process keeps (task ids, the files that LMDB has
//! open) would decide about the next seed's order otherwise.

mod check;
mod explain;
mod mutants;
mod one;
mod pool;
mod shrink;
mod swarm;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::plan::Profile;

/// Whether something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Something,
}

/// UnisonDB in one thread, with a seed for everything that goes wrong.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs many seeds, each in a process of its own, and sums up.
    Run(swarm::Options),
    /// Runs one seed or plan, and prints what it came to.
    Replay {
        /// A seed, or a file with a plan
        what: String,
        #[arg(long, value_enum, default_value = "swarm")]
        profile: Profile,
        /// Every event and every disk operation, on stderr
        #[arg(long)]
        trace: bool,
        /// One line of JSON, as `run` reads it
        #[arg(long)]
        json: bool,
    },
    /// Runs one seed or plan, and tells what happened, second by second.
    Explain {
        /// A seed, or a file with a plan
        what: String,
        #[arg(long, value_enum, default_value = "swarm")]
        profile: Profile,
        /// Also as one page, in this file
        #[arg(long)]
        html: Option<PathBuf>,
    },
    /// Damages a copy of your own backups, in memory: is every damage named?
    Check(check::Options),
    /// Runs a seed twice, in fresh processes, and compares what happened.
    Twice {
        /// The seed
        seed: u64,
        #[arg(long, value_enum, default_value = "swarm")]
        profile: Profile,
        /// How many pairs, with the seeds that follow
        #[arg(long, default_value_t = 1)]
        seeds: u64,
    },
    /// Prints the plan of a seed.
    Plan {
        /// The seed
        seed: u64,
        #[arg(long, value_enum, default_value = "swarm")]
        profile: Profile,
    },
    /// Takes events out of a plan for as long as the same kind of finding stays.
    Shrink {
        /// A seed, or a file with a plan
        what: String,
        #[arg(long, value_enum, default_value = "swarm")]
        profile: Profile,
        /// Where the smaller plan goes; stdout without it
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Plants known bugs into copies of the product, one at a time, and says after how many seeds each is
    /// found.
    Mutants(mutants::Options),
    /// Replays every plan in a folder: none may find anything.
    Regressions {
        /// The folder
        #[arg(default_value = "sim/regressions")]
        folder: PathBuf,
    },
}

impl Arguments {
    /// Whether the command runs a simulation, or only looks at files.
    pub fn simulates(&self) -> bool {
        !matches!(self.command, Command::Check(_))
    }
}

/// Carries a command out.
///
/// # Errors
/// Wrong usage, in words.
pub fn run(arguments: Arguments) -> anyhow::Result<Found> {
    match arguments.command {
        Command::Run(options) => swarm::run(&options),
        Command::Replay {
            what,
            profile,
            trace,
            json,
        } => one::replay(&what, profile, trace, json),
        Command::Explain {
            what,
            profile,
            html,
        } => explain::explain(&what, profile, html.as_deref()),
        Command::Check(options) => check::run(&options),
        Command::Twice {
            seed,
            profile,
            seeds,
        } => one::twice(seed, profile, seeds),
        Command::Plan { seed, profile } => one::plan(seed, profile),
        Command::Shrink { what, profile, to } => shrink::shrink(&what, profile, to.as_deref()),
        Command::Mutants(options) => mutants::run(&options),
        Command::Regressions { folder } => one::regressions(&folder),
    }
}
