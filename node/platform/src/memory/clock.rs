//! [`MemoryClock`]: time that passes when it is told to.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use unisondb_types::Stamp;

use crate::Clock;

/// Where a new clock stands: 2025-01-01T00:00:00Z.
const START: Stamp = Stamp::from_micros(1_735_689_600_000_000);

/// A clock moved by hand. Clones show the same time.
#[derive(Clone)]
pub struct MemoryClock(Arc<Mutex<Time>>);

struct Time {
    wall: Stamp,
    monotonic: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    next: u64,
}

impl Default for MemoryClock {
    fn default() -> Self {
        MemoryClock(Arc::new(Mutex::new(Time {
            wall: START,
            monotonic: Duration::ZERO,
            sleepers: BTreeMap::new(),
            next: 0,
        })))
    }
}

impl std::fmt::Debug for MemoryClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MemoryClock").field(&self.now()).finish()
    }
}

impl MemoryClock {
    /// Sets the wall clock: a jump either way, no time passes.
    pub fn set_wall(&self, wall: Stamp) {
        self.0.lock().wall = wall;
    }

    /// Steps the wall clock by so many microseconds, back when negative; no time passes.
    pub fn step(&self, micros: i64) {
        let mut time = self.0.lock();
        time.wall = Stamp::from_micros(time.wall.micros().saturating_add_signed(micros));
    }

    /// Lets time pass, on both clocks, and wakes who has slept enough, earliest first.
    pub fn advance(&self, duration: Duration) {
        let mut time = self.0.lock();
        time.monotonic += duration;
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        time.wall = time.wall.plus_micros(micros);
        let later = (time.monotonic + Duration::from_nanos(1), 0);
        let asleep = time.sleepers.split_off(&later);
        let awake = std::mem::replace(&mut time.sleepers, asleep);
        // A waker may run its task at once, and that task may ask for the time.
        drop(time);
        awake.into_values().for_each(Waker::wake);
    }

    /// How many sleep: a test can wait until somebody does before it advances.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.0.lock().sleepers.len()
    }
}

impl Clock for MemoryClock {
    fn now(&self) -> Stamp {
        self.0.lock().wall
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().monotonic
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut time = self.0.lock();
        time.next += 1;
        Box::pin(Sleep {
            key: (time.monotonic.saturating_add(duration), time.next),
            clock: self.clone(),
        })
    }
}

struct Sleep {
    key: (Duration, u64),
    clock: MemoryClock,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut time = self.clock.0.lock();
        if time.monotonic >= self.key.0 {
            return Poll::Ready(());
        }
        let before = time.sleepers.insert(self.key, context.waker().clone());
        // Dropping a waker may drop a task, with other sleeps in it: never with the lock held.
        drop(time);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let mut time = self.clock.0.lock();
        let waker = time.sleepers.remove(&self.key);
        drop(time);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_sleeper_wakes_when_its_time_has_come_and_not_before() {
        let clock = MemoryClock::default();
        let mut sleep = clock.sleep(Duration::from_secs(2));
        let mut context = Context::from_waker(Waker::noop());
        assert!(sleep.as_mut().poll(&mut context).is_pending());
        clock.advance(Duration::from_secs(1));
        assert!(sleep.as_mut().poll(&mut context).is_pending());
        clock.advance(Duration::from_secs(1));
        assert!(sleep.as_mut().poll(&mut context).is_ready());
        let mut forgotten = clock.sleep(Duration::from_secs(1));
        assert!(forgotten.as_mut().poll(&mut context).is_pending());
        assert_eq!(clock.sleepers(), 1);
        drop(forgotten);
        assert_eq!(clock.sleepers(), 0);
    }

    #[test]
    fn a_step_moves_the_wall_clock_alone() {
        let clock = MemoryClock::default();
        clock.step(-5_000_000);
        assert_eq!(START.micros_since(clock.now()), 5_000_000);
        assert_eq!(clock.monotonic(), Duration::ZERO);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), START);
        clock.set_wall(Stamp::from_micros(7));
        assert_eq!(clock.now().micros(), 7);
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
    }

    #[test]
    fn the_clock_keeps_the_contract() {
        let clock = MemoryClock::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(crate::conformance::clock(&clock, |passed| {
            clock.advance(passed)
        }));
    }
}
