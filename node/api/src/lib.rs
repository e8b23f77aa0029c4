//! The contract between a node and those who talk to it.
//!
//! | module | what |
//! | --- | --- |
//! | [`route`] | every path, made and read by one pair of functions |
//! | [`percent`], [`query`] | what a path and a query string carry, down to any byte |
//! | [`base64`] | values in JSON |
//! | [`body`] | the JSON bodies of requests and answers |
//! | [`cursor`] | where the next page of a scan begins |
//! | [`error`] | what an answer that is no success looks like |
//! | [`lenient`] | the one broken JSON that is understood when it is allowed to be |
//! | [`client`] | a small client |
//! | [`Peer`] | the way from one member of a raft group to another |
//! | [`Writer`] | how a change gets into the log: a single node and a raft group look alike |
//!
//! Leaves to others: sockets and statuses of a server (`unisondb-http`), what commands mean
//! (`unisondb-engine`). The texts that scripts match on stand in [`error`].

pub mod base64;
pub mod body;
pub mod client;
pub mod cursor;
pub mod error;
pub mod lenient;
pub mod peer;
pub mod percent;
pub mod query;
pub mod route;
mod writer;

pub use base64::Base64;
pub use client::{Client, ClientError};
pub use cursor::Cursor;
pub use error::ApiError;
pub use peer::{Haste, NoPeer, Peer, PeerError, Reply, Respond};
pub use query::Query;
pub use route::{Miss, Place, Route, TxStep};
pub use writer::{Answer, Sealed, WriteError, Writer, Written};
