//! [`Trace`]: everything that happened, in order, as one hash; and as lines when they are wanted.
//! The same seed gives the same hash in every process (P17).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use unisondb_platform::memory::Operation;

/// What is kept of the lines when nobody asked for all: enough to see how it ended.
const LAST_LINES: usize = 400;

/// Shared by all that happens in one run.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hasher: blake3::Hasher,
    now: Duration,
    lines: std::collections::VecDeque<String>,
    all: bool,
    disk_ops: u64,
}

impl Trace {
    /// Keeps every line, those of the disk too.
    pub fn keep_all(&self) {
        self.0.lock().all = true;
    }

    /// Simulated time has come to `now`.
    pub fn tell(&self, now: Duration) {
        self.0.lock().now = now;
    }

    /// Something happened.
    pub fn event(&self, who: &str, what: fmt::Arguments<'_>) {
        let mut state = self.0.lock();
        let at = state.now;
        let line = format!("{:>9.3}s {who:<10} {what}", at.as_secs_f64());
        state.add(line, true);
    }

    /// A disk operation happened.
    pub fn disk(&self, operation: &Operation) {
        let mut state = self.0.lock();
        state.disk_ops += 1;
        let (at, keep) = (state.now, state.all);
        let line = format!("{:>9.3}s disk       {operation}", at.as_secs_f64());
        state.add(line, keep);
    }

    /// The hash of all so far.
    pub fn hash(&self) -> String {
        self.0.lock().hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Disk operations so far.
    pub fn disk_ops(&self) -> u64 {
        self.0.lock().disk_ops
    }

    /// The lines kept.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines.iter().cloned().collect()
    }
}

impl State {
    fn add(&mut self, line: String, keep: bool) {
        self.hasher.update(line.as_bytes()).update(b"\n");
        if keep {
            if !self.all && self.lines.len() == LAST_LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }
}
