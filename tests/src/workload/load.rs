//! How large a run is, how far it is, and when its clients stop.

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Clients that write at once.
    pub clients: u64,
    /// Acknowledged writes in all.
    pub writes: u64,
    /// How long the clients write instead, if that is what counts.
    pub time: Option<Duration>,
    /// How often the server is killed in the middle of it.
    pub kills: u64,
    /// Bytes of the large object.
    pub object: u64,
    /// Restores to an LSN, and as many to a time.
    pub restores: usize,
    /// Restored nodes that go on, each from the one before.
    pub forks: u64,
    /// Flags of the server.
    pub flags: &'static [&'static str],
}

impl Scale {
    /// A few seconds for `cargo test`; `UNISON_WORKLOAD=full` for the size that a release must
    /// stand; `UNISON_SOAK_SECONDS=N` for a load of N seconds with a kill every ten.
    ///
    /// # Panics
    /// When a variable says something else.
    pub fn from_environment() -> Scale {
        let small = Scale {
            clients: 4,
            writes: 3_000,
            time: None,
            kills: 1,
            object: 3 << 20,
            restores: 4,
            forks: 2,
            flags: &["--segment-size", "256KiB", "--flush-bytes", "256KiB"],
        };
        match (
            env::var("UNISON_WORKLOAD").as_deref(),
            env::var("UNISON_SOAK_SECONDS"),
        ) {
            (Ok("full"), _) => Scale {
                clients: 16,
                writes: 200_000,
                kills: 2,
                object: 300 << 20,
                restores: 20,
                forks: 3,
                flags: &["--segment-size", "16MiB"],
                ..small
            },
            (Ok("small") | Err(_), Err(_)) => small,
            (Ok("small") | Err(_), Ok(seconds)) => {
                let seconds: u64 = seconds.parse().expect("UNISON_SOAK_SECONDS is a number");
                Scale {
                    clients: 8,
                    time: Some(Duration::from_secs(seconds)),
                    kills: (seconds / 10).max(1),
                    object: 32 << 20,
                    restores: 8,
                    forks: 3,
                    flags: &["--segment-size", "1MiB", "--flush-bytes", "1MiB"],
                    ..small
                }
            }
            (Ok(other), _) => panic!("UNISON_WORKLOAD={other}: full or small"),
        }
    }
}

/// `UNISON_SEED`, or one made from the clock.
///
/// # Panics
/// When it is not a number.
pub fn seed() -> u64 {
    match env::var("UNISON_SEED") {
        Ok(text) => text.parse().expect("UNISON_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            u64::from(now.expect("now is after 1970").subsec_nanos())
        }
    }
}

/// What the threads of a run share.
#[derive(Debug)]
pub struct Load {
    writes: u64,
    time: Option<Duration>,
    begun: Instant,
    acknowledged: AtomicU64,
    over: AtomicBool,
}

impl Load {
    /// A load of so many writes, or so much time.
    pub fn new(writes: u64, time: Option<Duration>) -> Load {
        Load {
            writes,
            time,
            begun: Instant::now(),
            acknowledged: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// One more write was acknowledged.
    pub fn count(&self) {
        self.acknowledged.fetch_add(1, SeqCst);
    }
    /// How many were.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(SeqCst)
    }
    /// How far it is, in thousandths; more than 1,000 when it is past its end.
    pub fn progress(&self) -> u64 {
        match self.time {
            Some(time) => {
                let (spent, all) = (self.begun.elapsed().as_millis(), time.as_millis().max(1));
                u64::try_from(spent * 1000 / all).unwrap_or(u64::MAX)
            }
            None => self.acknowledged() * 1000 / self.writes.max(1),
        }
    }
    /// Whether the writers are done.
    pub fn done(&self) -> bool {
        self.progress() >= 1000
    }
    /// Ends those who go along with the writers.
    pub fn end(&self) {
        self.over.store(true, SeqCst);
    }
    /// Whether it was ended.
    pub fn over(&self) -> bool {
        self.over.load(SeqCst)
    }
    /// A new part begins: whoever goes along goes on.
    pub fn resume(&self) {
        self.over.store(false, SeqCst);
    }
}
