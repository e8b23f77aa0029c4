//! [`Outgoing`]: what a member gets that lacks records which are purged here (D11): a snapshot, and the
//! beginning of the segment that its last record stands in, up to that record.
//!
//! With it the member's log begins with a whole segment wherever in a segment the state ends, so that
//! its files stay equal to everybody's (P4). All of it is committed and durable (P5): the state holds
//! nothing else, and what the state holds the log has synced.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bincode::{Decode, Encode};
use unisondb_platform::{File, FileExt};
use unisondb_types::{Lsn, SegmentId, Term};
use unisondb_wal::Hold;

use super::BackupError;
use super::root::{Asked, Folder};
use crate::Engine;

/// Name of the file that the snapshot is made in, in the namespace's folder; it does not stay.
pub(crate) const PASSING: &str = ".outgoing";

/// What a parcel holds: the snapshot's bytes, then the segment's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Parcel {
    /// The state is the one after this record.
    pub lsn: Lsn,
    /// That record's term.
    pub term: Term,
    /// Length of the snapshot in bytes, trailer included.
    pub snapshot_bytes: u64,
    /// The segment that the record stands in.
    pub segment: SegmentId,
    /// Length of its header and frames up to the record, in bytes.
    pub segment_bytes: u64,
}

impl Parcel {
    /// Length of all of it, in bytes; nothing where that is no length.
    pub fn bytes(&self) -> Option<u64> {
        self.snapshot_bytes.checked_add(self.segment_bytes)
    }
}

/// A parcel that is there, without a name, for as long as this is kept.
pub struct Outgoing {
    /// What it is.
    pub parcel: Parcel,
    snapshot: Arc<dyn File>,
    segment: Arc<dyn File>,
    /// What was written since stays meanwhile: the member goes on with that.
    _hold: Hold,
}

impl Outgoing {
    /// Bytes from `offset` on, at most `most`; none behind the end. Blocks.
    ///
    /// # Errors
    /// EIO.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let Parcel {
            snapshot_bytes,
            segment_bytes,
            ..
        } = self.parcel;
        let (file, at, left) = match offset.checked_sub(snapshot_bytes) {
            None => (&self.snapshot, offset, snapshot_bytes - offset),
            Some(at) => (&self.segment, at, segment_bytes.saturating_sub(at)),
        };
        let len = usize::try_from(left).map_or(most, |left| left.min(most));
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

impl Engine {
    /// Makes a parcel that holds every record up to `through`. Blocks.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn outgoing(&self, through: Lsn) -> Result<Outgoing, BackupError> {
        self.may_be_backed_up()?;
        let shared = &self.0;
        let wal = &shared.wal;
        // Until it is known which segment is needed, all are.
        let all = wal.hold("snapshot for a member", SegmentId::FIRST);
        let asked = Asked::folder(".")?;
        let _target = shared.backup.targets.enter(PathBuf::from(PASSING));
        let disk = &shared.platform.disk;
        let made = shared.backup.targets.making(disk.as_ref(), |made| {
            let folder = Folder::make(disk, &shared.home, &asked, made)?;
            let (draft, about, _) = self.draft(&folder, PASSING, through)?;
            Ok((draft.unnamed()?, about))
        });
        let (snapshot, about) = made?;
        let of_log = |e| BackupError::from(crate::Error::from(e));
        let gone = |from, to| of_log(unisondb_wal::Error::Missing { from, to });
        let last = wal.read(about.lsn, 1).map_err(of_log)?;
        let last = last.into_iter().next();
        let last = last.ok_or_else(|| gone(about.lsn, about.lsn))?;
        let hold = wal.hold("snapshot for a member", last.segment);
        drop(all);
        Ok(Outgoing {
            parcel: Parcel {
                lsn: about.lsn,
                term: last.record.term,
                snapshot_bytes: about.bytes,
                segment: last.segment,
                segment_bytes: last.end,
            },
            snapshot,
            segment: wal.open_begun(last.segment).map_err(of_log)?,
            _hold: hold,
        })
    }
}
