//! [`Standing`]: how a group's log is, for those who ask from outside: operators and proposers.

use parking_lot::Mutex;
use tokio::sync::watch;
use unisondb_api::WriteError;
use unisondb_types::Namespace;

/// How the log is.
pub struct Standing {
    namespace: Namespace,
    failed: Mutex<Option<String>>,
    stuck: watch::Sender<Option<WriteError>>,
    stopping: watch::Sender<bool>,
}

impl Standing {
    pub(crate) fn new(namespace: Namespace) -> Standing {
        Standing {
            namespace,
            failed: Mutex::new(None),
            stuck: watch::Sender::new(None),
            stopping: watch::Sender::new(false),
        }
    }

    /// Why the log takes nothing more until the process restarts, if so (P14).
    pub fn failed(&self) -> Option<String> {
        self.failed.lock().clone()
    }

    /// What is answered to new proposals because what was appended last cannot be made durable just
    /// now, if so: that is tried again.
    pub fn stuck(&self) -> watch::Receiver<Option<WriteError>> {
        self.stuck.subscribe()
    }

    pub(crate) fn fail(&self, why: &str) {
        self.failed.lock().get_or_insert_with(|| {
            tracing::error!(
                namespace = %self.namespace,
                why,
                "the log has stopped; it takes no more writes until the process restarts"
            );
            why.to_owned()
        });
    }

    pub(crate) fn set_stuck(&self, why: Option<WriteError>) {
        self.stuck.send_if_modified(|now| {
            let differs = *now != why;
            *now = why;
            differs
        });
    }

    /// Whoever waits for a disk waits no longer.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until this member takes part no longer.
    pub async fn stopping(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender is in `self`.
        drop(stopping.wait_for(|stop| *stop).await);
    }
}

/// Waits until the log cannot be synced, and gives the reason.
pub(crate) async fn stuck_now(stuck: &mut watch::Receiver<Option<WriteError>>) -> String {
    let why = stuck.wait_for(Option::is_some).await;
    let why = why
        .ok()
        .and_then(|why| why.as_ref().map(ToString::to_string));
    match why {
        Some(why) => why,
        // The group outlives its proposals.
        None => std::future::pending().await,
    }
}
