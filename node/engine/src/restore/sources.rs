//! [`Catalog`]: which segments and snapshots lie in folders, files and archives, given in any
//! order. Everything is told by its bytes: a segment by its header, a snapshot by LMDB's meta page
//! and its trailer (D15).
//!
//! Cheap on purpose: of a segment only the header and the first record are looked at, of a
//! snapshot the trailer and the lineage record; a packed snapshot must be unpacked to its end for
//! that, and is proven on the way. What a plan then needs is read in full before it is believed.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use unisondb_platform::{Disk, DiskExt, File, FileExt};
use unisondb_store::image::{self, Image};
use unisondb_store::trailer::TRAILER_BYTES;
use unisondb_store::{DATA_FILE, Source, Trailer};
use unisondb_types::{LineageRecord, SegmentId, Sha256Sum, Stamp};
use unisondb_wal::{SegmentHeader, SegmentReader};

use super::stored::Stored;
use super::walk::{self, Place, Thing};
use super::{Progress, RestoreError, Watch};

/// What a snapshot's file must have been read for, besides finding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its bytes are those that its trailer was made for.
    Proven,
    /// It has a trailer; its bytes have not been read yet.
    Certified,
    /// It has no trailer: a copy of a live `data.mdb`, to be believed only entry by entry.
    Bare,
}

/// A segment, or a copy of one.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it lies.
    pub place: Place,
    /// Its header.
    pub header: SegmentHeader,
    /// Time of its first record, if it has one.
    pub first_stamp: Option<Stamp>,
    /// Its first record, if that begins a lineage.
    pub record: Option<LineageRecord>,
}

/// A snapshot, or a copy of a live `data.mdb`.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where it lies.
    pub place: Place,
    /// Length in bytes, unpacked.
    pub bytes: u64,
    /// What it is: its trailer, or what its own entries say when it has none.
    pub what: Trailer,
    /// The record that its lineage began with; not known of a packed one.
    pub record: Option<LineageRecord>,
    /// What is known of its bytes.
    pub proof: Proof,
}

/// Something that could have been of use, and why it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Where it lies.
    pub place: String,
    /// What is wrong with it.
    pub why: String,
}

/// What is looked for in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// Segments; snapshots are passed over.
    Segments,
    /// Segments and snapshots.
    Everything,
}

/// What lies in the places given.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Segments, each copy by itself, in the order found.
    pub segments: Vec<Found>,
    /// Snapshots, in the order found.
    pub snapshots: Vec<Snapshot>,
    /// Damaged segments, snapshots and archives.
    pub unusable: Vec<Unusable>,
    /// Files of other kinds, passed over.
    pub others: Vec<PathBuf>,
}

impl Catalog {
    /// Looks through `roots`: folders with all below them, files, archives. A file that several
    /// roots lead to is looked at once, for the most that is wanted of it.
    ///
    /// # Errors
    /// [`RestoreError::NotFound`] for a root that is not there; [`RestoreError::Io`] for a folder
    /// that cannot be listed or a file that cannot be opened.
    pub fn of(
        disk: &dyn Disk,
        roots: &[(PathBuf, Want)],
        watch: Watch<'_>,
    ) -> Result<Catalog, RestoreError> {
        let mut files = std::collections::BTreeMap::new();
        for (root, want) in roots {
            let found = walk::files(disk, root).map_err(|(path, source)| {
                if path == *root && source.kind() == io::ErrorKind::NotFound {
                    RestoreError::NotFound(path)
                } else {
                    RestoreError::Io { path, source }
                }
            })?;
            for file in found {
                let wanted = files.entry(file).or_insert(*want);
                *wanted = (*wanted).max(*want);
            }
        }
        let mut catalog = Catalog::default();
        watch(Progress::Begin(
            "looking for segments and snapshots",
            files.len() as u64,
        ));
        for (file, want) in files {
            catalog.look(disk, &file, want)?;
            watch(Progress::Done(1));
        }
        Ok(catalog)
    }

    fn look(&mut self, disk: &dyn Disk, file: &Path, want: Want) -> Result<(), RestoreError> {
        // What somebody is still writing is nobody's backup (P9).
        if file.extension().is_some_and(|e| e == "tmp") {
            self.others.push(file.to_owned());
            return Ok(());
        }
        let origin = Origin {
            is_live: exists_beside(disk, file, OWNER)?,
            had_sum: had_sum(disk, file)?,
        };
        let seen = walk::visit(disk, file, &mut |thing| {
            self.sort_in(thing, want, origin);
            ControlFlow::Continue(())
        });
        match seen {
            Ok(()) => Ok(()),
            Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied) => {
                Err(RestoreError::Io {
                    path: file.to_owned(),
                    source: e,
                })
            }
            Err(e) => {
                self.unusable.push(Unusable {
                    place: file.display().to_string(),
                    why: format!("it cannot be read to its end: {e}"),
                });
                Ok(())
            }
        }
    }

    fn sort_in(&mut self, thing: Thing<'_>, want: Want, origin: Origin) {
        let place = thing.place.clone();
        let found = match thing.head {
            head if head.starts_with(b"UNISNWAL") => segment(thing).map(|s| self.segments.push(s)),
            head if is_lmdb(head) => match want {
                Want::Everything => snapshot(thing, origin).map(|s| self.snapshots.push(s)),
                Want::Segments => {
                    self.others.push(place.file);
                    return;
                }
            },
            head => match readable(thing.body) {
                Err(e) => Err(format!("it cannot be unpacked: {e}")),
                Ok(()) if head.is_empty() && kind_by_name(place.name()).is_some() => {
                    Err("it is empty (0 bytes)".to_owned())
                }
                Ok(()) if let Some(kind) = kind_by_name(place.name()) => Err(format!(
                    "it has {kind}'s name, but is none ({})",
                    beginning(head)
                )),
                // A backup has its checksum beside it: it was one of ours when that was written.
                Ok(()) if origin.had_sum => Err(format!(
                    "its checksum lies beside it, so it was a backup, but it is neither a segment nor a snapshot any more ({})",
                    beginning(head)
                )),
                Ok(()) => {
                    self.others.push(place.file);
                    return;
                }
            },
        };
        if let Err(why) = found {
            let place = place.to_string();
            self.unusable.push(Unusable { place, why });
        }
    }
}

/// What a file should have been by its name, perhaps packed: damage to the bytes that tell what it is must
/// not make it nobody's.
fn kind_by_name(name: &str) -> Option<&'static str> {
    let packed = [".gz", ".zst"];
    let name = packed
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    match name.rsplit_once('.')?.1 {
        "wal" => Some("a segment"),
        "db" => Some("a snapshot"),
        // Not LMDB's lock file, which lies beside it.
        "mdb" if name == DATA_FILE => Some("a snapshot"),
        "tar" | "tgz" => Some("an archive"),
        _ => None,
    }
}

/// The one snapshot at `file`, whatever is wrong with it.
///
/// # Errors
/// [`RestoreError::NotFound`], [`RestoreError::Io`]; [`RestoreError::BadBase`] when it is none, or
/// damaged.
pub fn one_snapshot(disk: &dyn Disk, file: &Path) -> Result<Snapshot, RestoreError> {
    let mut found = None;
    let origin = Origin {
        is_live: exists_beside(disk, file, OWNER)?,
        had_sum: had_sum(disk, file)?,
    };
    let bad = |why: String| RestoreError::BadBase {
        place: file.display().to_string(),
        why,
    };
    walk::visit(disk, file, &mut |thing| {
        found = Some(if is_lmdb(thing.head) {
            snapshot(thing, origin)
        } else {
            match readable(thing.body) {
                Err(e) => Err(format!("it cannot be unpacked: {e}")),
                Ok(()) => Err(match Image::open(thing.head) {
                    Err(e) => e.to_string(),
                    Ok(_) => beginning(thing.head),
                }),
            }
        });
        if found.as_ref().is_some_and(Result::is_ok) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => RestoreError::NotFound(file.to_owned()),
        io::ErrorKind::PermissionDenied => RestoreError::Io {
            path: file.to_owned(),
            source: e,
        },
        _ => bad(format!("it cannot be unpacked: {e}")),
    })?;
    found
        .unwrap_or_else(|| Err("it holds no file".to_owned()))
        .map_err(bad)
}

/// What the folder tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    /// It is the state of a namespace, in its place.
    is_live: bool,
    /// A checksum file of its name lies beside it.
    had_sum: bool,
}

/// What marks a state as one that was made or taken over where it lies.
const OWNER: &str = "owner";
/// What a packed copy's name ends with, the checksum's name does not have.
const PACKED: [&str; 3] = ["zst", "gz", "gpg"];

/// Whether `FILE.sha256`, as a backup is published with, lies beside a file; of a packed copy that of the
/// file that was packed.
fn had_sum(disk: &dyn Disk, file: &Path) -> Result<bool, RestoreError> {
    let mut name = file.to_owned();
    loop {
        let sum = name.with_added_extension("sha256");
        let sum = sum.file_name().map(|n| n.to_string_lossy().into_owned());
        if exists_beside(disk, file, &sum.unwrap_or_default())? {
            return Ok(true);
        }
        let packed = name
            .extension()
            .is_some_and(|e| PACKED.iter().any(|p| e == *p));
        if !packed {
            return Ok(false);
        }
        name.set_extension("");
    }
}

fn exists_beside(disk: &dyn Disk, file: &Path, name: &str) -> Result<bool, RestoreError> {
    let path = file.with_file_name(name);
    disk.exists(&path)
        .map_err(|source| RestoreError::Io { path, source })
}

/// LMDB's magic number stands at byte 16, in the byte order of the machine.
fn is_lmdb(head: &[u8]) -> bool {
    matches!(
        head.get(16..20),
        Some([0xde, 0xc0, 0xef, 0xbe] | [0xbe, 0xef, 0xc0, 0xde])
    )
}

/// Whether there are bytes to be had at all: what cannot be unpacked shows itself so.
fn readable(body: &mut dyn Read) -> io::Result<()> {
    body.read(&mut [0]).map(drop)
}

fn beginning(head: &[u8]) -> String {
    match head.get(..head.len().min(8)) {
        None | Some([]) => "it is empty".to_owned(),
        Some(bytes) => format!("it begins with \"{}\"", bytes.escape_ascii()),
    }
}

fn segment(thing: Thing<'_>) -> Result<Found, String> {
    let mut reader = SegmentReader::stream_unhashed(thing.body).map_err(|e| e.to_string())?;
    // A first record that is torn or not there yet leaves a header of use: it shows a gap's end.
    let first = reader.next().ok().flatten().map(|e| e.record);
    let record = match first.as_ref().map(unisondb_types::Record::command) {
        Some(Ok(unisondb_types::Command::Lineage(record))) => Some(*record),
        _ => None,
    };
    Ok(Found {
        place: thing.place.clone(),
        header: reader.header().clone(),
        first_stamp: first.map(|r| r.stamp),
        record,
    })
}

fn snapshot(thing: Thing<'_>, origin: Origin) -> Result<Snapshot, String> {
    match thing.plain {
        Some(file) => plain_snapshot(thing.place, file, origin),
        None => packed_snapshot(thing.place, thing.body).map_err(|e| e.to_string()),
    }
}

fn plain_snapshot(place: &Place, file: &Arc<dyn File>, origin: Origin) -> Result<Snapshot, String> {
    let source = FileSource(file.clone());
    let said = |e: image::Error| e.to_string();
    let trailer = Trailer::find(&source).map_err(said)?;
    let image = Image::open(&source).map_err(said)?;
    let stored = Stored::of(&image)?;
    let (what, proof) = match trailer {
        Some(trailer) => match stored.contradicts(&trailer) {
            None => (trailer, Proof::Certified),
            Some(why) => return Err(why),
        },
        // As a start judges a state of unknown origin. Behind a live one lies what a commit left.
        None if image.bytes_behind() > 0 && !origin.is_live => {
            return Err(format!(
                "behind its last page lie {} bytes that are no whole trailer: it is a snapshot that was cut, or added to",
                image.bytes_behind()
            ));
        }
        None => (stored.as_trailer(image.meta().bytes()), Proof::Bare),
    };
    Ok(Snapshot {
        place: place.clone(),
        bytes: source.len().map_err(|e| e.to_string())?,
        what,
        record: Some(stored.history),
        proof,
    })
}

/// A stream is read once: its last page is the trailer, and all before it is what that certifies.
fn packed_snapshot(place: &Place, body: &mut dyn Read) -> Result<Snapshot, image::Error> {
    let mut sum = Sha256::new();
    let mut bytes = 0;
    let mut held = Vec::new();
    let mut block = vec![0; 256 << 10];
    loop {
        let n = match body.read(&mut block) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e.into()),
        };
        bytes += n as u64;
        held.extend_from_slice(&block[..n]);
        let sure = held.len().saturating_sub(TRAILER_BYTES);
        sum.update(&held[..sure]);
        held.drain(..sure);
    }
    let trailer = match held.first_chunk() {
        Some(page) => Trailer::decode(page)?,
        None => None,
    };
    let Some(what) = trailer else {
        return Err(image::Error::Trailer {
            why:
                "there is none at its end: it was cut, or it is a packed copy of a live data.mdb, \
                  which must be unpacked first"
                    .to_owned(),
        });
    };
    if what.image_bytes + TRAILER_BYTES as u64 != bytes {
        let want = what.image_bytes + TRAILER_BYTES as u64;
        return Err(image::Error::Truncated { have: bytes, want });
    }
    let found = Sha256Sum::from_bytes(sum.finalize().into());
    if found != what.image_sum {
        return Err(image::Error::Sum {
            expected: what.image_sum,
            found,
        });
    }
    Ok(Snapshot {
        place: place.clone(),
        bytes,
        what,
        record: None,
        proof: Proof::Proven,
    })
}

impl Snapshot {
    /// Replay needs only segments above this one, of the snapshot's lineage.
    pub fn whole_segment(&self) -> SegmentId {
        SegmentId::new(self.what.next_segment.get().saturating_sub(1))
    }
}

/// A [`File`] as LMDB's bytes.
pub struct FileSource(pub Arc<dyn File>);

impl Source for FileSource {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}
