//! [`Network`]: openraft's calls to other members, as messages over [`Peer`]. Each has a deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use unisondb_api::peer::{GroupId, Haste, Peer, PeerError};
use unisondb_engine::Stand;

use crate::log::LogReader;
use crate::message::{self, At, Ballot, Election, Reply, Request};
use crate::reads::Reads;
use crate::types::{self, LogId, Types, Vote};

type Failure = RPCError<Types>;

/// How long a member that lacks purged records may take to say how far it is.
const ASK: Duration = Duration::from_secs(5);
/// Between two questions how far it is.
const AGAIN: Duration = Duration::from_millis(200);
/// How long it is asked though it does not answer: it may be closed just now.
const SILENCE: Duration = Duration::from_secs(60);
/// What a slow disk reads.
const READ_BYTES_PER_SECOND: u64 = 16 << 20;
/// How long it may get no further.
const STANDSTILL: Duration = Duration::from_secs(600);

/// Makes a way to each member.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) own: u64,
    pub(crate) peer: Arc<dyn Peer>,
    pub(crate) log: LogReader,
    pub(crate) reads: Arc<Reads>,
}

/// The way to one member.
pub(crate) struct Way {
    network: Network,
    to: u64,
    carries: Carries,
}

/// What goes a way. Of two appends without records one may tell of a commit that a client or a follower waits
/// for; that one is never a heartbeat, for which openraft has ways of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    Heartbeats,
    All,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _node: &()) -> Way {
        Way {
            network: self.clone(),
            to: target,
            carries: Carries::All,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &()) -> Way {
        Way {
            network: self.clone(),
            to: target,
            carries: Carries::Heartbeats,
        }
    }
}

impl Way {
    async fn call(&self, message: Bytes, what: RPCTypes, most: Duration) -> Result<Reply, Failure> {
        self.call_in(message, what, most, Haste::Now).await
    }

    async fn call_in(
        &self,
        message: Bytes,
        what: RPCTypes,
        most: Duration,
        haste: Haste,
    ) -> Result<Reply, Failure> {
        let Network {
            group, own, peer, ..
        } = &self.network;
        let answer = tokio::time::timeout(most, peer.call(group, self.to, message, haste)).await;
        let bytes = match answer {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(e @ PeerError::Unreachable(_))) => {
                return Err(RPCError::Unreachable(Unreachable::new(&e)));
            }
            Ok(Err(e @ PeerError::Lost(_))) => {
                return Err(RPCError::Network(NetworkError::new(&e)));
            }
            Err(_) => {
                return Err(RPCError::Timeout(Timeout {
                    action: what,
                    id: *own,
                    target: self.to,
                    timeout: most,
                }));
            }
        };
        let (reply, _) =
            message::decode(bytes).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        match reply {
            Reply::Failed(why) => Err(RPCError::Network(NetworkError::from_string(why))),
            reply => Ok(reply),
        }
    }

    /// Shows that the leader is there: with others, unless a read waits for the answer, or comes to.
    async fn show(&self, message: Bytes, most: Duration) -> Result<Reply, Failure> {
        let call = |message, haste| self.call_in(message, RPCTypes::AppendEntries, most, haste);
        tokio::select! {
            biased;
            () = self.network.reads.any() => {}
            reply = call(message.clone(), Haste::Soon) => return reply,
        }
        call(message, Haste::Now).await
    }

    async fn elect(
        &self,
        request: Request,
        what: RPCTypes,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failure> {
        let reply = self.call(message::plain(&request), what, option.hard_ttl());
        match reply.await? {
            Reply::Voted {
                ballot,
                last,
                granted,
            } => {
                let vote: Vote = ballot.into();
                Ok(VoteResponse::new(vote, message::log_id(last), granted))
            }
            other => Err(unexpected(&other)),
        }
    }
}

impl Way {
    async fn until_it_has(
        &self,
        vote: &Vote,
        needs: &LogId,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let shared = self.network.log.shared();
        let (clock, wal) = (&shared.platform.clock, &shared.wal);
        // What follows is what the member is sent then.
        let (lsn, _) = types::position(needs);
        let next = wal.segment_of(lsn.next());
        let _hold = wal.hold("a member", next.unwrap_or_else(|| wal.active().id));
        let message = message::plain(&Request::Snapshot {
            leader: Ballot::from(vote),
            needs: At::from(needs),
        });
        let mut heard = clock.monotonic();
        let mut advanced = (heard, 0);
        loop {
            let reply = self
                .call(message.clone(), RPCTypes::InstallSnapshot, ASK)
                .await;
            let now = clock.monotonic();
            match reply {
                Ok(Reply::Has) => return Ok(SnapshotResponse::new(*vote)),
                Ok(Reply::Later(ballot)) => return Ok(SnapshotResponse::new(ballot.into())),
                Ok(Reply::Lacks { bytes }) => {
                    heard = now;
                    if bytes != advanced.1 {
                        advanced = (now, bytes);
                    }
                }
                Ok(other) => {
                    return Err(unreachable(&format!(
                        "an answer to something else: {other:?}"
                    )));
                }
                // It may be closed just now, to take over what it got: which is read whole then.
                Err(e) if now.saturating_sub(heard) > SILENCE + reading(advanced.1) => {
                    return Err(unreachable(&e.to_string()));
                }
                Err(_) => {}
            }
            // So that what is held for it is held no longer.
            if now.saturating_sub(advanced.0) > STANDSTILL {
                return Err(unreachable("it gets no further"));
            }
            clock.sleep(AGAIN).await;
        }
    }
}

/// How long a member may take to read so many bytes again.
fn reading(bytes: u64) -> Duration {
    Duration::from_secs(bytes / READ_BYTES_PER_SECOND)
}

fn unreachable(why: &str) -> StreamingError<Types> {
    StreamingError::Unreachable(Unreachable::from_string(why))
}

fn unexpected(reply: &Reply) -> Failure {
    RPCError::Network(NetworkError::from_string(format!(
        "an answer to something else: {reply:?}"
    )))
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = Stand;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failure> {
        let time = self.network.log.shared().time().ok();
        let message = message::append(&request, time);
        let most = option.hard_ttl();
        let reply = match self.carries {
            Carries::Heartbeats => self.show(message, most).await,
            Carries::All => self.call(message, RPCTypes::AppendEntries, most).await,
        };
        Ok(match reply? {
            Reply::Appended => AppendEntriesResponse::Success,
            Reply::AppendedUpTo(at) => AppendEntriesResponse::PartialSuccess(message::log_id(at)),
            Reply::Conflict => AppendEntriesResponse::Conflict,
            Reply::Later(ballot) => AppendEntriesResponse::HigherVote(ballot.into()),
            other => return Err(unexpected(&other)),
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failure> {
        let request = Request::Vote(Election::of(&request));
        self.elect(request, RPCTypes::Vote, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failure> {
        let request = Request::PreVote(Election::of(&request));
        self.elect(request, RPCTypes::Vote, option).await
    }

    /// Has the member get a parcel, and waits until it has taken that over and has all that openraft's
    /// handle stands for.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, Stand>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let needs = snapshot.meta.last_log_id;
        let needs = needs.ok_or_else(|| unreachable("nothing has been flushed yet"))?;
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            got = self.until_it_has(&vote, &needs) => got,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Failure> {
        let message = message::plain(&Request::transfer(&request));
        let reply = self.call(message, RPCTypes::TransferLeader, option.hard_ttl());
        match reply.await? {
            Reply::Transferred => Ok(Ok(())),
            other => Err(unexpected(&other)),
        }
    }
}
