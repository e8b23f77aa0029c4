//! [`Writer`]: how a change gets into the log. A single node commits what is durable; a raft group
//! commits what a quorum has. Whoever calls sees the same answers.

use std::future::Future;
use std::pin::Pin;

use bincode::{Decode, Encode};
use unisondb_types::{Action, Idempotency, Lsn, Namespace, Outcome, SegmentId};

/// What a [`Writer`] gives: an answer, some time later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, WriteError>> + Send + 'a>>;

/// Puts changes into the log of a namespace and answers when they are committed and applied here.
pub trait Writer: Send + Sync + 'static {
    /// Commits one action as one record: wholly or not at all (P1, P2).
    fn write<'a>(
        &'a self,
        namespace: &'a Namespace,
        action: Action,
        idempotency: Option<Idempotency>,
    ) -> Answer<'a, Written>;

    /// Ends the active segment, if it holds user data, and waits until every ended segment is
    /// applied, checked and sealed here. Two at once, or none needed, make no empty segment.
    fn seal<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Sealed>;

    /// A position at or above every write acknowledged anywhere before the call: a read that waits
    /// until it is applied here is linearizable.
    fn barrier<'a>(&'a self, namespace: &'a Namespace) -> Answer<'a, Lsn>;
}

/// A committed and applied record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Written {
    /// Its position; for a repeated `Idempotency-Key`, that of the first.
    pub lsn: Lsn,
    /// What it did, or why it changed nothing.
    pub outcome: Outcome,
}

/// What a seal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The newest sealed segment, if there is any.
    pub segment: Option<SegmentId>,
    /// At or above every write acknowledged before the call.
    pub lsn: Lsn,
}

/// Why a change has no answer. Each variant says whether it may have happened.
/// Encoded by order: variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum WriteError {
    /// No such namespace (404). Not written.
    #[error("namespace not found: {0}")]
    NotFound(Namespace),
    /// A limit of `types::limits` (413). Not written.
    #[error("{0}")]
    TooLarge(String),
    /// Too much is waiting, or too many transactions are open (429). Not written.
    #[error("overloaded: {0}; retry")]
    Overloaded(String),
    /// Still starting, no leader, or stopped for a reason that may pass (503). Not written.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// This node takes no writes (403). Not written.
    #[error("read-only: {0}")]
    ReadOnly(String),
    /// No room in the log (507). Not written.
    #[error("no space left on device")]
    Full,
    /// The log or the store failed (500). Not written, or never acknowledged.
    #[error("{0}")]
    Failed(String),
    /// It may have been written or not (504): retry with the same `Idempotency-Key`.
    #[error("the outcome is unknown: {0}; retry with the same Idempotency-Key")]
    Unknown(String),
}
