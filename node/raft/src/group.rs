//! [`Group`]: one namespace's raft group, as this node takes part in it.
//!
//! ```text
//!  propose --> intake --> openraft --append--> log (memory) --> sync loop: fsync --> openraft: committed
//!                            |  ^                                                        |
//!                            v  |  frames, votes                                         v
//!                          Peer (other members)                            apply loop: state, answers
//! ```
//!
//! What holds:
//! - An answer of success comes after a quorum has the record on stable storage and this node has
//!   applied it (P1), in the order of the log.
//! - A client that goes away takes nothing back.
//! - Whatever a member is sent, it answers; a damaged message changes nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::WatchReceiverOf;
use openraft::errors::ClientWriteError;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use openraft::{Config, Raft, SnapshotPolicy};
use openraft_rt::WatchReceiver as _;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use unisondb_api::peer::GroupId;
use unisondb_api::{Peer, WriteError, Written};
use unisondb_engine::Engine;
use unisondb_engine::start::Opened;
use unisondb_platform::Platform;
use unisondb_types::{Command, Stamp, Term, limits};

use crate::checks;
use crate::fetch::CatchUp;
use crate::intake::{self, Intake};
use crate::log::{LogReader, LogStore, Shared};
use crate::machine::{self, Batch, Machine};
use crate::message::{self, At, Ballot, Reply, Request};
use crate::network::Network;
use crate::office::{self, AcceptClock};
use crate::queued::Queued;
use crate::reads::Reads;
use crate::serve::{Parcels, Wanted};
use crate::standing::{self, Standing};
use crate::stop::Ends;
use crate::sync::{self, Durability};
use crate::timers::{self, Heard};
use crate::types::{self, Proposal, Types};
use crate::under_way::{Promise, UnderWay};

/// How often a leader shows that it is there.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// How long a follower waits before it stands for election: at least, and less than; by openraft's reckoning,
/// which counts from when the longest of these has passed since it last heard the leader. So after 1.0 to
/// 1.2 s of silence.
const ELECTION: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(600));
/// How long a snapshot may be under way.
const SNAPSHOT: Duration = Duration::from_secs(60);

/// Why a group does not start, or a change of it is not made.
#[derive(Debug, Clone, thiserror::Error)]
#[error("raft: {0}")]
pub struct GroupError(pub(crate) String);

/// What a group is started with.
pub struct Parts {
    /// The machine.
    pub platform: Platform,
    /// The namespace, open.
    pub opened: Opened,
    /// The way to the other members.
    pub peer: Arc<dyn Peer>,
    /// Which clock is believed.
    pub accept_clock: AcceptClock,
    /// When what a client wrote counts as durable.
    pub durability: Durability,
    /// Whether room may be taken for records: not while what was freed on a full disk is for others.
    pub may_take_room: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Told of every change of leader, term and members.
pub(crate) type Office = WatchReceiverOf<Types, RaftServerMetrics<Types>>;

/// One namespace's group. Cheap to clone; every clone is the same group.
#[derive(Clone)]
pub struct Group {
    pub(crate) raft: Raft<Types, Machine>,
    own: u64,
    pub(crate) engine: Engine,
    pub(crate) log: LogReader,
    pub(crate) standing: Arc<Standing>,
    ended: Arc<Notify>,
    apply: mpsc::WeakSender<Batch>,
    pub(crate) under_way: Arc<UnderWay>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) may_take_room: Arc<dyn Fn() -> bool + Send + Sync>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) peer: Arc<dyn Peer>,
    /// What is given to members that lack purged records.
    pub(crate) parcels: Arc<Parcels>,
    /// What is got from another, if this is such a member.
    pub(crate) catch_up: Arc<CatchUp>,
    /// What ends with it: tasks, and the threads that tell of their end.
    pub(crate) ends: Arc<tokio::sync::Mutex<Ends>>,
}

impl Group {
    /// Takes part in the group: replays what it knows to be committed, votes, follows. A group of
    /// one stands for election at once.
    ///
    /// # Errors
    /// [`GroupError`] when the log and the vote cannot be read.
    pub async fn start(parts: Parts) -> Result<Group, GroupError> {
        let Parts {
            platform,
            opened,
            peer,
            accept_clock,
            durability,
            may_take_room,
        } = parts;
        let Opened {
            engine,
            applier,
            vote,
            ..
        } = opened;
        let (name, wal) = (engine.namespace().clone(), engine.wal().clone());
        let own = vote.state().raft_id;
        let standing = Arc::new(Standing::new(name.clone()));
        let ended = Arc::new(Notify::new());
        let (appended, to_sync) = mpsc::unbounded_channel();
        let (at_end, synced) = oneshot::channel();
        let (machine, batches) = Machine::new(engine.clone());
        let apply = machine.way();
        let (at_last, applied) = oneshot::channel();
        let applying = machine::run(
            engine.clone(),
            applier,
            batches,
            standing.clone(),
            ended.clone(),
            at_last,
        );
        let stand = engine.applied_stand();
        let stand = stand.map_err(|e| GroupError(e.to_string()))?;
        if durability != Durability::Always && !stand.membership.members.is_single() {
            return Err(alone_only());
        }
        let flushed = engine.flushed_stand();
        let flushed = flushed.map_err(|e| GroupError(e.to_string()))?;
        let (_, last_stamp) = wal.last_term_and_stamp();
        let log = LogReader::new(Shared {
            platform: platform.clone(),
            wal,
            standing: standing.clone(),
            durability,
            committed: AtomicU64::new(0),
            vote: Arc::new(Mutex::new(vote)),
            office: Mutex::new(office::Office::new(
                last_stamp,
                platform.clock.monotonic(),
                accept_clock,
            )),
            stood: flushed.and_then(|stand| types::stood(&stand).0),
            floor: Mutex::new(None),
        });
        let store = LogStore::new(log.clone(), appended);
        let syncing = sync::run(log.clone(), to_sync, at_end);
        let offload = &platform.offload;
        offload.thread(&format!("log-{name}"), Box::pin(syncing));
        offload.thread(&format!("apply-{name}"), Box::pin(applying));
        let reads = Arc::new(Reads::default());
        let network = Network {
            group: GroupId {
                namespace: name.clone(),
                lineage: engine.history().lineage,
            },
            own,
            peer: peer.clone(),
            log: log.clone(),
            reads: reads.clone(),
        };
        let config = Arc::new(config(name.as_str())?);
        let raft = Raft::new(own, config, network, store, machine);
        let raft = scoped(&platform, raft).await;
        let group = Group {
            raft: raft.map_err(|e| GroupError(e.to_string()))?,
            own,
            engine,
            log,
            standing,
            ended,
            apply,
            under_way: Arc::default(),
            intake: Arc::default(),
            may_take_room,
            reads,
            heard: Arc::default(),
            peer,
            parcels: Arc::default(),
            catch_up: Arc::default(),
            ends: Arc::default(),
        };
        {
            let mut ends = group.ends.lock().await;
            ends.threads = vec![synced, applied];
            let intake = intake::run(group.intake.clone(), group.raft.clone());
            ends.tasks.spawn(intake);
            ends.tasks.spawn(checks::run(group.clone()));
            ends.tasks.spawn(timers::run(group.clone()));
        }
        if group.is_only_voter().await {
            // A disk that fails meanwhile leaves the state to be read: its standing says why.
            drop(group.stand(false).await);
            group.led().await;
        }
        Ok(group)
    }

    /// Lets what a full disk refused be tried again: checks that are owed, and footers.
    pub fn nudge(&self) {
        self.ended.notify_one();
        // Where batches wait already, the loop does it behind them.
        if let Some(apply) = self.apply.upgrade() {
            drop(apply.try_send(Batch::empty()));
        }
    }

    /// Its group, as other members know it.
    pub(crate) fn group_id(&self) -> GroupId {
        GroupId {
            namespace: self.engine.namespace().clone(),
            lineage: self.engine.history().lineage,
        }
    }

    /// Its raft id here.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// The namespace.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How its log is.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Rung when a segment has ended, and at the end of the group.
    pub(crate) fn ended(&self) -> &Notify {
        &self.ended
    }

    /// Told of every change of leader, term and members.
    pub(crate) fn watch_office(&self) -> Office {
        self.raft.server_metrics()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.standing.is_stopping()
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Whether this node leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.raft.is_leader()
    }

    /// The term that this node knows of.
    pub fn term(&self) -> Term {
        Term::new(self.raft.metrics().borrow_watched().current_term)
    }

    /// Puts a command into the log as one record, and waits until it is committed and applied here.
    ///
    /// # Errors
    /// [`WriteError`]: each says whether it may have happened.
    pub async fn propose(&self, command: &Command) -> Result<Written, WriteError> {
        self.propose_within(command, None).await
    }

    /// The same for a client's: it takes its share of what may wait, and gives it back when it is
    /// answered, also if the client goes away.
    ///
    /// # Errors
    /// As [`propose`](Self::propose).
    pub async fn propose_within(
        &self,
        command: &Command,
        queued: Option<&Queued>,
    ) -> Result<Written, WriteError> {
        if let Some(why) = self.standing.failed() {
            return Err(WriteError::Failed(why));
        }
        let mut stuck = self.standing.stuck();
        if let Some(why) = stuck.borrow_and_update().clone() {
            return Err(why);
        }
        self.log.shared().time().map_err(WriteError::Unavailable)?;
        let proposal = Proposal {
            kind: command.kind(),
            payload: command.payload(),
        };
        let (bytes, limit) = (proposal.payload.len(), limits::FRAME_PAYLOAD_BYTES);
        if bytes > limit {
            return Err(WriteError::TooLarge(format!(
                "a record has at most {limit} bytes, this one has {bytes}"
            )));
        }
        let queued = queued.map(|queued| queued.take(bytes)).transpose()?;
        let share = self.reserve(bytes).await?;
        // Bound to the term in which this node leads: a later one makes no second record of it.
        let term = self.raft.as_leader().map(|leader| leader.term());
        let term = term.map_err(|e| self.not_leading(e.leader_id))?;
        let (promise, answered) = Promise::new(share, queued);
        self.intake.put(proposal, term, promise);
        tokio::select! {
            biased;
            answer = answered => match answer {
                Ok(Ok(response)) => Ok(Written {
                    lsn: response.data.lsn,
                    outcome: response.data.outcome,
                }),
                Ok(Err(ClientWriteError::ForwardToLeader(to))) => Err(self.not_leading(to.leader_id)),
                Ok(Err(e)) => Err(self.unknown(&e.to_string())),
                Err(_) => Err(self.unknown("the group has stopped")),
            },
            why = standing::stuck_now(&mut stuck) => Err(self.unknown(&why)),
        }
    }

    /// Answers a message of another member.
    pub async fn answer(&self, bytes: Bytes) -> Bytes {
        let failed = |why: String| message::plain(&Reply::Failed(why));
        let (request, entries) = match message::decode::<Request>(bytes) {
            Ok(decoded) => decoded,
            Err(e) => return failed(e.to_string()),
        };
        let reply = match request {
            Request::PreVote(election) => {
                let answer = self.raft.pre_vote(election.request()).await;
                answer.map(|r| Reply::voted(&r)).map_err(|e| e.to_string())
            }
            Request::Vote(election) => {
                let answer = self.raft.vote(election.request()).await;
                answer.map(|r| Reply::voted(&r)).map_err(|e| e.to_string())
            }
            Request::Append { time, .. } => match request.append(entries) {
                Some(append) => self.take(append, time).await,
                None => {
                    Err("it is no leader's, or its frames do not follow one another".to_owned())
                }
            },
            Request::Transfer { leader, to, last } => {
                self.heard.forget();
                let request = TransferLeaderRequest::new(leader.into(), to, message::log_id(last));
                match self.raft.handle_transfer_leader(request).await {
                    Ok(Ok(())) => Ok(Reply::Transferred),
                    Ok(Err(e)) => Err(e.to_string()),
                    Err(e) => Err(e.to_string()),
                }
            }
            Request::Snapshot { leader, needs } => self.told_to_get(leader, needs).await,
            Request::Fetch {
                through,
                number,
                offset,
            } => {
                let wanted = Wanted {
                    through,
                    number,
                    offset,
                };
                return match self.serve(wanted).await {
                    Ok((reply, bytes)) => message::with_bytes(&reply, &bytes),
                    Err(why) => failed(why),
                };
            }
        };
        match reply {
            Ok(reply) => message::plain(&reply),
            Err(why) => failed(why),
        }
    }

    /// A leader says that what this member needs next is purged there.
    async fn told_to_get(&self, leader: Ballot, needs: At) -> Result<Reply, String> {
        let from = leader.leads().ok_or("it leads nobody")?;
        // Who leads now is openraft's to say; its term is written down with that.
        let shown = AppendEntriesRequest {
            vote: leader.into(),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let answer = self.raft.append_entries(shown).await;
        let answer = answer.map_err(|e| e.to_string())?;
        if !answer.is_success() {
            return Ok(Reply::appended(&answer));
        }
        let (needs, _) = types::position(&needs.into());
        if self.engine.applied() >= needs {
            return Ok(Reply::Has);
        }
        let bytes = self.get_parcel(from, needs).await;
        Ok(Reply::Lacks { bytes })
    }

    /// Takes frames of a leader's.
    async fn take(&self, append: AppendEntriesRequest<Types>, time: u64) -> Result<Reply, String> {
        // Before openraft says that it was heard: never later than that.
        let came = self.engine.platform().clock.monotonic();
        let previous = append.prev_log_id.as_ref();
        self.log.vet(previous, &append.entries).await?;
        let answer = self.raft.append_entries(append).await;
        let answer = answer.map_err(|e| e.to_string())?;
        if answer.is_success() {
            self.heard.at(came);
            if time > 0 {
                self.log.shared().heard(Stamp::from_micros(time));
            }
        }
        Ok(Reply::appended(&answer))
    }

    /// Stands for election now, after asking whether it would win if `asking`.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn stand(&self, asking: bool) -> Result<(), GroupError> {
        let done = self.raft.trigger().elect(asking).await;
        done.map_err(|e| GroupError(e.to_string()))
    }

    fn not_leading(&self, leader: Option<u64>) -> WriteError {
        let known = leader.filter(|id| *id != self.own);
        WriteError::Unavailable(match known {
            Some(id) => format!("member {id} leads"),
            None => "no leader is known just now".to_owned(),
        })
    }

    fn unknown(&self, why: &str) -> WriteError {
        WriteError::Unknown(self.standing.failed().unwrap_or_else(|| why.to_owned()))
    }
}

/// What is not durable counts for no quorum.
pub(crate) fn alone_only() -> GroupError {
    GroupError(
        "durability = \"interval\" is for a node alone: no other may belong to its group"
            .to_owned(),
    )
}

/// Runs what starts tasks of openraft's: their chance comes from the machine's.
pub(crate) async fn scoped<F: Future>(platform: &Platform, work: F) -> F::Output {
    let mut seed = [0; 8];
    platform.entropy.fill(&mut seed);
    let seed = u64::from_le_bytes(seed);
    DeterministicRng::<TokioRuntime>::scope(seed, work).await
}

fn config(name: &str) -> Result<Config, GroupError> {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION.0),
        election_timeout_max: millis(ELECTION.1),
        install_snapshot_timeout: millis(SNAPSHOT),
        snapshot_policy: SnapshotPolicy::Never,
        // How many commits may wait while LMDB is behind, before the whole member does.
        state_machine_channel_size: Some(65_536),
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A restarted leader would keep its office with an older state.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|e| GroupError(e.to_string()))
}
