//! A member gets a parcel from another (D11): asks for it piece by piece, each with its deadline, writes it
//! beside what it has, and verifies all of it. Nothing of its own changes: that is for whoever closes the
//! namespace and starts it again ([`Group::take_over`]).

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use unisondb_api::Peer;
use unisondb_api::peer::{GroupId, Haste, envelope};
use unisondb_engine::Engine;
use unisondb_engine::backup::Parcel;
use unisondb_engine::start::{self, Arrived, Incoming, StartError};
use unisondb_platform::{OffloadExt as _, Platform};
use unisondb_types::Lsn;

use crate::group::{Group, GroupError};
use crate::message::{self, Reply, Request};

/// How long one piece is waited for.
const PIECE: Duration = Duration::from_secs(10);
/// How long a member is asked that does not answer.
const SILENCE: Duration = Duration::from_secs(30);
/// How long until it is tried again after it failed: for want of room, mostly.
const REST: Duration = Duration::from_secs(10);
/// How often it is said that what has arrived is still being verified, and how much is in that time.
const SHOWN: Duration = Duration::from_secs(1);
const VERIFIED_BYTES: u64 = 4 << 20;
/// Between two questions to one that cannot answer yet.
const AGAIN: Duration = Duration::from_millis(100);

/// How far a member is that was told to get a parcel.
pub(crate) struct CatchUp {
    state: Mutex<State>,
    arrived: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    /// So many bytes have come.
    Fetching(u64),
    Arrived(Arrived),
}

impl Default for CatchUp {
    fn default() -> CatchUp {
        CatchUp {
            state: Mutex::new(State::Idle),
            arrived: watch::Sender::new(false),
        }
    }
}

/// What became of a parcel that had arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenOver {
    /// The next start takes it over.
    AtTheStart,
    /// The log here has caught up without it meanwhile.
    NotNeeded,
}

impl Group {
    /// Told when a parcel has arrived: then the namespace is to be closed ([`halt`](Group::halt) at the
    /// least), [`take_over`](Group::take_over) called, and the namespace started again.
    pub fn watch_arrived(&self) -> watch::Receiver<bool> {
        self.catch_up.arrived.subscribe()
    }

    /// Puts what has arrived where the next start finds it, unless this member has what is in it by now.
    /// The group has ended: what it acknowledges behind this would be lost. Blocks.
    ///
    /// # Errors
    /// [`GroupError`]: then both the old and the new may be what the next start finds.
    ///
    /// # Panics
    /// When the group has not ended.
    pub fn take_over(&self) -> Result<TakenOver, GroupError> {
        assert!(self.is_stopped(), "the group still answers");
        let State::Arrived(arrived) = *self.catch_up.state.lock() else {
            return Ok(TakenOver::NotNeeded);
        };
        let (platform, home) = (self.engine.platform(), self.engine.home());
        let failed = |e: StartError| GroupError(e.to_string());
        let needed = lacks(&self.engine, &arrived.parcel).map_err(|e| GroupError(e.to_string()))?;
        if !needed {
            start::give_up(platform, home).map_err(failed)?;
            return Ok(TakenOver::NotNeeded);
        }
        start::put_aside(platform, home, arrived).map_err(failed)?;
        Ok(TakenOver::AtTheStart)
    }

    /// A leader says that this member needs a parcel: gives how much has arrived.
    pub(crate) async fn get_parcel(&self, from: u64, through: Lsn) -> u64 {
        // First: whoever gives this up leaves nothing behind that is being fetched by nobody.
        let mut ends = self.ends.lock().await;
        while ends.tasks.try_join_next().is_some() {}
        {
            let mut state = self.catch_up.state.lock();
            match *state {
                State::Fetching(bytes) => return bytes,
                State::Arrived(arrived) => return arrived.parcel.bytes().unwrap_or(u64::MAX),
                State::Idle => *state = State::Fetching(0),
            }
        }
        if !self.is_stopped() {
            ends.tasks.spawn(self.clone().fetch(from, through));
        }
        0
    }

    async fn fetch(self, from: u64, through: Lsn) {
        let namespace = self.engine.namespace();
        tracing::warn!(%namespace, from, %through, "this node lacks records that are purged on the leader: it gets a snapshot");
        let says = |bytes| *self.catch_up.state.lock() = State::Fetching(bytes);
        let home = self.engine.home().to_owned();
        let asked = Asked {
            platform: self.engine.platform(),
            peer: self.peer.as_ref(),
            group: &self.group_id(),
            from,
        };
        let got = tokio::select! {
            biased;
            () = self.standing.stopping() => Err("the node stops".to_owned()),
            got = asked.get(through, &home, &says) => got,
        };
        match got {
            Ok(arrived) => {
                let parcel = arrived.parcel;
                tracing::info!(%namespace, lsn = %parcel.lsn, bytes = parcel.snapshot_bytes, "a snapshot has arrived, whole");
                *self.catch_up.state.lock() = State::Arrived(arrived);
                self.catch_up.arrived.send_replace(true);
            }
            Err(why) => {
                tracing::warn!(%namespace, why, "no snapshot was got; it is tried again");
                let platform = self.engine.platform().clone();
                let give_up = move || start::give_up(&platform, &home);
                // What is left of it goes with the next try, or the next start.
                drop(self.engine.platform().offload.blocking(give_up).await);
                tokio::select! {
                    biased;
                    () = self.standing.stopping() => {}
                    () = self.engine.platform().clock.sleep(REST) => {}
                }
                *self.catch_up.state.lock() = State::Idle;
            }
        }
    }
}

/// Whether a log lacks what a parcel holds. Of a record in its place of another term, and of all behind
/// that, none was ever committed.
fn lacks(engine: &Engine, parcel: &Parcel) -> Result<bool, unisondb_engine::Error> {
    if engine.applied() >= parcel.lsn {
        return Ok(false);
    }
    let wal = engine.wal();
    if !(wal.first()..=wal.last()).contains(&parcel.lsn) {
        return Ok(true);
    }
    let there = wal.read(parcel.lsn, 1)?;
    let is_it = |term| term == parcel.term;
    Ok(!there.first().is_some_and(|e| is_it(e.record.term)))
}

/// Gets a parcel for a member that takes no part in the group yet, into its folder `home`; gives what it is
/// when it is whole and verified, in `home`, but not yet taken over.
///
/// # Errors
/// [`GroupError`] in words; nothing has changed but what arrives.
pub async fn first_parcel(
    platform: &Platform,
    peer: &Arc<dyn Peer>,
    group: &GroupId,
    from: u64,
    home: &Path,
) -> Result<Arrived, GroupError> {
    let asked = Asked {
        platform,
        peer: peer.as_ref(),
        group,
        from,
    };
    asked
        .get(Lsn::FIRST, home, &|_| ())
        .await
        .map_err(GroupError)
}

/// Who is asked for a parcel.
struct Asked<'a> {
    platform: &'a Platform,
    peer: &'a dyn Peer,
    group: &'a GroupId,
    from: u64,
}

impl Asked<'_> {
    async fn get(
        &self,
        through: Lsn,
        home: &Path,
        says: &(dyn Fn(u64) + Sync),
    ) -> Result<Arrived, String> {
        let offload = &self.platform.offload;
        let (number, parcel, mut piece) = self.piece(through, 0, 0, says).await?;
        let (platform, folder) = (self.platform.clone(), home.to_owned());
        let begin = move || Incoming::begin(&platform, &folder, parcel);
        let mut incoming = offload.blocking(begin).await.map_err(|e| e.to_string())?;
        loop {
            if piece.is_empty() {
                return Err("a snapshot ended early".to_owned());
            }
            let write = move || incoming.write(&piece).map(|()| incoming);
            incoming = offload.blocking(write).await.map_err(|e| e.to_string())?;
            let at = incoming.at();
            says(at);
            if incoming.is_all_there() {
                break;
            }
            (_, _, piece) = self.piece(through, number, at, says).await?;
        }
        let GroupId { namespace, lineage } = self.group.clone();
        let finish = move || incoming.finish(&namespace, lineage, through);
        let mut finished = pin!(offload.blocking(finish));
        let all = parcel.bytes().unwrap_or_default();
        let most = SILENCE.as_secs() + all / VERIFIED_BYTES;
        let mut shown = 0;
        loop {
            tokio::select! {
                biased;
                done = &mut finished => return done.map_err(|e| e.to_string()),
                () = self.platform.clock.sleep(SHOWN), if shown < most => {
                    shown += 1;
                    says(all + shown);
                }
            }
        }
    }

    /// One piece: asked for until there is one, or nobody has answered for long.
    async fn piece(
        &self,
        through: Lsn,
        number: u64,
        offset: u64,
        says: &(dyn Fn(u64) + Sync),
    ) -> Result<(u64, Parcel, Bytes), String> {
        let clock = &self.platform.clock;
        let mut heard = clock.monotonic();
        let mut made = 0;
        loop {
            let question = Request::Fetch {
                through,
                number,
                offset,
            };
            let call = self
                .peer
                .call(self.group, self.from, message::plain(&question), Haste::Now);
            let answer = tokio::time::timeout(PIECE, call).await;
            let answer = answer.map_err(|_| "no answer in time".to_owned());
            let answer = answer.and_then(|answer| answer.map_err(|e| e.to_string()));
            let decoded = answer
                .and_then(|bytes| envelope::decode::<Reply>(bytes).map_err(|e| e.to_string()));
            match decoded {
                Ok((Reply::Piece { number, parcel }, bytes)) => return Ok((number, parcel, bytes)),
                Ok((Reply::Making, _)) => {
                    heard = clock.monotonic();
                    // It gets further, though nothing arrives yet.
                    made += 1;
                    says(offset + made);
                }
                Ok((Reply::Failed(why), _)) => return Err(why),
                Ok((other, _)) => return Err(format!("an answer to something else: {other:?}")),
                Err(why) if clock.monotonic().saturating_sub(heard) > SILENCE => return Err(why),
                Err(_) => {}
            }
            clock.sleep(AGAIN).await;
        }
    }
}
