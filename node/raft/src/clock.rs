//! What time it is by a group's log, and what is told of the machine's clock (D3).

use std::time::Duration;

use unisondb_types::Stamp;

use crate::group::Group;

impl Group {
    /// Why this machine's clock is not believed, if so: nothing is written until it is.
    pub fn clock_refused(&self) -> Option<String> {
        self.log.shared().time().err()
    }

    /// How far the wall clock is behind the log.
    pub fn clock_behind(&self) -> Duration {
        let shared = self.log.shared();
        let now = shared.platform.clock.now();
        shared.office.lock().behind(now)
    }

    /// What time it is by this log; what is aged by it outlives any jump of the wall clock.
    pub fn log_now(&self) -> Stamp {
        let shared = self.log.shared();
        let clock = &shared.platform.clock;
        let (now, monotonic) = (clock.now(), clock.monotonic());
        shared.office.lock().log_now(now, monotonic)
    }
}
