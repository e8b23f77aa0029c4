//! [`Disk`] and [`File`]: all that the database asks of a file system, and what it may rely on.
//!
//! Rules, kept by [`conformance`](crate::conformance) for every implementation:
//! - Paths are absolute. A folder is listed in the order of its names' bytes.
//! - [`File::read_at`] and [`File::write_at`] may do less than asked (short reads and writes);
//!   [`FileExt`] loops.
//! - Written bytes are visible to every reader at once and durable after [`File::sync`] returns Ok.
//!   A failed sync has lost what was not durable: it must never be tried again and believed (P14).
//! - A name (create, rename, exchange, remove, a new folder) is durable after [`Disk::sync_folder`] of its
//!   folder returned Ok.
//! - Errors are `std::io::Error` with the kind the operating system gives: `NotFound`,
//!   `AlreadyExists`, `PermissionDenied`, `ReadOnlyFilesystem`, `StorageFull` (ENOSPC), `QuotaExceeded` (EDQUOT), or an
//!   EIO as raw os error 5.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Must exist; only read.
    Read,
    /// Must exist; read and write.
    Write,
    /// Must not exist: made, empty, mode 0600; read and write.
    CreateNew,
}

/// A file system.
pub trait Disk: Send + Sync + 'static {
    /// Opens or makes a file.
    ///
    /// # Errors
    /// As the operating system: `NotFound`, `AlreadyExists`, `PermissionDenied`, full, EIO.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;
    /// Makes one folder, mode 0700; its parent must exist.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for the parent, and as [`open`](Self::open).
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// What lies in a folder, ordered by the names' bytes. Names that are not UTF-8 are given
    /// lossily and match no file of ours.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn list(&self, folder: &Path) -> io::Result<Vec<FolderEntry>>;
    /// About a file or folder; a link is followed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn meta(&self, path: &Path) -> io::Result<Meta>;
    /// Renames a file or folder, replacing a file of the new name at once.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges two names that are both there, files or folders, in one step: each stands for the
    /// one or the other at every instant, and after a power loss both are exchanged or neither.
    ///
    /// # Errors
    /// `Unsupported` when the file system cannot, `InvalidInput` when one lies in the other: both
    /// names are then as they were. Otherwise as [`open`](Self::open).
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when it is not empty.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// EIO: what was not durable may be lost.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Room on the volume that holds `path`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// What kind of volume holds `path`; a link is followed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn volume(&self, path: &Path) -> io::Result<VolumeKind>;
    /// Takes the exclusive lock of a file, made if it is not there; held until dropped, and gone
    /// with the process.
    ///
    /// # Errors
    /// `WouldBlock` when another holds it; otherwise as [`open`](Self::open).
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// Where a folder lies on the machine's own file system, for a library that opens paths by
    /// itself (LMDB). The real disk: `folder` itself. The in-memory disk keeps such folders on a
    /// real scratch folder, and its other calls reach the same files.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn native(&self, folder: &Path) -> io::Result<PathBuf>;
}

/// An open file. Calls may come from several threads at once.
pub trait File: Send + Sync + 'static {
    /// Reads at `offset`; 0 only at the end of the file or for an empty `buf`.
    ///
    /// # Errors
    /// EIO.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at `offset`, growing the file when past its end; may write less than asked.
    ///
    /// # Errors
    /// Full, EIO.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes what has been written, and the length, durable (fdatasync).
    ///
    /// # Errors
    /// EIO, full: what was not durable is lost, and a later Ok does not bring it back.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends (with zeroes, unallocated) to `len` bytes.
    ///
    /// # Errors
    /// Full, EIO.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// EIO.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is no byte in it.
    ///
    /// # Errors
    /// EIO.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A lock that is held until it is dropped.
pub trait Lock: Send + Sync {}

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    /// The last component of its path.
    pub name: String,
    /// File, folder, or something else.
    pub kind: EntryKind,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, device, socket.
    Other,
}

/// About a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is, links followed.
    pub kind: EntryKind,
    /// Its length in bytes.
    pub len: u64,
    /// How many names lead to a file: more than one where it was hard-linked.
    pub names: u64,
}

/// Room on a volume, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All there is.
    pub total: u64,
    /// What this process may still use.
    pub available: u64,
}

/// What may be expected of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeKind {
    /// A file system of this machine.
    Local,
    /// One that may be this machine's or another's, which its name does not tell: FUSE, say.
    Doubtful(&'static str),
    /// Another machine's: maps and locks do not hold what LMDB needs of them.
    Network(&'static str),
}

/// What every [`File`] can do by its own few calls.
pub trait FileExt {
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before; EIO.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`.
    ///
    /// # Errors
    /// `WriteZero` when the disk takes nothing more; full, EIO.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
}

impl<F: File + ?Sized> FileExt for F {
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    buf = &buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Whether the process (EMFILE) or the machine (ENFILE) has no descriptor left: nothing was opened,
/// nothing was changed, and it goes on when somebody closes one.
pub fn is_exhausted(e: &io::Error) -> bool {
    // The same numbers on every Unix; the standard library has no kind for them.
    matches!(e.raw_os_error(), Some(23 | 24))
}

/// Whether an error says that we may not: not ours to touch, or on a volume that is mounted
/// read-only (EROFS). Both are told in the same words, and the operator changes the same folder.
#[must_use]
pub fn is_denied(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// What every [`Disk`] can do by its own few calls.
pub trait DiskExt {
    /// Whether something is there; a link is followed.
    ///
    /// # Errors
    /// As [`Disk::meta`], `NotFound` excepted.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes a folder and its missing parents, each made durable in its parent.
    ///
    /// # Errors
    /// As [`Disk::create_folder`].
    fn create_folders(&self, path: &Path) -> io::Result<()>;
    /// Reads a whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// `FileTooLarge` past the limit; as [`Disk::open`].
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// Publishes `bytes` under `path` whole or not at all: temporary file `path` + `.tmp` beside
    /// it, sync, rename, sync of the folder. What had the name before is replaced.
    ///
    /// # Errors
    /// Full, EIO; `path` is then as it was, unless only the last step failed, the sync of the folder:
    /// then readers see the new bytes, and a crash may bring back the old ones.
    fn publish(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file or a folder with all in it; nothing there is no error.
    ///
    /// # Errors
    /// As [`Disk::remove_file`].
    fn remove_all(&self, path: &Path) -> io::Result<()>;
}

impl<D: Disk + ?Sized> DiskExt for D {
    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.meta(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn create_folders(&self, path: &Path) -> io::Result<()> {
        match self.meta(path) {
            // It may have been made just before a kill, and its name never synced (P1).
            Ok(m) if m.kind == EntryKind::Folder => {
                return match path
                    .parent()
                    .map_or(Ok(()), |parent| self.sync_folder(parent))
                {
                    // A parent that we may not even list is one that we made nothing in.
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                    synced => synced,
                };
            }
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        self.create_folders(parent)?;
        match self.create_folder(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => self.sync_folder(parent),
        }
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Access::Read)?;
        let len = file.len()?;
        if len > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn publish(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
        let mut tmp = path.as_os_str().to_owned();
        tmp.push(".tmp");
        let tmp = PathBuf::from(tmp);
        match self.remove_file(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let write = || {
            let file = self.open(&tmp, Access::CreateNew)?;
            file.write_all_at(bytes, 0)?;
            file.sync()?;
            self.rename(&tmp, path)
        };
        if let Err(e) = write() {
            // The name `path` is untouched; a leftover temporary file is removed by the next call.
            drop(self.remove_file(&tmp));
            return Err(e);
        }
        self.sync_folder(folder)
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        // A folder is told from a link to one by listing its parent: links are removed, not entered.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let entries = match self.list(parent) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let Some(entry) = entries
            .into_iter()
            .find(|e| std::ffi::OsStr::new(&e.name) == name)
        else {
            return Ok(());
        };
        if entry.kind == EntryKind::Folder {
            for child in self.list(path)? {
                self.remove_all(&path.join(child.name))?;
            }
            self.remove_folder(path)
        } else {
            self.remove_file(path)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::{Access, Disk, DiskExt, FileExt};

    #[test]
    fn a_folder_made_before_a_kill_is_durable_once_it_is_asked_for_again() {
        for seed in 0..20 {
            let disk = crate::memory::MemoryDisk::default();
            disk.create_folder(Path::new("/data")).unwrap();
            let disk = disk.kill();
            disk.create_folders(Path::new("/data")).unwrap();
            let path = Path::new("/data/x");
            let file = disk.open(path, Access::CreateNew).unwrap();
            file.write_all_at(b"kept", 0).unwrap();
            file.sync().unwrap();
            disk.sync_folder(Path::new("/data")).unwrap();
            let disk = disk.crash(seed);
            assert_eq!(disk.read(path, 9).unwrap(), b"kept", "seed {seed}");
        }
    }
}
