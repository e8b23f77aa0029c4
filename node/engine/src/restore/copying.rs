//! Copying what a plan needs out of files and archives, each read once. What was proven while
//! planning is compared again on the way: anything else means that the source has changed since.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use unisondb_platform::{Access, Disk, File, FileExt};
use unisondb_types::Sha256Sum;

use super::plan::Step;
use super::sources::{Proof, Snapshot};
use super::walk::{self, Place};
use super::{Progress, RestoreError, Watch, at};

/// Bytes copied at once.
const BLOCK_BYTES: usize = 1 << 20;

/// The base, trailer included.
pub(super) fn copy_base(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    to: &Path,
    watch: Watch<'_>,
) -> Result<(), RestoreError> {
    let (image, sum) = (snapshot.what.image_bytes, snapshot.what.image_sum);
    let (hashed, expected) = match snapshot.proof {
        Proof::Bare => (0, None),
        Proof::Certified | Proof::Proven => (image, Some(sum)),
    };
    let jobs = BTreeMap::from([(
        snapshot.place.clone(),
        Job {
            to: to.to_owned(),
            bytes: snapshot.bytes,
            hashed,
            expected,
        },
    )]);
    copy_from(disk, &snapshot.place.file, jobs, watch)
}

/// The segments, under the names that they have in a log.
pub(super) fn copy_segments(
    disk: &dyn Disk,
    steps: &[Step],
    wal: &Path,
    watch: Watch<'_>,
) -> Result<(), RestoreError> {
    let mut files: BTreeMap<PathBuf, BTreeMap<Place, Job>> = BTreeMap::new();
    for step in steps {
        let job = Job {
            to: wal.join(step.segment.file_name()),
            bytes: step.bytes,
            hashed: step.content_bytes,
            expected: Some(step.content_sha256),
        };
        files
            .entry(step.file.file.clone())
            .or_default()
            .insert(step.file.clone(), job);
    }
    files
        .into_iter()
        .try_for_each(|(file, jobs)| copy_from(disk, &file, jobs, watch))
}

/// One file to be made.
struct Job {
    to: PathBuf,
    /// How much of the source, from its beginning.
    bytes: u64,
    /// How much of that `expected` covers.
    hashed: u64,
    /// What was read while planning: anything else means that the source has changed since.
    expected: Option<Sha256Sum>,
}

/// Copies what is wanted out of one file, reading it once.
fn copy_from(
    disk: &dyn Disk,
    file: &Path,
    mut jobs: BTreeMap<Place, Job>,
    watch: Watch<'_>,
) -> Result<(), RestoreError> {
    let mut failed = None;
    walk::visit(disk, file, &mut |thing| {
        if let Some(job) = jobs.remove(thing.place)
            && let Err(e) = copy(disk, thing.place, thing.body, &job, watch)
        {
            failed = Some(e);
        }
        if jobs.is_empty() || failed.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .map_err(at(file))?;
    match (failed, jobs.into_keys().next()) {
        (Some(e), _) => Err(e),
        (None, Some(place)) => Err(changed(&place)),
        (None, None) => Ok(()),
    }
}

fn changed(place: &Place) -> RestoreError {
    RestoreError::Io {
        path: PathBuf::from(place.to_string()),
        source: io::Error::other("it has changed since it was read; run the restore again"),
    }
}

fn copy(
    disk: &dyn Disk,
    place: &Place,
    from: &mut dyn Read,
    job: &Job,
    watch: Watch<'_>,
) -> Result<(), RestoreError> {
    let file: Arc<dyn File> = disk.open(&job.to, Access::CreateNew).map_err(at(&job.to))?;
    let mut sum = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut done = 0u64;
    while done < job.bytes {
        let want = usize::try_from(job.bytes - done).map_or(block.len(), |n| n.min(block.len()));
        let n = match from.read(&mut block[..want]) {
            Ok(0) => return Err(changed(place)),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(at(&place.file)(e)),
        };
        file.write_all_at(&block[..n], done).map_err(at(&job.to))?;
        let covered = usize::try_from(job.hashed.saturating_sub(done)).map_or(n, |c| c.min(n));
        sum.update(&block[..covered]);
        done += n as u64;
        watch(Progress::Done(n as u64));
    }
    if job
        .expected
        .is_some_and(|e| e != Sha256Sum::from_bytes(sum.finalize().into()))
    {
        return Err(changed(place));
    }
    file.sync().map_err(at(&job.to))
}
