//! What lies in a namespace's folder, looked at and not touched: the state (never mapped before it
//! is known to be sound, D16), the segments, the vote, the small files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use unisondb_platform::{Access, Disk, DiskExt, EntryKind, File, FileExt, Platform};
use unisondb_store::image::{self, Image};
use unisondb_store::{Source, Trailer};
use unisondb_types::{
    Command, Digest, LineageId, LineageRecord, Lsn, SegmentId, Stamp, Target, codec,
};
use unisondb_wal::{SegmentError, SegmentInfo, SegmentReader, Surveyed, raft_state};

use super::files::{self, Places, RecoveryToml, Restoring};
use super::{Folders, Request, StartError, install};
use crate::state::entry;
use crate::state::position::{self, Position};
use crate::state::table;

/// How deep below the backup root segment files are looked for (their ids count, P12).
const BACKUP_DEPTH: usize = 6;

/// A file, for the reader of LMDB files.
pub(crate) struct FileSource(pub(crate) Arc<dyn File>);

impl Source for FileSource {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Where a state stands, and its history.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) position: Position,
    pub(crate) history: LineageRecord,
}

/// What `db/` holds.
#[derive(Debug, Clone)]
pub(super) enum Db {
    /// No `data.mdb`.
    Missing,
    /// A `data.mdb` in which nothing was ever flushed.
    Blank,
    /// The one that was made or adopted here.
    Live(State),
    /// That one, after a write or sync of it failed: verified whole, and still to be written afresh
    /// before it is mapped.
    Failed(State),
    /// One of another origin: a snapshot, or a copy. Verified whole.
    Image {
        /// What it holds.
        state: State,
        /// Length without the trailer, if there is one.
        cut_to: Option<u64>,
    },
}

impl Db {
    pub(super) fn state(&self) -> Option<&State> {
        match self {
            Db::Live(state) | Db::Failed(state) | Db::Image { state, .. } => Some(state),
            Db::Missing | Db::Blank => None,
        }
    }
}

/// A segment in `wal/` that can be read.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) file_name: String,
    pub(super) info: SegmentInfo,
    /// What stands behind its last whole record, if it is neither zeroes nor a footer: a write that a
    /// kill cut short, or damage.
    pub(super) torn: Option<String>,
}

/// All that was found.
pub(super) struct Findings {
    pub(super) places: Places,
    pub(super) db: Db,
    /// By id. Those that cannot be read are in `bad`.
    pub(super) segments: BTreeMap<SegmentId, Found>,
    pub(super) bad: BTreeMap<SegmentId, unisondb_wal::Error>,
    /// The records that lineages begin with, of those whose first segment is here.
    pub(super) lineages: BTreeMap<LineageId, LineageRecord>,
    /// When a restore to a time is asked for: stamps of the records at which other lineages left a lineage,
    /// as far as those records are here.
    pub(super) forks: BTreeMap<(LineageId, Lsn), Stamp>,
    pub(super) strangers: Vec<String>,
    pub(super) raft: raft_state::Found,
    /// What `ids` says: the highest segment id that may have been used.
    pub(super) ids: Option<SegmentId>,
    pub(super) restoring: Option<Restoring>,
    pub(super) recovery: Option<RecoveryToml>,
    /// Whether a snapshot of another member's is being taken over.
    pub(super) installing: bool,
}

/// Looks at everything.
pub(super) fn look(
    platform: &Platform,
    folders: &Folders,
    request: &Request,
) -> Result<Findings, StartError> {
    let disk = platform.disk.as_ref();
    let places = Places::of(&folders.home);
    let db = look_at_db(disk, &places)?;
    let ids = files::read_ids(disk, &places)?;
    let mut found = Findings {
        db,
        segments: BTreeMap::new(),
        bad: BTreeMap::new(),
        lineages: BTreeMap::new(),
        forks: BTreeMap::new(),
        strangers: Vec::new(),
        raft: raft_state::read(disk, &places.raft_state)?,
        ids,
        restoring: files::read_restoring(disk, &places)?,
        recovery: files::read_recovery(disk, &places)?,
        installing: install::is_wanted(disk, &places)?,
        places,
    };
    look_at_wal(disk, &mut found)?;
    if is_time_asked_for(&found, request) {
        found.forks = stamps_at_forks(disk, &found)?;
    }
    Ok(found)
}

/// Whether a restore to a time is asked for, by a flag, a file, or one that is under way.
fn is_time_asked_for(found: &Findings, request: &Request) -> bool {
    let in_file = found.recovery.as_ref().and_then(|r| r.target().ok()?);
    let under_way = found.restoring.as_ref().map(|r| Target::from(r.target));
    let mut targets = [request.target, in_file, under_way].into_iter().flatten();
    targets.any(|t| matches!(t, Target::Time(_) | Target::BeforeTime(_)))
}

/// The stamps of the records at forks, read where a segment goes on behind one. One that lies behind
/// damage is not known.
fn stamps_at_forks(
    disk: &dyn Disk,
    found: &Findings,
) -> Result<BTreeMap<(LineageId, Lsn), Stamp>, StartError> {
    let in_state = found.db.state().map(|s| &s.history);
    let histories = found.lineages.values().chain(in_state);
    let forks: BTreeSet<(LineageId, Lsn)> = histories
        .flat_map(|h| h.ancestors.iter().map(|a| (a.lineage, a.fork)))
        .collect();
    let mut stamps = BTreeMap::new();
    for (lineage, fork) in forks {
        let mut segments = found.segments.values();
        let holds = |s: &&Found| s.info.header.lineage == lineage && s.info.holds(fork);
        let Some(segment) = segments.find(holds) else {
            continue;
        };
        let stamp = match segment.info.last_lsn == Some(fork) {
            true => Some(segment.info.last_stamp),
            false => stamp_of(disk, &found.places.wal.join(&segment.file_name), fork)?,
        };
        stamps.extend(stamp.map(|stamp| ((lineage, fork), stamp)));
    }
    Ok(stamps)
}

/// The stamp of a record in a segment, unless damage lies before it.
fn stamp_of(disk: &dyn Disk, path: &Path, lsn: Lsn) -> Result<Option<Stamp>, StartError> {
    let read = || -> Result<Option<Stamp>, SegmentError> {
        let mut reader = SegmentReader::open(disk, path)?;
        while let Some(entry) = reader.next()? {
            if entry.record.lsn == lsn {
                return Ok(Some(entry.record.stamp));
            }
        }
        Ok(None)
    };
    match read() {
        Err(SegmentError::Io(e)) => Err(StartError::io(path, e)),
        found => Ok(found.unwrap_or_default()),
    }
}

fn look_at_wal(disk: &dyn Disk, found: &mut Findings) -> Result<(), StartError> {
    if !exists(disk, &found.places.wal)? {
        return Ok(());
    }
    let survey = unisondb_wal::survey(disk, &found.places.wal)?;
    let ours = ["raft.state", "next.tmp"];
    found.strangers = survey
        .strangers
        .into_iter()
        .filter(|s| !ours.contains(&s.name.as_str()))
        .map(|s| format!("{}: {}", s.name, s.why))
        .collect();
    for Surveyed {
        path,
        id,
        found: looked,
        torn,
        ..
    } in survey.segments
    {
        match looked {
            Err(SegmentError::Io(e)) => return Err(StartError::io(&path, e)),
            Err(source) => {
                found.bad.insert(
                    id,
                    unisondb_wal::Error::Damaged {
                        segment: id,
                        path,
                        source,
                    },
                );
            }
            Ok(info) => {
                let h = &info.header;
                let begins = h.predecessor.is_none_or(|p| p.lineage != h.lineage);
                if begins {
                    match first_lineage_record(disk, &path)? {
                        Ok(Some(record)) => {
                            found.lineages.insert(h.lineage, record);
                        }
                        Ok(None) => {}
                        // Without it nobody knows which history this lineage continues.
                        Err(source) => {
                            let damaged = unisondb_wal::Error::Damaged {
                                segment: id,
                                path,
                                source,
                            };
                            found.bad.insert(id, damaged);
                            continue;
                        }
                    }
                }
                let torn = torn.map(|source| {
                    let damage = unisondb_wal::Error::Damaged {
                        segment: id,
                        path,
                        source,
                    };
                    damage.to_string()
                });
                let file_name = id.file_name();
                let segment = Found {
                    file_name,
                    info,
                    torn,
                };
                found.segments.insert(id, segment);
            }
        }
    }
    Ok(())
}

/// The `Lineage` record that a segment begins with, if it begins with one; inside, what is wrong
/// with its first frame.
fn first_lineage_record(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Result<Option<LineageRecord>, SegmentError>, StartError> {
    let first = SegmentReader::open(disk, path).and_then(|mut reader| reader.next());
    match first {
        Ok(entry) => Ok(Ok(entry.and_then(|e| match e.record.command() {
            Ok(Command::Lineage(record)) => Some(*record),
            _ => None,
        }))),
        Err(SegmentError::Io(e)) => Err(StartError::io(path, e)),
        Err(damage) => Ok(Err(damage)),
    }
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, StartError> {
    disk.exists(path).map_err(|e| StartError::io(path, e))
}

fn look_at_db(disk: &dyn Disk, places: &Places) -> Result<Db, StartError> {
    // Looked at before it is opened: a named pipe would be waited for, without a word and for ever.
    match disk.meta(&places.data) {
        Ok(meta) if meta.kind != EntryKind::File => {
            return Err(corrupted(places, "it is not a regular file".to_owned()));
        }
        _ => {}
    }
    let file = match disk.open(&places.data, Access::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Db::Missing),
        Err(e) => return Err(StartError::io(&places.data, e)),
    };
    let source = FileSource(file);
    let wrong = |e: image::Error| match e {
        image::Error::Io(e) => StartError::io(&places.data, e),
        other => corrupted(places, other.to_string()),
    };
    let trailer = Trailer::find(&source).map_err(wrong)?;
    if let Some(trailer) = &trailer {
        trailer.verify(&source).map_err(wrong)?;
    }
    let image = Image::open(source).map_err(wrong)?;
    let owner = files::read_owner(disk, places)?;
    let kept_owner = meta_entry(&image, position::OWNER, places)?;
    let says_ours =
        |owner: &Option<Vec<u8>>| trailer.is_none() && owner.is_some() && *owner == kept_owner;
    let ours = says_ours(&owner);
    let failed_owner = files::read_failed_owner(disk, places)?;
    let failed = !ours && says_ours(&failed_owner);
    let unproven = !ours && trailer.is_none();
    if unproven {
        // Nobody vouches for these bytes: follow every page before anything is mapped.
        image.scan().map_err(wrong)?;
    }
    let Some(bytes) = meta_entry(&image, position::POSITION, places)? else {
        return if image.meta().entries <= 1 {
            Ok(Db::Blank)
        } else {
            Err(corrupted(
                places,
                "it is an LMDB file, but not one of UnisonDB's".to_owned(),
            ))
        };
    };
    let position: Position = codec::decode(&bytes).map_err(|e| corrupted(places, e.to_string()))?;
    if position.format != position::FORMAT {
        return Err(StartError::Refused(format!(
            "{} has format {}, this release reads {}: use the release that wrote it, or a newer one",
            places.data.display(),
            position.format,
            position::FORMAT
        )));
    }
    let bytes = meta_entry(&image, position::LINEAGE, places)?
        .ok_or_else(|| corrupted(places, "it has a position but no lineage".to_owned()))?;
    // Behind the last page of our own file lies what a commit left that never came to be. A file of
    // another origin has a whole trailer there, or nothing. (Beside an owner that is not its own, a
    // kill or a failed sync, which renames the owner, may have cut short the commit that was to make it
    // ours: only a trailer's beginning counts.)
    let behind = image.bytes_behind();
    let no_owner = owner.is_none() && failed_owner.is_none();
    if unproven && !failed && behind > 0 && (no_owner || begins_as_trailer(&image, places)?) {
        let why = format!(
            "behind its last page lie {behind} bytes that are no whole trailer: it is a snapshot that was cut, or added to"
        );
        return Err(corrupted(places, why));
    }
    let history = codec::decode(&bytes).map_err(|e| corrupted(places, e.to_string()))?;
    let state = State { position, history };
    if unproven {
        let digest = digest_of(&image).map_err(|e| corrupted(places, e))?;
        if digest != state.position.digest {
            let why = format!(
                "its entries have the digest {digest}, it says {}",
                state.position.digest
            );
            return Err(corrupted(places, why));
        }
    }
    if let Some(t) = &trailer
        && (t.lsn != state.position.lsn || t.digest != state.position.digest)
    {
        return Err(corrupted(
            places,
            format!(
                "its trailer says LSN {} and digest {}, the state in it LSN {} and digest {}",
                t.lsn, t.digest, state.position.lsn, state.position.digest
            ),
        ));
    }
    Ok(if ours {
        Db::Live(state)
    } else if failed {
        Db::Failed(state)
    } else {
        Db::Image {
            state,
            cut_to: trailer.map(|t| t.image_bytes),
        }
    })
}

/// Whether what lies behind the last page is a trailer, or the beginning of one.
fn begins_as_trailer(image: &Image<FileSource>, places: &Places) -> Result<bool, StartError> {
    let head = image
        .head_behind()
        .map_err(|e| StartError::io(&places.data, e))?;
    Ok(Trailer::may_begin(&head))
}

/// Checks every entry of an image and adds up their digest.
///
/// # Errors
/// In words: the first entry or page that is not what was written.
pub(crate) fn digest_of<S: Source>(image: &Image<S>) -> Result<Digest, String> {
    let mut digest = Digest::EMPTY;
    for item in image.iter() {
        let item = item.map_err(|e| e.to_string())?;
        let entry = entry::open(&item.key, &item.value).map_err(|e| e.to_string())?;
        if table::Table::of(&item.key).is_some_and(table::Table::in_digest) {
            digest.add(&entry.hash);
        }
    }
    Ok(digest)
}

fn corrupted(places: &Places, why: String) -> StartError {
    StartError::Corrupted {
        path: places.data.clone(),
        why,
        rebuild: "",
    }
}

/// The payload of an entry about the state, checked; `None` when there is none.
fn meta_entry<S: Source>(
    image: &Image<S>,
    name: &str,
    places: &Places,
) -> Result<Option<Vec<u8>>, StartError> {
    let key = table::meta(name);
    let wrong = |e: String| corrupted(places, e);
    let Some(bytes) = image.get(&key).map_err(|e| wrong(e.to_string()))? else {
        return Ok(None);
    };
    let e = entry::open(&key, &bytes).map_err(|e| wrong(e.to_string()))?;
    Ok(Some(e.payload.to_vec()))
}

/// The highest segment id known anywhere here (P12): in `ids`, the state, `wal/`, what was set
/// aside, and among the backups.
pub(super) fn highest_known(
    disk: &dyn Disk,
    folders: &Folders,
    found: &Findings,
) -> Result<SegmentId, StartError> {
    let in_wal = found.segments.keys().chain(found.bad.keys()).copied().max();
    let in_state = found.db.state().map(|s| s.position.segment);
    let mut highest = in_wal
        .max(in_state)
        .max(found.ids)
        .unwrap_or(SegmentId::ZERO);
    for folder in list(disk, &folders.home)? {
        if folder.kind == EntryKind::Folder && folder.name.starts_with("wal.") {
            highest = highest.max(highest_in(disk, &folders.home.join(&folder.name), 1)?);
        }
    }
    Ok(highest.max(highest_in(disk, &folders.backups, BACKUP_DEPTH)?))
}

fn highest_in(disk: &dyn Disk, folder: &Path, depth: usize) -> Result<SegmentId, StartError> {
    let mut highest = SegmentId::ZERO;
    for e in list(disk, folder)? {
        match e.kind {
            EntryKind::Folder if depth > 1 => {
                highest = highest.max(highest_in(disk, &folder.join(&e.name), depth - 1)?);
            }
            EntryKind::File => {
                highest = highest.max(id_in_name(&e.name).unwrap_or(SegmentId::ZERO));
            }
            _ => {}
        }
    }
    Ok(highest)
}

/// The id in the name of a segment or of a compressed copy of one. Not one that no life could
/// reach: such a name is somebody's mistake, and must not use up the ids.
fn id_in_name(name: &str) -> Option<SegmentId> {
    let packed = [".gz", ".zst", ".gpg", ".xz"];
    let name = packed
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    SegmentId::parse_file_name(name).filter(|id| id.get() < 1_000_000_000_000_000)
}

/// What a folder holds; nothing, when it is not there or not ours to read (the backups of another
/// user do not stop a start).
fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<unisondb_platform::FolderEntry>, StartError> {
    match disk.list(folder) {
        Ok(entries) => Ok(entries),
        Err(e) => match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Vec::new()),
            io::ErrorKind::PermissionDenied => {
                tracing::warn!(folder = %folder.display(), "cannot be read: segment ids in it are not known");
                Ok(Vec::new())
            }
            _ => Err(StartError::io(folder, e)),
        },
    }
}

impl Findings {
    /// The history of a lineage, as far as its first segment or the state tells.
    pub(super) fn history(&self, lineage: LineageId) -> Option<&LineageRecord> {
        self.lineages.get(&lineage).or_else(|| {
            self.db
                .state()
                .map(|s| &s.history)
                .filter(|h| h.lineage == lineage)
        })
    }

    /// Where the state stands: zero without one.
    pub(super) fn stands_at(&self) -> Lsn {
        self.db.state().map_or(Lsn::ZERO, |s| s.position.lsn)
    }
}
