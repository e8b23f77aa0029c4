//! The log of one namespace: frames in segment files, synchronous over
//! [`Disk`](unisondb_platform::Disk).
//!
//! ```text
//! wal/000000041.wal   header | frame frame frame … | footer      sealed: never changes again
//! wal/000000042.wal   header | frame frame …                     rolled: ended, waits for its footer
//! wal/000000043.wal   header | frame frame | 0 0 0 0 0 0 0       active: zeroed ahead
//! wal/next.tmp        0 0 0 0 …                                  room for the segment after it
//! ```
//!
//! Steady state: [`Wal::append`] makes frames in memory, readable at once; [`Wal::sync`], on a
//! thread of its own, writes all that has gathered and moves `durable`; whoever decides what is
//! committed calls [`Wal::commit`]. Segments end by rules that follow from the log alone, so the
//! same log has the same files everywhere.
//!
//! Failure path: a failed fsync, or a write that fails for another reason than a full disk, poisons
//! the log until the process restarts; [`Wal::open`] then rewrites and syncs all that lies behind
//! the last footer before anybody sees it.
//!
//! What holds:
//! - A segment has its final name only when its header is durable, and its predecessor's every
//!   byte before that. So damage in any segment but the last is rot, never a torn tail.
//! - A frame's CRC is seeded with that of the frame before: stale bytes never continue a log.
//! - Of the last segment, only what nobody vouches for is ever cut.
//!
//! Left to others: what records mean, which lineage a directory shall continue, when to seal and
//! what to purge (`unisondb-engine`). The bytes are described in `docs/formats/`.

mod copy;
mod error;
mod footer;
mod frame;
mod header;
mod info;
mod lineage;
mod log;
pub mod raft_state;
mod reader;
mod rewrite;
mod survey;
mod tally;

#[cfg(test)]
mod records;
#[cfg(test)]
mod testing;

pub use copy::{Copied, copy_verified};
pub use error::{Error, SegmentError};
pub use footer::{FOOTER_BYTES, Footer};
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameError};
pub use header::{HEADER_BYTES, Predecessor, SegmentHeader};
pub use info::{Entry, SegmentInfo, SegmentState};
pub use lineage::{begin, cut, seal_file};
pub use log::{AfterCut, Cut, CutBytes, Hold, Options, Positions, Recovery, SealedFile, Wal};
pub use reader::{FileRead, SegmentReader, Stop};
pub use survey::{
    Anchor, Stranger, Survey, Surveyed, Verified, chain_at, survey, verify, verify_stream,
};
