//! Looking without touching: what lies in a folder ([`survey`]), whether a file is what it says
//! ([`verify`]), and what the log adds up to in the middle of one ([`chain_at`]). Never writes,
//! never trusts.

use std::io::Read;
use std::path::{Path, PathBuf};

use unisondb_platform::{Access, Disk, EntryKind, FolderEntry};
use unisondb_types::{Chain, Lsn, SegmentId, Sha256Sum, Stamp, Term};

use crate::error::{Error, SegmentError};
use crate::frame::FrameError;
use crate::info::{SegmentInfo, SegmentState};
use crate::reader::{SegmentReader, Stop, ends};
use crate::tally::Tally;

/// What lies in a folder of segments.
#[derive(Debug)]
pub struct Survey {
    /// Every file with the name of a segment, by id.
    pub segments: Vec<Surveyed>,
    /// Everything else, by name.
    pub strangers: Vec<Stranger>,
}

/// A file with the name of a segment.
#[derive(Debug)]
pub struct Surveyed {
    /// Where it is.
    pub path: PathBuf,
    /// The id in its name.
    pub id: SegmentId,
    /// Its length, zeroes ahead included.
    pub bytes: u64,
    /// What it holds: a sealed one's footer is believed, others are read through.
    /// An unsealed one that is whole up to some frame is `Ok`, with `torn` set.
    pub found: Result<SegmentInfo, SegmentError>,
    /// What stands behind the last good frame of an unsealed segment, if it is neither the end of
    /// the file nor zeroes to its end.
    pub torn: Option<SegmentError>,
}

/// Something that is no segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its name.
    pub name: String,
    /// Why it is not taken for a segment.
    pub why: String,
}

/// What reading a whole file showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The segment; of a sealed one with the SHA-256 of the file.
    pub info: SegmentInfo,
    /// SHA-256 of the content: header and frames.
    pub content_sha256: Sha256Sum,
    /// How it ended.
    pub stop: Stop,
}

/// What the log adds up to behind one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The record.
    pub lsn: Lsn,
    /// The chain, had the segment ended there.
    pub chain: Chain,
    /// CRC of the record's frame.
    pub crc: u32,
    /// Its term.
    pub term: Term,
    /// Its time.
    pub stamp: Stamp,
}

/// Lists a folder and looks at each segment in it: at a sealed one's header and footer only, at
/// every frame of the others.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed; what is wrong with a file stands with it.
pub fn survey(disk: &dyn Disk, dir: &Path) -> Result<Survey, Error> {
    let entries = disk
        .list(dir)
        .map_err(|e| Error::io("cannot list", dir, e))?;
    let mut segments = Vec::new();
    let mut strangers = Vec::new();
    for entry in entries {
        match named(&entry) {
            Ok(id) => segments.push(look(disk, dir.join(&entry.name), id)),
            Err(why) => strangers.push(Stranger {
                name: entry.name,
                why: why.to_owned(),
            }),
        }
    }
    segments.sort_by_key(|s| s.id);
    // That a segment has rolled because it was full shows only in the one after it.
    for i in 1..segments.len() {
        let before = match &segments[i].found {
            Ok(info) => info.header.predecessor,
            Err(_) => None,
        };
        if let Ok(info) = &mut segments[i - 1].found
            && info.state == SegmentState::Active
            && before.is_some_and(|p| p.id == info.id && p.lineage == info.header.lineage)
        {
            info.state = SegmentState::Rolled;
        }
    }
    Ok(Survey {
        segments,
        strangers,
    })
}

/// The segment that an entry of a folder is by its name, or why it is none.
pub(crate) fn named(entry: &FolderEntry) -> Result<SegmentId, &'static str> {
    match SegmentId::parse_file_name(&entry.name) {
        Some(id) if entry.kind == EntryKind::File => Ok(id),
        Some(_) => Err("it has the name of a segment, but is no file"),
        None => Err("it does not have the name of a segment"),
    }
}

fn look(disk: &dyn Disk, path: PathBuf, id: SegmentId) -> Surveyed {
    let mut bytes = 0;
    let mut torn = None;
    let mut read = || -> Result<SegmentInfo, SegmentError> {
        let file = disk.open(&path, Access::Read)?;
        let (header, footer, len) = ends(&*file)?;
        bytes = len;
        right_name(&path, header.id)?;
        if let Some(footer) = footer {
            return Ok(Tally::sealed(header, &footer).sealed_info(&footer, None));
        }
        let mut reader = SegmentReader::from_file(file)?;
        torn = match run_to_end(&mut reader) {
            Ok(_) => None,
            Err(e @ (SegmentError::Io(_) | SegmentError::UnknownKind { .. })) => return Err(e),
            Err(e) => Some(e),
        };
        let mut info = reader.info();
        if info.records > 0 {
            info.chain = Some(reader.tally().chain());
        }
        Ok(info)
    };
    let found = read();
    Surveyed {
        path,
        id,
        bytes,
        found,
        torn,
    }
}

/// Reads a segment through; zeroes must be all that follows them.
fn run_to_end<R: Read>(reader: &mut SegmentReader<R>) -> Result<Stop, SegmentError> {
    let stop = reader.run_out()?;
    if stop == Stop::Zeroes && !reader.rest_is_zero()? {
        return Err(SegmentError::Frame {
            offset: reader.offset(),
            after: reader.tally().last_lsn,
            why: FrameError::Hole,
        });
    }
    Ok(stop)
}

/// A file that has the name of a segment must be that segment.
pub(crate) fn right_name(path: &Path, id: SegmentId) -> Result<(), SegmentError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    match SegmentId::parse_file_name(name) {
        Some(named) if named != id => Err(SegmentError::Header {
            why: format!("it is segment {id}, under the name of {named}"),
        }),
        _ => Ok(()),
    }
}

/// Reads all of a segment file and checks everything: header, frames, footer, SHA-256 of the
/// content, chain from the predecessor that the header names.
///
/// # Errors
/// [`SegmentError`], for the first thing that is wrong.
pub fn verify(disk: &dyn Disk, path: &Path) -> Result<Verified, SegmentError> {
    let reader = SegmentReader::open(disk, path)?;
    right_name(path, reader.header().id)?;
    verify_stream(reader)
}

/// As [`verify`], for a segment from any stream (a decompressed one).
///
/// # Errors
/// As [`verify`].
pub fn verify_stream<R: Read>(mut reader: SegmentReader<R>) -> Result<Verified, SegmentError> {
    let stop = run_to_end(&mut reader)?;
    let tally = reader.tally();
    let mut info = reader.info();
    match reader.footer() {
        Some(footer) => info.sha256 = Some(tally.file_sha256(footer)),
        None if info.records > 0 => info.chain = Some(tally.chain()),
        None => {}
    }
    Ok(Verified {
        info,
        content_sha256: tally.content_sha256(),
        stop,
    })
}

/// What the log adds up to behind record `lsn` of the segment at `path`.
///
/// # Errors
/// [`SegmentError::NoSuchRecord`], and whatever is wrong before it.
pub fn chain_at(disk: &dyn Disk, path: &Path, lsn: Lsn) -> Result<Anchor, SegmentError> {
    let mut reader = SegmentReader::open(disk, path)?;
    if lsn < reader.header().first_lsn {
        return Err(SegmentError::NoSuchRecord { lsn });
    }
    while let Some(entry) = reader.next()? {
        if entry.record.lsn == lsn {
            return Ok(Anchor {
                lsn,
                chain: reader.tally().chain(),
                crc: entry.crc,
                term: entry.record.term,
                stamp: entry.record.stamp,
            });
        }
    }
    Err(SegmentError::NoSuchRecord { lsn })
}
