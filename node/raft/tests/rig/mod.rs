//! Members of one group in one thread: disks in memory that lose, fail and fill up, time that passes
//! by itself when nobody has anything to do, messages that take a while and ways that can be cut.
//! The same seed gives the same run.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use unisondb_api::peer::GroupId;
use unisondb_api::{Haste, Peer, PeerError, Reply, WriteError, Written};
use unisondb_engine::Engine;
use unisondb_engine::start::{self, Folders, Origin, Request};
use unisondb_platform::memory::{self, InlineOffload, MemoryDisk, MemoryEntropy, Random};
use unisondb_platform::{Clock, Platform};
use unisondb_raft::{AcceptClock, Durability, Group, Parts, TakenOver};
use unisondb_types::{Action, ClusterId, Command, Key, Lsn, Op, Stamp, Value};
use unisondb_wal::Entry;

/// The longest that anything here is waited for, in time that passes by itself.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest that one call is waited for.
const CALL: Duration = Duration::from_secs(5);

/// Time as tokio has it, from a day in 2025 on; the wall clock may be set wrong.
struct TokioClock {
    started: tokio::time::Instant,
    ahead: Arc<AtomicU64>,
}

impl Clock for TokioClock {
    fn now(&self) -> Stamp {
        let micros = u64::try_from(self.monotonic().as_micros()).unwrap();
        let ahead = self.ahead.load(Ordering::Relaxed);
        Stamp::from_micros(1_750_000_000_000_000 + micros + ahead)
    }
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Who is where, and which ways are cut.
pub struct Net {
    members: Mutex<BTreeMap<u64, Group>>,
    cut: Mutex<BTreeSet<u64>>,
    /// The last bit of every message that carries frames is turned over before its checksum is made.
    pub spoil: AtomicBool,
    /// How long what may wait for others does, in milliseconds.
    pub soon_millis: AtomicU64,
    /// How long a message is under way at most, in microseconds.
    pub travel_micros: AtomicU64,
    /// How many messages of each haste were sent: at once, soon.
    pub hastes: [AtomicU64; 2],
    seed: u64,
    sent: AtomicU64,
}

struct Line {
    net: Arc<Net>,
    from: u64,
    /// Whether the process that it belongs to still runs.
    alive: Arc<AtomicBool>,
}

impl Line {
    fn is_cut(&self, to: u64) -> bool {
        let cut = self.net.cut.lock();
        !self.alive.load(Ordering::Relaxed) || cut.contains(&self.from) || cut.contains(&to)
    }
    /// How long a message is under way.
    async fn travel(&self) {
        let n = self.net.sent.fetch_add(1, Ordering::Relaxed);
        let most = self.net.travel_micros.load(Ordering::Relaxed);
        let micros = Random::keyed(self.net.seed, b"message", n).below(most);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

impl Peer for Line {
    fn call<'a>(&'a self, _: &'a GroupId, to: u64, message: Bytes, haste: Haste) -> Reply<'a> {
        Box::pin(async move {
            self.net.hastes[usize::from(haste == Haste::Soon)].fetch_add(1, Ordering::Relaxed);
            if haste == Haste::Soon {
                let millis = self.net.soon_millis.load(Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            self.travel().await;
            let group = self.net.members.lock().get(&to).cloned();
            let group = group.filter(|_| !self.is_cut(to));
            let Some(group) = group else {
                return Err(PeerError::Unreachable("nobody is there".to_owned()));
            };
            let spoil = self.net.spoil.load(Ordering::Relaxed);
            let message = if spoil { spoiled(message) } else { message };
            let answer = group.answer(message).await;
            self.travel().await;
            if self.is_cut(to) {
                return Err(PeerError::Lost("the way was cut".to_owned()));
            }
            Ok(answer)
        })
    }
}

/// A message of frames, as a leader with a bad memory sends it. Layout: `docs/formats/peer.md`.
fn spoiled(message: Bytes) -> Bytes {
    let header = u32::from_le_bytes(message[4..8].try_into().unwrap());
    if message.len() <= 8 + usize::try_from(header).unwrap() {
        return message;
    }
    let mut bytes = message.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes.into()
}

/// One member's machine: it outlives the member's process.
pub struct Member {
    pub disk: MemoryDisk,
    pub id: u64,
    /// How far its wall clock is wrong, in microseconds.
    pub ahead: Arc<AtomicU64>,
    pub durability: Durability,
    boots: u64,
    seed: u64,
    started: tokio::time::Instant,
    process: Option<Process>,
}

struct Process {
    group: Group,
    alive: Arc<AtomicBool>,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Killed: what it wrote is in the page cache.
    Killed,
    /// With its machine: what was not synced may be gone.
    PowerLoss,
}

/// All of them.
pub struct Cluster {
    pub net: Arc<Net>,
    pub members: Vec<Member>,
    seed: u64,
    started: tokio::time::Instant,
}

fn folders() -> Folders {
    Folders {
        namespace: Some("users".parse().unwrap()),
        home: PathBuf::from("/data/users"),
        backups: PathBuf::from("/backups/users"),
    }
}

fn request() -> Request {
    Request {
        segment_size: 8 << 10,
        map_size: 16 << 20,
        flush_bytes: 16 << 10,
        flush_interval: Duration::from_millis(500),
        create: Some(ClusterId::from_bytes([7; 16])),
        ..Request::default()
    }
}

pub fn put(key: &str, value: &str) -> Command {
    Command::User {
        idempotency: None,
        action: Action::Write {
            conditions: Vec::new(),
            ops: vec![Op::KvPut {
                key: Key::new(key.as_bytes().to_vec()).unwrap(),
                value: Value::new(value.as_bytes().to_vec()),
            }],
        },
    }
}

impl Member {
    fn new(seed: u64, started: tokio::time::Instant) -> Member {
        let (_, disk, _) = memory::platform(seed);
        disk.set_seed(seed);
        Member {
            disk,
            id: 0,
            ahead: Arc::default(),
            durability: Durability::Always,
            boots: 0,
            seed,
            started,
            process: None,
        }
    }

    fn platform(&self) -> Platform {
        Platform {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(TokioClock {
                started: self.started,
                ahead: self.ahead.clone(),
            }),
            entropy: Arc::new(MemoryEntropy::new(self.seed * 1_000 + self.boots)),
            offload: Arc::new(InlineOffload),
            pulse: Arc::default(),
        }
    }

    /// Its group, while it is up.
    pub fn group(&self) -> &Group {
        &self.process.as_ref().unwrap().group
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub async fn start(&mut self, net: &Arc<Net>) {
        self.begin(net).await.start_flusher();
    }

    /// The same, without what brings its state into LMDB by itself.
    pub async fn begin(&mut self, net: &Arc<Net>) -> Engine {
        self.boots += 1;
        let platform = self.platform();
        let opened = match start::open(&platform, &folders(), &request()) {
            Ok(opened) => opened,
            // What a start must refuse; then the operator makes room, or has the disk replaced, and
            // the supervisor starts it again.
            Err(why) => {
                println!("member {} does not start: {why}", self.id);
                self.disk.set_capacity(None);
                self.disk.forget_rules();
                self.disk = self.disk.kill();
                start::open(&self.platform(), &folders(), &request()).unwrap()
            }
        };
        let platform = self.platform();
        self.id = opened.vote.state().raft_id;
        let engine = opened.engine.clone();
        let alive = Arc::new(AtomicBool::new(true));
        let line = Line {
            net: net.clone(),
            from: self.id,
            alive: alive.clone(),
        };
        let parts = Parts {
            platform,
            opened,
            peer: Arc::new(line),
            accept_clock: AcceptClock::Within7Days,
            durability: self.durability,
            may_take_room: Arc::new(|| true),
        };
        let group = Group::start(parts).await.unwrap();
        net.members.lock().insert(self.id, group.clone());
        self.process = Some(Process { group, alive });
        engine
    }

    /// Ends its process, and what must go on from is on the disk.
    pub async fn end(&mut self, net: &Net, end: End) {
        // The disk first: nothing that runs on may write.
        self.disk.freeze();
        let Process { group, alive } = self.process.take().unwrap();
        alive.store(false, Ordering::Relaxed);
        net.members.lock().remove(&self.id);
        group.halt().await;
        drop(group.engine().clone().shut_down());
        self.disk = match end {
            End::Killed => self.disk.kill(),
            End::PowerLoss => self.disk.crash(self.seed * 1_000 + self.boots),
        };
    }
}

impl Cluster {
    /// A group of one.
    pub async fn one(seed: u64) -> Cluster {
        Cluster::one_that(seed, Durability::Always).await
    }

    /// A group of one that answers so.
    pub async fn one_that(seed: u64, durability: Durability) -> Cluster {
        let net = Arc::new(Net {
            members: Mutex::default(),
            cut: Mutex::default(),
            spoil: AtomicBool::new(false),
            soon_millis: AtomicU64::new(10),
            travel_micros: AtomicU64::new(20_000),
            hastes: Default::default(),
            seed,
            sent: AtomicU64::new(0),
        });
        let started = tokio::time::Instant::now();
        let mut first = Member::new(seed * 10 + 1, started);
        first.durability = durability;
        first.start(&net).await;
        Cluster {
            net,
            members: vec![first],
            seed,
            started,
        }
    }

    /// A group of one that grew.
    pub async fn of(size: usize, seed: u64) -> Cluster {
        let mut cluster = Cluster::one(seed).await;
        while cluster.members.len() < size {
            cluster.join().await;
        }
        cluster
    }

    /// One more member: a learner first, then a voter.
    pub async fn join(&mut self) {
        let origin = self.origin().await;
        self.begin_to_join(&origin).await;
        self.vote_all().await;
    }

    /// What the group's log begins with.
    pub async fn origin(&self) -> Origin {
        let leader = self.leader().await;
        let wal = self.members[leader].group().engine().wal();
        Origin::of(&wal.read(Lsn::FIRST, 1).unwrap()[0].record).unwrap()
    }

    /// One more, which follows from now on.
    pub async fn begin_to_join(&mut self, origin: &Origin) -> usize {
        let leader = self.leader().await;
        let group = self.members[leader].group().clone();
        let number = self.members.len() as u64 + 1;
        let mut member = Member::new(self.seed * 10 + number, self.started);
        let id = start::join(&member.platform(), &folders(), origin).unwrap();
        member.start(&self.net).await;
        assert_eq!(member.id, id, "the id by which it is added");
        group.follow(id).await.unwrap();
        self.members.push(member);
        self.members.len() - 1
    }

    /// All that follow vote, as soon as they have nearly all.
    pub async fn vote_all(&self) {
        let leader = self.leader().await;
        let group = self.members[leader].group().clone();
        for member in self.members.iter().filter(|m| m.id != group.own()) {
            group.add_learner(member.id).await.unwrap();
        }
        let voters = self.members.iter().map(|m| m.id).collect();
        group.set_voters(voters).await.unwrap();
    }

    /// Who leads and can commit, if somebody does just now.
    pub async fn leading(&self) -> Option<usize> {
        for (n, member) in self.members.iter().enumerate() {
            let cut = self.net.cut.lock().contains(&member.id);
            if member.is_up() && !cut && member.group().leads() {
                let asked = tokio::time::timeout(CALL, member.group().barrier()).await;
                if asked.is_ok_and(|barrier| barrier.is_ok()) {
                    return Some(n);
                }
            }
        }
        None
    }

    pub async fn leader(&self) -> usize {
        wait("a leader that commits", || self.leading()).await
    }

    /// Through whoever leads; an answer that is no success may have been written.
    pub async fn try_put(&self, key: &str, value: &str) -> Result<Written, WriteError> {
        let Some(leader) = self.leading().await else {
            return Err(WriteError::Unavailable("nobody leads".to_owned()));
        };
        let command = put(key, value);
        let write = self.members[leader].group().propose(&command);
        let answer = tokio::time::timeout(CALL, write).await;
        answer.unwrap_or_else(|_| Err(WriteError::Unknown("no answer in time".to_owned())))
    }

    /// Again until it is certain.
    pub async fn put(&self, key: &str, value: &str) -> Written {
        wait("a write that is answered", || async {
            self.try_put(key, value).await.ok()
        })
        .await
    }

    pub async fn end(&mut self, n: usize, end: End) {
        let net = self.net.clone();
        self.members[n].end(&net, end).await;
    }

    /// Ends its process in order; what must go on from is on the disk.
    pub async fn stop(&mut self, n: usize) {
        let group = self.members[n].group().clone();
        group.stop().await;
        self.end(n, End::PowerLoss).await;
    }

    pub async fn start(&mut self, n: usize) {
        let net = self.net.clone();
        self.members[n].start(&net).await;
    }

    /// Ends every process, sets every clock so many days ahead, and starts them again in this order.
    pub async fn all_days_ahead(&mut self, days: u64, order: [usize; 3]) {
        for n in order {
            if self.members[n].is_up() {
                self.end(n, End::Killed).await;
            }
            let micros = days * 86_400 * 1_000_000;
            self.members[n].ahead.store(micros, Ordering::Relaxed);
        }
        for n in order {
            self.start(n).await;
        }
    }

    /// Hands the lead on until `wanted` has it.
    pub async fn lead(&self, wanted: impl Fn(usize) -> Option<usize>) {
        wait("another leads", || async {
            let leader = self.leader().await;
            if let Some(to) = wanted(leader) {
                let id = self.members[to].id;
                self.members[leader].group().transfer(id).await.unwrap();
                return None;
            }
            Some(())
        })
        .await;
    }

    pub fn cut(&self, n: usize) {
        self.net.cut.lock().insert(self.members[n].id);
    }

    pub fn heal(&self) {
        self.net.cut.lock().clear();
    }

    /// Ends and starts every process whose log has failed, as a supervisor does.
    pub async fn restart_failed(&mut self) -> usize {
        let mut failed = 0;
        for n in 0..self.members.len() {
            let member = &self.members[n];
            if member.is_up() && member.group().standing().failed().is_some() {
                failed += 1;
                self.end(n, End::Killed).await;
                self.start(n).await;
            }
        }
        failed
    }

    /// Closes a member that a parcel has arrived at, has it taken over, and starts the member again.
    pub async fn take_over(&mut self, n: usize) -> TakenOver {
        let member = &mut self.members[n];
        let Process { group, alive } = member.process.take().unwrap();
        alive.store(false, Ordering::Relaxed);
        self.net.members.lock().remove(&member.id);
        group.halt().await;
        let taken = group.take_over().unwrap();
        drop(group.engine().clone().shut_down());
        drop(group);
        member.disk.freeze();
        member.disk = member.disk.kill();
        self.start(n).await;
        taken
    }

    /// Takes over whatever has arrived anywhere; how often.
    pub async fn take_over_all(&mut self) -> usize {
        let mut taken = 0;
        for n in 0..self.members.len() {
            let member = &self.members[n];
            if member.is_up() && *member.group().watch_arrived().borrow() {
                taken += usize::from(self.take_over(n).await == TakenOver::AtTheStart);
            }
        }
        taken
    }

    /// Brings a member's state into LMDB, and removes all from its log that may go. Gives the first
    /// record that is left.
    pub async fn purge(&self, n: usize) -> Lsn {
        let group = self.members[n].group();
        let (engine, wal) = (group.engine(), group.engine().wal());
        if engine.flush().is_ok() {
            let flushed = engine.positions().flushed;
            let may_go = |s: &&unisondb_wal::SegmentInfo| s.last_lsn.is_some_and(|l| l <= flushed);
            let segments = wal.segments();
            let up_to = segments.iter().take_while(may_go).last().map(|s| s.id);
            if let Some(up_to) = up_to
                && let Some(last) = wal.purgeable(up_to)
                && group.release(last).await
            {
                drop(wal.purge(up_to));
            }
        }
        wal.first()
    }

    /// Waits until all have the same log, applied and sealed as far as it can be; compares logs,
    /// digests and the bytes of every sealed segment, as far as all have them. Gives that log.
    pub async fn agree(&self) -> Vec<Entry> {
        wait("equal logs", || async {
            let last = self.members.iter().map(|m| m.group().engine().wal().last());
            let last = last.max()?;
            let settled = self.members.iter().all(|m| {
                let engine = m.group().engine();
                let wal = engine.wal();
                wal.last() == last
                    && engine.applied() == last
                    && wal.durable() == last
                    && wal.unsealed_ended().is_empty()
            });
            settled.then_some(())
        })
        .await;
        let mut logs: Vec<Vec<Entry>> = self.members.iter().map(|m| all(m.group())).collect();
        let begin = logs.iter().filter_map(|log| log.first());
        let begin = begin.map(|e| e.record.lsn).max();
        for log in &mut logs {
            log.retain(|e| Some(e.record.lsn) >= begin);
        }
        let first = self.members[0].group().engine();
        for (member, log) in self.members.iter().zip(&logs) {
            assert_eq!(log, &logs[0], "member {}", member.id);
            let engine = member.group().engine();
            assert_eq!(engine.digest(None).unwrap(), first.digest(None).unwrap());
            for segment in first.wal().segments() {
                if segment.digest.is_some() && engine.wal().segment(segment.id).is_some() {
                    let sum = |wal: &unisondb_wal::Wal| wal.sha256(segment.id).unwrap();
                    assert_eq!(
                        sum(engine.wal()),
                        sum(first.wal()),
                        "segment {}",
                        segment.id
                    );
                }
            }
        }
        logs.into_iter().next().unwrap()
    }
}

/// The whole log.
pub fn all(group: &Group) -> Vec<Entry> {
    let wal = group.engine().wal();
    let (mut next, mut entries) = (wal.first(), Vec::new());
    while next <= wal.last() {
        entries.extend(wal.read(next, 1 << 20).unwrap());
        next = entries.last().map_or(next, |e: &Entry| e.record.lsn.next());
    }
    entries
}

/// Asks again and again.
pub async fn wait<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}
