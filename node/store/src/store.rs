//! [`Store`]: the live environment.
//!
//! One unnamed database, keys of 1 to 511 bytes, values of any. One writer at a time; any number of
//! [`View`]s beside it. Every commit is synced before it returns.
//!
//! When a commit fails:
//!
//! | cause | answer | afterwards |
//! | --- | --- | --- |
//! | no room (ENOSPC, EDQUOT, file size limit) | [`Error::Full`] | the state before; try again |
//! | map full, views do not end | [`Error::Busy`] | the state before; try again |
//! | write or sync failed | [`Error::Poisoned`] | no commit until the next start |
//!
//! LMDB writes pages that no commit names, syncs, and only then the meta page that names them: a
//! commit that failed before its meta page has changed nothing, whatever became of its pages.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heed::{Env, MdbError, WithoutTls};
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::gate::{Gate, Lost};
use crate::open::{self, Options};
use crate::view::Main;
use crate::{Error, View};

/// Longest key, in bytes: LMDB's own limit.
pub const KEY_BYTES: usize = 511;
/// Longest value, in bytes; what [`image`](crate::image) is willing to read, too.
pub const VALUE_BYTES: usize = 128 << 20;
/// How long a growth waits for views and copies to end.
const GROW_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5_000 });
/// Why nothing goes any more after a growth that failed half way.
const LOST: &str = "the memory map could not grow and was lost";

/// The state of one namespace on disk. Clones are handles to the same environment.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    env: Env<WithoutTls>,
    db: Main,
    file: File,
    gate: Arc<Gate>,
    /// Held during a commit.
    writer: Mutex<()>,
    /// What failed for good, once something has. Apart from `writer`, so that asking costs no wait.
    failed: Mutex<Option<String>>,
    /// Told when that happens.
    when_poisoned: Mutex<Option<WhenPoisoned>>,
}

/// Told once what has failed.
type WhenPoisoned = Box<dyn FnOnce(&str) + Send>;

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("env", &self.env)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Figures about a store, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Size of the map, in bytes.
    pub map_bytes: u64,
    /// Length of the file, in bytes.
    pub file_bytes: u64,
    /// Size of a page, in bytes.
    pub page_bytes: u64,
    /// Pages that hold entries.
    pub used_pages: u64,
    /// Pages that hold none: free ones, and those that list them.
    pub free_pages: u64,
    /// Entries.
    pub entries: u64,
    /// Views and copies that are open.
    pub readers: usize,
}

impl Store {
    /// Opens the environment in `folder`, which must exist.
    ///
    /// An existing file is looked at (size and both meta pages) before it is mapped. Whether it may
    /// be trusted beyond that is the caller's to know: see [`image`](crate::image).
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::File`], [`Error::Open`], [`Error::AlreadyOpen`]. No existing
    /// file is changed then.
    pub fn open(folder: &Path, options: Options) -> Result<Store, Error> {
        let open::Opened { env, db, file } = open::open(folder, options)?;
        Ok(Store(Arc::new(Inner {
            env,
            db,
            file,
            gate: Arc::default(),
            writer: Mutex::new(()),
            failed: Mutex::new(None),
            when_poisoned: Mutex::new(None),
        })))
    }

    /// A view of the last commit. Waits while the map grows; a thread that already holds a view
    /// and asks for another may so wait for up to five seconds.
    ///
    /// # Errors
    /// [`Error::Readers`], or [`Error::Poisoned`] when the map was lost.
    pub fn read(&self) -> Result<View, Error> {
        let pass = self.gate().enter().map_err(|Lost| Store::lost())?;
        let txn = self.0.env.clone().static_read_txn();
        let txn = txn.map_err(|e| Error::lmdb("beginning to read", e))?;
        Ok(View::new(txn, self.0.db, pass))
    }

    /// Writes all of `changes` in one synced transaction, or nothing: a value sets its key, `None`
    /// removes it (one that is not there is no error). Later changes win. Fastest in key order.
    ///
    /// # Errors
    /// See the table above; [`Error::Size`] before anything is written.
    pub fn commit<K, V>(
        &self,
        changes: impl IntoIterator<Item = (K, Option<V>)>,
    ) -> Result<(), Error>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        // Kept, because a transaction that fills the map is done again in a larger one.
        let changes: Vec<(K, Option<V>)> = changes.into_iter().collect();
        let mut bytes = 0u64;
        for (key, value) in &changes {
            let (key, value) = (key.as_ref(), value.as_ref().map_or(&[][..], AsRef::as_ref));
            check_size("key", key.len(), 1, KEY_BYTES, "1 to 511 bytes")?;
            check_size("value", value.len(), 0, VALUE_BYTES, "at most 128 MiB")?;
            bytes = bytes.saturating_add((key.len() + value.len()) as u64);
        }

        let _writer = self.0.writer.lock();
        if let Some(why) = self.poisoned() {
            return Err(Error::Poisoned { why });
        }
        self.grow_ahead();
        loop {
            match self.attempt(&changes) {
                Ok(()) => break,
                Err(heed::Error::Mdb(MdbError::MapFull)) => self.grow(bytes)?,
                Err(heed::Error::Io(source)) => return Err(self.judge(source, bytes)),
                Err(e) => {
                    let e = Error::lmdb("committing", e);
                    if let Error::Poisoned { why } = &e {
                        self.poison(why);
                    }
                    return Err(e);
                }
            }
        }
        self.keep_length();
        Ok(())
    }

    /// Waits until every clone and view is gone and the environment is closed, so that this process
    /// can open the folder again. A caller that still holds a view waits for ever.
    pub fn close(self) {
        let event = self.0.env.clone().prepare_for_closing();
        drop(self);
        event.wait();
    }

    /// Figures about the store.
    ///
    /// # Errors
    /// As for [`read`](Store::read).
    pub fn stats(&self) -> Result<Stats, Error> {
        let readers = self.gate().open();
        let view = self.read()?;
        let info = self.0.env.info();
        let pages = info.last_page_number as u64 + 1;
        let mut stats = Stats {
            map_bytes: info.map_size as u64,
            file_bytes: self.file_bytes().unwrap_or(0),
            page_bytes: u64::from(self.0.env.unnamed_database_stat().page_size),
            readers,
            ..Stats::default()
        };
        view.fill(&mut stats)?;
        // Two pages are the meta pages.
        stats.free_pages = pages.saturating_sub(2 + stats.used_pages);
        Ok(stats)
    }

    /// What had failed, if nothing can be committed until the next start.
    pub fn poisoned(&self) -> Option<String> {
        self.0.failed.lock().clone()
    }

    /// Calls `tell` once, by whoever meets the failure, as soon as nothing can be committed any more.
    /// What the file shows is from then on no proof of what is on the medium: a page whose sync
    /// failed looks good in the page cache, also to the next process.
    pub fn when_poisoned(&self, tell: impl FnOnce(&str) + Send + 'static) {
        *self.0.when_poisoned.lock() = Some(Box::new(tell));
    }

    /// Takes no more commits until the next start, as after a failed sync: for a caller that has met
    /// one.
    pub fn poison(&self, why: &str) {
        tracing::error!(
            why,
            "the database takes no more writes until the next start"
        );
        *self.0.failed.lock() = Some(why.to_owned());
        let tell = self.0.when_poisoned.lock().take();
        if let Some(tell) = tell {
            tell(why);
        }
    }

    pub(crate) fn env(&self) -> &Env<WithoutTls> {
        &self.0.env
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.0.gate
    }

    pub(crate) fn lost() -> Error {
        let why = LOST.to_owned();
        Error::Poisoned { why }
    }

    fn file_bytes(&self) -> io::Result<u64> {
        self.0.file.metadata().map(|m| m.len())
    }

    fn attempt<K, V>(&self, changes: &[(K, Option<V>)]) -> Result<(), heed::Error>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let Inner { env, db, .. } = &*self.0;
        let mut txn = env.write_txn()?;
        for (key, value) in changes {
            match value {
                Some(value) => db.put(&mut txn, key.as_ref(), value.as_ref())?,
                None => drop(db.delete(&mut txn, key.as_ref())?),
            }
        }
        txn.commit()
    }

    /// What an I/O error of a commit means. LMDB says EIO for a short write, which is what a disk
    /// that fills up in the middle of one gives: so ask the file system for room.
    fn judge(&self, source: io::Error, bytes: u64) -> Error {
        let cause = Errno::from_io_error(&source);
        if cause == Some(Errno::IO)
            && let Some(source) = self.no_room_for(bytes)
        {
            return Error::Full {
                source: source.into(),
            };
        }
        match cause {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Error::Full { source },
            // Memory ran out in the transaction: nothing has reached the file.
            Some(Errno::NOMEM) => Error::lmdb("committing", heed::Error::Io(source)),
            _ => {
                let why = format!("a commit failed: {source}");
                self.poison(&why);
                Error::Poisoned { why }
            }
        }
    }

    fn no_room_for(&self, bytes: u64) -> Option<Errno> {
        let file = &self.0.file;
        let len = self.file_bytes().ok()?;
        // A commit writes whole pages, and the path to each: more than its entries.
        let bytes = bytes.saturating_mul(2).saturating_add(1 << 20);
        // Not KEEP_SIZE: the kernel then does not look at the limit on the file's size.
        match rustix::fs::fallocate(file, FallocateFlags::empty(), len, bytes) {
            Ok(()) => {
                let kept = file.set_len(len);
                tracing::debug!(?kept, "there was room after all");
                None
            }
            Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Some(e),
            Err(_) => rustix::fs::fstatvfs(file)
                .is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < bytes)
                .then_some(Errno::NOSPC),
        }
    }

    /// LMDB does not write a last page that was used and freed in one transaction, and leaves the
    /// file short of it. A file shorter than its meta page says looks cut: so it never is.
    fn keep_length(&self) {
        let info = self.0.env.info();
        let page = u64::from(self.0.env.unnamed_database_stat().page_size);
        let want = (info.last_page_number as u64 + 1) * page;
        if let Err(e) = open::lengthen(&self.0.file, want) {
            // The commit stands, and `image::check_live` tells such a file from a cut one.
            tracing::warn!(error = %e, "the database file could not be extended");
        }
    }

    /// Grows the map early, if it costs nobody a wait.
    fn grow_ahead(&self) {
        let info = self.0.env.info();
        let page = u64::from(self.0.env.unnamed_database_stat().page_size);
        let used = (info.last_page_number as u64 + 1) * page;
        let map = info.map_size as u64;
        if used > map / 4 * 3
            && let Some(shut) = self.gate().shut_if_idle()
            && let Err(e) = self.remap(shut, map.saturating_mul(2))
        {
            tracing::warn!(error = %e, "the database map could not grow ahead of need");
        }
    }

    /// Grows the map to at least twice its size, as soon as no transaction is open.
    fn grow(&self, bytes: u64) -> Result<(), Error> {
        let map = self.0.env.info().map_size as u64;
        let shut = self
            .gate()
            .shut(GROW_PATIENCE)
            .map_err(|open| Error::Busy {
                map_bytes: map,
                open,
            })?;
        self.remap(shut, map.saturating_add(map.max(bytes)))
    }

    fn remap(&self, shut: crate::gate::Shut<'_>, size: u64) -> Result<(), Error> {
        let size = open::steps(size);
        #[expect(unsafe_code, reason = "growing the memory map moves it")]
        // SAFETY: no transaction is open: views and copies hold a pass, and none is out while
        // `shut` lives; the caller holds the writer's lock, and its transaction has ended.
        let grown = unsafe { self.0.env.resize(size) };
        match grown {
            Ok(()) => {
                tracing::info!(map_bytes = size, "the database map has grown");
                Ok(())
            }
            Err(e) => {
                // LMDB unmaps first: now there is no map, and a transaction would read at zero.
                shut.lose();
                tracing::error!(error = %e, map_bytes = size, "the database map is lost");
                self.poison(LOST);
                Err(Store::lost())
            }
        }
    }
}

fn check_size(
    what: &'static str,
    bytes: usize,
    least: usize,
    most: usize,
    limit: &'static str,
) -> Result<(), Error> {
    if (least..=most).contains(&bytes) {
        return Ok(());
    }
    Err(Error::Size { what, bytes, limit })
}

#[cfg(test)]
pub(crate) mod tests;
