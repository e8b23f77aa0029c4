//! [`RealOffload`]: a pool of threads for single jobs, and a named thread for a loop.
//!
//! The pool is ours and not tokio's blocking pool, for two reasons: tokio drops jobs unrun while it
//! shuts down, and it swallows their panics. Here a job that was handed in runs, and a panic takes
//! the process down: a log whose thread died silently would hang every write for ever.
//! How many jobs wait is bounded by those who hand them in.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::Offload;
use crate::offload::Task;

/// Threads at most; the jobs beyond wait. Each may sit in a slow fsync or a copy of a snapshot.
const THREADS: usize = 64;
/// A thread without work for so long ends.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Threads of the operating system. Clones share one pool.
#[derive(Clone, Default)]
pub struct RealOffload {
    pool: Arc<Pool>,
}

#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl std::fmt::Debug for RealOffload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealOffload").finish_non_exhaustive()
    }
}

impl Offload for RealOffload {
    fn run(&self, job: Job) {
        let mut state = self.pool.state.lock();
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle || state.threads == THREADS {
            drop(state);
            self.pool.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(&self.pool);
        let started = thread::Builder::new()
            .name("offload".into())
            .spawn(move || pool.serve());
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for blocking work");
            let mut state = self.pool.state.lock();
            state.threads -= 1;
            // With no thread at all nobody would ever take the job: here, then, slow but done.
            if state.threads == 0
                && let Some(job) = state.jobs.pop_front()
            {
                drop(state);
                or_abort("offload", job);
            }
        }
    }

    fn thread(&self, name: &str, task: Task) {
        let label = name.to_owned();
        thread::Builder::new()
            .name(label.clone())
            .spawn(move || {
                or_abort(&label, || {
                    // A runtime of its own, with a timer: it lives as long as its loop does,
                    // whatever becomes of the one that the loop was started from.
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .expect("a runtime without I/O needs nothing that could be missing");
                    runtime.block_on(task);
                });
            })
            .expect("the system has a thread for each log");
    }

    fn rest(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

impl Pool {
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                or_abort("offload", job);
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let late = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if late && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Runs `work`; a panic in it ends the process, after the panic hook has printed it.
pub(crate) fn or_abort(name: &str, work: impl FnOnce()) {
    // Nothing is looked at again after a panic, so nothing broken can be seen.
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!(thread = name, "panic in blocking work: the process ends");
        std::process::abort();
    }
}

/// Drives a future on this thread, parked while it waits. No reactor, no timer.
pub(crate) fn block_on(task: impl Future<Output = ()>) {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut task = pin!(task);
    while task.as_mut().poll(&mut context) == Poll::Pending {
        // An unpark that came between poll and park makes this return at once.
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_blocked_job_does_not_hold_up_another() {
        let offload = RealOffload::default();
        let (release, blocked) = mpsc::channel::<()>();
        offload.run(Box::new(move || blocked.recv().unwrap()));
        let (done, result) = mpsc::channel();
        for n in 0..100 {
            let done = done.clone();
            offload.run(Box::new(move || done.send(n).unwrap()));
        }
        let mut all: Vec<i32> = result.iter().take(100).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        release.send(()).unwrap();
    }

    #[test]
    fn a_job_handed_in_runs_though_the_pool_is_dropped() {
        let offload = RealOffload::default();
        let (done, result) = mpsc::channel();
        offload.run(Box::new(move || done.send(1).unwrap()));
        drop(offload);
        assert_eq!(result.recv(), Ok(1));
    }

    /// In a process of its own: this test runs itself again, told by the environment.
    #[test]
    fn a_panic_in_a_thread_takes_the_process_down() {
        const CHILD: &str = "UNISONDB_TEST_PANICS";
        if std::env::var_os(CHILD).is_some() {
            RealOffload::default().thread("log", Box::pin(async { panic!("as told") }));
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let this = std::env::current_exe().unwrap();
        let name = "real::offload::tests::a_panic_in_a_thread_takes_the_process_down";
        let child = std::process::Command::new(this)
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), None, "ended by a signal: {said}");
        assert!(said.contains("as told"), "{said}");
    }
}
