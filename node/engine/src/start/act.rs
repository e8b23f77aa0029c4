//! Carries out what was decided. Each way ends in [`go_on`]: a state of ours, a log that continues
//! it, a vote. What comes before can be done again after a kill at any point.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use unisondb_platform::{DiskExt, Platform};
use unisondb_store::Create;
use unisondb_types::{
    Chain, ClusterId, Command, Digest, Kind, LineageId, LineageReason, LineageRecord, Lsn, Members,
    Namespace, SegmentId, Stamp, Target, Term,
};
use unisondb_wal::raft_state::{self, RaftState, RaftStateFile};
use unisondb_wal::{AfterCut, CutBytes, Entry, SegmentState, Wal};

use super::decide::{Action, Plan};
use super::files::{self, Places};
use super::findings::{self, Findings, State};
use super::{Folders, Note, Opened, Request, StartError, install, proof, restore};
use crate::engine::{Checks, Counters, Shared};
use crate::flush::{Beside, Flusher};
use crate::state::memtable::Memtable;
use crate::state::position::{self, Position};
use crate::{Applier, Engine};

/// Log bytes read at once while replaying.
const REPLAY_BYTES: usize = 4 << 20;

/// What all ways need.
pub(super) struct Ground<'a> {
    pub(super) platform: &'a Platform,
    pub(super) folders: &'a Folders,
    pub(super) request: &'a Request,
    pub(super) places: Places,
    pub(super) namespace: Namespace,
}

pub(super) fn carry_out(
    platform: &Platform,
    folders: &Folders,
    request: &Request,
    found: Findings,
    plan: Plan,
) -> Result<Opened, StartError> {
    let ground = Ground {
        platform,
        folders,
        request,
        places: found.places.clone(),
        namespace: plan.namespace.clone(),
    };
    // Before anything is changed: what will be replayed is read through.
    match plan.action {
        Action::Adopt => proof::prove(ground.disk(), &found, &plan, Target::Latest)?,
        Action::Restore(target) if !plan.resumes(&found) => {
            proof::prove(ground.disk(), &found, &plan, target)?;
        }
        _ => {}
    }
    match plan.action {
        Action::ReadOnly => {}
        Action::Restore(_) => ground.folders_there()?,
        _ => {
            ground.folders_there()?;
            ground.set_aside(&found, &plan)?;
        }
    }
    let mut notes = plan.notes.clone();
    match plan.action {
        Action::Create => {
            let cluster = request.create.expect("decided only when asked for");
            ground.create(cluster, &found)?;
            ground.blank_db()?;
            ground.go_on(None, notes)
        }
        Action::Rebuild => {
            ground.blank_db()?;
            let text = "LMDB's file was missing: it is rebuilt from the whole log".to_owned();
            notes.push(Note {
                field: "recovery",
                value: "rebuilt".to_owned(),
                text,
                degraded: false,
            });
            ground.go_on(None, notes)
        }
        Action::GoOn => {
            ground.adopt(&found.db)?;
            let state = found.db.state().cloned();
            let opened = ground.go_on(state, notes)?;
            files::retire_recovery(platform.disk.as_ref(), &ground.places)?;
            Ok(opened)
        }
        Action::Install => {
            ground.adopt(&found.db)?;
            let at = found.stands_at();
            let text = format!(
                "this node lacked records that no other has any more: it got the state at LSN {at} from another, and its log goes on from there"
            );
            tracing::warn!(namespace = %ground.namespace, "{text}");
            notes.push(Note {
                field: "recovery",
                value: "snapshot".to_owned(),
                text,
                degraded: false,
            });
            let state = found.db.state().cloned();
            let opened = ground.go_on(state, notes)?;
            install::done(platform.disk.as_ref(), &ground.places)?;
            Ok(opened)
        }
        Action::Adopt => {
            ground.adopt(&found.db)?;
            let state = found.db.state().cloned();
            let at = found.stands_at();
            let mut opened = ground.go_on(state, notes)?;
            let replayed = opened.engine.applied().get() - at.get();
            let text = format!(
                "replayed {replayed} records after the snapshot at LSN {at}: the log was left in place, so nothing newer was lost. To go back to the snapshot instead, restore it again with --recovery-target-immediate"
            );
            tracing::warn!(namespace = %ground.namespace, "{text}");
            opened.notes.push(Note {
                field: "replayed",
                value: replayed.to_string(),
                text,
                degraded: false,
            });
            Ok(opened)
        }
        Action::Restore(target) => restore::restore(&ground, found, &plan, target, notes),
        Action::FinishRestore => restore::finish(&ground, notes),
        Action::ReadOnly => restore::read_only(&ground, &found, &plan, notes),
    }
}

impl Ground<'_> {
    pub(super) fn disk(&self) -> &dyn unisondb_platform::Disk {
        self.platform.disk.as_ref()
    }

    fn folders_there(&self) -> Result<(), StartError> {
        for folder in [&self.places.wal, &self.places.db] {
            self.disk()
                .create_folders(folder)
                .map_err(|e| StartError::io(folder, e))?;
        }
        Ok(())
    }

    /// The first record of a new namespace: vote, log; each synced, in this order (D8).
    /// A name that had segments before, here or among its backups, begins above them (P12).
    fn create(&self, cluster: ClusterId, found: &Findings) -> Result<(), StartError> {
        let known = findings::highest_known(self.disk(), self.folders, found)?;
        let entropy = &self.platform.entropy;
        let raft_id = draw_raft_id(self.platform);
        self.vote(raft_id, Term::new(1))?;
        let record = LineageRecord {
            cluster,
            namespace: self.namespace.clone(),
            lineage: LineageId::from_bytes(entropy.id()),
            parent: None,
            ancestors: Vec::new(),
            first_segment: match known.max(self.request.ids_above.unwrap_or(SegmentId::ZERO)) {
                SegmentId::ZERO => SegmentId::FIRST,
                above => above.next_block(),
            },
            segment_size: self.request.segment_size,
            members: vec![raft_id],
            reason: LineageReason::Created,
        };
        let now = self.platform.clock.now();
        unisondb_wal::begin(self.platform, &self.places.wal, &record, Term::new(1), now)?;
        Ok(())
    }

    /// A vote for oneself, synced before the record that it stands for.
    pub(super) fn vote(&self, raft_id: u64, term: Term) -> Result<RaftStateFile, StartError> {
        vote(self.platform, &self.places, raft_id, term)
    }

    pub(super) fn open_wal(
        &self,
        vouched: Lsn,
        cut_bytes: CutBytes,
    ) -> Result<(Wal, unisondb_wal::Recovery), StartError> {
        // What was restored by hand may end where another restore had cut it.
        let after_cut = match cut_bytes {
            CutBytes::KeepAside => AfterCut::Accept,
            CutBytes::Drop => AfterCut::Refuse,
        };
        let options = unisondb_wal::Options {
            segment_size: self.request.segment_size,
            keep_segment_size: self.request.keep_segment_size,
            cut_bytes,
            after_cut,
            namespace: Some(self.namespace.clone()),
            ..unisondb_wal::Options::default()
        };
        Ok(Wal::open(
            self.platform,
            &self.places.wal,
            options,
            vouched,
        )?)
    }

    /// State, log and vote are ours and fit: opens them and replays what LMDB does not have.
    pub(super) fn go_on(
        &self,
        state: Option<State>,
        mut notes: Vec<Note>,
    ) -> Result<Opened, StartError> {
        let stands = state.as_ref().map_or(Lsn::ZERO, |s| s.position.lsn);
        let (wal, recovery) = self.open_wal(stands, CutBytes::Drop)?;
        if let Some(cut) = &recovery.cut {
            tracing::info!(namespace = %self.namespace, segment = %cut.segment, offset = cut.offset, bytes = cut.lost_bytes, why = cut.why, "an unfinished write at the end of the log was cut off");
        }
        if wal.first() > stands.next() {
            return Err(StartError::Refused(format!(
                "the log begins at LSN {}, the state stands at LSN {stands}: records between them are missing",
                wal.first()
            )));
        }
        let (engine, mut applier) = self.assemble(wal, state)?;
        self.replay_committed(&engine, &mut applier)?;
        // Its last record may have been flushed before the segment was known to end with it.
        applier.close_if_ended()?;
        self.finish_seals(&engine)?;
        let vote = self.standing_vote(&engine)?;
        files::raise_ids(
            self.disk(),
            &self.places.home,
            engine.wal().active().id.block_end(),
        )?;
        if recovery.full {
            let text = "the disk is full: writes are refused until there is room".to_owned();
            notes.push(Note {
                field: "disk",
                value: "full".to_owned(),
                text,
                degraded: true,
            });
        }
        Ok(Opened {
            engine,
            applier,
            notes,
            vote,
            read_only: None,
        })
    }

    /// The vote, read once more and synced; of a damaged one the only voter makes a new one, above
    /// every term in its log (D8).
    fn standing_vote(&self, engine: &Engine) -> Result<RaftStateFile, StartError> {
        if let Some(file) = RaftStateFile::open(self.disk(), &self.places.raft_state)? {
            return Ok(file);
        }
        let stand = engine.applied_stand().map_err(StartError::Engine)?;
        // What is not applied may say that there are others.
        let all = engine.applied() == engine.wal().last() && !self.has_joined()?;
        let members = stand.membership.members;
        let ([voters], true) = (&members.voters[..], all && members.learners.is_empty()) else {
            return Err(self.vote_lost());
        };
        let [raft_id] = voters[..] else {
            return Err(self.vote_lost());
        };
        let term = stand.term.next();
        tracing::warn!(namespace = %self.namespace, %term, "raft.state was damaged: a new vote above every term in the log");
        self.vote(raft_id, term)
    }

    /// Whether this folder came to be by joining a group.
    fn has_joined(&self) -> Result<bool, StartError> {
        let joined = &self.places.joined;
        let there = self.disk().exists(joined);
        there.map_err(|e| StartError::io(joined, e))
    }

    /// Whom it has voted for is not known, and there are others to vote with.
    fn vote_lost(&self) -> StartError {
        StartError::Refused(format!(
            "{} is damaged, and this node is one of several voters: it could vote twice in one term. Way out: remove it from the cluster, empty its folder {}, and add it again",
            self.places.raft_state.display(),
            self.places.home.display()
        ))
    }

    pub(super) fn assemble(
        &self,
        wal: Wal,
        state: Option<State>,
    ) -> Result<(Engine, Applier), StartError> {
        let store = self.open_store(Create::MustExist)?;
        let state = match state {
            Some(state) => state,
            None => self.before_the_first(&wal)?,
        };
        let history = Arc::new(state.history);
        let applied = state.position.lsn;
        let request = self.request;
        let shared = Arc::new(Shared {
            platform: self.platform.clone(),
            namespace: self.namespace.clone(),
            home: self.places.home.clone(),
            backups: RwLock::new(self.folders.backups.clone()),
            wal,
            store,
            memtable: RwLock::new(Memtable::new(state.position, history)),
            applied: watch::Sender::new(applied),
            sealed: watch::Sender::new(SegmentId::ZERO),
            checks: Mutex::new(Checks::default()),
            pins: Mutex::new(BTreeMap::new()),
            flush_bytes: request.flush_bytes,
            flush_interval: request.flush_interval,
            flush_wanted: Notify::new(),
            flush_done: Notify::new(),
            flusher: Flusher::default(),
            stopped: Mutex::new(None),
            stalled: Mutex::new(None),
            footer_waits: Mutex::new(None),
            read_only: std::sync::OnceLock::new(),
            counters: Counters::default(),
            backup: crate::backup::Status::load(self.platform, &self.places.home),
        });
        let applier = Applier::new(shared.clone());
        Ok((Engine(shared), applier))
    }

    /// The state before LSN 1, of a log that begins there.
    fn before_the_first(&self, wal: &Wal) -> Result<State, StartError> {
        let first = wal.read(Lsn::FIRST, 1)?;
        let command = first.first().and_then(|e| e.record.command().ok());
        let Some(Command::Lineage(history)) = command else {
            return Err(StartError::Refused(
                "the log does not begin with a lineage record".to_owned(),
            ));
        };
        let position = Position {
            format: position::FORMAT,
            namespace: self.namespace.clone(),
            cluster: history.cluster,
            lineage: history.lineage,
            lsn: Lsn::ZERO,
            term: Term::new(0),
            stamp: Stamp::ZERO,
            crc: 0,
            segment: SegmentId::ZERO,
            offset: 0,
            segment_ended: false,
            digest: Digest::EMPTY,
            chain: Chain::ZERO,
            chain_lsn: Lsn::ZERO,
            open_transactions: 0,
            idempotency_keys: 0,
        };
        Ok(State {
            position,
            history: *history,
        })
    }

    /// Applies what the log has behind the state, as far as the target goes, and of each batch that is
    /// read as far as `last` says. Gives the stamp of the first record that the target leaves out, if
    /// one was.
    pub(super) fn replay(
        &self,
        engine: &Engine,
        applier: &mut Applier,
        target: Target,
        mut last: impl FnMut(&[Entry]) -> Lsn,
    ) -> Result<Option<Stamp>, StartError> {
        let wal = engine.wal();
        self.same_history(engine)?;
        let mut flush = Beside::default();
        let mut passed = None;
        'log: while applier.applied() < wal.last() {
            let batch = wal.read(applier.applied().next(), REPLAY_BYTES)?;
            let last = last(&batch);
            for entry in batch {
                let record = &entry.record;
                if record.lsn > last {
                    break 'log;
                }
                if !target.includes(record.lsn, record.stamp) {
                    passed = Some(record.stamp);
                    break 'log;
                }
                applier.apply(&entry)?;
                if engine.0.memtable.read().active_bytes >= self.request.flush_bytes {
                    engine.flush_beside(&mut flush)?;
                }
            }
        }
        flush.wait()?;
        Ok(passed)
    }

    /// Applies what is known to be committed. Of a cluster of one that is all that lies in its log,
    /// as far as no record there makes it one of several; the rest is for the group to decide.
    fn replay_committed(&self, engine: &Engine, applier: &mut Applier) -> Result<(), StartError> {
        let wal = engine.wal();
        let stand = engine.applied_stand().map_err(StartError::Engine)?;
        let joined = self.has_joined()?;
        let own = match raft_state::read(self.disk(), &self.places.raft_state)? {
            raft_state::Found::Valid(state) => Some(state.raft_id),
            raft_state::Found::Missing | raft_state::Found::Damaged => None,
        };
        // Who never joined anybody is the one voter there is, whatever vote lies beside the log: an
        // operator may have put another history of this node in its place.
        let decides = |members: &Members| match joined {
            true => own.is_some_and(|id| members.is_only(id)),
            false => members.is_single(),
        };
        let mut alone = decides(&stand.membership.members);
        self.replay(engine, applier, Target::Latest, |batch| {
            let mut committed = Lsn::ZERO;
            for record in batch.iter().map(|entry| &entry.record) {
                match record.kind {
                    // Written by one node, and never to be decided on again (D1).
                    Kind::Lineage => {
                        if let Ok(Command::Lineage(lineage)) = record.command() {
                            alone = decides(&Members::of(lineage.members));
                            committed = record.lsn;
                        }
                    }
                    Kind::Membership => alone = false,
                    _ if alone => committed = record.lsn,
                    _ => {}
                }
            }
            wal.commit(committed);
            wal.committed()
        })?;
        Ok(())
    }

    /// The record that the state stands at is the very one in the log. (Where it is not in the log
    /// any more, the header behind it has been compared by the decision.)
    fn same_history(&self, engine: &Engine) -> Result<(), StartError> {
        let position = engine.0.memtable.read().position.clone();
        let wal = engine.wal();
        if position.lsn < wal.first() || position.lsn > wal.last() || position.lsn == Lsn::ZERO {
            return Ok(());
        }
        let at = wal.read(position.lsn, 1)?;
        let Some(entry) = at.first() else {
            return Ok(());
        };
        if (entry.crc, entry.record.term) != (position.crc, position.term) {
            return Err(StartError::Refused(format!(
                "record {} in the log is not the one that the state was made with (CRC {:08x} and term {}, expected {:08x} and {}): the log belongs to another history. Way out: empty wal/, then start again",
                position.lsn, entry.crc, entry.record.term, position.crc, position.term
            )));
        }
        Ok(())
    }

    /// Segments that were confirmed but lost their footers get them again; those that were not
    /// confirmed are offered to the leader.
    pub(super) fn finish_seals(&self, engine: &Engine) -> Result<(), StartError> {
        let rows: BTreeMap<_, _> = engine
            .segment_rows()
            .map_err(StartError::Engine)?
            .into_iter()
            .collect();
        let mut newest = SegmentId::ZERO;
        for info in engine.wal().segments() {
            match (info.state, rows.get(&info.id)) {
                (SegmentState::Sealed, _) => newest = info.id,
                (SegmentState::Rolled, Some(row)) if row.checked => {
                    engine.wal().seal(info.id, row.digest)?;
                    engine.0.checks.lock().done(info.id);
                    newest = info.id;
                }
                (SegmentState::Rolled, Some(row)) => {
                    engine.0.checks.lock().add(row.check(info.id));
                }
                _ => {}
            }
        }
        engine.0.sealed.send_replace(newest);
        Ok(())
    }
}

/// A vote for oneself, synced.
pub(super) fn vote(
    platform: &Platform,
    places: &Places,
    raft_id: u64,
    term: Term,
) -> Result<RaftStateFile, StartError> {
    let state = RaftState {
        raft_id,
        term,
        voted_for: Some(raft_id),
        committed: false,
    };
    let (disk, path) = (platform.disk.as_ref(), &places.raft_state);
    Ok(RaftStateFile::create(disk, path, state)?)
}

/// A node id for votes: random, never zero.
pub(super) fn draw_raft_id(platform: &Platform) -> u64 {
    let mut bytes = [0; 8];
    platform.entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}
