//! A restore: from a state (or none) along the log to a target, then a new lineage.
//!
//! | step | what makes it repeatable |
//! | --- | --- |
//! | `restoring` is written | the next start goes on with the same target, lineage id, first segment |
//! | the snapshot is adopted, the log replayed to the target, flushed | replay goes on from what LMDB has, and never past the target |
//! | the segment that holds the fork is cut there, if it was not sealed; what lies behind is set aside | done again it does nothing |
//! | `ids`, vote, the new lineage's first segment | the segment is made whole or not at all, from the same facts |
//! | `recovery.toml` is retired, `restoring` removed | a start that finds the lineage begun only does this |

use unisondb_platform::DiskExt;
use unisondb_types::{
    Ancestor, Chain, LineageReason, LineageRecord, Lsn, Parent, SegmentId, Target, limits,
};
use unisondb_wal::{CutBytes, SegmentState, raft_state};

use super::act::{Ground, draw_raft_id};
use super::adopt::copy_file;
use super::aside::Leaving;
use super::decide::Plan;
use super::files::{self, Restoring};
use super::findings::{self, Db, Findings, State};
use super::{Folders, Note, OnGap, Opened, Request, StartError};

/// Runs a restore to its end and opens what came of it.
pub(super) fn restore(
    ground: &Ground<'_>,
    found: Findings,
    plan: &Plan,
    target: Target,
    mut notes: Vec<Note>,
) -> Result<Opened, StartError> {
    let restoring = mark(ground, &found, plan, target)?;
    // Marked first: a kill between the two must not leave a folder that looks like another case.
    ground.set_aside(&found, plan)?;
    let reached = replay_to_target(ground, &found, plan, &restoring, target)?;
    tracing::warn!(
        namespace = %ground.namespace,
        lsn = %reached.state.position.lsn,
        stamp = %reached.state.position.stamp,
        "restored: replayed {} records",
        reached.replayed
    );
    note_reached(&reached, target, &mut notes);
    begin_lineage(ground, &found, &restoring, &reached, target)?;
    finish(ground, notes)
}

/// Writes down what is about to be done, or finds it written down.
fn mark(
    ground: &Ground<'_>,
    found: &Findings,
    plan: &Plan,
    target: Target,
) -> Result<Restoring, StartError> {
    let base = found
        .db
        .state()
        .map(|s| (s.position.lineage, s.position.lsn));
    if let Some(restoring) = found.restoring.as_ref().filter(|_| !plan.gives_up) {
        return Ok(restoring.clone());
    }
    let known = findings::highest_known(ground.disk(), ground.folders, found)?;
    // The block of a restore that was given up may be named in a segment cut for it.
    let given_up = found.restoring.as_ref().map(|r| r.first_segment);
    let above = known
        .max(ground.request.ids_above.unwrap_or(SegmentId::ZERO))
        .max(given_up.unwrap_or(SegmentId::ZERO));
    let restoring = Restoring {
        target: target.into(),
        lineage: unisondb_types::LineageId::from_bytes(ground.platform.entropy.id()),
        first_segment: above.next_block(),
        stamp: ground.platform.clock.now(),
        raft_id: draw_raft_id(ground.platform),
        base,
        without_log: plan.keep.is_empty() && !plan.aside.is_empty(),
    };
    files::write_restoring(ground.disk(), &ground.places, &restoring)?;
    Ok(restoring)
}

/// The lineage has begun: tidy up and go on in it.
pub(super) fn finish(ground: &Ground<'_>, notes: Vec<Note>) -> Result<Opened, StartError> {
    let disk = ground.disk();
    files::retire_recovery(disk, &ground.places)?;
    files::remove_restoring(disk, &ground.places)?;
    let found = findings::look(ground.platform, ground.folders, ground.request)?;
    ground.go_on(found.db.state().cloned(), notes)
}

/// Where a replay came to.
struct Reached {
    state: State,
    replayed: u64,
    /// Whether the log went on behind the target.
    passed: bool,
}

fn replay_to_target(
    ground: &Ground<'_>,
    found: &Findings,
    plan: &Plan,
    restoring: &Restoring,
    target: Target,
) -> Result<Reached, StartError> {
    let at = found.stands_at();
    match &found.db {
        Db::Missing | Db::Blank => ground.blank_db()?,
        db => ground.adopt(db)?,
    }
    // Cut at the fork already: LMDB has all up to it, and the log must not be opened any more.
    let cut = found
        .segments
        .values()
        .any(|s| s.info.cut_by == Some(restoring.lineage));
    let state = found.db.state().cloned();
    if cut || plan.keep.is_empty() {
        let state = state.ok_or_else(|| {
            StartError::Refused("a restore was under way, but its state is gone".to_owned())
        })?;
        return Ok(Reached {
            state,
            replayed: 0,
            passed: cut,
        });
    }
    ground.make_durable(&plan.keep)?;
    let (wal, recovery) = ground.open_wal(at, CutBytes::KeepAside)?;
    if let Some(cut) = &recovery.cut {
        tracing::warn!(namespace = %ground.namespace, segment = %cut.segment, offset = cut.offset, why = cut.why, kept = cut.kept.as_ref().map(|p| tracing::field::display(p.display())), "the last segment is torn: the log ends at its last whole record");
    }
    if wal.first() > at.next() {
        return Err(StartError::Refused(format!(
            "the log begins at LSN {}, the state stands at LSN {at}: records between them are missing",
            wal.first()
        )));
    }
    let (engine, mut applier) = ground.assemble(wal, state)?;
    let passed = ground
        .replay(&engine, &mut applier, target, |_| Lsn::MAX)?
        .is_some();
    engine.flush()?;
    // What a restore has replayed is its history from now on, and durable since the log was opened: also
    // a last record that nothing behind it vouches for (a footer that was cut off did).
    let replayed_to = engine.applied();
    engine.wal().commit(replayed_to);
    // Segments that ended before the fork get the footers that their node would have given them.
    let rows = engine.segment_rows()?;
    for (id, row) in rows {
        let ended = engine.wal().segment(id);
        if ended
            .is_some_and(|s| s.state == SegmentState::Rolled && s.last_lsn == Some(row.last_lsn))
        {
            engine.wal().seal(id, row.digest)?;
        }
    }
    let (position, history) = {
        let m = engine.0.memtable.read();
        (m.position.clone(), m.history.as_ref().clone())
    };
    let replayed = position.lsn.get() - at.get();
    drop(applier);
    close(engine)?;
    Ok(Reached {
        state: State { position, history },
        replayed,
        passed,
    })
}

/// Closes LMDB so that the folder can be opened again.
fn close(engine: crate::Engine) -> Result<(), StartError> {
    let store = engine.0.store.clone();
    engine.shut_down()?;
    store.close();
    Ok(())
}

fn note_reached(reached: &Reached, target: Target, notes: &mut Vec<Note>) {
    let p = &reached.state.position;
    let short = !reached.passed
        && match target {
            Target::Latest | Target::Immediate => false,
            Target::Lsn(n) => p.lsn < n,
            Target::BeforeLsn(n) => p.lsn.next() < n,
            Target::Time(t) | Target::BeforeTime(t) => p.stamp < t,
        };
    if short {
        let text = format!(
            "the log ends before the target: reached LSN {} ({}), asked for {target}; segments after that are missing",
            p.lsn, p.stamp
        );
        tracing::error!("{text}");
        notes.push(Note {
            field: "recovery",
            value: "short".to_owned(),
            text,
            degraded: true,
        });
    } else {
        let text = format!("restored to LSN {} ({})", p.lsn, p.stamp);
        notes.push(Note {
            field: "recovery",
            value: "restored".to_owned(),
            text,
            degraded: false,
        });
    }
}

/// Ends the old log at the fork and begins the new lineage behind it.
fn begin_lineage(
    ground: &Ground<'_>,
    found: &Findings,
    restoring: &Restoring,
    reached: &Reached,
    target: Target,
) -> Result<(), StartError> {
    let disk = ground.disk();
    let p = &reached.state.position;
    let (segment, chain, chain_lsn) = end_at_fork(ground, restoring, reached)?;
    let history = &reached.state.history;
    let mut ancestors = vec![Ancestor {
        lineage: p.lineage,
        fork: p.lsn,
    }];
    ancestors.extend(history.ancestors.iter().copied());
    if ancestors.len() > limits::ANCESTORS {
        return Err(StartError::Refused(format!(
            "this history has {} restores behind it, the most that is supported: begin a new namespace from an export",
            limits::ANCESTORS
        )));
    }
    let record = LineageRecord {
        cluster: p.cluster,
        namespace: p.namespace.clone(),
        lineage: restoring.lineage,
        parent: Some(Parent {
            lineage: p.lineage,
            fork: p.lsn,
            term: p.term,
            stamp: p.stamp,
            digest: p.digest,
            segment,
            chain,
            chain_lsn,
        }),
        ancestors,
        first_segment: restoring.first_segment,
        segment_size: ground.request.segment_size,
        members: vec![restoring.raft_id],
        reason: LineageReason::Restored(target),
    };
    let old_vote = match found.raft {
        raft_state::Found::Valid(state) => state.term,
        _ => p.term,
    };
    let term = p.term.max(old_vote).next();
    files::raise_ids(
        disk,
        &ground.places.home,
        restoring.first_segment.block_end(),
    )?;
    ground.vote(restoring.raft_id, term)?;
    unisondb_wal::begin(
        ground.platform,
        &ground.places.wal,
        &record,
        term,
        restoring.stamp,
    )?;
    Ok(())
}

/// Cuts the log at the fork. Gives the segment that holds it, the chain there, and the LSN that
/// the chain covers.
fn end_at_fork(
    ground: &Ground<'_>,
    restoring: &Restoring,
    reached: &Reached,
) -> Result<(SegmentId, Chain, Lsn), StartError> {
    let p = &reached.state.position;
    let dir = &ground.places.wal;
    let mut end = (p.segment, p.chain, p.chain_lsn);
    // Afresh: opening the log has rewritten what was not sealed.
    let mut segments = Vec::new();
    for surveyed in unisondb_wal::survey(ground.disk(), dir)?.segments {
        let (id, path) = (surveyed.id, surveyed.path);
        match surveyed.found {
            Ok(info) if info.header.lineage == restoring.lineage => {}
            Ok(info) => segments.push((info, path)),
            Err(source) => {
                let damaged = unisondb_wal::Error::Damaged {
                    segment: id,
                    path,
                    source,
                };
                return Err(StartError::Engine(damaged.into()));
            }
        }
    }
    let beyond = segments
        .iter()
        .rev()
        .filter(|(info, _)| info.header.first_lsn > p.lsn);
    ground.move_out(
        beyond.map(|(info, _)| Leaving::aside(info.header.lineage, &info.id.file_name())),
    )?;
    for (info, path) in segments {
        let id = info.id;
        if info.header.first_lsn > p.lsn {
            continue;
        }
        let holds = info.last_lsn.is_some_and(|last| last >= p.lsn) && id == p.segment;
        if !holds {
            continue;
        }
        let chain = if info.state == SegmentState::Sealed && info.last_lsn == Some(p.lsn) {
            info.chain
        } else if info.state == SegmentState::Sealed {
            let at = unisondb_wal::chain_at(ground.disk(), &path, p.lsn);
            Some(at.map(|a| a.chain).map_err(|source| {
                StartError::Engine(
                    unisondb_wal::Error::Damaged {
                        segment: id,
                        path,
                        source,
                    }
                    .into(),
                )
            })?)
        } else {
            let by = restoring.lineage;
            // What lies behind the fork is in no other file.
            if info.last_lsn > Some(p.lsn) {
                ground.copy_aside(info.header.lineage, &id.file_name())?;
            }
            unisondb_wal::cut(ground.platform, dir, id, p.lsn, p.digest, by)?.chain
        };
        if let Some(chain) = chain {
            end = (id, chain, p.lsn);
        }
    }
    Ok(end)
}

/// Serves the state up to a hole, without touching what is there: in a copy, thrown away and made
/// again at each start.
pub(super) fn read_only(
    ground: &Ground<'_>,
    found: &Findings,
    plan: &Plan,
    mut notes: Vec<Note>,
) -> Result<Opened, StartError> {
    let disk = ground.disk();
    let home = ground.places.home.join(".read-only");
    disk.remove_all(&home)
        .map_err(|e| StartError::io(&home, e))?;
    let places = files::Places::of(&home);
    for folder in [&places.db, &places.wal] {
        disk.create_folders(folder)
            .map_err(|e| StartError::io(folder, e))?;
    }
    copy_file(disk, &ground.places.data, &places.data)?;
    // One of our own stays that, also after a failed write: behind its last page may lie what a
    // foreign file must not have.
    for (from, to) in [
        (&ground.places.owner, &places.owner),
        (&ground.places.failed_owner, &places.failed_owner),
    ] {
        if disk.exists(from).map_err(|e| StartError::io(from, e))? {
            copy_file(disk, from, to)?;
        }
    }
    // What leads from the state to the hole: the ids between, without a break.
    let at = found.stands_at();
    let mut next = at.next();
    for (id, segment) in &found.segments {
        let info = &segment.info;
        if plan.keep.contains(id) || info.last_lsn.is_none_or(|last| last < next) {
            continue;
        }
        if info.header.first_lsn > next {
            break;
        }
        let name = id.file_name();
        copy_file(
            disk,
            &ground.places.wal.join(&name),
            &places.wal.join(&name),
        )?;
        next = info.last_lsn.unwrap_or(next).next();
    }
    let folders = Folders {
        namespace: ground.folders.namespace.clone(),
        home,
        backups: ground.folders.backups.clone(),
    };
    let request = Request {
        on_gap: OnGap::Refuse,
        target: None,
        ..ground.request.clone()
    };
    let mut opened = super::open(ground.platform, &folders, &request)?;
    let text = notes
        .iter()
        .find(|n| n.field == "gap")
        .map_or_else(|| "segments are missing".to_owned(), |n| n.text.clone());
    notes.append(&mut opened.notes);
    opened.notes = notes;
    opened.engine.0.read_only.get_or_init(|| text.clone());
    opened.read_only = Some(text);
    Ok(opened)
}
