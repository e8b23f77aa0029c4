//! [`Damage`]: one thing that happens to a backup, drawn from a seed; and the disk in memory on which it
//! has happened.

use std::path::{Path, PathBuf};

use serde::Serialize;
use unisondb_platform::DiskExt as _;
use unisondb_platform::memory::{Effect, MemoryDisk, Native, OpKind, Random, Rule};
use unisondb_types::Namespace;

use super::folder::{Folder, Kept, ROOT};
use crate::restores::{plain, write_to};

/// The bytes by which a file is told: magic numbers, a segment's header, a tar's first block.
const HEAD_BYTES: u64 = 512;

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// No byte of it can be read (EIO).
    Unreadable,
    /// One sector of it cannot be read (EIO).
    BadSector { at: u64 },
    /// It ends early.
    Cut { to: u64 },
    /// It is gone.
    Missing,
    /// It and another segment lie under each other's name.
    Swapped,
    /// One bit is another one.
    Flipped { at: u64, bit: u8 },
}

/// One damage.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    pub kind: Kind,
    /// The file; both, when they were swapped.
    #[serde(serialize_with = "shortened")]
    pub files: Vec<PathBuf>,
}

impl Damage {
    /// What and where, in words.
    pub fn in_words(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|f| short(f)).collect();
        let names = names.join(" and ");
        match self.kind {
            Kind::Unreadable => format!("unreadable (EIO): {names}"),
            Kind::BadSector { at } => format!("bad sector at byte {at}: {names}"),
            Kind::Cut { to } => format!("cut to {to} bytes: {names}"),
            Kind::Missing => format!("missing: {names}"),
            Kind::Swapped => format!("swapped: {names}"),
            Kind::Flipped { at, bit } => format!("bit {bit} of byte {at} flipped: {names}"),
        }
    }
}

/// A path of the copy, as the operator knows it.
pub fn short(path: &Path) -> String {
    let below = path.strip_prefix(ROOT).unwrap_or(path);
    below.display().to_string()
}

fn shortened<S: serde::Serializer>(files: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(files.iter().map(|f| short(f)))
}

/// Folders that LMDB opens lie on the machine's own disk, where no rule makes a read fail.
fn is_native(path: &Path) -> bool {
    path.components().any(|c| {
        let name = c.as_os_str().to_string_lossy();
        name == "db" || name.starts_with("db.")
    })
}

/// The damage of a seed; each kind comes with every fifth one. `namespace` has files in `folder`.
pub fn draw(folder: &Folder, namespace: &Namespace, seed: u64) -> Damage {
    let mut r = Random::keyed(seed, b"check", 0);
    let files = folder.of(namespace);
    let pick = |r: &mut Random, from: &[&Kept]| {
        usize::try_from(r.below(from.len() as u64)).expect("an index")
    };
    let file = files[pick(&mut r, &files)];
    let len = (file.bytes.len() as u64).max(1);
    // The first bytes tell what a file is: half of the damage is there.
    let place = |r: &mut Random| match r.coin() {
        true => r.below(len.min(HEAD_BYTES)),
        false => r.below(len),
    };
    let flip = |r: &mut Random| Kind::Flipped {
        at: place(r),
        bit: u8::try_from(r.below(8)).expect("a bit"),
    };
    let kind = match seed % 5 {
        1 if is_native(&file.path) => Kind::Cut { to: place(&mut r) },
        1 if r.coin() => Kind::Unreadable,
        1 => Kind::BadSector { at: place(&mut r) },
        2 => Kind::Cut { to: place(&mut r) },
        3 => Kind::Missing,
        4 => {
            let segments = files.iter().copied();
            let mut segments: Vec<_> = segments
                .filter(|f| f.is_single && f.segments == 1)
                .collect();
            if segments.len() >= 2 {
                let one = segments.swap_remove(pick(&mut r, &segments));
                let other = segments[pick(&mut r, &segments)];
                return Damage {
                    kind: Kind::Swapped,
                    files: vec![one.path.clone(), other.path.clone()],
                };
            }
            flip(&mut r)
        }
        _ => flip(&mut r),
    };
    Damage {
        kind,
        files: vec![file.path.clone()],
    }
}

/// A disk with the files of `namespace`, and what belongs to nobody, damaged or not.
pub fn lay_out(folder: &Folder, namespace: &Namespace, damage: Option<&Damage>) -> MemoryDisk {
    let scratch = tempfile::tempdir().expect("the machine below has a temporary folder");
    let disk = MemoryDisk::new(Native::component("db", scratch));
    plain(&disk)
        .create_folders(Path::new(ROOT))
        .expect("a disk in memory has room");
    for file in &folder.files {
        if !file.namespaces.is_empty() && !file.namespaces.contains(namespace) {
            continue;
        }
        let hit = damage.filter(|d| d.files.contains(&file.path));
        match hit.map(|d| (d, d.kind)) {
            Some((_, Kind::Missing)) => {}
            Some((d, Kind::Swapped)) => {
                let other = d.files.iter().find(|p| **p != file.path);
                let name = other.unwrap_or(&file.path).display().to_string();
                write_to(plain(&disk), &name, &file.bytes);
            }
            Some((_, Kind::Cut { to })) => {
                let to = usize::try_from(to).expect("it is in memory");
                put(&disk, file, &file.bytes[..to.min(file.bytes.len())]);
            }
            Some((_, Kind::Flipped { at, bit })) => {
                let mut bytes = file.bytes.clone();
                let at = usize::try_from(at).expect("it is in memory");
                bytes[at] ^= 1 << bit;
                put(&disk, file, &bytes);
            }
            Some((_, Kind::Unreadable)) => {
                put(&disk, file, &file.bytes);
                disk.inject(Rule::always(OpKind::Read, &file.path, Effect::Eio));
            }
            Some((_, Kind::BadSector { at })) => {
                put(&disk, file, &file.bytes);
                disk.spoil(&file.path, at).expect("it was just written");
            }
            None => put(&disk, file, &file.bytes),
        }
    }
    disk
}

fn put(disk: &MemoryDisk, file: &Kept, bytes: &[u8]) {
    write_to(plain(disk), &file.path.display().to_string(), bytes);
}
