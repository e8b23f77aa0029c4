//! A machine in memory: a disk that loses, tears, fails and fills up as told, a clock that is moved
//! by hand, chance from a seed, blocking work done inline.
//!
//! Mechanism only: *what* goes wrong and when is handed in, as [`Rule`]s or a [`Policy`]. The same
//! calls with the same seeds give the same bytes and the same faults.
//!
//! A crash sweep asks whether every moment at which power can fail leaves something to go on from:
//!
//! ```
//! use std::path::Path;
//! use unisondb_platform::memory::MemoryDisk;
//! use unisondb_platform::{Disk, DiskExt};
//!
//! let path = Path::new("/settings");
//! let scenario = |disk: &dyn Disk| disk.publish(path, b"new");
//! let fresh = || {
//!     let disk = MemoryDisk::default();
//!     disk.publish(path, b"old").unwrap();
//!     disk
//! };
//! let disk = fresh();
//! let before = disk.ops();
//! scenario(&disk).unwrap();
//! for n in before..disk.ops() {
//!     let disk = fresh();
//!     disk.freeze_at(n);
//!     scenario(&disk).unwrap_err();
//!     for seed in 0..10 {
//!         let after = disk.crash(seed).read(path, 100).unwrap();
//!         assert!(after == b"old" || after == b"new", "power lost at operation {n}");
//!     }
//! }
//! ```

mod clock;
mod content;
mod crash;
mod disk;
mod entropy;
mod faults;
mod file;
mod image;
mod native;
mod offload;
mod random;
mod state;
mod tree;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::clock::MemoryClock;
pub use self::disk::MemoryDisk;
pub use self::entropy::MemoryEntropy;
pub use self::faults::{Effect, OpKind, Operation, Policy, Rule};
pub use self::native::Native;
pub use self::offload::InlineOffload;
pub use self::random::Random;
use crate::Platform;

/// A sector: what a disk writes whole or not at all, and what goes bad as one.
pub const SECTOR: u64 = 512;

/// A fresh machine: an empty disk whose folders named `db` lie on a scratch folder, a clock that
/// stands at the first second of 2025, chance drawn from `seed`.
///
/// # Panics
/// When the machine below gives no temporary folder.
#[must_use]
pub fn platform(seed: u64) -> (Platform, MemoryDisk, MemoryClock) {
    let scratch = tempfile::tempdir().expect("a test has a temporary folder");
    let disk = MemoryDisk::new(Native::component("db", scratch));
    let clock = MemoryClock::default();
    (platform_on(&disk, &clock, seed), disk, clock)
}

/// A machine of these parts: the one that starts again after a crash, say.
#[must_use]
pub fn platform_on(disk: &MemoryDisk, clock: &MemoryClock, seed: u64) -> Platform {
    Platform {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(MemoryEntropy::new(seed)),
        offload: Arc::new(InlineOffload),
        pulse: Arc::default(),
    }
}
