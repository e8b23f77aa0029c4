//! Joining a group: the folder of a member that has nothing yet. It gets a raft id of its own and the
//! record that the lineage began with, byte for byte as every other member has it; all that follows
//! comes by replication.

use bincode::{Decode, Encode};
use unisondb_platform::{DiskExt as _, Platform};
use unisondb_types::{Command, Kind, LineageRecord, Record, Stamp, Term};
use unisondb_wal::raft_state::RaftStateFile;

use super::files::Places;
use super::{Folders, StartError, act};

/// The record that a lineage began with, as a member tells it to one that joins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    /// What it says.
    pub lineage: LineageRecord,
    /// Its term.
    pub term: Term,
    /// Its time.
    pub stamp: Stamp,
}

impl Origin {
    /// From the record itself; `None` when it begins no lineage.
    pub fn of(record: &Record) -> Option<Origin> {
        match record.command() {
            Ok(Command::Lineage(lineage)) if record.kind == Kind::Lineage => Some(Origin {
                lineage: *lineage,
                term: record.term,
                stamp: record.stamp,
            }),
            _ => None,
        }
    }
}

/// Whether there is a state in the folder: it has joined, or was never to.
///
/// # Errors
/// It cannot be looked at.
pub fn is_there(platform: &Platform, folders: &Folders) -> Result<bool, StartError> {
    let places = Places::of(&folders.home);
    // Or a snapshot that the next opening takes over.
    for path in [&places.data, &places.install] {
        let found = platform.disk.exists(path);
        if found.map_err(|e| StartError::io(path, e))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The folders of a namespace that there is no state of, and the mark that it joins a group. Before there is a
/// vote: whoever has one here knows that it may not be the only voter.
pub(super) fn empty_folder(platform: &Platform, folders: &Folders) -> Result<Places, StartError> {
    let places = Places::of(&folders.home);
    let disk = platform.disk.as_ref();
    if is_there(platform, folders)? {
        return Err(StartError::Refused(format!(
            "{} is there already: only an empty folder joins",
            places.data.display()
        )));
    }
    for folder in [&places.wal, &places.db] {
        disk.create_folders(folder)
            .map_err(|e| StartError::io(folder, e))?;
    }
    disk.publish(&places.joined, b"")
        .map_err(|e| StartError::io(&places.joined, e))?;
    Ok(places)
}

/// Makes the folder, or finds it made by an earlier call: gives the raft id by which it is to be
/// added to the group. Synced when it returns; [`open`](super::open) goes on from there.
///
/// # Errors
/// [`StartError::Refused`] when there is a state in the folder already, or the lineage began at a fork:
/// what lies before that comes with a snapshot only. Otherwise as [`open`](super::open).
pub fn join(platform: &Platform, folders: &Folders, origin: &Origin) -> Result<u64, StartError> {
    if let Some(parent) = &origin.lineage.parent {
        return Err(StartError::Refused(format!(
            "lineage {} began at LSN {}: what lies before comes with a snapshot, not with the log",
            origin.lineage.lineage,
            parent.fork.next()
        )));
    }
    let places = empty_folder(platform, folders)?;
    let disk = platform.disk.as_ref();
    let vote = match RaftStateFile::open(disk, &places.raft_state)? {
        Some(vote) => vote,
        // A term at least that of the log, and nobody else's vote in it (D1).
        None => act::vote(platform, &places, act::draw_raft_id(platform), origin.term)?,
    };
    unisondb_wal::begin(
        platform,
        &places.wal,
        &origin.lineage,
        origin.term,
        origin.stamp,
    )?;
    disk.sync_folder(&folders.home)
        .map_err(|e| StartError::io(&folders.home, e))?;
    Ok(vote.state().raft_id)
}
