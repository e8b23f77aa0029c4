//! [`SegmentReader`]: reads one segment from its start, believing nothing. Over a file or over any
//! stream (a segment decompressed on the fly); writes nothing, allocates at most a block and a
//! frame.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use unisondb_platform::{Access, Disk, File, FileExt};
use unisondb_types::Kind;

use crate::error::SegmentError;
use crate::footer::{self, FOOTER_BYTES, Footer};
use crate::frame::{self, FRAME_HEADER_BYTES, FrameError};
use crate::header::{HEADER_BYTES, SegmentHeader};
use crate::info::{Entry, SegmentInfo, SegmentState};
use crate::tally::{Hashing, Tally};

/// How much is read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Where a reader came to the end of a segment, and how it saw that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A footer, and nothing behind it.
    Footer,
    /// The file ends behind a frame: a rolled segment, or one cut exactly there.
    End,
    /// Zeroes: the active segment, written this far. (What lies further on was not looked at:
    /// [`SegmentReader::rest_is_zero`].)
    Zeroes,
}

/// Reads the records of one segment in order.
///
/// Each record given was checked: CRC seeded with the frame before, LSN next in line, term and
/// stamp not falling. A sealed segment's footer is compared with what was read.
pub struct SegmentReader<R> {
    source: R,
    block: BytesMut,
    at_end: bool,
    tally: Tally,
    stop: Option<Stop>,
    footer: Option<Footer>,
}

impl SegmentReader<FileRead> {
    /// Opens the segment at `path`.
    ///
    /// # Errors
    /// [`SegmentError::Io`], [`SegmentError::Header`], [`SegmentError::Version`].
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SegmentError> {
        Self::from_file(disk.open(path, Access::Read)?)
    }

    /// Reads an open file from its start.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(file: Arc<dyn File>) -> Result<Self, SegmentError> {
        SegmentReader::stream(FileRead::new(file))
    }
}

impl<R: Read> SegmentReader<R> {
    /// Reads a segment from any stream. SHA-256 of the content is computed along the way.
    ///
    /// # Errors
    /// As [`open`](SegmentReader::open).
    pub fn stream(source: R) -> Result<Self, SegmentError> {
        Self::begin(source, Hashing::On)
    }

    /// As [`stream`](Self::stream), without SHA-256: for replay, where CRCs are enough.
    ///
    /// # Errors
    /// As [`open`](SegmentReader::open).
    pub fn stream_unhashed(source: R) -> Result<Self, SegmentError> {
        Self::begin(source, Hashing::Off)
    }

    pub(crate) fn begin(mut source: R, hashing: Hashing) -> Result<Self, SegmentError> {
        let mut block = BytesMut::new();
        let mut at_end = false;
        fill(&mut source, &mut block, HEADER_BYTES, &mut at_end)?;
        let header = SegmentHeader::decode(&block)?;
        drop(block.split_to(HEADER_BYTES));
        Ok(SegmentReader {
            source,
            block,
            at_end,
            tally: Tally::new(header, hashing),
            stop: None,
            footer: None,
        })
    }

    /// The segment's header.
    pub fn header(&self) -> &SegmentHeader {
        &self.tally.header
    }
    /// The footer, once it has been reached.
    pub fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }
    /// Where and how the segment ended, once [`next`](Self::next) has said `None`.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }
    /// Where the next frame begins, or would.
    pub fn offset(&self) -> u64 {
        self.tally.bytes
    }
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What was read so far. Sealed once the footer was reached; otherwise rolled or active, as a
    /// `Seal` record says that ended it.
    pub fn info(&self) -> SegmentInfo {
        match &self.footer {
            Some(footer) => self.tally.sealed_info(footer, None),
            None if self.tally.ended => self.tally.info(SegmentState::Rolled, None),
            None => self.tally.info(SegmentState::Active, None),
        }
    }

    /// The next record; `None` at the end of what was written, and ever after.
    ///
    /// # Errors
    /// [`SegmentError`]; asked again, it says the same.
    // Not `Iterator`: an error does not end the stream, and callers want the facts in between.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Entry>, SegmentError> {
        Ok(self.next_with_frame()?.map(|(entry, _)| entry))
    }

    /// As [`next`](Self::next), with the bytes of the frame.
    pub(crate) fn next_with_frame(&mut self) -> Result<Option<(Entry, Bytes)>, SegmentError> {
        if self.stop.is_some() {
            return Ok(None);
        }
        self.fill(FRAME_HEADER_BYTES)?;
        let b = &self.block[..];
        if b.is_empty() {
            self.stop = Some(Stop::End);
            return Ok(None);
        }
        if b.starts_with(footer::MAGIC) {
            self.end_at_footer()?;
            return Ok(None);
        }
        if b[..b.len().min(FRAME_HEADER_BYTES)].iter().all(|&x| x == 0) {
            self.stop = Some(Stop::Zeroes);
            return Ok(None);
        }
        self.next_frame().map(Some)
    }

    fn next_frame(&mut self) -> Result<(Entry, Bytes), SegmentError> {
        let mut checked = frame::check(&self.block, self.tally.last_crc);
        if let Err(FrameError::Incomplete { need }) = checked {
            self.fill(need)?;
            checked = frame::check(&self.block, self.tally.last_crc);
        }
        let header = checked.map_err(|why| self.bad(why))?;
        let kind = match Kind::from_number(header.kind) {
            Some(kind) if header.flags == 0 => kind,
            _ => {
                return Err(SegmentError::UnknownKind {
                    offset: self.tally.bytes,
                    lsn: header.lsn,
                    number: header.kind,
                });
            }
        };
        let len = FRAME_HEADER_BYTES + header.payload as usize;
        // Looked at before it is taken, so that an error leaves the reader where it was.
        let record = frame::record(&header, kind, Bytes::new());
        self.tally.check(&record).map_err(|why| self.bad(why))?;
        let bytes = self.block.split_to(len).freeze();
        let record = frame::record(&header, kind, bytes.slice(FRAME_HEADER_BYTES..));
        self.tally.add(&record, &bytes, header.crc);
        let entry = Entry {
            record,
            segment: self.tally.header.id,
            crc: header.crc,
            end: self.tally.bytes,
        };
        Ok((entry, bytes))
    }

    fn end_at_footer(&mut self) -> Result<(), SegmentError> {
        self.fill(FOOTER_BYTES + 1)?;
        let offset = self.tally.bytes;
        let wrong = |why: String| SegmentError::Footer { offset, why };
        let footer = Footer::decode(&self.block).map_err(wrong)?;
        if let Some(why) = self.tally.contradicts(&footer) {
            return Err(wrong(why));
        }
        self.footer = Some(footer);
        self.stop = Some(Stop::Footer);
        Ok(())
    }

    /// Reads on to the end of the stream: whether there are only zeroes. Ends the reading.
    ///
    /// # Errors
    /// [`SegmentError::Io`].
    pub fn rest_is_zero(&mut self) -> Result<bool, SegmentError> {
        loop {
            if self.block.iter().any(|&x| x != 0) {
                return Ok(false);
            }
            if self.at_end {
                return Ok(true);
            }
            self.block.clear();
            self.fill(1)?;
        }
    }

    /// Reads all that is left, checks it, and gives what the segment adds up to.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn run_out(&mut self) -> Result<Stop, SegmentError> {
        loop {
            if self.next()?.is_none() {
                return Ok(self.stop.expect("None is said only after a stop"));
            }
        }
    }

    fn bad(&self, why: FrameError) -> SegmentError {
        SegmentError::Frame {
            offset: self.tally.bytes,
            after: self.tally.last_lsn,
            why,
        }
    }

    fn fill(&mut self, need: usize) -> io::Result<()> {
        fill(&mut self.source, &mut self.block, need, &mut self.at_end)
    }
}

impl SegmentReader<FileRead> {
    /// Goes on behind what `tally` has seen. Without hashing.
    pub(crate) fn resume(file: Arc<dyn File>, tally: Tally) -> Self {
        SegmentReader {
            source: FileRead {
                file,
                at: tally.bytes,
            },
            block: BytesMut::new(),
            at_end: false,
            tally,
            stop: None,
            footer: None,
        }
    }

    /// Forgets what was read ahead: in a file that is still written, it may have changed.
    pub(crate) fn forget_ahead(&mut self) {
        self.block.clear();
        self.source.at = self.tally.bytes;
        self.at_end = false;
        self.stop = None;
    }
}

/// What the two ends of a segment's file say: its header, its footer if it is sealed, its length.
/// Whatever lies in between is not looked at.
pub(crate) fn ends(file: &dyn File) -> Result<(SegmentHeader, Option<Footer>, u64), SegmentError> {
    let len = file.len()?;
    let mut first = [0; HEADER_BYTES];
    let have = usize::try_from(len).map_or(HEADER_BYTES, |n| n.min(HEADER_BYTES));
    file.read_exact_at(&mut first[..have], 0)?;
    let header = SegmentHeader::decode(&first[..have])?;
    let Some(at) = len
        .checked_sub(FOOTER_BYTES as u64)
        .filter(|at| *at > HEADER_BYTES as u64)
    else {
        return Ok((header, None, len));
    };
    let mut last = [0; FOOTER_BYTES];
    file.read_exact_at(&mut last, at)?;
    // A footer that does not decode is no footer here; reading the file through says what is wrong.
    let footer = Footer::decode(&last)
        .ok()
        .filter(|f| f.content_bytes == at && f.id == header.id && f.first_lsn == header.first_lsn);
    Ok((header, footer, len))
}

/// Reads until `block` holds `need` bytes or the source ends.
fn fill(
    source: &mut impl Read,
    block: &mut BytesMut,
    need: usize,
    at_end: &mut bool,
) -> io::Result<()> {
    while block.len() < need && !*at_end {
        let had = block.len();
        block.resize(had + BLOCK_BYTES.max(need - had), 0);
        let read = source.read(&mut block[had..]);
        block.truncate(had + read.as_ref().map_or(0, |n| *n));
        match read {
            Ok(0) => *at_end = true,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl<R> std::fmt::Debug for SegmentReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader")
            .field("tally", &self.tally)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// A file, or the end of one, as a stream.
pub struct FileRead {
    file: Arc<dyn File>,
    at: u64,
}

impl FileRead {
    /// From its start.
    pub fn new(file: Arc<dyn File>) -> FileRead {
        FileRead { file, at: 0 }
    }
}

impl Read for FileRead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl std::fmt::Debug for FileRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRead")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
