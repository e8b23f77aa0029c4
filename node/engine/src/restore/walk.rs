//! Walking folders, files and archives: every file and every member of a tar, unpacked on the fly,
//! is shown once as a stream, in the order of the names' bytes.
//!
//! Promises: nothing is written, no archive is held in memory, and a member's path is only a name
//! to show: nothing is ever created from it. What a stream holds is told from its bytes, never
//! from its name, so any extension will do. A broken archive shows what lies before the break, and
//! the break is the error. Leaves to others: what the bytes mean (`sources`).

use std::fmt;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use unisondb_platform::{Access, Disk, EntryKind, File};

/// Bytes at the beginning by which a stream is told: a tar's magic ends at 262.
const HEAD_BYTES: usize = 512;
/// Bytes read from a file at once.
const BLOCK_BYTES: usize = 256 << 10;
/// Folders below a root; deeper ones are taken for a loop.
const DEPTH: usize = 32;
/// Longest member name that is shown whole.
const NAME_BYTES: u64 = 4 << 10;

/// Where something was found: a file, or a member of an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Which member of it, if it is a tar.
    pub member: Option<Member>,
}

/// A member of a tar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its number in the archive, from 0.
    pub index: u64,
    /// Its name there: to show, never to open.
    pub name: String,
}

impl Place {
    /// The last component of the file's or member's name.
    pub fn name(&self) -> &str {
        let name = match &self.member {
            Some(m) => Some(m.name.rsplit('/').next().unwrap_or(&m.name)),
            None => self.file.file_name().and_then(|n| n.to_str()),
        };
        name.unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match &self.member {
            Some(m) => write!(f, " ({})", m.name.escape_debug()),
            None => Ok(()),
        }
    }
}

impl serde::Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One file or member, unpacked.
pub struct Thing<'a> {
    /// Where it lies.
    pub place: &'a Place,
    /// Its first bytes, at most 512.
    pub head: &'a [u8],
    /// All its bytes, from the first on.
    pub body: &'a mut dyn Read,
    /// The file itself, when it is neither packed nor in an archive.
    pub plain: Option<&'a Arc<dyn File>>,
}

/// What is done with each [`Thing`]; `Break` ends the walk.
pub type See<'s> = &'s mut dyn FnMut(Thing<'_>) -> ControlFlow<()>;

/// All files at or below `root`, ordered by their names' bytes: links to files are followed, links
/// to folders are not. A `root` that is a file is the only one.
///
/// # Errors
/// As [`Disk::list`], with the folder.
pub fn files(disk: &dyn Disk, root: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |e| (path, e)
    };
    let mut found = Vec::new();
    if disk.meta(root).map_err(at(root))?.kind != EntryKind::Folder {
        found.push(root.to_owned());
        return Ok(found);
    }
    // Depth first with the last name on top, so that the order is that of the names.
    let mut open = vec![(root.to_owned(), 0)];
    let mut waiting = Vec::new();
    while let Some((path, depth)) = open.pop() {
        let listed = disk.list(&path).map_err(at(&path))?;
        for entry in listed {
            let child = path.join(&entry.name);
            match entry.kind {
                EntryKind::Folder if depth < DEPTH => waiting.push((child, depth + 1)),
                EntryKind::Folder => {}
                EntryKind::File => found.push(child),
                // A link: only what it leads to tells; one that leads nowhere is not a file.
                EntryKind::Other => {
                    if disk.meta(&child).is_ok_and(|m| m.kind == EntryKind::File) {
                        found.push(child);
                    }
                }
            }
        }
        open.extend(waiting.drain(..).rev());
    }
    Ok(found)
}

/// Shows what `file` holds: itself, unpacked, or each member if it is a tar.
///
/// # Errors
/// When the file cannot be read, or an archive breaks off; what lay before was shown.
pub fn visit(disk: &dyn Disk, file: &Path, see: See<'_>) -> io::Result<()> {
    // Opening a named pipe would wait for a writer, for ever.
    if disk.meta(file)?.kind != EntryKind::File {
        let why = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let opened = disk.open(file, Access::Read)?;
    let place = Place {
        file: file.to_owned(),
        member: None,
    };
    let mut reader = io::BufReader::with_capacity(BLOCK_BYTES, FileReader::new(opened.clone()));
    unpack(&place, &mut reader, Some(&opened), see).map(drop)
}

/// Takes off one layer of compression, if there is one.
fn unpack(
    place: &Place,
    reader: &mut dyn Read,
    plain: Option<&Arc<dyn File>>,
    see: See<'_>,
) -> io::Result<ControlFlow<()>> {
    let head = peek(reader)?;
    let mut body = head.as_slice().chain(reader);
    match head.as_slice() {
        [0x1f, 0x8b, ..] => show(place, &mut MultiGzDecoder::new(body), None, see),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => show(
            place,
            &mut zstd::stream::read::Decoder::new(body)?,
            None,
            see,
        ),
        _ => show(place, &mut body, plain, see),
    }
}

/// Shows a stream, or what is in it if it is a tar (one in a tar is not entered).
fn show(
    place: &Place,
    reader: &mut dyn Read,
    plain: Option<&Arc<dyn File>>,
    see: See<'_>,
) -> io::Result<ControlFlow<()>> {
    // What cannot be unpacked is shown too, as bytes that cannot be read: in an archive, the other
    // members are still good.
    let head = match peek(reader) {
        Ok(head) => head,
        Err(e) => {
            return Ok(see(Thing {
                place,
                head: &[],
                body: &mut Unreadable(Some(e)),
                plain: None,
            }));
        }
    };
    let mut body = head.as_slice().chain(reader);
    if place.member.is_none() && head.get(257..262) == Some(b"ustar") {
        return members(place, &mut body, see);
    }
    Ok(see(Thing {
        place,
        head: &head,
        body: &mut body,
        plain,
    }))
}

/// The members of a tar. The archive is read raw, because the library would otherwise take names
/// of any length into memory.
fn members(place: &Place, reader: &mut dyn Read, see: See<'_>) -> io::Result<ControlFlow<()>> {
    let mut archive = tar::Archive::new(reader);
    let mut long_name = None;
    for (index, member) in (0u64..).zip(archive.entries()?.raw(true)) {
        let mut member = member?;
        let kind = member.header().entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            let mut bytes = Vec::new();
            (&mut member).take(NAME_BYTES).read_to_end(&mut bytes)?;
            long_name = if kind.is_gnu_longname() {
                bytes.split(|&b| b == 0).next().map(<[u8]>::to_vec)
            } else {
                pax_path(&bytes).or(long_name)
            };
            continue;
        }
        let name = long_name
            .take()
            .unwrap_or_else(|| member.path_bytes().into_owned());
        if !kind.is_file() && !kind.is_contiguous() {
            continue;
        }
        let place = Place {
            file: place.file.clone(),
            member: Some(Member {
                index,
                name: String::from_utf8_lossy(&name).into_owned(),
            }),
        };
        if unpack(&place, &mut member, None, see)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The `path` in a pax header: lines of `LENGTH KEY=VALUE\n`.
fn pax_path(bytes: &[u8]) -> Option<Vec<u8>> {
    bytes
        .split(|&b| b == b'\n')
        .filter_map(|line| line.splitn(2, |&b| b == b' ').nth(1))
        .find_map(|pair| pair.strip_prefix(b"path="))
        .map(<[u8]>::to_vec)
}

fn peek(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    reader.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// A [`File`] as a stream.
pub struct FileReader {
    file: Arc<dyn File>,
    at: u64,
}

impl FileReader {
    /// From the first byte on.
    pub fn new(file: Arc<dyn File>) -> FileReader {
        FileReader { file, at: 0 }
    }
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Bytes that cannot be had.
struct Unreadable(Option<io::Error>);

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self
            .0
            .take()
            .unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
    }
}
