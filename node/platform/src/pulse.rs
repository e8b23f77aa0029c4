//! [`Pulse`]: how the logs of this machine are beating. Work that can wait (a snapshot, copies of
//! segments) looks at it and gives way, since a client waits for each beat and nobody for the rest.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts groups of records that a log of this machine has made durable.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// A log has made a group of records durable.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many groups so far, over all logs of this machine.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
