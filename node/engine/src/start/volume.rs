//! On which volumes a namespace may live. LMDB maps its file and locks it, the log trusts fsync: on
//! another machine's disk none of the three holds, and what is lost shows too late. Its folder,
//! `db/` and `wal/` are each asked for: any of them may be a mount or a link.

use std::io;
use std::path::{Path, PathBuf};

use unisondb_platform::{Disk, VolumeKind};

use super::{Note, StartError};

/// A folder that must be on a disk of this machine is not.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{} lies on {system}, a network file system: locks and memory maps do not hold there what the state and the log need, and would lose data. Nothing was touched. Way out: a --data-dir on a local disk; backups may stay on {system} (--backup-dir)",
    path.display()
)]
pub struct NetworkVolume {
    /// The folder.
    pub path: PathBuf,
    /// What kind: `NFS`, `SMB`.
    pub system: &'static str,
}

/// Refuses a network file system; of one that may be another machine's, a note.
pub(crate) fn check(disk: &dyn Disk, home: &Path) -> Result<Vec<Note>, StartError> {
    let mut notes: Vec<Note> = Vec::new();
    for path in [home.to_owned(), home.join("db"), home.join("wal")] {
        match disk.volume(&path) {
            Ok(VolumeKind::Local) => {}
            Ok(VolumeKind::Network(system)) => {
                return Err(NetworkVolume { path, system }.into());
            }
            Ok(VolumeKind::Doubtful(system)) => {
                if notes.iter().all(|note| note.value != system) {
                    notes.push(Note {
                        field: "volume",
                        value: system.to_owned(),
                        text: format!(
                            "{} lies on {system}, which may be a network file system: if it is, move the data directory to a local disk",
                            path.display()
                        ),
                        degraded: false,
                    });
                }
            }
            // What is not there yet is made in a folder that was asked for. What cannot be asked is
            // named by the first call that needs it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(StartError::io(&path, e)),
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use unisondb_platform::{DiskExt as _, memory};
    use unisondb_types::ClusterId;

    use super::*;
    use crate::start::{Folders, Request, inspect, open};

    #[test]
    fn a_network_file_system_under_home_db_or_wal_is_refused_and_nothing_is_touched() {
        for place in ["", "db", "wal"] {
            let (platform, disk, _) = memory::platform(1);
            let home = Path::new("/data/users");
            disk.create_folders(&home.join("db")).unwrap();
            disk.create_folders(&home.join("wal")).unwrap();
            let mount = match place {
                "" => home.to_owned(),
                folder => home.join(folder),
            };
            disk.set_volume(&mount, VolumeKind::Network("NFS"));
            let folders = Folders {
                namespace: Some("users".parse().unwrap()),
                home: home.to_owned(),
                backups: "/data/backups/users".into(),
            };
            let request = Request {
                create: Some(ClusterId::from_bytes([1; 16])),
                map_size: 16 << 20,
                ..Request::default()
            };
            let before = disk.ops();
            let error = open(&platform, &folders, &request).err().unwrap();
            let text = error.to_string();
            let wanted = format!("{} lies on NFS", mount.display());
            assert!(text.starts_with(&wanted), "{text}");
            assert!(text.contains("--backup-dir"), "{text}");
            assert!(inspect(&platform, &folders, &request).is_err());
            assert_eq!(disk.ops(), before, "{place}: something was changed");
        }
    }

    #[test]
    fn backups_may_lie_on_a_network_file_system_and_fuse_is_only_named() {
        let (platform, disk, _) = memory::platform(1);
        disk.create_folders(Path::new("/data/backups")).unwrap();
        disk.set_volume(Path::new("/data"), VolumeKind::Doubtful("FUSE"));
        disk.set_volume(Path::new("/data/backups"), VolumeKind::Network("NFS"));
        let folders = Folders {
            namespace: Some("users".parse().unwrap()),
            home: "/data/users".into(),
            backups: "/data/backups/users".into(),
        };
        disk.create_folders(&folders.home).unwrap();
        let request = Request {
            create: Some(ClusterId::from_bytes([1; 16])),
            map_size: 16 << 20,
            ..Request::default()
        };
        let opened = open(&platform, &folders, &request).unwrap();
        let volumes = opened.notes.iter().filter(|note| note.field == "volume");
        assert_eq!(volumes.count(), 1, "{:?}", opened.notes);
        opened.engine.shut_down().unwrap();
    }
}
