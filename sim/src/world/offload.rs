//! [`SimOffload`]: blocking work in the one thread that there is. A job begins after a moment that
//! the seed draws, so jobs of several requests come in any order; a loop that has synced something
//! goes on only after the time that this takes on a disk, with a heavy tail.
//!
//! A job that hands in another one waits for it, as a rule, so that one is done at once.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use unisondb_platform::Offload;
use unisondb_platform::memory::Random;
use unisondb_platform::offload::Task;

use crate::world::disk::Watcher;

thread_local! {
    /// Whether a job is under way, which others must not wait behind.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Where blocking work goes in a simulation.
pub struct SimOffload {
    watcher: Arc<Watcher>,
    seed: u64,
    drawn: AtomicU64,
}

impl SimOffload {
    pub fn new(watcher: Arc<Watcher>, seed: u64) -> SimOffload {
        SimOffload {
            watcher,
            seed,
            drawn: AtomicU64::new(0),
        }
    }

    fn draw(&self, name: &str) -> Random {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        Random::keyed(self.seed, name.as_bytes(), number)
    }
}

/// How long a disk takes: mostly below a millisecond, now and then much longer.
fn latency(random: &mut Random) -> Duration {
    let micros = match random.below(100) {
        0 => 50_000 + random.below(450_000),
        1..=9 => 1_000 + random.below(9_000),
        _ => 100 + random.below(400),
    };
    Duration::from_micros(micros)
}

#[allow(clippy::disallowed_methods)]
async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

fn inside<T>(work: impl FnOnce() -> T) -> T {
    let before = INSIDE.with(|i| i.replace(true));
    let result = work();
    INSIDE.with(|i| i.set(before));
    result
}

impl Offload for SimOffload {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        if INSIDE.with(Cell::get) || !turmoil::in_simulation() {
            return inside(job);
        }
        let wait = latency(&mut self.draw("job"));
        tokio::spawn(async move {
            sleep(wait).await;
            inside(job);
        });
    }

    fn thread(&self, name: &str, task: Task) {
        let watcher = self.watcher.clone();
        let mut random = self.draw(name);
        tokio::spawn(async move {
            let mut task = pin!(task);
            loop {
                let before = watcher.syncs();
                // One step at a time: between two of them the disk has its turn.
                let done = poll_fn(|context| match task.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending if watcher.syncs() > before => Poll::Ready(false),
                    Poll::Pending => Poll::Pending,
                })
                .await;
                if done {
                    return;
                }
                sleep(latency(&mut random)).await;
            }
        });
    }

    fn rest(&self, _: Duration) {}
}
