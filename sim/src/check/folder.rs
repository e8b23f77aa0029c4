//! [`Folder`]: backups read into memory, told by their bytes as `udbctl restore` tells them. What lies
//! beside them and is none is left where it is; only that a checksum is there counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use unisondb_engine::restore::sources::{Catalog, Want};
use unisondb_platform::{Disk, DiskExt as _};
use unisondb_types::Namespace;

/// Where the copy lies on the disk in memory.
pub const ROOT: &str = "/backup";
/// Files beside backups that mean something by their names: checksums, the mark of a live state.
const BESIDE: [&str; 2] = [".sha256", "owner"];
/// Longest of those that is kept with what is in it.
const BESIDE_BYTES: usize = 4 << 10;

/// A file of the folder.
pub struct Kept {
    /// On the disk in memory.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// Whose backups are in it; none: it lies beside them, or is damaged already.
    pub namespaces: BTreeSet<Namespace>,
    /// How many segments are in it.
    pub segments: usize,
    /// It is one segment or snapshot, not an archive of them.
    pub is_single: bool,
}

/// What a folder holds.
pub struct Folder {
    pub files: Vec<Kept>,
}

impl Folder {
    /// Reads what lies at and below `dir`, at most `max_bytes` of it.
    ///
    /// # Errors
    /// In words, when there is no such folder, nothing of ours in it, or too much.
    pub fn read(disk: &dyn Disk, dir: &Path, max_bytes: u64) -> anyhow::Result<Folder> {
        let is_folder = disk.meta(dir).map(|m| m.kind);
        match is_folder {
            Ok(unisondb_platform::EntryKind::Folder) => {}
            Ok(_) => bail!("{} is no folder", dir.display()),
            Err(e) => bail!("no such folder: {}: {e}", dir.display()),
        }
        let roots = [(dir.to_owned(), Want::Everything)];
        let catalog = Catalog::of(disk, &roots, &|_| ())?;
        ensure!(
            !catalog.segments.is_empty() || !catalog.snapshots.is_empty(),
            "{} holds no backup: neither a segment nor a snapshot was found below it{}",
            dir.display(),
            match catalog.unusable.first() {
                Some(bad) => format!(" ({}: {})", bad.place, bad.why),
                None => String::new(),
            }
        );
        let segments = catalog.segments.iter();
        let segments = segments.map(|s| (&s.place, &s.header.namespace, 1));
        let snapshots = catalog.snapshots.iter();
        let snapshots = snapshots.map(|s| (&s.place, &s.what.namespace, 0));
        let found: Vec<_> = segments.chain(snapshots).collect();
        let paths = unisondb_engine::restore::walk::files(disk, dir)
            .map_err(|(path, e)| anyhow::anyhow!("{}: {e}", path.display()))?;
        let mut left = max_bytes;
        let mut files = Vec::new();
        for path in paths {
            let holds: Vec<_> = found.iter().filter(|f| f.0.file == path).collect();
            let is_damaged = catalog.unusable.iter().any(|bad| {
                let rest = bad.place.strip_prefix(&*path.to_string_lossy());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
            });
            let is_beside = BESIDE.iter().any(|e| path.to_string_lossy().ends_with(e));
            if holds.is_empty() && !is_damaged && !is_beside {
                continue;
            }
            let len = disk
                .meta(&path)
                .with_context(|| path.display().to_string())?;
            ensure!(
                len.len <= left,
                "{} holds more than {max_bytes} bytes of backups, which are all copied into memory; --max-bytes allows more",
                dir.display()
            );
            // A file that cannot be read is as good as a damaged one: empty.
            let mut bytes = match disk.read(&path, left) {
                Err(_) if is_damaged => Vec::new(),
                read => read.with_context(|| path.display().to_string())?,
            };
            if holds.is_empty() && !is_damaged {
                bytes.truncate(BESIDE_BYTES);
            }
            left -= (bytes.len() as u64).min(left);
            let below = path.strip_prefix(dir).unwrap_or(&path);
            files.push(Kept {
                path: Path::new(ROOT).join(below),
                bytes,
                namespaces: holds.iter().map(|f| f.1.clone()).collect(),
                segments: holds.iter().map(|f| f.2).sum(),
                is_single: holds.iter().all(|f| f.0.member.is_none()),
            });
        }
        Ok(Folder { files })
    }

    /// Whose backups are here.
    pub fn namespaces(&self) -> BTreeSet<Namespace> {
        let all = self.files.iter().flat_map(|f| f.namespaces.iter());
        all.cloned().collect()
    }

    /// The files of one namespace.
    pub fn of(&self, namespace: &Namespace) -> Vec<&Kept> {
        let files = self.files.iter();
        files.filter(|f| f.namespaces.contains(namespace)).collect()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|f| f.bytes.len()).sum()
    }
}
