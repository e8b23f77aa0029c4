//! A node, put together: configuration, data directory, listeners, namespaces and their writer,
//! the HTTP surface, and what a node does by itself.
//!
//! ```text
//!  config ─► listen ─► node::start ─► directory ─► registry ─► one Lane a namespace: its raft group
//!                          │                          ▲
//!                          ├─► http::serve ───────────┘ Host, Writer
//!                          ├─► background: expiry, retention, scrub, room
//!                          └─► cluster: founding, members, namespaces of all nodes; http::serve_peers
//! ```
//!
//! [`start`] is what the binary `unisondb`, the tests and the simulator call; the binary only reads
//! the configuration, binds the listeners and waits for signals.

mod background;
mod ballast;
mod cluster;
pub mod config;
pub mod descriptors;
pub mod directory;
pub mod greeting;
pub mod listen;
mod namespaces;
mod node;
mod registry;
mod scrub;
pub mod telemetry;
#[cfg(test)]
mod tests;
pub mod tls;
mod writer;

pub use node::{Parts, PeerSide, Running, StartError, start};
pub use registry::Registry;
pub use writer::GroupWriter;
