//! Taking back an uncommitted tail, on disk before it is said to be done (D2): removed files first,
//! newest first, then zeroes over the frames, synced. A crash in between leaves a shorter or the
//! whole tail, never one with a hole that looks whole.

use unisondb_platform::{Access, FileExt};
use unisondb_types::Lsn;

use super::Wal;
use super::state::{Life, Segment, State};
use super::sync::{Current, Io};
use crate::error::Error;
use crate::header::HEADER_BYTES;
use crate::reader::SegmentReader;
use crate::tally::{Hashing, Tally};

impl Wal {
    /// Removes all records after `lsn`, which must not be committed; synced when it returns.
    /// A segment that only they ended is active again.
    ///
    /// # Errors
    /// [`Error::BelowCommitted`], [`Error::Poisoned`], [`Error::Io`].
    pub fn truncate_after(&self, lsn: Lsn) -> Result<(), Error> {
        let mut io = self.inner.io.lock();
        self.sound()?;
        let mut state = self.inner.state.lock();
        if lsn >= state.positions.last {
            return Ok(());
        }
        if lsn < state.positions.committed {
            return Err(Error::BelowCommitted {
                asked: lsn,
                committed: state.positions.committed,
            });
        }
        let (target, tally) = self.plan(&state, lsn)?;
        if let Err(error) = self.carry_out(&mut io, &state, target, &tally) {
            // Half done, even a full disk would leave files that memory does not match.
            self.poison(&error);
            return Err(error);
        }
        state.segments.truncate(target + 1);
        let room = io.length_of(&state.segments[target]);
        let segment = state.active_mut();
        segment.tally = tally;
        segment.life = Life::Active;
        if let Some(room) = room {
            segment.room = room;
        }
        state.spare = match &io.spare {
            Some(file) if state.active().begun => file.len().unwrap_or(0),
            _ => 0,
        };
        state.recent.truncate_after(lsn);
        state.positions.last = lsn;
        state.positions.durable = state.positions.durable.min(lsn);
        state.truncations += 1;
        state.settle_last();
        self.publish(&state);
        drop(state);
        self.inner.cursors.lock().clear();
        Ok(())
    }

    /// Which segment is active afterwards, and what it then adds up to.
    fn plan(&self, state: &State, lsn: Lsn) -> Result<(usize, Tally), Error> {
        let holding = state.holding(lsn);
        if let Some(i) = holding {
            let segment = &state.segments[i];
            if lsn < segment.last() || !(segment.tally.ended || segment.is_sealed()) {
                return Ok((i, self.tally_at(state, segment, lsn)?));
            }
        }
        // It ends a segment for good, or nothing is left: the one behind it is emptied.
        let i = holding.map_or(0, |i| i + 1);
        let header = state.segments[i].tally.header.clone();
        Ok((i, Tally::new(header, Hashing::On)))
    }

    /// What a segment adds up to at one of its records: read again from its file as far as memory
    /// does not reach back.
    fn tally_at(&self, state: &State, segment: &Segment, lsn: Lsn) -> Result<Tally, Error> {
        let header = segment.tally.header.clone();
        let mut tally = Tally::new(header.clone(), Hashing::On);
        let in_memory = state.recent.first().unwrap_or(Lsn::MAX);
        if header.first_lsn < in_memory {
            let path = self.path(header.id);
            let damaged = |e| Error::damaged(header.id, &path, e);
            let mut reader = SegmentReader::open(self.disk(), &path).map_err(damaged)?;
            let upto = lsn.min(in_memory.prev());
            while reader.tally().last_lsn < upto {
                if reader.next().map_err(damaged)?.is_none() {
                    let from = reader.tally().last_lsn.next();
                    return Err(Error::Missing { from, to: upto });
                }
            }
            tally = reader.tally().clone();
        }
        for f in state.recent.from(tally.last_lsn.next()) {
            if f.entry.record.lsn > lsn {
                break;
            }
            tally.add(&f.entry.record, &f.frame, f.entry.crc);
        }
        assert_eq!(tally.last_lsn, lsn, "memory holds all that no file does");
        Ok(tally)
    }

    fn carry_out(
        &self,
        io: &mut Io,
        state: &State,
        target: usize,
        tally: &Tally,
    ) -> Result<(), Error> {
        let later = state.segments.range(target + 1..).rev();
        let mut removed = false;
        for segment in later.filter(|s| s.begun) {
            let path = self.path(segment.id());
            self.disk()
                .remove_file(&path)
                .map_err(|e| Error::io("cannot remove", &path, e))?;
            removed = true;
        }
        if removed {
            self.sync_folder()?;
        }
        let segment = &state.segments[target];
        if !segment.begun {
            return Ok(());
        }
        let path = self.path(segment.id());
        if io.current.id != segment.id() {
            let file = self
                .disk()
                .open(&path, Access::Write)
                .map_err(|e| Error::io("cannot open", &path, e))?;
            let written = file.len().map_err(|e| Error::io("cannot read", &path, e))?;
            let id = segment.id();
            io.current = Current { id, file, written };
        }
        if io.current.written > tally.bytes {
            let zeroes = vec![0; 128 << 10];
            let mut at = tally.bytes;
            while at < io.current.written {
                let left = io.current.written - at;
                let n = usize::try_from(left).map_or(zeroes.len(), |n| n.min(zeroes.len()));
                io.current
                    .file
                    .write_all_at(&zeroes[..n], at)
                    .map_err(|e| Error::io("cannot write", &path, e))?;
                at += n as u64;
            }
            self.sync_file(&*io.current.file, &path)?;
            io.current.written = tally.bytes.max(HEADER_BYTES as u64);
        }
        Ok(())
    }
}

impl Io {
    /// Length of the segment's file, if it has one: it is the current one.
    fn length_of(&self, segment: &Segment) -> Option<u64> {
        if !segment.begun {
            return None;
        }
        assert_eq!(segment.id(), self.current.id);
        // Where the length cannot be read, no room is claimed: the next reservation makes it.
        Some(self.current.file.len().unwrap_or(segment.tally.bytes))
    }
}
