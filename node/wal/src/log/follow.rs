//! Appending what another log of the same lineage holds: frames as they lie there, never made anew
//! (D2), so that the same log has the same bytes everywhere (P4).

use super::Wal;
use super::append::push;
use crate::error::Error;
use crate::frame::Frame;
use crate::info::Entry;

impl Wal {
    /// Appends frames that another log has behind the same last record. They can be read at once;
    /// they are durable after [`sync`](Self::sync). All of them, or none.
    ///
    /// # Errors
    /// [`Error::NotNext`] when one does not follow the record before it: by its CRC, which is
    /// seeded with that of the frame before, by number, term, stamp, or what it vouches for;
    /// [`Error::Poisoned`].
    pub fn append_frames(&self, frames: &[Frame]) -> Result<Vec<Entry>, Error> {
        self.sound()?;
        let mut state = self.inner.state.lock();
        // Looked at as a whole before anything is taken.
        let mut tally = state.active().tally.clone();
        tally.forget_hash();
        // Behind a roll there is no record yet to compare with in the segment itself.
        tally.last_term = state.last_term;
        tally.last_stamp = state.last_stamp;
        let mut records = Vec::with_capacity(frames.len());
        for frame in frames {
            let record = frame.record();
            let follows = frame.check(tally.last_crc);
            if let Err(why) = follows.and_then(|()| tally.check(&record)) {
                let after = tally.last_lsn;
                return Err(Error::NotNext { after, why });
            }
            tally.add(&record, frame.bytes(), frame.crc());
            records.push(record);
        }
        let segment_size = self.inner.options.segment_size;
        let entries = frames
            .iter()
            .zip(records)
            .map(|(f, record)| push(&mut state, segment_size, record, f.bytes().clone(), f.crc()))
            .collect();
        self.publish(&state);
        Ok(entries)
    }
}
