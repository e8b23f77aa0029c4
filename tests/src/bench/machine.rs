//! What the machine is doing besides, and what it can do at best: load, CPU by process, fdatasync,
//! `cp` with sync. Two cores are shared by the server, the load and whatever else runs, so every
//! run says how much of them others took.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::stats::percentile;

/// CPU time in clock ticks (100 a second on every Linux that matters here).
const TICKS: f64 = 100.0;

/// CPU seconds that a process has used; 0 when it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold spaces: count from behind it (proc(5): utime is field 14).
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || {
        fields
            .next()
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks() + ticks()) / TICKS
}

/// CPU seconds that all processes, and the host instead of us, have used.
fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or("").split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    (ticks.iter().take(8).sum::<f64>() - idle) / TICKS
}

/// CPU time from one moment on: of a server, of this process, of everybody else.
#[derive(Debug)]
pub struct Meter {
    begun: Instant,
    server: u32,
    at: [f64; 3],
}

/// What a [`Meter`] saw.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// CPU seconds of the server.
    pub server: f64,
    /// CPU seconds of this process.
    pub own: f64,
    /// Cores that others kept busy, on average.
    pub others: f64,
}

impl Meter {
    /// Begins to count.
    pub fn start(server: u32) -> Meter {
        Meter {
            begun: Instant::now(),
            server,
            at: Meter::now(server),
        }
    }

    fn now(server: u32) -> [f64; 3] {
        [
            cpu_seconds(server),
            cpu_seconds(std::process::id()),
            busy_seconds(),
        ]
    }

    /// What was used since.
    pub fn read(&self) -> Use {
        let now = Meter::now(self.server);
        let [server, own, busy] = [0, 1, 2].map(|i| now[i] - self.at[i]);
        let others = (busy - server - own).max(0.0) / self.begun.elapsed().as_secs_f64();
        Use {
            server,
            own,
            others,
        }
    }
}

/// Waits until a process has been idle for 200 ms (its flushes and compactions are charged to it,
/// not to who is measured next), at most 15 s.
pub fn settle(pid: u32) {
    let begun = Instant::now();
    let mut before = cpu_seconds(pid);
    while begun.elapsed() < Duration::from_secs(15) {
        thread::sleep(Duration::from_millis(200));
        let now = cpu_seconds(pid);
        if now - before < 0.03 {
            return;
        }
        before = now;
    }
}

/// Waits, at most `patience`, for a moment in which nobody else uses more than a fifth of a core.
pub fn wait_for_quiet(patience: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        let meter = Meter::start(0);
        thread::sleep(Duration::from_millis(500));
        if meter.read().others < 0.2 {
            return;
        }
    }
}

/// The load average, as text.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Everything dirty goes to disk, so that the next measurement pays only for its own.
///
/// # Errors
/// When `sync` cannot be run.
pub fn sync_all() -> Result<()> {
    run(Command::new("sync"))
}

/// Lets the kernel forget file contents; only root may.
///
/// # Errors
/// When it may not.
pub fn drop_page_cache() -> Result<()> {
    sync_all()?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("/proc/sys/vm/drop_caches")
}

/// Runs a command that must succeed.
///
/// # Errors
/// Its failure, with what it said.
pub fn run(mut command: Command) -> Result<()> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{command:?}: {}: {said}",
        done.status
    );
    Ok(())
}

/// Seconds for `cp FILES TO && sync COPIES`.
///
/// # Errors
/// When either fails.
pub fn copy_with_sync(files: &[PathBuf], to: &Path) -> Result<f64> {
    fs::create_dir_all(to)?;
    let names = files
        .iter()
        .map(|f| f.file_name().context("a file has a name"));
    let copies: Vec<PathBuf> = names.map(|n| Ok(to.join(n?))).collect::<Result<_>>()?;
    let begun = Instant::now();
    let mut cp = Command::new("cp");
    cp.args(files).arg(to);
    run(cp)?;
    let mut sync = Command::new("sync");
    sync.args(copies);
    run(sync)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// fdatasync of 4 KiB somewhere in a file that was zeroed ahead: what one durable write costs at
/// least. Microseconds, ascending.
///
/// # Errors
/// The disk's.
pub fn fdatasync_probe(folder: &Path, time: Duration) -> Result<Vec<f64>> {
    const BLOCKS: u64 = 4_096;
    let path = folder.join("fdatasync.probe");
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)?;
    for _ in 0..16 {
        file.write_all(&vec![0; 1 << 20])?;
    }
    file.sync_all()?;
    let block = [0x55; 4_096];
    let mut micros = Vec::new();
    let begun = Instant::now();
    let mut i = 0;
    while begun.elapsed() < time {
        let one = Instant::now();
        file.write_all_at(&block, i % BLOCKS * 4_096)?;
        file.sync_data()?;
        micros.push(one.elapsed().as_secs_f64() * 1e6);
        i += 1;
    }
    fs::remove_file(path)?;
    micros.sort_unstable_by(f64::total_cmp);
    ensure!(
        percentile(&micros, 500) > 5.0,
        "{}: not a disk",
        folder.display()
    );
    Ok(micros)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn own_cpu_time_is_seen_and_is_not_that_of_others() {
        let meter = Meter::start(0);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {}
        assert!(meter.read().own >= 0.05);
        assert!(cpu_seconds(u32::MAX) == 0.0);
    }

    #[test]
    fn a_failed_command_says_why() {
        let mut cp = Command::new("cp");
        cp.args(["/nowhere/at/all", "/nowhere/else"]);
        assert!(run(cp).unwrap_err().to_string().contains("/nowhere/at/all"));
    }
}
