//! Opening: which segments are this log, whether they are whole, and what of the last one counts
//! (D6, D7, and the fault contract).
//!
//! 1. What an interrupted act left behind goes: `next.tmp`, `*.wal.tmp`.
//! 2. The segment of the highest id is live. From it the predecessors in the headers lead down; a
//!    segment missing on that way, with others below it, is a gap. What is not on the way is a
//!    stranger: reported, untouched.
//! 3. Up to the last footer, every segment must be sealed, and the ends must fit one another.
//! 4. What follows is read through and rewritten. All but the last must be whole up to where the
//!    next one begins; the last is cut behind its last good frame, unless something vouches for
//!    more. One that holds nothing then goes, unless a `Seal` ended the one before it: which records are in
//!    which segment follows from the records alone (D4).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::watch;
use unisondb_platform::{Access, Disk, DiskExt, File, FileExt, Platform};
use unisondb_types::{Command, LineageRecord, Lsn, SegmentId, Stamp, Term, limits};

use super::append::{follow, roll};
use super::choose::{Candidate, choose, find};
use super::read::Cursors;
use super::resync::look_beyond;
use super::state::{Life, Recent, Segment, State};
use super::sync::{Current, Io};
use super::{AfterCut, Cut, CutBytes, Inner, Options, Positions, Recovery, Wal};
use crate::error::{Error, SegmentError};
use crate::footer::{FOOTER_BYTES, Footer};
use crate::frame::FrameError;
use crate::header::{HEADER_BYTES, SegmentHeader};
use crate::reader::{SegmentReader, Stop};
use crate::rewrite::Rewrite;
use crate::tally::Tally;

impl Wal {
    /// Opens the log in `dir`. Nothing at or below `vouched` (what the store has flushed) may be
    /// missing.
    ///
    /// Several lineages may lie in the folder: the one of the highest segment id is live, and is
    /// followed down through the predecessors in the headers. An ancestor's records count up to
    /// the fork. All that lies behind the last footer is rewritten into new files and synced before
    /// this returns (D7); a torn tail that nobody vouches for is cut.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Damaged`], [`Error::Broken`], [`Error::MissingSegments`],
    /// [`Error::Missing`], [`Error::Foreign`], [`Error::CutOff`], [`Error::Full`], [`Error::Io`].
    ///
    /// # Panics
    /// When `options.segment_size` is outside the limits: whoever reads the settings checks that.
    pub fn open(
        platform: &Platform,
        dir: &Path,
        mut options: Options,
        vouched: Lsn,
    ) -> Result<(Wal, Recovery), Error> {
        let disk = &*platform.disk;
        let sizes = limits::SEGMENT_MIN_BYTES..=limits::SEGMENT_MAX_BYTES;
        assert!(
            sizes.contains(&options.segment_size),
            "no header takes a segment size of {}",
            options.segment_size
        );
        let (files, mut strangers) = find(disk, dir)?;
        let chosen = choose(files, dir, &options, &mut strangers)?;
        let mut opening = Opening {
            disk,
            dir,
            options: &options,
            vouched,
            recent: Recent::new(options.memory),
            segments: VecDeque::new(),
            rewritten: Vec::new(),
            cut: None,
            current: None,
            floor: Default::default(),
        };
        opening.run(chosen)?;
        let Opening {
            recent,
            segments,
            rewritten,
            cut,
            current,
            ..
        } = opening;
        let mut state = State {
            segments,
            recent,
            positions: Positions::default(),
            last_term: Default::default(),
            last_stamp: Default::default(),
            spare: 0,
            truncations: 0,
        };
        let last = state.active().last();
        let found = state.segments.iter().map(|s| s.tally.vouched);
        let found = found.max().unwrap_or(Lsn::ZERO);
        if vouched > last {
            let from = last.next();
            return Err(Error::Missing { from, to: vouched });
        }
        state.positions = Positions {
            last,
            durable: last,
            committed: found.max(vouched).min(last),
        };
        state.recent.evict(last);
        state.settle_last();
        let current = current.expect("a log has a segment, and its last file was opened");
        if options.keep_segment_size {
            options.segment_size = state.active().tally.header.segment_size;
        }
        begin_active(&mut state, options.segment_size);
        let recovery = Recovery {
            first: state.first(),
            last,
            vouched: found,
            cut,
            rewritten,
            strangers,
            full: false,
        };
        let wal = Wal {
            inner: Arc::new(Inner {
                platform: platform.clone(),
                dir: dir.to_owned(),
                io: Mutex::new(Io {
                    current,
                    spare: None,
                    name_due: false,
                    step: options.zero_ahead,
                    least_step: options.zero_ahead,
                    scratch: Vec::new(),
                }),
                positions: watch::Sender::new(state.positions),
                state: Mutex::new(state),
                cursors: Mutex::new(Cursors::default()),
                holds: Mutex::new(BTreeMap::new()),
                poison: OnceLock::new(),
                options,
            }),
        };
        wal.settle(recovery)
    }

    /// The active segment gets its file and some room, if there is room on the disk: a full disk
    /// does not keep a log from being read.
    fn settle(self, mut recovery: Recovery) -> Result<(Wal, Recovery), Error> {
        let begun = self.sync().map(|_| ());
        match begun.and_then(|()| self.reserve(0)) {
            Ok(()) => {}
            Err(Error::Full { .. }) => recovery.full = true,
            Err(e) => return Err(e),
        }
        Ok((self, recovery))
    }
}

/// Behind a sealed segment, or one that a `Seal` ended, there is always one to append to.
fn begin_active(state: &mut State, segment_size: u64) {
    let last = state.active();
    match &last.life {
        Life::Active if last.tally.ended => roll(state, segment_size),
        Life::Active | Life::Rolled { .. } => {}
        Life::Sealed { footer, .. } => {
            let next = follow(&last.tally, footer.chain, segment_size, HEADER_BYTES as u64);
            state.segments.push_back(next);
        }
    }
}

/// The work of opening, segment by segment from the lowest.
struct Opening<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    options: &'a Options,
    vouched: Lsn,
    recent: Recent,
    segments: VecDeque<Segment>,
    rewritten: Vec<SegmentId>,
    cut: Option<Cut>,
    current: Option<Current>,
    /// Term and stamp below which the next record must not be.
    floor: (Term, Stamp),
}

impl Opening<'_> {
    fn run(&mut self, chosen: Vec<Candidate>) -> Result<(), Error> {
        let sealed = chosen.iter().rposition(|c| c.footer.is_some());
        let last = chosen.len() - 1;
        let mut chosen = chosen.into_iter().enumerate().peekable();
        while let Some((i, candidate)) = chosen.next() {
            let next = chosen.peek().map(|(_, c)| &c.header);
            self.follows(&candidate)?;
            match (&candidate.footer, sealed) {
                (Some(footer), _) => {
                    let newest = Some(i) == sealed;
                    self.take_sealed(&candidate, footer, newest, i == last)?;
                }
                (None, Some(sealed)) if i < sealed => {
                    return Err(self.bad_footer(&candidate, sealed - i));
                }
                (None, _) => self.take_unsealed(&candidate, next)?,
            }
        }
        if !self.rewritten.is_empty() {
            self.disk
                .sync_folder(self.dir)
                .map_err(|e| Error::io("cannot sync", self.dir, e))?;
        }
        Ok(())
    }

    fn bad_footer(&self, candidate: &Candidate, behind: usize) -> Error {
        let id = candidate.header.id;
        let why = format!("it is missing or damaged, and {behind} segments behind it are sealed");
        let offset = self
            .disk
            .meta(&candidate.path)
            .map_or(0, |m| m.len.saturating_sub(FOOTER_BYTES as u64));
        Error::damaged(id, &candidate.path, SegmentError::Footer { offset, why })
    }

    /// Whether a segment continues the one before it; sets where an ancestor's ends.
    fn follows(&mut self, candidate: &Candidate) -> Result<(), Error> {
        let header = &candidate.header;
        let first = self.lineage_record(candidate)?;
        let Some(before) = self.segments.back_mut() else {
            return Ok(());
        };
        let broken = |before: &Segment, why: String| {
            Err(Error::Broken {
                segment: header.id,
                before: before.id(),
                path: candidate.path.clone(),
                why,
            })
        };
        let claimed = header
            .predecessor
            .expect("segments were chosen by their predecessors");
        if claimed.lineage != before.tally.header.lineage {
            return broken(
                before,
                format!(
                    "it names lineage {}, not {}",
                    claimed.lineage, before.tally.header.lineage
                ),
            );
        }
        let chain = match &before.life {
            Life::Active => before.tally.chain(),
            Life::Rolled { chain } => *chain,
            Life::Sealed { footer, .. } => footer.chain,
        };
        let at = header.first_lsn.prev();
        if let Some(first) = first {
            // A new lineage. Its parent may go on behind the fork, and what the fork was taken
            // from may have known the parent's chain only up to an earlier segment.
            if !before.is_sealed() {
                return broken(before, "that one is not sealed".to_owned());
            }
            if !before.tally.holds(at) {
                return broken(before, format!("that one does not hold the fork {at}"));
            }
            let parent = first.parent;
            self.floor = parent.as_ref().map_or(self.floor, |p| (p.term, p.stamp));
            let whole = parent.is_some_and(|p| p.chain_lsn == at);
            if whole && at == before.tally.last_lsn && claimed.chain != chain {
                return broken(before, differ("chain", &claimed.chain, &chain));
            }
            before.ends_at = Some(at);
            return Ok(());
        }
        let tally = &before.tally;
        self.floor = (tally.last_term, tally.last_stamp);
        if header.lineage != tally.header.lineage {
            return broken(before, "it begins no lineage, and is of another".to_owned());
        }
        if at != tally.last_lsn {
            return broken(
                before,
                differ("first LSN", &header.first_lsn, &tally.last_lsn.next()),
            );
        }
        if header.crc_seed != tally.last_crc {
            return broken(
                before,
                differ("CRC seed", &header.crc_seed, &tally.last_crc),
            );
        }
        if claimed.chain != chain {
            return broken(before, differ("chain", &claimed.chain, &chain));
        }
        Ok(())
    }

    /// The record that a lineage begins with, of the segment that must begin with it.
    fn lineage_record(&self, candidate: &Candidate) -> Result<Option<Box<LineageRecord>>, Error> {
        let header = &candidate.header;
        if header
            .predecessor
            .is_some_and(|p| p.lineage == header.lineage)
        {
            return Ok(None);
        }
        let damaged = |e| Error::damaged(header.id, &candidate.path, e);
        let mut reader = SegmentReader::open(self.disk, &candidate.path).map_err(damaged)?;
        let wrong = |why: &str| {
            damaged(SegmentError::Frame {
                offset: HEADER_BYTES as u64,
                after: header.first_lsn.prev(),
                why: FrameError::Order(why.to_owned()),
            })
        };
        let first = reader
            .next()
            .map_err(damaged)?
            .ok_or_else(|| wrong("a lineage's first segment has no record"))?;
        match first.record.command() {
            Ok(Command::Lineage(record))
                if record.lineage == header.lineage
                    && record.first_lsn() == header.first_lsn
                    && record
                        .parent
                        .as_ref()
                        .map(|p| (p.lineage, p.segment, p.chain))
                        == header.predecessor.map(|p| (p.lineage, p.id, p.chain)) =>
            {
                Ok(Some(record))
            }
            Ok(Command::Lineage(_)) => Err(wrong("its Lineage record does not fit its header")),
            _ => Err(wrong("a lineage's first record is no Lineage record")),
        }
    }

    fn take_sealed(
        &mut self,
        candidate: &Candidate,
        footer: &Footer,
        newest: bool,
        last: bool,
    ) -> Result<(), Error> {
        let id = candidate.header.id;
        if let (Some(by), true, AfterCut::Refuse) = (footer.cut_by, last, self.options.after_cut) {
            return Err(Error::CutOff { segment: id, by });
        }
        if newest {
            // It may be a footer whose sync failed before the last process died: such bytes look
            // good in the page cache. Written and synced once more, it is what it looks like (D7).
            let path = &candidate.path;
            let file = self
                .disk
                .open(path, Access::Write)
                .map_err(|e| Error::io("cannot open", path, e))?;
            file.write_all_at(&footer.encode(), footer.content_bytes)
                .map_err(|e| Error::io("cannot write", path, e))?;
            file.sync().map_err(|e| Error::io("cannot sync", path, e))?;
            self.current = Some(Current {
                id,
                file,
                written: footer.content_bytes + FOOTER_BYTES as u64,
            });
        }
        let tally = Tally::sealed(candidate.header.clone(), footer);
        self.segments.push_back(Segment {
            ends_at: None,
            life: Life::Sealed {
                footer: *footer,
                sha256: None,
            },
            begun: true,
            room: footer.content_bytes + FOOTER_BYTES as u64,
            tally,
        });
        Ok(())
    }

    /// Reads a segment without footer through, decides what of it counts, and rewrites it.
    fn take_unsealed(
        &mut self,
        candidate: &Candidate,
        next: Option<&SegmentHeader>,
    ) -> Result<(), Error> {
        let id = candidate.header.id;
        let path = &candidate.path;
        let damaged = |e| Error::damaged(id, path, e);
        let file = self
            .disk
            .open(path, Access::Read)
            .map_err(|e| Error::io("cannot open", path, e))?;
        let mut reader = SegmentReader::from_file(file.clone()).map_err(damaged)?;
        let mut rewrite = Rewrite::start(self.disk, self.dir, id)?;
        rewrite.push(&candidate.header.encode())?;
        let (term, stamp) = self.floor;
        let stopped = loop {
            match reader.next_with_frame() {
                Ok(Some((entry, frame))) => {
                    if entry.record.term < term || entry.record.stamp < stamp {
                        return Err(damaged(SegmentError::Frame {
                            offset: entry.start(),
                            after: entry.record.lsn.prev(),
                            why: FrameError::Order(
                                "its term or stamp is below that of the segment before".to_owned(),
                            ),
                        }));
                    }
                    rewrite.push(&frame)?;
                    self.recent.push(entry, frame);
                    self.recent.evict(Lsn::MAX);
                }
                Ok(None) => break None,
                Err(e @ (SegmentError::Frame { .. } | SegmentError::Footer { .. })) => {
                    break Some(e);
                }
                Err(e) => return Err(damaged(e)),
            }
        };
        let clean_end = stopped.is_none() && reader.stop() == Some(Stop::End);
        let tally = reader.tally().clone();
        if !clean_end {
            self.judge(candidate, &*file, &tally, stopped, next)?;
        }
        if let Some(next) = next
            && tally.last_lsn != next.first_lsn.prev()
        {
            // Too short; too long is found when the next one is compared with it.
            let (from, to) = (tally.last_lsn.next(), next.first_lsn.prev());
            if from <= to {
                return Err(Error::Missing { from, to });
            }
        }
        if next.is_none() && tally.records == 0 && self.reopen_last() {
            rewrite.abandon();
            let removed = self.disk.remove_file(path);
            return removed.map_err(|e| Error::io("cannot remove", path, e));
        }
        let file = rewrite.publish()?;
        self.rewritten.push(id);
        self.current = Some(Current {
            id,
            file,
            written: tally.bytes,
        });
        let life = match next {
            Some(_) => Life::Rolled {
                chain: tally.chain(),
            },
            None => Life::Active,
        };
        self.segments.push_back(Segment {
            ends_at: None,
            life,
            begun: true,
            room: tally.bytes,
            tally,
        });
        Ok(())
    }

    /// The segment before one that holds nothing goes on, if no `Seal` ended it: it was left for a record that is
    /// gone, and the one that comes in its place may fit (D4). Whether it does.
    fn reopen_last(&mut self) -> bool {
        let before = self.segments.back_mut();
        let before = before.filter(|before| before.is_rolled() && !before.tally.ended);
        match before {
            Some(before) => {
                before.life = Life::Active;
                true
            }
            None => false,
        }
    }

    /// What stands behind the last good frame: nothing, a torn tail, or damage.
    fn judge(
        &mut self,
        candidate: &Candidate,
        file: &dyn File,
        tally: &Tally,
        stopped: Option<SegmentError>,
        next: Option<&SegmentHeader>,
    ) -> Result<(), Error> {
        let id = candidate.header.id;
        let damaged = |e| Error::damaged(id, &candidate.path, e);
        let beyond = look_beyond(file, tally, self.floor).map_err(damaged)?;
        let lost_bytes = beyond.written - tally.bytes;
        if lost_bytes == 0 {
            return Ok(());
        }
        let stopped = stopped.unwrap_or(SegmentError::Frame {
            offset: tally.bytes,
            after: tally.last_lsn,
            why: FrameError::Hole,
        });
        // A whole frame in the wrong place was not torn: somebody put it there.
        if let SegmentError::Frame {
            why: FrameError::Order(_),
            ..
        } = stopped
        {
            return Err(damaged(stopped));
        }
        if let Some(next) = next {
            // Its every byte was synced before the next one got its name. Only the footer may be
            // torn: it comes later, and is made again.
            let complete = tally.last_lsn == next.first_lsn.prev();
            return if complete && lost_bytes <= FOOTER_BYTES as u64 {
                Ok(())
            } else {
                Err(damaged(stopped))
            };
        }
        if tally.ended && lost_bytes <= FOOTER_BYTES as u64 {
            return Ok(());
        }
        if beyond.vouched.max(self.vouched).max(tally.vouched) > tally.last_lsn {
            return Err(damaged(stopped));
        }
        self.cut = Some(Cut {
            segment: id,
            offset: tally.bytes,
            lost_bytes,
            why: stopped.to_string(),
            kept: self.keep(id, file, tally.bytes, beyond.written)?,
        });
        Ok(())
    }

    /// Keeps the bytes that are cut in a file beside the segment.
    fn keep(
        &self,
        id: SegmentId,
        file: &dyn File,
        from: u64,
        to: u64,
    ) -> Result<Option<PathBuf>, Error> {
        if self.options.cut_bytes == CutBytes::Drop {
            return Ok(None);
        }
        let name = format!("{}.cut-at-{from}", id.file_name());
        let path = self.dir.join(name);
        let len = usize::try_from(to - from).expect("a segment fits the address space");
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, from)
            .map_err(|e| Error::io("cannot read", &path, e))?;
        self.disk
            .publish(&path, &bytes)
            .map_err(|e| Error::io("cannot write", &path, e))?;
        Ok(Some(path))
    }
}

fn differ(what: &str, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display) -> String {
    format!("its {what} is {found}, not {expected}")
}
