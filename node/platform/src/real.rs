//! The machine as it is: the operating system's files, clocks, chance and threads.
//!
//! Promises what the traits promise, on Linux and any POSIX file system whose fsync tells the
//! truth. Leaves to others: retries (only `EINTR` is looped over, in [`FileExt`](crate::FileExt)),
//! and every decision about what an error means.

mod disk;
mod offload;
mod transport;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use unisondb_types::Stamp;

pub use self::disk::RealDisk;
pub use self::offload::RealOffload;
pub(crate) use self::offload::{block_on, or_abort};
pub use self::transport::TcpDial;
use crate::{Clock, Entropy, Platform};

/// The real machine.
#[must_use]
pub fn platform() -> Platform {
    Platform {
        disk: Arc::new(RealDisk),
        clock: Arc::new(RealClock::default()),
        entropy: Arc::new(RealEntropy),
        offload: Arc::new(RealOffload::default()),
        pulse: Arc::default(),
    }
}

/// The system's clocks. [`Clock::sleep`] needs a tokio runtime with its timer on.
#[derive(Debug, Clone, Copy)]
pub struct RealClock {
    start: Instant,
}

impl Default for RealClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Stamp {
        // A clock before 1970 is as good as none; the log's stamps do not go back with it (D3).
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Stamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The kernel's random bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealEntropy;

impl Entropy for RealEntropy {
    fn fill(&self, buf: &mut [u8]) {
        // Without it ids could repeat, and two histories pass for one: nothing may go on.
        getrandom::fill(buf).expect("the kernel gives random bytes once it has booted");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::conformance;

    #[test]
    fn the_real_parts_keep_the_contract() {
        conformance::entropy(&RealEntropy);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            conformance::clock(&RealClock::default(), |_| ()).await;
            conformance::offload(&RealOffload::default()).await;
        });
    }

    #[test]
    fn the_wall_clock_shows_this_century() {
        assert!(RealClock::default().now() > "2025-01-01T00:00:00Z".parse().unwrap());
    }
}
