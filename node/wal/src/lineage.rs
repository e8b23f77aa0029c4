//! What is done to a folder of segments before a log is opened on it: a lineage is begun, a
//! segment is cut at a fork, a rolled one is given its footer. Each is whole or not there.

use std::path::Path;

use bytes::BytesMut;
use unisondb_platform::{Access, Disk, DiskExt, FileExt, Platform};
use unisondb_types::{
    Command, Digest, Kind, LineageId, LineageRecord, Lsn, Record, SegmentId, Stamp, Term,
};

use crate::error::{Error, SegmentError};
use crate::frame;
use crate::header::{Predecessor, SegmentHeader};
use crate::info::SegmentInfo;
use crate::reader::{SegmentReader, Stop, ends};
use crate::rewrite::Rewrite;
use crate::survey::right_name;
use crate::tally::Tally;

/// Writes the first segment of a lineage, with its `Lineage` record in it. The folder must exist.
/// The record's stamp is `stamp`, or 1 µs after its parent's if that is later; it vouches for all
/// that was taken from the parent. Done again with the same facts it does nothing.
///
/// # Errors
/// [`Error::Exists`] when another file has the segment's name; [`Error::TooLong`],
/// [`Error::Full`], [`Error::Io`].
pub fn begin(
    platform: &Platform,
    dir: &Path,
    record: &LineageRecord,
    term: Term,
    stamp: Stamp,
) -> Result<(), Error> {
    let (disk, path) = (&*platform.disk, dir.join(record.first_segment.file_name()));
    let bytes = first_bytes(record, term, stamp)?;
    match disk.open(&path, Access::Read) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => disk
            .publish(&path, &bytes)
            .map_err(|e| Error::io("cannot write", &path, e)),
        Err(e) => Err(Error::io("cannot open", &path, e)),
        Ok(file) => {
            let mut found = vec![0; bytes.len()];
            match file.read_exact_at(&mut found, 0) {
                Ok(()) if found == bytes => {}
                Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
                    return Err(Error::io("cannot read", &path, e));
                }
                _ => return Err(Error::Exists(path)),
            }
            // Perhaps the last try died just before this; the content is rewritten on opening.
            disk.sync_folder(dir)
                .map_err(|e| Error::io("cannot sync", dir, e))
        }
    }
}

/// Header and first frame of a lineage.
fn first_bytes(record: &LineageRecord, term: Term, stamp: Stamp) -> Result<Vec<u8>, Error> {
    let parent = record.parent.as_ref();
    let header = SegmentHeader {
        id: record.first_segment,
        segment_size: record.segment_size,
        cluster: record.cluster,
        namespace: record.namespace.clone(),
        lineage: record.lineage,
        first_lsn: record.first_lsn(),
        predecessor: parent.map(|p| Predecessor {
            id: p.segment,
            lineage: p.lineage,
            chain: p.chain,
        }),
        crc_seed: parent.map_or(0, |p| p.chain.crc_seed()),
    };
    let payload = Command::Lineage(Box::new(record.clone())).payload();
    let limit = unisondb_types::limits::FRAME_PAYLOAD_BYTES;
    if payload.len() > limit {
        let bytes = payload.len();
        return Err(Error::TooLong { bytes, limit });
    }
    let first = Record {
        lsn: record.first_lsn(),
        term,
        stamp: parent.map_or(stamp, |p| stamp.max(p.stamp.plus_micros(1))),
        committed: record.first_lsn().prev(),
        kind: Kind::Lineage,
        payload,
    };
    let encoded = header.encode();
    // What is written is read back first: a record that no header can carry (a parent segment
    // above its child, a size out of bounds) must not become a file that nobody can open.
    SegmentHeader::decode(&encoded).map_err(|e| Error::NotReady {
        segment: record.first_segment,
        wanted: "begun",
        why: e.to_string(),
    })?;
    let mut bytes = BytesMut::from(&encoded[..]);
    frame::encode(&first, header.crc_seed, &mut bytes);
    Ok(bytes.to_vec())
}

/// Ends an unsealed segment at `fork`, for the lineage `by` that begins there: rewrites it with
/// the frames up to the fork only and a footer that names `by`. What was cut before, for a lineage
/// that was then never begun, may be cut again.
///
/// # Errors
/// [`Error::NotReady`] when it is sealed, or does not hold the fork; [`Error::Damaged`] when it is
/// bad before the fork; [`Error::NoSegment`], [`Error::Full`], [`Error::Io`].
pub fn cut(
    platform: &Platform,
    dir: &Path,
    segment: SegmentId,
    fork: Lsn,
    digest: Digest,
    by: LineageId,
) -> Result<SegmentInfo, Error> {
    let not_ready = |why: String| Error::NotReady {
        segment,
        wanted: "cut",
        why,
    };
    let disk = &*platform.disk;
    let mut open = Open::at(disk, dir, segment)?;
    if let Some(info) = &open.sealed {
        match info.cut_by {
            None => return Err(not_ready("it is sealed".to_owned())),
            Some(old)
                if old == by && info.last_lsn == Some(fork) && info.digest == Some(digest) =>
            {
                disk.sync_folder(dir)
                    .map_err(|e| Error::io("cannot sync", dir, e))?;
                return Ok(info.clone());
            }
            Some(_) => {}
        }
    }
    if fork < open.reader.header().first_lsn {
        return Err(not_ready(format!("it begins after record {fork}")));
    }
    let mut rewrite = Rewrite::start(disk, dir, segment)?;
    let copied = open.copy(&mut rewrite, Some(fork)).and_then(|_| {
        if open.reader.tally().last_lsn < fork {
            let last = open.reader.tally().last_lsn;
            return Err(not_ready(format!(
                "it ends with record {last}, before {fork}"
            )));
        }
        Ok(())
    });
    open.finish(rewrite, copied, digest, Some(by))
}

/// Gives a rolled segment its footer, in a folder on which no log is open: it is rewritten whole.
/// Zeroes ahead and the torn beginning of a footer are left out; any other damage is refused.
/// Done again with the same digest it does nothing.
///
/// # Errors
/// As [`cut`].
pub fn seal_file(
    platform: &Platform,
    dir: &Path,
    segment: SegmentId,
    digest: Digest,
) -> Result<SegmentInfo, Error> {
    let disk = &*platform.disk;
    let mut open = Open::at(disk, dir, segment)?;
    if let Some(info) = open.sealed {
        if info.digest == Some(digest) {
            return Ok(info);
        }
        return Err(Error::NotReady {
            segment,
            wanted: "sealed",
            why: "it is sealed already, with another digest".to_owned(),
        });
    }
    let mut rewrite = Rewrite::start(disk, dir, segment)?;
    let copied = open.copy(&mut rewrite, None).and_then(|()| {
        if open.reader.tally().records == 0 {
            return Err(Error::NotReady {
                segment,
                wanted: "sealed",
                why: "it holds no record".to_owned(),
            });
        }
        Ok(())
    });
    open.finish(rewrite, copied, digest, None)
}

/// A segment in a folder, about to be rewritten.
struct Open<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    path: std::path::PathBuf,
    reader: SegmentReader<crate::reader::FileRead>,
    sealed: Option<SegmentInfo>,
}

impl<'a> Open<'a> {
    fn at(disk: &'a dyn Disk, dir: &'a Path, id: SegmentId) -> Result<Open<'a>, Error> {
        let path = dir.join(id.file_name());
        let file = match disk.open(&path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoSegment(id));
            }
            other => other.map_err(|e| Error::io("cannot open", &path, e))?,
        };
        let read = || {
            let (header, footer, _) = ends(&*file)?;
            right_name(&path, header.id)?;
            let sealed = footer.map(|f| Tally::sealed(header, &f).sealed_info(&f, None));
            Ok((SegmentReader::from_file(file)?, sealed))
        };
        let (reader, sealed) = read().map_err(|e| Error::damaged(id, &path, e))?;
        Ok(Open {
            disk,
            dir,
            path,
            reader,
            sealed,
        })
    }

    /// Copies header and frames: up to `last`, or all that there are.
    fn copy(&mut self, rewrite: &mut Rewrite<'_>, last: Option<Lsn>) -> Result<(), Error> {
        let id = self.reader.header().id;
        rewrite.push(&self.reader.header().encode())?;
        while last.is_none_or(|last| self.reader.tally().last_lsn < last) {
            match self.reader.next_with_frame() {
                Ok(Some((_, frame))) => rewrite.push(&frame)?,
                Ok(None) if self.reader.stop() == Some(Stop::Zeroes) => {
                    let zero = self.reader.rest_is_zero();
                    return match zero.map_err(|e| Error::damaged(id, &self.path, e))? {
                        true => Ok(()),
                        false => Err(Error::damaged(
                            id,
                            &self.path,
                            SegmentError::Frame {
                                offset: self.reader.offset(),
                                after: self.reader.tally().last_lsn,
                                why: frame::FrameError::Hole,
                            },
                        )),
                    };
                }
                Ok(None) => return Ok(()),
                Err(SegmentError::Footer { .. }) => return Ok(()),
                Err(e) => return Err(Error::damaged(id, &self.path, e)),
            }
        }
        Ok(())
    }

    /// Writes the footer and publishes; or gives up.
    fn finish(
        self,
        mut rewrite: Rewrite<'_>,
        copied: Result<(), Error>,
        digest: Digest,
        cut_by: Option<LineageId>,
    ) -> Result<SegmentInfo, Error> {
        if let Err(e) = copied {
            rewrite.abandon();
            return Err(e);
        }
        let tally = self.reader.tally();
        let footer = tally.footer(digest, cut_by);
        rewrite.push(&footer.encode())?;
        rewrite.publish()?;
        self.disk
            .sync_folder(self.dir)
            .map_err(|e| Error::io("cannot sync", self.dir, e))?;
        Ok(tally.sealed_info(&footer, Some(tally.file_sha256(&footer))))
    }
}
