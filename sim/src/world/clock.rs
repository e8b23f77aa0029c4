//! [`SimClock`]: simulated time, and a wall clock beside it that steps and drifts as told.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use unisondb_platform::Clock;
use unisondb_types::Stamp;

/// One machine's clocks.
pub struct SimClock {
    epoch_micros: i64,
    /// By how much the wall clock is wrong, in microseconds.
    skew: AtomicI64,
    /// Simulated time as the harness last told it, for work outside of any host.
    elapsed: AtomicU64,
}

impl SimClock {
    /// Stands at `epoch_seconds` when the simulation begins.
    pub fn new(epoch_seconds: u64) -> SimClock {
        SimClock {
            epoch_micros: i64::try_from(epoch_seconds * 1_000_000).expect("a year of this age"),
            skew: AtomicI64::new(0),
            elapsed: AtomicU64::new(0),
        }
    }

    /// The harness has stepped to `elapsed`.
    pub fn tell(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).expect("a simulation ends");
        self.elapsed.store(micros, Ordering::Relaxed);
    }

    /// Moves the wall clock by so many microseconds.
    pub fn step(&self, micros: i64) {
        self.skew.fetch_add(micros, Ordering::Relaxed);
    }

    /// Sets the wall clock right.
    pub fn set_right(&self) {
        self.skew.store(0, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Stamp {
        let since = i64::try_from(self.monotonic().as_micros()).expect("a simulation ends");
        let micros = self.epoch_micros + since + self.skew.load(Ordering::Relaxed);
        Stamp::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    fn monotonic(&self) -> Duration {
        let told = || Duration::from_micros(self.elapsed.load(Ordering::Relaxed));
        match turmoil::in_simulation() {
            true => turmoil::sim_elapsed().unwrap_or_else(told),
            false => told(),
        }
    }

    #[allow(clippy::disallowed_methods)]
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
