//! [`Namespaces`]: every namespace of this process and how it is. Looked at by every request, so a
//! look is one read lock and one step in a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use unisondb_api::WriteError;
use unisondb_engine::Engine;
use unisondb_http::{HostError, Standing, State};
use unisondb_raft::Queued;
use unisondb_types::Namespace;

use crate::writer::Lane;

/// What an opening came to; nothing while it is under way.
pub(crate) type Outcome = Option<Result<Engine, HostError>>;

/// What is done with a namespace that is found at the start.
pub(crate) const RECOVERING: &str = "the namespace is being recovered";
/// The same, while the disk is full.
pub(crate) const NO_ROOM: &str = "waiting for room: the disk is full";

/// What is done with a namespace whose log lacks what no other node has any more.
pub(crate) const TAKING_OVER: &str =
    "the namespace takes over a snapshot from another node, since it was away for long";

/// How a namespace is.
pub(crate) enum Slot {
    /// Something is being done with it.
    Busy {
        /// What, in words.
        doing: &'static str,
        /// What it came to, for those who wait.
        outcome: watch::Receiver<Outcome>,
    },
    /// Open.
    Open(Arc<Lane>),
    /// Not to be used.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

impl Slot {
    pub(crate) fn state(&self) -> State {
        match self {
            Slot::Busy { doing, .. } => State::Starting {
                doing: (*doing).to_owned(),
            },
            Slot::Open(lane) => State::Open {
                engine: lane.engine().clone(),
                notes: lane.notes(),
            },
            Slot::Failed { reason } => State::Failed {
                reason: reason.clone(),
            },
        }
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Namespaces {
    slots: RwLock<BTreeMap<Namespace, Slot>>,
    /// The one namespace of the flat layout, while its name is not known: answers to any name.
    unnamed: RwLock<Option<Slot>>,
    queued: Queued,
}

impl Namespaces {
    /// One of them.
    pub(crate) fn find(&self, namespace: &Namespace) -> Option<Standing> {
        let standing = |slot: &Slot| Standing {
            namespace: namespace.clone(),
            state: slot.state(),
        };
        self.slots
            .read()
            .get(namespace)
            .map(standing)
            .or_else(|| self.unnamed.read().as_ref().map(standing))
    }

    /// All, by name.
    pub(crate) fn all(&self) -> Vec<Standing> {
        let slots = self.slots.read();
        let shown = slots.iter().filter(|(name, _)| !name.is_cluster());
        let standings = shown.map(|(namespace, slot)| Standing {
            namespace: namespace.clone(),
            state: slot.state(),
        });
        standings.collect()
    }

    /// How the one is that has no name yet, in words.
    pub(crate) fn unnamed(&self) -> Option<String> {
        match self.unnamed.read().as_ref()? {
            Slot::Busy { doing, .. } => Some((*doing).to_owned()),
            Slot::Failed { reason } => Some(reason.clone()),
            Slot::Open(_) => unreachable!("one that is open has a name"),
        }
    }

    /// Whether one that was there before this start is not open (yet): where it comes from is
    /// not known.
    pub(crate) fn are_any_unopened(&self) -> bool {
        let unopened = |slot: &Slot| match slot {
            Slot::Busy { doing, .. } => [RECOVERING, NO_ROOM].contains(doing),
            Slot::Failed { .. } => true,
            Slot::Open(_) => false,
        };
        self.unnamed.read().is_some() || self.slots.read().values().any(unopened)
    }

    /// Whether one that was there before this start is still being opened.
    pub(crate) fn are_any_opening(&self) -> bool {
        let opening = |slot: &Slot| matches!(slot, Slot::Busy { doing, .. } if [RECOVERING, NO_ROOM].contains(doing));
        self.unnamed.read().as_ref().is_some_and(opening) || self.slots.read().values().any(opening)
    }

    /// Whether it is there, in whatever state.
    pub(crate) fn is_known(&self, namespace: &Namespace) -> bool {
        self.slots.read().contains_key(namespace)
    }

    /// What waits for their logs.
    pub(crate) fn queued(&self) -> &Queued {
        &self.queued
    }

    /// Those that are open.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        let slots = self.slots.read();
        let open = slots.values().filter_map(|slot| match slot {
            Slot::Open(lane) => Some(lane.clone()),
            Slot::Busy { .. } | Slot::Failed { .. } => None,
        });
        open.collect()
    }

    /// The way into the log of one that is open.
    pub(crate) fn lane(&self, namespace: &Namespace) -> Result<Arc<Lane>, WriteError> {
        match self.slots.read().get(namespace) {
            Some(Slot::Open(lane)) => Ok(lane.clone()),
            Some(slot) => Err(unavailable(slot)),
            None => Err(match self.unnamed.read().as_ref() {
                Some(slot) => unavailable(slot),
                None => WriteError::NotFound(namespace.clone()),
            }),
        }
    }

    /// Looks at a namespace and changes how it is, with nobody in between. `look` is given what is
    /// there, and may put something in its place.
    pub(crate) fn change<T>(
        &self,
        namespace: &Namespace,
        look: impl FnOnce(Option<&Slot>, usize) -> (Option<Slot>, T),
    ) -> T {
        let mut slots = self.slots.write();
        let (next, result) = look(slots.get(namespace), slots.len());
        if let Some(next) = next {
            slots.insert(namespace.clone(), next);
        }
        result
    }

    /// Says how a namespace is from now on; `None`: it is gone.
    pub(crate) fn put(&self, namespace: &Namespace, slot: Option<Slot>) {
        let mut slots = self.slots.write();
        // Dropped behind the lock: the last handle of a lane may have work to do.
        let _before = match slot {
            Some(slot) => slots.insert(namespace.clone(), slot),
            None => slots.remove(namespace),
        };
        drop(slots);
    }

    /// Says how the namespace is that has no name yet.
    pub(crate) fn put_unnamed(&self, slot: Option<Slot>) {
        *self.unnamed.write() = slot;
    }
}

fn unavailable(slot: &Slot) -> WriteError {
    match slot {
        Slot::Busy { doing, .. } => WriteError::Unavailable((*doing).to_owned()),
        Slot::Failed { reason } => WriteError::Unavailable(reason.clone()),
        Slot::Open(_) => unreachable!("an open namespace takes writes by itself"),
    }
}
