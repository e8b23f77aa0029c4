//! Reading the log: recent records from memory, older ones from the files, checked again.

use std::collections::VecDeque;

use unisondb_platform::Access;
use unisondb_types::{Lsn, SegmentId};

use super::Wal;
use super::state::{Life, State};
use crate::error::{Error, SegmentError};
use crate::header::SegmentHeader;
use crate::info::Entry;
use crate::reader::{FileRead, SegmentReader};
use crate::tally::{Hashing, Tally};

/// Readers that are kept open for whoever reads on.
const CURSORS: usize = 8;

/// Where recent readers of files stopped, newest last: who reads on in order does not search again.
#[derive(Default)]
pub(super) struct Cursors(VecDeque<SegmentReader<FileRead>>);

impl Cursors {
    fn take(&mut self, id: SegmentId, next: Lsn) -> Option<SegmentReader<FileRead>> {
        let i = self
            .0
            .iter()
            .position(|r| r.header().id == id && r.tally().last_lsn.next() == next)?;
        self.0.remove(i)
    }
    fn keep(&mut self, reader: SegmentReader<FileRead>) {
        if self.0.len() == CURSORS {
            self.0.pop_front();
        }
        self.0.push_back(reader);
    }
    /// After truncation or purge: what was read ahead may be gone.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Where a run of records is to be read.
struct Place {
    header: SegmentHeader,
    /// The last record that may be read from the file.
    upto: Lsn,
    /// Whether the file is still written.
    growing: bool,
    truncations: u64,
}

impl Wal {
    /// Records from `from` on, at least one, about `max_bytes` of frames. Empty only when `from` is
    /// the position after the last. Of ancestors, records up to the fork.
    ///
    /// # Errors
    /// [`Error::Missing`] below the first held record or past the end; [`Error::Damaged`],
    /// [`Error::Io`].
    pub fn read(&self, from: Lsn, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        loop {
            let place = {
                let state = self.inner.state.lock();
                match find(&state, from, max_bytes)? {
                    Found::Entries(entries) => return Ok(entries),
                    Found::Place(place) => place,
                }
            };
            match self.read_file(&place, from, max_bytes) {
                // The tail moved, or the file was purged, while it was read: look again.
                Err(_) if self.moved(&place) => {}
                other => return other,
            }
        }
    }

    /// The same of what is in memory: without a look at the disk. `None` when `from` is not there.
    pub fn read_memory(&self, from: Lsn, max_bytes: usize) -> Option<Vec<Entry>> {
        let state = self.inner.state.lock();
        if state.recent.first().is_none_or(|first| first > from) {
            return None;
        }
        match find(&state, from, max_bytes) {
            Ok(Found::Entries(entries)) => Some(entries),
            _ => None,
        }
    }

    fn moved(&self, place: &Place) -> bool {
        let state = self.inner.state.lock();
        state.truncations != place.truncations || state.segment(place.header.id).is_none()
    }

    fn read_file(&self, place: &Place, from: Lsn, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        let id = place.header.id;
        let path = self.path(id);
        let damaged = |e| Error::damaged(id, &path, e);
        let cursor = self.inner.cursors.lock().take(id, from);
        let mut reader = match cursor {
            Some(reader) => reader,
            None => {
                let file = self
                    .disk()
                    .open(&path, Access::Read)
                    .map_err(|e| Error::io("cannot open", &path, e))?;
                let header = SegmentReader::from_file(file.clone())
                    .map_err(damaged)?
                    .header()
                    .clone();
                if header != place.header {
                    return Err(damaged(SegmentError::Header {
                        why: "it is not the header that was read when the log was opened".into(),
                    }));
                }
                SegmentReader::resume(file, Tally::new(header, Hashing::Off))
            }
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        while reader.tally().last_lsn < place.upto {
            let Some(entry) = reader.next().map_err(damaged)? else {
                let from = reader.tally().last_lsn.next();
                let to = place.upto;
                return Err(Error::Missing { from, to });
            };
            if entry.record.lsn < from {
                continue;
            }
            bytes += entry.frame_bytes();
            entries.push(entry);
            if bytes >= max_bytes as u64 {
                break;
            }
        }
        if reader.tally().last_lsn < place.upto || place.growing {
            if place.growing {
                reader.forget_ahead();
            }
            self.inner.cursors.lock().keep(reader);
        }
        Ok(entries)
    }
}

enum Found {
    Entries(Vec<Entry>),
    Place(Place),
}

fn find(state: &State, from: Lsn, max_bytes: usize) -> Result<Found, Error> {
    let last = state.positions.last;
    if from == last.next() {
        return Ok(Found::Entries(Vec::new()));
    }
    let in_memory = state.recent.first().unwrap_or(Lsn::MAX);
    if in_memory <= from && from <= last {
        let mut bytes = 0;
        let entries = state
            .recent
            .from(from)
            .take_while(|f| {
                let more = bytes == 0 || bytes < max_bytes;
                bytes += f.frame.len();
                more
            })
            .map(|f| f.entry.clone())
            .collect();
        return Ok(Found::Entries(entries));
    }
    let Some(i) = state.holding(from) else {
        let to = if from < state.first() {
            state.first().prev()
        } else {
            from
        };
        return Err(Error::Missing { from, to });
    };
    let segment = &state.segments[i];
    Ok(Found::Place(Place {
        header: segment.tally.header.clone(),
        upto: segment.last().min(in_memory.prev()),
        // One that has ended is written on too, until its last frame is in the file.
        growing: matches!(segment.life, Life::Active) || segment.last() > state.positions.durable,
        truncations: state.truncations,
    }))
}
