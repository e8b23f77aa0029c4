//! Proving a set of files without restoring it (P6): that each is what it was when it was written,
//! and that together no segment is missing, swapped, altered, or from another namespace, cluster
//! or history. Reads everything, writes nothing.
//!
//! What a set cannot show is what lies before its oldest and behind its newest file: an archive
//! may begin anywhere, and its newest segments may still be on their way.

mod check;

use std::path::PathBuf;

use serde::Serialize;
use unisondb_platform::{Disk, EntryKind};
use unisondb_types::{Chain, Digest, LineageId, Lsn, Namespace, SegmentId, Stamp};

use self::check::{Check, ReadSegment};
use super::sources::{Catalog, Want};
use super::walk::Place;
use super::{RestoreError, Watch};

/// What a set of files is worth.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    /// Segments, by namespace and LSN.
    pub segments: Vec<SegmentProof>,
    /// Snapshots, by namespace and LSN.
    pub snapshots: Vec<SnapshotProof>,
    /// What is wrong.
    pub problems: Vec<Finding>,
    /// What is not wrong, and worth knowing.
    pub notes: Vec<String>,
    /// How many files of other kinds were passed over.
    pub others: usize,
}

/// A segment that was read in full.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentProof {
    /// Where it lies.
    pub file: Place,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id.
    pub segment: SegmentId,
    /// Its lineage.
    pub lineage: LineageId,
    /// Whether it has a footer.
    pub sealed: bool,
    /// Its first record, or the one it will have.
    pub first_lsn: Lsn,
    /// Its last record.
    pub last_lsn: Option<Lsn>,
    /// Time of the first.
    pub first_time: Option<Stamp>,
    /// Time of the last.
    pub last_time: Option<Stamp>,
    /// How many records.
    pub records: u64,
    /// Length, unpacked.
    pub bytes: u64,
    /// Chain at its end.
    pub chain: Chain,
    /// State digest at its end, if it is sealed.
    pub digest: Option<Digest>,
}

/// A snapshot that was read in full.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotProof {
    /// Where it lies.
    pub file: Place,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its lineage.
    pub lineage: LineageId,
    /// The last record in it.
    pub lsn: Lsn,
    /// That record's time.
    pub time: Stamp,
    /// Replay needs only segments above this one.
    pub segment: SegmentId,
    /// Length, unpacked.
    pub bytes: u64,
    /// The state's digest.
    pub digest: Digest,
    /// How many entries were checked one by one; none if it was too large to unpack in memory.
    pub entries: Option<u64>,
    /// Whether a trailer proves its bytes.
    pub certified: bool,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What kind of thing.
    pub kind: Wrong,
    /// The file, if it is one.
    pub file: Option<String>,
    /// In words.
    pub why: String,
}

/// What can be wrong with a set of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Wrong {
    /// A segment between others is not there.
    Missing,
    /// A file has the name of another segment than it is.
    Swapped,
    /// A file is not what was written.
    Altered,
    /// A file is of another namespace, cluster or history than the others beside it; or it was
    /// named by itself, and is nothing of ours.
    Foreign,
    /// Two files claim to be the same and are not.
    Differs,
}

/// Reads everything at and below `roots`.
///
/// # Errors
/// [`RestoreError::NotFound`], [`RestoreError::Io`] for what cannot be read at all, and
/// [`RestoreError::Nothing`] when there is nothing to verify. All else stands in the report.
pub fn verify(
    disk: &dyn Disk,
    roots: &[PathBuf],
    watch: Watch<'_>,
) -> Result<Report, RestoreError> {
    let roots: Vec<_> = roots
        .iter()
        .map(|r| (r.clone(), Want::Everything))
        .collect();
    let catalog = Catalog::of(disk, &roots, watch)?;
    let mut check = Check::default();
    for (root, _) in &roots {
        if let Some((kind, why)) = no_backup(disk, root, &catalog) {
            check.wrong(kind, Some(root.display().to_string()), why);
        }
    }
    if catalog.segments.is_empty()
        && catalog.snapshots.is_empty()
        && catalog.unusable.is_empty()
        && check.problems.is_empty()
    {
        return Err(RestoreError::Nothing);
    }
    for bad in catalog.unusable {
        check.wrong(Wrong::Altered, Some(bad.place), bad.why);
    }
    check.foreign(&catalog.segments, &catalog.snapshots);
    check.segments(disk, &catalog.segments, watch);
    check.snapshots(disk, catalog.snapshots, watch);
    check.chains();
    check.agree();
    check
        .problems
        .sort_by(|a, b| (a.kind, &a.file).cmp(&(b.kind, &b.file)));
    Ok(Report {
        ok: check.problems.is_empty(),
        segments: check.read.iter().map(ReadSegment::proof).collect(),
        snapshots: check.snapshots,
        problems: check.problems,
        notes: check.notes,
        others: catalog.others.len(),
    })
}

/// What is wrong with a file that was named by itself and holds nothing of ours. In a folder it is
/// passed over; so are, everywhere, the checksums that lie beside backups (`*` names them too).
fn no_backup(disk: &dyn Disk, root: &PathBuf, catalog: &Catalog) -> Option<(Wrong, String)> {
    let meta = disk.meta(root).ok()?;
    let ours = catalog.segments.iter().any(|s| s.place.file == *root)
        || catalog.snapshots.iter().any(|s| s.place.file == *root);
    let side = root.extension().is_some_and(|e| e == "sha256");
    if meta.kind == EntryKind::Folder || ours || side || !catalog.others.contains(root) {
        return None;
    }
    Some(match meta.len {
        0 => (Wrong::Altered, "it is empty (0 bytes)".to_owned()),
        n => {
            let why = format!("it is not ours: {n} bytes, neither a segment nor a snapshot");
            (Wrong::Foreign, why)
        }
    })
}
