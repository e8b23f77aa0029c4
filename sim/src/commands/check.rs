//! `check DIR`: what would be restored of a folder now, and whether the product names what goes wrong
//! with it. Runs no simulation; `DIR` is only read.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::json;
use unisondb_platform::real;
use unisondb_types::Namespace;

use super::Found;
use crate::check::folder::{Folder, ROOT};
use crate::check::judge::{End, Verdict};
use crate::check::{Checked, check};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The folder with backups: segments and snapshots, plain, packed or in a tar, anywhere below it
    dir: PathBuf,
    /// Only this namespace; all that are there without it
    #[arg(long)]
    namespace: Option<Namespace>,
    /// How many damages for each namespace
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// One line of JSON
    #[arg(long)]
    json: bool,
    /// The most that is copied into memory
    #[arg(long, default_value_t = 1 << 30)]
    max_bytes: u64,
}

pub fn run(options: &Options) -> anyhow::Result<Found> {
    let platform = real::platform();
    let dir =
        std::path::absolute(&options.dir).with_context(|| options.dir.display().to_string())?;
    let folder = Folder::read(platform.disk.as_ref(), &dir, options.max_bytes)?;
    let mut namespaces = folder.namespaces();
    if let Some(wanted) = &options.namespace {
        let there: Vec<_> = namespaces.iter().map(ToString::to_string).collect();
        ensure!(
            namespaces.contains(wanted),
            "{} holds no backup of namespace {wanted}, only of {}",
            dir.display(),
            there.join(", ")
        );
        namespaces.retain(|n| n == wanted);
    }
    let mut found = Found::Nothing;
    let mut all = Vec::new();
    for namespace in &namespaces {
        let checked = check(&folder, namespace, options.seeds);
        if checked.not_named() > 0 || !checked.is_whole() {
            found = Found::Something;
        }
        if !options.json {
            print!("{}", in_words(&checked, folder.of(namespace).len()));
        }
        all.push(checked);
    }
    if options.json {
        println!(
            "{}",
            json!({"folder": dir, "bytes": folder.bytes(), "namespaces": all})
        );
    }
    Ok(found)
}

/// One namespace's lines.
fn in_words(checked: &Checked, files: usize) -> String {
    let mut out = String::new();
    let mut line = |text: &str| writeln!(out, "{text}").expect("a String takes all");
    let now = &checked.now;
    line(&format!(
        "namespace {}, {files} files, as they are now:",
        checked.namespace
    ));
    let plain = |text: &str| text.replace(&format!("{ROOT}/"), "");
    now.plan
        .lines()
        .for_each(|l| line(&plain(&format!("  {l}"))));
    // The plan's own sentences are in the plan.
    let other = now.sentences.iter().filter(|s| !s.starts_with("plan: "));
    other.for_each(|s| line(&plain(&format!("  {s}"))));
    if let End::Whole { lsn, time, digest } = &now.end {
        line(&format!("  restored  LSN {lsn}, {time}, digest {digest}"));
    }
    for tried in &checked.tried {
        line(&format!(
            "{:>4} {:<60} {} <- {}",
            tried.seed,
            tried.damage.in_words(),
            tried.verdict.in_words(),
            tried.said
        ));
    }
    line(&summary(checked));
    out
}

fn summary(checked: &Checked) -> String {
    if matches!(checked.now.end, End::Refused { .. }) {
        return format!(
            "namespace {}: nothing can be restored as it is, so nothing was damaged",
            checked.namespace
        );
    }
    let count = |which: fn(&Verdict) -> bool| {
        let tried = checked.tried.iter();
        tried.filter(|t| which(&t.verdict)).count()
    };
    format!(
        "namespace {}: {} damages: {} left the state the same, {} were named, {} NOT NAMED{}",
        checked.namespace,
        checked.tried.len(),
        count(|v| matches!(v, Verdict::Same { .. })),
        count(|v| matches!(v, Verdict::Named | Verdict::Shorter { .. })),
        checked.not_named(),
        match checked.is_whole() {
            true => "",
            false => "; the folder as it is does not lead to its newest record",
        }
    )
}
