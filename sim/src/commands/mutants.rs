//! `mutants`: does it bite? Each patch in `sim/mutants` plants one bug into a copy of the product; the
//! simulator built from that copy must find it within so many seeds, none of which finds anything in the
//! product as it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum as _;

use super::{Found, pool};
use crate::plan::Profile;
use crate::report::Report;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Those only, by name; all without it
    names: Vec<String>,
    /// The folder of the patches
    #[arg(long, default_value = "sim/mutants")]
    folder: PathBuf,
    /// Seeds until a bug counts as not found
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Processes at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// For all of them; without it each says its own
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// So many of them only, which ones the revision decides
    #[arg(long, value_name = "N")]
    rotate: Option<usize>,
    /// The revision, when it is not that of the git repository here
    #[arg(long, value_name = "HASH")]
    revision: Option<String>,
}

/// Where copies are made, below the workspace.
const WORK: &str = "target/mutants";

/// A planted bug.
struct Mutant {
    name: String,
    patch: PathBuf,
    /// The first line of the patch: what the bug is.
    bug: String,
    /// A line `# Profile: NAME` in the patch: which seeds may find it.
    profile: Profile,
}

/// What came of one.
enum Outcome {
    /// So many seeds were needed, and what the last one found.
    Caught(u64, String),
    Survived,
}

pub fn run(options: &Options) -> anyhow::Result<Found> {
    ensure!(options.jobs > 0, "--jobs is at least 1");
    ensure!(options.seeds > 0, "--seeds is at least 1");
    let mutants = chosen(options)?;
    let tree = Path::new(WORK).join("tree");
    let built = Built::here()?;
    let mut survived = 0;
    println!("| planted bug | caught after | by |");
    println!("| --- | --- | --- |");
    for mutant in &mutants {
        copy_workspace(&tree)?;
        apply(&tree, &mutant.patch)?;
        built
            .build(&tree)
            .with_context(|| format!("{} does not build", mutant.name))?;
        let profile = options.profile.unwrap_or(mutant.profile);
        let seeds = match trial(options, profile, &built)? {
            Outcome::Caught(seeds, finding) => {
                let finding = finding.replace('|', "/");
                println!(
                    "| `{}`: {} | {seeds} | {finding} |",
                    mutant.name, mutant.bug
                );
                continue;
            }
            Outcome::Survived => options.seeds,
        };
        println!(
            "| `{}`: {} | **not in {seeds}** | |",
            mutant.name, mutant.bug
        );
        survived += 1;
    }
    println!();
    println!(
        "{} of {} planted bugs caught within {} seeds",
        mutants.len() - survived,
        mutants.len(),
        options.seeds
    );
    Ok(match survived {
        0 => Found::Nothing,
        _ => Found::Something,
    })
}

/// Runs seeds until one finds something that the product as it is does not show. With several at once one
/// that was begun before may end after it: the first seed counts, not the first end.
fn trial(options: &Options, profile: Profile, built: &Built) -> anyhow::Result<Outcome> {
    let mut first: Option<Report> = None;
    let seeds = options.from..options.from + options.seeds;
    pool::each(&built.program, profile, seeds, options.jobs, |report| {
        let before = first.as_ref().is_none_or(|known| report.seed < known.seed);
        if before && !report.findings.is_empty() {
            first = Some(report);
        }
        first.is_none()
    });
    let Some(caught) = first else {
        return Ok(Outcome::Survived);
    };
    let seed = caught.seed;
    let sound = pool::child(&built.sound, &[seed.to_string()], profile)
        .with_context(|| format!("seed {seed} on the product as it is"))?;
    ensure!(
        sound.findings.is_empty(),
        "the product as it is does not pass, so nothing is proven: seed {seed}: {}",
        sound.verdict()
    );
    let finding = caught.verdict().chars().take(110).collect();
    Ok(Outcome::Caught(seed - options.from + 1, finding))
}

fn chosen(options: &Options) -> anyhow::Result<Vec<Mutant>> {
    let folder = &options.folder;
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut all = Vec::new();
    for entry in entries {
        let patch = entry?.path();
        if patch.extension().is_none_or(|e| e != "patch") {
            continue;
        }
        let text = std::fs::read_to_string(&patch).with_context(|| patch.display().to_string())?;
        let first = text.lines().next().and_then(|l| l.strip_prefix("# "));
        let bug = first
            .with_context(|| format!("{}: the first line says what the bug is", patch.display()))?;
        let profile = text.lines().find_map(|l| l.strip_prefix("# Profile: "));
        let profile = profile.map_or(Ok(Profile::Swarm), |name| {
            Profile::from_str(name.trim(), true)
                .map_err(|e| anyhow::anyhow!("{}: {e}", patch.display()))
        })?;
        all.push(Mutant {
            profile,
            name: patch
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            bug: bug.trim_end_matches('.').to_owned(),
            patch,
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!all.is_empty(), "{} holds no patch", folder.display());
    if !options.names.is_empty() {
        let known: BTreeSet<&String> = all.iter().map(|m| &m.name).collect();
        if let Some(unknown) = options.names.iter().find(|n| !known.contains(n)) {
            bail!("{} has no {unknown}.patch", folder.display());
        }
        all.retain(|m| options.names.contains(&m.name));
    }
    if let Some(count) = options.rotate {
        let first = pool::number_of(options.revision.as_deref())?;
        let first = usize::try_from(first).expect("28 bits") % all.len();
        all.rotate_left(first);
        all.truncate(count);
    }
    Ok(all)
}

/// Makes `tree` what the workspace is. Files that are the same already keep their time, so that no more
/// is built again than what changed.
fn copy_workspace(tree: &Path) -> anyhow::Result<()> {
    ensure!(
        Path::new("Cargo.toml").exists() && Path::new("sim").is_dir(),
        "the workspace's folder is wanted as the current one"
    );
    for name in ["Cargo.toml", "Cargo.lock"] {
        copy_file(Path::new(name), &tree.join(name))?;
    }
    for name in ["node", "sim", "tests"] {
        copy_folder(Path::new(name), &tree.join(name))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    let mut kept = BTreeSet::new();
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() && name == "target" => continue,
            kind if kind.is_dir() => copy_folder(&path, &to.join(&name))?,
            kind if kind.is_file() => copy_file(&path, &to.join(&name))?,
            _ => continue,
        }
        kept.insert(name);
    }
    // What is in the copy alone would be built too.
    for entry in std::fs::read_dir(to).with_context(|| to.display().to_string())? {
        let entry = entry?;
        if !kept.contains(&entry.file_name()) && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(from).with_context(|| from.display().to_string())?;
    if std::fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    std::fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(to, bytes).with_context(|| to.display().to_string())
}

fn apply(tree: &Path, patch: &Path) -> anyhow::Result<()> {
    let patch = patch
        .canonicalize()
        .with_context(|| patch.display().to_string())?;
    let tree = tree.canonicalize()?;
    // Not as a part of the repository that the copy lies in: there git would look for other files.
    let above = tree.parent().unwrap_or(Path::new("/"));
    let done = Command::new("git")
        .args(["apply", "--unidiff-zero"])
        .arg(&patch)
        .current_dir(&tree)
        .env("GIT_CEILING_DIRECTORIES", above)
        .output()
        .context("git is wanted to apply a patch")?;
    ensure!(
        done.status.success(),
        "{} does not apply any more: {}",
        patch.display(),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

/// How this program was built: a copy is built the same way and in the same place, so that all it does not
/// change is there already.
struct Built {
    /// Where cargo puts the program.
    program: PathBuf,
    /// This program, out of its way.
    sound: PathBuf,
}

impl Built {
    fn here() -> anyhow::Result<Built> {
        let program = std::env::current_exe().context("this program has a path")?;
        let sound = Path::new(WORK).join("sound");
        std::fs::create_dir_all(WORK)?;
        std::fs::copy(&program, &sound).with_context(|| sound.display().to_string())?;
        let sound = sound.canonicalize()?;
        Ok(Built { program, sound })
    }

    fn build(&self, tree: &Path) -> anyhow::Result<()> {
        self.cargo(
            &["build", "--locked", "--quiet", "-p", "unisondb-sim"],
            tree,
        )
    }

    fn clean(&self) -> anyhow::Result<()> {
        self.cargo(&["clean", "--quiet", "--workspace"], Path::new("."))
    }

    fn cargo(&self, words: &[&str], workspace: &Path) -> anyhow::Result<()> {
        let folder = self.program.parent().context("it lies in a folder")?;
        let profile = folder.file_name().context("it is called as the profile")?;
        let target = folder.parent().context("it lies below the target folder")?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let done = Command::new(cargo)
            .args(words)
            .arg("--profile")
            .arg(profile)
            .current_dir(workspace)
            .env("CARGO_TARGET_DIR", target)
            .env("RUSTFLAGS", "--cfg tokio_unstable")
            .output()
            .context("cargo cannot be started")?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("{}", said.lines().take(20).collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    }
}

/// However it ends, nobody may take a planted bug for the product. Cargo takes the copy's crates for the
/// workspace's own and would build the next program from them: they go. Then this program is put back.
impl Drop for Built {
    fn drop(&mut self) {
        let cleaned = self.clean();
        // Not written into: if the crates are still there, cargo keeps another name of that file.
        drop(std::fs::remove_file(&self.program));
        let back = std::fs::copy(&self.sound, &self.program);
        let back = back.context("the program cannot be put back");
        if let Err(e) = cleaned.and(back) {
            eprintln!(
                "{} may hold a planted bug now: run cargo clean, and build it again ({e:#})",
                self.program.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_the_folder_and_leaves_what_is_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let write = |name: &str, text: &str| {
            let path = from.join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        write("x/one.rs", "1");
        write("two.rs", "2");
        write("target/no.rs", "no");
        copy_folder(&from, &to).expect("a copy");
        let time = |name: &str| std::fs::metadata(to.join(name)).and_then(|m| m.modified());
        let before = time("x/one.rs").expect("it is there");
        std::fs::remove_file(from.join("two.rs")).expect("it was there");
        std::fs::write(to.join("x/one.rs"), "planted").expect("a file");
        copy_folder(&from, &to).expect("a copy");
        assert_eq!(
            std::fs::read_to_string(to.join("x/one.rs")).expect("there"),
            "1"
        );
        assert!(!to.join("two.rs").exists() && !to.join("target").exists());
        let again = time("x/one.rs").expect("it is there");
        copy_folder(&from, &to).expect("a copy");
        assert_eq!(time("x/one.rs").expect("there"), again);
        assert!(again >= before);
    }
}
