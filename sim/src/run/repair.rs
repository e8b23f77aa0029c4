//! The operator at the machine: restarts a node that is broken, restores in place as documented, puts
//! right what was damaged; and what must come of it.

use std::path::{Path, PathBuf};

use unisondb_engine::restore::{self, BaseFrom, Existing};
use unisondb_platform::DiskExt as _;
use unisondb_platform::memory::Random;
use unisondb_store::image::Image;
use unisondb_types::{Lsn, Stamp, Target};

use super::{NAMESPACE, Run, Timer};
use crate::oracle::log::Id;
use crate::oracle::truth::hex;
use crate::plan::{Aim, Damage, Way};
use crate::restores::{Coverage, plain, write_to};
use crate::trace::What;
use crate::workload::operator::Archive;
use crate::world::DATA;
use crate::world::host::Status;

/// How long a start may take until all is open, in simulated time.
const READY_MS: u64 = 30_000;

/// How a node goes down.
pub(super) enum Down {
    InOrder,
    Killed,
}

impl Run<'_> {
    /// Looks at a node as an operator with an alert does.
    pub(super) fn look_after(&mut self, n: usize) {
        match self.nodes[n].status() {
            Status::Broken(why) => {
                self.tell(n, format_args!("is broken: {why}"));
                if !self.nodes[n].disturbed {
                    self.find(&format!(
                        "liveness: the node broke although nothing was wrong: {why}"
                    ));
                }
                self.counters.add("a broken node was restarted");
                self.stop(n, 100);
            }
            Status::Failed(why) => {
                self.tell(n, format_args!("does not start: {why}"));
                let node = &mut self.nodes[n];
                if !node.disturbed {
                    node.failed_starts += 1;
                    if node.failed_starts > 3 {
                        node.failed_starts = 0;
                        self.find(&format!(
                            "the node does not start although nothing is wrong: {why}"
                        ));
                    }
                }
                self.counters.add("a failed start was tried again");
                self.ring(Timer::HealDisk(n));
                self.gone(n, None);
                self.later(100, Timer::Start(n));
            }
            Status::Ready => self.nodes[n].failed_starts = 0,
            Status::Starting | Status::Stopped => {}
        }
    }

    /// What was done to the disk is undone before the operator lays hands on it.
    fn put_right(&mut self) {
        self.ring(Timer::HealDisk(0));
        self.ring(Timer::HealFull(0));
        let (flips, rest) = std::mem::take(&mut self.timers)
            .into_iter()
            .partition(|t| matches!(t.1, Timer::Unflip(..)));
        self.timers = rest;
        let flips: Vec<(u64, Timer)> = flips;
        flips.into_iter().for_each(|t| self.ring(t.1));
    }

    /// Starts with flags and waits; whether all is open.
    pub(super) fn start_and_wait(&mut self, flags: &[String]) -> Result<(), String> {
        self.timers.retain(|t| t.1 != Timer::Start(0));
        self.start(0, flags);
        let settled = self.until(READY_MS, |run| {
            matches!(
                run.nodes[0].status(),
                Status::Ready | Status::Broken(_) | Status::Failed(_) | Status::Stopped
            )
        });
        match self.nodes[0].status() {
            Status::Ready => Ok(()),
            Status::Broken(why) | Status::Failed(why) => Err(why),
            other => Err(format!("it is {other:?} after {settled}")),
        }
    }

    /// Puts an in-place restore into the run: what the operator types, and what must come of it.
    pub(super) fn restore_in_place(&mut self, way: Way, aim: Aim, draw: u64) {
        let mut r = Random::new(draw);
        self.while_down(Down::InOrder, |run, lineage| {
            run.restore_now(way, aim, lineage, &mut r)
        });
    }

    /// Takes a node that serves down, clients held back, for what an operator does to its files;
    /// whatever fails is a finding.
    pub(super) fn while_down(
        &mut self,
        down: Down,
        act: impl FnOnce(&mut Self, Id) -> Result<(), String>,
    ) {
        if !self.nodes[0].is_up() || self.nodes[0].status() != Status::Ready {
            return;
        }
        let Some(lineage) = self.nodes[0].lineage(NAMESPACE) else {
            return;
        };
        *self.shared.hold.lock() = true;
        self.trace.note(What::Operator(
            "stops the node, to work on its files".to_owned(),
        ));
        match down {
            Down::InOrder => self.stop_in_order(0),
            Down::Killed => self.gone(0, None),
        }
        self.put_right();
        if let Err(why) = act(self, lineage) {
            self.find(&why);
        }
        *self.shared.hold.lock() = false;
    }

    fn restore_now(
        &mut self,
        way: Way,
        aim: Aim,
        lineage: Id,
        r: &mut Random,
    ) -> Result<(), String> {
        // With the log in place, what it holds counts; otherwise what the archive has.
        let live = self.live_archive();
        let coverage = {
            let truth = self.desk.truth.lock();
            match way {
                Way::KeepLog => Coverage::of(&live, &truth, lineage),
                Way::CopyAll => {
                    let archive = self.desk.archive.lock();
                    Coverage::of(&archive, &truth, lineage).of_segments(&archive, &truth)
                }
                Way::Udbctl | Way::SnapshotOnly => {
                    Coverage::of(&self.desk.archive.lock(), &truth, lineage)
                }
            }
        };
        if coverage.bases.is_empty() {
            self.counters.add("no snapshot to restore from");
            self.later(50, Timer::Start(0));
            return Ok(());
        }
        let (base, place) = coverage.bases
            [usize::try_from(r.below(coverage.bases.len() as u64)).expect("an index")];
        let aim = if way == Way::SnapshotOnly {
            Aim::Immediate
        } else {
            aim
        };
        let Some((flags, target, expected)) = self.aim_at(&coverage, base, aim, way, r) else {
            self.counters.add("no target to restore to");
            self.later(50, Timer::Start(0));
            return Ok(());
        };
        let snapshot = self.desk.archive.lock().snapshots[place].bytes.clone();
        self.trace.event(
            "operator",
            format_args!("restores in place: {way:?} {aim:?}, base {base}, to {expected}"),
        );
        self.trace.note(What::Restore(format!(
            "restores in place: {way:?} {aim:?}, base {base}, to LSN {expected}"
        )));
        self.counters.add(&format!("in-place restore {way:?}"));
        let home = format!("{DATA}/{NAMESPACE}");
        let disk = self.nodes[0].machine.borrow().disk.clone();
        match way {
            Way::KeepLog | Way::SnapshotOnly | Way::CopyAll => {
                let fresh = |name: &str| {
                    let path = PathBuf::from(format!("{home}/{name}"));
                    drop(disk.remove_all(&path));
                    plain(&disk).create_folders(&path).expect("there is room");
                };
                fresh("db");
                if way != Way::KeepLog {
                    fresh("wal");
                }
                write_to(plain(&disk), &format!("{home}/db/data.mdb"), &snapshot);
                if way == Way::CopyAll {
                    let archive = self.desk.archive.lock();
                    for name in &coverage.segments {
                        write_to(
                            plain(&disk),
                            &format!("{home}/wal/{name}"),
                            &archive.segments[name],
                        );
                    }
                }
            }
            Way::Udbctl => self.udbctl(&coverage, target)?,
        }
        let flags = if way == Way::Udbctl {
            Vec::new()
        } else {
            flags
        };
        let started = self.start_and_wait(&flags);
        if let Err(why) = started {
            return Err(format!(
                "P10: an in-place restore ({way:?}, base {base}) to record {expected} does not start: {why}"
            ));
        }
        self.collect();
        self.check_fork(way, aim, lineage, expected)
    }

    /// Flags, target, and the record after which the state must stand.
    fn aim_at(
        &self,
        coverage: &Coverage,
        base: u64,
        aim: Aim,
        way: Way,
        r: &mut Random,
    ) -> Option<(Vec<String>, Target, u64)> {
        let reach = match way {
            Way::Udbctl => coverage.furthest(),
            _ => coverage.reach(base),
        };
        let low = if way == Way::Udbctl { 1 } else { base.max(1) };
        // Refused by name then (P11), as restores from copies see beside the run.
        if reach < low || (way == Way::CopyAll && coverage.leaves_open(reach)) {
            return None;
        }
        let lsn = low + r.below(reach - low + 1);
        let stamp = |n| {
            self.desk
                .truth
                .lock()
                .record(coverage.lineage, n)
                .map_or(0, |r| r.stamp)
        };
        let can = |n: u64| way != Way::Udbctl || coverage.can_reach(n);
        Some(match aim {
            Aim::Immediate if way != Way::Udbctl => (
                vec!["--recovery-target-immediate=true".to_owned()],
                Target::Immediate,
                base,
            ),
            Aim::Lsn if can(lsn) => (
                vec![format!("--recovery-target-lsn={lsn}")],
                Target::Lsn(Lsn::new(lsn)),
                lsn,
            ),
            Aim::Time if can(lsn) => {
                let time = Stamp::from_micros(stamp(lsn));
                (
                    vec![format!("--recovery-target-time={time}")],
                    Target::Time(time),
                    lsn,
                )
            }
            _ if coverage.has_more_than(reach) => return None,
            _ => (Vec::new(), Target::Latest, reach),
        })
    }

    /// `udbctl restore --force`, from a copy of the archive.
    fn udbctl(&self, coverage: &Coverage, target: Target) -> Result<(), String> {
        let machine = self.nodes[0].machine.borrow();
        let disk = plain(&machine.disk);
        drop(machine.disk.remove_all(Path::new("/archive")));
        let archive = self.desk.archive.lock();
        for name in &coverage.segments {
            write_to(
                disk,
                &format!("/archive/wal/{name}"),
                &archive.segments[name],
            );
        }
        for (lsn, n) in &coverage.bases {
            write_to(
                disk,
                &format!("/archive/snapshots/{n}-{lsn}.db"),
                &archive.snapshots[*n].bytes,
            );
        }
        disk.create_folders(Path::new("/archive/wal"))
            .expect("there is room");
        let platform = machine.beside();
        let request = restore::Request {
            data_dir: PathBuf::from(DATA),
            namespace: NAMESPACE.parse().expect("a namespace"),
            base: BaseFrom::Folders(vec![PathBuf::from("/archive/snapshots")]),
            wal: vec![PathBuf::from("/archive/wal")],
            target,
            lineage: None,
            first_segment: None,
            existing: Existing::MoveToTrash,
        };
        let plan = restore::plan(platform.disk.as_ref(), &request, &|_| ())
            .map_err(|e| format!("udbctl: {e}"))?;
        if let Some(problem) = &plan.problem {
            return Err(format!(
                "P10: udbctl finds a problem where there is none: {problem}"
            ));
        }
        let done = restore::run(&platform, &request, &plan, &|_| ());
        done.map(drop)
            .map_err(|e| format!("P10: udbctl restore --force: {e}"))
    }

    /// After a restore the history goes on from just that record.
    fn check_fork(&mut self, way: Way, aim: Aim, before: Id, expected: u64) -> Result<(), String> {
        let Some(now) = self.nodes[0].lineage(NAMESPACE) else {
            return Err("P12: after a restore there is no log".to_owned());
        };
        let truth = self.desk.truth.lock();
        let kept = way == Way::KeepLog && aim == Aim::Latest;
        if now == before {
            return match kept {
                true => Ok(()),
                false => Err(format!(
                    "D21: a restore to record {expected} began no lineage"
                )),
            };
        }
        let Some(Some((parent, fork))) = truth.lineages().get(&now) else {
            return Err(format!(
                "P6: lineage {} has no parent after a restore",
                hex(&now)
            ));
        };
        if *fork != expected {
            return Err(format!(
                "P10: a restore to record {expected} of {} began at record {fork} of {}",
                hex(&before),
                hex(parent)
            ));
        }
        drop(truth);
        self.sides[0].restored(before, now);
        self.counters
            .add("a restore began a lineage at the right record");
        Ok(())
    }

    /// The live log and the archived snapshots, as one archive.
    fn live_archive(&self) -> Archive {
        let mut live = Archive::default();
        for (path, bytes, _) in self.nodes[0].log(NAMESPACE) {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            live.segments.insert(name.unwrap_or_default(), bytes);
        }
        for s in &self.desk.archive.lock().snapshots {
            live.snapshots.push(crate::workload::operator::Snapshot {
                bytes: s.bytes.clone(),
                ..*s
            });
        }
        live
    }

    /// Damages the state while the node is down: the start must refuse it in the documented words.
    pub(super) fn damage_state(&mut self, what: Damage, r: &mut Random) {
        self.while_down(Down::InOrder, |run, lineage| {
            run.damage_and_mend(what, lineage, r)
        });
    }

    fn damage_and_mend(&mut self, what: Damage, lineage: Id, r: &mut Random) -> Result<(), String> {
        let coverage = Coverage::of(&self.live_archive(), &self.desk.truth.lock(), lineage);
        let log = self.nodes[0].log(NAMESPACE);
        let end = log
            .iter()
            .filter_map(|l| l.2.records.last())
            .map(|r| r.lsn)
            .max()
            .unwrap_or(0);
        let good = coverage.bases.iter().find(|b| coverage.reach(b.0) >= end);
        let Some((_, place)) = good.copied() else {
            self.later(50, Timer::Start(0));
            return Ok(());
        };
        let snapshot = self.desk.archive.lock().snapshots[place].bytes.clone();
        let disk = self.nodes[0].machine.borrow().disk.clone();
        let path = format!("{DATA}/{NAMESPACE}/db/data.mdb");
        let folder = PathBuf::from(format!("{DATA}/{NAMESPACE}/db"));
        let bytes = match what {
            Damage::CutState => {
                let live = plain(&disk)
                    .read(Path::new(&path), 1 << 30)
                    .map_err(|e| e.to_string())?;
                // Behind its last page lies nothing, or what a torn commit left: that may go.
                let pages = Image::open(live.as_slice()).map_err(|e| e.to_string())?;
                let most = pages.meta().bytes() / 2;
                live[..usize::try_from(r.below(most)).expect("a small file")].to_vec()
            }
            // A copy that went wrong on the way.
            _ => {
                let mut bytes = snapshot.clone();
                let at = usize::try_from(r.below(bytes.len() as u64)).expect("a small file");
                bytes[at] ^= 1 << r.below(8);
                drop(disk.remove_all(&folder));
                bytes
            }
        };
        self.fault(if what == Damage::CutState {
            "cut data.mdb"
        } else {
            "flipped bit in data.mdb"
        });
        write_to(plain(&disk), &path, &bytes);
        match self.start_and_wait(&[]) {
            Ok(()) => {
                return Err(format!(
                    "P13: a damaged data.mdb ({what:?}) was taken for good"
                ));
            }
            Err(why) if why.contains("database file is corrupted") => {}
            Err(why) => {
                return Err(format!(
                    "D7: a damaged data.mdb ({what:?}) is called: {why}"
                ));
            }
        }
        self.counters.add("a damaged data.mdb was refused");
        self.gone(0, None);
        let disk = self.nodes[0].machine.borrow().disk.clone();
        let now = plain(&disk)
            .read(Path::new(&path), 1 << 30)
            .map_err(|e| e.to_string())?;
        if now != bytes {
            return Err("D7: a damaged data.mdb was touched".to_owned());
        }
        drop(disk.remove_all(&folder));
        write_to(plain(&disk), &path, &snapshot);
        self.start_and_wait(&[])
            .map_err(|why| format!("a good snapshot over a whole log does not start: {why}"))
    }
}
