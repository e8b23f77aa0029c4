//! [`Standing`]: how a group's log is, for those who ask from outside: operators and proposers.

use parking_lot::Mutex;
use tokio::sync::watch;

/// How the log is.
pub struct Standing {
    failed: Mutex<Option<String>>,
    stuck: watch::Sender<Option<String>>,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing {
            failed: Mutex::new(None),
            stuck: watch::Sender::new(None),
        }
    }
}

impl Standing {
    /// Why the log takes nothing more until the process restarts, if so (P14).
    pub fn failed(&self) -> Option<String> {
        self.failed.lock().clone()
    }

    /// Why what was appended last cannot be made durable just now, if so: it is tried again.
    pub fn stuck(&self) -> watch::Receiver<Option<String>> {
        self.stuck.subscribe()
    }

    pub(crate) fn fail(&self, why: &str) {
        self.failed.lock().get_or_insert_with(|| why.to_owned());
    }

    pub(crate) fn set_stuck(&self, why: Option<String>) {
        self.stuck.send_if_modified(|now| {
            let differs = *now != why;
            *now = why;
            differs
        });
    }
}
