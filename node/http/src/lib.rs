//! The HTTP surface of a node or relayer. The only crate that names axum.
//!
//! ```text
//!   serve ──► router ──► guard ──► Route ──► kv row lob tx … ──► Engine (reads, inline)
//!                (Host, Origin,  (api)      backup  pull     └──► Writer (changes)
//!                 token)                    node  metrics         offload (blocking work)
//! ```
//!
//! [`router`] makes the service out of a [`Host`] and [`Settings`]; [`serve`] runs it on listeners.
//! What clients may rely on is the contract in `unisondb-api`; here it is carried out:
//!
//! - every answer that is no data stream is one JSON object on one line, errors included;
//! - a body is JSON whatever its `Content-Type` says, and at most 1 MiB long;
//! - a backup goes on when its client has left, and publishes all or nothing (P9);
//! - no request waits for a disk on a worker of the runtime.
//!
//! Leaves to others: how a change is committed (`Writer`), which namespaces there are (`Host`).

mod audit;
mod backup;
mod dispatch;
mod envelope;
mod guard;
mod host;
mod intake;
mod kv;
mod lob;
mod metrics;
mod node;
mod outcome;
mod path;
mod peers;
mod position;
mod pull;
mod range;
mod reading;
mod row;
mod scan;
mod serve;
mod settings;
mod tokens;
mod tx;
mod wire;
mod writing;

pub use dispatch::router;
pub use host::{About, Act, ClusterNode, ClusterView, Host, HostError, Note, Standing, State, Why};
pub use serve::{Connections, Peer, serve, serve_peers};
pub use settings::{RenderMetrics, Settings};
pub use tokens::{Role, TokenError, Tokens};
