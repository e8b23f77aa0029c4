//! What lies behind a bad frame: a torn tail, or rot in the middle of what others rely on (D6).
//!
//! A frame is proven by its CRC, which that of the frame before it seeds. Behind damage this seed is
//! looked for in three places:
//!
//! | damaged | the seed for a frame behind it |
//! | --- | --- |
//! | one frame, anywhere but in its CRC | that CRC |
//! | one frame, in its CRC | what its bytes add up to, from where it begins to where the next one stands |
//! | more, with two frames in a row behind it | the CRC on the first one, for the second |
//!
//! One good frame behind several that are damaged has no seed any more, and nothing proves it.
//!
//! Each offset is tried as a frame's beginning. A value can hold what looks like any number of headers
//! that claim any lengths; so that each costs the same, CRCs of parts are worked out from those of the
//! beginnings (`crc(a..b)` from `crc(..a)` and `crc(..b)`, as zlib's `crc32_combine` does it).

use std::sync::LazyLock;

use unisondb_platform::File;
use unisondb_types::{Lsn, Stamp, Term};

use crate::error::SegmentError;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::tally::Tally;

/// How much is looked at together. Two frames of the largest size fit into the overlap.
const WINDOW_BYTES: usize = 16 << 20;
const OVERLAP_BYTES: usize = 2 * FRAME_BYTES;
/// The largest frame.
const FRAME_BYTES: usize = FRAME_HEADER_BYTES + unisondb_types::limits::FRAME_PAYLOAD_BYTES;

/// What was found behind a bad frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    /// Length up to the last byte that is not zero, from the start of the file.
    pub written: u64,
    /// Highest LSN that a proven frame vouches for.
    pub vouched: Lsn,
}

/// Looks at all of `file` behind what `tally` has seen. No record is of a lower term or an older stamp
/// than `floor`.
pub(super) fn look_beyond(
    file: &dyn File,
    tally: &Tally,
    floor: (Term, Stamp),
) -> Result<Beyond, SegmentError> {
    let mut beyond = Beyond {
        written: tally.bytes,
        vouched: Lsn::ZERO,
    };
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = tally.bytes;
    loop {
        let mut have = 0;
        while have < window.len() {
            match file.read_at(&mut window[have..], at + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        if let Some(last) = window[..have].iter().rposition(|&b| b != 0) {
            beyond.written = beyond.written.max(at + last as u64 + 1);
            // Later starts have their turn in the next window.
            let starts = match have < window.len() {
                true => last + 1,
                false => (last + 1).min(WINDOW_BYTES - OVERLAP_BYTES),
            };
            // Zeroes may be the end of a frame.
            let bytes = &window[..have.min(last + 1 + FRAME_BYTES)];
            let part = Part {
                bytes,
                skipped: at - tally.bytes,
                tally,
                floor: (floor.0.max(tally.last_term), floor.1.max(tally.last_stamp)),
                crcs: Crcs::of(bytes),
            };
            let proven = (0..starts).map(|start| part.vouched_at(start));
            beyond.vouched = beyond.vouched.max(proven.max().unwrap_or(Lsn::ZERO));
        }
        if have < window.len() {
            return Ok(beyond);
        }
        at += (WINDOW_BYTES - OVERLAP_BYTES) as u64;
    }
}

/// Bytes behind the last good frame, `skipped` bytes behind its end.
struct Part<'a> {
    bytes: &'a [u8],
    skipped: u64,
    tally: &'a Tally,
    floor: (Term, Stamp),
    crcs: Crcs<'a>,
}

impl Part<'_> {
    /// The highest LSN that is vouched for by a proven frame at `start`, or by one behind it that this one
    /// proves.
    fn vouched_at(&self, start: usize) -> Lsn {
        let Some((frame, end)) = self.frame(start) else {
            return Lsn::ZERO;
        };
        let mut vouched = Lsn::ZERO;
        if self.follows_the_damaged(&frame, start, end) {
            vouched = frame.committed;
        }
        if let Some((next, next_end)) = self.frame(end)
            && next.lsn == frame.lsn.next()
            && self.is_proven(&next, end, next_end, frame.crc)
        {
            vouched = vouched.max(next.committed);
        }
        vouched
    }

    /// Whether only one damaged frame stands before this one, and proves it.
    fn follows_the_damaged(&self, frame: &FrameHeader, start: usize, end: usize) -> bool {
        let only_one = self.skipped == 0 && frame.lsn == self.tally.last_lsn.next().next();
        let Some(damaged) = FrameHeader::parse(&self.bytes[..start]).filter(|_| only_one) else {
            return false;
        };
        let added_up = || self.crcs.seeded(self.tally.last_crc, 4, start);
        self.is_proven(frame, start, end, damaged.crc)
            || self.is_proven(frame, start, end, added_up())
    }

    fn is_proven(&self, frame: &FrameHeader, start: usize, end: usize, seed: u32) -> bool {
        self.crcs.seeded(seed, start + 4, end) == frame.crc
    }

    /// What a frame at `start` would be, and where it would end, if one can stand there at all.
    fn frame(&self, start: usize) -> Option<(FrameHeader, usize)> {
        let frame = FrameHeader::parse(self.bytes.get(start..)?)?;
        // Each record before it took at least a header.
        let between = (self.skipped + start as u64) / FRAME_HEADER_BYTES as u64;
        let last = self.tally.last_lsn;
        let highest = Lsn::new(last.get().saturating_add(between + 1));
        let in_order = frame.lsn > last
            && frame.lsn <= highest
            && frame.committed < frame.lsn
            && frame.term >= self.floor.0
            && frame.stamp >= self.floor.1;
        // One that does not end here is proven by nothing here, whatever length it claims.
        let end = start + frame.frame_bytes().filter(|_| in_order)?;
        (end <= self.bytes.len()).then_some((frame, end))
    }
}

/// The CRCs of all parts of some bytes.
struct Crcs<'a> {
    bytes: &'a [u8],
    /// Those of the beginnings, one every [`STRIDE`] bytes.
    beginnings: Vec<u32>,
}

const STRIDE: usize = 64;

impl<'a> Crcs<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let mut crc = 0;
        let of_longer = bytes.chunks_exact(STRIDE).map(|stride| {
            crc = crc32c::crc32c_append(crc, stride);
            crc
        });
        Crcs {
            bytes,
            beginnings: std::iter::once(0).chain(of_longer).collect(),
        }
    }

    /// The CRC of the bytes before `end`.
    fn before(&self, end: usize) -> u32 {
        let strides = end / STRIDE;
        let rest = &self.bytes[strides * STRIDE..end];
        crc32c::crc32c_append(self.beginnings[strides], rest)
    }

    /// The CRC of the bytes from `from` to before `to`, seeded.
    fn seeded(&self, seed: u32, from: usize, to: usize) -> u32 {
        zeroes_behind(seed ^ self.before(from), to - from) ^ self.before(to)
    }
}

/// What 2^n zero bytes behind some bytes make of their CRC, for each n, but for a constant: linear over
/// GF(2), so a matrix.
static ZEROES: LazyLock<Vec<[u32; 32]>> = LazyLock::new(|| {
    let column = |bit: usize, power: u32| crc32c::crc32c_combine(1 << bit, 0, 1 << power);
    let matrix = |power| std::array::from_fn(|bit| column(bit, power));
    (0..=WINDOW_BYTES.ilog2()).map(matrix).collect()
});

/// The same for any number of them.
fn zeroes_behind(mut crc: u32, len: usize) -> u32 {
    for (power, matrix) in ZEROES.iter().enumerate() {
        if len >> power & 1 == 1 {
            let columns = matrix.iter().enumerate();
            let chosen = columns.filter(|(bit, _)| crc >> bit & 1 == 1);
            crc = chosen.fold(0, |sum, (_, column)| sum ^ column);
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_crc_of_a_part_is_that_of_its_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 1..300),
            seed: u32,
            at: (proptest::sample::Index, proptest::sample::Index),
        ) {
            let (a, b) = (at.0.index(bytes.len()), at.1.index(bytes.len()));
            let (from, to) = (a.min(b), a.max(b) + 1);
            let crc = Crcs::of(&bytes).seeded(seed, from, to);
            prop_assert_eq!(crc, crc32c::crc32c_append(seed, &bytes[from..to]));
        }
    }
}
