//! The ends of a machine: power loss, and the death of its processes. Each gives a new disk; the old
//! one is frozen first, so that nothing that is being dropped still writes.

use std::collections::BTreeSet;

use super::MemoryDisk;
use super::faults::{Faults, Gate};
use super::state::State;
use super::tree::Tree;

impl MemoryDisk {
    /// The disk as it may be found after a power loss: of what was not synced nothing, everything,
    /// or a mixture, as `seed` decides. May be asked with many seeds for many ends.
    ///
    /// Damage (flipped bits, bad sectors) and the volume's size stay; rules and policy do not.
    #[must_use]
    pub fn crash(&self, seed: u64) -> MemoryDisk {
        self.restart(|tree| tree.lose_power(seed))
    }

    /// The disk after its processes were killed: all that was written is read, synced or not, and
    /// is still at risk. Locks and handles are gone.
    #[must_use]
    pub fn kill(&self) -> MemoryDisk {
        self.restart(Tree::forget_handles)
    }

    fn restart(&self, end: impl FnOnce(&mut Tree)) -> MemoryDisk {
        let mut state = self.state.lock();
        state.freeze();
        let mut tree = state.tree.clone();
        end(&mut tree);
        let frozen = state.frozen_native.as_ref();
        let native = frozen
            .expect("a frozen disk has set its native folders aside")
            .copy();
        native.prune(&tree);
        let mut room = state.room.clone();
        room.used = tree.allocated();
        MemoryDisk::of(State {
            tree,
            native,
            frozen_native: None,
            faults: Faults::default(),
            gate: Gate::default(),
            locks: BTreeSet::new(),
            seed: state.seed,
            room,
            volumes: state.volumes.clone(),
        })
    }
}
