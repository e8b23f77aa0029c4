//! [`Operation`]: what a client did to one key and when, for those who ask whether all of it can have
//! happened in some order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// A value, or that there is none.
pub type Value = Option<Vec<u8>>;

/// One operation on one key. A write of several keys is one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub client: String,
    pub key: Vec<u8>,
    pub act: Act,
    /// Which life of the namespace it is of: a restore in place begins another one.
    pub epoch: u64,
    /// When it was asked for, in steps of one counter.
    pub asked: u64,
    /// When it was answered; a write that has no answer may have been done, at any time since.
    pub answered: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It was written, if the condition held.
    Write {
        value: Value,
        only_if: Option<Value>,
    },
    /// It was not written, because this was not there.
    Refused { only_if: Value },
    /// It was read, linearizable.
    Read { value: Value },
}

/// The operations of one namespace's clients.
#[derive(Clone, Default)]
pub struct Operations {
    all: Arc<Mutex<Vec<Operation>>>,
    moment: Arc<AtomicU64>,
    epoch: Arc<AtomicU64>,
}

/// An operation that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    asked: u64,
    epoch: u64,
}

impl Operations {
    /// Now, which is before all that comes.
    pub fn begin(&self) -> Begun {
        Begun {
            asked: self.moment.fetch_add(1, Ordering::Relaxed),
            epoch: self.epoch.load(Ordering::Relaxed),
        }
    }

    /// It has an answer, or has been given up without one.
    pub fn end(&self, begun: Begun, client: &str, key: &[u8], act: Act, is_known: bool) {
        let now = self.moment.fetch_add(1, Ordering::Relaxed);
        let epoch = self.epoch.load(Ordering::Relaxed);
        let operation = Operation {
            client: client.to_owned(),
            key: key.to_vec(),
            act,
            epoch: begun.epoch,
            asked: begun.asked,
            answered: (is_known && epoch == begun.epoch).then_some(now),
        };
        let mut all = self.all.lock();
        // Tried in two lives: a write may be of either, or of none; of others nothing follows.
        match operation.act {
            Act::Write { .. } if epoch != begun.epoch => {
                let again = (begun.epoch + 1..=epoch).map(|epoch| Operation {
                    epoch,
                    ..operation.clone()
                });
                all.extend(again);
                all.push(operation);
            }
            _ if epoch != begun.epoch => {}
            _ => all.push(operation),
        }
    }

    /// A restore in place has begun another history.
    pub fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    pub fn all(&self) -> Vec<Operation> {
        self.all.lock().clone()
    }
}
