//! What an open log knows in memory: its segments, its recent frames, its positions.

use std::collections::VecDeque;

use bytes::Bytes;
use unisondb_types::{Chain, Lsn, SegmentId, Sha256Sum, Stamp, Term};

use super::Positions;
use crate::footer::Footer;
use crate::info::{Entry, SegmentInfo, SegmentState};
use crate::tally::Tally;

pub(super) struct State {
    /// By id; the last one is active.
    pub segments: VecDeque<Segment>,
    pub recent: Recent,
    pub positions: Positions,
    /// Of the last record, whatever segment it stands in.
    pub last_term: Term,
    pub last_stamp: Stamp,
    /// Length of the spare file that no segment has been given yet; 0 without one.
    pub spare: u64,
    /// How often the tail was truncated: a reader that stumbles over a moving tail looks again.
    pub truncations: u64,
}

pub(super) struct Segment {
    pub tally: Tally,
    /// The last record that counts: of an ancestor's segment at most the fork.
    pub ends_at: Option<Lsn>,
    pub life: Life,
    /// Whether its file has its name.
    pub begun: bool,
    /// Length of its file, zeroes ahead included (not begun yet: of the spare one it will get).
    pub room: u64,
}

pub(super) enum Life {
    Active,
    Rolled {
        chain: Chain,
    },
    Sealed {
        footer: Footer,
        sha256: Option<Sha256Sum>,
    },
}

impl Segment {
    pub fn id(&self) -> SegmentId {
        self.tally.header.id
    }
    pub fn is_rolled(&self) -> bool {
        matches!(self.life, Life::Rolled { .. })
    }
    pub fn is_sealed(&self) -> bool {
        matches!(self.life, Life::Sealed { .. })
    }
    /// The last record that counts; below the first one while there is none.
    pub fn last(&self) -> Lsn {
        let fork = self.ends_at.unwrap_or(Lsn::MAX);
        self.tally.last_lsn.min(fork)
    }
    pub fn info(&self) -> SegmentInfo {
        match &self.life {
            Life::Active => self.tally.info(SegmentState::Active, None),
            Life::Rolled { chain } => self.tally.info(SegmentState::Rolled, Some(*chain)),
            Life::Sealed { footer, sha256 } => self.tally.sealed_info(footer, *sha256),
        }
    }
}

impl State {
    pub fn active(&self) -> &Segment {
        self.segments.back().expect("a log always has a segment")
    }
    pub fn active_mut(&mut self) -> &mut Segment {
        self.segments
            .back_mut()
            .expect("a log always has a segment")
    }
    pub fn first(&self) -> Lsn {
        let first = self.segments.front().expect("a log always has a segment");
        first.tally.header.first_lsn
    }
    fn index(&self, id: SegmentId) -> Option<usize> {
        self.segments.binary_search_by_key(&id, Segment::id).ok()
    }
    pub fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.index(id).map(|i| &self.segments[i])
    }
    pub fn segment_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.index(id).map(|i| &mut self.segments[i])
    }
    /// Index of the segment that holds a record.
    pub fn holding(&self, lsn: Lsn) -> Option<usize> {
        let after = self
            .segments
            .partition_point(|s| s.tally.header.first_lsn <= lsn);
        let i = after.checked_sub(1)?;
        (lsn <= self.segments[i].last()).then_some(i)
    }
    /// Sets what is remembered of the last record, after segments were put together or truncated.
    pub fn settle_last(&mut self) {
        let last = self.segments.iter().rev().find(|s| s.tally.records > 0);
        (self.last_term, self.last_stamp) = last.map_or_else(Default::default, |s| {
            (s.tally.last_term, s.tally.last_stamp)
        });
    }
}

/// The newest frames, in memory: all that are not durable yet, and before them as many as fit.
pub(super) struct Recent {
    frames: VecDeque<Recently>,
    bytes: u64,
    limit: u64,
}

#[derive(Clone)]
pub(super) struct Recently {
    pub entry: Entry,
    pub frame: Bytes,
}

impl Recent {
    pub fn new(limit: u64) -> Recent {
        Recent {
            frames: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }
    pub fn push(&mut self, entry: Entry, frame: Bytes) {
        if let Some(last) = self.frames.back() {
            assert_eq!(last.entry.record.lsn.next(), entry.record.lsn);
        }
        self.bytes += frame.len() as u64;
        self.frames.push_back(Recently { entry, frame });
    }
    /// The lowest position here.
    pub fn first(&self) -> Option<Lsn> {
        self.frames.front().map(|f| f.entry.record.lsn)
    }
    /// From `lsn` on; nothing when it is not here.
    pub fn from(&self, lsn: Lsn) -> impl Iterator<Item = &Recently> {
        let skip = match self.first() {
            Some(first) if first <= lsn => {
                usize::try_from(lsn.get() - first.get()).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        };
        let skip = skip.min(self.frames.len());
        self.frames.range(skip..)
    }
    /// Forgets durable frames, oldest first, until the rest fits.
    pub fn evict(&mut self, durable: Lsn) {
        while self.bytes > self.limit {
            match self.frames.front() {
                Some(f) if f.entry.record.lsn <= durable => {
                    self.bytes -= f.frame.len() as u64;
                    self.frames.pop_front();
                }
                _ => break,
            }
        }
    }
    /// Forgets what lies after `lsn`.
    pub fn truncate_after(&mut self, lsn: Lsn) {
        while let Some(f) = self.frames.back() {
            if f.entry.record.lsn <= lsn {
                break;
            }
            self.bytes -= f.frame.len() as u64;
            self.frames.pop_back();
        }
    }
}
