//! Taking over a parcel that lies verified in `install/` (D11): state and log change places with what was
//! here. Every step can be done again; `install/` goes last, so a kill in between is the same as a later
//! start.
//!
//! ```text
//! install/data.mdb ─► db/data.mdb      what was there, and its owner, go
//! old segments go, newest first        the record behind them is purged everywhere: no log without a hole
//! install/NNN.wal  ─► wal/NNN.wal      beside raft.state, which stays: the member is the same
//! then as with any state of another origin: verified, its trailer cut off, made ours; log opened
//! install/ goes
//! ```

use unisondb_platform::{Disk, DiskExt, EntryKind};
use unisondb_types::SegmentId;

use super::StartError;
use super::files::Places;
use super::incoming::remove;
use crate::backup::PASSING;

/// Whether a parcel is to be taken over.
pub(super) fn is_wanted(disk: &dyn Disk, places: &Places) -> Result<bool, StartError> {
    let install = &places.install;
    disk.exists(install).map_err(|e| StartError::io(install, e))
}

/// Puts the state and the log of a parcel into their places, if one is there.
pub(super) fn take(disk: &dyn Disk, places: &Places) -> Result<(), StartError> {
    // One that was not whole, or never verified.
    let incoming = &places.incoming;
    if disk
        .exists(incoming)
        .map_err(|e| StartError::io(incoming, e))?
    {
        disk.remove_all(incoming)
            .map_err(|e| StartError::io(incoming, e))?;
    }
    // One for another member that was never whole.
    remove(disk, &places.home.join(format!("{PASSING}.tmp")))?;
    if !is_wanted(disk, places)? {
        return Ok(());
    }
    // Its name may be in the page cache only: what goes from it now would be missed under the name before.
    disk.sync_folder(&places.home)
        .map_err(|e| StartError::io(&places.home, e))?;
    for folder in [&places.db, &places.wal] {
        disk.create_folders(folder)
            .map_err(|e| StartError::io(folder, e))?;
    }
    let install = &places.install;
    let names = disk.list(install).map_err(|e| StartError::io(install, e))?;
    let move_to = |from: &str, folder: &std::path::PathBuf| {
        disk.rename(&install.join(from), &folder.join(from))
            .and_then(|()| disk.sync_folder(folder))
            .and_then(|()| disk.sync_folder(install))
            .map_err(|e| StartError::io(&folder.join(from), e))
    };
    if names.iter().any(|e| e.name == unisondb_store::DATA_FILE) {
        remove(disk, &places.owner)?;
        remove(disk, &places.failed_owner)?;
        move_to(unisondb_store::DATA_FILE, &places.db)?;
    }
    let segment = names.iter().find_map(|e| {
        let id = SegmentId::parse_file_name(&e.name);
        id.map(|_| e.name.as_str())
    });
    if let Some(segment) = segment {
        remove_segments(disk, places)?;
        move_to(segment, &places.wal)?;
    }
    Ok(())
}

/// The log that was here: what came leaves a gap behind it, and a log has none.
fn remove_segments(disk: &dyn Disk, places: &Places) -> Result<(), StartError> {
    let wal = &places.wal;
    let entries = disk.list(wal).map_err(|e| StartError::io(wal, e))?;
    let files = entries.iter().filter(|e| e.kind == EntryKind::File);
    let mut ids: Vec<SegmentId> = files
        .filter_map(|e| SegmentId::parse_file_name(&e.name))
        .collect();
    ids.sort_unstable();
    for id in ids.iter().rev() {
        remove(disk, &wal.join(id.file_name()))?;
    }
    if let (Some(first), Some(last)) = (ids.first(), ids.last()) {
        tracing::warn!(wal = %wal.display(), "{} removed: the log goes on behind a snapshot from another member", first.to_last(*last));
    }
    disk.sync_folder(wal).map_err(|e| StartError::io(wal, e))
}

/// It has been taken over.
pub(super) fn done(disk: &dyn Disk, places: &Places) -> Result<(), StartError> {
    let install = &places.install;
    disk.remove_all(install)
        .and_then(|()| disk.sync_folder(&places.home))
        .map_err(|e| StartError::io(install, e))
}
