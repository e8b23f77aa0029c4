//! A segment file that is made anew and published whole: written under a temporary name beside the
//! final one, synced, renamed. (That the name is durable is for the caller, once for all files.)

use std::path::{Path, PathBuf};
use std::sync::Arc;

use unisondb_platform::{Access, Disk, File, FileExt};
use unisondb_types::SegmentId;

use crate::error::Error;

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

pub(crate) struct Rewrite<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    tmp: PathBuf,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
}

/// The temporary name of a segment's file.
fn tmp_name(id: SegmentId) -> String {
    format!("{}.tmp", id.file_name())
}

/// Whether a file has a name that only an interrupted rewrite of a segment leaves behind.
pub(crate) fn is_tmp_name(name: &str) -> bool {
    name.strip_suffix(".tmp")
        .is_some_and(|n| SegmentId::parse_file_name(n).is_some())
}

impl<'a> Rewrite<'a> {
    pub fn start(disk: &'a dyn Disk, dir: &Path, id: SegmentId) -> Result<Rewrite<'a>, Error> {
        let tmp = dir.join(tmp_name(id));
        match disk.remove_file(&tmp) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("cannot remove", &tmp, e));
            }
            _ => {}
        }
        let file = disk
            .open(&tmp, Access::CreateNew)
            .map_err(|e| Error::io("cannot create", &tmp, e))?;
        Ok(Rewrite {
            disk,
            path: dir.join(id.file_name()),
            tmp,
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
        })
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.buffer.is_empty() && self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_out()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), Error> {
        self.file
            .write_all_at(&self.buffer, self.written)
            .map_err(|e| Error::io("cannot write", &self.tmp, e))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Synced and renamed; gives the open file.
    pub fn publish(mut self) -> Result<Arc<dyn File>, Error> {
        self.write_out()?;
        self.file
            .sync()
            .map_err(|e| Error::io("cannot sync", &self.tmp, e))?;
        self.disk
            .rename(&self.tmp, &self.path)
            .map_err(|e| Error::io("cannot rename", &self.tmp, e))?;
        Ok(self.file)
    }

    /// Given up: the temporary file goes.
    pub fn abandon(self) {
        // If it cannot be removed now, the next opening of the log removes it.
        drop(self.disk.remove_file(&self.tmp));
    }
}
