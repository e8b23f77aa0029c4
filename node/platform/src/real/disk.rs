//! [`RealDisk`]: the operating system's file system.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    CWD, FlockOperation, RenameFlags, fdatasync, flock, fsync, renameat_with, statfs, statvfs,
};
use rustix::io::Errno;

use crate::{Access, Disk, EntryKind, File, FolderEntry, Lock, Meta, Space, VolumeKind};

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// A file of ours: read and written by nobody else.
const FILE_MODE: u32 = 0o600;
/// A folder of ours.
const FOLDER_MODE: u32 = 0o700;

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        // The kernel opens a folder for reading and fails only at the first read.
        if access == Access::Read && file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(FOLDER_MODE).create(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                // Some file systems must stat for the kind: gone in between is not there.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                kind => kind_of(kind?),
            };
            found.push((entry.file_name(), kind));
        }
        found.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        let entry = |(name, kind): (std::ffi::OsString, EntryKind)| FolderEntry {
            name: name.to_string_lossy().into_owned(),
            kind,
        };
        Ok(found.into_iter().map(entry).collect())
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let meta = fs::metadata(path)?;
        Ok(Meta {
            kind: kind_of(meta.file_type()),
            len: meta.len(),
            names: meta.nlink(),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        if one != other && (one.starts_with(other) || other.starts_with(one)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // What file systems without it answer; EINVAL too, as nothing else is wrong with it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed())
            .open(folder)?;
        Ok(fsync(folder)?)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let volume = statvfs(path)?;
        // Blocks are counted in fragments; available leaves out what is kept for root.
        Ok(Space {
            total: volume.f_blocks.saturating_mul(volume.f_frsize),
            available: volume.f_bavail.saturating_mul(volume.f_frsize),
        })
    }

    fn volume(&self, path: &Path) -> io::Result<VolumeKind> {
        // 32 bits, sign-extended on some machines.
        // 32 bits of it count; some systems extend their sign.
        let [a, b, c, d, ..] = statfs(path)?.f_type.to_le_bytes();
        let magic = u32::from_le_bytes([a, b, c, d]);
        Ok(volume_kind(magic))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        // std opens close-on-exec: a child process does not keep the lock alive.
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn native(&self, folder: &Path) -> io::Result<PathBuf> {
        Ok(folder.to_path_buf())
    }
}

/// By the magic numbers of statfs(2) and of Linux's `magic.h`.
fn volume_kind(magic: u32) -> VolumeKind {
    match magic {
        0x0000_6969 => VolumeKind::Network("NFS"),
        0x0000_517b | 0xff53_4d42 | 0xfe53_4d42 => VolumeKind::Network("SMB"),
        0x0000_564c => VolumeKind::Network("NCP"),
        0x5346_414f | 0x6b41_4653 => VolumeKind::Network("AFS"),
        0x7375_7245 => VolumeKind::Network("Coda"),
        // Each of these is sound in some set-ups and not in others, and statfs does not tell which:
        // 9p is also how virtual machines and sandboxes show a local disk.
        0x6573_5546 => VolumeKind::Doubtful("FUSE"),
        0x0102_1997 => VolumeKind::Doubtful("9p"),
        0x786f_4256 => VolumeKind::Doubtful("a VirtualBox share"),
        0x00c3_6400 => VolumeKind::Doubtful("CephFS"),
        0x0bd0_0bd0 => VolumeKind::Doubtful("Lustre"),
        0x4750_4653 => VolumeKind::Doubtful("GPFS"),
        _ => VolumeKind::Local,
    }
}

fn kind_of(kind: fs::FileType) -> EntryKind {
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Folder
    } else {
        EntryKind::Other
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync writes the length too when it has changed: all that a read needs.
        Ok(fdatasync(&self.0)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// The lock goes with the open file description, so with the process.
struct RealLock {
    _file: fs::File,
}

impl Lock for RealLock {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::{DiskExt, FileExt as _, conformance};

    #[test]
    fn the_real_disk_keeps_the_contract() {
        let scratch = tempfile::tempdir().unwrap();
        let made = std::sync::atomic::AtomicU32::new(0);
        conformance::disk(&|| {
            let n = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let folder = scratch.path().join(n.to_string());
            RealDisk.create_folder(&folder).unwrap();
            (Arc::new(RealDisk), folder)
        });
        conformance::native(&RealDisk, scratch.path());
    }

    #[test]
    fn network_file_systems_are_told_by_their_magic_and_local_ones_are_not_suspected() {
        for magic in [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42] {
            let kind = volume_kind(magic);
            assert!(
                matches!(kind, VolumeKind::Network(_)),
                "{magic:x}: {kind:?}"
            );
        }
        for magic in [0x6573_5546, 0x0102_1997] {
            let kind = volume_kind(magic);
            assert!(
                matches!(kind, VolumeKind::Doubtful(_)),
                "{magic:x}: {kind:?}"
            );
        }
        // ext4, XFS, btrfs, ZFS, tmpfs, overlayfs, F2FS.
        for magic in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x2fc1_2fc1,
            0x0102_1994,
            0x794c_7630,
            0xf2f5_2010,
        ] {
            assert_eq!(volume_kind(magic), VolumeKind::Local, "{magic:x}");
        }
    }

    #[test]
    fn nobody_else_reads_what_we_make() {
        let scratch = tempfile::tempdir().unwrap();
        let [folder, file, lock] = ["folder", "file", "lock"].map(|n| scratch.path().join(n));
        RealDisk.create_folder(&folder).unwrap();
        drop(RealDisk.open(&file, Access::CreateNew).unwrap());
        let _lock = RealDisk.lock(&lock).unwrap();
        for (path, mode) in [(folder, 0o700), (file, 0o600), (lock, 0o600)] {
            let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found & !mode, 0, "{} has mode {found:o}", path.display());
        }
    }

    #[test]
    fn a_link_is_followed_but_never_emptied() {
        let scratch = tempfile::tempdir().unwrap();
        let [there, link] = ["there", "link"].map(|n| scratch.path().join(n));
        RealDisk.create_folder(&there).unwrap();
        let file = RealDisk.open(&there.join("kept"), Access::CreateNew);
        file.unwrap().write_all_at(b"abc", 0).unwrap();
        symlink(&there, &link).unwrap();
        assert_eq!(RealDisk.meta(&link).unwrap().kind, EntryKind::Folder);
        assert_eq!(RealDisk.read(&link.join("kept"), 3).unwrap(), b"abc");
        let entries = RealDisk.list(scratch.path()).unwrap();
        assert_eq!(entries[0].kind, EntryKind::Other);
        RealDisk.remove_all(&link).unwrap();
        assert!(there.join("kept").exists() && !link.exists());
    }
}
