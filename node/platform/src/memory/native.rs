//! [`Native`]: the folders of an in-memory disk that lie on the real one, because a library (LMDB)
//! opens them by itself.
//!
//! Such a folder is told by its name. It is kept on the scratch folder under the number of the
//! in-memory folder that holds it, so that renaming any folder above it moves nothing. What lies
//! there is durable at once and knows no faults; a crash keeps it as it is when the disk freezes.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::tree::{Id, ROOT, Tree};
use crate::real::RealDisk;
use crate::{Disk, FolderEntry};

/// Which folders lie on the machine's own file system.
#[derive(Debug, Clone, Default)]
pub struct Native(Option<Scratch>);

#[derive(Debug, Clone)]
struct Scratch {
    name: String,
    folder: Arc<TempDir>,
}

impl Native {
    /// None.
    #[must_use]
    pub fn none() -> Native {
        Native(None)
    }

    /// Those named `name`, or `name` with a dot and more (`db`, `db.old`), are kept in `scratch`,
    /// which is removed with the disk.
    #[must_use]
    pub fn component(name: &str, scratch: TempDir) -> Native {
        Native(Some(Scratch {
            name: name.to_owned(),
            folder: Arc::new(scratch),
        }))
    }

    pub(super) fn has(&self, name: &OsStr) -> bool {
        self.0.as_ref().is_some_and(|scratch| {
            let rest = name
                .to_str()
                .and_then(|name| name.strip_prefix(&scratch.name));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    fn below(&self, parent: Id) -> Option<PathBuf> {
        Some(self.0.as_ref()?.folder.path().join(parent.to_string()))
    }

    /// Where the native names of the in-memory folder `parent` lie.
    pub(super) fn place(&self, parent: Id) -> io::Result<PathBuf> {
        let place = self.below(parent).ok_or(io::ErrorKind::Unsupported)?;
        fs::create_dir_all(&place)?;
        Ok(place)
    }

    /// The native names in the in-memory folder `parent`.
    pub(super) fn list(&self, parent: Id) -> io::Result<Vec<FolderEntry>> {
        match self.below(parent) {
            Some(place) if place.exists() => RealDisk.list(&place),
            _ => Ok(Vec::new()),
        }
    }

    /// A copy on a scratch folder of its own. Nothing may write while it is made.
    pub(super) fn copy(&self) -> Native {
        let copy = |scratch: &Scratch| {
            let beside = scratch.folder.path().parent().unwrap_or(Path::new("/tmp"));
            let to = tempfile::tempdir_in(beside)?;
            copy_all(scratch.folder.path(), to.path())?;
            Ok(Scratch {
                name: scratch.name.clone(),
                folder: Arc::new(to),
            })
        };
        let copied: io::Result<Option<Scratch>> = self.0.as_ref().map(copy).transpose();
        Native(copied.expect("the machine below has room for a copy of the scratch folder"))
    }

    /// Drops what lies in folders that a crash has taken away: nothing leads there any more, it would
    /// only take room.
    pub(super) fn prune(&self, tree: &Tree) {
        let Some(scratch) = &self.0 else { return };
        let parents = RealDisk.list(scratch.folder.path());
        for parent in parents.expect("the scratch folder can be read") {
            let there = parent
                .name
                .parse()
                .is_ok_and(|id: Id| id == ROOT || tree.has(id));
            if !there {
                fs::remove_dir_all(scratch.folder.path().join(parent.name))
                    .expect("what lies on the scratch folder is ours");
            }
        }
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            copy_all(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
