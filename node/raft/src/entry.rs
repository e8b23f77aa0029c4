//! [`RaftEntry`]: a log entry on its way through openraft. Before the leader's append it is a
//! proposal; from then on it is a frame, and stays the frame that was made then (D2).

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::vote::leader_id_std::CommittedLeaderId;
use unisondb_types::{Command, Kind, Members, Record};
use unisondb_wal::{Entry, Frame};

use crate::types::{self, LogId, Proposal, RaftMembership};

type Payload = EntryPayload<Proposal, u64, ()>;

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct RaftEntry {
    term: CommittedLeaderId<u64>,
    index: u64,
    body: Body,
    /// Who belongs to the group from this entry on, if it says so: looked at often.
    membership: Option<Arc<RaftMembership>>,
}

/// What there is of an entry.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// To become a frame in the leader's log.
    Proposed(Kind, Bytes),
    /// In the log here.
    Logged(Entry),
    /// In the log of another.
    Sent(Frame),
}

impl RaftEntry {
    /// One of this log.
    pub(crate) fn logged(entry: Entry) -> RaftEntry {
        RaftEntry::of(&entry.record.clone(), Body::Logged(entry))
    }

    /// One of another log.
    pub(crate) fn sent(frame: Frame) -> RaftEntry {
        RaftEntry::of(&frame.record(), Body::Sent(frame))
    }

    fn of(record: &Record, body: Body) -> RaftEntry {
        // Most records say nothing of members, and are not decoded for it.
        let members = match record.kind {
            Kind::Lineage | Kind::Membership => match record.command() {
                Ok(Command::Lineage(lineage)) => Some(Members::of(lineage.members)),
                Ok(Command::Membership(members)) => Some(members),
                // Applying it says what is wrong with it.
                _ => None,
            },
            _ => None,
        };
        RaftEntry {
            term: CommittedLeaderId::new(record.term.get()),
            index: types::index(record.lsn),
            body,
            membership: members.map(|m| Arc::new(types::membership_of(&m))),
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.term
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    /// Whether a client's write, and nothing that the group itself acts on.
    pub(crate) fn is_of_a_client(&self) -> bool {
        let kind = match &self.body {
            Body::Proposed(kind, _) => *kind,
            Body::Logged(entry) => entry.record.kind,
            Body::Sent(frame) => frame.record().kind,
        };
        kind == Kind::User
    }

    pub(crate) fn is_proposed(&self) -> bool {
        matches!(self.body, Body::Proposed(..))
    }

    /// Its frame; what has none yet gives none.
    pub(crate) fn frame(&self) -> Option<Frame> {
        match &self.body {
            Body::Sent(frame) => Some(frame.clone()),
            Body::Logged(entry) => {
                let mut bytes = BytesMut::new();
                entry.put_frame(&mut bytes);
                Frame::split_from(&mut bytes.freeze()).ok()
            }
            Body::Proposed(..) => None,
        }
    }

    /// As it lies in the log here; only what was read from it.
    pub(crate) fn into_logged(self) -> Option<Entry> {
        match self.body {
            Body::Logged(entry) => Some(entry),
            Body::Proposed(..) | Body::Sent(_) => None,
        }
    }

    /// Appends its frame to `out`; what has none yet gives none.
    pub(crate) fn put_frame(&self, out: &mut BytesMut) {
        match &self.body {
            Body::Logged(entry) => entry.put_frame(out),
            Body::Sent(frame) => out.extend_from_slice(frame.bytes()),
            Body::Proposed(..) => {}
        }
    }
}

impl openraft::entry::RaftEntry for RaftEntry {
    type CommittedLeaderId = CommittedLeaderId<u64>;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> RaftEntry {
        let (kind, bytes, membership) = match payload {
            EntryPayload::Blank => (Kind::Blank, Bytes::new(), None),
            EntryPayload::Normal(proposal) => (proposal.kind, proposal.payload, None),
            EntryPayload::Membership(membership) => {
                let members = types::members_of(&membership);
                let payload = Command::Membership(members).payload();
                (Kind::Membership, payload, Some(Arc::new(membership)))
            }
        };
        RaftEntry {
            term: log_id.leader_id,
            index: log_id.index,
            body: Body::Proposed(kind, bytes),
            membership,
        }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId<u64>, u64) {
        (&self.term, self.index)
    }

    fn set_log_id(&mut self, new: LogId) {
        self.term = new.leader_id;
        self.index = new.index;
    }

    fn get_membership(&self) -> Option<RaftMembership> {
        self.membership.as_deref().cloned()
    }
}

impl fmt::Display for RaftEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsn = types::lsn(self.index);
        write!(f, "record {lsn} of term {}", self.term.term)
    }
}
