//! What lies behind a bad frame: a torn tail, or rot in the middle of what others rely on (D6).
//!
//! Behind damage the CRC that seeds the next frame is not known, but every frame carries its own,
//! and that seeds its successor: two frames in a row prove the second one. So each offset where a
//! plausible frame header stands is tried as the first of two.

use unisondb_platform::File;
use unisondb_types::{Kind, Lsn};

use crate::error::SegmentError;
use crate::frame::{self, FRAME_HEADER_BYTES, FrameHeader};
use crate::tally::Tally;

/// How much is looked at together. Two frames of the largest size fit into the overlap.
const WINDOW_BYTES: usize = 16 << 20;
const OVERLAP_BYTES: usize = 2 * (FRAME_HEADER_BYTES + unisondb_types::limits::FRAME_PAYLOAD_BYTES);
/// CRCs are computed over at most this many times the bytes looked at: more plausible headers
/// than that are not an accident.
const EFFORT: usize = 16;

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
            beyond.vouched = beyond.vouched.max(proven(&bytes[..=last], tally));
        }
        if have < window.len() {
            return Ok(beyond);
        }
        at += (WINDOW_BYTES - OVERLAP_BYTES) as u64;
    }
}

/// Highest LSN that a frame in `bytes` vouches for which its predecessor proves.
fn proven(bytes: &[u8], tally: &Tally) -> Lsn {
    let mut vouched = Lsn::ZERO;
    let mut effort = bytes.len().saturating_mul(EFFORT);
    // However many records were written behind, each took at least a header.
    let most = tally.header.segment_size.max(bytes.len() as u64) / FRAME_HEADER_BYTES as u64 + 1;
    let highest = Lsn::new(tally.last_lsn.get().saturating_add(most));
    for start in 0..bytes.len() {
        let Some(first) = FrameHeader::parse(&bytes[start..]) else {
            break;
        };
        let plausible = first.lsn > tally.last_lsn
            && first.lsn <= highest
            && first.committed < first.lsn
            && first.term >= tally.last_term
            && first.flags == 0
            && Kind::from_number(first.kind).is_some();
        let Some(len) = first.frame_bytes().filter(|_| plausible) else {
            continue;
        };
        let Some(rest) = bytes.get(start + len..) else {
            continue;
        };
        let second_bytes = FrameHeader::parse(rest).and_then(|h| h.frame_bytes());
        effort = match effort.checked_sub(second_bytes.unwrap_or(0)) {
            Some(left) => left,
            None => break,
        };
        if let Ok(second) = frame::check(rest, first.crc)
            && second.lsn == first.lsn.next()
        {
            vouched = vouched.max(second.committed);
        }
    }
    vouched
}
