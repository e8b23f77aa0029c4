//! Carrying a [`Plan`] out: what it needs is put together in `D/N.partial`, opened there by the
//! very code of a server's start, which replays to the target and begins the new lineage, and then
//! renamed to `D/N`.
//!
//! What holds, killed at any instruction: `D/N` is what it was, or complete. A leftover `N.partial`
//! is thrown away by the next run. A namespace that is replaced is exchanged in one step:
//!
//! ```text
//! D/N.partial --rename--> D/trash/N.TIME <==exchange==> D/N
//! ```
//!
//! First into `trash/`, so that the one name there is right whichever of the two lies under it: after
//! a kill it is the new state, unused, before the exchange, and the old one behind it.
//! A file system that exchanges nothing gets two renames, out to `trash/` and in: between them `D/N`
//! is absent. `N.restore` names the first one there; the next run takes it back if the second did not
//! happen, and no server starts before that. Nothing is ever deleted that was not made here.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use unisondb_platform::{Disk, DiskExt, EntryKind, Lock, Platform, is_denied};
use unisondb_store::DATA_FILE;
use unisondb_types::{Digest, LineageId, Lsn, SegmentId, Stamp, Target};

use super::copying::{copy_base, copy_segments};
use super::plan::{Plan, Step};
use super::{Existing, Progress, Request, RestoreError, Watch, at};
use crate::start;

/// A namespace that was restored.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Its folder.
    pub home: PathBuf,
    /// The last record restored.
    pub lsn: Lsn,
    /// Its time.
    pub time: Stamp,
    /// The state's digest after that record.
    pub digest: Digest,
    /// The lineage that begins behind it.
    pub lineage: LineageId,
    /// That lineage's first segment.
    pub first_segment: SegmentId,
    /// Where the namespace lies that was there before.
    pub moved_to: Option<PathBuf>,
}

/// Where a restore puts things.
struct Places {
    data: PathBuf,
    home: PathBuf,
    partial: PathBuf,
    /// Names the folder in `trash/` while two renames are under way, for want of an exchange.
    swap: PathBuf,
    trash: PathBuf,
    backups: PathBuf,
}

impl Places {
    fn of(request: &Request) -> Places {
        let (data, name) = (&request.data_dir, request.namespace.as_str());
        // A dot is legal in no namespace, so these are nobody's folders.
        Places {
            home: data.join(name),
            partial: data.join(format!("{name}.partial")),
            swap: data.join(format!("{name}.restore")),
            trash: data.join("trash"),
            backups: data.join("backups").join(name),
            data: data.clone(),
        }
    }
}

/// Whether the namespace may be restored here at all; also asked before a long plan is made.
/// Changes nothing. Gives the data directory's lock, if it has a lock file.
///
/// # Errors
/// [`RestoreError::Running`], [`RestoreError::Exists`], [`RestoreError::Flat`]; as a start, on a
/// network file system.
pub fn admit(disk: &dyn Disk, request: &Request) -> Result<Option<Box<dyn Lock>>, RestoreError> {
    let places = Places::of(request);
    start::volume::check(disk, &places.data)?;
    start::volume::check(disk, &places.home)?;
    let lock_file = places.data.join("LOCK");
    let lock = match exists(disk, &lock_file)? {
        true => Some(lock(disk, &places)?),
        false => None,
    };
    let flat = places.data.join("db").join(DATA_FILE);
    if exists(disk, &flat)? {
        return Err(RestoreError::Flat(places.data));
    }
    // A namespace that an interrupted run has moved away counts: it will be taken back first.
    let there = exists(disk, &places.swap)? || !is_empty(disk, &places.home)?;
    if there && request.existing == Existing::Refuse {
        return Err(RestoreError::Exists(places.home));
    }
    Ok(lock)
}

fn lock(disk: &dyn Disk, places: &Places) -> Result<Box<dyn Lock>, RestoreError> {
    let path = places.data.join("LOCK");
    disk.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => RestoreError::Running(places.data.clone()),
        // The folder is what to change: on a volume mounted read-only, or where LOCK cannot be made.
        _ if is_denied(&source)
            && (source.kind() == io::ErrorKind::ReadOnlyFilesystem
                || !matches!(disk.exists(&path), Ok(true))) =>
        {
            at(&places.data)(source)
        }
        _ => RestoreError::Io { path, source },
    })
}

/// Carries `plan` out. Blocks for as long as copying and replay take.
///
/// # Errors
/// [`RestoreError`]; the namespace is then as it was.
pub fn run(
    platform: &Platform,
    request: &Request,
    plan: &Plan,
    watch: Watch<'_>,
) -> Result<Restored, RestoreError> {
    let disk = platform.disk.as_ref();
    if let Some(problem) = &plan.problem {
        return Err(RestoreError::Plan(problem.clone()));
    }
    let places = Places::of(request);
    let held = admit(disk, request)?;
    disk.create_folders(&places.data)
        .map_err(at(&places.data))?;
    let _lock = match held {
        Some(lock) => lock,
        None => lock(disk, &places)?,
    };
    take_back(disk, &places)?;
    room(disk, &places, plan)?;
    let made = make(platform, request, &places, plan, watch);
    if made.is_err() {
        // Best effort: what stays is thrown away by the next run.
        drop(disk.remove_all(&places.partial));
    }
    let mut restored = made?;
    restored.moved_to = put_in_place(disk, &places, platform.clock.now())?;
    Ok(restored)
}

/// An interrupted run had moved the namespace away and nothing into its place, on a file system that
/// exchanges nothing: it comes back.
fn take_back(disk: &dyn Disk, places: &Places) -> Result<(), RestoreError> {
    let name = match disk.read(&places.swap, 4 << 10) {
        Ok(name) => String::from_utf8_lossy(&name).into_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at(&places.swap)(e)),
    };
    let moved = places.trash.join(name.trim_end());
    if is_empty(disk, &places.home)? && exists(disk, &moved)? {
        rename(disk, &moved, &places.home)?;
        disk.sync_folder(&places.data).map_err(at(&places.data))?;
    }
    disk.remove_file(&places.swap).map_err(at(&places.swap))
}

fn room(disk: &dyn Disk, places: &Places, plan: &Plan) -> Result<(), RestoreError> {
    let wanted = total(plan);
    let available = disk
        .space(&places.data)
        .map_err(at(&places.data))?
        .available;
    if available < wanted {
        let path = places.data.clone();
        return Err(RestoreError::NoSpace {
            path,
            wanted,
            available,
        });
    }
    Ok(())
}

fn total(plan: &Plan) -> u64 {
    let base = plan.base.as_ref().map_or(0, |b| b.bytes);
    base + plan.segments.iter().map(|s| s.bytes).sum::<u64>()
}

/// Where replay stops. A time lies between two records, and where the next one is of another lineage,
/// forked in the middle of a sealed segment, that lineage is not copied: only the LSN still tells.
fn exactly(plan: &Plan) -> Target {
    match (plan.target, plan.reached) {
        (Target::Time(_) | Target::BeforeTime(_), Some(reached)) => Target::Lsn(reached.lsn),
        (other, _) => other,
    }
}

/// Builds the whole namespace in `N.partial`.
fn make(
    platform: &Platform,
    request: &Request,
    places: &Places,
    plan: &Plan,
    watch: Watch<'_>,
) -> Result<Restored, RestoreError> {
    let disk = platform.disk.as_ref();
    let partial = &places.partial;
    disk.remove_all(partial).map_err(at(partial))?;
    let (db, wal) = (partial.join("db"), partial.join("wal"));
    for folder in [partial, &db, &wal] {
        disk.create_folder(folder).map_err(at(folder))?;
    }
    watch(Progress::Begin("copying", total(plan)));
    if let Some(snapshot) = &plan.snapshot {
        copy_base(disk, snapshot, &db.join(DATA_FILE), watch)?;
    }
    copy_segments(disk, &plan.segments, &wal, watch)?;
    for folder in [&db, &wal, partial] {
        disk.sync_folder(folder).map_err(at(folder))?;
    }
    cut_ancestors(platform, &plan.segments, &wal)?;
    keep_ids(disk, places)?;

    watch(Progress::Begin("replaying", plan.records));
    let raised = request
        .first_segment
        .map(|id| SegmentId::new(id.get().saturating_sub(1)));
    let known = highest_name(disk, &places.home)?.max(highest_in_trash(disk, places, request)?);
    let opened = start::open(
        platform,
        &start::Folders {
            namespace: Some(request.namespace.clone()),
            home: partial.clone(),
            backups: places.backups.clone(),
        },
        &start::Request {
            target: Some(exactly(plan)),
            ids_above: Some(plan.newest_segment.max(known)).max(raised),
            ..start::Request::default()
        },
    )?;
    let start::Opened {
        engine, applier, ..
    } = opened;
    let history = engine.history();
    let end = history.parent.clone();
    engine.flush()?;
    engine.shut_down()?;
    drop(applier);
    watch(Progress::Done(plan.records));

    let planned = plan.reached.map_or(Lsn::ZERO, |p| p.lsn);
    let found = end.as_ref().map_or(Lsn::ZERO, |p| p.fork);
    let (Some(end), true) = (end, planned == found) else {
        return Err(RestoreError::OtherEnd { planned, found });
    };
    disk.sync_folder(partial).map_err(at(partial))?;
    Ok(Restored {
        home: places.home.clone(),
        lsn: end.fork,
        time: end.stamp,
        digest: end.digest,
        lineage: history.lineage,
        first_segment: history.first_segment,
        moved_to: None,
    })
}

/// The exchange; a rename where nothing is replaced.
fn put_in_place(
    disk: &dyn Disk,
    places: &Places,
    now: Stamp,
) -> Result<Option<PathBuf>, RestoreError> {
    let sync = |folder: &Path| disk.sync_folder(folder).map_err(at(folder));
    let home = &places.home;
    if is_empty(disk, home)? {
        if exists(disk, home)? {
            disk.remove_folder(home).map_err(at(home))?;
        }
        rename(disk, &places.partial, home)?;
        sync(&places.data)?;
        return Ok(None);
    }
    disk.create_folders(&places.trash)
        .map_err(at(&places.trash))?;
    let name = free_name(disk, places, now)?;
    let moved = places.trash.join(&name);
    rename(disk, &places.partial, &moved)?;
    match disk.exchange(&moved, home) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            rename(disk, &moved, &places.partial)?;
            swap_by_renames(disk, places, &name)?;
        }
        Err(e) => return Err(at(home)(e)),
    }
    sync(&places.trash)?;
    sync(&places.data)?;
    Ok(Some(moved))
}

/// Out to `trash/NAME` and in, each durable before the next.
fn swap_by_renames(disk: &dyn Disk, places: &Places, name: &str) -> Result<(), RestoreError> {
    let sync = |folder: &Path| disk.sync_folder(folder).map_err(at(folder));
    disk.publish(&places.swap, name.as_bytes())
        .map_err(at(&places.swap))?;
    rename(disk, &places.home, &places.trash.join(name))?;
    sync(&places.trash)?;
    rename(disk, &places.partial, &places.home)?;
    sync(&places.data)?;
    disk.remove_file(&places.swap).map_err(at(&places.swap))
}

/// As the server names what it deletes. A dot is in no namespace's name.
fn free_name(disk: &dyn Disk, places: &Places, now: Stamp) -> Result<String, RestoreError> {
    let home = places
        .home
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let mut micros = now.micros();
    loop {
        let name = format!("{home}.{micros}");
        if !exists(disk, &places.trash.join(&name))? {
            return Ok(name);
        }
        micros += 1;
    }
}

/// A fork inside a segment that was never sealed: it ends there for good (its digest stands in the
/// record of the lineage that was begun).
fn cut_ancestors(platform: &Platform, steps: &[Step], wal: &Path) -> Result<(), RestoreError> {
    for pair in steps.windows(2) {
        let [before, next] = pair else { continue };
        let parent = next.record.as_ref().and_then(|r| r.parent.as_ref());
        if before.sealed || before.lineage == next.lineage {
            continue;
        }
        if let Some(parent) = parent {
            let (segment, by) = (before.segment, next.lineage);
            unisondb_wal::cut(platform, wal, segment, parent.fork, parent.digest, by)?;
        }
    }
    Ok(())
}

/// `ids` goes on: the ids that the replaced namespace ever used are known to the new one (P12).
fn keep_ids(disk: &dyn Disk, places: &Places) -> Result<(), RestoreError> {
    let (old, new) = (places.home.join("ids"), places.partial.join("ids"));
    match disk.read(&old, 64 << 10) {
        Ok(bytes) => disk.publish(&new, &bytes).map_err(at(&new)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at(&old)(e)),
    }
}

/// The highest segment id among the names in `wal/` and what was set aside beside it.
fn highest_name(disk: &dyn Disk, home: &Path) -> Result<SegmentId, RestoreError> {
    let mut highest = SegmentId::ZERO;
    for folder in list(disk, home)? {
        if folder.starts_with("wal") {
            let names = list(disk, &home.join(folder))?;
            let ids = names.iter().filter_map(|n| SegmentId::parse_file_name(n));
            highest = highest.max(ids.max().unwrap_or(SegmentId::ZERO));
        }
    }
    Ok(highest)
}

fn highest_in_trash(
    disk: &dyn Disk,
    places: &Places,
    request: &Request,
) -> Result<SegmentId, RestoreError> {
    let mut highest = SegmentId::ZERO;
    let prefix = format!("{}.", request.namespace);
    for name in list(disk, &places.trash)? {
        if name.starts_with(&prefix) {
            highest = highest.max(highest_name(disk, &places.trash.join(name))?);
        }
    }
    Ok(highest)
}

fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<String>, RestoreError> {
    match disk.list(folder) {
        Ok(entries) => Ok(entries.into_iter().map(|e| e.name).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(e) => Err(at(folder)(e)),
    }
}

fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), RestoreError> {
    disk.rename(from, to).map_err(at(to))
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, RestoreError> {
    disk.exists(path).map_err(at(path))
}

/// Whether nothing is there, or a folder with nothing in it.
fn is_empty(disk: &dyn Disk, path: &Path) -> Result<bool, RestoreError> {
    match disk.meta(path) {
        Ok(m) if m.kind == EntryKind::Folder => Ok(disk.list(path).map_err(at(path))?.is_empty()),
        Ok(_) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(at(path)(e)),
    }
}
