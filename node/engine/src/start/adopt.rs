//! How a `data.mdb` becomes ours: made new, or taken over from elsewhere, and never mapped before its
//! bytes are known to be good and to be on the medium (D16, P14).

use std::path::Path;

use unisondb_platform::{Access, Disk, EntryKind, FileExt, FolderEntry};
use unisondb_store::{Create, Store};
use unisondb_types::Lsn;

use super::act::Ground;
use super::findings::Db;
use super::{StartError, files};
use crate::state::entry;
use crate::state::position;
use crate::state::table;

impl Ground<'_> {
    /// An LMDB file of ours with nothing in it. One that lies there has nothing in it either, and
    /// nobody knows where it comes from: it is made again rather than mapped.
    pub(super) fn blank_db(&self) -> Result<(), StartError> {
        let data = &self.places.data;
        self.remove_if_there(data)?;
        let store = self.open_store(Create::IfMissing)?;
        self.own(&store)?;
        store.close();
        Ok(())
    }

    /// A file of another origin becomes ours, and so does one of ours again after a failed write.
    /// It has been verified. What has no trailer, has another name or has failed is written afresh:
    /// it was read through the page cache, which shows what may never reach the medium, and nothing
    /// is written to what may be somebody's backup. Otherwise the trailer is cut off.
    pub(super) fn adopt(&self, db: &Db) -> Result<(), StartError> {
        let path = &self.places.data;
        let cut_to = match db {
            Db::Missing | Db::Blank | Db::Live(_) => return Ok(()),
            Db::Failed(_) => None,
            Db::Image { cut_to, .. } => *cut_to,
        };
        match cut_to {
            Some(len) if !self.data_is_linked()? => {
                // Opened for writing by us first: a file of another user is named before LMDB sees it.
                let file = self
                    .disk()
                    .open(path, Access::Write)
                    .map_err(|e| StartError::io(path, e))?;
                self.lock_file_ours()?;
                file.set_len(len)
                    .and_then(|()| file.sync())
                    .map_err(|e| StartError::io(path, e))?;
            }
            _ => {
                self.lock_file_ours()?;
                self.write_afresh(cut_to)?;
            }
        }
        if matches!(db, Db::Failed(_)) {
            // The id in it is the one that it had: no commit, which could fail as the last one did
            // and leave a file that nobody knows.
            return files::own_again(self.disk(), &self.places);
        }
        let store = self.open_store(Create::MustExist)?;
        self.own(&store)?;
        store.close();
        Ok(())
    }

    /// Whether `data.mdb` is a symbolic link, or one of several hard links.
    fn data_is_linked(&self) -> Result<bool, StartError> {
        let data = &self.places.data;
        let meta = self.disk().meta(data);
        if meta.map_err(|e| StartError::io(data, e))?.names > 1 {
            return Ok(true);
        }
        let db = &self.places.db;
        let entries = self.disk().list(db).map_err(|e| StartError::io(db, e))?;
        let is_link =
            |e: &FolderEntry| e.name == unisondb_store::DATA_FILE && e.kind == EntryKind::Other;
        Ok(entries.iter().any(is_link))
    }

    /// Puts a new, synced file with the same bytes, or their beginning, in the place of `data.mdb`.
    fn write_afresh(&self, len: Option<u64>) -> Result<(), StartError> {
        let path = &self.places.data;
        let fresh = self.places.db.join("data.mdb.tmp");
        self.remove_if_there(&fresh)?;
        let written = copy_bytes(self.disk(), path, &fresh, len).and_then(|()| {
            self.disk()
                .rename(&fresh, path)
                .and_then(|()| self.disk().sync_folder(&self.places.db))
                .map_err(|e| StartError::io(path, e))
        });
        if written.is_err() {
            // Best effort; the next try removes it too.
            drop(self.disk().remove_file(&fresh));
        }
        written
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), StartError> {
        match self.disk().remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StartError::io(path, e)),
            _ => Ok(()),
        }
    }

    /// LMDB will need a lock file of its own: named before anything is changed, if we may not have it.
    fn lock_file_ours(&self) -> Result<(), StartError> {
        let path = self.places.db.join(unisondb_store::LOCK_FILE);
        let ours = match self.disk().open(&path, Access::Write) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self
                .disk()
                .open(&path, Access::CreateNew)
                .and_then(|_| self.disk().remove_file(&path)),
            other => other.map(drop),
        };
        ours.map_err(|e| StartError::io(&path, e))
    }

    /// Writes a fresh owner id beside LMDB's file and into it: both say "ours" only together. The
    /// file first: pages of a commit that a kill cut short lie behind the last one, which beside no
    /// owner at all means a cut snapshot.
    fn own(&self, store: &Store) -> Result<(), StartError> {
        let id = self.platform.entropy.id();
        files::write_owner(self.disk(), &self.places, &id)?;
        let key = table::meta(position::OWNER);
        let (_, bytes) = entry::encode(&key, Lsn::ZERO, &id);
        Ok(store.commit([(key, Some(bytes))])?)
    }

    pub(super) fn open_store(&self, create: Create) -> Result<Store, StartError> {
        let native = self
            .disk()
            .native(&self.places.db)
            .map_err(|e| StartError::io(&self.places.db, e))?;
        let options = unisondb_store::Options {
            map_size: self.request.map_size,
            create,
        };
        let store = Store::open(&native, options)?;
        let (disk, places) = (self.platform.disk.clone(), self.places.clone());
        store.when_poisoned(move |_| files::disown(disk.as_ref(), &places));
        Ok(store)
    }
}

/// Copies one file whole, synced.
pub(super) fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StartError> {
    copy_bytes(disk, from, to, None)
}

/// Copies a file, or its first `len` bytes, into a new one, synced.
fn copy_bytes(disk: &dyn Disk, from: &Path, to: &Path, len: Option<u64>) -> Result<(), StartError> {
    let copy = || {
        let source = disk.open(from, Access::Read)?;
        let sink = disk.open(to, Access::CreateNew)?;
        let len = match len {
            Some(len) => len,
            None => source.len()?,
        };
        let mut block = vec![0; 1 << 20];
        let mut at = 0;
        while at < len {
            let n = usize::try_from(len - at).map_or(block.len(), |n| n.min(block.len()));
            source.read_exact_at(&mut block[..n], at)?;
            sink.write_all_at(&block[..n], at)?;
            at += n as u64;
        }
        sink.sync()
    };
    copy().map_err(|e| StartError::io(to, e))
}
