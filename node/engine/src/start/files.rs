//! The small files beside `db/` and `wal/`, each made and read by one pair of functions:
//! `ids` (P12), `db/owner` (D16), `restoring` (a restore under way), `recovery.toml`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use unisondb_platform::{Disk, DiskExt};
use unisondb_types::{LineageId, Lsn, SegmentId, Stamp, Target};

use super::{OnGap, StartError};

/// Longest of these files, in bytes.
const LIMIT: u64 = 64 << 10;

/// Where things are in a namespace's folder.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) home: PathBuf,
    pub(super) db: PathBuf,
    pub(super) data: PathBuf,
    pub(super) owner: PathBuf,
    /// What `owner` becomes when LMDB's file is no longer to be trusted.
    pub(super) failed_owner: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) raft_state: PathBuf,
    pub(super) ids: PathBuf,
    /// Says that this folder came to be by joining a group.
    pub(super) joined: PathBuf,
    /// What arrives from another member, not yet whole.
    pub(super) incoming: PathBuf,
    /// What has arrived whole and is to be taken over.
    pub(super) install: PathBuf,
    pub(super) restoring: PathBuf,
    pub(super) recovery: PathBuf,
}

impl Places {
    pub(super) fn of(home: &Path) -> Places {
        let db = home.join("db");
        let wal = home.join("wal");
        Places {
            home: home.to_owned(),
            data: db.join(unisondb_store::DATA_FILE),
            owner: db.join("owner"),
            failed_owner: db.join("owner.failed"),
            db,
            raft_state: wal.join("raft.state"),
            wal,
            ids: home.join("ids"),
            joined: home.join("joined"),
            incoming: home.join("incoming"),
            install: home.join("install"),
            restoring: home.join("restoring"),
            recovery: home.join("recovery.toml"),
        }
    }
}

/// Reads a small file; `None` when there is none.
fn small(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StartError> {
    match disk.read(path, LIMIT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StartError::io(path, e)),
    }
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> StartError {
    StartError::Refused(format!("{} is damaged: {why}", path.display()))
}

/// One line of text and its CRC-32C in the next.
fn with_crc(text: &str) -> String {
    format!("{text}\ncrc32c {:08x}\n", crc32c::crc32c(text.as_bytes()))
}

fn without_crc<'t>(path: &Path, bytes: &'t [u8]) -> Result<&'t str, StartError> {
    let text = std::str::from_utf8(bytes).map_err(|e| damaged(path, e))?;
    let body = text.trim_end_matches('\n');
    let (body, crc) = body
        .rsplit_once('\n')
        .ok_or_else(|| damaged(path, "it has no checksum"))?;
    if crc != format!("crc32c {:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(damaged(path, "its checksum does not match"));
    }
    Ok(body)
}

/// The highest segment id that may ever have been used here; only grows.
pub(super) fn read_ids(disk: &dyn Disk, places: &Places) -> Result<Option<SegmentId>, StartError> {
    let Some(bytes) = small(disk, &places.ids)? else {
        return Ok(None);
    };
    let body = without_crc(&places.ids, &bytes)?;
    let id = body.strip_prefix("unisondb-ids-1 ").unwrap_or_default();
    id.parse().map(Some).map_err(|e| damaged(&places.ids, e))
}

/// Raises `ids` to `up_to`, never lowers it.
pub(super) fn raise_ids(disk: &dyn Disk, home: &Path, up_to: SegmentId) -> Result<(), StartError> {
    let places = Places::of(home);
    if read_ids(disk, &places)?.is_some_and(|known| known >= up_to) {
        return Ok(());
    }
    let text = with_crc(&format!("unisondb-ids-1 {up_to}"));
    disk.publish(&places.ids, text.as_bytes())
        .map_err(|e| StartError::io(&places.ids, e))
}

/// The random id that says "this data.mdb is the one that was made or adopted here".
pub(super) fn read_owner(disk: &dyn Disk, places: &Places) -> Result<Option<Vec<u8>>, StartError> {
    small(disk, &places.owner)
}

/// The same id, once a write or sync of that file has failed.
pub(super) fn read_failed_owner(
    disk: &dyn Disk,
    places: &Places,
) -> Result<Option<Vec<u8>>, StartError> {
    small(disk, &places.failed_owner)
}

/// A write or sync of `data.mdb` has failed: what it shows may be in the page cache alone, and the
/// next start must not take that for the medium (P14). Best effort: the disk is a failing one.
pub(super) fn disown(disk: &dyn Disk, places: &Places) {
    let gone = disk
        .rename(&places.owner, &places.failed_owner)
        .and_then(|()| disk.sync_folder(&places.db));
    if let Err(error) = gone {
        tracing::error!(path = %places.owner.display(), %error, "cannot be renamed: before the next start, rename it to owner.failed by hand");
    }
}

/// The opposite, for a file that was written afresh: it is ours again, in one step.
pub(super) fn own_again(disk: &dyn Disk, places: &Places) -> Result<(), StartError> {
    disk.rename(&places.failed_owner, &places.owner)
        .and_then(|()| disk.sync_folder(&places.db))
        .map_err(|e| StartError::io(&places.failed_owner, e))
}

pub(super) fn write_owner(disk: &dyn Disk, places: &Places, id: &[u8]) -> Result<(), StartError> {
    disk.publish(&places.owner, id)
        .map_err(|e| StartError::io(&places.owner, e))?;
    match disk.remove_file(&places.failed_owner) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(StartError::io(&places.failed_owner, e))
        }
        _ => Ok(()),
    }
}

/// A restore under way: written before the first change, removed after the last. A start that
/// finds it goes on with just this restore, whatever flags it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restoring {
    /// Where it stops.
    pub(super) target: TargetText,
    /// Name of the lineage that will begin.
    pub(super) lineage: LineageId,
    /// Its first segment.
    pub(super) first_segment: SegmentId,
    /// When the restore began: the new lineage's first stamp.
    pub(super) stamp: Stamp,
    /// The vote's node id for the new lineage.
    pub(super) raft_id: u64,
    /// The state that it began with, if there was one: another one put there is another restore.
    pub(super) base: Option<(LineageId, Lsn)>,
    /// The log is not replayed but set aside, whole: it had a hole.
    pub(super) without_log: bool,
}

/// A [`Target`] in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TargetText {
    Latest,
    Immediate,
    Lsn(Lsn),
    BeforeLsn(Lsn),
    Time(Stamp),
    BeforeTime(Stamp),
}

impl From<Target> for TargetText {
    fn from(t: Target) -> TargetText {
        match t {
            Target::Latest => TargetText::Latest,
            Target::Immediate => TargetText::Immediate,
            Target::Lsn(n) => TargetText::Lsn(n),
            Target::BeforeLsn(n) => TargetText::BeforeLsn(n),
            Target::Time(t) => TargetText::Time(t),
            Target::BeforeTime(t) => TargetText::BeforeTime(t),
        }
    }
}

impl From<TargetText> for Target {
    fn from(t: TargetText) -> Target {
        match t {
            TargetText::Latest => Target::Latest,
            TargetText::Immediate => Target::Immediate,
            TargetText::Lsn(n) => Target::Lsn(n),
            TargetText::BeforeLsn(n) => Target::BeforeLsn(n),
            TargetText::Time(t) => Target::Time(t),
            TargetText::BeforeTime(t) => Target::BeforeTime(t),
        }
    }
}

pub(super) fn read_restoring(
    disk: &dyn Disk,
    places: &Places,
) -> Result<Option<Restoring>, StartError> {
    let Some(bytes) = small(disk, &places.restoring)? else {
        return Ok(None);
    };
    let body = without_crc(&places.restoring, &bytes)?;
    serde_json::from_str(body)
        .map(Some)
        .map_err(|e| damaged(&places.restoring, e))
}

pub(super) fn write_restoring(
    disk: &dyn Disk,
    places: &Places,
    restoring: &Restoring,
) -> Result<(), StartError> {
    let json = serde_json::to_string(restoring).expect("plain fields have a JSON form");
    disk.publish(&places.restoring, with_crc(&json).as_bytes())
        .map_err(|e| StartError::io(&places.restoring, e))
}

pub(super) fn remove_restoring(disk: &dyn Disk, places: &Places) -> Result<(), StartError> {
    let gone = match disk.remove_file(&places.restoring) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    gone.and_then(|()| disk.sync_folder(&places.home))
        .map_err(|e| StartError::io(&places.restoring, e))
}

/// What an operator may put beside `db/` and `wal/` before the first start on a restored folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoveryToml {
    #[serde(default, deserialize_with = "time")]
    target_time: Option<Stamp>,
    target_lsn: Option<u64>,
    #[serde(default)]
    immediate: bool,
    #[serde(default)]
    exclusive: bool,
    pub(super) on_gap: Option<OnGap>,
}

impl RecoveryToml {
    /// The target it asks for, if any.
    pub(super) fn target(&self) -> Result<Option<Target>, String> {
        super::target(
            self.target_time,
            self.target_lsn.map(Lsn::new),
            self.immediate,
            self.exclusive,
        )
    }
}

/// A time as TOML writes it, or as a text.
fn time<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Stamp>, D::Error> {
    let text = match toml::Value::deserialize(d)? {
        toml::Value::Datetime(time) => time.to_string(),
        toml::Value::String(text) => text,
        other => {
            let why = format!("target_time: a time is wanted, found {other}");
            return Err(serde::de::Error::custom(why));
        }
    };
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

pub(super) fn read_recovery(
    disk: &dyn Disk,
    places: &Places,
) -> Result<Option<RecoveryToml>, StartError> {
    let Some(bytes) = small(disk, &places.recovery)? else {
        return Ok(None);
    };
    let wrong = |why: String| {
        StartError::Refused(format!(
            "{} cannot be used: {why}; known keys: target_time, target_lsn, immediate, exclusive, on_gap",
            places.recovery.display()
        ))
    };
    let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    toml::from_str(&text)
        .map(Some)
        .map_err(|e| wrong(e.to_string()))
}

/// `recovery.toml` has been used: it becomes `recovery.toml.done`.
pub(super) fn retire_recovery(disk: &dyn Disk, places: &Places) -> Result<(), StartError> {
    let done = places.home.join("recovery.toml.done");
    match disk.rename(&places.recovery, &done) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StartError::io(&places.recovery, e)),
        Ok(()) => disk
            .sync_folder(&places.home)
            .map_err(|e| StartError::io(&places.home, e)),
    }
}
