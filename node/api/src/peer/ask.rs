//! [`Ask`]: what one node asks of another, and [`Told`], what it is told. What lies behind either in a
//! message is said at each. (Layout in `docs/formats/peer.md`.)

use bincode::{Decode, Encode};
use unisondb_types::{ClusterId, LineageId, Lsn, Namespace};

use crate::{Sealed, WriteError, Written};

/// The version of all that is in this file. Nodes of different ones do not talk.
pub const PROTOCOL: u32 = 1;
/// Longest message, in bytes: an append of 1 MiB and one more record of the longest.
pub const MESSAGE_BYTES: usize = 8 << 20;

/// A question, and by whom it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// [`PROTOCOL`] of who asks.
    pub protocol: u32,
    /// Its cluster, if it belongs to one: another's is refused.
    pub cluster: Option<ClusterId>,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of a node. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// Who are you? Changes nothing, and is answered whatever the cluster.
    Who,
    /// Belong to the cluster that asks. Behind it: the record that its `_cluster` begins with.
    Join,
    /// A message of a raft group, behind it.
    Raft {
        /// The group.
        group: GroupId,
        /// Raft id of whom it is for.
        to: u64,
    },
    /// Of a group's leader: commit this. Behind it: the payload of the record to be.
    Write(GroupId),
    /// Of a group's leader: end the active segment, if it holds user data.
    Seal(GroupId),
    /// Of a group's leader: a position at or above every write acknowledged anywhere.
    Barrier(GroupId),
    /// Of the leader of `_cluster`: make this namespace.
    Create(Namespace),
    /// Of the leader of `_cluster`: delete this namespace.
    Delete(Namespace),
}

/// One history of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct GroupId {
    /// The namespace.
    pub namespace: Namespace,
    /// The history.
    pub lineage: LineageId,
}

/// What is told. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Told {
    /// Who it is.
    Card(Card),
    /// It belongs to the cluster, under this id.
    Joined(u64),
    /// The answer of the raft group, behind it.
    Raft,
    /// Committed and applied there.
    Written(Written),
    /// All that was acknowledged before lies at or below this, in segments that have ended.
    Sealed(Sealed),
    /// The position asked for.
    Barrier(Lsn),
    /// It is done.
    Done,
    /// It was not done, or it is not known.
    Not(WriteError),
    /// It is not for this node, for this reason; nothing was done.
    Refused(String),
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Card {
    /// Its id in its cluster, if it belongs to one.
    pub node: Option<u64>,
    /// Its cluster, if it belongs to one.
    pub cluster: Option<ClusterId>,
    /// The name that its operator gave it.
    pub name: String,
    /// Whether there is any namespace in its data directory.
    pub has_data: bool,
    /// Where it says that others reach it (`host:port`).
    pub address: String,
    /// Version of its program.
    pub version: String,
}
