//! [`Reads`]: whether a read waits here until a quorum has answered its leader once more (read index). openraft
//! asks them with a heartbeat, which looks like those that only show that the leader is there; these may
//! wait for others that go the same way, that one may not.

use tokio::sync::watch;

/// Counts the reads that wait.
#[derive(Debug, Default)]
pub(crate) struct Reads(watch::Sender<usize>);

/// A read that waits, until this is dropped.
pub(crate) struct Waits<'a>(&'a Reads);

impl Reads {
    /// One more waits. To be said before openraft is asked.
    pub(crate) fn wait(&self) -> Waits<'_> {
        self.0.send_modify(|waiting| *waiting += 1);
        Waits(self)
    }

    /// Ready as soon as any waits.
    pub(crate) async fn any(&self) {
        // The sender is here: it cannot be gone.
        drop(self.0.subscribe().wait_for(|waiting| *waiting > 0).await);
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|waiting| *waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_heartbeat_is_hurried_while_any_read_waits_also_one_that_comes_later() {
        let reads = Reads::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut hurried = pin!(reads.any());
        assert_eq!(hurried.as_mut().poll(&mut context), Poll::Pending);
        let (first, second) = (reads.wait(), reads.wait());
        assert_eq!(hurried.as_mut().poll(&mut context), Poll::Ready(()));
        drop(first);
        assert_eq!(pin!(reads.any()).poll(&mut context), Poll::Ready(()));
        drop(second);
        assert_eq!(pin!(reads.any()).poll(&mut context), Poll::Pending);
    }
}
