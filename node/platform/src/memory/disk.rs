//! [`MemoryDisk`]: the disk itself, and how a test tells it what to do.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::Content;
use super::faults::{Faults, Gate};
use super::file::{Handle, MemoryFile, MemoryLock, NativeFile};
use super::state::{Place, Room, State, fail, parts};
use super::tree::{Folder, Id, Inode, Tree};
use super::{Native, OpKind, Operation, Policy, Rule, image};
use crate::real::RealDisk;
use crate::{Access, Disk, File, FolderEntry, Lock, Meta, Space, VolumeKind, is_exhausted};

/// What an in-memory disk without a capacity says it has.
const BOUNDLESS: u64 = 1 << 40;

/// A disk in memory. Clones are handles to the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    pub(super) state: Arc<Mutex<State>>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        MemoryDisk::new(Native::none())
    }
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ops = self.ops();
        f.debug_struct("MemoryDisk")
            .field("ops", &ops)
            .finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// An empty disk: only `/` is there.
    #[must_use]
    pub fn new(native: Native) -> MemoryDisk {
        MemoryDisk::of(State {
            tree: Tree::new(),
            native,
            frozen_native: None,
            faults: Faults::default(),
            gate: Gate::default(),
            locks: BTreeSet::new(),
            seed: 0,
            room: Room::default(),
            volumes: Vec::new(),
        })
    }

    pub(super) fn of(state: State) -> MemoryDisk {
        MemoryDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Seeds what a failed sync loses.
    pub fn set_seed(&self, seed: u64) {
        self.state.lock().seed = seed;
    }

    /// Adds a rule; the first that fits an operation decides about it.
    pub fn inject(&self, rule: Rule) {
        self.state.lock().faults.rules.push(rule);
    }

    /// Asks `policy` about every operation that no rule decides.
    pub fn set_policy(&self, policy: Arc<dyn Policy>) {
        self.state.lock().faults.policy = Some(policy);
    }

    /// Forgets rules and policy. What they have damaged stays damaged.
    pub fn heal(&self) {
        self.state.lock().faults = Faults::default();
    }

    /// Forgets the rules; the policy stays.
    pub fn forget_rules(&self) {
        self.state.lock().faults.rules.clear();
    }

    /// Gives the volume so many bytes; None: more than anyone needs.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().room.capacity = bytes;
    }

    /// Lets others take so many bytes of the volume.
    pub fn set_other_tenants(&self, bytes: u64) {
        self.state.lock().room.others = bytes;
    }

    /// From now on `path` and all below it lie on a volume of that kind; the last call that fits a
    /// path holds.
    pub fn set_volume(&self, path: &Path, kind: VolumeKind) {
        self.state.lock().volumes.push((path.to_owned(), kind));
    }

    /// How many mutating operations there were since the start or the last crash.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.state.lock().gate.ops
    }

    /// The last few thousand mutating operations, for messages.
    #[must_use]
    pub fn log(&self) -> Vec<Operation> {
        self.state.lock().gate.log()
    }

    /// At the mutating operation of this number (from 0), and ever after, nothing is done and every
    /// call fails with EIO. Native folders are out of reach of what writes to them directly, so
    /// their state at that moment is what a crash keeps.
    pub fn freeze_at(&self, number: u64) {
        self.state.lock().gate.freeze_at = Some(number);
    }

    /// Freezes now.
    pub fn freeze(&self) {
        self.state.lock().freeze();
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.state.lock().gate.frozen
    }

    /// What a file holds on the medium under its durable name, past all faults: the truth.
    #[must_use]
    pub fn durable(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        match state.tree.durable(&parts(path).ok()?)? {
            Inode::File(content) => Some(content.durable.to_vec()),
            Inode::Folder(_) => None,
        }
    }

    /// Every file below a folder, as readers see it, in the order of the paths: past all faults,
    /// uncounted. Native folders are left out.
    #[must_use]
    pub fn files(&self, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.state.lock();
        let found = state.place(folder).and_then(|place| state.found(&place));
        let mut files = Vec::new();
        let mut left: Vec<(PathBuf, Id)> = found
            .map(|id| (folder.to_owned(), id))
            .into_iter()
            .collect();
        while let Some((path, id)) = left.pop() {
            match state.tree.inode(id) {
                Inode::File(content) => files.push((path, content.current.to_vec())),
                Inode::Folder(folder) => {
                    let inside = folder.names.iter().map(|(name, id)| (path.join(name), *id));
                    left.extend(inside);
                }
            }
        }
        files.sort();
        files
    }

    /// Turns over the bits of `mask` in a byte of a file, on the medium, until it is written again.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.damage(path, |content| content.flip(offset, mask))
    }

    /// Makes the sector at `offset` of a file unreadable (EIO) until it is written again.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn spoil(&self, path: &Path, offset: u64) -> io::Result<()> {
        self.damage(path, |content| content.spoil(offset))
    }

    /// Takes a file away as if it had never been, durably. Who has it open keeps it.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn vanish(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.file_at(path)?;
        state.tree.vanish(id);
        state.unlinked(id);
        Ok(())
    }

    fn damage(&self, path: &Path, how: impl FnOnce(&mut Content)) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.file_at(path)?;
        how(state.tree.file_mut(id)?);
        Ok(())
    }

    fn handle(&self, id: Id, path: &Path) -> Handle {
        Handle::new(self.clone(), id, path.to_owned())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        let kind = match access {
            Access::CreateNew => OpKind::CreateFile,
            Access::Read | Access::Write => OpKind::Open,
        };
        let place = state.start(kind, path)?;
        if let Place::Native(real) = &place {
            let file = RealDisk.open(real, access)?;
            drop(state);
            return Ok(Arc::new(NativeFile::new(
                self.clone(),
                file,
                path.to_owned(),
            )));
        }
        let id = match (&place, access) {
            (Place::Name(folder, name), Access::CreateNew) => state.create_file(*folder, name)?,
            (_, Access::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            _ => state.found(&place)?,
        };
        state.tree.file_mut(id)?.open += 1;
        Ok(Arc::new(MemoryFile::new(self.handle(id, path), access)))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.start(OpKind::CreateFolder, path)? {
            Place::Root => Err(ErrorKind::AlreadyExists.into()),
            Place::Native(real) => RealDisk.create_folder(&real),
            Place::Name(folder, name) => {
                let full = state.room.left() < image::PAGE;
                if full && state.tree.look_up(folder, &name).is_err() {
                    return Err(ErrorKind::StorageFull.into());
                }
                let make = |label| Inode::Folder(Folder::new(label));
                state.tree.create(folder, &name, make).map(drop)
            }
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut state = self.state.lock();
        let place = state.start(OpKind::List, folder)?;
        if let Place::Native(real) = place {
            return RealDisk.list(&real);
        }
        let id = state.found(&place)?;
        let mut entries = state.native.list(id)?;
        for (name, child) in &state.tree.folder(id)?.names {
            entries.push(FolderEntry {
                name: name.to_string_lossy().into_owned(),
                kind: state.tree.inode(*child).kind(),
            });
        }
        entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Ok(entries)
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let mut state = self.state.lock();
        let place = state.start(OpKind::Meta, path)?;
        if let Place::Native(real) = place {
            return RealDisk.meta(&real);
        }
        let inode = state.tree.inode(state.found(&place)?);
        Ok(Meta {
            kind: inode.kind(),
            len: match inode {
                Inode::File(content) => content.current.len(),
                Inode::Folder(_) => 0,
            },
            // Names are what the tree is made of: nothing here links a second one.
            names: 1,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let (source, target) = (state.place(from), state.place(to));
        let mut operation = state.operation(OpKind::Rename, from);
        operation.to = Some(to.to_owned());
        let native = |place: &io::Result<Place>| matches!(place, Ok(Place::Native(_)));
        if native(&source) || native(&target) {
            state.begin_native(&operation)?;
            return state.rename_across(source?, target?);
        }
        fail(state.begin(operation)?)?;
        let (Place::Name(old_folder, old), Place::Name(new_folder, new)) = (source?, target?)
        else {
            return Err(ErrorKind::InvalidInput.into());
        };
        if let Ok(there) = state.tree.look_up(new_folder, &new)
            && state.tree.folder(there).is_ok()
            && !state.native.list(there)?.is_empty()
        {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let replaced = state.tree.rename((old_folder, &old), (new_folder, &new))?;
        if let Some(replaced) = replaced {
            state.unlinked(replaced);
        }
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let (first, second) = (state.place(one), state.place(other));
        let mut operation = state.operation(OpKind::Exchange, one);
        operation.to = Some(other.to_owned());
        if let (Ok(Place::Native(first)), Ok(Place::Native(second))) = (&first, &second) {
            state.begin_native(&operation)?;
            return RealDisk.exchange(first, second);
        }
        fail(state.begin(operation)?)?;
        match (first?, second?) {
            (Place::Name(folder, name), Place::Name(there, other)) => {
                state.tree.exchange((folder, &name), (there, &other))
            }
            (Place::Native(_), _) | (_, Place::Native(_)) => Err(ErrorKind::CrossesDevices.into()),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.start(OpKind::RemoveFile, path)? {
            Place::Root => Err(ErrorKind::IsADirectory.into()),
            Place::Native(real) => RealDisk.remove_file(&real),
            Place::Name(folder, name) => {
                let id = state.tree.look_up(folder, &name)?;
                let content = state.tree.file(id)?;
                if let Some(policy) = &state.faults.policy {
                    policy.removed(path, &|| content.current.to_vec());
                }
                state.tree.remove(folder, &name);
                state.unlinked(id);
                Ok(())
            }
        }
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.start(OpKind::RemoveFolder, path)? {
            Place::Root => Err(ErrorKind::ResourceBusy.into()),
            Place::Native(real) => RealDisk.remove_folder(&real),
            Place::Name(folder, name) => {
                let id = state.tree.look_up(folder, &name)?;
                if !state.is_empty_folder(id)? {
                    return Err(ErrorKind::DirectoryNotEmpty.into());
                }
                state.tree.remove(folder, &name);
                state.tree.tidy();
                Ok(())
            }
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let place = state.place(folder);
        let operation = state.operation(OpKind::SyncFolder, folder);
        if let Ok(Place::Native(real)) = &place {
            state.begin_native(&operation)?;
            return RealDisk.sync_folder(real);
        }
        let effect = state.begin(operation)?;
        let id = state.found(&place?)?;
        state.tree.folder(id)?;
        let failed = fail(effect);
        let seed = state.seed;
        match failed {
            Ok(()) => state.tree.sync_folder(id),
            // Nothing was done, and nothing was lost: what may be tried again.
            Err(ref e) if e.kind() == ErrorKind::Interrupted || is_exhausted(e) => {}
            Err(_) => state.tree.fail_sync_folder(id, seed),
        }
        state.tree.tidy();
        failed
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut state = self.state.lock();
        let place = state.start(OpKind::Space, path)?;
        match &place {
            Place::Native(real) => drop(RealDisk.meta(real)?),
            _ => drop(state.found(&place)?),
        }
        let total = state.room.capacity.unwrap_or(BOUNDLESS);
        Ok(Space {
            total,
            available: state.room.left().min(total),
        })
    }

    fn volume(&self, path: &Path) -> io::Result<VolumeKind> {
        let mut state = self.state.lock();
        match state.start(OpKind::Volume, path)? {
            Place::Native(real) => drop(RealDisk.meta(&real)?),
            place => drop(state.found(&place)?),
        }
        let mut mounts = state.volumes.iter().rev();
        let mount = mounts.find(|(mount, _)| path.starts_with(mount));
        Ok(mount.map_or(VolumeKind::Local, |(_, kind)| *kind))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state.lock();
        match state.start(OpKind::Lock, path)? {
            Place::Root => Err(ErrorKind::IsADirectory.into()),
            Place::Native(real) => RealDisk.lock(&real),
            Place::Name(folder, name) => {
                let id = match state.tree.look_up(folder, &name) {
                    Ok(id) => id,
                    Err(_) => state.create_file(folder, &name)?,
                };
                state.tree.file_mut(id)?;
                if !state.locks.insert(id) {
                    return Err(ErrorKind::WouldBlock.into());
                }
                state.tree.file_mut(id)?.open += 1;
                Ok(Box::new(MemoryLock::new(self.handle(id, path))))
            }
        }
    }

    fn native(&self, folder: &Path) -> io::Result<PathBuf> {
        match self.state.lock().start(OpKind::Native, folder)? {
            Place::Native(real) => Ok(real),
            Place::Root | Place::Name(..) => Err(ErrorKind::Unsupported.into()),
        }
    }
}
