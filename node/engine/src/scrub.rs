//! Scrub: reads the whole state again, checks every entry against its checksum, and compares the
//! digest of what it read with the one on record (P13). Damage stops the namespace.

use unisondb_store::Direction;
use unisondb_types::{Digest, Lsn, SegmentId};

use crate::Error;
use crate::engine::Engine;
use crate::state::entry;
use crate::state::table::Table;
use crate::state::view::View;

/// Bytes read between two calls of the pacer.
const STRIDE: usize = 1 << 20;

/// What a scrub of the state found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// The moment that was read.
    pub lsn: Lsn,
    /// Entries read.
    pub entries: u64,
    /// The digest, of what was read and on record alike.
    pub digest: Digest,
}

impl Engine {
    /// Reads and checks the whole state as it is now. Blocks; calls `pace` after every mebibyte,
    /// which may sleep to bound the rate. One LMDB snapshot is held meanwhile: a pace so slow that
    /// it takes hours lets LMDB's file grow by what is written in those hours.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Diverged`]: the namespace has stopped.
    pub fn scrub_state(&self, pace: &mut dyn FnMut(usize)) -> Result<Scrubbed, Error> {
        let result = self.read_all(pace);
        if let Err(e @ (Error::Damaged { .. } | Error::Diverged { .. })) = &result {
            self.0.stop(&format!("scrub: {e}"));
        }
        result
    }

    fn read_all(&self, pace: &mut dyn FnMut(usize)) -> Result<Scrubbed, Error> {
        let view = View::now(&self.0.memtable, &self.0.store)?;
        let (mut digest, mut entries, mut bytes) = (Digest::EMPTY, 0, 0);
        for item in view.range(&[0], &[0xff], Direction::Forward) {
            let (key, value) = item?;
            let entry = entry::open(&key, &value)?;
            if Table::of(&key).is_some_and(Table::in_digest) {
                digest.add(&entry.hash);
            }
            entries += 1;
            bytes += key.len() + value.len();
            if bytes >= STRIDE {
                pace(bytes);
                bytes = 0;
            }
        }
        if digest != view.digest {
            return Err(Error::Diverged {
                segment: SegmentId::ZERO,
                lsn: view.lsn,
                expected: view.digest.to_string(),
                found: digest.to_string(),
            });
        }
        Ok(Scrubbed {
            lsn: view.lsn,
            entries,
            digest,
        })
    }
}
