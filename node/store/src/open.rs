//! From a folder to an open environment: making a new one so that it appears whole, looking at an
//! old one before it is mapped, choosing the size of the map.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use heed::{CommitOrAbort, Env, EnvOpenOptions, WithoutTls};
use rustix::io::Errno;

use crate::view::Main;
use crate::{Error, image};

/// Name of the file that holds the state, in the folder of the environment.
pub const DATA_FILE: &str = "data.mdb";
/// Name of LMDB's lock file beside it. It holds nothing that outlives the process.
pub const LOCK_FILE: &str = "lock.mdb";
/// Folder in which a new environment is made before its file gets its name.
const MAKING: &str = "making";

/// Transactions that may be open at once, copies included.
pub(crate) const MAX_READERS: u32 = 4_096;
/// Maps are multiples of this, which is one of every page size there is.
const MAP_STEP: u64 = 1 << 20;

/// How a [`Store`](crate::Store) is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Address space to reserve at first, in bytes; the map grows when it must. A file of more
    /// than half of this gets twice its own size.
    pub map_size: u64,
    /// What to do when there is no environment.
    pub create: Create,
}

/// What to do when there is no environment in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// Make an empty one.
    IfMissing,
    /// Refuse with [`Error::Missing`].
    MustExist,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            map_size: 64 << 30,
            create: Create::IfMissing,
        }
    }
}

/// What [`open`] gives.
pub(crate) struct Opened {
    pub(crate) env: Env<WithoutTls>,
    pub(crate) db: Main,
    /// The same file as LMDB's, for its length.
    pub(crate) file: File,
}

/// Opens the environment in `folder`.
pub(crate) fn open(folder: &Path, options: Options) -> Result<Opened, Error> {
    let folder = &folder.canonicalize().map_err(|e| Error::open(folder, e))?;
    // Before anything is touched: closing a second descriptor of the lock file would drop the
    // locks that this process holds on it (POSIX record locks belong to the process).
    if heed::env_closing_event(folder).is_some() {
        return Err(Error::AlreadyOpen {
            path: folder.clone(),
        });
    }
    let data = folder.join(DATA_FILE);
    let file = match open_file(&data) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => match options.create {
            Create::MustExist => return Err(Error::Missing { path: data }),
            Create::IfMissing => {
                make(folder)?;
                open_file(&data).map_err(|e| Error::open(&data, e))?
            }
        },
        Err(e) => return Err(Error::open(&data, e)),
    };
    let meta = image::check_live(&file).map_err(|e| Error::file(&data, e))?;
    let len = lengthen(&file, meta.bytes()).map_err(|e| Error::open(&data, e))?;
    lock_file_is_usable(&folder.join(LOCK_FILE))?;

    let (env, db) = map(folder, options.map_size, len)?;
    Ok(Opened { env, db, file })
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Makes the file at least `want` bytes long; its length afterwards.
pub(crate) fn lengthen(file: &File, want: u64) -> io::Result<u64> {
    let len = file.metadata()?.len();
    if len >= want {
        return Ok(len);
    }
    file.set_len(want)?;
    Ok(want)
}

/// Makes an empty environment beside its place and moves it there whole: a kill in between leaves
/// no `data.mdb`, never an empty one, which [`image::check_live`] calls corrupted.
fn make(folder: &Path) -> Result<(), Error> {
    let making = folder.join(MAKING);
    let at = |e| Error::open(&making, e);
    match fs::remove_dir_all(&making) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
        _ => fs::create_dir(&making).map_err(at)?,
    }
    let (env, _) = map(&making, MAP_STEP, 0)?;
    env.force_sync()
        .map_err(|e| Error::lmdb("syncing a new database", e))?;
    env.prepare_for_closing().wait();
    fs::rename(making.join(DATA_FILE), folder.join(DATA_FILE)).map_err(at)?;
    fs::remove_dir_all(&making).map_err(at)?;
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| Error::open(folder, e))
}

/// LMDB does not say which of its two files it could not open: asked beforehand, without opening
/// a lock file that is there.
fn lock_file_is_usable(path: &Path) -> Result<(), Error> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let rights = Access::READ_OK | Access::WRITE_OK;
    match accessat(CWD, path, rights, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        // LMDB would make it readable to all: it is ours alone, as every file.
        Err(Errno::NOENT) => File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map(drop)
            .map_err(|e| Error::open(path, e)),
        Err(e) => Err(Error::open(path, e.into())),
    }
}

/// Maps the environment in `folder`, whose file has `len` bytes and has been looked at.
fn map(folder: &Path, map_size: u64, len: u64) -> Result<(Env<WithoutTls>, Main), Error> {
    let doubled = len.saturating_mul(2);
    let mut size = steps(map_size.max(doubled));
    loop {
        match map_once(folder, size) {
            // A limit on address space: take half as long as the file still fits twice.
            Err(heed::Error::Io(e))
                if Errno::from_io_error(&e) == Some(Errno::NOMEM) && size / 2 >= steps(doubled) =>
            {
                size = steps(size as u64 / 2);
                tracing::warn!(
                    map_bytes = size,
                    "no address space for the map wanted: smaller"
                );
            }
            Err(heed::Error::EnvAlreadyOpened) => {
                return Err(Error::AlreadyOpen {
                    path: folder.to_owned(),
                });
            }
            Err(heed::Error::Io(e)) => return Err(Error::open(folder, e)),
            other => return other.map_err(|e| Error::lmdb("opening the database", e)),
        }
    }
}

/// Has the allocator give LMDB's lists of pages back to the system and take them fresh. LMDB takes 3 MiB for them
/// at each opening, 2 of them zeroed, and needs them in big transactions only. Fresh from the system they cost
/// nothing before they are touched. But glibc raises its bound for that to whatever is freed: after the first
/// environment was closed, the next ones' lists come from its heap, are zeroed there, and stay in memory,
/// 2 MiB for each namespace that does nothing. A bound that is set does not move.
fn keep_lists_apart() {
    #[cfg(target_env = "gnu")]
    {
        /// Less than either list, more than what is taken and given back all the time.
        const BOUND: std::ffi::c_int = 1 << 20;
        static ONCE: std::sync::Once = std::sync::Once::new();
        #[expect(
            unsafe_code,
            reason = "only the allocator of C can be told, and only LMDB needs it to be"
        )]
        // SAFETY: it takes a number and changes how later blocks are found; blocks that were given out stay
        // as they are, whoever holds them.
        ONCE.call_once(|| unsafe {
            if libc::mallopt(libc::M_MMAP_THRESHOLD, BOUND) == 0 {
                tracing::debug!("the allocator keeps its own bound");
            }
        });
    }
}

fn map_once(folder: &Path, size: usize) -> Result<(Env<WithoutTls>, Main), heed::Error> {
    keep_lists_apart();
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(size).max_readers(MAX_READERS);
    #[expect(
        unsafe_code,
        reason = "a memory map is only as sound as the file under it; this is the one crate that \
                  maps, and only files that it has made or looked at"
    )]
    // SAFETY: no flags that weaken LMDB are set. The file is long enough for every page that its
    // meta pages name (`image::check_live`, or new and empty), the process opens it once (heed
    // refuses a second time), and nobody else may write or cut it while a node holds the folder.
    let env = unsafe { options.open(folder)? };
    let txn = env.read_txn()?;
    let db = env
        .open_databases_and_commit(txn, |opener, txn| {
            opener
                .open_database(txn, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    // The unnamed database is part of every environment.
    let db = db.ok_or(heed::Error::Mdb(heed::MdbError::NotFound))?;
    Ok((env, db))
}

/// A map size of at least `bytes`, in whole steps, that the machine can address.
pub(crate) fn steps(bytes: u64) -> usize {
    let rounded = bytes.max(1).div_ceil(MAP_STEP).saturating_mul(MAP_STEP);
    usize::try_from(rounded).unwrap_or(usize::MAX / (1 << 20) * (1 << 20))
}
