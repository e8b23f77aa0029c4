//! Runs of many seeds, each in a process of its own, a few at a time; and which seeds a revision asks for.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::plan::Profile;
use crate::report::Report;

/// What a run may take: a minute and a half of simulated time needs a second or two, and some 100 MiB.
const MOST_TIME: Duration = Duration::from_secs(120);
const MOST_BYTES: u64 = 4 << 30;
/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Runs seeds with `program`, at most `jobs` at once, begun in order; `seen` is shown every report as it
/// comes, and says whether to begin more.
pub fn each(
    program: &Path,
    profile: Profile,
    seeds: impl Iterator<Item = u64> + Send,
    jobs: usize,
    mut seen: impl FnMut(Report) -> bool + Send,
) {
    let seeds = Mutex::new(seeds);
    let seen = Mutex::new(&mut seen);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let next = seeds.lock().expect("no thread panics with it").next();
                    let Some(seed) = next else { return };
                    let report = child(program, &[seed.to_string()], profile)
                        .unwrap_or_else(|e| died(seed, &e));
                    let mut seen = seen.lock().expect("no thread panics with it");
                    if !seen(report) {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn died(seed: u64, error: &anyhow::Error) -> Report {
    Report {
        seed,
        findings: vec![format!("the process ended: {error:#}")],
        ..Report::default()
    }
}

/// Runs one plan or seed in a process of its own.
///
/// # Errors
/// When the process does not end with a report, in words.
pub fn child(program: &Path, arguments: &[String], profile: Profile) -> anyhow::Result<Report> {
    let name = clap::ValueEnum::to_possible_value(&profile).expect("every profile has a name");
    let mut child = Command::new(program)
        .args(["replay", "--json", "--profile", name.get_name()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    let (said, complained) = (child.stdout.take(), child.stderr.take());
    let said = std::thread::spawn(move || text(said));
    let complained = std::thread::spawn(move || text(complained));
    let ended = watch(&mut child)?;
    let said = said.join().unwrap_or_default();
    let complained = complained.join().unwrap_or_default();
    match said.lines().last().map(serde_json::from_str) {
        Some(Ok(report)) => Ok(report),
        _ => bail!(
            "the run of {arguments:?} ended with {ended} and said: {}",
            complained
                .lines()
                .rev()
                .take(5)
                .collect::<Vec<_>>()
                .join(" | ")
        ),
    }
}

/// How a child ended. One that takes too long or too much memory is ended.
fn watch(child: &mut Child) -> anyhow::Result<String> {
    let begun = now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.to_string());
        }
        let too_much = resident_bytes(child.id()).is_some_and(|bytes| bytes > MOST_BYTES);
        let too_long = begun.elapsed() > MOST_TIME;
        if too_much || too_long {
            child.kill()?;
            child.wait()?;
            return Ok(match too_long {
                true => format!("no end within {} s", MOST_TIME.as_secs()),
                false => format!("more than {} MiB of memory", MOST_BYTES >> 20),
            });
        }
        std::thread::sleep(LOOK);
    }
}

/// What a process has in memory, where the system tells.
fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before a failure is all that there is.
        drop(pipe.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// For how long something has taken in the world outside.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// The seeds `A..B`.
///
/// # Errors
/// When the text is no range, or an empty one.
pub fn range(text: &str) -> anyhow::Result<(u64, u64)> {
    let Some((from, to)) = text.split_once("..") else {
        bail!("--seeds {text}: A..B is wanted, such as 1..100");
    };
    let number = |n: &str| {
        n.parse::<u64>()
            .with_context(|| format!("--seeds {text}: {n:?} is no number"))
    };
    let (from, to) = (number(from)?, number(to)?);
    ensure!(from < to, "--seeds {text} is empty");
    Ok((from, to))
}

/// A number that a revision decides, and nobody chooses: the first 28 bits of its hash.
///
/// # Errors
/// When no revision is given and this is no git repository; when it is no hash.
pub fn number_of(revision: Option<&str>) -> anyhow::Result<u64> {
    let text = match revision {
        Some(text) => text.to_owned(),
        None => {
            let asked = Command::new("git").args(["rev-parse", "HEAD"]).output();
            let done = asked.context("git is wanted to name the revision, or --revision")?;
            ensure!(
                done.status.success(),
                "this is no git repository: give --revision"
            );
            String::from_utf8_lossy(&done.stdout).trim().to_owned()
        }
    };
    let hash = text.get(..7).unwrap_or_default();
    u64::from_str_radix(hash, 16)
        .with_context(|| format!("revision {text:?} is no hash of 7 digits or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_empty_or_none_is_told_in_words() {
        assert_eq!(range("3..7").expect("it is one"), (3, 7));
        let said = |text| range(text).expect_err("it is none").to_string();
        assert!(said("7..7").contains("is empty"));
        assert!(said("9").contains("A..B is wanted"));
        assert!(said("a..3").contains("no number"));
    }

    #[test]
    fn a_revision_is_a_number_and_a_word_is_none() {
        assert_eq!(number_of(Some("00000ff1234")).expect("it is one"), 0xff);
        assert!(number_of(Some("main")).is_err());
        assert!(number_of(Some("")).is_err());
    }
}
