//! What happens to segments that somebody put into `wal/`: those that do not belong are moved aside,
//! never deleted; those that do are synced before they are counted on.

use std::collections::BTreeSet;

use unisondb_platform::{Access, DiskExt};
use unisondb_types::{LineageId, SegmentId};

use super::StartError;
use super::act::Ground;
use super::adopt::copy_file;
use super::decide::Plan;
use super::findings::Findings;

impl Ground<'_> {
    /// Moves segments that are not of this history out of `wal/`, by their lineages.
    pub(super) fn set_aside(&self, found: &Findings, plan: &Plan) -> Result<(), StartError> {
        let damaged = plan.damaged.iter().rev().map(|id| Leaving {
            folder: "wal.damaged".to_owned(),
            name: id.file_name(),
        });
        self.move_out(damaged)?;
        let aside = plan.aside.iter().rev().map(|id| {
            let segment = &found.segments[id];
            Leaving::aside(segment.info.header.lineage, &segment.file_name)
        });
        self.move_out(aside)
    }

    /// Copies a segment to where others are set aside, before it is cut.
    pub(super) fn copy_aside(&self, lineage: LineageId, name: &str) -> Result<(), StartError> {
        let folder = self.places.home.join(format!("wal.lineage-{lineage}"));
        self.disk()
            .create_folders(&folder)
            .map_err(|e| StartError::io(&folder, e))?;
        let to = folder.join(name);
        if self
            .disk()
            .exists(&to)
            .map_err(|e| StartError::io(&to, e))?
        {
            // From a try before a kill; whole or not, the original is still uncut.
            self.disk()
                .remove_file(&to)
                .map_err(|e| StartError::io(&to, e))?;
        }
        copy_file(self.disk(), &self.places.wal.join(name), &to)?;
        self.disk()
            .sync_folder(&folder)
            .map_err(|e| StartError::io(&folder, e))
    }

    /// Syncs segments that somebody copied here: nobody else has.
    pub(super) fn make_durable(&self, segments: &[SegmentId]) -> Result<(), StartError> {
        for id in segments {
            let path = self.places.wal.join(id.file_name());
            let synced = self
                .disk()
                .open(&path, Access::Write)
                .and_then(|f| f.sync());
            synced.map_err(|e| StartError::io(&path, e))?;
        }
        let wal = &self.places.wal;
        self.disk()
            .sync_folder(wal)
            .map_err(|e| StartError::io(wal, e))
    }

    /// Moves files out of `wal/` into folders beside it, whatever lies there already. They are given
    /// the newest first: a file system keeps the order of what happens to one folder, so what a kill or
    /// power loss leaves in `wal/` is one log without a hole. Each folder is synced once, `wal/` last: a
    /// name is gone there only when it is durable here.
    pub(super) fn move_out(
        &self,
        files: impl IntoIterator<Item = Leaving>,
    ) -> Result<(), StartError> {
        let disk = self.disk();
        let mut folders = BTreeSet::new();
        for Leaving { folder, name } in files {
            let folder = self.places.home.join(folder);
            if !folders.contains(&folder) {
                disk.create_folders(&folder)
                    .map_err(|e| StartError::io(&folder, e))?;
            }
            let mut to = folder.join(&name);
            let mut n = 1;
            while disk.exists(&to).map_err(|e| StartError::io(&to, e))? {
                n += 1;
                to = folder.join(format!("{name}.{n}"));
            }
            let from = self.places.wal.join(&name);
            disk.rename(&from, &to)
                .map_err(|e| StartError::io(&from, e))?;
            folders.insert(folder);
        }
        let wal = (!folders.is_empty()).then(|| self.places.wal.clone());
        for folder in folders.into_iter().chain(wal) {
            disk.sync_folder(&folder)
                .map_err(|e| StartError::io(&folder, e))?;
        }
        Ok(())
    }
}

/// A file that leaves `wal/`.
pub(super) struct Leaving {
    /// Name of the folder beside `wal/` that it goes to.
    folder: String,
    name: String,
}

impl Leaving {
    /// A segment of a history that does not go on.
    pub(super) fn aside(lineage: LineageId, name: &str) -> Leaving {
        Leaving {
            folder: format!("wal.lineage-{lineage}"),
            name: name.to_owned(),
        }
    }
}
