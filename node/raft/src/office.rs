//! [`Office`]: which stamps this node may give while it leads (D3).
//!
//! A wall clock can jump; a stamp, once given, bounds every later one. So a stamp never runs ahead
//! of the last one by more than the monotonic time since then and its slack: at most one minute,
//! used up by running ahead and regained a second a second. However many stamps are given, a clock
//! that jumps forward is followed by a minute, then at double speed; one that is corrected soon has
//! done little harm. And the first stamp after a start, which has no monotonic time before it, is believed only up to seven
//! days past the last record.

use std::time::Duration;

use unisondb_types::Stamp;

/// How far a stamp may run ahead of what the monotonic clock says.
const SLACK: Duration = Duration::from_secs(60);
/// How far past the last record the first stamp after a start may lie unasked.
const UNASKED: Duration = Duration::from_secs(7 * 86_400);

/// What one process knows of time, by the stamps that it gives, and by what a leader that it follows says
/// of its own clock: from a start to the next.
#[derive(Debug)]
pub struct Office {
    /// Of the last record.
    last: Stamp,
    /// What time it was at which monotonic time; `None` before anything was given or heard.
    known: Option<(Stamp, Duration)>,
    /// Monotonic time at which it began.
    began: Duration,
    /// How far the next stamp may run ahead, had it been given then.
    slack: Duration,
    accept_clock: bool,
}

impl Office {
    /// Begins at monotonic time `monotonic`, behind a log whose last record is stamped `last`.
    pub fn new(last: Stamp, monotonic: Duration, accept_clock: AcceptClock) -> Office {
        Office {
            last,
            known: None,
            began: monotonic,
            slack: SLACK,
            accept_clock: accept_clock == AcceptClock::Always,
        }
    }

    /// The time to give to the log at wall time `now`, monotonic time `monotonic`.
    ///
    /// # Errors
    /// In words for the client: the clock is too far past the last record to be believed unasked.
    pub fn time(&self, now: Stamp, monotonic: Duration) -> Result<Stamp, String> {
        if let Some((known, at)) = self.known {
            let since = monotonic.saturating_sub(at);
            let most = since + self.slack_after(since);
            return Ok(now.min(known.plus_micros(micros(most))));
        }
        if self.accept_clock || now.micros_since(self.last) <= micros(UNASKED) {
            return Ok(now);
        }
        Err(format!(
            "the clock says {now}, but the last record is of {}: more than 7 days lie between; \
             set the clock right, or if it is right restart with --accept-clock",
            self.last
        ))
    }

    /// A record was stamped `stamp` here at monotonic time `monotonic`.
    pub fn gave(&mut self, stamp: Stamp, monotonic: Duration) {
        self.heard(stamp, monotonic);
        self.last = stamp;
    }

    /// A record that another has stamped lies in the log here now. It may be of long ago, so it says
    /// nothing of what time it is.
    pub fn took(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }

    /// Whoever leads says at monotonic time `monotonic` that it is `time`.
    pub fn heard(&mut self, time: Stamp, monotonic: Duration) {
        if let Some((known, at)) = self.known {
            let since = monotonic.saturating_sub(at);
            let ran = Duration::from_micros(time.micros_since(known));
            let ahead = ran.saturating_sub(since);
            self.slack = self.slack_after(since).saturating_sub(ahead);
        }
        self.known = Some((time, monotonic));
    }

    /// What time it is by the log: the wall time `now`, as far as the monotonic time since what is known
    /// bears it out. What is aged by it outlives any jump of the wall clock.
    pub fn log_now(&self, now: Stamp, monotonic: Duration) -> Stamp {
        let (time, at) = self.known.unwrap_or((self.last, self.began));
        now.min(time.plus_micros(micros(monotonic.saturating_sub(at) + SLACK)))
    }

    fn slack_after(&self, since: Duration) -> Duration {
        SLACK.min(self.slack + since)
    }

    /// How far the wall clock is behind the log.
    pub fn behind(&self, now: Stamp) -> Duration {
        Duration::from_micros(self.last.micros_since(now))
    }
}

/// Whether the first stamp after a start may lie more than seven days past the last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptClock {
    /// Yes: the operator has said so.
    Always,
    /// No.
    Within7Days,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY: u64 = 86_400_000_000;
    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> Stamp {
        Stamp::from_micros(1_000 * DAY + micros)
    }

    #[test]
    fn the_first_stamp_after_a_start_lies_within_seven_days_unless_accepted() {
        let office = Office::new(at(0), Duration::ZERO, AcceptClock::Within7Days);
        assert_eq!(office.time(at(7 * DAY), Duration::ZERO), Ok(at(7 * DAY)));
        let why = office.time(at(7 * DAY + 1), Duration::ZERO).unwrap_err();
        assert!(why.contains("--accept-clock"), "{why}");
        let office = Office::new(at(0), Duration::ZERO, AcceptClock::Always);
        assert_eq!(
            office.time(at(900 * DAY), Duration::ZERO),
            Ok(at(900 * DAY))
        );
    }

    #[test]
    fn a_jump_forward_is_followed_by_a_minute_and_then_at_double_speed_however_many_stamps() {
        let mut office = Office::new(at(0), Duration::ZERO, AcceptClock::Within7Days);
        office.gave(at(0), Duration::from_secs(5));
        let later = Duration::from_secs(8);
        assert_eq!(office.time(at(2 * SECOND), later), Ok(at(2 * SECOND)));
        let bounded = office.time(at(400 * DAY), later).unwrap();
        assert_eq!(bounded, at(63 * SECOND));
        office.gave(bounded, later);
        assert_eq!(office.time(at(400 * DAY), later), Ok(bounded));
        // Ten groups a second for a hundred seconds: no more than 100 s of time, and as much again.
        for tenth in 1..=1_000 {
            let monotonic = later + Duration::from_millis(100 * tenth);
            let stamp = office.time(at(400 * DAY), monotonic).unwrap();
            office.gave(stamp, monotonic);
        }
        assert_eq!(office.last, at((63 + 200) * SECOND));
        // A clock that is right again gives the slack back.
        let right = later + Duration::from_secs(400);
        office.gave(at(403 * SECOND), right);
        assert_eq!(office.time(at(400 * DAY), right), Ok(at(463 * SECOND)));
    }

    #[test]
    fn a_follower_believes_the_leader_and_not_the_age_of_what_it_catches_up_with() {
        let mut office = Office::new(at(0), Duration::ZERO, AcceptClock::Within7Days);
        office.took(at(SECOND));
        assert_eq!(office.time(at(6 * DAY), Duration::ZERO), Ok(at(6 * DAY)));
        assert!(office.time(at(9 * DAY), Duration::ZERO).is_err());
        office.heard(at(6 * DAY), Duration::from_secs(1));
        let now = office.time(at(9 * DAY), Duration::from_secs(2));
        assert_eq!(now, Ok(at(6 * DAY + 61 * SECOND)));
    }

    #[test]
    fn a_clock_that_goes_back_gives_its_own_time_and_the_log_keeps_order() {
        let mut office = Office::new(at(0), Duration::ZERO, AcceptClock::Within7Days);
        office.gave(at(10 * SECOND), Duration::ZERO);
        assert_eq!(office.time(at(0), Duration::ZERO), Ok(at(0)));
        assert_eq!(office.behind(at(0)), Duration::from_secs(10));
    }

    #[test]
    fn by_the_log_time_goes_on_with_the_monotonic_clock_whatever_the_wall_clock_says() {
        let mut office = Office::new(at(0), Duration::from_secs(100), AcceptClock::Within7Days);
        let later = Duration::from_secs(110);
        assert_eq!(office.log_now(at(5 * SECOND), later), at(5 * SECOND));
        assert_eq!(office.log_now(at(400 * DAY), later), at(70 * SECOND));
        office.gave(at(6 * DAY), later);
        let much_later = Duration::from_secs(3_710);
        let now = office.log_now(at(400 * DAY), much_later);
        assert_eq!(now, at(6 * DAY + 3_660 * SECOND));
    }
}
