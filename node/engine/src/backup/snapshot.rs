//! Snapshots: an image of the store that says what it is and proves that it is whole (D15).
//!
//! ```text
//! hold the flusher ─ flush ─ image begins ─ release        no commit lies between flush and image
//!                       │         └─ blocks ─ sha256 + NAME.tmp ─┬─ trailer ─ sync ─ rename
//!                       └─ every entry of that commit proven ────┘
//! ```
//!
//! What the trailer says is read back from the image itself, never from the engine: the engine has
//! gone on meanwhile.

use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use sha2::{Digest as _, Sha256};
use unisondb_platform::{File, FileExt};
use unisondb_store::image::Image;
use unisondb_store::{Direction, Source, Trailer, View};
use unisondb_types::{Lsn, SegmentId, Sha256Sum};
use unisondb_wal::Hold;

use super::leftovers;
use super::publish::Draft;
use super::root::{Asked, Folder, Missing, failed};
use super::status::Call;
use super::{BackupError, SnapshotBackup};
use crate::engine::{Shared, decode};
use crate::restore::stored::Stored;
use crate::scrub::Proof;
use crate::state::entry;
use crate::state::position::{self, Position};
use crate::state::table::{self, Table};
use crate::{Engine, Error};

/// Name of the file that a snapshot is made in when it is not to stay. It never becomes another's:
/// requests cannot choose names that end in `.tmp`.
pub(super) const PASSING: &str = ".snapshot";
/// Bytes that are handed on at once.
const BLOCK_BYTES: usize = 1 << 20;

/// A snapshot without a name, readable for as long as this is kept.
pub struct SnapshotFile {
    /// What it is. The path is empty.
    pub about: SnapshotBackup,
    file: Arc<dyn File>,
    /// Not kept open by whoever reads slowly.
    shared: Weak<Shared>,
    /// What was written since stays while it is read.
    _hold: Hold,
}

impl Drop for SnapshotFile {
    /// Handed out only now: its hour begins.
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.backup.hand_out(self.about.segment);
        }
    }
}

impl SnapshotFile {
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` past its end; EIO.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl Engine {
    /// Makes a snapshot that holds every record up to `through`, at `path` below the backup root,
    /// replacing one of that name. Blocks.
    ///
    /// # Errors
    /// [`BackupError`]; a snapshot that had the name before is untouched.
    pub fn backup_snapshot(&self, path: &str, through: Lsn) -> Result<SnapshotBackup, BackupError> {
        let (asked, name) = Asked::file(path)?;
        let shared = &self.0;
        let root = shared.backups.read().clone();
        shared.backup.count(
            Call::Btree,
            || {
                self.may_be_backed_up()?;
                let (targets, disk) = (&shared.backup.targets, &shared.platform.disk);
                let own = asked.place().join(&name);
                let _target = targets.enter(own.clone());
                // Before anything is made: the path may lead through a link, or to a folder.
                if let Some(folder) = Folder::reach(disk, &root, &asked, Missing::Leave)? {
                    folder.has_file(&name, "a snapshot")?;
                    // Where we may write but not list, nothing is cleared.
                    if let Err(error) = leftovers::clear(targets, &own, &asked.place(), &folder) {
                        tracing::debug!(%error, "what dead calls left here stays");
                    }
                }
                let (mut about, _hold) = targets.making(disk.as_ref(), |made| {
                    let folder = Folder::make(disk, &root, &asked, made)?;
                    folder.has_file(&name, "a snapshot")?;
                    let (draft, about, hold) = self.draft(&folder, &name, through)?;
                    draft.publish_with_sum(&about.sha256)?;
                    folder.sync()?;
                    Ok((about, hold))
                })?;
                // Written down with how the call went.
                shared.backup.hand_out(about.segment);
                about.path = root.join(path);
                Ok(about)
            },
            |about| about.bytes,
        )
    }

    /// Makes a snapshot that holds every record up to `through` and gives it out without leaving
    /// it anywhere: it lies, nameless, on the volume of the backup root, and is gone with the last
    /// handle. Blocks.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn snapshot_file(&self, through: Lsn) -> Result<SnapshotFile, BackupError> {
        self.may_be_backed_up()?;
        let shared = &self.0;
        let asked = Asked::folder(".")?;
        let root = shared.backups.read().clone();
        // Only while it is being made: the nameless files of several requests lie side by side.
        let _target = shared.backup.targets.enter(PathBuf::from(PASSING));
        let disk = &shared.platform.disk;
        let made = shared.backup.targets.making(disk.as_ref(), |made| {
            let folder = Folder::make(disk, &root, &asked, made)?;
            let (draft, about, hold) = self.draft(&folder, PASSING, through)?;
            Ok((draft.unnamed()?, about, hold))
        });
        let (file, about, hold) = made?;
        shared.backup.hand_out(about.segment);
        shared.backup.keep();
        Ok(SnapshotFile {
            about,
            file,
            shared: Arc::downgrade(shared),
            _hold: hold,
        })
    }

    /// Makes a snapshot that holds every record up to `through` and hands its bytes to `sink`.
    /// Blocks.
    ///
    /// # Errors
    /// [`BackupError`]; an error of the sink is [`BackupError::Io`] with an empty path.
    pub fn snapshot_to(
        &self,
        through: Lsn,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<SnapshotBackup, BackupError> {
        let snapshot = self.snapshot_file(through)?;
        let gone = |source| BackupError::Io {
            path: PathBuf::new(),
            source,
        };
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = 0;
        while at < snapshot.about.bytes {
            let left = snapshot.about.bytes - at;
            let n = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
            snapshot.read_exact_at(&mut block[..n], at).map_err(gone)?;
            sink(&block[..n]).map_err(gone)?;
            at += n as u64;
        }
        Ok(snapshot.about.clone())
    }

    /// A whole snapshot, trailer included, synced, not yet published; and a hold on what replay
    /// behind it needs.
    pub(super) fn draft<'f>(
        &self,
        folder: &'f Folder,
        name: &str,
        through: Lsn,
    ) -> Result<(Draft<'f>, SnapshotBackup, Hold), BackupError> {
        let mut draft = Draft::begin(folder, name)?.long(&self.0.platform);
        let mut sum = Sha256::new();
        let (flushed, hold, proof) = self.copy_image(through, &mut |block| {
            draft.write(block)?;
            sum.update(block);
            Ok(())
        })?;
        let stored = stored_in(&draft, &flushed.position).map_err(|why| {
            let e = io::Error::new(io::ErrorKind::InvalidData, why);
            failed(&folder.shown(name), e)
        })?;
        let trailer = Trailer {
            image_sum: finished(sum.clone()),
            ..stored.as_trailer(draft.len())
        };
        let trailer = trailer.encode();
        draft.write(&trailer)?;
        sum.update(trailer);
        draft.sync()?;
        proof.wait()?;
        let position = stored.position;
        let about = SnapshotBackup {
            path: PathBuf::new(),
            bytes: draft.len(),
            lsn: position.lsn,
            stamp: position.stamp,
            lineage: position.lineage,
            segment: flushed.whole_segment(),
            digest: position.digest,
            sha256: finished(sum),
        };
        Ok((draft, about, hold))
    }

    /// Gives `sink` an image that holds every record up to `through`; says what was flushed, and
    /// gives a hold on the segments behind that, and the proof to wait for before anything is
    /// published.
    fn copy_image(
        &self,
        through: Lsn,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<(Flushed, Hold, Proof), BackupError> {
        let shared = &self.0;
        if let Some(reason) = shared.stopped() {
            return Err(Error::Stopped(reason).into());
        }
        let held = shared.flusher.hold();
        let applied = self.flush_held(&held)?;
        if applied < through {
            return Err(BackupError::Behind { through, applied });
        }
        // What is proven beside the copy is this very commit: none begins while it is held.
        let view = shared.store.read().map_err(Error::from)?;
        let flushed = Flushed::read(&view)?;
        let hold = shared.wal.hold("snapshot", flushed.whole_segment().next());
        let proof = Proof::begin(shared, view);
        let mut refused = None;
        let copied = shared.store.image(move || drop(held), &mut |block| {
            sink(block).map_err(|e| {
                refused = Some(e);
                io::Error::other("the backup cannot be written")
            })
        });
        match (copied, refused) {
            // What the disk said, not what the copy made of it.
            (_, Some(refused)) => Err(refused),
            (Err(e), None) => Err(Error::from(e).into()),
            (Ok(_), None) => Ok((flushed, hold, proof)),
        }
    }
}

/// What the store held when an image of it was begun.
struct Flushed {
    position: Position,
    /// The last segment that ended at or below that.
    last_ended: Option<SegmentId>,
}

impl Flushed {
    /// Replay needs only the segments above this one.
    fn whole_segment(&self) -> SegmentId {
        self.position.whole_segment(self.last_ended)
    }

    fn read(view: &View) -> Result<Flushed, Error> {
        let key = table::meta(position::POSITION);
        let bytes = view.get(&key)?.ok_or_else(|| Error::Damaged {
            what: "the position".to_owned(),
            why: "it is not there".to_owned(),
        })?;
        let (from, to) = Table::Segment.bounds();
        let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let last = view
            .range(bounds.0, bounds.1, Direction::Backward)
            .next()
            .transpose()?;
        Ok(Flushed {
            position: decode(&key, entry::open(&key, bytes)?.payload)?,
            last_ended: last.and_then(|(key, _)| table::segment_id(key)),
        })
    }
}

/// Where the state in an image stands, as the image itself has it; in words, why it cannot be.
fn stored_in(draft: &Draft<'_>, flushed: &Position) -> Result<Stored, String> {
    let image = Image::open(SoFar {
        file: draft.file(),
        len: draft.len(),
    });
    let image = image.map_err(|e| format!("the image cannot be read back: {e}"))?;
    let stored = Stored::of(&image)?;
    if stored.position != *flushed {
        let (found, flushed) = (stored.position.lsn, flushed.lsn);
        return Err(format!(
            "the image stands at record {found}, {flushed} had been flushed"
        ));
    }
    Ok(stored)
}

/// What has been written of a file.
struct SoFar<'d> {
    file: &'d Arc<dyn File>,
    len: u64,
}

impl Source for SoFar<'_> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

fn finished(sum: Sha256) -> Sha256Sum {
    Sha256Sum::from_bytes(sum.finalize().into())
}
