//! The machine below the database, as five seams: [`Disk`] and [`File`], [`Clock`], [`Entropy`],
//! [`Offload`], and transport: [`Listener`] and [`Dial`]. [`Platform`] carries one of each but the last. The real ones are in [`real`]; [`memory`] has the
//! disk that loses, tears, fails and fills up as told, for tests and the simulator.
//!
//! Nothing above this crate names `std::fs`, `SystemTime::now`, `Instant::now`, `thread::spawn` or
//! `spawn_blocking` (LMDB in `store` is the one exception); `tests/` and `.clippy.toml` keep it so.

use std::sync::Arc;

pub mod clock;
pub mod conformance;
pub mod disk;
pub mod entropy;
pub mod memory;
pub mod offload;
pub mod pulse;
pub mod real;
pub mod transport;

pub use clock::Clock;
pub use disk::{
    Access, Disk, DiskExt, EntryKind, File, FileExt, FolderEntry, Lock, Meta, Space, VolumeKind,
    is_denied, is_exhausted,
};
pub use entropy::Entropy;
pub use offload::{Offload, OffloadExt};
pub use pulse::Pulse;
pub use transport::{Dial, Dialled, Listener, Stream};

/// One machine: what a node is handed at assembly. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub entropy: Arc<dyn Entropy>,
    /// Where blocking work goes.
    pub offload: Arc<dyn Offload>,
    /// What the logs of this machine are doing: work that can wait gives way to them.
    pub pulse: Arc<Pulse>,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}
