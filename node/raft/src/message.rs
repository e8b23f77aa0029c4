//! What members of a group send one another, byte for byte: our own structs, and frames as they lie
//! in the log. (Layout in `docs/formats/peer.md`.)

use bincode::{Decode, Encode};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use unisondb_api::peer::envelope::{self, Damaged};
use unisondb_engine::backup::Parcel;
use unisondb_types::{Lsn, Stamp};
use unisondb_wal::Frame;

use crate::entry::RaftEntry;
use crate::types::{self, LogId, Types, Vote};

/// A record's place: LSN less one, and term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct At {
    index: u64,
    term: u64,
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Ballot {
    term: u64,
    candidate: u64,
    /// Whether a quorum has granted it: it leads.
    granted: bool,
}

/// What is asked of a member. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Request {
    /// Would you vote for me? Changes nothing.
    PreVote(Election),
    /// Vote for me.
    Vote(Election),
    /// Take the frames behind the header, which follow `previous`.
    Append {
        leader: Ballot,
        previous: Option<At>,
        committed: Option<At>,
        /// What time it is by the leader's clock, in microseconds since 1970; 0 if it is not believed.
        time: u64,
    },
    /// Stand for election now: the leader steps back.
    Transfer {
        leader: Ballot,
        to: u64,
        last: Option<At>,
    },
    /// What you need next is purged here: get a parcel, from this leader. Asked again, until all up to
    /// `needs` is there.
    Snapshot { leader: Ballot, needs: At },
    /// Give a piece of a parcel.
    Fetch {
        /// Every record up to this one has to be in it.
        through: Lsn,
        /// Of which; 0: of any.
        number: u64,
        /// From where on, in bytes.
        offset: u64,
    },
}

/// A candidate, and how far its log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Election {
    ballot: Ballot,
    last: Option<At>,
    transferred: bool,
}

/// What it answers. Variants are only appended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Reply {
    /// To a vote, and what would be answered to one.
    Voted {
        ballot: Ballot,
        last: Option<At>,
        granted: bool,
    },
    /// All frames were taken and are durable.
    Appended,
    /// So many of them.
    AppendedUpTo(Option<At>),
    /// `previous` is not in this log.
    Conflict,
    /// There is a later leader or candidate.
    Later(Ballot),
    /// It will.
    Transferred,
    /// It cannot.
    Failed(String),
    /// All of that is there.
    Has,
    /// It is not; so many bytes of a parcel have arrived.
    Lacks { bytes: u64 },
    /// A parcel is being made: ask again.
    Making,
    /// What lies behind the header is a piece of this parcel; nothing does at its end.
    Piece { number: u64, parcel: Parcel },
}

impl From<&LogId> for At {
    fn from(id: &LogId) -> At {
        At {
            index: id.index,
            term: id.leader_id.term,
        }
    }
}

impl From<At> for LogId {
    fn from(at: At) -> LogId {
        LogId {
            leader_id: openraft::vote::leader_id_std::CommittedLeaderId::new(at.term),
            index: at.index,
        }
    }
}

impl From<&Vote> for Ballot {
    fn from(vote: &Vote) -> Ballot {
        Ballot {
            term: vote.leader_id.term,
            candidate: vote.leader_id.voted_for,
            granted: vote.committed,
        }
    }
}

impl From<Ballot> for Vote {
    fn from(ballot: Ballot) -> Vote {
        let state = unisondb_wal::raft_state::RaftState {
            raft_id: 0,
            term: unisondb_types::Term::new(ballot.term),
            voted_for: Some(ballot.candidate),
            committed: ballot.granted,
        };
        types::vote_of(&state).expect("somebody was voted for")
    }
}

impl Ballot {
    /// The member that leads by it, if one does.
    pub(crate) fn leads(self) -> Option<u64> {
        self.granted.then_some(self.candidate)
    }
}

pub(crate) fn at(id: Option<&LogId>) -> Option<At> {
    id.map(At::from)
}

pub(crate) fn log_id(at: Option<At>) -> Option<LogId> {
    at.map(LogId::from)
}

impl Election {
    pub(crate) fn of(request: &VoteRequest<Types>) -> Election {
        Election {
            ballot: Ballot::from(&request.vote),
            last: at(request.last_log_id.as_ref()),
            transferred: request.leadership_transfer,
        }
    }
    pub(crate) fn request(self) -> VoteRequest<Types> {
        let mut request = VoteRequest::new(self.ballot.into(), log_id(self.last));
        request.leadership_transfer = self.transferred;
        request
    }
}

impl Request {
    pub(crate) fn transfer(request: &TransferLeaderRequest<Types>) -> Request {
        Request::Transfer {
            leader: Ballot::from(request.from_leader()),
            to: *request.to_node_id(),
            last: at(request.last_log_id()),
        }
    }

    /// What openraft is told of an append; `None` where the frames do not follow `previous` one by
    /// one, where nobody leads yet, and of any other request.
    pub(crate) fn append(self, entries: Vec<RaftEntry>) -> Option<AppendEntriesRequest<Types>> {
        let Request::Append {
            leader,
            previous,
            committed,
            ..
        } = self
        else {
            return None;
        };
        // Only who was granted the vote may append; openraft takes that for granted itself.
        if !leader.granted {
            return None;
        }
        let mut before = previous.map(|at| (at.term, at.index));
        for entry in &entries {
            let follows = match before {
                Some((term, index)) => {
                    entry.term() >= term && Some(entry.index()) == index.checked_add(1)
                }
                None => entry.index() == 0,
            };
            if !follows {
                return None;
            }
            before = Some((entry.term(), entry.index()));
        }
        Some(AppendEntriesRequest {
            vote: leader.into(),
            prev_log_id: log_id(previous),
            entries,
            leader_commit: log_id(committed),
        })
    }
}

impl Reply {
    pub(crate) fn voted(response: &VoteResponse<Types>) -> Reply {
        Reply::Voted {
            ballot: Ballot::from(&response.vote),
            last: at(response.last_log_id.as_ref()),
            granted: response.vote_granted,
        }
    }
    pub(crate) fn appended(response: &AppendEntriesResponse<Types>) -> Reply {
        match response {
            AppendEntriesResponse::Success => Reply::Appended,
            AppendEntriesResponse::PartialSuccess(id) => Reply::AppendedUpTo(at(id.as_ref())),
            AppendEntriesResponse::Conflict => Reply::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Reply::Later(Ballot::from(vote)),
        }
    }
}

/// The message that carries frames to a follower, and what time it is.
pub(crate) fn append(request: &AppendEntriesRequest<Types>, time: Option<Stamp>) -> Bytes {
    let header = Request::Append {
        leader: Ballot::from(&request.vote),
        previous: at(request.prev_log_id.as_ref()),
        committed: at(request.leader_commit.as_ref()),
        time: time.map_or(0, Stamp::micros),
    };
    envelope::encode(&header, |out| {
        for entry in &request.entries {
            entry.put_frame(out);
        }
    })
}

/// A message without frames.
pub(crate) fn plain(header: &impl Encode) -> Bytes {
    envelope::encode(header, |_| ())
}

/// A message with bytes behind it.
pub(crate) fn with_bytes(header: &impl Encode, bytes: &[u8]) -> Bytes {
    envelope::encode(header, |out| out.extend_from_slice(bytes))
}

/// The header of a message, and the frames behind it.
///
/// # Errors
/// [`Damaged`]: never a panic, whatever the bytes; and nothing is allocated that they do not
/// hold.
pub(crate) fn decode<T: Decode<()>>(bytes: Bytes) -> Result<(T, Vec<RaftEntry>), Damaged> {
    let length = bytes.len();
    let (header, mut bytes) = envelope::decode(bytes)?;
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let frame = Frame::split_from(&mut bytes).map_err(|e| Damaged {
            bytes: length,
            why: e.to_string(),
        })?;
        entries.push(RaftEntry::sent(frame));
    }
    Ok((header, entries))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use unisondb_types::{Kind, Record, SegmentId, Term};

    const LEADER: Ballot = Ballot {
        term: 3,
        candidate: 7,
        granted: true,
    };
    const PLACE: At = At { index: 9, term: 2 };

    /// A frame as a log made it, by hand.
    fn frame(lsn: u64, term: u64) -> RaftEntry {
        let record = Record {
            lsn: Lsn::new(lsn),
            term: Term::new(term),
            stamp: Stamp::from_micros(5),
            committed: Lsn::new(1),
            kind: Kind::User,
            payload: Bytes::from_static(b"abc"),
        };
        let mut out = BytesMut::new();
        let entry = unisondb_wal::Entry {
            record,
            segment: unisondb_types::SegmentId::FIRST,
            crc: 0x0403_0201,
            end: 1_000,
        };
        entry.put_frame(&mut out);
        RaftEntry::sent(Frame::split_from(&mut out.freeze()).unwrap())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Keeps `docs/formats/peer.md`.
    #[test]
    fn golden_messages() {
        let election = Election {
            ballot: LEADER,
            last: Some(PLACE),
            transferred: false,
        };
        let ballot = "0300000000000000070000000000000001";
        let place = "0109000000000000000200000000000000";
        let cases = [
            (
                plain(&Request::PreVote(election)),
                format!("00000000{ballot}{place}00"),
            ),
            (
                plain(&Request::Vote(election)),
                format!("01000000{ballot}{place}00"),
            ),
            (
                plain(&Request::Append {
                    leader: LEADER,
                    previous: Some(PLACE),
                    committed: None,
                    time: 0x0102_0304,
                }),
                format!("02000000{ballot}{place}000403020100000000"),
            ),
            (
                plain(&Request::Transfer {
                    leader: LEADER,
                    to: 8,
                    last: None,
                }),
                format!("03000000{ballot}080000000000000000"),
            ),
            (
                plain(&Request::Snapshot {
                    leader: LEADER,
                    needs: PLACE,
                }),
                format!("04000000{ballot}{}", &place[2..]),
            ),
            (
                plain(&Request::Fetch {
                    through: Lsn::new(5),
                    number: 6,
                    offset: 7,
                }),
                "05000000050000000000000006000000000000000700000000000000".to_owned(),
            ),
            (
                plain(&Reply::Voted {
                    ballot: LEADER,
                    last: None,
                    granted: true,
                }),
                format!("00000000{ballot}0001"),
            ),
            (plain(&Reply::Appended), "01000000".to_owned()),
            (
                plain(&Reply::AppendedUpTo(Some(PLACE))),
                format!("02000000{place}"),
            ),
            (plain(&Reply::Conflict), "03000000".to_owned()),
            (plain(&Reply::Later(LEADER)), format!("04000000{ballot}")),
            (plain(&Reply::Transferred), "05000000".to_owned()),
            (
                plain(&Reply::Failed("no".to_owned())),
                "0600000002000000000000006e6f".to_owned(),
            ),
            (plain(&Reply::Has), "07000000".to_owned()),
            (
                plain(&Reply::Lacks { bytes: 3 }),
                "080000000300000000000000".to_owned(),
            ),
            (plain(&Reply::Making), "09000000".to_owned()),
            (
                plain(&Reply::Piece {
                    number: 1,
                    parcel: Parcel {
                        lsn: Lsn::new(2),
                        term: Term::new(3),
                        snapshot_bytes: 4,
                        segment: SegmentId::new(5),
                        segment_bytes: 6,
                    },
                }),
                format!(
                    "0a000000{}",
                    (1..=6)
                        .map(|n| format!("{n:02x}00000000000000"))
                        .collect::<String>()
                ),
            ),
        ];
        for (bytes, header) in cases {
            assert_eq!(hex(&bytes[8..]), header);
            assert_eq!(
                bytes[4..8],
                u32::try_from(header.len() / 2).unwrap().to_le_bytes()
            );
            assert_eq!(bytes[..4], crc32c::crc32c(&bytes[4..]).to_le_bytes());
        }
    }

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let request = AppendEntriesRequest {
            vote: LEADER.into(),
            prev_log_id: Some(PLACE.into()),
            entries: vec![frame(11, 2), frame(12, 3)],
            leader_commit: None,
        };
        let (header, entries) =
            decode::<Request>(append(&request, Some(Stamp::from_micros(9)))).unwrap();
        let arrived = header.append(entries).unwrap();
        assert_eq!(arrived.vote, request.vote);
        assert_eq!(arrived.prev_log_id, request.prev_log_id);
        let bytes = |entries: &[RaftEntry]| {
            let frames = entries.iter().map(|e| e.frame().unwrap().bytes().clone());
            frames.collect::<Vec<_>>()
        };
        assert_eq!(bytes(&arrived.entries), bytes(&request.entries));
    }

    #[test]
    fn frames_that_do_not_follow_one_another_are_no_append() {
        let append = |entries| {
            let header = Request::Append {
                leader: LEADER,
                previous: Some(PLACE),
                committed: None,
                time: 0,
            };
            header.append(entries)
        };
        assert!(append(vec![]).is_some());
        let candidate = Request::Append {
            leader: Ballot {
                granted: false,
                ..LEADER
            },
            previous: None,
            committed: None,
            time: 0,
        };
        assert!(candidate.append(vec![]).is_none(), "it does not lead");
        assert!(append(vec![frame(11, 2)]).is_some());
        assert!(append(vec![frame(12, 2)]).is_none(), "one is missing");
        assert!(append(vec![frame(11, 1)]).is_none(), "terms never fall");
        assert!(append(vec![frame(11, 3), frame(11, 3)]).is_none(), "twice");
        assert!(
            append(vec![frame(11, 3), frame(12, 2)]).is_none(),
            "terms never fall"
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let request = AppendEntriesRequest {
            vote: LEADER.into(),
            prev_log_id: None,
            entries: vec![frame(1, 2)],
            leader_commit: Some(PLACE.into()),
        };
        let good = append(&request, None);
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Request>(bad.into()).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), sound: bool) {
            // As they come, and past the checksum with a header that is there.
            let (header, rest) = bytes.split_at(bytes.len() / 2);
            let bytes = match sound {
                true => envelope::enclose(header, |out| out.extend_from_slice(rest)),
                false => Bytes::from(bytes),
            };
            if let Ok((request, entries)) = decode::<Request>(bytes.clone()) {
                drop(request.append(entries));
            }
            drop(decode::<Reply>(bytes));
        }
    }
}
