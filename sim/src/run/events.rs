//! What the plan's events do, and what is due later.

use std::path::Path;

use unisondb_platform::memory::{Effect, MemoryDisk, OpKind, Random, Rule, SECTOR};
use unisondb_platform::{Access, DiskExt as _, FileExt as _};

use super::node::Node;
use super::{NAMESPACE, NAMESPACES, Run, Timer, client_name};
use crate::plan::{Act, Cut, Damage, End, Fault, Place};
use crate::restores::plain;
use crate::trace::{Heal, Life, What};
use crate::workload::operator::Errand;
use crate::world::host::Status;
use crate::world::{DATA, lmdb};

/// How long an orderly stop may take, in simulated time.
const STOP_MS: u64 = 70_000;

impl Run<'_> {
    /// What a plan tells happens, to node `n` where it is a node that it happens to.
    pub(super) fn act(&mut self, n: usize, act: &Act) {
        match act {
            Act::BackupWal => self.desk.errands.lock().push_back(Errand::Wal),
            Act::BackupSnapshot => self.desk.errands.lock().push_back(Errand::Snapshot),
            Act::Seal => self.desk.errands.lock().push_back(Errand::Seal),
            Act::End { how, down_ms } => self.end(n, *how, *down_ms),
            Act::Disk { .. } | Act::Full { .. } if !self.nodes[n].is_up() => {}
            Act::Disk {
                fault,
                place,
                skip,
                sticky,
                heal_ms,
            } => {
                self.disturb(n, *fault, *place, *skip, *sticky);
                self.later(*heal_ms, Timer::HealDisk(n));
            }
            Act::Full { left_bytes, for_ms } => {
                self.fault_until("disk full", "disk full", Some(Heal::Full(n)));
                self.nodes[n].disturbed = true;
                let disk = self.nodes[n].machine.borrow().disk.clone();
                let used: u64 = disk
                    .files(Path::new("/"))
                    .iter()
                    .map(|f| (f.1.len() as u64).div_ceil(4_096) * 4_096)
                    .sum();
                let others = self
                    .plan
                    .setting
                    .volume_bytes
                    .saturating_sub(used + left_bytes);
                disk.set_other_tenants(others);
                self.later(*for_ms, Timer::HealFull(n));
            }
            Act::Clock { step_ms, for_ms } => {
                let kind = match *step_ms < 0 {
                    true => "clock back",
                    false => "clock ahead",
                };
                let told = format!("{kind} by {} ms", step_ms.abs());
                self.fault_until(kind, &told, Some(Heal::Clock(n)));
                self.nodes[n].machine.borrow().clock.step(step_ms * 1_000);
                self.later(*for_ms, Timer::HealClock(n));
            }
            Act::Network {
                how,
                client,
                for_ms,
            } => self.cut(*how, *client, *for_ms),
            Act::EndAll { how, down_ms } => {
                for n in 0..self.nodes.len() {
                    // They come back in some order, and not at once.
                    let number = n as u64 ^ self.now_ms().rotate_left(8);
                    let mut r = Random::keyed(self.plan.seed, b"back", number);
                    self.end(n, *how, 50 + r.below(*down_ms));
                }
            }
            Act::Lose { down_ms } => self.lose(n, *down_ms),
            Act::Split { how, side, for_ms } => self.split(*how, *side, *for_ms),
            Act::Damage { what, draw } => self.damage(n, *what, *draw),
            Act::Restore { way, target, draw } => self.restore_in_place(*way, *target, *draw),
        }
    }

    pub(super) fn later(&mut self, ms: u64, timer: Timer) {
        self.timers.push((self.now_ms() + ms, timer));
    }

    pub(super) fn ring(&mut self, timer: Timer) {
        match timer {
            Timer::Start(n) if !self.nodes[n].is_up() => {
                self.start(n, &[]);
                // What is damaged at rest may be needed now.
                self.nodes[n].disturbed =
                    self.timers.iter().any(|t| matches!(t.1, Timer::Unflip(..)));
            }
            Timer::Start(_) => {}
            Timer::HealDisk(n) => {
                self.nodes[n].machine.borrow().disk.forget_rules();
                self.trace.note(What::Healed(Heal::Disk(n)));
            }
            Timer::HealFull(n) => {
                self.nodes[n].machine.borrow().disk.set_other_tenants(0);
                self.trace.note(What::Healed(Heal::Full(n)));
            }
            Timer::HealClock(n) => {
                self.nodes[n].machine.borrow().clock.set_right();
                self.trace.note(What::Healed(Heal::Clock(n)));
            }
            Timer::HealNetwork(client) => {
                let name = client_name(client);
                for node in &self.nodes {
                    self.sim.release(name.as_str(), node.name.as_str());
                    self.sim.repair(name.as_str(), node.name.as_str());
                }
                self.trace.note(What::Healed(Heal::Network(client)));
            }
            Timer::HealSplit(side) => {
                for (one, other) in self.pairs(side) {
                    self.sim.release(one.as_str(), other.as_str());
                    self.sim.repair(one.as_str(), other.as_str());
                }
                self.trace.note(What::Healed(Heal::Split(side)));
            }
            Timer::Unflip(path, at, mask) => {
                // The operator has put a good copy back.
                drop(self.nodes[0].machine.borrow().disk.flip(&path, at, mask));
                self.trace.note(What::Healed(Heal::File(path)));
            }
        }
    }

    fn end(&mut self, n: usize, how: End, down_ms: u64) {
        if !self.nodes[n].is_up() {
            return;
        }
        match how {
            End::Stop => {
                self.fault("stop");
                self.stop(n, down_ms);
                // Of several the others go on meanwhile.
                if self.is_alone() {
                    self.until_stopped(n);
                }
            }
            End::Kill => {
                self.fault("kill");
                self.gone(n, None);
                self.later(down_ms, Timer::Start(n));
            }
            End::Power => {
                self.fault("power loss");
                let luck = self.luck(n);
                self.gone(n, Some(luck));
                self.later(down_ms, Timer::Start(n));
            }
            End::PowerAt(more) | End::KillAt(more) => {
                // It comes when the disk has done so much more; `died` goes on.
                self.fault(if matches!(how, End::KillAt(_)) {
                    "kill at an operation"
                } else {
                    "power loss at an operation"
                });
                self.nodes[n].kill_at_freeze = matches!(how, End::KillAt(_));
                let disk = &self.nodes[n].machine.borrow().disk;
                disk.freeze_at(disk.ops() + more);
            }
        }
    }

    /// What a power loss leaves is drawn afresh each time.
    fn luck(&self, n: usize) -> u64 {
        let boots = self.nodes[n].machine.borrow().boots;
        let number = boots ^ (n as u64).rotate_left(32);
        Random::keyed(self.plan.seed, b"luck", number).draw()
    }

    /// The disk of a node has frozen at the operation that was set.
    pub(super) fn died(&mut self, n: usize) {
        let luck = self.luck(n);
        let power = !self.nodes[n].kill_at_freeze;
        self.gone(n, power.then_some(luck));
        self.later(300, Timer::Start(n));
    }

    /// SIGTERM; once the node is gone it starts again after so long.
    pub(super) fn stop(&mut self, n: usize, down_ms: u64) {
        if self.nodes[n].stopping.is_none() {
            self.nodes[n].tell_to_stop();
            self.nodes[n].stopping = Some((self.now_ms() + STOP_MS, down_ms));
        }
    }

    /// Looks whether a node that was told to stop has stopped.
    pub(super) fn stopped(&mut self, n: usize) {
        let Some((late, down_ms)) = self.nodes[n].stopping else {
            return;
        };
        let is_over = matches!(self.nodes[n].status(), Status::Stopped | Status::Failed(_));
        if !is_over && self.now_ms() < late {
            return;
        }
        if !is_over {
            self.find("liveness: SIGTERM did not end the node within 70 s");
        }
        self.gone(n, None);
        self.later(down_ms, Timer::Start(n));
    }

    pub(super) fn until_stopped(&mut self, n: usize) {
        self.until(STOP_MS + 1_000, |run| !run.nodes[n].is_up());
    }

    /// SIGTERM, and the wait until it is gone; it does not start again by itself.
    pub(super) fn stop_in_order(&mut self, n: usize) {
        self.stop(n, 0);
        self.until_stopped(n);
        self.timers.retain(|t| t.1 != Timer::Start(n));
    }

    /// The process is gone: by a power loss with this luck, or because it was killed.
    pub(super) fn gone(&mut self, n: usize, power: Option<u64>) {
        let how = match power {
            Some(_) => "power lost",
            None => "killed or stopped",
        };
        self.tell_life(n, Life::Gone(how));
        // A disk forgets its rules then.
        self.trace.note(What::Healed(Heal::Disk(n)));
        self.collect();
        let disk = self.nodes[n].end(&mut self.sim, |disk| match power {
            Some(luck) => disk.crash(luck),
            None => disk.kill(),
        });
        if let Some(luck) = power {
            self.tear_states(&disk, luck);
        }
        self.new_disk(n, &disk);
        self.desk.check_published(n);
        let sides = self.sides.clone();
        let wrong = sides
            .iter()
            .flat_map(|side| side.node_ended(&self.nodes, n));
        let wrong: Vec<String> = wrong.collect();
        wrong.iter().for_each(|w| self.find(w));
    }

    /// LMDB was in the middle of its next commit, in some of the power losses.
    fn tear_states(&mut self, disk: &MemoryDisk, luck: u64) {
        for (number, namespace) in NAMESPACES.iter().enumerate() {
            let mut r = Random::keyed(luck, b"tear", number as u64);
            let folder = format!("{DATA}/{namespace}/db");
            let beside = plain(disk);
            let ours = beside.exists(Path::new(&format!("{folder}/owner")));
            if !ours.unwrap_or(false) || r.coin() {
                continue;
            }
            let Ok(real) = beside.native(Path::new(&folder)) else {
                continue;
            };
            match lmdb::tear(&real, &mut r) {
                Ok(0) => {}
                Ok(_) => self.fault("torn LMDB commit"),
                Err(e) => self.find(&format!(
                    "P13: the state of {namespace} does not open after a power loss: {e}"
                )),
            }
        }
    }

    fn disturb(&mut self, n: usize, fault: Fault, place: Place, skip: u64, sticky: bool) {
        use {Effect as E, OpKind as K};
        let (kind, effect, name) = match fault {
            Fault::SyncEio => (K::Sync, E::Eio, "sync EIO"),
            Fault::SyncFull => (K::Sync, E::Full, "sync ENOSPC"),
            Fault::FolderSyncEio => (K::SyncFolder, E::Eio, "folder sync EIO"),
            Fault::WriteEio => (K::Write, E::Eio, "write EIO"),
            Fault::WriteFull => (K::Write, E::Full, "write ENOSPC"),
            Fault::WriteQuota => (K::Write, E::Quota, "write EDQUOT"),
            Fault::WriteShort => (K::Write, E::Short(7), "short write"),
            Fault::WriteInterrupted => (K::Write, E::Interrupted, "write EINTR"),
            Fault::WriteMisdirected => (K::Write, E::Misdirect(512), "misdirected write"),
            Fault::ReadEio => (K::Read, E::Eio, "read EIO"),
            Fault::ReadShort => (K::Read, E::Short(5), "short read"),
            Fault::OpenDenied => (K::CreateFile, E::Denied, "create EACCES"),
            Fault::CreateFull => (K::CreateFile, E::Full, "create ENOSPC"),
            Fault::RenameEio => (K::Rename, E::Eio, "rename EIO"),
        };
        let below = match place {
            Place::Wal => format!("{DATA}/{NAMESPACE}/wal"),
            Place::Vote => format!("{DATA}/{NAMESPACE}/wal/raft.state"),
            Place::Backups => format!("{DATA}/backups"),
        };
        let told = format!("{name} in {place:?}").to_lowercase();
        self.fault_until(&told, &told, Some(Heal::Disk(n)));
        match place {
            Place::Backups => {
                self.desk.backups_disturbed(n);
                self.nodes[n].misdirected |= matches!(fault, Fault::WriteMisdirected);
            }
            Place::Wal | Place::Vote => self.nodes[n].disturbed = true,
        }
        let rule = match sticky {
            true => Rule::always(kind, below, effect),
            false => Rule::once(kind, below, effect),
        };
        self.nodes[n].machine.borrow().disk.inject(rule.after(skip));
    }

    fn cut(&mut self, how: Cut, client: u64, for_ms: u64) {
        let name = client_name(client);
        for node in &self.nodes {
            cut(&mut self.sim, how, &name, &node.name);
        }
        let kind = format!("network {how:?}").to_lowercase();
        let told = format!("{kind} ({name})");
        self.fault_until(&kind, &told, Some(Heal::Network(client)));
        self.later(for_ms, Timer::HealNetwork(client));
    }

    fn split(&mut self, how: Cut, side: u64, for_ms: u64) {
        for (one, other) in self.pairs(side) {
            cut(&mut self.sim, how, &one, &other);
        }
        let kind = format!("nodes apart {how:?}").to_lowercase();
        let told = format!("{kind} ({side:b})");
        self.fault_until(&kind, &told, Some(Heal::Split(side)));
        self.later(for_ms, Timer::HealSplit(side));
    }

    /// A node loses its disk. One at a time, and while all are there: a group of two, as one is that is just
    /// being made, would not survive it.
    fn lose(&mut self, n: usize, down_ms: u64) {
        let is_well = |node: &Node| node.status() == Status::Ready && node.stopping.is_none();
        let everywhere = self
            .sides
            .iter()
            .all(|side| side.is_everywhere(&self.nodes));
        let are_well = everywhere && self.nodes.iter().all(is_well);
        if !are_well || !self.lost.lock().is_empty() || self.are_apart() {
            return;
        }
        self.fault("a lost disk");
        let luck = self.luck(n);
        self.nodes[n].is_fresh = true;
        self.gone(n, Some(luck));
        let disk = self.nodes[n].machine.borrow().disk.clone();
        if let Err(e) = disk.remove_all(Path::new(DATA)) {
            self.find(&format!("the harness cannot empty a disk: {e}"));
        }
        self.desk.lost(n);
        self.lost.lock().push_back(n);
        self.later(down_ms, Timer::Start(n));
    }

    /// Whether some nodes do not hear one another.
    fn are_apart(&self) -> bool {
        self.timers
            .iter()
            .any(|t| matches!(t.1, Timer::HealSplit(_)))
    }

    /// Each node of a set, with each that is not of it.
    fn pairs(&self, side: u64) -> Vec<(String, String)> {
        let is_in = |n: &usize| side & (1 << n) != 0;
        let (ones, others): (Vec<usize>, Vec<usize>) = (0..self.nodes.len()).partition(is_in);
        let name = |n: &usize| self.nodes[*n].name.clone();
        let pairs = ones.iter().flat_map(|one| {
            let others = others.iter();
            others.map(move |other| (name(one), name(other)))
        });
        pairs.collect()
    }

    fn damage(&mut self, n: usize, what: Damage, draw: u64) {
        let mut r = Random::new(draw);
        // What it showed until now, nobody may see again.
        self.collect();
        let disk = self.nodes[n].machine.borrow().disk.clone();
        match what {
            Damage::FlipBackup | Damage::SpoilBackup | Damage::LoseBackup => {
                let files = disk.files(Path::new(&format!("{DATA}/backups/{NAMESPACE}")));
                if files.is_empty() {
                    return;
                }
                let (path, bytes) = &files[pick(&mut r, files.len())];
                let at = r.below(bytes.len() as u64);
                let (name, done) = match what {
                    Damage::FlipBackup => (
                        "flipped bit in a backup",
                        disk.flip(path, at, 1 << r.below(8)),
                    ),
                    Damage::SpoilBackup => ("bad sector in a backup", disk.spoil(path, at)),
                    _ => ("lost backup file", disk.vanish(path)),
                };
                drop(done);
                self.desk.backups_disturbed(n);
                let told = format!("{name}: {}", path.display());
                self.fault_until(name, &told, None);
            }
            Damage::FlipSealed => {
                // Old enough that nothing but a backup reads it.
                let log = self.nodes[n].log(NAMESPACE);
                let sealed: Vec<_> = log.iter().filter(|l| l.2.footer.is_some()).collect();
                if sealed.len() < 5 {
                    return;
                }
                let (path, bytes, _) = sealed[pick(&mut r, sealed.len() - 4)];
                let (at, mask) = (r.below(bytes.len() as u64), 1 << r.below(8));
                if disk.flip(path, at, mask).is_ok() {
                    let kind = "flipped bit in a sealed segment";
                    let told = format!("{kind}: {}", path.display());
                    self.fault_until(kind, &told, Some(Heal::File(path.clone())));
                    self.nodes[n].disturbed = true;
                    self.later(
                        2_000 + r.below(4_000),
                        Timer::Unflip(path.clone(), at, mask),
                    );
                }
            }
            Damage::FlipState | Damage::CutState => self.damage_state(what, &mut r),
            Damage::FlipTail => self.damage_tail(&mut r),
            // A copy of what a failing disk made of a snapshot is nothing that a call leaves.
            Damage::StaleTemporary if self.desk.are_backups_disturbed(n) => {}
            Damage::StaleTemporary => {
                let archive = self.desk.archive.lock();
                let Some(newest) = archive.snapshots.last() else {
                    return;
                };
                let mut bytes = newest.bytes.clone();
                bytes.resize(bytes.len() + (64 << 10), 0xa5);
                drop(archive);
                let path = format!("{DATA}/backups/{NAMESPACE}/snapshots/latest.db.tmp");
                // Where the disk says no there is none.
                if leave(&disk, Path::new(&path), &bytes).is_ok() {
                    self.fault_until("stale temporary file", &path, None);
                }
            }
        }
    }
}

/// Leaves a file as a call leaves it that died while it wrote (a file's first sector is on the medium
/// before the rest is written), over what may be there.
fn leave(disk: &MemoryDisk, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let disk = plain(disk);
    if disk.exists(path)? {
        disk.remove_file(path)?;
    }
    let file = disk.open(path, Access::CreateNew)?;
    let (head, rest) = bytes.split_at(usize::try_from(SECTOR).expect("it is small"));
    let written = (file.write_all_at(head, 0))
        .and_then(|()| file.sync())
        .and_then(|()| file.write_all_at(rest, SECTOR));
    // What a failing disk made of it is nothing that a call leaves.
    match written.and_then(|()| disk.read(path, 1 << 30)) {
        Ok(there) if there == bytes => Ok(()),
        _ => disk.remove_file(path),
    }
}

fn cut(sim: &mut turmoil::Sim<'static>, how: Cut, one: &str, node: &str) {
    match how {
        Cut::Both => sim.partition(one, node),
        Cut::ToNode => sim.partition_oneway(one, node),
        Cut::FromNode => sim.partition_oneway(node, one),
        Cut::Hold => sim.hold(one, node),
    }
}

fn pick(r: &mut Random, of: usize) -> usize {
    usize::try_from(r.below(of as u64)).expect("an index")
}
