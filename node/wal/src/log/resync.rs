//! What lies behind a bad frame: a torn tail, or rot in the middle of what others rely on (D6).
//!
//! Behind damage the CRC that seeds the next frame is not known, but every frame carries its own,
//! and that seeds its successor: two frames in a row prove the second one. So each offset where a
//! plausible frame header stands is tried as the first of two. A value can hold what looks like any
//! number of headers that claim any lengths; so that each pair costs the same, however long, CRCs of
//! parts are worked out from those of the beginnings (`crc(a..b)` from `crc(..a)` and `crc(..b)`, as
//! zlib's `crc32_combine` does it).

use unisondb_platform::File;
use unisondb_types::{Kind, Lsn};

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

/// Looks at all of `file` behind what `tally` has seen.
pub(super) fn look_beyond(file: &dyn File, tally: &Tally) -> Result<Beyond, SegmentError> {
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
        let bytes = &window[..have];
        if let Some(last) = bytes.iter().rposition(|&b| b != 0) {
            beyond.written = beyond.written.max(at + last as u64 + 1);
            // Later starts have their turn in the next window.
            let starts = match have < window.len() {
                true => last + 1,
                false => (last + 1).min(WINDOW_BYTES - OVERLAP_BYTES),
            };
            // Zeroes may be the end of a frame.
            let end = have.min(last + 1 + FRAME_BYTES);
            beyond.vouched = beyond.vouched.max(proven(&bytes[..end], starts, tally));
        }
        if have < window.len() {
            return Ok(beyond);
        }
        at += (WINDOW_BYTES - OVERLAP_BYTES) as u64;
    }
}

/// Highest LSN that a frame in `bytes` vouches for which its predecessor proves, of those
/// predecessors that begin before `starts`.
fn proven(bytes: &[u8], starts: usize, tally: &Tally) -> Lsn {
    let mut vouched = Lsn::ZERO;
    let crcs = Crcs::of(bytes);
    // However many records were written behind, each took at least a header.
    let most = tally.header.segment_size.max(bytes.len() as u64) / FRAME_HEADER_BYTES as u64 + 1;
    let highest = Lsn::new(tally.last_lsn.get().saturating_add(most));
    for start in 0..bytes.len().min(starts) {
        let Some(first) = FrameHeader::parse(&bytes[start..]) else {
            break;
        };
        let plausible = |h: &FrameHeader| {
            let known = h.flags == 0 && Kind::from_number(h.kind).is_some();
            known && h.committed < h.lsn && h.term >= tally.last_term
        };
        let in_reach = first.lsn > tally.last_lsn && first.lsn <= highest;
        let Some(len) = first
            .frame_bytes()
            .filter(|_| in_reach && plausible(&first))
        else {
            continue;
        };
        let at = start + len;
        let second = bytes.get(at..).and_then(FrameHeader::parse);
        let Some(second) = second.filter(|h| h.lsn == first.lsn.next() && plausible(h)) else {
            continue;
        };
        // One that does not end here is proven by nothing here, whatever length it claims.
        let end = second.frame_bytes().map(|len| at + len);
        let Some(end) = end.filter(|end| *end <= bytes.len()) else {
            continue;
        };
        if crcs.seeded(first.crc, at + 4, end) == second.crc {
            vouched = vouched.max(second.committed);
        }
    }
    vouched
}

/// The CRCs of all beginnings.
struct Crcs(Vec<u32>);

impl Crcs {
    fn of(bytes: &[u8]) -> Self {
        let mut crc = 0;
        let of_longer = bytes.iter().map(|byte| {
            crc = crc32c::crc32c_append(crc, std::slice::from_ref(byte));
            crc
        });
        Crcs(std::iter::once(0).chain(of_longer).collect())
    }

    /// The CRC of the bytes from `from` to before `to`, seeded.
    fn seeded(&self, seed: u32, from: usize, to: usize) -> u32 {
        crc32c::crc32c_combine(seed ^ self.0[from], self.0[to], to - from)
    }
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
