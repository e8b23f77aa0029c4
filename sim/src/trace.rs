//! [`Trace`]: everything that happened, in order, as one hash; and as lines when they are wanted.
//! The same seed gives the same hash in every process (P17). Beside the lines it keeps [`Event`]s for
//! those who tell a run to people; these are not hashed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use unisondb_platform::memory::{OpKind, Operation};

/// What is kept of the lines when nobody asked for all: enough to see how it ended.
const LAST_LINES: usize = 400;

/// Something that happened, for `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Simulated time.
    pub at: Duration,
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An operation of the disk.
    Disk {
        syncs: bool,
    },
    /// A client's write was answered, or not.
    Write(Answered),
    /// A client asked for something else.
    Asked,
    /// Something went wrong, until it is healed, if it can be.
    Fault {
        kind: String,
        heals: Option<Heal>,
    },
    /// All faults of this kind are over.
    Healed(Heal),
    Node(Life),
    /// Of a node of several.
    Member {
        name: String,
        life: Life,
    },
    /// The operator backed something up, or tried to.
    Backup {
        text: String,
        done: bool,
    },
    /// The operator restores in place.
    Restore(String),
    /// What else the operator saw or did.
    Operator(String),
    /// A promise was broken.
    Finding(String),
}

/// What a client learned of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    Acknowledged {
        lsn: Option<u64>,
    },
    Refused {
        status: u16,
    },
    /// There was nobody to send it to.
    Unreachable,
    /// It may have happened or not.
    Unknown,
}

/// What is healed as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heal {
    /// By number of the node.
    Disk(usize),
    Full(usize),
    Clock(usize),
    /// Between the nodes and a client.
    Network(u64),
    /// Between the nodes of these two sets.
    Split(u64),
    File(std::path::PathBuf),
}

/// What becomes of the node's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    Starts,
    Ready,
    /// It takes no more writes, or did not come up, and says why.
    Failed(String),
    Gone(&'static str),
}

impl Life {
    pub fn in_words(&self) -> String {
        match self {
            Life::Starts => "starts".to_owned(),
            Life::Ready => "is ready".to_owned(),
            Life::Failed(why) => format!("fails: {why}"),
            Life::Gone(how) => format!("is gone, {how}"),
        }
    }
}

/// Shared by all that happens in one run.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hasher: blake3::Hasher,
    now: Duration,
    lines: std::collections::VecDeque<String>,
    events: Vec<Event>,
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

    /// The same as an [`Event`], kept when all is.
    pub fn note(&self, what: What) {
        let mut state = self.0.lock();
        if state.all {
            let at = state.now;
            state.events.push(Event { at, what });
        }
    }

    /// A promise was broken.
    pub fn finding(&self, what: &str) {
        self.event("FINDING", format_args!("{what}"));
        self.note(What::Finding(what.to_owned()));
    }

    /// What the product logs stands between the lines from now on, and is not hashed.
    pub fn take_logs(&self) {
        let trace = self.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter("off,unisondb_server=debug,unisondb_raft=debug,unisondb_engine=debug")
            .with_ansi(false)
            .without_time()
            .with_writer(move || Log(trace.clone()));
        // Whoever has one already keeps it.
        drop(logs.try_init());
    }

    /// A disk operation happened.
    pub fn disk(&self, who: &str, operation: &Operation) {
        let mut state = self.0.lock();
        state.disk_ops += 1;
        let (at, keep) = (state.now, state.all);
        let line = format!("{:>9.3}s {who:<10} {operation}", at.as_secs_f64());
        state.add(line, keep);
        if keep {
            let syncs = matches!(operation.kind, OpKind::Sync | OpKind::SyncFolder);
            state.events.push(Event {
                at,
                what: What::Disk { syncs },
            });
        }
    }

    /// The hash of all so far.
    pub fn hash(&self) -> String {
        self.0.lock().hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Disk operations so far.
    pub fn disk_ops(&self) -> u64 {
        self.0.lock().disk_ops
    }

    /// The events kept.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().events.clone()
    }

    /// The lines kept.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines.iter().cloned().collect()
    }
}

/// Where the product's log goes.
struct Log(Trace);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock();
        let at = state.now.as_secs_f64();
        let text = String::from_utf8_lossy(line);
        let text = format!("{at:>9.3}s log        {}", text.trim());
        state.lines.push_back(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
