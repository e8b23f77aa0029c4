//! Writing and syncing what was appended: in as few writes as there are segments, and in the order
//! that recovery relies on.
//!
//! 1. All frames of a segment are written and synced; then it is cut to its length.
//! 2. Only then does the next segment get its name: header, sync, rename, sync of the folder.
//! 3. A frame that vouches for records which are not durable yet waits until they are (D6).

use std::io;
use std::sync::Arc;

use unisondb_platform::{Access, Disk, File, FileExt, is_exhausted};
use unisondb_types::{Lsn, SegmentId};

use super::Wal;
use super::state::Recently;
use crate::error::Error;
use crate::header::HEADER_BYTES;

/// Most bytes that are written at once.
const GROUP_BYTES: usize = 8 << 20;
/// Name of the file that the next segment will get.
pub(super) const SPARE_NAME: &str = "next.tmp";

/// What is written to. Only who holds this touches the files.
pub(super) struct Io {
    /// The newest segment whose file has its name.
    pub current: Current,
    /// The file that the next one gets, with room already.
    pub spare: Option<Arc<dyn File>>,
    /// A segment was given its name, and the folder could not be opened to sync that: nothing is
    /// written to the segment before it is.
    pub name_due: bool,
    /// By how much the active segment is zeroed ahead next time.
    pub step: u64,
    /// What that begins with, and comes back to.
    pub least_step: u64,
    /// Where frames are put together.
    pub scratch: Vec<u8>,
}

pub(super) struct Current {
    pub id: SegmentId,
    pub file: Arc<dyn File>,
    /// Up to where something other than zeroes may have been written.
    pub written: u64,
}

/// What comes next.
enum Step {
    /// Frames of the current segment, and where the first one goes.
    Write(u64, Vec<Recently>),
    /// The current segment is cut to this length (a sealed one has it), the next one begun with
    /// this header.
    Advance(Option<u64>, SegmentId, Box<[u8; HEADER_BYTES]>),
    Done,
}

impl Wal {
    /// Writes and syncs all that has been appended; gives the position that is durable now.
    /// Appending goes on meanwhile.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Exhausted`]: part of it may be durable, as [`durable`](Self::durable) says; the rest
    /// stays, and may be synced later or truncated. [`Error::Io`], and from then on
    /// [`Error::Poisoned`].
    pub fn sync(&self) -> Result<Lsn, Error> {
        let mut io = self.inner.io.lock();
        let durable = self.flush(&mut io)?;
        self.top_up(&mut io)?;
        Ok(durable)
    }

    pub(super) fn flush(&self, io: &mut Io) -> Result<Lsn, Error> {
        self.sound()?;
        self.sync_name(io)?;
        loop {
            match self.next_step(io) {
                Step::Done => return Ok(self.durable()),
                Step::Write(start, frames) => self.write(io, start, &frames)?,
                Step::Advance(bytes, next, header) => self.advance(io, bytes, next, &header)?,
            }
        }
    }

    fn next_step(&self, io: &Io) -> Step {
        let state = self.inner.state.lock();
        let durable = state.positions.durable;
        let mut waiting = state.recent.from(durable.next()).peekable();
        let first = waiting.peek();
        let wanted = first.map_or_else(|| state.active().id(), |f| f.entry.segment);
        if wanted != io.current.id {
            let current = state
                .segment(io.current.id)
                .expect("the file that is written to is that of a segment");
            let next = io.current.id.next();
            let header = &state
                .segment(next)
                .expect("a segment that is not the last is followed by another")
                .tally
                .header;
            let bytes = (!current.is_sealed()).then_some(current.tally.bytes);
            return Step::Advance(bytes, next, Box::new(header.encode()));
        }
        let Some(first) = first else {
            return Step::Done;
        };
        let start = first.entry.start();
        let mut bytes = 0;
        let frames: Vec<Recently> = waiting
            .take_while(|f| {
                // The first one vouches for nothing above `durable`: it stands right behind it.
                let with_this = bytes == 0
                    || (f.entry.segment == wanted
                        && f.entry.record.committed <= durable
                        && bytes + f.frame.len() <= GROUP_BYTES);
                bytes += f.frame.len();
                with_this
            })
            .cloned()
            .collect();
        Step::Write(start, frames)
    }

    fn write(&self, io: &mut Io, start: u64, frames: &[Recently]) -> Result<(), Error> {
        let last = frames.last().expect("a step writes at least one frame");
        let end = last.entry.end;
        let path = self.path(io.current.id);
        let bytes = if let [one] = frames {
            &one.frame[..]
        } else {
            io.scratch.clear();
            for f in frames {
                io.scratch.extend_from_slice(&f.frame);
            }
            &io.scratch[..]
        };
        assert_eq!(start + bytes.len() as u64, end, "frames of a group adjoin");
        io.current.written = io.current.written.max(end);
        io.current
            .file
            .write_all_at(bytes, start)
            .map_err(|e| self.failed(Error::io("cannot write", &path, e)))?;
        self.sync_file(&*io.current.file, &path)?;
        self.inner.platform.pulse.beat();
        let mut state = self.inner.state.lock();
        state.positions.durable = last.entry.record.lsn;
        if let Some(segment) = state.segment_mut(io.current.id) {
            segment.room = segment.room.max(end);
        }
        let durable = state.positions.durable;
        state.recent.evict(durable);
        self.publish(&state);
        drop(state);
        io.grow_step(bytes_of(frames));
        if io.scratch.capacity() > GROUP_BYTES / 4 {
            io.scratch = Vec::new();
        }
        Ok(())
    }

    /// Ends the current file and gives the next segment its own.
    fn advance(
        &self,
        io: &mut Io,
        bytes: Option<u64>,
        next: SegmentId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<(), Error> {
        if let Some(bytes) = bytes {
            // Its frames are durable. The new length need not be yet: zeroes behind them are left
            // out at a start, and the footer's sync takes it along.
            let path = self.path(io.current.id);
            io.current
                .file
                .set_len(bytes)
                .map_err(|e| self.failed(Error::io("cannot cut", &path, e)))?;
            if let Some(segment) = self.inner.state.lock().segment_mut(io.current.id) {
                segment.room = bytes;
            }
        }
        let spare_path = self.inner.dir.join(SPARE_NAME);
        let file = match &io.spare {
            Some(file) => file.clone(),
            None => {
                let file = make_spare(self.disk(), &self.inner.dir)
                    .map_err(|e| self.failed(Error::io("cannot create", &spare_path, e)))?;
                io.spare = Some(file.clone());
                file
            }
        };
        file.write_all_at(header, 0)
            .map_err(|e| self.failed(Error::io("cannot write", &spare_path, e)))?;
        self.sync_file(&*file, &spare_path)?;
        let path = self.path(next);
        self.disk()
            .rename(&spare_path, &path)
            .map_err(|e| self.failed(Error::io("cannot rename", &spare_path, e)))?;
        // From here on the spare file is the segment, durable name or not.
        io.spare = None;
        io.current = Current {
            id: next,
            file,
            written: HEADER_BYTES as u64,
        };
        io.name_due = true;
        let mut state = self.inner.state.lock();
        let segment = state
            .segment_mut(next)
            .expect("segments go only by truncation and purge, which wait for this");
        segment.begun = true;
        drop(state);
        self.sync_name(io)
    }

    /// Makes the name of the current segment durable, if it may not be.
    fn sync_name(&self, io: &mut Io) -> Result<(), Error> {
        if io.name_due {
            self.sync_folder()?;
            io.name_due = false;
        }
        Ok(())
    }

    /// An error of a sync is final whatever its kind: what was written may be lost (P14).
    pub(super) fn sync_file(&self, file: &dyn File, path: &std::path::Path) -> Result<(), Error> {
        file.sync().map_err(|source| {
            let error = Error::Io {
                action: "cannot sync",
                path: path.to_owned(),
                source,
            };
            self.poison(&error);
            error
        })
    }

    pub(super) fn sync_folder(&self) -> Result<(), Error> {
        let dir = &self.inner.dir;
        self.disk().sync_folder(dir).map_err(|source| {
            if is_exhausted(&source) {
                // It was not opened, so nothing was synced badly: it may be done again.
                return Error::io("cannot open", dir, source);
            }
            let error = Error::Io {
                action: "cannot sync",
                path: dir.clone(),
                source,
            };
            self.poison(&error);
            error
        })
    }
}

fn bytes_of(frames: &[Recently]) -> u64 {
    frames.iter().map(|f| f.frame.len() as u64).sum()
}

/// Makes the spare file, empty; one that was left over is removed.
pub(super) fn make_spare(disk: &dyn Disk, dir: &std::path::Path) -> io::Result<Arc<dyn File>> {
    let path = dir.join(SPARE_NAME);
    match disk.remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    disk.open(&path, Access::CreateNew)
}
