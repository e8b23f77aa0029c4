//! Space before it is needed (D9): the active segment is zeroed ahead, the file of the next one
//! exists. Zeroes are written, not only reserved: a sync of frames then changes no metadata.

use std::path::Path;

use unisondb_platform::{File, FileExt};

use super::state::State;
use super::sync::{Io, SPARE_NAME, make_spare};
use super::{Options, Wal};
use crate::error::Error;
use crate::frame;
use crate::header::HEADER_BYTES;

static ZEROES: [u8; 128 << 10] = [0; 128 << 10];
/// The step grows to this many times `zero_ahead` under load.
const STEPS: u64 = 8;

/// How long the two files should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Want {
    active: u64,
    spare: u64,
}

impl Options {
    /// A file with room for the largest frame and nothing else.
    fn largest_segment_of_one(&self) -> u64 {
        HEADER_BYTES as u64 + frame::frame_bytes(self.largest_payload)
    }
}

impl Want {
    /// For `bytes` more than what is appended.
    fn of(state: &State, options: &Options, bytes: u64) -> Want {
        let tally = &state.active().tally;
        // Frames never pass this, but for a single large one in a small segment.
        let most = tally
            .header
            .segment_size
            .max(options.largest_segment_of_one());
        let end = tally.bytes.saturating_add(bytes);
        let over = if end > tally.header.segment_size {
            HEADER_BYTES as u64 + bytes
        } else {
            0
        };
        let spare_most = options.segment_size.max(options.largest_segment_of_one());
        Want {
            active: end.min(most).max(tally.bytes),
            spare: options.largest_segment_of_one().max(over).min(spare_most),
        }
    }

    fn is_there(&self, state: &State) -> bool {
        state.active().room >= self.active && state.spare >= self.spare
    }
}

impl Wal {
    /// Makes sure that `bytes` of frames can be appended and synced without the disk running full:
    /// the active segment is zeroed ahead, the file of the next one exists. Not a claim: two callers
    /// see the same room, so `bytes` is all that may be appended before the next call. (More than
    /// one segment's worth is not kept.) Cheap when there is room.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Exhausted`]: nothing was changed but the length of zeroes;
    /// [`Error::Poisoned`],
    /// [`Error::Io`].
    pub fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.sound()?;
        let options = &self.inner.options;
        let there = |state: &State| Want::of(state, options, bytes).is_there(state);
        if there(&self.inner.state.lock()) {
            return Ok(());
        }
        let mut io = self.inner.io.lock();
        if !self.inner.state.lock().active().begun {
            // The spare file is spoken for; before there can be another, it gets its name.
            self.flush(&mut io)?;
        }
        let step = io.step;
        match self.extend(&mut io, bytes.saturating_add(step)) {
            Err(Error::Full { .. }) => self.extend(&mut io, bytes),
            other => other,
        }
    }

    /// Whether [`reserve`](Self::reserve) would find that room without touching a file.
    pub fn has_room(&self, bytes: u64) -> bool {
        let state = self.inner.state.lock();
        Want::of(&state, &self.inner.options, bytes).is_there(&state)
    }

    /// After a sync, on its thread: so that [`reserve`](Self::reserve) finds room. A full disk, or
    /// want of descriptors, is not said here, but when room is asked for.
    pub(super) fn top_up(&self, io: &mut Io) -> Result<(), Error> {
        let half = io.step / 2;
        let options = &self.inner.options;
        if half == 0 || {
            let state = self.inner.state.lock();
            !state.active().begun || Want::of(&state, options, half).is_there(&state)
        } {
            return Ok(());
        }
        let step = io.step;
        match self.extend(io, step) {
            Err(e) if e.is_passing() => Ok(()),
            other => other,
        }
    }

    /// Brings both files to the length that `bytes` more ask for. The active one has its name.
    fn extend(&self, io: &mut Io, bytes: u64) -> Result<(), Error> {
        let (want, have) = {
            let state = self.inner.state.lock();
            if !state.active().begun || state.active().id() != io.current.id {
                // It rolled while we waited. The next sync begins the new segment.
                return Ok(());
            }
            let want = Want::of(&state, &self.inner.options, bytes);
            let have = Want {
                active: state.active().room,
                spare: state.spare,
            };
            (want, have)
        };
        // The spare file first: without it a full segment cannot even end.
        if have.spare < want.spare {
            let path = self.inner.dir.join(SPARE_NAME);
            if io.spare.is_none() {
                let made = make_spare(self.disk(), &self.inner.dir);
                io.spare =
                    Some(made.map_err(|e| self.failed(Error::io("cannot create", &path, e)))?);
            }
            let file = io
                .spare
                .clone()
                .expect("it was just made if there was none");
            let (reached, result) = zero(&*file, have.spare, want.spare, &path);
            let mut state = self.inner.state.lock();
            match state.segment_mut(io.current.id.next()) {
                None => state.spare = reached,
                // It rolled meanwhile: the file was given away, shorter than it is now.
                Some(next) => next.room = reached,
            }
            drop(state);
            result.map_err(|e| self.failed(e))?;
        }
        if have.active < want.active {
            let path = self.path(io.current.id);
            let (reached, result) = zero(&*io.current.file, have.active, want.active, &path);
            let mut state = self.inner.state.lock();
            if let Some(segment) = state.segment_mut(io.current.id) {
                segment.room = reached;
            }
            drop(state);
            result.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }
}

impl Io {
    /// Larger steps while much is written at once, smaller ones again when little is.
    pub fn grow_step(&mut self, group_bytes: u64) {
        let (least, most) = (self.least_step, self.least_step * STEPS);
        if group_bytes > self.step / 8 {
            self.step = (self.step * 2).min(most);
        } else if group_bytes < self.step / 64 {
            self.step = (self.step / 2).max(least);
        }
    }
}

/// Writes zeroes; gives how far it came.
fn zero(file: &dyn File, from: u64, to: u64, path: &Path) -> (u64, Result<(), Error>) {
    let mut at = from;
    while at < to {
        let n = usize::try_from(to - at).map_or(ZEROES.len(), |n| n.min(ZEROES.len()));
        if let Err(e) = file.write_all_at(&ZEROES[..n], at) {
            return (at, Err(Error::io("cannot zero ahead", path, e)));
        }
        at += n as u64;
    }
    (at, Ok(()))
}
