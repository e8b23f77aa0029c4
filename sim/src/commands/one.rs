//! One run at a time: replayed, twice, from a folder of plans.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{Found, pool};
use crate::plan::{Plan, Profile};
use crate::report::Report;
use crate::run;

/// The plan that a seed makes, or that a file holds.
pub fn plan_of(what: &str, profile: Profile) -> anyhow::Result<Plan> {
    if let Ok(seed) = what.parse() {
        return Ok(Plan::of(profile, seed));
    }
    let text =
        std::fs::read_to_string(what).with_context(|| format!("{what} is no seed, and no file"))?;
    Plan::parse(&text).with_context(|| what.to_owned())
}

pub fn replay(what: &str, profile: Profile, trace: bool, json: bool) -> anyhow::Result<Found> {
    let plan = plan_of(what, profile)?;
    let mut report = run::run(&plan, trace);
    if json {
        // Only what led to a finding is worth the room.
        if report.findings.is_empty() {
            report.lines.clear();
        }
        println!("{}", serde_json::to_string(&report)?);
    } else {
        if trace || !report.findings.is_empty() {
            report.lines.iter().for_each(|line| eprintln!("{line}"));
        }
        print!("{}", report.in_words());
    }
    Ok(found(&report))
}

pub fn found(report: &Report) -> Found {
    match report.findings.is_empty() {
        true => Found::Nothing,
        false => Found::Something,
    }
}

pub fn plan(seed: u64, profile: Profile) -> anyhow::Result<Found> {
    println!(
        "{}",
        serde_json::to_string_pretty(&Plan::of(profile, seed))?
    );
    Ok(Found::Nothing)
}

pub fn twice(seed: u64, profile: Profile, seeds: u64) -> anyhow::Result<Found> {
    ensure!(seeds > 0, "no seed to run twice");
    let mut same = 0;
    for seed in seed..seed + seeds {
        let arguments = [seed.to_string()];
        let (first, second) = (child(&arguments, profile)?, child(&arguments, profile)?);
        if first.hash == second.hash {
            same += 1;
        } else {
            println!("seed {seed}: {} and then {}", first.hash, second.hash);
        }
    }
    println!("{same} of {seeds} seeds gave the same trace twice");
    Ok(if same == seeds {
        Found::Nothing
    } else {
        Found::Something
    })
}

pub fn regressions(folder: &Path) -> anyhow::Result<Found> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut plans: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    plans.retain(|p| p.extension().is_some_and(|e| e == "json"));
    plans.sort();
    ensure!(!plans.is_empty(), "{} holds no plan", folder.display());
    let mut worst = Found::Nothing;
    for plan in &plans {
        let report = child(&[plan.display().to_string()], Profile::Swarm)?;
        println!("{}: {}", plan.display(), report.verdict());
        if found(&report) == Found::Something {
            worst = Found::Something;
        }
    }
    println!("{} plans", plans.len());
    Ok(worst)
}

/// Runs one plan or seed with this program, in a process of its own.
pub fn child(arguments: &[String], profile: Profile) -> anyhow::Result<Report> {
    let this = std::env::current_exe().context("this program has a path")?;
    pool::child(&this, arguments, profile)
}
