//! Publishing (P9): under a final name there is only ever a whole, synced file. [`Draft`] is a file
//! in the making, under its name and `.tmp`; [`Targets`] lets one call at a time work on a target.
//!
//! A draft that is dropped is removed. One that a dead process left is removed by the next call on
//! the target: the temporary name is fixed, and the target is ours alone while we work on it. A file
//! whose sync failed is thrown away, never tried again (P14).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use sha2::{Digest as _, Sha256};
use unisondb_platform::{Access, Disk, DiskExt, File, FileExt, Platform};
use unisondb_types::{SegmentId, Sha256Sum};

use super::BackupError;
use super::early::Early;
use super::root::{Folder, Made, failed};
use crate::pace::Pace;

/// What ends the name of a file in the making.
pub(super) const TMP: &str = ".tmp";
/// What ends the name of a file's checksum file.
pub(super) const SHA256: &str = ".sha256";
/// A sector: the least that a disk writes whole. Enough to know the beginning of an LMDB file by, or for
/// a whole checksum line.
pub(super) const HEAD_BYTES: usize = 512;
/// Backups leave this much of a volume to the log that may lie on it too, in bytes...
const SPARE_BYTES: u64 = 64 << 20;
/// ...or this part of it, if that is less: a small volume of their own is theirs to fill.
const SPARE_PART: u64 = 50;
/// How often a draft looks at the room left, in bytes written.
const LOOK_BYTES: u64 = 8 << 20;
/// Longest that a checksum file of ours is, in bytes.
const SUM_FILE_BYTES: u64 = 1_024;
/// Bytes of a file that are read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// A file in the making.
pub(super) struct Draft<'f> {
    folder: &'f Folder,
    name: String,
    file: Arc<dyn File>,
    long: Option<Long>,
    len: u64,
    /// Written since the room left was last looked at.
    unlooked: u64,
    /// Whether the temporary name is ours no more.
    settled: bool,
}

/// What a file that takes long to write needs besides.
struct Long {
    early: Early,
    pace: Pace,
}

impl Long {
    fn wrote(&mut self, bytes: usize, file: &dyn File) -> io::Result<()> {
        if !self.pace.is_up(bytes) {
            return self.early.wrote(bytes);
        }
        // While a log is written to, in small syncs: its own waits behind one of them at most.
        self.early.settle()?;
        file.sync()?;
        self.pace.rest();
        Ok(())
    }
}

impl<'f> Draft<'f> {
    /// Begins the file `name` in `folder`. A leftover of the temporary name is removed.
    pub(super) fn begin(folder: &'f Folder, name: &str) -> Result<Draft<'f>, BackupError> {
        let tmp = format!("{name}{TMP}");
        room(folder)?;
        folder.remove(&tmp)?;
        let file = folder
            .disk
            .open(&folder.path(&tmp), Access::CreateNew)
            .map_err(|e| folder.refused(&tmp, e))?;
        Ok(Draft {
            folder,
            name: name.to_owned(),
            file,
            long: None,
            len: 0,
            unlooked: 0,
            settled: false,
        })
    }

    /// Says that it will be long: it is brought to the medium while it is being written, and
    /// written at a pace that gives way to the logs.
    pub(super) fn long(mut self, platform: &Platform) -> Draft<'f> {
        self.long = Some(Long {
            early: Early::new(&platform.offload, &self.file),
            pace: Pace::new(platform),
        });
        self
    }

    /// Adds bytes at the end.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.unlooked += bytes.len() as u64;
        if self.unlooked >= LOOK_BYTES {
            self.unlooked = 0;
            room(self.folder)?;
        }
        // First what a dead call's draft is known by: a power loss takes sectors in any order. (A segment's
        // is known by its name.)
        let known = self.len > 0 || SegmentId::parse_file_name(&self.name).is_some();
        let written = match bytes.split_at_checked(HEAD_BYTES).filter(|_| !known) {
            Some((head, rest)) => (self.file.write_all_at(head, 0))
                .and_then(|()| self.file.sync())
                .and_then(|()| self.file.write_all_at(rest, HEAD_BYTES as u64)),
            None => self.file.write_all_at(bytes, self.len),
        };
        written.map_err(|e| self.failed(e))?;
        self.len += bytes.len() as u64;
        match &mut self.long {
            Some(long) => long.wrote(bytes.len(), &*self.file),
            None => Ok(()),
        }
        .map_err(|e| self.failed(e))
    }

    /// Length so far, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The file, for reading back.
    pub(super) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Syncs it.
    pub(super) fn sync(&self) -> Result<(), BackupError> {
        let settled = self.long.as_ref().map_or(Ok(()), |l| l.early.settle());
        settled
            .and_then(|()| self.file.sync())
            .map_err(|e| self.failed(e))
    }

    /// Gives it its name, replacing a file that has it. Synced by the caller before
    /// ([`sync`](Draft::sync)), and the folder after.
    fn publish(mut self) -> Result<(), BackupError> {
        let tmp = self.folder.path(&format!("{}{TMP}", self.name));
        let renamed = self.folder.disk.rename(&tmp, &self.folder.path(&self.name));
        renamed.map_err(|e| self.folder.refused(&self.name, e))?;
        self.settled = true;
        Ok(())
    }

    /// The same, with `NAME.sha256` beside it, as `sha256sum -c` in that folder reads it.
    pub(super) fn publish_with_sum(self, sha256: &Sha256Sum) -> Result<(), BackupError> {
        let (folder, name) = (self.folder, self.name.clone());
        let sum_name = format!("{name}{SHA256}");
        let mut sum = Draft::begin(folder, &sum_name)?;
        let line = format!("{sha256}  {name}\n");
        sum.write(line.as_bytes())?;
        sum.sync()?;
        // All that takes room is done. A crash from here on leaves no checksum rather than that of
        // another file. One that says the same is left: `tar` may be reading the folder.
        let there = folder.disk.read(&folder.path(&sum_name), SUM_FILE_BYTES);
        if there.ok().is_none_or(|there| there != line.as_bytes()) {
            folder.remove(&sum_name)?;
        }
        self.publish()?;
        sum.publish()
    }

    /// Takes its name away and keeps it open: it is there for as long as it is read, and gone
    /// whatever becomes of this process.
    pub(super) fn unnamed(mut self) -> Result<Arc<dyn File>, BackupError> {
        self.folder.remove(&format!("{}{TMP}", self.name))?;
        self.settled = true;
        Ok(self.file.clone())
    }

    fn failed(&self, e: io::Error) -> BackupError {
        self.folder.refused(&format!("{}{TMP}", self.name), e)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.settled
            && let Err(e) = self.folder.remove(&format!("{}{TMP}", self.name))
        {
            // The next call on the target tries again.
            tracing::debug!(error = %e, "a temporary file stays");
        }
    }
}

/// Whether a backup may write on: backups give up first, so that the log and LMDB still can.
fn room(folder: &Folder) -> Result<(), BackupError> {
    // A system that cannot tell will say when it is full.
    let Ok(space) = folder.space() else {
        return Ok(());
    };
    if space.available < SPARE_BYTES.min(space.total / SPARE_PART) {
        return Err(BackupError::NoSpace);
    }
    Ok(())
}

/// SHA-256 of a file that is there.
pub(super) fn read_sum(folder: &Folder, name: &str) -> Result<Sha256Sum, BackupError> {
    let read = || {
        let file = folder.disk.open(&folder.path(name), Access::Read)?;
        let mut sum = Sha256::new();
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = 0;
        loop {
            match file.read_at(&mut block, at) {
                Ok(0) => break,
                Ok(n) => {
                    sum.update(&block[..n]);
                    at += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Sha256Sum::from_bytes(sum.finalize().into()))
    };
    read().map_err(|e| failed(&folder.shown(name), e))
}

/// What calls are at work on.
#[derive(Default)]
pub(super) struct Targets {
    busy: Mutex<BTreeSet<PathBuf>>,
    freed: Condvar,
}

impl Targets {
    /// Waits until nobody else works on `target`.
    pub(super) fn enter(&self, target: PathBuf) -> Target<'_> {
        let mut busy = self.busy.lock();
        while busy.contains(&target) {
            self.freed.wait(&mut busy);
        }
        busy.insert(target.clone());
        drop(busy);
        Target {
            targets: self,
            target,
        }
    }
}

impl Targets {
    /// Does `act` unless another call works on `target`; none begins to meanwhile. `own`: what the
    /// caller works on itself.
    pub(super) fn unless_busy<T>(
        &self,
        own: &Path,
        target: &Path,
        act: impl FnOnce() -> T,
    ) -> Option<T> {
        let busy = self.busy.lock();
        (target == own || !busy.contains(target)).then(act)
    }

    /// Runs a call that makes folders; where it fails, those that it made are removed, if they are
    /// empty and no other call is at work, which may be about to write there.
    pub(super) fn making<T>(
        &self,
        disk: &dyn Disk,
        call: impl FnOnce(&mut Made) -> Result<T, BackupError>,
    ) -> Result<T, BackupError> {
        let mut made = Made::default();
        let result = call(&mut made);
        if result.is_err() {
            let busy = self.busy.lock();
            if busy.len() <= 1 {
                made.undo(disk);
            }
        }
        result
    }
}

/// The sole right to work on a target.
pub(super) struct Target<'t> {
    targets: &'t Targets,
    target: PathBuf,
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        self.targets.busy.lock().remove(&self.target);
        self.targets.freed.notify_all();
    }
}

#[cfg(test)]
mod tests;
