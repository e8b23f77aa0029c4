//! Reading one segment through, from a stream of unknown origin: every frame, the footer, the
//! SHA-256 of the content and the chain, and on the way where a target or a fork lies.
//!
//! A file that ends in the middle of a frame is *torn*: good up to there. That is what a copy of
//! an active segment looks like, and only the caller knows whether more was needed. A file that
//! ends in a good footer and has something wrong before it is *damaged*: it was whole once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};
use unisondb_types::{Chain, Kind, Lsn, Sha256Sum, Stamp, Target, Term};
use unisondb_wal::{
    Entry, FOOTER_BYTES, Footer, FrameError, HEADER_BYTES, SegmentError, SegmentHeader,
    SegmentReader, Stop,
};

/// A record's coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its position.
    pub lsn: Lsn,
    /// Its time.
    pub stamp: Stamp,
    /// Its term.
    pub term: Term,
    /// CRC on its frame.
    pub crc: u32,
}

/// What one reading of a segment showed.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Its header.
    pub header: SegmentHeader,
    /// Its footer, if it is sealed.
    pub footer: Option<Footer>,
    /// Its first record.
    pub first: Option<Mark>,
    /// Its last good record.
    pub last: Option<Mark>,
    /// Its last record at or below the fork asked for, and the chain if it ended there; the last
    /// record and the chain at the end if the fork lies behind.
    pub fork: Option<(Mark, Chain)>,
    /// Its last record within the target, at or below the fork.
    pub within: Option<Mark>,
    /// Its first record past the target, at or below the fork.
    pub past: Option<Mark>,
    /// Records by kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Length of header and good frames.
    pub content_bytes: u64,
    /// SHA-256 of these.
    pub content_sha256: Sha256Sum,
    /// Length of the file, unpacked.
    pub bytes: u64,
    /// What stands behind the last good frame, when it is neither the end nor zeroes.
    pub torn: Option<String>,
}

impl Reading {
    /// How many good records it has.
    pub fn records(&self) -> u64 {
        self.kinds.values().sum()
    }
}

/// What to look for on the way.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Records past this one belong to another past.
    pub fork: Lsn,
    /// Where the restore stops.
    pub target: Target,
}

impl Ask {
    /// All there is.
    pub const ALL: Ask = Ask {
        fork: Lsn::MAX,
        target: Target::Latest,
    };
}

/// Reads a segment to its end; `each` sees every good record.
///
/// # Errors
/// [`SegmentError`] when there is no header, when a sealed segment is damaged, when a record is of
/// a kind unknown here, and when the stream itself fails.
pub fn read(
    body: &mut dyn Read,
    ask: Ask,
    each: &mut dyn FnMut(&Entry),
) -> Result<Reading, SegmentError> {
    let tap = Rc::new(RefCell::new(Tap::new(body)));
    // The tap hashes: the reader need not.
    let mut reader = SegmentReader::stream_unhashed(Shared(tap.clone()))?;
    let header = reader.header().clone();
    tap.borrow_mut().good = HEADER_BYTES as u64;
    let mut reading = Reading {
        footer: None,
        first: None,
        last: None,
        fork: None,
        within: None,
        past: None,
        kinds: BTreeMap::new(),
        content_bytes: HEADER_BYTES as u64,
        content_sha256: Sha256Sum::default(),
        bytes: 0,
        torn: None,
        header,
    };
    let ended = loop {
        match reader.next() {
            Ok(Some(entry)) => {
                each(&entry);
                reading.take(&entry, ask, &tap);
                tap.borrow_mut().good = entry.end;
            }
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    reading.content_bytes = reader.offset();
    reading.footer = reader.footer().copied();
    tap.borrow_mut().keep_no_more();
    let torn = match ended {
        Ok(()) if reader.stop() != Some(Stop::Zeroes) || reader.rest_is_zero()? => None,
        Ok(()) => Some(SegmentError::Frame {
            offset: reading.content_bytes,
            after: reading
                .last
                .map_or(reading.header.first_lsn.prev(), |m| m.lsn),
            why: FrameError::Hole,
        }),
        Err(e @ (SegmentError::Frame { .. } | SegmentError::Footer { .. })) => Some(e),
        Err(e) => return Err(e),
    };
    if let Some(why) = torn {
        let tap = &mut *tap.borrow_mut();
        tap.drain()?;
        if Footer::decode(&tap.tail).is_ok() {
            return Err(why);
        }
        reading.torn = Some(why.to_string());
    }
    reading.bytes = tap.borrow().total;
    reading.content_sha256 = tap.borrow_mut().sha256();
    let chain = chain(&reading.header, reading.content_sha256);
    if reading.fork.is_none() {
        reading.fork = reading.last.map(|last| (last, chain));
    }
    reading.check_footer(chain)?;
    Ok(reading)
}

impl Reading {
    fn take(&mut self, entry: &Entry, ask: Ask, tap: &RefCell<Tap<'_>>) {
        let record = &entry.record;
        let mark = Mark {
            lsn: record.lsn,
            stamp: record.stamp,
            term: record.term,
            crc: entry.crc,
        };
        if record.lsn == ask.fork.next() && self.fork.is_none() {
            // Hashed so far is what lies before this record: just the fork's own end.
            let chain = chain(&self.header, tap.borrow_mut().sha256());
            self.fork = self.last.map(|last| (last, chain));
        }
        if record.lsn <= ask.fork {
            if ask.target.includes(record.lsn, record.stamp) {
                self.within = Some(mark);
            } else if self.past.is_none() {
                self.past = Some(mark);
            }
        }
        self.first.get_or_insert(mark);
        self.last = Some(mark);
        *self.kinds.entry(record.kind).or_default() += 1;
    }

    /// The reader compares all that it has summed up; the hashes are ours.
    fn check_footer(&self, chain: Chain) -> Result<(), SegmentError> {
        let Some(footer) = &self.footer else {
            return Ok(());
        };
        let wrong = |what: &str, found: String, said: String| SegmentError::Footer {
            offset: self.content_bytes,
            why: format!("{what} should be {found}, the footer says {said}"),
        };
        let (found, said) = (self.content_sha256, footer.content_sha256);
        if found != said {
            return Err(wrong(
                "content SHA-256",
                found.to_string(),
                said.to_string(),
            ));
        }
        if chain != footer.chain {
            return Err(wrong("chain", chain.to_string(), footer.chain.to_string()));
        }
        Ok(())
    }
}

fn chain(header: &SegmentHeader, content: Sha256Sum) -> Chain {
    header.chain_before().extend(header.id, content)
}

/// A stream that is hashed up to the last good frame as it is read, and whose last bytes are kept.
struct Tap<'a> {
    body: &'a mut dyn Read,
    hash: Sha256,
    /// Bytes that went through and are not hashed yet.
    pending: Vec<u8>,
    /// Whether there may be good frames among what still comes.
    keep: bool,
    /// Offset of the first of them.
    hashed: u64,
    /// Offset behind the last good frame.
    good: u64,
    /// Bytes that went through.
    total: u64,
    /// The last of them.
    tail: Vec<u8>,
}

impl<'a> Tap<'a> {
    fn new(body: &'a mut dyn Read) -> Tap<'a> {
        Tap {
            body,
            hash: Sha256::new(),
            pending: Vec::new(),
            keep: true,
            hashed: 0,
            good: 0,
            total: 0,
            tail: Vec::new(),
        }
    }

    fn catch_up(&mut self) {
        let n = usize::try_from(self.good - self.hashed)
            .ok()
            .filter(|n| *n <= self.pending.len())
            .expect("a frame is good only once its bytes have gone through");
        self.hash.update(&self.pending[..n]);
        self.pending.drain(..n);
        self.hashed = self.good;
    }

    /// No good frame follows: what still comes needs no room, however long it is.
    fn keep_no_more(&mut self) {
        self.catch_up();
        self.pending = Vec::new();
        self.keep = false;
    }

    /// Of everything up to the last good frame.
    fn sha256(&mut self) -> Sha256Sum {
        self.catch_up();
        Sha256Sum::from_bytes(self.hash.clone().finalize().into())
    }

    fn pass(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.body.read(buf)?;
        self.total += n as u64;
        self.tail
            .extend_from_slice(&buf[n.saturating_sub(FOOTER_BYTES)..n]);
        let surplus = self.tail.len().saturating_sub(FOOTER_BYTES);
        self.tail.drain(..surplus);
        Ok(n)
    }

    /// Reads to the end, keeping nothing but the last bytes.
    fn drain(&mut self) -> io::Result<()> {
        let mut buf = vec![0; 64 << 10];
        loop {
            match self.pass(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

struct Shared<'a>(Rc<RefCell<Tap<'a>>>);

impl Read for Shared<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let tap = &mut *self.0.borrow_mut();
        tap.catch_up();
        let n = tap.pass(buf)?;
        if tap.keep {
            tap.pending.extend_from_slice(&buf[..n]);
        }
        Ok(n)
    }
}
