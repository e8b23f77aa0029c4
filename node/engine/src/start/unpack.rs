//! Segments that were restored as they lay in the archive, `000000012.wal.gz` or `.wal.zst` in `wal/`:
//! unpacked beside themselves before anything is decided, in a restored directory only.
//!
//! Each becomes `000000012.wal.tmp`, no longer than its header allows; it is synced, read through, and
//! only then renamed. What has the name already stays. The packed file stays, too: it is somebody's.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use unisondb_platform::{Access, Disk, DiskExt, EntryKind, FileExt};
use unisondb_types::{SegmentId, limits};
use unisondb_wal::{SegmentReader, raft_state};

use super::findings::{Db, Findings};
use super::{Note, StartError};
use crate::restore::walk;

/// Endings of packed segments; what is inside is told from the bytes.
const PACKED: [&str; 2] = [".gz", ".zst"];
/// Bytes written at once.
const BLOCK_BYTES: usize = 1 << 20;
/// What a segment may have besides its frames: header and footer.
const ENDS_BYTES: u64 = 64 << 10;

/// Unpacks what the state may need. Gives a note for each file.
pub(super) fn unpack(disk: &dyn Disk, found: &Findings) -> Result<Vec<Note>, StartError> {
    let mut notes = Vec::new();
    if !is_restored(found) {
        return Ok(notes);
    }
    let wal = &found.places.wal;
    let entries = match disk.list(wal) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(notes),
        listed => listed.map_err(|e| StartError::io(wal, e))?,
    };
    let needed = found
        .db
        .state()
        .map_or(SegmentId::ZERO, |s| s.position.segment);
    let mut renamed = false;
    for entry in entries.iter().filter(|e| e.kind == EntryKind::File) {
        let Some(id) = id_of(&entry.name).filter(|id| *id >= needed) else {
            continue;
        };
        let to = wal.join(id.file_name());
        // Unpacked already, or there in both forms: the look at the folder names what is ignored.
        if disk.exists(&to).map_err(|e| StartError::io(&to, e))? {
            continue;
        }
        let packed = wal.join(&entry.name);
        let why = match unpack_one(disk, &packed, &to, id)? {
            Ok(()) => {
                renamed = true;
                let text = format!(
                    "unpacked {} to {}: the packed file is left in place and not needed any more",
                    packed.display(),
                    id.file_name()
                );
                notes.push(note(id, text, false));
                continue;
            }
            Err(why) => why,
        };
        let text = format!(
            "{} is no packed copy of segment {id}: {why}; it is ignored. Way out: a good copy of that segment",
            packed.display()
        );
        notes.push(note(id, text, true));
    }
    if renamed {
        disk.sync_folder(wal).map_err(|e| StartError::io(wal, e))?;
    }
    for note in &notes {
        tracing::warn!(home = %found.places.home.display(), "{}", note.text);
    }
    Ok(notes)
}

fn note(id: SegmentId, text: String, degraded: bool) -> Note {
    Note {
        field: "unpacked",
        value: id.to_string(),
        text,
        degraded,
    }
}

/// As the table has it: a state of another origin, or no vote beside what is here. Not one whose restore
/// has begun its new lineage, which is to be finished only.
fn is_restored(found: &Findings) -> bool {
    let begun = found.restoring.as_ref().is_some_and(|r| {
        let mut all = found.segments.values();
        all.any(|s| s.info.header.lineage == r.lineage)
    });
    let no_vote = matches!(found.raft, raft_state::Found::Missing);
    // What another member gave is whole as it is.
    !found.installing && !begun && (no_vote || matches!(found.db, Db::Image { .. }))
}

fn id_of(name: &str) -> Option<SegmentId> {
    let name = PACKED.iter().find_map(|end| name.strip_suffix(end))?;
    SegmentId::parse_file_name(name)
}

/// Inside: why the file is no packed copy of that segment.
fn unpack_one(
    disk: &dyn Disk,
    packed: &Path,
    to: &Path,
    id: SegmentId,
) -> Result<Result<(), String>, StartError> {
    let mut tmp = to.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    remove_if_there(disk, &tmp)?;
    let mut done = Err("there is nothing in it".to_owned());
    let mut failed = None;
    let visited = walk::visit(disk, packed, &mut |thing| {
        if thing.place.member.is_none() {
            match write(disk, &tmp, id, thing.head, thing.body) {
                Ok(written) => done = written,
                Err(e) => failed = Some(e),
            }
        } else {
            done = Err("it is an archive".to_owned());
        }
        ControlFlow::Break(())
    });
    let done = match (failed, visited) {
        (Some(e), _) => Err(StartError::io(&tmp, e)),
        (None, Err(e)) => Ok(Err(e.to_string())),
        (None, Ok(())) => Ok(done),
    };
    let proven = match done {
        Ok(Ok(())) => Ok(SegmentReader::open(disk, &tmp)
            .and_then(unisondb_wal::verify_stream)
            .map(drop)
            .map_err(|e| e.to_string())),
        other => other,
    };
    if let Ok(Ok(())) = proven {
        disk.rename(&tmp, to).map_err(|e| StartError::io(to, e))?;
    } else {
        remove_if_there(disk, &tmp)?;
    }
    proven
}

/// Writes and syncs what is unpacked, as long as it may be. Outside: what the disk says to that.
fn write(
    disk: &dyn Disk,
    tmp: &Path,
    id: SegmentId,
    head: &[u8],
    body: &mut dyn Read,
) -> std::io::Result<Result<(), String>> {
    let header = match SegmentReader::stream_unhashed(head) {
        Ok(reader) => reader.header().clone(),
        Err(e) => return Ok(Err(e.to_string())),
    };
    if header.id != id {
        return Ok(Err(format!("it holds segment {}", header.id)));
    }
    // One frame always fits, however small the segments.
    let most = header.segment_size.min(limits::SEGMENT_MAX_BYTES)
        + limits::FRAME_PAYLOAD_BYTES as u64
        + ENDS_BYTES;
    let file = disk.open(tmp, Access::CreateNew)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0u64;
    loop {
        let n = match body.read(&mut block) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Ok(Err(e.to_string())),
        };
        if at + n as u64 > most {
            return Ok(Err(format!(
                "it is longer than the {most} bytes that such a segment may have"
            )));
        }
        file.write_all_at(&block[..n], at)?;
        at += n as u64;
    }
    file.sync()?;
    Ok(Ok(()))
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), StartError> {
    match disk.remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StartError::io(path, e)),
        _ => Ok(()),
    }
}
