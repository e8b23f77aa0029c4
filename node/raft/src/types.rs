//! openraft's types, filled in with ours, and the way between the two. None of openraft's is stored
//! or sent: this file and [`crate::message`] are where they end.
//!
//! A log id is (term, index), and an index is an LSN less one: openraft counts from 0.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use openraft::alias::{LogIdOf, StoredMembershipOf, VoteOf};
use openraft::impls::{InlineBatch, leader_id_std};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use unisondb_engine::{Membership, Stand};
use unisondb_types::{Kind, Lsn, Members, Outcome, Term};
use unisondb_wal::raft_state::RaftState;

use crate::entry::RaftEntry;
use crate::under_way::Promise;

/// What openraft is made of here. Chance comes from a seed, so that a run can be repeated (P17).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Proposal;
    type R = Applied;
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, u64, ()>;
    type Entry = RaftEntry;
    type AsyncRuntime = DeterministicRng<TokioRuntime>;
    type Responder<T>
        = Promise<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type StoredMembership = StoredMembershipOf<Types>;
pub(crate) type RaftMembership = openraft::Membership<u64, ()>;

/// A record to be.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.kind, self.payload.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying a record gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) lsn: Lsn,
    pub(crate) outcome: Outcome,
}

/// An index of openraft's.
pub(crate) fn index(lsn: Lsn) -> u64 {
    lsn.prev().get()
}

/// The LSN of an index.
pub(crate) fn lsn(index: u64) -> Lsn {
    Lsn::new(index).next()
}

/// A record's log id; none for what lies before the first.
pub(crate) fn log_id(lsn: Lsn, term: Term) -> Option<LogId> {
    (lsn > Lsn::ZERO).then(|| LogId {
        leader_id: CommittedLeaderId::new(term.get()),
        index: index(lsn),
    })
}

/// Position and term of a log id.
pub(crate) fn position(id: &LogId) -> (Lsn, Term) {
    (lsn(id.index), Term::new(id.leader_id.term))
}

/// The vote that is written down; none where nobody was voted for.
pub(crate) fn vote_of(state: &RaftState) -> Option<Vote> {
    let leader_id = leader_id_std::LeaderId {
        term: state.term.get(),
        voted_for: state.voted_for?,
    };
    Some(Vote {
        leader_id,
        committed: state.committed,
    })
}

/// What is written down of a vote.
pub(crate) fn state_of(raft_id: u64, vote: &Vote) -> RaftState {
    RaftState {
        raft_id,
        term: Term::new(vote.leader_id.term),
        voted_for: Some(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

/// openraft's membership as ours.
pub(crate) fn members_of(membership: &RaftMembership) -> Members {
    let sets = membership.get_joint_config().iter();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let others = membership.nodes().map(|(id, ())| *id);
    Members {
        voters: sets.map(|set| set.iter().copied().collect()).collect(),
        learners: others.filter(|id| !voters.contains(id)).collect(),
    }
}

/// Ours as openraft's.
pub(crate) fn membership_of(members: &Members) -> RaftMembership {
    let sets = members.voters.iter();
    let sets = sets.map(|set| set.iter().copied().collect()).collect();
    RaftMembership::new_with_defaults(sets, members.learners.iter().copied())
}

/// Ours, and the record that says so, as openraft's.
pub(crate) fn stored_membership(membership: &Membership) -> StoredMembership {
    StoredMembership::new(
        log_id(membership.lsn, membership.term),
        membership_of(&membership.members),
    )
}

/// Where a state stands, and who belonged to the group there.
pub(crate) fn stood(stand: &Stand) -> (Option<LogId>, StoredMembership) {
    let id = log_id(stand.lsn, stand.term);
    // Before the first record there is nobody: openraft finds them in the log.
    let membership = match id {
        Some(_) => stored_membership(&stand.membership),
        None => StoredMembership::default(),
    };
    (id, membership)
}
