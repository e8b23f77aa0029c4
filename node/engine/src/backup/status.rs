//! [`Status`]: how backups have gone: counted while the process lives, and what an operator's alert
//! needs, kept over restarts in `backup-status.json` beside the namespace's folders.
//!
//! The file is a convenience: a damaged or missing one is a warning and a start from zero, and one
//! that cannot be written never fails a backup that was made.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use unisondb_platform::{DiskExt, Platform};
use unisondb_types::{SegmentId, Stamp};

use super::BackupError;
use super::handed::HandedOut;

/// Name of the file, in the namespace's folder.
const FILE: &str = "backup-status.json";
/// Longest that the file may be: far above what is ever written.
const FILE_BYTES: u64 = 64 << 10;

/// The kinds of backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    /// Copies of sealed segments.
    Wal,
    /// Images of the store.
    Btree,
}

/// A call that makes a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Of the segments above this one.
    Wal(SegmentId),
    /// Of the store.
    Btree,
}

impl Call {
    fn kind(self) -> BackupKind {
        match self {
            Call::Wal(_) => BackupKind::Wal,
            Call::Btree => BackupKind::Btree,
        }
    }
}

/// What a row of failed WAL backups waits for. Several archivers may call, each with ids of its own:
/// that one has nothing new says nothing of what another is owed.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    /// The lowest id above which segments were asked for in vain; `None`: any success will do.
    failed: Option<SegmentId>,
    /// The lowest id behind which there was a gap.
    gap: Option<SegmentId>,
}

impl Owed {
    fn failed(&mut self, after: SegmentId, gap: bool) {
        let lowest = |id: Option<SegmentId>| Some(id.map_or(after, |id| id.min(after)));
        self.failed = lowest(self.failed);
        if gap {
            self.gap = lowest(self.gap);
        }
    }

    /// A WAL backup succeeded. Whether it ends the row of failures.
    fn copied(&mut self, after: SegmentId) -> bool {
        // Zero asks for what is held, and never meets a gap: no proof that there is none.
        if after > SegmentId::ZERO && self.gap.is_some_and(|met| after <= met) {
            self.gap = None;
        }
        let ends = self.failed.is_none_or(|failed| after <= failed);
        if ends {
            self.failed = None;
        }
        ends
    }
}

/// How the backups of one kind have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindStatus {
    /// When the last one succeeded; kept over restarts.
    pub last_success: Option<Stamp>,
    /// How much the last one that copied anything copied, in bytes; kept over restarts.
    pub last_bytes: u64,
    /// How long that took, in microseconds, since the process started.
    pub last_micros: u64,
    /// Failures since the last success that makes up for them; kept over restarts.
    pub consecutive_failures: u64,
    /// Since the process started.
    pub successes: u64,
    /// Since the process started.
    pub failures: u64,
    /// Bytes copied since the process started.
    pub bytes: u64,
    /// Calls at work just now.
    pub running: u64,
}

/// How backups have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupStatus {
    /// Copies of sealed segments.
    pub wal: KindStatus,
    /// Images of the store.
    pub btree: KindStatus,
    /// Whether a WAL backup met a gap that nothing has made up for (`wal_segment_gap`).
    pub gap: bool,
}

impl BackupStatus {
    /// That of one kind.
    pub fn of(&self, kind: BackupKind) -> &KindStatus {
        match kind {
            BackupKind::Wal => &self.wal,
            BackupKind::Btree => &self.btree,
        }
    }

    fn of_mut(&mut self, kind: BackupKind) -> &mut KindStatus {
        match kind {
            BackupKind::Wal => &mut self.wal,
            BackupKind::Btree => &mut self.btree,
        }
    }
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    #[serde(default)]
    wal: KeptKind,
    #[serde(default)]
    btree: KeptKind,
    #[serde(default)]
    handed_out: HandedOut,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptKind {
    #[serde(default)]
    last_success_micros: Option<u64>,
    #[serde(default)]
    last_bytes: u64,
    #[serde(default)]
    consecutive_failures: u64,
}

impl KeptKind {
    fn of(kind: &KindStatus) -> KeptKind {
        KeptKind {
            last_success_micros: kind.last_success.map(Stamp::micros),
            last_bytes: kind.last_bytes,
            consecutive_failures: kind.consecutive_failures,
        }
    }

    fn status(&self) -> KindStatus {
        KindStatus {
            last_success: self.last_success_micros.map(Stamp::from_micros),
            last_bytes: self.last_bytes,
            consecutive_failures: self.consecutive_failures,
            ..KindStatus::default()
        }
    }
}

/// How one call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It copied so many bytes; zero when there was nothing new.
    Well(u64),
    /// It failed.
    Badly {
        /// For want of segments.
        gap: bool,
    },
    /// It was refused before it began: neither a success nor a failure.
    Refused,
}

/// How backups have gone, shared by all that make them.
pub(crate) struct Status {
    platform: Platform,
    path: PathBuf,
    now: Mutex<BackupStatus>,
    /// Locked after `now`.
    owed: Mutex<Owed>,
    handed_out: Mutex<HandedOut>,
    /// Held while the file is written: two calls never share its temporary name, and the file
    /// never goes back.
    writing: Mutex<()>,
    pub(super) targets: super::publish::Targets,
}

impl Status {
    /// What is known from before.
    pub(crate) fn load(platform: &Platform, home: &Path) -> Status {
        let path = home.join(FILE);
        let kept = match platform.disk.read(&path, FILE_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|e| {
                tracing::warn!(path = %path.display(), error = %e,
                    "the record of earlier backups is damaged; counting from zero");
                Kept::default()
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e,
                    "the record of earlier backups cannot be read; counting from zero");
                Kept::default()
            }
        };
        let now = BackupStatus {
            wal: kept.wal.status(),
            btree: kept.btree.status(),
            gap: false,
        };
        Status {
            platform: platform.clone(),
            path,
            now: Mutex::new(now),
            owed: Mutex::default(),
            handed_out: Mutex::new(kept.handed_out),
            writing: Mutex::new(()),
            targets: super::publish::Targets::default(),
        }
    }

    /// As it is now.
    pub(super) fn get(&self) -> BackupStatus {
        *self.now.lock()
    }

    /// A snapshot that needs the segments above `segment` is handed out.
    pub(super) fn hand_out(&self, segment: SegmentId) {
        let now = self.platform.clock.now();
        self.handed_out.lock().add(segment, now);
    }

    /// The segments above this one are needed by a snapshot handed out lately.
    pub(super) fn snapshots_need(&self, now: Stamp) -> Option<SegmentId> {
        self.handed_out.lock().need(now)
    }

    /// Makes a backup, and counts how that went; `bytes` says how much was copied.
    pub(super) fn count<T>(
        &self,
        call: Call,
        make: impl FnOnce() -> Result<T, BackupError>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T, BackupError> {
        let clock = &self.platform.clock;
        let began = clock.monotonic();
        self.now.lock().of_mut(call.kind()).running += 1;
        let made = make();
        let took = clock.monotonic().saturating_sub(began);
        let ended = match &made {
            Ok(done) => Ended::Well(bytes(done)),
            Err(BackupError::BadPath(_)) => Ended::Refused,
            Err(e) => Ended::Badly {
                gap: matches!(e, BackupError::Gap { .. }),
            },
        };
        self.ended(
            call,
            ended,
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
        made
    }

    fn ended(&self, call: Call, ended: Ended, micros: u64) {
        {
            let mut now = self.now.lock();
            let mut owed = self.owed.lock();
            let makes_up = match (call, ended) {
                (Call::Wal(after), Ended::Badly { gap }) => {
                    owed.failed(after, gap);
                    false
                }
                (Call::Wal(after), Ended::Well(_)) => owed.copied(after),
                (Call::Btree, Ended::Well(_)) => {
                    // What it holds need not be in any segment.
                    *owed = Owed::default();
                    true
                }
                (Call::Btree, Ended::Badly { .. }) | (_, Ended::Refused) => false,
            };
            now.gap = owed.gap.is_some();
            drop(owed);
            let at = self.platform.clock.now();
            let k = now.of_mut(call.kind());
            k.running = k.running.saturating_sub(1);
            match ended {
                Ended::Refused => return,
                Ended::Badly { .. } => {
                    k.failures += 1;
                    k.consecutive_failures += 1;
                }
                Ended::Well(bytes) => {
                    k.successes += 1;
                    if makes_up {
                        k.consecutive_failures = 0;
                    }
                    k.bytes += bytes;
                    k.last_success = Some(at);
                    if bytes > 0 {
                        k.last_bytes = bytes;
                        k.last_micros = micros;
                    }
                }
            }
        }
        self.keep();
    }

    /// Writes down what outlives the process.
    pub(super) fn keep(&self) {
        let _writing = self.writing.lock();
        // Read under the lock: whoever writes last writes the newest.
        let now = self.get();
        let kept = Kept {
            wal: KeptKind::of(&now.wal),
            btree: KeptKind::of(&now.btree),
            handed_out: self.handed_out.lock().clone(),
        };
        let mut bytes = serde_json::to_vec(&kept).expect("numbers always become JSON");
        bytes.push(b'\n');
        if let Err(e) = self.platform.disk.publish(&self.path, &bytes) {
            tracing::warn!(path = %self.path.display(), error = %e,
                "how this backup went could not be recorded; it is counted until the next start");
        }
    }
}

#[cfg(test)]
mod tests;
