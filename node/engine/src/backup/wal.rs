//! WAL backup: copies of the sealed segments above an id, or the refusal to leave a hole.
//!
//! One pass a segment: what is read is proven against the footer while it is written, so a damaged
//! segment is never published (P13). The copies of one call are published one by one, in ascending
//! order: a call that fails half way has published a prefix without a hole, says that it failed, and
//! can be repeated.

use unisondb_platform::Platform;
use unisondb_types::SegmentId;
use unisondb_wal::{SealedFile, SegmentInfo, SegmentState, copy_verified};

use super::leftovers;
use super::publish::{Draft, read_sum};
use super::root::{Asked, Folder, Made, Missing};
use super::status::Call;
use super::{BackupError, Copied, WalBackup};
use crate::{Engine, Error};

impl Engine {
    /// Copies the sealed segments above `after` into the folder `dir` below the backup root. Blocks.
    ///
    /// `after` zero means all that are held, and is never a gap. Nothing new is a success, and makes
    /// no folder.
    ///
    /// # Errors
    /// [`BackupError`]. What was published before a failure stays and is whole; the same call can be
    /// made again.
    pub fn backup_wal(&self, after: SegmentId, dir: &str) -> Result<WalBackup, BackupError> {
        let asked = Asked::folder(dir)?;
        self.0.backup.count(
            Call::Wal(after),
            || {
                self.may_be_backed_up()?;
                let (targets, disk) = (&self.0.backup.targets, &self.0.platform.disk);
                let _target = targets.enter(asked.place());
                targets.making(disk.as_ref(), |made| {
                    self.copy_segments(after, &asked, made)
                })
            },
            |done| done.copies.iter().map(|c| c.bytes).sum(),
        )
    }

    fn copy_segments(
        &self,
        after: SegmentId,
        asked: &Asked,
        made: &mut Made,
    ) -> Result<WalBackup, BackupError> {
        let shared = &self.0;
        let (disk, place) = (&shared.platform.disk, asked.place());
        let root = shared.backups.read().clone();
        // A path that leads through a link is refused even when there is nothing to copy.
        if let Some(folder) = Folder::reach(disk, &root, asked, Missing::Leave)? {
            leftovers::clear(&shared.backup.targets, &place, &place, &folder)?;
        }
        // Before the list is read: what is on it stays until it has been copied.
        let _hold = shared.wal.hold("wal backup", after.next());
        let segments = shared.wal.segments();
        let wanted = wanted(&segments, after)?;
        let first_available = sealed(&segments).next().map(|s| s.id);
        let mut copies = Vec::with_capacity(wanted.len());
        if wanted.is_empty() {
            return Ok(WalBackup {
                copies,
                first_available,
            });
        }
        let folder = Folder::make(disk, &root, asked, made)?;
        let whole = asked.below(&root);
        for info in wanted {
            let segment = shared.wal.open_sealed(info.id).map_err(Error::from)?;
            let copied = copy(&folder, &segment, &shared.platform)?;
            copies.push(Copied {
                segment: info.id,
                path: whole.join(info.id.file_name()),
                bytes: copied.bytes,
                sha256: copied.sha256,
            });
        }
        folder.sync()?;
        Ok(WalBackup {
            copies,
            first_available,
        })
    }
}

fn sealed(segments: &[SegmentInfo]) -> impl Iterator<Item = &SegmentInfo> {
    segments.iter().filter(|s| s.state == SegmentState::Sealed)
}

/// The sealed segments above `after`, in order, if none is missing between them and `after`.
///
/// Headers name predecessors, so ids that lie between two lineages are not missed, and nothing is
/// taken for complete that is not.
fn wanted(segments: &[SegmentInfo], after: SegmentId) -> Result<Vec<&SegmentInfo>, BackupError> {
    let wanted: Vec<_> = sealed(segments).filter(|s| s.id > after).collect();
    if after == SegmentId::ZERO {
        return Ok(wanted);
    }
    let mut below = after;
    // Of a log that begins behind a gap, and has nothing sealed yet, the gap is named all the same.
    let begins = segments
        .first()
        .filter(|s| s.id > after && wanted.is_empty());
    for segment in wanted.iter().copied().chain(begins) {
        if let Some(before) = segment.header.predecessor.map(|p| p.id)
            && before > below
        {
            // Of the missing ones only the last is known by name; within its lineage ids are dense.
            let first = SegmentId::new(before.get() - before.get() % SegmentId::LINEAGE_STEP);
            return Err(BackupError::Gap {
                from: below.next().max(first),
                to: before,
                first_available: segment.id,
            });
        }
        below = segment.id;
    }
    Ok(wanted)
}

/// Copies one segment, proven, and publishes it with its checksum. The folder is synced by the
/// caller.
fn copy(
    folder: &Folder,
    segment: &SealedFile,
    platform: &Platform,
) -> Result<unisondb_wal::Copied, BackupError> {
    let id = segment.info.id;
    let (name, what) = (id.file_name(), format!("segment {id}"));
    let there = folder.has_file(&name, &what)?;
    let mut draft = Draft::begin(folder, &name)?.long(platform);
    let copied = copy_verified(segment, &mut |block| draft.write(block));
    let copied = copied.map_err(|e| damaged(id, e))??;
    draft.sync()?;
    // Also when the file is there with these very bytes it is published afresh: scripts look for
    // what was written lately.
    if there && read_sum(folder, &name)? != copied.sha256 {
        return Err(BackupError::Differs {
            path: folder.shown(&name),
            what,
        });
    }
    draft.publish_with_sum(&copied.sha256)?;
    Ok(copied)
}

fn damaged(segment: SegmentId, e: unisondb_wal::Error) -> BackupError {
    match e {
        unisondb_wal::Error::Damaged { source, .. } => BackupError::Damaged {
            segment,
            offset: source.offset().unwrap_or(0),
            why: source.to_string(),
        },
        other => BackupError::Engine(other.into()),
    }
}

#[cfg(test)]
mod tests;
