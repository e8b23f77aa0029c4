//! [`State`]: all of a [`MemoryDisk`](super::MemoryDisk), and the steps that its calls are made of.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::content::Content;
use super::faults::{Faults, Gate, eio};
use super::tree::{Id, Inode, ROOT, Tree};
use super::{Effect, Native, OpKind, Operation, image};
use crate::real::RealDisk;
use crate::{Disk, EntryKind, VolumeKind};

/// All there is, behind one lock: an operation is one moment.
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) native: Native,
    /// The native folders at the moment of freezing.
    pub(super) frozen_native: Option<Native>,
    pub(super) faults: Faults,
    pub(super) gate: Gate,
    pub(super) locks: BTreeSet<Id>,
    /// Decides what a failed sync loses.
    pub(super) seed: u64,
    pub(super) room: Room,
    /// What other volumes are mounted where.
    pub(super) volumes: Vec<(PathBuf, VolumeKind)>,
}

/// The volume.
#[derive(Clone, Default)]
pub(super) struct Room {
    pub(super) capacity: Option<u64>,
    pub(super) others: u64,
    pub(super) used: u64,
}

impl Room {
    pub(super) fn left(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |all| {
            all.saturating_sub(self.others).saturating_sub(self.used)
        })
    }
}

/// Where a path leads.
pub(super) enum Place {
    Root,
    Name(Id, OsString),
    /// On the machine's own file system.
    Native(PathBuf),
}

impl State {
    pub(super) fn freeze(&mut self) {
        if !self.gate.frozen {
            self.gate.frozen = true;
            self.frozen_native = Some(self.native.copy());
        }
    }

    /// Stands before every operation: stops it when frozen, counts it, finds what goes wrong.
    pub(super) fn begin(&mut self, operation: Operation) -> io::Result<Option<Effect>> {
        self.begin_native(&operation)?;
        Ok(self.faults.decide(&operation))
    }

    /// The same for native folders, which know no faults.
    pub(super) fn begin_native(&mut self, operation: &Operation) -> io::Result<()> {
        if self.gate.stops(operation.kind) {
            self.freeze();
            return Err(eio());
        }
        self.gate.count(operation);
        Ok(())
    }

    pub(super) fn operation(&self, kind: OpKind, path: &Path) -> Operation {
        Operation {
            number: self.gate.ops,
            kind,
            path: path.to_owned(),
            to: None,
            offset: 0,
            len: 0,
        }
    }

    /// [`begin`](Self::begin) for an operation that an effect either fails or leaves alone.
    pub(super) fn start(&mut self, kind: OpKind, path: &Path) -> io::Result<Place> {
        let place = self.place(path);
        let operation = self.operation(kind, path);
        if let Ok(Place::Native(_)) = place {
            self.begin_native(&operation)?;
        } else {
            fail(self.begin(operation)?)?;
        }
        place
    }

    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let parts = parts(path)?;
        let Some((last, above)) = parts.split_last() else {
            return Ok(Place::Root);
        };
        let mut folder = ROOT;
        for (n, part) in above.iter().enumerate() {
            if self.native.has(part) {
                let place = self.native.place(folder)?;
                return Ok(Place::Native(
                    parts[n..].iter().fold(place, |at, part| at.join(part)),
                ));
            }
            folder = self.tree.look_up(folder, part)?;
        }
        // A file on the way is told from a name that is not there.
        self.tree.folder(folder)?;
        if self.native.has(last) {
            return Ok(Place::Native(self.native.place(folder)?.join(last)));
        }
        Ok(Place::Name(folder, last.clone()))
    }

    pub(super) fn file_at(&self, path: &Path) -> io::Result<Id> {
        let Place::Name(folder, name) = self.place(path)? else {
            return Err(ErrorKind::Unsupported.into());
        };
        let id = self.tree.look_up(folder, &name)?;
        self.tree.file(id)?;
        Ok(id)
    }

    pub(super) fn found(&self, place: &Place) -> io::Result<Id> {
        match place {
            Place::Root => Ok(ROOT),
            Place::Name(folder, name) => self.tree.look_up(*folder, name),
            Place::Native(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    pub(super) fn create_file(&mut self, folder: Id, name: &OsStr) -> io::Result<Id> {
        if self.room.left() < image::PAGE && self.tree.look_up(folder, name).is_err() {
            return Err(ErrorKind::StorageFull.into());
        }
        self.tree
            .create(folder, name, |label| Inode::File(Content::new(label)))
    }

    /// A folder's name may go only when nothing is in it, native things included.
    pub(super) fn is_empty_folder(&self, id: Id) -> io::Result<bool> {
        Ok(self.tree.folder(id)?.names.is_empty() && self.native.list(id)?.is_empty())
    }

    /// A file has lost its name; its room is free once nobody has it open.
    pub(super) fn unlinked(&mut self, id: Id) {
        let content = self.tree.file_mut(id).expect("only files are unlinked");
        content.linked = false;
        if content.open == 0 {
            self.room.used -= content.current.allocated();
        }
        self.tree.tidy();
    }

    /// Between an in-memory folder and a native one a file is copied and then removed.
    pub(super) fn rename_across(&mut self, from: Place, to: Place) -> io::Result<()> {
        match (from, to) {
            (Place::Native(from), Place::Native(to)) => RealDisk.rename(&from, &to),
            (Place::Name(folder, name), Place::Native(to)) => {
                let id = self.tree.look_up(folder, &name)?;
                let Ok(content) = self.tree.file(id) else {
                    return Err(ErrorKind::CrossesDevices.into());
                };
                std::fs::write(to, content.current.to_vec())?;
                self.tree.remove(folder, &name);
                self.unlinked(id);
                Ok(())
            }
            (Place::Native(from), Place::Name(folder, name)) => {
                if from.is_dir() {
                    return Err(ErrorKind::CrossesDevices.into());
                }
                let bytes = std::fs::read(&from)?;
                if let Ok(replaced) = self.tree.look_up(folder, &name) {
                    self.tree.file(replaced)?;
                    self.tree.remove(folder, &name);
                    self.unlinked(replaced);
                }
                let make = |label| Inode::File(Content::stored(label, &bytes));
                let id = self.tree.create(folder, &name, make)?;
                self.room.used += self.tree.file(id)?.current.allocated();
                std::fs::remove_file(from)
            }
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }
}

/// The error of an effect, for calls that know no other effects.
pub(super) fn fail(effect: Option<Effect>) -> io::Result<()> {
    effect.and_then(Effect::error).map_or(Ok(()), Err)
}

/// The names on the way from `/`.
pub(super) fn parts(path: &Path) -> io::Result<Vec<OsString>> {
    if !path.is_absolute() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_owned()),
            // There are no links here, so the folder above is the one named before.
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(parts)
}

impl Inode {
    pub(super) fn kind(&self) -> EntryKind {
        match self {
            Inode::File(_) => EntryKind::File,
            Inode::Folder(_) => EntryKind::Folder,
        }
    }
}
