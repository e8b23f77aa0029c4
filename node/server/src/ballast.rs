//! [`Ballast`]: room kept in a file, for the moment when the disk is full (D9).
//!
//! It is given up only so that a flush, a purge or a footer still succeeds; while it is gone, writes
//! are refused (507), so that they do not eat what was freed for those. It is taken back as soon as
//! there is twice its size.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use unisondb_platform::{Access, FileExt as _, Platform};

/// A volume with less than this many times the ballast free gets none: on a small one it would
/// itself be what fills it.
const VOLUME_FACTOR: u64 = 8;
const STEP_BYTES: usize = 1 << 20;

/// The file's name: with a dot in it, so that no namespace can have it.
const NAME: &str = "ballast.reserved";

/// Room kept aside in a data directory.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
    held: AtomicBool,
}

impl Ballast {
    /// Takes `bytes` aside in `folder`, or nothing where that is too much to ask.
    pub(crate) fn take(platform: &Platform, folder: &Path, bytes: u64) -> Ballast {
        let path = folder.join(NAME);
        let disk = &platform.disk;
        let ballast = |bytes| Ballast {
            path: path.clone(),
            bytes,
            held: AtomicBool::new(true),
        };
        if disk
            .meta(&path)
            .is_ok_and(|meta| meta.len == bytes && bytes > 0)
        {
            return ballast(bytes);
        }
        let leftover = remove(platform, &path).and_then(|()| remove(platform, &unfinished(&path)));
        let roomy = disk
            .space(folder)
            .is_ok_and(|space| space.available / VOLUME_FACTOR >= bytes);
        if bytes == 0 || !roomy || leftover.is_err() {
            return ballast(0);
        }
        match fill(platform, &path, bytes) {
            Ok(()) => ballast(bytes),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no room is kept aside");
                ballast(0)
            }
        }
    }

    /// Whether the room is there, or none was to be kept.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Frees the room. Whether there was any.
    pub(crate) fn give_up(&self, platform: &Platform) -> bool {
        if self.bytes == 0 || !self.held.swap(false, Ordering::AcqRel) {
            return false;
        }
        tracing::warn!(path = %self.path.display(), "the disk is full: the room kept aside is given up, writes are refused");
        remove(platform, &self.path).is_ok()
    }

    /// Takes the room back if there is twice as much. Whether it is held now.
    pub(crate) fn retake(&self, platform: &Platform) -> bool {
        if self.is_held() {
            return true;
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let roomy = platform
            .disk
            .space(folder)
            .is_ok_and(|space| space.available / 2 >= self.bytes);
        if !roomy || fill(platform, &self.path, self.bytes).is_err() {
            return false;
        }
        tracing::info!(path = %self.path.display(), "there is room again: writes go on");
        self.held.store(true, Ordering::Release);
        true
    }
}

/// What is being filled, until it has its name.
fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension("tmp")
}

/// Removes a file; nothing there is no error. Never a folder: that would be somebody's data.
fn remove(platform: &Platform, path: &Path) -> io::Result<()> {
    match platform.disk.remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes zeroes: a hole would keep no room.
fn fill(platform: &Platform, path: &Path, bytes: u64) -> io::Result<()> {
    let disk = &platform.disk;
    let tmp = unfinished(path);
    let write = || {
        remove(platform, &tmp)?;
        let file = disk.open(&tmp, Access::CreateNew)?;
        let zeroes = vec![0; STEP_BYTES];
        let mut at = 0;
        while at < bytes {
            let step = usize::try_from(bytes - at).map_or(STEP_BYTES, |left| left.min(STEP_BYTES));
            file.write_all_at(&zeroes[..step], at)?;
            at += step as u64;
        }
        file.sync()?;
        disk.rename(&tmp, path)
    };
    let written = write();
    if written.is_err() {
        drop(remove(platform, &tmp));
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use unisondb_platform::{DiskExt as _, real};

    #[test]
    fn room_is_kept_given_up_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let platform = real::platform();
        let len = || platform.disk.meta(&dir.path().join(NAME)).map(|m| m.len);
        let bytes = (1 << 20) + 5;
        let ballast = Ballast::take(&platform, dir.path(), bytes);
        assert_eq!((ballast.is_held(), len().unwrap()), (true, bytes));
        assert!(ballast.give_up(&platform));
        assert!(!ballast.is_held() && len().is_err());
        assert!(!ballast.give_up(&platform), "there is nothing more to give");
        assert!(ballast.retake(&platform));
        assert_eq!(len().unwrap(), bytes);
        assert!(Ballast::take(&platform, dir.path(), bytes).is_held());
    }

    #[test]
    fn no_namespace_can_have_the_name_and_a_folder_is_never_removed() {
        assert!(NAME.parse::<unisondb_types::Namespace>().is_err());
        let dir = tempfile::tempdir().unwrap();
        let platform = real::platform();
        let inside = dir.path().join(NAME).join("db");
        platform.disk.create_folders(&inside).unwrap();
        assert!(!Ballast::take(&platform, dir.path(), 5).give_up(&platform));
        assert!(platform.disk.exists(&inside).unwrap());
    }

    #[test]
    fn what_was_left_half_filled_goes() {
        let dir = tempfile::tempdir().unwrap();
        let platform = real::platform();
        let left = unfinished(&dir.path().join(NAME));
        platform.disk.open(&left, Access::CreateNew).unwrap();
        Ballast::take(&platform, dir.path(), 0);
        assert!(!platform.disk.exists(&left).unwrap());
    }

    #[test]
    fn no_ballast_never_keeps_writes_out() {
        let dir = tempfile::tempdir().unwrap();
        let platform = real::platform();
        for bytes in [0, u64::MAX] {
            let ballast = Ballast::take(&platform, dir.path(), bytes);
            assert!(ballast.is_held() && !ballast.give_up(&platform));
            assert!(ballast.is_held());
        }
    }
}
