//! Shrinking: the smallest plan that still finds the same kind of thing, by leaving out halves, quarters
//! and so on of its events (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing
//! input", 2002).

use std::path::Path;

use anyhow::{Context as _, bail};

use super::{Found, one};
use crate::plan::{Plan, Profile};

pub fn shrink(what: &str, profile: Profile, to: Option<&Path>) -> anyhow::Result<Found> {
    let mut plan = one::plan_of(what, profile)?;
    let Some(kind) = kind(&plan)? else {
        bail!("it finds nothing: there is nothing to shrink");
    };
    eprintln!("{} events, which find: {kind}", plan.events.len());
    let mut parts = 2;
    while plan.events.len() > 1 && parts <= plan.events.len() {
        let size = plan.events.len().div_ceil(parts);
        let mut smaller = None;
        for start in (0..plan.events.len()).step_by(size) {
            let mut candidate = plan.clone();
            candidate
                .events
                .drain(start..(start + size).min(plan.events.len()));
            if self::kind(&candidate)?.as_ref() == Some(&kind) {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(candidate) => {
                plan = candidate;
                parts = parts.saturating_sub(1).max(2);
                eprintln!("{} events", plan.events.len());
                // Kept at each step: shrinking may take longer than whoever waits for it.
                if let Some(to) = to {
                    write(&plan, to)?;
                }
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(plan.events.len()),
        }
    }
    match to {
        Some(path) => write(&plan, path)?,
        None => println!("{}", serde_json::to_string_pretty(&plan)?),
    }
    Ok(Found::Something)
}

fn write(plan: &Plan, to: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(plan)? + "\n";
    std::fs::write(to, text).with_context(|| to.display().to_string())
}

/// What a plan finds first, without its numbers.
fn kind(plan: &Plan) -> anyhow::Result<Option<String>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::to_string(plan)?)?;
    let path = file.path().display().to_string();
    Ok(match one::child(&[path], Profile::Swarm) {
        Ok(report) => report.findings.first().map(|f| without_numbers(f)),
        // A process that died is a finding of its own.
        Err(_) => Some("the process ended".to_owned()),
    })
}

fn without_numbers(text: &str) -> String {
    let words = text.split_whitespace().take(12);
    let kept = words.filter(|w| !w.chars().any(|c| c.is_ascii_digit()) || w.starts_with('P'));
    kept.collect::<Vec<_>>().join(" ")
}
