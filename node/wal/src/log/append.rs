//! Appending: records become frames, once; frames go to memory; segments roll (D2, D4).

use bytes::{Bytes, BytesMut};
use unisondb_types::{Kind, Record, Stamp, Term, limits};

use super::Wal;
use super::state::{Life, Segment, State};
use crate::error::Error;
use crate::frame::{self, FRAME_HEADER_BYTES};
use crate::header::{HEADER_BYTES, SegmentHeader};
use crate::info::Entry;
use crate::tally::{Hashing, Tally};

impl Wal {
    /// Appends commands as records of `term`, each stamped `now` or 1 µs after the record before
    /// it, whichever is later. They can be read at once; they are durable after [`sync`](Self::sync).
    /// All of them, or none.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::TooLong`], [`Error::TermFell`].
    pub fn append(
        &self,
        term: Term,
        now: Stamp,
        commands: &[(Kind, Bytes)],
    ) -> Result<Vec<Entry>, Error> {
        self.sound()?;
        let limit = limits::FRAME_PAYLOAD_BYTES;
        if let Some((_, long)) = commands.iter().find(|(_, p)| p.len() > limit) {
            let bytes = long.len();
            return Err(Error::TooLong { bytes, limit });
        }
        let total = commands
            .iter()
            .map(|(_, p)| FRAME_HEADER_BYTES + p.len())
            .sum();
        // One allocation for all frames of the call, made before the lock is taken.
        let mut buffer = BytesMut::with_capacity(total);
        let mut entries = Vec::with_capacity(commands.len());
        let mut state = self.inner.state.lock();
        if term < state.last_term {
            let last = state.last_term;
            return Err(Error::TermFell { asked: term, last });
        }
        for (kind, payload) in commands {
            entries.push(self.append_one(&mut state, &mut buffer, term, now, *kind, payload));
        }
        self.publish(&state);
        Ok(entries)
    }

    fn append_one(
        &self,
        state: &mut State,
        buffer: &mut BytesMut,
        term: Term,
        now: Stamp,
        kind: Kind,
        payload: &Bytes,
    ) -> Entry {
        let mut record = Record {
            lsn: state.positions.last.next(),
            term,
            stamp: now.max(state.last_stamp.plus_micros(1)),
            committed: state.positions.committed,
            kind,
            payload: payload.clone(),
        };
        let crc = frame::encode(&record, state.active().tally.last_crc, buffer);
        let frame = buffer.split().freeze();
        record.payload = frame.slice(FRAME_HEADER_BYTES..);
        push(state, self.inner.options.segment_size, record, frame, crc)
    }
}

/// Puts a frame behind the last one, in the next segment where this one has no room for it.
pub(super) fn push(
    state: &mut State,
    segment_size: u64,
    record: Record,
    frame: Bytes,
    crc: u32,
) -> Entry {
    let frame_bytes = frame.len() as u64;
    if state.active().tally.rolls_before(frame_bytes) {
        roll(state, segment_size);
    }
    let tally = &mut state.active_mut().tally;
    tally.add(&record, &frame, crc);
    let entry = Entry {
        segment: tally.header.id,
        end: tally.bytes,
        record,
        crc,
    };
    let ended = tally.ended;
    state.last_term = entry.record.term;
    state.last_stamp = entry.record.stamp;
    state.positions.last = entry.record.lsn;
    state.recent.push(entry.clone(), frame);
    if ended {
        roll(state, segment_size);
    }
    entry
}

/// Ends the active segment and begins the next one, in memory; the files follow with the next
/// sync.
pub(super) fn roll(state: &mut State, segment_size: u64) {
    let room = std::mem::take(&mut state.spare).max(HEADER_BYTES as u64);
    let active = state.active_mut();
    assert!(
        active.tally.records > 0,
        "segment {} rolls without a record",
        active.id()
    );
    let chain = active.tally.chain();
    active.life = Life::Rolled { chain };
    let next = follow(&active.tally, chain, segment_size, room);
    state.segments.push_back(next);
}

/// The empty segment that follows one of its own lineage.
pub(super) fn follow(
    before: &Tally,
    chain: unisondb_types::Chain,
    segment_size: u64,
    room: u64,
) -> Segment {
    let header = SegmentHeader {
        id: before.header.id.next(),
        segment_size,
        first_lsn: before.last_lsn.next(),
        predecessor: Some(before.as_predecessor(chain)),
        crc_seed: before.last_crc,
        ..before.header.clone()
    };
    Segment {
        tally: Tally::new(header, Hashing::On),
        ends_at: None,
        life: Life::Active,
        begun: false,
        room,
    }
}
