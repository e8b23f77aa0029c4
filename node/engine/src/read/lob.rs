//! Large objects: a manifest, and chunks that are read one at a time, so that gigabytes need no
//! gigabytes of memory. An object that is replaced while somebody reads it stays readable: its
//! chunks are pinned.

use bytes::Bytes;
use unisondb_store::Direction;
use unisondb_types::{Key, Lsn};

use crate::Error;
use crate::engine::{Engine, decode};
use crate::flush::Pin;
use crate::state::entry;
use crate::state::rows::Manifest;
use crate::state::table;
use crate::state::view::View;

/// A large object, readable as it was when it was opened.
pub struct Lob {
    /// The record that wrote it: its ETag.
    pub lsn: Lsn,
    /// Length in bytes.
    pub len: u64,
    /// CRC-32C of all its bytes.
    pub crc32c: u32,
    manifest: Manifest,
    engine: Engine,
    _pin: Pin,
}

impl Engine {
    /// Opens an object for reading.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Store`].
    pub fn lob(&self, key: &Key) -> Result<Option<Lob>, Error> {
        let name = table::lob(key);
        loop {
            let Some((lsn, manifest)) = self.manifest(&name)? else {
                return Ok(None);
            };
            let pin = Pin::new(&self.0, manifest.object);
            // Replaced and freed between the look and the pin? Then look again.
            if self.manifest(&name)?.is_some_and(|(now, _)| now == lsn) {
                return Ok(Some(Lob {
                    lsn,
                    len: manifest.len,
                    crc32c: manifest.crc32c,
                    manifest,
                    engine: self.clone(),
                    _pin: pin,
                }));
            }
        }
    }

    fn manifest(&self, name: &[u8]) -> Result<Option<(Lsn, Manifest)>, Error> {
        let Some(bytes) = self.fetch(name)? else {
            return Ok(None);
        };
        let e = self.checked(entry::open(name, &bytes))?;
        Ok(Some((e.lsn, decode(name, e.payload)?)))
    }
}

impl Lob {
    /// The rest of the chunk that `offset` lies in, checked; empty at the end of the object.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the chunk is missing or not what was written; [`Error::Store`].
    pub fn read(&self, offset: u64) -> Result<Bytes, Error> {
        if offset >= self.len {
            return Ok(Bytes::new());
        }
        let shared = &self.engine.0;
        let view = View::now(&shared.memtable, &shared.store)?;
        let first = table::chunk(&self.manifest.object, 0);
        let behind = table::chunk(&self.manifest.object, offset + 1);
        let found = view
            .range(&first, &behind, Direction::Backward)
            .next()
            .transpose()?;
        let missing = || Error::Damaged {
            what: format!("object {}", self.manifest.object),
            why: format!("the chunk at offset {offset} is missing"),
        };
        let Some((key, bytes)) = found else {
            return self.engine.checked(Err(missing()));
        };
        let chunk = self
            .engine
            .checked(entry::open_shared(&key, &bytes))?
            .payload;
        let begins = table::chunk_offset(&key).ok_or_else(missing)?;
        let skip = usize::try_from(offset - begins).unwrap_or(usize::MAX);
        if skip >= chunk.len() {
            return self.engine.checked(Err(missing()));
        }
        Ok(chunk.slice(skip..))
    }
}
