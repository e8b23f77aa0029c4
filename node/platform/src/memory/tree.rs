//! [`Tree`]: names and what they stand for, as seen now and as the medium holds it.
//!
//! A name operation (make, rename, exchange, remove) is pending until one of its folders is synced. Then it
//! is durable, with everything before it in its folders: a rename or an exchange between two folders is one
//! operation, there wholly or not at all. At a crash each folder keeps a random beginning of what
//! was pending, which is what a journal leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Random;
use super::content::{Content, Luck};

/// A file or folder, whatever its name. Never used twice.
pub(super) type Id = u64;

/// The folder `/`.
pub(super) const ROOT: Id = 0;

#[derive(Clone)]
pub(super) struct Tree {
    inodes: BTreeMap<Id, Inode>,
    next: Id,
    pending: Vec<NameOp>,
    /// How many there may be before it is worth looking for garbage.
    crowded: usize,
}

#[derive(Clone)]
pub(super) enum Inode {
    File(Content),
    Folder(Folder),
}

#[derive(Clone, Default)]
pub(super) struct Folder {
    label: PathBuf,
    pub(super) names: BTreeMap<OsString, Id>,
    durable: BTreeMap<OsString, Id>,
}

impl Folder {
    pub(super) fn new(label: PathBuf) -> Folder {
        Folder {
            label,
            ..Folder::default()
        }
    }
}

/// One operation on names: all of it or nothing.
#[derive(Clone)]
struct NameOp(Vec<Change>);

#[derive(Clone)]
struct Change {
    folder: Id,
    name: OsString,
    to: Option<Id>,
}

impl NameOp {
    fn touches(&self, folders: &BTreeSet<Id>) -> bool {
        self.0.iter().any(|change| folders.contains(&change.folder))
    }
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree {
            inodes: BTreeMap::from([(ROOT, Inode::Folder(Folder::new("/".into())))]),
            next: ROOT + 1,
            pending: Vec::new(),
            crowded: 64,
        }
    }

    pub(super) fn inode(&self, id: Id) -> &Inode {
        self.inodes
            .get(&id)
            .expect("what a name or handle leads to is kept")
    }

    pub(super) fn has(&self, id: Id) -> bool {
        self.inodes.contains_key(&id)
    }

    pub(super) fn folder(&self, id: Id) -> io::Result<&Folder> {
        match self.inode(id) {
            Inode::Folder(folder) => Ok(folder),
            Inode::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&self, id: Id) -> io::Result<&Content> {
        match self.inode(id) {
            Inode::File(content) => Ok(content),
            Inode::Folder(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file_mut(&mut self, id: Id) -> io::Result<&mut Content> {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(content)) => Ok(content),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// What `name` in `folder` stands for now.
    pub(super) fn look_up(&self, folder: Id, name: &OsStr) -> io::Result<Id> {
        let found = self.folder(folder)?.names.get(name);
        found.copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// What `parts` below the root stand for on the medium.
    pub(super) fn durable(&self, parts: &[OsString]) -> Option<&Inode> {
        let mut at = ROOT;
        for part in parts {
            at = *self.folder(at).ok()?.durable.get(part)?;
        }
        Some(self.inode(at))
    }

    /// Gives something new a name.
    pub(super) fn create(
        &mut self,
        folder: Id,
        name: &OsStr,
        make: impl FnOnce(PathBuf) -> Inode,
    ) -> io::Result<Id> {
        let parent = self.folder(folder)?;
        if parent.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let label = parent.label.join(name);
        let id = self.next;
        self.next += 1;
        self.inodes.insert(id, make(label));
        self.change(vec![Change {
            folder,
            name: name.to_owned(),
            to: Some(id),
        }]);
        Ok(id)
    }

    /// Takes a name away.
    pub(super) fn remove(&mut self, folder: Id, name: &OsStr) {
        self.change(vec![Change {
            folder,
            name: name.to_owned(),
            to: None,
        }]);
    }

    /// Renames; gives back the file that had the new name before.
    pub(super) fn rename(
        &mut self,
        (from, old): (Id, &OsStr),
        (to, new): (Id, &OsStr),
    ) -> io::Result<Option<Id>> {
        let id = self.look_up(from, old)?;
        let replaced = self.folder(to)?.names.get(new).copied();
        if replaced == Some(id) {
            return Ok(None);
        }
        let is_folder = matches!(self.inode(id), Inode::Folder(_));
        match replaced.map(|id| self.inode(id)) {
            None => {}
            Some(Inode::File(_)) if is_folder => return Err(ErrorKind::NotADirectory.into()),
            Some(Inode::Folder(_)) if !is_folder => return Err(ErrorKind::IsADirectory.into()),
            Some(Inode::Folder(there)) if !there.names.is_empty() => {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            Some(_) => {}
        }
        if is_folder && self.lies_below(to, id) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let away = Change {
            folder: from,
            name: old.to_owned(),
            to: None,
        };
        let here = Change {
            folder: to,
            name: new.to_owned(),
            to: Some(id),
        };
        self.change(vec![away, here]);
        Ok(replaced.filter(|_| !is_folder))
    }

    /// Exchanges two names: one operation, so a crash leaves both or neither.
    pub(super) fn exchange(
        &mut self,
        (one, name): (Id, &OsStr),
        (other, there): (Id, &OsStr),
    ) -> io::Result<()> {
        let (id, other_id) = (self.look_up(one, name)?, self.look_up(other, there)?);
        if id == other_id {
            return Ok(());
        }
        if self.lies_below(other, id) || self.lies_below(one, other_id) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let change = |folder, name: &OsStr, to| Change {
            folder,
            name: name.to_owned(),
            to: Some(to),
        };
        self.change(vec![change(one, name, other_id), change(other, there, id)]);
        Ok(())
    }

    /// Whether `folder` is `above` or somewhere in it.
    fn lies_below(&self, folder: Id, above: Id) -> bool {
        if folder == above {
            return true;
        }
        let Inode::Folder(above) = self.inode(above) else {
            return false;
        };
        above
            .names
            .values()
            .any(|child| self.lies_below(folder, *child))
    }

    fn change(&mut self, changes: Vec<Change>) {
        for change in &changes {
            self.apply(change, |folder| &mut folder.names);
        }
        self.pending.push(NameOp(changes));
    }

    fn apply(
        &mut self,
        change: &Change,
        names: impl FnOnce(&mut Folder) -> &mut BTreeMap<OsString, Id>,
    ) {
        let Some(Inode::Folder(folder)) = self.inodes.get_mut(&change.folder) else {
            unreachable!("names are in folders, and folders with pending names are kept");
        };
        match change.to {
            Some(id) => names(folder).insert(change.name.clone(), id),
            None => names(folder).remove(&change.name),
        };
    }

    fn reach(&mut self, op: &NameOp) {
        for change in &op.0 {
            self.apply(change, |folder| &mut folder.durable);
        }
    }

    /// Makes the names of a folder durable.
    pub(super) fn sync_folder(&mut self, folder: Id) {
        for op in self.take_pending(folder) {
            self.reach(&op);
        }
    }

    /// A folder sync that fails: of the pending names a beginning is durable, the rest never will be.
    pub(super) fn fail_sync_folder(&mut self, folder: Id, seed: u64) {
        let ops = self.take_pending(folder);
        let mut random = self.random(folder, seed);
        // One is lost at least, or it would not have failed.
        let kept = usize::try_from(random.below(ops.len() as u64)).expect("an index of a list");
        for op in &ops[..kept] {
            self.reach(op);
        }
    }

    /// Takes the pending operations of a folder, with all that went before them in the folders that
    /// these touch.
    fn take_pending(&mut self, folder: Id) -> Vec<NameOp> {
        let mut folders = BTreeSet::from([folder]);
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for op in std::mem::take(&mut self.pending).into_iter().rev() {
            if op.touches(&folders) {
                folders.extend(op.0.iter().map(|change| change.folder));
                taken.push(op);
            } else {
                left.push(op);
            }
        }
        left.reverse();
        taken.reverse();
        self.pending = left;
        taken
    }

    fn random(&self, folder: Id, seed: u64) -> Random {
        let label = match self.inode(folder) {
            Inode::Folder(folder) => folder.label.as_os_str().as_bytes(),
            Inode::File(_) => b"",
        };
        Random::keyed(seed, label, 0)
    }

    /// What a power loss leaves: of names, and of what they stand for.
    pub(super) fn lose_power(&mut self, seed: u64) {
        let luck = Luck::draw(seed);
        let mut waiting: BTreeMap<Id, u64> = BTreeMap::new();
        for change in self.pending.iter().flat_map(|op| &op.0) {
            *waiting.entry(change.folder).or_default() += 1;
        }
        for (folder, left) in &mut waiting {
            *left = match luck {
                Luck::Nothing => 0,
                Luck::Everything => *left,
                Luck::Mixed => self.random(*folder, seed).below(*left + 1),
            };
        }
        for op in std::mem::take(&mut self.pending) {
            let mut need: BTreeMap<Id, u64> = BTreeMap::new();
            for change in &op.0 {
                *need.entry(change.folder).or_default() += 1;
            }
            if need.iter().all(|(folder, n)| waiting[folder] >= *n) {
                need.iter()
                    .for_each(|(folder, n)| *waiting.entry(*folder).or_default() -= n);
                self.reach(&op);
            } else {
                // What is lost in one folder cuts off the other's later names too.
                need.keys()
                    .for_each(|folder| *waiting.entry(*folder).or_default() = 0);
            }
        }
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::File(content) => content.lose_power(seed, luck),
                Inode::Folder(folder) => folder.names = folder.durable.clone(),
            }
        }
        self.forget_handles();
    }

    /// What is left when all processes are gone: no handle, so no file without a name.
    pub(super) fn forget_handles(&mut self) {
        let folders = self.inodes.values().filter_map(|inode| match inode {
            Inode::Folder(folder) => Some(folder),
            Inode::File(_) => None,
        });
        let named: BTreeSet<Id> = folders.flat_map(|f| f.names.values().copied()).collect();
        for (id, inode) in &mut self.inodes {
            if let Inode::File(content) = inode {
                content.open = 0;
                content.linked = named.contains(id);
            }
        }
        self.collect();
    }

    /// Bytes taken on the volume, by what a name or a handle holds.
    pub(super) fn allocated(&self) -> u64 {
        let bytes = |inode: &Inode| match inode {
            Inode::File(f) if f.linked || f.open > 0 => f.current.allocated(),
            _ => 0,
        };
        self.inodes.values().map(bytes).sum()
    }

    /// Takes a file off the medium as if it had never been, names, pending and all.
    pub(super) fn vanish(&mut self, id: Id) {
        for change in self.pending.iter_mut().flat_map(|op| &mut op.0) {
            change.to = change.to.filter(|to| *to != id);
        }
        for inode in self.inodes.values_mut() {
            if let Inode::Folder(folder) = inode {
                folder.names.retain(|_, there| *there != id);
                folder.durable.retain(|_, there| *there != id);
            }
        }
    }

    /// Collects garbage when there may be much.
    pub(super) fn tidy(&mut self) {
        if self.inodes.len() > self.crowded {
            self.collect();
            self.crowded = 64 + 2 * self.inodes.len();
        }
    }

    /// Drops what neither a name (seen, durable or pending) nor a handle leads to.
    fn collect(&mut self) {
        let mut kept = BTreeSet::new();
        let pending = self.pending.iter().flat_map(|op| &op.0);
        let mut found: Vec<Id> = pending
            .flat_map(|c| [Some(c.folder), c.to])
            .flatten()
            .collect();
        found.push(ROOT);
        found.extend(self.inodes.iter().filter_map(|(id, inode)| match inode {
            Inode::File(content) if content.open > 0 => Some(*id),
            _ => None,
        }));
        while let Some(id) = found.pop() {
            if kept.insert(id)
                && let Inode::Folder(folder) = self.inode(id)
            {
                found.extend(folder.names.values().chain(folder.durable.values()));
            }
        }
        self.inodes.retain(|id, _| kept.contains(id));
    }
}
