//! [`Gate`]: who may hold a transaction open, and when the map may move.
//!
//! Growing the map unmaps it, so no transaction may be open then (`mdb_env_set_mapsize`). Every
//! [`View`](crate::View) and copy holds a [`Pass`]; a growth shuts the gate, waits until all passes
//! are back, and opens it again. Both waits are bounded, so that a forgotten view, or a thread that
//! asks for a second view while it holds one, costs time and never stands still for ever.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
struct State {
    /// Passes handed out and not yet back.
    open: usize,
    /// A growth is waiting or under way: no new passes.
    shut: bool,
    /// The map is gone for good: no transaction may ever begin again.
    lost: bool,
}

/// Lets transactions in, or the one growth.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// The right to hold one transaction open.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Gate>);

/// The right to move the map: no pass is out while this lives.
#[derive(Debug)]
pub(crate) struct Shut<'g>(&'g Gate);

/// The map is gone: a growth failed half way.
#[derive(Debug)]
pub(crate) struct Lost;

impl Gate {
    /// A pass, as soon as no growth is waiting or under way.
    pub(crate) fn enter(self: &Arc<Gate>) -> Result<Pass, Lost> {
        let mut state = self.state.lock();
        // Bounded by the growth's own deadline: `shut` opens again on every path.
        while state.shut {
            self.changed.wait(&mut state);
        }
        if state.lost {
            return Err(Lost);
        }
        state.open += 1;
        Ok(Pass(self.clone()))
    }

    /// Shuts the gate and waits at most `patience` for all passes to come back.
    ///
    /// # Errors
    /// How many passes were still out; the gate is open again.
    pub(crate) fn shut(&self, patience: Duration) -> Result<Shut<'_>, usize> {
        let mut state = self.state.lock();
        assert!(!state.shut, "only the one writer shuts the gate");
        state.shut = true;
        let shut = Shut(self);
        let waited = self
            .changed
            .wait_while_for(&mut state, |s| s.open > 0, patience);
        let open = state.open;
        drop(state);
        if waited.timed_out() && open > 0 {
            return Err(open);
        }
        Ok(shut)
    }

    /// Shuts the gate if no pass is out at this moment.
    pub(crate) fn shut_if_idle(&self) -> Option<Shut<'_>> {
        let mut state = self.state.lock();
        if state.open > 0 || state.shut {
            return None;
        }
        state.shut = true;
        Some(Shut(self))
    }

    /// Passes that are out.
    pub(crate) fn open(&self) -> usize {
        self.state.lock().open
    }
}

impl Shut<'_> {
    /// The growth failed and left no map: nothing may begin any more.
    pub(crate) fn lose(self) {
        self.0.state.lock().lost = true;
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.state.lock().shut = false;
        self.0.changed.notify_all();
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state.lock().open -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_growth_waits_for_every_pass_and_gives_up_in_time() {
        let gate = Arc::new(Gate::default());
        let a = gate.enter().unwrap();
        let b = gate.enter().unwrap();
        assert_eq!(gate.shut(Duration::from_millis(5)).err(), Some(2));
        drop(a);
        assert!(gate.shut_if_idle().is_none());
        // Given up means open again: a new pass does not wait.
        let c = gate.enter().unwrap();
        std::thread::scope(|s| {
            let growth = s.spawn(|| gate.shut(Duration::from_secs(20)).map(drop));
            drop(b);
            drop(c);
            assert_eq!(growth.join().unwrap(), Ok(()));
        });
        assert_eq!(gate.open(), 0);
    }

    #[test]
    fn nothing_enters_once_the_map_is_lost() {
        let gate = Arc::new(Gate::default());
        gate.shut_if_idle().unwrap().lose();
        assert!(gate.enter().is_err());
    }
}
