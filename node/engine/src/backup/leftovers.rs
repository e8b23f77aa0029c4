//! What a dead call left unfinished in a folder is removed by the next call on that folder, whatever
//! it makes there (B17).
//!
//! A name that ends in `.tmp` is not enough: others use it too. A file goes only if a call here can
//! have made it:
//!
//! | name | and its bytes |
//! | --- | --- |
//! | `000000009.wal.tmp`, `000000009.wal.sha256.tmp` | any: such names are ours |
//! | `NAME.tmp` | none yet, or those that an LMDB file begins with |
//! | `NAME.sha256.tmp` | none yet, or the beginning of `SUM  NAME` |
//!
//! where `NAME` is one that a request can ask for. None yet: no bytes, or zeroes in the place of the first
//! ones (a snapshot's first sector, a whole checksum line), which a power loss took. (A snapshot's first
//! sector is on the medium before anything behind it is written.) What cannot be read stays: nothing tells
//! whose it is. What a live call writes stays: its target is locked ([`Targets`]), and nobody begins on it while it is looked at.

use std::io;
use std::path::Path;

use unisondb_platform::{Access, EntryKind};
use unisondb_types::SegmentId;

use super::BackupError;
use super::publish::{HEAD_BYTES, SHA256, TMP, Targets};
use super::root::{Asked, Folder};

/// Where LMDB's magic number stands, and the number, in the two orders of bytes.
const MAGIC_AT: std::ops::Range<usize> = 16..20;
const MAGIC: [[u8; 4]; 2] = [[0xde, 0xc0, 0xef, 0xbe], [0xbe, 0xef, 0xc0, 0xde]];
/// Length of a checksum, in hexadecimal digits.
const SUM_DIGITS: usize = 64;

/// Removes what dead calls left in `folder`, which lies at `place` below the root. `own` is what the
/// caller works on.
///
/// # Errors
/// The folder cannot be listed, or a file in it not be removed.
pub(super) fn clear(
    targets: &Targets,
    own: &Path,
    place: &Path,
    folder: &Folder,
) -> Result<(), BackupError> {
    for name in folder.names()? {
        let Some(finished) = name.strip_suffix(TMP) else {
            continue;
        };
        let made = finished.strip_suffix(SHA256).unwrap_or(finished);
        // A WAL backup works on the folder, a snapshot on its file.
        let segment = SegmentId::parse_file_name(made).is_some();
        let target = match segment {
            true => place.to_owned(),
            false => place.join(made),
        };
        let remove = || -> Result<(), BackupError> {
            let ours = folder.kind(&name)? == Some(EntryKind::File)
                && (segment || is_begun(folder, &name, finished, made));
            if ours {
                folder.remove(&name)?;
            }
            Ok(())
        };
        targets.unless_busy(own, &target, remove).transpose()?;
    }
    Ok(())
}

/// Whether the file `name` is a snapshot or its checksum, as far as a call may have come.
fn is_begun(folder: &Folder, name: &str, finished: &str, made: &str) -> bool {
    let can_be_asked_for = Asked::file(made).is_ok() || made == super::snapshot::PASSING;
    let Ok(head) = head(folder, name) else {
        return false;
    };
    if !can_be_asked_for {
        return false;
    }
    let line_end = format!("  {made}\n");
    let first = match finished == made {
        true => HEAD_BYTES,
        false => SUM_DIGITS + line_end.len(),
    };
    if head.is_empty() || (head.len() == first && head.iter().all(|b| *b == 0)) {
        return true;
    }
    if finished == made {
        let magic = head.get(MAGIC_AT);
        return MAGIC.iter().any(|m| magic == Some(m));
    }
    let (sum, rest) = head.split_at(head.len().min(SUM_DIGITS));
    let is_digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    sum.iter().all(is_digit) && line_end.as_bytes().starts_with(rest)
}

/// The first sector, and one byte more if there is one.
fn head(folder: &Folder, name: &str) -> io::Result<Vec<u8>> {
    let file = folder.disk.open(&folder.path(name), Access::Read)?;
    let mut head = vec![0; HEAD_BYTES + 1];
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    head.truncate(len);
    Ok(head)
}
