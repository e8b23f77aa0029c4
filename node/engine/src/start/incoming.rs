//! [`Incoming`]: a parcel that arrives from another member (D11), beside what this one has: written to
//! `incoming/`, synced, and verified whole before anything of its own is touched.
//!
//! [`put_aside`] is the one step that decides: it gives the folder the name `install/`, by which the next
//! start finds it and takes it over ([`super::install`]). Before it a kill leaves the state and log that
//! were here, behind it those that came.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unisondb_platform::{Access, Disk, DiskExt, File, FileExt, Platform};
use unisondb_store::image::Image;
use unisondb_store::{DATA_FILE, Trailer};
use unisondb_types::{LineageId, Lsn, Namespace, Term};
use unisondb_wal::raft_state::{self, RaftStateFile};
use unisondb_wal::{Entry, SegmentReader};

use super::files::Places;
use super::findings::FileSource;
use super::{Folders, StartError, act};
use crate::backup::Parcel;
use crate::restore::stored::Stored;

/// Longest of a parcel, in bytes: what no length field that is right passes.
const MOST_BYTES: u64 = 1 << 50;
/// Room that is left on the volume to the logs, in bytes.
const SPARE_BYTES: u64 = 64 << 20;

/// A parcel of which `at` bytes have arrived.
pub struct Incoming {
    disk: Arc<dyn Disk>,
    places: Places,
    parcel: Parcel,
    data: (PathBuf, Arc<dyn File>),
    log: (PathBuf, Arc<dyn File>),
    at: u64,
}

/// A parcel that is whole and right, in `incoming/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// What it is.
    pub parcel: Parcel,
}

impl Incoming {
    /// Begins anew: what lay in `incoming/` goes. Blocks.
    ///
    /// # Errors
    /// [`StartError::Refused`] for a length that cannot be; [`StartError::Full`]; the disk.
    pub fn begin(platform: &Platform, home: &Path, parcel: Parcel) -> Result<Incoming, StartError> {
        let (disk, places) = (platform.disk.clone(), Places::of(home));
        let bytes = parcel.bytes().filter(|bytes| *bytes <= MOST_BYTES);
        let bytes = bytes.ok_or_else(|| {
            StartError::Refused(format!("a snapshot of an impossible length: {parcel:?}"))
        })?;
        let folder = &places.incoming;
        disk.remove_all(folder)
            .and_then(|()| disk.create_folders(folder))
            .map_err(|e| StartError::io(folder, e))?;
        // Where the room cannot be told, writing will.
        if let Ok(space) = disk.space(folder)
            && space.available < bytes.saturating_add(SPARE_BYTES.min(space.total / 50))
        {
            return Err(StartError::Full(folder.clone()));
        }
        let make = |name: &str| {
            let path = folder.join(name);
            let file = disk.open(&path, Access::CreateNew);
            let file = file.map_err(|e| StartError::io(&path, e))?;
            Ok::<_, StartError>((path, file))
        };
        let (data, log) = (make(DATA_FILE)?, make(&parcel.segment.file_name())?);
        Ok(Incoming {
            disk,
            places,
            parcel,
            data,
            log,
            at: 0,
        })
    }

    /// How much has arrived, in bytes.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether all has.
    pub fn is_all_there(&self) -> bool {
        Some(self.at) == self.parcel.bytes()
    }

    /// Writes what comes next. Blocks.
    ///
    /// # Errors
    /// [`StartError::Refused`] where it is more than there should be; the disk.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StartError> {
        while !bytes.is_empty() {
            let Parcel {
                snapshot_bytes,
                segment_bytes,
                ..
            } = self.parcel;
            let ((path, file), at, left) = match self.at.checked_sub(snapshot_bytes) {
                None => (&self.data, self.at, snapshot_bytes - self.at),
                Some(at) => (&self.log, at, segment_bytes - at),
            };
            let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            if len == 0 {
                let why = "more of a snapshot arrived than there is of it".to_owned();
                return Err(StartError::Refused(why));
            }
            let (now, rest) = bytes.split_at(len);
            file.write_all_at(now, at)
                .map_err(|e| StartError::io(path, e))?;
            self.at += len as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Syncs it and verifies all of it: that it is whole, what it should be, and its own digest. Blocks.
    ///
    /// # Errors
    /// [`StartError::Refused`] in words; the disk. What has arrived is then of no use.
    pub fn finish(
        self,
        namespace: &Namespace,
        lineage: LineageId,
        through: Lsn,
    ) -> Result<Arrived, StartError> {
        for (path, file) in [&self.data, &self.log] {
            file.sync().map_err(|e| StartError::io(path, e))?;
        }
        let folder = &self.places.incoming;
        self.disk
            .sync_folder(folder)
            .map_err(|e| StartError::io(folder, e))?;
        let refused =
            |why| StartError::Refused(format!("what arrived is no snapshot to take: {why}"));
        let trailer = self.snapshot().map_err(refused)?;
        let parcel = self.parcel;
        if (&trailer.namespace, trailer.lineage) != (namespace, lineage) {
            return Err(refused(format!(
                "it is of namespace {} and lineage {}, not of {namespace} and {lineage}",
                trailer.namespace, trailer.lineage
            )));
        }
        // It names the file that comes in place of the whole log.
        if trailer.segment != parcel.segment {
            return Err(refused(format!(
                "it goes on in segment {}, not in {}",
                trailer.segment, parcel.segment
            )));
        }
        if (trailer.lsn, trailer.term) != (parcel.lsn, parcel.term) || trailer.lsn < through {
            return Err(refused(format!(
                "it stands at LSN {} of term {}, not at LSN {} of term {}, and LSN {through} is wanted",
                trailer.lsn, trailer.term, parcel.lsn, parcel.term
            )));
        }
        self.segment(&trailer).map_err(refused)?;
        Ok(Arrived { parcel })
    }

    /// The snapshot: its checksum, each of its entries, their digest; and what its trailer says.
    fn snapshot(&self) -> Result<Trailer, String> {
        let source = FileSource(self.data.1.clone());
        let trailer = Trailer::find(&source).map_err(|e| e.to_string())?;
        let trailer = trailer.ok_or("it has no trailer")?;
        trailer.verify(&source).map_err(|e| e.to_string())?;
        let image = Image::open(source).map_err(|e| e.to_string())?;
        let stored = Stored::of(&image)?;
        match stored.contradicts(&trailer) {
            Some(why) => return Err(why),
            None if stored.position.cluster != trailer.cluster => {
                return Err("its trailer names another cluster".to_owned());
            }
            None => {}
        }
        stored.walk(&image, &mut |_| ())?;
        Ok(trailer)
    }

    /// The beginning of the segment: every frame, up to the very record that the state ends with.
    fn segment(&self, trailer: &Trailer) -> Result<(), String> {
        let reader = SegmentReader::from_file(self.log.1.clone());
        let mut reader = reader.map_err(|e| e.to_string())?;
        let header = reader.header().clone();
        let is_its = (&header.namespace, header.cluster, header.lineage, header.id);
        let should = (
            &trailer.namespace,
            trailer.cluster,
            trailer.lineage,
            trailer.segment,
        );
        if is_its != should {
            return Err(format!(
                "with it came segment {} of namespace {} of lineage {}",
                header.id, header.namespace, header.lineage
            ));
        }
        let chain = header.predecessor.map(|before| before.chain);
        if trailer.chain_lsn == header.first_lsn.prev() && chain.is_some_and(|c| c != trailer.chain)
        {
            return Err("the segment that came with it continues another chain".to_owned());
        }
        let mut last: Option<Entry> = None;
        while let Some(entry) = reader.next().map_err(|e| e.to_string())? {
            last = Some(entry);
        }
        let last = last.ok_or("the segment that came with it has no record")?;
        let ends = (last.record.lsn, last.record.term, last.crc, last.end);
        let (lsn, term, crc) = (trailer.lsn, trailer.term, trailer.frame_crc);
        if ends != (lsn, term, crc, self.parcel.segment_bytes) {
            return Err(format!(
                "the segment that came with it ends with LSN {} of term {} and CRC {:08x} at {}, not LSN {lsn} of term {term} and CRC {crc:08x} at {}",
                ends.0, ends.1, ends.2, ends.3, self.parcel.segment_bytes
            ));
        }
        Ok(())
    }
}

/// From here on the next start takes over what has arrived. To be called when the namespace is closed:
/// what its log takes behind this is lost. Blocks.
///
/// # Errors
/// [`StartError::Refused`] where the vote here is of a term below the parcel's, beside which it may not
/// lie (D1); the disk: then both may be so.
pub fn put_aside(platform: &Platform, home: &Path, arrived: Arrived) -> Result<(), StartError> {
    let (disk, places) = (platform.disk.as_ref(), Places::of(home));
    let term = arrived.parcel.term;
    match raft_state::read(disk, &places.raft_state)? {
        raft_state::Found::Valid(vote) if vote.term >= term => {}
        _ => {
            return Err(StartError::Refused(format!(
                "{} holds no vote of term {term} or later, in which the snapshot's last record was made",
                places.raft_state.display()
            )));
        }
    }
    disk.rename(&places.incoming, &places.install)
        .and_then(|()| disk.sync_folder(home))
        .map_err(|e| StartError::io(&places.install, e))
}

/// Forgets what has arrived. Blocks.
///
/// # Errors
/// The disk; the next start does it.
pub fn give_up(platform: &Platform, home: &Path) -> Result<(), StartError> {
    let incoming = Places::of(home).incoming;
    let gone = platform.disk.remove_all(&incoming);
    gone.map_err(|e| StartError::io(&incoming, e))
}

/// Makes the folder of a member that has nothing yet, and will begin with a parcel: a raft id of its own,
/// drawn once, and a vote in `term`, which is the parcel's or later. Synced when it returns.
///
/// # Errors
/// [`StartError::Refused`] when there is a state in the folder already; the disk.
pub fn prepare(platform: &Platform, folders: &Folders, term: Term) -> Result<u64, StartError> {
    let places = super::join::empty_folder(platform, folders)?;
    let disk = platform.disk.as_ref();
    let vote = match RaftStateFile::open(disk, &places.raft_state)? {
        Some(vote) if vote.state().term >= term => vote,
        // It has voted nowhere.
        Some(vote) => act::vote(platform, &places, vote.state().raft_id, term)?,
        None => act::vote(platform, &places, act::draw_raft_id(platform), term)?,
    };
    disk.sync_folder(&folders.home)
        .map_err(|e| StartError::io(&folders.home, e))?;
    Ok(vote.state().raft_id)
}

/// Removes a file that may not be there.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StartError> {
    match disk.remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StartError::io(path, e)),
        _ => Ok(()),
    }
}
