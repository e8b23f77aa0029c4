//! What happens to segments that somebody put into `wal/`: those that do not belong are moved aside,
//! never deleted; those that do are synced before they are counted on.

use unisondb_platform::{Access, DiskExt};
use unisondb_types::{LineageId, SegmentId};

use super::StartError;
use super::act::Ground;
use super::adopt::copy_file;
use super::decide::Plan;
use super::findings::Findings;

impl Ground<'_> {
    /// Moves segments that are not of this history out of `wal/`, by their lineages; the newest
    /// first, so that what is left after a kill is one log without a hole.
    pub(super) fn set_aside(&self, found: &Findings, plan: &Plan) -> Result<(), StartError> {
        for id in plan.damaged.iter().rev() {
            self.move_to("wal.damaged", &id.file_name())?;
        }
        for id in plan.aside.iter().rev() {
            let segment = &found.segments[id];
            self.move_aside(segment.info.header.lineage, &segment.file_name)?;
        }
        Ok(())
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

    pub(super) fn move_aside(&self, lineage: LineageId, name: &str) -> Result<(), StartError> {
        self.move_to(&format!("wal.lineage-{lineage}"), name)
    }

    /// Moves a file out of `wal/` into a folder beside it, whatever lies there already.
    fn move_to(&self, folder: &str, name: &str) -> Result<(), StartError> {
        let folder = self.places.home.join(folder);
        self.disk()
            .create_folders(&folder)
            .map_err(|e| StartError::io(&folder, e))?;
        let mut to = folder.join(name);
        let mut n = 1;
        while self
            .disk()
            .exists(&to)
            .map_err(|e| StartError::io(&to, e))?
        {
            n += 1;
            to = folder.join(format!("{name}.{n}"));
        }
        let from = self.places.wal.join(name);
        self.disk()
            .rename(&from, &to)
            .and_then(|()| self.disk().sync_folder(&folder))
            .and_then(|()| self.disk().sync_folder(&self.places.wal))
            .map_err(|e| StartError::io(&from, e))
    }
}
