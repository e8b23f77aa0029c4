//! The open files and held locks of a [`MemoryDisk`].

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use super::faults::eio;
use super::state::{State, fail};
use super::tree::Id;
use super::{Effect, MemoryDisk, OpKind, Operation};
use crate::{Access, File, Lock};

/// Keeps a file while it is open, name or no name.
pub(super) struct Handle {
    disk: MemoryDisk,
    id: Id,
    path: PathBuf,
}

impl Handle {
    /// The caller has counted it in the file.
    pub(super) fn new(disk: MemoryDisk, id: Id, path: PathBuf) -> Handle {
        Handle { disk, id, path }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        let content = state.tree.file_mut(self.id).expect("an open file is kept");
        content.open -= 1;
        if content.open == 0 && !content.linked {
            state.room.used -= content.current.allocated();
            state.tree.tidy();
        }
    }
}

pub(super) struct MemoryFile {
    handle: Handle,
    access: Access,
}

impl MemoryFile {
    pub(super) fn new(handle: Handle, access: Access) -> MemoryFile {
        MemoryFile { handle, access }
    }

    fn operation(&self, state: &State, kind: OpKind, offset: u64, len: usize) -> Operation {
        Operation {
            offset,
            len,
            ..state.operation(kind, &self.handle.path)
        }
    }

    fn writable(&self) -> io::Result<()> {
        match self.access {
            // What the kernel says to a write on a descriptor opened for reading (EBADF).
            Access::Read => Err(io::Error::from_raw_os_error(9)),
            Access::Write | Access::CreateNew => Ok(()),
        }
    }
}

/// Offsets that a file system knows.
fn end_of(offset: u64, len: usize) -> io::Result<u64> {
    let end = offset.checked_add(len as u64);
    let known = end.filter(|end| i64::try_from(*end).is_ok());
    known.ok_or_else(|| ErrorKind::FileTooLarge.into())
}

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.handle.disk.state.lock();
        let operation = self.operation(&state, OpKind::Read, offset, buf.len());
        let effect = state.begin(operation)?;
        fail(effect)?;
        let most = match effect {
            Some(Effect::Short(n)) => n.max(1).min(buf.len()),
            _ => buf.len(),
        };
        let content = state.tree.file(self.handle.id)?;
        content.read(&mut buf[..most], offset).ok_or_else(eio)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.writable()?;
        end_of(offset, buf.len())?;
        let mut guard = self.handle.disk.state.lock();
        let state = &mut *guard;
        let operation = self.operation(state, OpKind::Write, offset, buf.len());
        let effect = state.begin(operation)?;
        fail(effect)?;
        if buf.is_empty() {
            return Ok(0);
        }
        let (most, lands) = match effect {
            Some(Effect::Short(n)) => (n.max(1).min(buf.len()), offset),
            Some(Effect::Misdirect(elsewhere)) => (buf.len(), elsewhere),
            _ => (buf.len(), offset),
        };
        end_of(lands, most)?;
        let content = state.tree.file_mut(self.handle.id)?;
        let fitting = content.current.fitting(offset, most, state.room.left());
        if fitting == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let before = content.current.allocated();
        content.write(&buf[..fitting], offset, lands);
        state.room.used += content.current.allocated() - before;
        Ok(fitting)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.handle.disk.state.lock();
        let operation = self.operation(&state, OpKind::Sync, 0, 0);
        let failed = fail(state.begin(operation)?);
        let seed = state.seed;
        let content = state.tree.file_mut(self.handle.id)?;
        match failed {
            Ok(()) => content.sync(),
            Err(ref e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => content.fail_sync(seed),
        }
        failed
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        end_of(len, 0)?;
        let mut guard = self.handle.disk.state.lock();
        let state = &mut *guard;
        let operation = self.operation(state, OpKind::SetLen, len, 0);
        fail(state.begin(operation)?)?;
        let content = state.tree.file_mut(self.handle.id)?;
        let before = content.current.allocated();
        content.set_len(len);
        state.room.used -= before - content.current.allocated();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.handle.disk.state.lock();
        let operation = self.operation(&state, OpKind::Len, 0, 0);
        fail(state.begin(operation)?)?;
        Ok(state.tree.file(self.handle.id)?.current.len())
    }
}

/// A file of a native folder: the real one, until the disk freezes.
pub(super) struct NativeFile {
    disk: MemoryDisk,
    file: Arc<dyn File>,
    path: PathBuf,
}

impl NativeFile {
    pub(super) fn new(disk: MemoryDisk, file: Arc<dyn File>, path: PathBuf) -> NativeFile {
        NativeFile { disk, file, path }
    }

    /// Does `work` unless the disk is frozen; locked, so that nothing happens after freezing.
    fn pass<T>(
        &self,
        kind: OpKind,
        work: impl FnOnce(&dyn File) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        let operation = state.operation(kind, &self.path);
        state.begin_native(&operation)?;
        work(&*self.file)
    }
}

impl File for NativeFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.pass(OpKind::Read, |file| file.read_at(buf, offset))
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.pass(OpKind::Write, |file| file.write_at(buf, offset))
    }
    fn sync(&self) -> io::Result<()> {
        self.pass(OpKind::Sync, File::sync)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pass(OpKind::SetLen, |file| file.set_len(len))
    }
    fn len(&self) -> io::Result<u64> {
        self.pass(OpKind::Len, File::len)
    }
}

pub(super) struct MemoryLock(Handle);

impl MemoryLock {
    pub(super) fn new(handle: Handle) -> MemoryLock {
        MemoryLock(handle)
    }
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.disk.state.lock().locks.remove(&self.0.id);
    }
}
