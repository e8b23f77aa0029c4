//! The backup root and the way below it (D23): [`Asked`], a path as a request names it, checked;
//! [`Folder`], a folder that was reached without leaving the root.
//!
//! What a path may be is decided from its text alone, before anything is touched. The walk is made
//! afresh at each request. On the machine's own file system every folder below the root is opened
//! by its plain name, relative to the open folder above it, and never through a symbolic link
//! (`openat` with `O_NOFOLLOW`: what `cap-std` does, and `openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS` where every component is checked to be plain). The open folder is kept,
//! and all calls of `Disk` go to `/proc/self/fd/N/NAME`: whatever is renamed or linked meanwhile,
//! the copy goes into the folder that was checked. Without `/proc` they go by path, and only a
//! change during the request itself would not be seen. Other disks (in memory) have no links.
//!
//! The root itself may be a link or a mount point: that is the operator's to choose.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, stat, statat};
use unisondb_platform::{Disk, EntryKind, Space, is_denied};

use super::BackupError;

/// Longest path below the root, in bytes: with the root's own it stays below what systems take.
const PATH_BYTES: usize = 1_024;
/// Longest component, in bytes: what file systems take (255), less what temporary names add.
const COMPONENT_BYTES: usize = 240;
/// What ends the names that backups give by themselves; a request cannot choose them.
const OWN_ENDINGS: [&str; 3] = [".tmp", ".sha256", ".wal"];

/// A path below the root, as asked, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    text: String,
    parts: Vec<String>,
}

impl Asked {
    /// A folder: `.` is the root itself.
    pub(super) fn folder(text: &str) -> Result<Asked, BackupError> {
        let bad = |why: &str| BackupError::BadPath(format!("the path {text:?} {why}"));
        if text.is_empty() {
            return Err(BackupError::BadPath("the path is empty".to_owned()));
        }
        if text.len() > PATH_BYTES {
            return Err(BackupError::BadPath(format!(
                "the path has {} bytes, at most {PATH_BYTES} are allowed",
                text.len()
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(bad("holds NUL or another control character"));
        }
        if text.starts_with('/') {
            return Err(bad("is absolute; it must be relative to the backup root"));
        }
        let drive = |p: &str| matches!(p.as_bytes(), [l, b':', ..] if l.is_ascii_alphabetic());
        if text.contains('\\') || drive(text.split('/').next().unwrap_or(text)) {
            return Err(bad("holds a backslash or a drive letter"));
        }
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => continue,
                ".." => return Err(bad("leads out of the backup root (`..`)")),
                _ if part.ends_with(char::is_whitespace) => {
                    return Err(bad("has a component that ends in a space"));
                }
                // What reads an archive takes it for a segment.
                _ if part.ends_with(".wal") => {
                    return Err(bad("has a component that ends in .wal, as segments do"));
                }
                _ if part.len() > COMPONENT_BYTES => {
                    return Err(BackupError::BadPath(format!(
                        "the path has a component of {} bytes, at most {COMPONENT_BYTES} are allowed",
                        part.len()
                    )));
                }
                _ => parts.push(part.to_owned()),
            }
        }
        Ok(Asked {
            text: text.to_owned(),
            parts,
        })
    }

    /// A file: its folder, and its name there.
    pub(super) fn file(text: &str) -> Result<(Asked, String), BackupError> {
        let mut asked = Asked::folder(text)?;
        let bad = |why: &str| BackupError::BadPath(format!("the path {text:?} {why}"));
        let last = text.rsplit('/').next().unwrap_or(text);
        if matches!(last, "" | ".") {
            return Err(bad("names a folder, a file is wanted"));
        }
        if let Some(ending) = OWN_ENDINGS.iter().find(|e| last.ends_with(**e)) {
            return Err(bad(&format!(
                "ends in {ending}, which backups use for files of their own"
            )));
        }
        let name = asked
            .parts
            .pop()
            .expect("a last component that is a name was kept");
        Ok((asked, name))
    }

    /// Where it lies, as an answer says it: the root, and what was asked, byte for byte.
    pub(super) fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.text)
    }

    /// Its place among others, however it was spelled.
    pub(super) fn place(&self) -> PathBuf {
        self.parts.iter().collect()
    }
}

/// What becomes of folders that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// They stay so: nothing is there.
    Leave,
    /// They are made, durably.
    Make,
}

/// The folders that a call has made, outermost first.
#[derive(Default)]
pub(super) struct Made {
    /// The root, and what was missing above it.
    above: Vec<PathBuf>,
    /// Below the root: where, and the name there.
    below: Vec<(Folder, String)>,
}

impl Made {
    /// Removes those that are still empty (B12). Best effort: what stays is an empty folder.
    pub(super) fn undo(self, disk: &dyn Disk) {
        let below = self.below.into_iter().rev();
        let gone = below
            .map(|(folder, name)| folder.disk.remove_folder(&folder.path(&name)))
            .chain(self.above.iter().rev().map(|path| disk.remove_folder(path)));
        // One that is not empty is in all that are above it.
        if let Some(Err(e)) = gone.into_iter().find(Result::is_err) {
            tracing::debug!(error = %e, "a folder that a failed backup has made stays");
        }
    }
}

/// A folder at or below the root.
pub(super) struct Folder {
    pub(super) disk: Arc<dyn Disk>,
    /// Its path, for messages.
    pub(super) shown: PathBuf,
    /// Its path, for calls.
    at: PathBuf,
    /// Itself, on the machine's own file system.
    anchor: Option<OwnedFd>,
}

impl Folder {
    /// Walks to `asked` below `root`. `None` when it is not there, and [`Missing::Leave`].
    pub(super) fn reach(
        disk: &Arc<dyn Disk>,
        root: &Path,
        asked: &Asked,
        missing: Missing,
    ) -> Result<Option<Folder>, BackupError> {
        let mut made = Made::default();
        let made = (missing == Missing::Make).then_some(&mut made);
        Folder::walk(disk, root, asked, made)
    }

    /// As [`reach`](Folder::reach) with [`Missing::Make`]; what it made is added to `made`, also
    /// when it fails half way.
    pub(super) fn make(
        disk: &Arc<dyn Disk>,
        root: &Path,
        asked: &Asked,
        made: &mut Made,
    ) -> Result<Folder, BackupError> {
        let folder = Folder::walk(disk, root, asked, Some(made))?;
        Ok(folder.expect("what is missing was made"))
    }

    fn walk(
        disk: &Arc<dyn Disk>,
        root: &Path,
        asked: &Asked,
        mut made: Option<&mut Made>,
    ) -> Result<Option<Folder>, BackupError> {
        match disk.meta(root) {
            Ok(m) if m.kind == EntryKind::Folder => {}
            Ok(_) => return Err(failed(root, io::ErrorKind::NotADirectory.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => match &mut made {
                None => return Ok(None),
                Some(made) => make(disk, root, &mut made.above)?,
            },
            Err(e) => return Err(failed(root, e)),
        }
        let mut folder = Folder::root(disk, root)?;
        for part in &asked.parts {
            match folder.step(part, made.as_deref_mut())? {
                Some(next) => folder = next,
                None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    fn root(disk: &Arc<dyn Disk>, root: &Path) -> Result<Folder, BackupError> {
        // Only the real disk lies where it says it does.
        let real = disk.native(root).is_ok_and(|native| native == root);
        let anchor = real
            .then(|| openat(CWD, root, FOLDER, Mode::empty()))
            .transpose()
            .map_err(|e| failed(root, e.into()))?;
        Ok(Folder::anchored(
            disk,
            root.to_owned(),
            root.to_owned(),
            anchor,
        ))
    }

    fn anchored(
        disk: &Arc<dyn Disk>,
        shown: PathBuf,
        path: PathBuf,
        anchor: Option<OwnedFd>,
    ) -> Folder {
        let at = anchor.as_ref().and_then(by_descriptor).unwrap_or(path);
        Folder {
            disk: disk.clone(),
            shown,
            at,
            anchor,
        }
    }

    /// The same folder once more.
    fn twin(&self) -> Result<Folder, BackupError> {
        let anchor = self.anchor.as_ref().map(OwnedFd::try_clone).transpose();
        let anchor = anchor.map_err(|e| failed(&self.shown, e))?;
        let (shown, at) = (self.shown.clone(), self.at.clone());
        Ok(Folder::anchored(&self.disk, shown, at, anchor))
    }

    /// The folder `name` in this one.
    fn step(&self, name: &str, made: Option<&mut Made>) -> Result<Option<Folder>, BackupError> {
        let shown = self.shown(name);
        match self.kind(name)? {
            Some(EntryKind::Folder) => {}
            Some(EntryKind::File) => {
                return Err(BackupError::Differs {
                    path: shown,
                    what: "a folder".to_owned(),
                });
            }
            Some(EntryKind::Other) => return Err(through_link(&shown)),
            None => {
                let Some(made) = made else { return Ok(None) };
                let here = self.twin()?;
                match self.disk.create_folder(&self.path(name)) {
                    Ok(()) => made.below.push((here, name.to_owned())),
                    // Just now, by another call.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(failed(&shown, e)),
                }
                self.sync()?;
            }
        }
        let open =
            |anchor: &OwnedFd| match openat(anchor, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            {
                // It was a folder a moment ago.
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    Err(through_link(&shown))
                }
                other => other.map_err(|e| self.refused(name, e.into())),
            };
        let anchor = self.anchor.as_ref().map(open).transpose()?;
        let path = self.path(name);
        Ok(Some(Folder::anchored(&self.disk, shown, path, anchor)))
    }

    /// What `name` stands for here; links are not followed.
    pub(super) fn kind(&self, name: &str) -> Result<Option<EntryKind>, BackupError> {
        let found = match &self.anchor {
            Some(anchor) => statat(anchor, name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|s| match FileType::from_raw_mode(s.st_mode) {
                    FileType::RegularFile => EntryKind::File,
                    FileType::Directory => EntryKind::Folder,
                    _ => EntryKind::Other,
                })
                .map_err(io::Error::from),
            None => self.disk.meta(&self.path(name)).map(|m| m.kind),
        };
        match found {
            Ok(kind) => Ok(Some(kind)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.refused(name, e)),
        }
    }

    /// Whether a file of this name is there. A folder in its place is [`BackupError::Differs`] from
    /// `what`, a link is a path that leads through one.
    pub(super) fn has_file(&self, name: &str, what: &str) -> Result<bool, BackupError> {
        match self.kind(name)? {
            None => Ok(false),
            Some(EntryKind::File) => Ok(true),
            Some(EntryKind::Folder) => Err(BackupError::Differs {
                path: self.shown(name),
                what: what.to_owned(),
            }),
            Some(EntryKind::Other) => Err(through_link(&self.shown(name))),
        }
    }

    /// The path of a name in it, for calls of the disk.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// The path of a name in it, for messages.
    pub(super) fn shown(&self, name: &str) -> PathBuf {
        self.shown.join(name)
    }

    /// Names in it.
    pub(super) fn names(&self) -> Result<Vec<String>, BackupError> {
        let entries = self
            .disk
            .list(&self.at)
            .map_err(|e| failed(&self.shown, e))?;
        Ok(entries.into_iter().map(|e| e.name).collect())
    }

    /// Room on its volume.
    pub(super) fn space(&self) -> io::Result<Space> {
        self.disk.space(&self.at)
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), BackupError> {
        self.disk
            .sync_folder(&self.at)
            .map_err(|e| failed(&self.shown, e))
    }

    /// Removes a file if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), BackupError> {
        match self.disk.remove_file(&self.path(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| self.refused(name, e)),
        }
    }

    /// What the system said when `name` was to be looked at, made, written, replaced or removed:
    /// where that is not permitted, it is this folder that is to be changed.
    pub(super) fn refused(&self, name: &str, e: io::Error) -> BackupError {
        match is_denied(&e) {
            true => failed(&self.shown, e),
            false => failed(&self.shown(name), e),
        }
    }
}

/// How folders are opened: to stand on, neither read nor written.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path that leads to the open folder itself, if the system has such paths.
fn by_descriptor(anchor: &OwnedFd) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", anchor.as_raw_fd()));
    let (there, here) = (stat(&path).ok()?, fstat(anchor).ok()?);
    (there.st_dev == here.st_dev && there.st_ino == here.st_ino).then_some(path)
}

/// Makes the root and what is missing above it. An error names the folder that could not be made.
fn make(disk: &Arc<dyn Disk>, root: &Path, made: &mut Vec<PathBuf>) -> Result<(), BackupError> {
    let mut missing = Vec::new();
    let mut at = root;
    loop {
        match disk.meta(at) {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(at),
            Err(e) => return Err(failed(at, e)),
        }
        at = at
            .parent()
            .ok_or_else(|| failed(root, io::ErrorKind::NotFound.into()))?;
    }
    for folder in missing.into_iter().rev() {
        match disk.create_folder(folder) {
            Ok(()) => made.push(folder.to_owned()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(folder, e)),
        }
        let parent = folder.parent().expect("`/` is always there");
        disk.sync_folder(parent).map_err(|e| failed(parent, e))?;
    }
    Ok(())
}

fn through_link(path: &Path) -> BackupError {
    BackupError::BadPath(format!(
        "the path leads through a symbolic link: {}",
        path.display()
    ))
}

/// What the system said about `path`, by what the caller does about it.
pub(super) fn failed(path: &Path, source: io::Error) -> BackupError {
    match source.kind() {
        _ if is_denied(&source) => BackupError::Permission(path.to_owned()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BackupError::NoSpace,
        _ => BackupError::Io {
            path: path.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests;
