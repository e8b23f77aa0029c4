//! The data directory: one process at a time, who this node is, which namespaces lie in it.
//!
//! ```text
//! DATA/LOCK              held while a process uses the directory; a leftover one means nothing
//! DATA/node.toml         cluster id, name, ids of deleted namespaces (TOML, published whole)
//! DATA/ballast.reserved  room kept for a full disk
//! DATA/NAME/{db,wal}     a namespace            or, flat:  DATA/{db,wal}  the only one
//! DATA/backups/NAME      its backups            (never a namespace, nor trash/ and names with a dot)
//! DATA/trash/NAME.TIME   a namespace that was deleted
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use unisondb_engine::start::NetworkVolume;
use unisondb_platform::{DiskExt as _, EntryKind, Lock, Platform, VolumeKind, is_denied};
use unisondb_types::{ClusterId, LineageId, Namespace, SegmentId};

/// The file that says who this node is; a name with a dot in it is no namespace's.
const NODE: &str = "node.toml";
/// The `node.toml` file is a few hundred bytes; one longer than this is not ours.
const NODE_BYTES: u64 = 1 << 20;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Not ours to read or write.
    #[error("permission denied: {}", .0.display())]
    Permission(PathBuf),
    /// Another process uses it.
    #[error("the data directory {} is in use by another process (it holds LOCK); stop it, or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    /// A network file system.
    #[error(transparent)]
    Network(NetworkVolume),
    /// Both layouts at once.
    #[error(
        "{} holds db/ or wal/ directly and also the namespace {namespace}: which one is meant cannot be told; move one of them away",
        path.display()
    )]
    BothLayouts {
        /// The data directory.
        path: PathBuf,
        /// A namespace with a folder of its own.
        namespace: Namespace,
    },
    /// A restore that replaces a namespace was killed between its two renames.
    #[error("{} says that `udbctl restore` was interrupted while it replaced namespace {namespace}, which now lies in trash/: run the same `udbctl restore --force` again (it takes the namespace back first), or move it back by hand and remove this file", path.display())]
    HalfRestored {
        /// The file that says so.
        path: PathBuf,
        /// The namespace.
        namespace: Namespace,
    },
    /// The `node.toml` file is not what this program writes.
    #[error("{} is damaged: {why}; put it back from a copy, or remove it to make this a new node", path.display())]
    Node {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Anything else of the disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirectoryError {
    /// Whether there was no room for it.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, DirectoryError::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// A data directory that this process holds.
pub struct Directory {
    platform: Platform,
    path: PathBuf,
    node: Mutex<NodeFile>,
    _lock: Box<dyn Lock>,
}

/// What lies in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// `db/` and `wal/` lie in it directly: one namespace, named inside the snapshot.
    Flat,
    /// A folder a namespace.
    Folders(Vec<Namespace>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct NodeFile {
    format: u32,
    cluster: ClusterId,
    name: String,
    /// Lineages begun by a restore that have since been started with `--cluster` or `--config`:
    /// they are no longer isolated (D21).
    #[serde(default)]
    released: BTreeSet<LineageId>,
    /// Namespaces whose state was copied here and goes on in the lineage that it was made in: the
    /// lineage does not tell, so their names do, until a start with `--cluster` or `--config` (A5).
    #[serde(default)]
    adopted: BTreeSet<String>,
    /// Highest segment id of each deleted namespace: one made again goes on above (P12).
    #[serde(default)]
    retired: BTreeMap<String, u64>,
}

const FORMAT: u32 = 1;

impl Directory {
    /// Makes the directory if it is not there, locks it, and reads or makes its `node` file.
    /// `path` is absolute.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn open(
        platform: &Platform,
        path: &Path,
        name: Option<&str>,
    ) -> Result<Directory, DirectoryError> {
        let disk = &platform.disk;
        local(platform, path)?;
        disk.create_folders(path).map_err(|e| io_error(path, e))?;
        let lock_path = path.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => DirectoryError::InUse(path.to_owned()),
            // Whoever may not write here may not run a node here: the folder is what to change.
            io::ErrorKind::ReadOnlyFilesystem => DirectoryError::Permission(path.to_owned()),
            io::ErrorKind::PermissionDenied if !matches!(disk.exists(&lock_path), Ok(true)) => {
                DirectoryError::Permission(path.to_owned())
            }
            _ => io_error(&lock_path, e),
        })?;
        let node_path = path.join(NODE);
        let known = match disk.read(&node_path, NODE_BYTES) {
            Ok(bytes) => Some(parse_node(&node_path, &bytes)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(io_error(&node_path, e)),
        };
        let mut node = known.clone().unwrap_or_else(|| NodeFile {
            format: FORMAT,
            cluster: ClusterId::from_bytes(platform.entropy.id()),
            name: String::new(),
            released: BTreeSet::new(),
            adopted: BTreeSet::new(),
            retired: BTreeMap::new(),
        });
        match name {
            Some(name) => node.name = name.to_owned(),
            None if node.name.is_empty() => node.name = default_name(&node.cluster),
            None => {}
        }
        let changed = known.is_none_or(|known| known.name != node.name);
        let directory = Directory {
            platform: platform.clone(),
            path: path.to_owned(),
            node: Mutex::new(node.clone()),
            _lock: lock,
        };
        if changed {
            directory.publish(&node)?;
        }
        Ok(directory)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster that namespaces made here belong to.
    pub fn cluster(&self) -> ClusterId {
        self.node.lock().cluster
    }

    /// Belongs to this cluster from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn join(&self, cluster: ClusterId) -> Result<(), DirectoryError> {
        self.change(|node| node.cluster = cluster)
    }

    /// Whether what makes this node one of a cluster lies here.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn is_of_cluster(&self) -> Result<bool, DirectoryError> {
        let wal = self.home(&Namespace::cluster()).join("wal");
        let found = self.platform.disk.exists(&wal);
        found.map_err(|e| io_error(&wal, e))
    }

    /// The node's name.
    pub fn name(&self) -> String {
        self.node.lock().name.clone()
    }

    /// Whether cluster settings may act on a namespace whose lineage a restore began.
    pub fn is_released(&self, lineage: LineageId) -> bool {
        self.node.lock().released.contains(&lineage)
    }

    /// Whether a namespace was restored here without a lineage of its own.
    pub fn is_adopted(&self, namespace: &Namespace) -> bool {
        self.node.lock().adopted.contains(namespace.as_str())
    }

    /// Records that a namespace is restored here without a lineage of its own.
    ///
    /// # Errors
    /// The file cannot be written: the namespace must not be opened.
    pub fn adopt(&self, namespace: &Namespace) -> Result<(), DirectoryError> {
        if self.is_adopted(namespace) {
            return Ok(());
        }
        self.change(|node| {
            node.adopted.insert(namespace.to_string());
        })
    }

    /// Records that cluster settings may act on a restored namespace.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn release(&self, namespace: &Namespace, lineage: LineageId) -> Result<(), DirectoryError> {
        self.change(|node| {
            node.released.insert(lineage);
            node.adopted.remove(namespace.as_str());
        })
    }

    /// The highest segment id of a namespace of that name that was deleted here.
    pub fn retired(&self, namespace: &Namespace) -> Option<SegmentId> {
        let node = self.node.lock();
        node.retired
            .get(namespace.as_str())
            .map(|id| SegmentId::new(*id))
    }

    /// Records the highest segment id of a namespace that is about to be deleted.
    ///
    /// # Errors
    /// The file cannot be written: the namespace must not be deleted.
    pub fn retire(&self, namespace: &Namespace, highest: SegmentId) -> Result<(), DirectoryError> {
        self.change(|node| {
            let known = node.retired.entry(namespace.to_string()).or_default();
            *known = highest.get().max(*known);
            node.adopted.remove(namespace.as_str());
        })
    }

    /// The folder of a namespace.
    pub fn home(&self, namespace: &Namespace) -> PathBuf {
        self.path.join(namespace.as_str())
    }

    /// What lies here.
    ///
    /// # Errors
    /// Both layouts at once; a namespace that a restore has taken away and not brought back; a
    /// folder that cannot be listed.
    pub fn layout(&self) -> Result<Layout, DirectoryError> {
        let disk = &self.platform.disk;
        let list = |folder: &Path| disk.list(folder).map_err(|e| io_error(folder, e));
        let holds_data = |folder: &Path| {
            let entries = list(folder)?;
            Ok(entries.iter().any(|e| e.name == "db" || e.name == "wal"))
        };
        let mut namespaces = Vec::new();
        let mut replaced = Vec::new();
        for entry in list(&self.path)? {
            let Ok(namespace) = entry.name.parse::<Namespace>() else {
                let swap = entry.name.strip_suffix(".restore");
                replaced.extend(swap.and_then(|name| name.parse::<Namespace>().ok()));
                continue;
            };
            let folder = self.path.join(&entry.name);
            let is_folder = match entry.kind {
                EntryKind::Folder => true,
                EntryKind::File => false,
                // A namespace may lie on another volume behind a link.
                EntryKind::Other => matches!(
                    disk.meta(&folder), Ok(meta) if meta.kind == EntryKind::Folder
                ),
            };
            if is_folder && holds_data(&folder)? {
                namespaces.push(namespace);
            }
        }
        if let Some(namespace) = replaced.into_iter().find(|n| !namespaces.contains(n)) {
            let path = self.path.join(format!("{namespace}.restore"));
            return Err(DirectoryError::HalfRestored { path, namespace });
        }
        if self.is_flat()? {
            return match namespaces.into_iter().next() {
                None => Ok(Layout::Flat),
                Some(namespace) => Err(DirectoryError::BothLayouts {
                    path: self.path.clone(),
                    namespace,
                }),
            };
        }
        Ok(Layout::Folders(namespaces))
    }

    /// Flat is a directory with a state or a log in it; empty `db/` and `wal/` are neither.
    fn is_flat(&self) -> Result<bool, DirectoryError> {
        let disk = &self.platform.disk;
        let names = |folder: &str| {
            let folder = self.path.join(folder);
            match disk.list(&folder) {
                Ok(entries) => Ok(entries),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    Ok(Vec::new())
                }
                Err(e) => Err(io_error(&folder, e)),
            }
        };
        let state = names("db")?.iter().any(|e| e.name == "data.mdb");
        Ok(state
            || names("wal")?
                .iter()
                .any(|e| SegmentId::parse_file_name(&e.name).is_some()))
    }

    fn change(&self, change: impl FnOnce(&mut NodeFile)) -> Result<(), DirectoryError> {
        let mut node = self.node.lock();
        let mut next = node.clone();
        change(&mut next);
        self.publish(&next)?;
        *node = next;
        Ok(())
    }

    fn publish(&self, node: &NodeFile) -> Result<(), DirectoryError> {
        let path = self.path.join(NODE);
        let text = toml::to_string(node).expect("a few texts and numbers are TOML");
        let disk = &self.platform.disk;
        disk.publish(&path, text.as_bytes())
            .map_err(|e| io_error(&path, e))
    }
}

/// Refuses a network file system before anything is made on it: where the directory is not there
/// yet, by the nearest folder above it. Its namespaces' own mounts are looked at by their starts.
fn local(platform: &Platform, path: &Path) -> Result<(), DirectoryError> {
    for folder in path.ancestors() {
        match platform.disk.volume(folder) {
            Ok(VolumeKind::Network(system)) => {
                let path = path.to_owned();
                return Err(DirectoryError::Network(NetworkVolume { path, system }));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // What else is wrong with it is told by the call that makes or locks it.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn parse_node(path: &Path, bytes: &[u8]) -> Result<NodeFile, DirectoryError> {
    let damaged = |why: String| DirectoryError::Node {
        path: path.to_owned(),
        why,
    };
    let text = std::str::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
    let node: NodeFile = toml::from_str(text).map_err(|e| damaged(e.message().to_owned()))?;
    if node.format != FORMAT {
        return Err(damaged(format!(
            "format {} is not known to this release",
            node.format
        )));
    }
    Ok(node)
}

/// The host's name; without one, a name drawn from the id.
fn default_name(cluster: &ClusterId) -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_str().unwrap_or_default();
    let fits = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        host.to_owned()
    } else {
        format!("node-{}", &cluster.to_string()[..8])
    }
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> DirectoryError {
    let path = path.to_owned();
    match is_denied(&source) {
        true => DirectoryError::Permission(path),
        false => DirectoryError::Io { path, source },
    }
}

#[cfg(test)]
mod tests;
