//! Reading through what a restore will replay, before it changes anything: damage found in the middle of
//! a replay would be found too late, with the snapshot already taken over.

use std::path::Path;

use unisondb_platform::Disk;
use unisondb_types::{Lsn, Target};
use unisondb_wal::{SegmentError, SegmentReader, SegmentState};

use super::StartError;
use super::decide::Plan;
use super::findings::Findings;

/// How far the log has been read.
enum Read {
    /// To the end of what counts of this segment.
    On,
    /// To the first record behind the target.
    ToTarget,
}

/// Reads the kept segments from the state on, up to the target; of each only what counts, up to the
/// next one's first record. The last one is left out if it was not sealed: its tail may be torn, which
/// opening the log judges and cuts.
pub(super) fn prove(
    disk: &dyn Disk,
    found: &Findings,
    plan: &Plan,
    target: Target,
) -> Result<(), StartError> {
    let at = found.stands_at();
    let mut keep = plan.keep.iter().map(|id| &found.segments[id]).peekable();
    while let Some(segment) = keep.next() {
        let next = keep.peek().map(|n| n.info.header.first_lsn);
        let end = next.map_or(Lsn::MAX, Lsn::prev);
        let info = &segment.info;
        if info.last_lsn.is_none_or(|last| last.min(end) <= at)
            || (next.is_none() && info.state != SegmentState::Sealed)
        {
            continue;
        }
        let path = found.places.wal.join(&segment.file_name);
        match read(disk, &path, end, target) {
            Ok(Read::On) => {}
            Ok(Read::ToTarget) => break,
            Err(SegmentError::Io(e)) => return Err(StartError::io(&path, e)),
            Err(source) => {
                let damage = unisondb_wal::Error::Damaged {
                    segment: info.id,
                    path,
                    source,
                };
                return Err(StartError::DamagedSegment {
                    damage: damage.to_string(),
                    why: "The state needs its records",
                });
            }
        }
    }
    Ok(())
}

fn read(disk: &dyn Disk, path: &Path, end: Lsn, target: Target) -> Result<Read, SegmentError> {
    let mut reader = SegmentReader::open(disk, path)?;
    while let Some(entry) = reader.next()? {
        let record = &entry.record;
        if record.lsn > end {
            return Ok(Read::On);
        }
        if !target.includes(record.lsn, record.stamp) {
            return Ok(Read::ToTarget);
        }
    }
    Ok(Read::On)
}
