//! What the plan's events do, and what is due later.

use std::path::Path;

use unisondb_platform::memory::{Effect, MemoryDisk, OpKind, Random, Rule, SECTOR};
use unisondb_platform::{Access, DiskExt as _, FileExt as _};

use super::{HOST, NAMESPACE, NAMESPACES, Run, Timer, client_name};
use crate::plan::{Act, Cut, Damage, End, Fault, Place};
use crate::restores::plain;
use crate::trace::{Heal, Life, What};
use crate::workload::operator::Errand;
use crate::world::host::Status;
use crate::world::{DATA, lmdb};

/// How long an orderly stop may take, in simulated time.
const STOP_MS: u64 = 70_000;

impl Run<'_> {
    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::BackupWal => self.desk.errands.lock().push_back(Errand::Wal),
            Act::BackupSnapshot => self.desk.errands.lock().push_back(Errand::Snapshot),
            Act::Seal => self.desk.errands.lock().push_back(Errand::Seal),
            Act::End { how, down_ms } => self.end(*how, *down_ms),
            Act::Disk { .. } | Act::Full { .. } if !self.node.is_up() => {}
            Act::Disk {
                fault,
                place,
                skip,
                sticky,
                heal_ms,
            } => {
                self.disturb(*fault, *place, *skip, *sticky);
                self.later(*heal_ms, Timer::HealDisk);
            }
            Act::Full { left_bytes, for_ms } => {
                self.fault_until("disk full", "disk full", Some(Heal::Full));
                self.node.disturbed = true;
                let disk = self.node.machine.borrow().disk.clone();
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
                self.later(*for_ms, Timer::HealFull);
            }
            Act::Clock { step_ms, for_ms } => {
                let kind = match *step_ms < 0 {
                    true => "clock back",
                    false => "clock ahead",
                };
                let told = format!("{kind} by {} ms", step_ms.abs());
                self.fault_until(kind, &told, Some(Heal::Clock));
                self.node.machine.borrow().clock.step(step_ms * 1_000);
                self.later(*for_ms, Timer::HealClock);
            }
            Act::Network {
                how,
                client,
                for_ms,
            } => self.cut(*how, *client, *for_ms),
            Act::Damage { what, draw } => self.damage(*what, *draw),
            Act::Restore { way, target, draw } => self.restore_in_place(*way, *target, *draw),
        }
    }

    pub(super) fn later(&mut self, ms: u64, timer: Timer) {
        self.timers.push((self.now_ms() + ms, timer));
    }

    pub(super) fn ring(&mut self, timer: Timer) {
        match timer {
            Timer::Start if !self.node.is_up() => {
                self.start(&[]);
                // What is damaged at rest may be needed now.
                self.node.disturbed = self.timers.iter().any(|t| matches!(t.1, Timer::Unflip(..)));
            }
            Timer::Start => {}
            Timer::HealDisk => {
                self.node.machine.borrow().disk.forget_rules();
                self.trace.note(What::Healed(Heal::Disk));
            }
            Timer::HealFull => {
                self.node.machine.borrow().disk.set_other_tenants(0);
                self.trace.note(What::Healed(Heal::Full));
            }
            Timer::HealClock => {
                self.node.machine.borrow().clock.set_right();
                self.trace.note(What::Healed(Heal::Clock));
            }
            Timer::HealNetwork(client) => {
                let name = client_name(client);
                self.sim.release(name.as_str(), HOST);
                self.sim.repair(name.as_str(), HOST);
                self.trace.note(What::Healed(Heal::Network(client)));
            }
            Timer::Unflip(path, at, mask) => {
                // The operator has put a good copy back.
                drop(self.node.machine.borrow().disk.flip(&path, at, mask));
                self.trace.note(What::Healed(Heal::File(path)));
            }
        }
    }

    fn end(&mut self, how: End, down_ms: u64) {
        if !self.node.is_up() {
            return;
        }
        match how {
            End::Stop => {
                self.fault("stop");
                self.stop_in_order();
                self.later(down_ms, Timer::Start);
            }
            End::Kill => {
                self.fault("kill");
                self.gone(None);
                self.later(down_ms, Timer::Start);
            }
            End::Power => {
                self.fault("power loss");
                let luck = self.luck();
                self.gone(Some(luck));
                self.later(down_ms, Timer::Start);
            }
            End::PowerAt(n) | End::KillAt(n) => {
                // It comes when the disk has done so much more; `died` goes on.
                self.fault(if matches!(how, End::KillAt(_)) {
                    "kill at an operation"
                } else {
                    "power loss at an operation"
                });
                self.node.kill_at_freeze = matches!(how, End::KillAt(_));
                let disk = &self.node.machine.borrow().disk;
                disk.freeze_at(disk.ops() + n);
            }
        }
    }

    /// What a power loss leaves is drawn afresh each time.
    fn luck(&self) -> u64 {
        Random::keyed(self.plan.seed, b"luck", self.node.machine.borrow().boots).draw()
    }

    /// The disk has frozen at the operation that was set.
    pub(super) fn died(&mut self) {
        let luck = self.luck();
        let power = !self.node.kill_at_freeze;
        self.gone(power.then_some(luck));
        self.later(300, Timer::Start);
    }

    /// SIGTERM, and the wait until it is gone.
    pub(super) fn stop_in_order(&mut self) {
        self.node.tell_to_stop();
        let stopped = self.until(STOP_MS, |run| {
            !run.node.is_up() || matches!(run.node.status(), Status::Stopped | Status::Failed(_))
        });
        if !stopped {
            self.find("liveness: SIGTERM did not end the node within 70 s");
        }
        if self.node.is_up() {
            self.gone(None);
        }
    }

    /// The process is gone: by a power loss with this luck, or because it was killed.
    pub(super) fn gone(&mut self, power: Option<u64>) {
        let how = match power {
            Some(_) => "power lost",
            None => "killed or stopped",
        };
        self.trace.event("node", format_args!("is gone, {how}"));
        self.trace.note(What::Node(Life::Gone(how)));
        // A disk forgets its rules then.
        self.trace.note(What::Healed(Heal::Disk));
        self.collect();
        let disk = self.node.end(&mut self.sim, |disk| match power {
            Some(luck) => disk.crash(luck),
            None => disk.kill(),
        });
        if let Some(luck) = power {
            self.tear_states(&disk, luck);
        }
        self.new_disk(&disk);
        self.desk.check_published();
        let sides = self.sides.clone();
        let wrong = sides.iter().flat_map(|side| side.node_ended(&self.node));
        let wrong: Vec<String> = wrong.collect();
        wrong.iter().for_each(|w| self.find(w));
    }

    /// LMDB was in the middle of its next commit, in some of the power losses.
    fn tear_states(&mut self, disk: &MemoryDisk, luck: u64) {
        for (n, namespace) in NAMESPACES.iter().enumerate() {
            let mut r = Random::keyed(luck, b"tear", n as u64);
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

    fn disturb(&mut self, fault: Fault, place: Place, skip: u64, sticky: bool) {
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
        self.fault_until(&told, &told, Some(Heal::Disk));
        match place {
            Place::Backups => {
                self.desk.backups_disturbed();
                self.node.misdirected |= matches!(fault, Fault::WriteMisdirected);
            }
            Place::Wal | Place::Vote => self.node.disturbed = true,
        }
        let rule = match sticky {
            true => Rule::always(kind, below, effect),
            false => Rule::once(kind, below, effect),
        };
        self.node.machine.borrow().disk.inject(rule.after(skip));
    }

    fn cut(&mut self, how: Cut, client: u64, for_ms: u64) {
        let name = client_name(client);
        let name = name.as_str();
        match how {
            Cut::Both => self.sim.partition(name, HOST),
            Cut::ToNode => self.sim.partition_oneway(name, HOST),
            Cut::FromNode => self.sim.partition_oneway(HOST, name),
            Cut::Hold => self.sim.hold(name, HOST),
        }
        let kind = format!("network {how:?}").to_lowercase();
        let told = format!("{kind} ({name})");
        self.fault_until(&kind, &told, Some(Heal::Network(client)));
        self.later(for_ms, Timer::HealNetwork(client));
    }

    fn damage(&mut self, what: Damage, draw: u64) {
        let mut r = Random::new(draw);
        // What it showed until now, nobody may see again.
        self.collect();
        let disk = self.node.machine.borrow().disk.clone();
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
                self.desk.backups_disturbed();
                let told = format!("{name}: {}", path.display());
                self.fault_until(name, &told, None);
            }
            Damage::FlipSealed => {
                // Old enough that nothing but a backup reads it.
                let log = self.node.log(NAMESPACE);
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
                    self.node.disturbed = true;
                    self.later(
                        2_000 + r.below(4_000),
                        Timer::Unflip(path.clone(), at, mask),
                    );
                }
            }
            Damage::FlipState | Damage::CutState => self.damage_state(what, &mut r),
            Damage::FlipTail => self.damage_tail(&mut r),
            // A copy of what a failing disk made of a snapshot is nothing that a call leaves.
            Damage::StaleTemporary if self.desk.are_backups_disturbed() => {}
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

fn pick(r: &mut Random, of: usize) -> usize {
    usize::try_from(r.below(of as u64)).expect("an index")
}
