//! [`Offload`]: where blocking work goes, so that no async worker waits for a disk.
//!
//! Real: a pool for single jobs, an OS thread for a loop. Simulated: both run inline, in the one
//! thread that there is.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A loop that owns its thread.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs blocking work.
pub trait Offload: Send + Sync + 'static {
    /// Runs `job` once, on a thread that may block. Jobs may run side by side and in any order.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
    /// Drives `task` to its end on a thread of its own, named `name`; between its awaits it may
    /// block. It may await channels, notifications and [`Clock::sleep`](crate::Clock::sleep), but
    /// no sockets.
    fn thread(&self, name: &str, task: Task);
    /// Rests a job of [`run`](Self::run), on its own thread, for about `duration`: others have the
    /// machine meanwhile. Inline there is nobody to give way to: it returns at once.
    fn rest(&self, duration: Duration);
}

/// What every [`Offload`] can do by its own calls.
pub trait OffloadExt {
    /// Runs `f` where it may block, and gives its result.
    fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;
}

impl<O: Offload + ?Sized> OffloadExt for O {
    fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        let (done, result) = tokio::sync::oneshot::channel();
        self.run(Box::new(move || {
            // The receiver is gone when the caller was cancelled: the work stands, nobody asks.
            drop(done.send(f()));
        }));
        async move {
            result
                .await
                .expect("an offloaded job ends in a result or takes the process down")
        }
    }
}
