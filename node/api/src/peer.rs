//! [`Peer`]: the way from one member of a group to another. What is carried is the group's own
//! business; a message arrives whole or not at all, and may arrive though its answer is lost.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use unisondb_types::Namespace;

/// An answer, some time later: at the latest when the caller's patience ends, which drops it.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Bytes, PeerError>> + Send + 'a>>;

/// Carries messages to the other members of a namespace's group, by raft id.
pub trait Peer: Send + Sync + 'static {
    /// Sends `message` to member `to`, and gives its answer.
    fn call<'a>(&'a self, namespace: &'a Namespace, to: u64, message: Bytes) -> Reply<'a>;
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
    fn call<'a>(&'a self, _: &'a Namespace, to: u64, _: Bytes) -> Reply<'a> {
        let nobody = PeerError::Unreachable(format!("member {to}: this node runs alone"));
        Box::pin(std::future::ready(Err(nobody)))
    }
}
