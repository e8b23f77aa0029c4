//! The decision table (D21), as a pure function of what was found and what is asked for.

use std::fmt;

use unisondb_types::{Lsn, Namespace, SegmentId, Target};
use unisondb_wal::raft_state;

use super::files::Restoring;
use super::findings::{Db, Findings};
use super::path::{Path, path, to_target};
use super::{Folders, Note, OnGap, Request, StartError};

/// What a start will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The namespace.
    pub namespace: Namespace,
    /// What is done.
    pub action: Action,
    /// The segments that lead from the state onwards (and those before it that stay), by id.
    pub keep: Vec<SegmentId>,
    /// Segments that do not belong to this history: moved to `wal.lineage-ID/`.
    pub aside: Vec<SegmentId>,
    /// Files of segments below those, too damaged to say what they are: moved to `wal.damaged/`.
    pub damaged: Vec<SegmentId>,
    /// Whether a restore that was under way is given up for this one.
    pub gives_up: bool,
    /// What an operator should know.
    pub notes: Vec<Note>,
}

impl Plan {
    /// Whether this goes on with a restore that was under way.
    pub(super) fn resumes(&self, found: &Findings) -> bool {
        found.restoring.is_some() && !self.gives_up
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a new namespace.
    Create,
    /// Replay what LMDB does not have yet.
    GoOn,
    /// Make LMDB's file again from the whole log.
    Rebuild,
    /// Take the snapshot as the state and go on in the same lineage.
    Adopt,
    /// Take over the state and the log that another member of the group gave.
    Install,
    /// Replay to the target and begin a new lineage.
    Restore(Target),
    /// A restore had begun its lineage: tidy up and go on.
    FinishRestore,
    /// Serve the state up to a hole in the log, read-only.
    ReadOnly,
}

impl Plan {
    /// Whether it takes up a state that was copied here and stays in the lineage that this was made
    /// in: nothing in the state or the log will tell afterwards that there was a restore.
    pub fn stays_in_its_lineage(&self) -> bool {
        matches!(self.action, Action::Adopt | Action::ReadOnly)
    }

    /// Whether it goes on from what this node itself left, or made new: nothing was put here by hand.
    pub fn goes_on(&self) -> bool {
        matches!(
            self.action,
            Action::Create | Action::GoOn | Action::Rebuild | Action::Install
        )
    }

    /// Whether it makes a new namespace.
    pub fn is_new(&self) -> bool {
        self.action == Action::Create
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Create => "make a new namespace",
            Action::GoOn => "go on",
            Action::Rebuild => "make the state again from the whole log",
            Action::Adopt => "take the snapshot as the state and go on in the same lineage",
            Action::Install => "take over the state that another member of the group gave",
            Action::Restore(target) => return write!(f, "restore to {target}"),
            Action::FinishRestore => "finish the restore that was under way",
            Action::ReadOnly => "serve the state up to a hole in the log, read-only",
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.namespace, self.action)?;
        if let (Some(first), Some(last)) = (self.keep.first(), self.keep.last()) {
            write!(f, ", segments {first} to {last}")?;
        }
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

fn note(field: &'static str, value: impl Into<String>, text: String, degraded: bool) -> Note {
    Note {
        field,
        value: value.into(),
        text,
        degraded,
    }
}

/// Decides.
///
/// # Errors
/// [`StartError`] where the table refuses: each with the reason and the ways out.
pub(super) fn decide(
    found: &Findings,
    folders: &Folders,
    request: &Request,
) -> Result<Plan, StartError> {
    let mut notes = Vec::new();
    for stranger in &found.strangers {
        notes.push(note(
            "ignored",
            stranger.clone(),
            format!("in wal/, ignored: {stranger}"),
            false,
        ));
    }
    let namespace = named(found, folders)?;
    let (target, on_gap) = wanted(found, request)?;
    let has_vote = !matches!(found.raft, raft_state::Found::Missing);
    let restored_to = match &found.restoring {
        Some(restoring) if goes_on(found, restoring, target) => Some(restoring.target.into()),
        // A directory of our own ignores a target: all of its log counts.
        _ if found.installing => None,
        _ => target.filter(|_| !has_vote || matches!(found.db, Db::Image { .. })),
    };
    let path = match restored_to {
        Some(target) => to_target(found, &namespace, target)?,
        None => path(found, &namespace)?,
    };
    for id in &path.foreign {
        let h = &found.segments[id].info.header;
        let text = format!(
            "segment file {} belongs to namespace {} of cluster {}: set aside",
            id.file_name(),
            h.namespace,
            h.cluster
        );
        notes.push(note("set-aside", id.to_string(), text, false));
    }
    if let Db::Image {
        cut_to: None,
        state,
    } = &found.db
    {
        let text = format!(
            "{} has no trailer, so it is no whole snapshot of this release's making: all of its pages and entries, up to LSN {}, were read and checked instead",
            found.places.data.display(),
            state.position.lsn
        );
        notes.push(note("verified", "full-scan", text, false));
    }
    if let Db::Failed(state) = &found.db {
        let text = format!(
            "a write to {} had failed: all of its entries, up to LSN {}, were checked and written afresh; what the log has behind them is replayed. Look at the disk",
            found.places.data.display(),
            state.position.lsn
        );
        notes.push(note("recovery", "rewritten", text, false));
    }
    let mut plan = Plan {
        namespace,
        action: Action::GoOn,
        keep: path.keep.clone(),
        aside: path.aside.clone(),
        damaged: path.damaged_below(found),
        gives_up: false,
        notes,
    };
    for id in &plan.damaged {
        let text = format!(
            "{}; it and what lies before it cannot be backed up any more: moved aside. Way out: put a backup of it and of the segments before it back into wal/, then restart",
            found.bad[id]
        );
        plan.notes.push(note("damaged", id.to_string(), text, true));
    }
    for id in &path.unsealed_below {
        let text = format!(
            "{} is cut or damaged at its end; nothing in it is needed: moved aside. It and what lies before it cannot be backed up any more. Way out: put a backup of it and of the segments before it back into wal/, then restart",
            id.file_name()
        );
        plan.notes.push(note("damaged", id.to_string(), text, true));
        plan.damaged.push(*id);
    }
    if let Some((from, to)) = path.hole_behind {
        let text = format!(
            "{} missing behind the target: nothing that is needed; what lies behind is set aside",
            from.to_last(to)
        );
        plan.notes
            .push(note("set-aside", format!("{from}-{to}"), text, false));
    }
    if let Some((from, to)) = path.hole_below {
        let text = format!(
            "{} missing from wal/: nothing that the state needs, but that and what lies before cannot be backed up any more; it is moved aside",
            from.to_last(to)
        );
        plan.notes
            .push(note("gap", format!("{from}-{to}"), text, true));
    }

    if found.installing {
        // It was verified against this member's own history before it was put aside.
        plan.action = Action::Install;
        plan.aside.clear();
        plan.damaged.clear();
        return Ok(plan);
    }
    let begun = |lineage| {
        found
            .segments
            .values()
            .any(|s| s.info.header.lineage == lineage)
    };
    let mut under_way = false;
    if let Some(restoring) = &found.restoring {
        if begun(restoring.lineage) {
            plan.action = Action::FinishRestore;
            // What the restore set aside is aside; all that is left continues one history.
            plan.aside.clear();
            plan.damaged.clear();
            return Ok(plan);
        }
        under_way = true;
        if goes_on(found, restoring, target) {
            if restoring.without_log {
                plan.keep.clear();
                plan.aside = found.segments.keys().copied().collect();
            } else {
                path.whole(found)?;
            }
            plan.action = Action::Restore(restoring.target.into());
            return Ok(plan);
        }
        let text = format!(
            "a restore to {} was under way; it is given up for this one",
            Target::from(restoring.target)
        );
        plan.notes.push(note("recovery", "restarted", text, false));
        plan.gives_up = true;
    }
    let has_vote = has_vote && !under_way;

    match &found.db {
        Db::Missing | Db::Blank if found.segments.is_empty() && found.bad.is_empty() => {
            if found.ids.is_some() {
                return Err(StartError::Refused(format!(
                    "{} has neither a state nor a log, but `ids` shows that it had: it was emptied. Ways out: copy a snapshot to {}, or `udbctl restore`, or remove the folder to begin anew",
                    found.places.home.display(),
                    found.places.data.display()
                )));
            }
            if request.create.is_none() {
                return Err(StartError::Nothing(found.places.home.clone()));
            }
            plan.action = Action::Create;
        }
        Db::Missing | Db::Blank => {
            // A hole between segments is a gap; a log that begins late lacks the state before it.
            let first = path
                .keep
                .first()
                .map(|id| found.segments[id].info.header.first_lsn);
            let late = path.keep.first() == found.segments.keys().next();
            if first != Some(Lsn::FIRST) && (late || path.keep.is_empty()) {
                let below = path
                    .keep
                    .first()
                    .copied()
                    .unwrap_or(SegmentId::new(u64::MAX));
                return Err(without_state(found, first, below));
            }
            path.whole(found)?;
            plan.action = if has_vote {
                ignored(&mut plan.notes, target);
                Action::Rebuild
            } else {
                Action::Restore(target.unwrap_or(Target::Latest))
            };
        }
        Db::Live(state) | Db::Failed(state) if has_vote => {
            path.reaches(found, state.position.lsn)?;
            ignored(&mut plan.notes, target);
        }
        Db::Live(_) | Db::Failed(_) | Db::Image { .. } => {
            restored(found, &path, target, on_gap, has_vote, &mut plan)?;
        }
    }
    Ok(plan)
}

/// There is no state, and no log that begins with LSN 1: what can be read of it begins with `first`, and
/// what cannot may lie below the segment `below`.
fn without_state(found: &Findings, first: Option<Lsn>, below: SegmentId) -> StartError {
    let wal = found.places.wal.display();
    let mut why = match first {
        Some(first) => format!("it is missing, and the log in {wal} begins at LSN {first}, not 1"),
        None => format!("it is missing, and no record of the log in {wal} can be read"),
    };
    let damaged: Vec<String> = found
        .bad
        .range(..below)
        .map(|(_, d)| d.to_string())
        .collect();
    for damage in &damaged {
        why += &format!("; {damage}");
    }
    StartError::Corrupted {
        path: found.places.data.clone(),
        why,
        rebuild: match damaged.is_empty() {
            true => "",
            false => {
                ", or, if wal/ has all segments from LSN 1 on, put good copies of the damaged ones in their places"
            }
        },
    }
}

/// A state of another origin, or one beside which the vote is missing.
fn restored(
    found: &Findings,
    path: &Path,
    target: Option<Target>,
    on_gap: OnGap,
    has_vote: bool,
    plan: &mut Plan,
) -> Result<(), StartError> {
    let state = found.db.state().expect("called with a state");
    let at = state.position.lsn;
    let beyond = match target {
        Some(Target::Lsn(n)) => at > n,
        Some(Target::BeforeLsn(n)) => at >= n,
        Some(Target::Time(t)) => state.position.stamp > t,
        Some(Target::BeforeTime(t)) => state.position.stamp >= t,
        Some(Target::Latest | Target::Immediate) | None => false,
    };
    if beyond {
        return Err(StartError::Refused(format!(
            "the state stands at LSN {at} ({}), which is beyond the target ({}): use an earlier snapshot",
            state.position.stamp,
            target.expect("beyond a target")
        )));
    }
    match path.whole(found) {
        Ok(()) => {}
        Err(StartError::Gap { from, to, .. }) if on_gap == OnGap::SetAside => {
            plan.keep.clear();
            plan.aside = found.segments.keys().copied().collect();
            let text = format!(
                "{} missing behind LSN {at}: the log is set aside, the state goes on from LSN {at}",
                from.to_last(to)
            );
            plan.notes
                .push(note("gap", format!("{from}-{to}"), text, true));
        }
        Err(StartError::Gap { from, to, .. }) if on_gap == OnGap::ReadOnly => {
            plan.action = Action::ReadOnly;
            let text = format!(
                "{} missing: the state up to the hole is served, read-only, and nothing was changed",
                from.to_last(to)
            );
            plan.notes
                .push(note("gap", format!("{from}-{to}"), text, true));
            return Ok(());
        }
        Err(e) => return Err(e),
    }
    if !has_vote || path.to_target {
        // A copy that was cut short: the log ends before it, and says so.
        let last = plan.keep.last().copied().unwrap_or(SegmentId::ZERO);
        for (id, damaged) in found.bad.range(last.next()..) {
            let text = format!("{damaged}: it is moved aside, the log ends before it");
            plan.notes.push(note("damaged", id.to_string(), text, true));
            plan.damaged.push(*id);
        }
    }
    if !plan.aside.is_empty() && plan.keep.is_empty() {
        let text = format!(
            "the {} segments in wal/ do not continue the state at LSN {at} of lineage {}: set aside",
            plan.aside.len(),
            state.position.lineage
        );
        plan.notes
            .push(note("set-aside", plan.aside.len().to_string(), text, false));
    }
    // The log is the one that this node was writing, and continues the state: nothing was lost.
    let newest = path.newest(found);
    let live = newest.is_some_and(|s| plan.keep.last() == Some(&s.info.id));
    plan.action = if has_vote && live && target.is_none() {
        Action::Adopt
    } else {
        Action::Restore(target.unwrap_or(Target::Latest))
    };
    Ok(())
}

/// Whether a restore that was under way is the one that is wanted: to the same target (or none
/// was named), from the state that it began with.
fn goes_on(found: &Findings, restoring: &Restoring, target: Option<Target>) -> bool {
    let same_target = target.is_none_or(|t| t == Target::from(restoring.target));
    let same_base = match &found.db {
        // It has been adopted: what lies there now is as far as the replay came.
        Db::Live(_) | Db::Failed(_) | Db::Missing | Db::Blank => true,
        Db::Image { state, .. } => {
            restoring.base == Some((state.position.lineage, state.position.lsn))
        }
    };
    same_target && same_base
}

fn ignored(notes: &mut Vec<Note>, target: Option<Target>) {
    if let Some(target) = target {
        let text = format!(
            "the recovery target ({target}) is ignored: this folder is not a restored one. To go back, stop, replace db/ by a snapshot and start with the target again"
        );
        notes.push(note("ignored", "recovery-target", text, false));
    }
}

/// Flags win over `recovery.toml`.
fn wanted(found: &Findings, request: &Request) -> Result<(Option<Target>, OnGap), StartError> {
    let file = found.recovery.clone().unwrap_or_default();
    let in_file = file
        .target()
        .map_err(|e| StartError::Refused(format!("{}: {e}", found.places.recovery.display())))?;
    let on_gap = match request.on_gap {
        OnGap::Refuse => file.on_gap.unwrap_or_default(),
        asked => asked,
    };
    Ok((request.target.or(in_file), on_gap))
}

fn named(found: &Findings, folders: &Folders) -> Result<Namespace, StartError> {
    let in_state = found.db.state().map(|s| &s.position.namespace);
    match (&folders.namespace, in_state) {
        (Some(folder), Some(state)) if folder != state => Err(StartError::Refused(format!(
            "{} is the state of namespace {state}, not of {folder}: it lies in the wrong folder",
            found.places.data.display()
        ))),
        (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
        (None, None) => match (found.segments.values().next(), found.bad.values().next()) {
            (Some(segment), _) => Ok(segment.info.header.namespace.clone()),
            (None, Some(damaged)) => Err(StartError::DamagedSegment {
                damage: damaged.to_string(),
                why: "No other segment is here, and no state",
            }),
            (None, None) => Err(StartError::Nothing(found.places.home.clone())),
        },
    }
}
