//! [`Clock`]: wall time for stamps, monotonic time for durations, and sleeping.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use unisondb_types::Stamp;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Wall time; may jump either way.
    fn now(&self) -> Stamp;
    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
    /// Ready after `duration`.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
