//! How nodes of a cluster talk to one another.
//!
//! | module | what |
//! | --- | --- |
//! | [`Peer`] | carries a raft group's messages, by raft id; what is in them is the group's business |
//! | [`ask`] | what one node asks of another, and what it is told |
//! | [`envelope`] | how either is put into bytes |
//! | [`parts`] | several questions in one message |
//! | [`link`] | the way to one other node |
//! | [`Respond`] | who answers |
//!
//! A message arrives whole or not at all, and may arrive though its answer is lost.

pub mod ask;
pub mod envelope;
pub mod link;
pub mod parts;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use self::ask::{Ask, Asked, Card, GroupId, Told};
pub use self::link::Link;

/// The one path on a peer listener.
pub const PATH: &str = "/unison/peer";

/// An answer, some time later: at the latest when the caller's patience ends, which drops it.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Bytes, PeerError>> + Send + 'a>>;

/// How soon a message has to be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// At once: somebody waits for the answer.
    Now,
    /// Soon: it may wait a few milliseconds for others that go to the same node.
    Soon,
}

/// Carries messages to the other members of a namespace's group, by raft id.
pub trait Peer: Send + Sync + 'static {
    /// Sends `message` to member `to`, and gives its answer.
    fn call<'a>(&'a self, group: &'a GroupId, to: u64, message: Bytes, haste: Haste) -> Reply<'a>;
}

/// Answers what other nodes ask, each message by itself.
pub trait Respond: Send + Sync + 'static {
    /// What is answered to `message`, an [`envelope`] of [`Asked`] or not: it always is.
    fn respond(&self, message: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It was not sent: nobody is there, or it is not known where.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// It may have arrived.
    #[error("no answer: {0}")]
    Lost(String),
}

/// The way to nobody: of a node alone.
pub struct NoPeer;

impl Peer for NoPeer {
    fn call<'a>(&'a self, _: &'a GroupId, to: u64, _: Bytes, _: Haste) -> Reply<'a> {
        let nobody = PeerError::Unreachable(format!("member {to}: this node runs alone"));
        Box::pin(std::future::ready(Err(nobody)))
    }
}
