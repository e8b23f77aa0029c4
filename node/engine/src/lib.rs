//! One namespace: the log, the state that the log adds up to, and all that is done with both.
//!
//! ```text
//!   Writer (above) --append+sync--> wal --Entry--> Applier --> memtable --flush--> store (LMDB)
//!                                                     |                              |
//!   readers <---- View: memtable over one LMDB snapshot, one moment -----------------+
//! ```
//!
//! [`Engine`] is the shared handle: reads, positions, backup. [`Applier`] is the one place that
//! changes state, owned by whoever feeds it committed records in order. Applying reads no clock, no
//! chance and no configuration: the same records give the same digest on every machine (P7).

mod admit;
mod apply;
pub mod backup;
mod engine;
mod error;
mod flush;
mod pace;
mod read;
pub mod restore;
mod scrub;
pub mod start;
mod state;

pub use admit::Refusal;
pub use apply::Applier;
pub use engine::{Ended, Engine, Positions};
pub use error::Error;
pub use read::{KvEntry, Lob, Page, Row, Scan, Stand, TxInfo, TxStatus};
pub use scrub::Scrubbed;
pub use state::rows::Membership;
