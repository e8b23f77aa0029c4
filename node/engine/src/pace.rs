//! [`Pace`]: how long work that nobody waits for as for a write (a snapshot, copies of segments)
//! shares the machine with the logs: it gives way to them, and has all of it when they are quiet.
//!
//! Work is cut into steps of a mebibyte. A step during which some log of this machine made records
//! durable is followed by a rest in proportion to how long the step took, so a machine that is
//! busy, which makes steps longer, gets longer rests. Writes that come now and then cost a rest now
//! and then; a steady stream of them leaves one part in [`REST`] + 1 to the work.

use std::time::Duration;

use unisondb_platform::Platform;

/// Bytes of work between two looks at the logs.
const STEP_BYTES: usize = 1 << 20;
/// A rest, in lengths of the step before it.
const REST: u32 = 9;
/// A rest is no longer, whatever the step met: a stalled disk is not to be waited for twice.
const LONGEST: Duration = Duration::from_millis(200);

/// Gives way to the logs of one machine.
pub(crate) struct Pace {
    platform: Platform,
    /// Work done in this step, in bytes.
    bytes: usize,
    /// When this step began, and the logs' beats then.
    begun: Duration,
    beats: u64,
}

impl Pace {
    /// Work begins.
    pub(crate) fn new(platform: &Platform) -> Pace {
        Pace {
            platform: platform.clone(),
            bytes: 0,
            begun: platform.clock.monotonic(),
            beats: platform.pulse.beats(),
        }
    }

    /// So many bytes more are done; whether it is time to [`rest`](Self::rest).
    pub(crate) fn is_up(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        if self.bytes < STEP_BYTES {
            return false;
        }
        let quiet = self.platform.pulse.beats() == self.beats;
        if quiet {
            self.begin();
        }
        !quiet
    }

    /// Lets the others have the machine, and begins the next step. Blocks.
    pub(crate) fn rest(&mut self) {
        let took = self.platform.clock.monotonic().saturating_sub(self.begun);
        self.platform.offload.rest((took * REST).min(LONGEST));
        self.begin();
    }

    fn begin(&mut self) {
        self.bytes = 0;
        self.begun = self.platform.clock.monotonic();
        self.beats = self.platform.pulse.beats();
    }
}

#[cfg(test)]
mod tests {
    use unisondb_platform::memory;

    use super::*;

    #[test]
    fn work_rests_only_after_a_step_in_which_a_log_was_written() {
        let (platform, _, _) = memory::platform(1);
        let mut pace = Pace::new(&platform);
        assert!(!pace.is_up(STEP_BYTES), "the logs are quiet");
        platform.pulse.beat();
        assert!(!pace.is_up(STEP_BYTES - 1), "the step is not done");
        assert!(pace.is_up(1));
        pace.rest();
        assert!(!pace.is_up(STEP_BYTES), "they are quiet again");
    }
}
