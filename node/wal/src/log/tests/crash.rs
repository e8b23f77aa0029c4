//! Power fails at every disk operation of a log's life, and of every start after it; afterwards
//! everything acknowledged is there, nothing taken back is, and no half file has a final name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use unisondb_types::SegmentId;

use super::*;
use unisondb_types::{Digest, LineageId};

/// What the world was told, and what it may find.
#[derive(Default)]
struct Told {
    begun: bool,
    /// Records acknowledged, by position: they must be there.
    acknowledged: BTreeMap<u64, Bytes>,
    /// Records that may be there, acknowledged or not.
    possible: BTreeMap<u64, BTreeSet<Bytes>>,
    sealed: BTreeSet<SegmentId>,
    /// Nothing below is asked for any more.
    purged: u64,
    cut: bool,
}

impl Told {
    fn append(&mut self, wal: &Wal, n: u64, commands: &[(Kind, Bytes)]) -> Result<(), Error> {
        for e in wal.append(TERM, time(n), commands)? {
            let lsn = e.record.lsn.get();
            self.possible
                .entry(lsn)
                .or_default()
                .insert(e.record.payload);
        }
        Ok(())
    }

    fn sync(&mut self, wal: &Wal) -> Result<(), Error> {
        let result = wal.sync();
        // Whatever is said to be durable is, whether or not the rest failed.
        let durable = wal.durable();
        for e in wal.read(Lsn::new(self.purged.max(1)), usize::MAX / 2)? {
            if e.record.lsn <= durable {
                self.acknowledged
                    .insert(e.record.lsn.get(), e.record.payload);
            }
        }
        wal.commit(result?);
        Ok(())
    }

    fn truncate(&mut self, wal: &Wal, after: Lsn) -> Result<(), Error> {
        self.acknowledged.retain(|lsn, _| *lsn <= after.get());
        wal.truncate_after(after)?;
        self.possible.retain(|lsn, _| *lsn <= after.get());
        Ok(())
    }

    fn seal(&mut self, wal: &Wal) -> Result<(), Error> {
        for s in wal.unsealed_ended() {
            if s.last_lsn.expect("it rolled") <= wal.committed() {
                wal.seal(s.id, digest(1))?;
                self.sealed.insert(s.id);
            }
        }
        Ok(())
    }

    fn purge(&mut self, wal: &Wal, up_to: SegmentId) -> Result<(), Error> {
        let first_kept = wal.segment(up_to.next()).map(|s| s.first_lsn().get());
        self.purged = first_kept.expect("the next one is there");
        self.sealed.retain(|id| *id > up_to);
        wal.purge(up_to).map(drop)
    }

    /// What must hold on `machine` after any power loss.
    fn check(&self, machine: &Machine, context: &str) {
        let survey = crate::survey(on(machine), &dir()).unwrap();
        for s in &survey.segments {
            let info = s.found.as_ref();
            let info = info.unwrap_or_else(|e| panic!("{context}: half a file {:?}: {e}", s.path));
            if info.digest.is_some() {
                crate::verify(on(machine), &s.path).unwrap_or_else(|e| panic!("{context}: {e}"));
            }
        }
        let wal = match machine.try_open(options(), 0) {
            Ok((wal, _)) => wal,
            Err(Error::Empty { .. }) if !self.begun => return,
            Err(Error::CutOff { .. }) if self.cut => return,
            Err(e) => panic!("{context}: {e}"),
        };
        for (lsn, payload) in self.acknowledged.range(self.purged..) {
            let found = wal.read(Lsn::new(*lsn), 1);
            let found = found.unwrap_or_else(|e| panic!("{context}: record {lsn} is lost: {e}"));
            assert_eq!(found[0].record.payload, payload, "{context}: record {lsn}");
        }
        for e in all(&wal, wal.first().get()) {
            let lsn = e.record.lsn.get();
            if lsn > 1 {
                let known = self.possible.get(&lsn);
                let known = known.is_some_and(|p| p.contains(&e.record.payload));
                assert!(
                    known,
                    "{context}: record {lsn} was taken back or never written"
                );
            }
        }
        for id in &self.sealed {
            let found = wal.segment(*id).map(|s| s.digest);
            assert_eq!(found, Some(Some(digest(1))), "{context}: segment {id}");
        }
        // And it goes on.
        wal.append(TERM, time(0), &[user(0, 700)]).unwrap();
        wal.sync().unwrap();
    }
}

/// A life: begin, append, roll, seal, truncate, purge, restart.
fn life(machine: &Machine, told: &mut Told) -> Result<(), Error> {
    crate::begin(&machine.platform, &dir(), &created(), TERM, time(0))?;
    told.begun = true;
    let (wal, _) = machine.try_open(options(), 0)?;
    for n in 2..16 {
        wal.reserve(700)?;
        told.append(&wal, n, &[user(n, 300), user(n + 1000, 250)])?;
        if n % 3 == 0 {
            told.sync(&wal)?;
            told.seal(&wal)?;
        }
    }
    let active = wal.active().id.get();
    told.append(&wal, 20, &[seal(active)])?;
    told.sync(&wal)?;
    told.seal(&wal)?;
    let keep = wal.last();
    for n in 21..40 {
        told.append(&wal, n, &[user(n, 450)])?;
    }
    // Durable but not committed, over several segments; then taken back, and others written.
    wal.sync()?;
    told.truncate(&wal, Lsn::new(keep.get() + 4))?;
    for n in 40..50 {
        told.append(&wal, n, &[user(n, 333)])?;
    }
    told.sync(&wal)?;
    told.seal(&wal)?;
    told.purge(&wal, SegmentId::new(1))?;
    drop(wal);
    let (wal, _) = machine.try_open(options(), 0)?;
    for n in 50..60 {
        told.append(&wal, n, &[user(n, 300)])?;
        told.sync(&wal)?;
    }
    Ok(())
}

/// Runs `scenario` once to count its operations, then again with the disk frozen at each of them.
fn sweep(
    scenario: impl Fn(&Machine, &mut Told) -> Result<(), Error>,
    seeds: u64,
    after: impl Fn(&Machine, &Told, &str),
) {
    let whole = Machine::new();
    let from = whole.disk.ops();
    scenario(&whole, &mut Told::default()).unwrap();
    let to = whole.disk.ops();
    assert!(to > from + 20);
    for n in from..=to {
        let machine = Machine::new();
        machine.disk.set_seed(n);
        machine.disk.freeze_at(n);
        let mut told = Told::default();
        let ended = scenario(&machine, &mut told);
        assert_eq!(ended.is_err(), n < to, "at {n}");
        for seed in 0..seeds {
            let crashed = machine.crash(n * 31 + seed);
            after(&crashed, &told, &format!("operation {n}, seed {seed}"));
        }
        after(&machine.kill(), &told, &format!("operation {n}, killed"));
    }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_power_fails() {
    sweep(life, 3, |machine, told, context| {
        told.check(machine, context)
    });
}

#[test]
fn nothing_is_lost_when_power_fails_again_during_the_start() {
    // The kill leaves written, unsynced bytes: the start must not lean on them.
    let whole = Machine::new();
    life(&whole, &mut Told::default()).unwrap();
    let to = whole.disk.ops();
    for n in (5..to).step_by(13) {
        let lay_out = || {
            let machine = Machine::new();
            machine.disk.set_seed(n);
            machine.disk.freeze_at(n);
            let mut told = Told::default();
            drop(life(&machine, &mut told));
            (machine.kill(), told)
        };
        let (killed, _) = lay_out();
        let from = killed.disk.ops();
        drop(killed.try_open(options(), 0));
        for at in from..killed.disk.ops() {
            let (killed, told) = lay_out();
            killed.disk.freeze_at(at);
            drop(killed.try_open(options(), 0));
            told.check(&killed.crash(at), &format!("operation {n}, start {at}"));
        }
    }
}

#[test]
fn what_a_start_has_shown_survives_a_power_loss() {
    let whole = Machine::new();
    life(&whole, &mut Told::default()).unwrap();
    for n in (5..whole.disk.ops()).step_by(3) {
        let machine = Machine::new();
        machine.disk.set_seed(n);
        machine.disk.freeze_at(n);
        drop(life(&machine, &mut Told::default()));
        let killed = machine.kill();
        let Ok((wal, _)) = killed.try_open(options(), 0) else {
            continue;
        };
        let shown = all(&wal, wal.first().get());
        let again = killed.crash(n).open();
        assert_eq!(
            all(&again, again.first().get())[..shown.len()],
            shown,
            "{n}"
        );
    }
}

#[test]
fn a_cut_and_the_lineage_behind_it_are_whole_or_not_there() {
    let fork = lsn(9);
    let restore = |machine: &Machine, told: &mut Told| -> Result<(), Error> {
        crate::begin(&machine.platform, &dir(), &created(), TERM, time(0))?;
        told.begun = true;
        let (wal, _) = machine.try_open(options(), 0)?;
        for n in 2..12 {
            told.append(&wal, n, &[user(n, 300)])?;
        }
        told.sync(&wal)?;
        drop(wal);
        let by: LineageId = lineage(2);
        told.cut = true;
        told.acknowledged.retain(|lsn, _| *lsn <= fork.get());
        let digest: Digest = digest(9);
        let info = crate::cut(&machine.platform, &dir(), id(1), fork, digest, by)?;
        let parent = unisondb_types::Parent {
            lineage: lineage(1),
            fork,
            term: info.last_term,
            stamp: info.last_stamp,
            digest,
            segment: id(1),
            chain: info.chain.expect("it is sealed"),
            chain_lsn: fork,
        };
        let record = forked(2, &created(), parent, id(1_000_000));
        let payload = unisondb_types::Command::Lineage(Box::new(record.clone())).payload();
        told.possible
            .entry(fork.get() + 1)
            .or_default()
            .insert(payload.clone());
        crate::begin(&machine.platform, &dir(), &record, TERM, time(0))?;
        told.acknowledged.insert(fork.get() + 1, payload);
        told.cut = false;
        machine.try_open(options(), 0).map(drop)
    };
    sweep(restore, 4, |machine, told, context| {
        told.check(machine, context)
    });
}

#[test]
fn a_sealed_file_appears_whole() {
    let seal_it = |machine: &Machine, told: &mut Told| -> Result<(), Error> {
        crate::begin(&machine.platform, &dir(), &created(), TERM, time(0))?;
        told.begun = true;
        let (wal, _) = machine.try_open(options(), 0)?;
        for n in 2..20 {
            told.append(&wal, n, &[user(n, 300)])?;
        }
        told.sync(&wal)?;
        drop(wal);
        crate::seal_file(&machine.platform, &dir(), id(1), digest(1))?;
        told.sealed.insert(id(1));
        Ok(())
    };
    sweep(seal_it, 4, |machine, told, context| {
        told.check(machine, context)
    });
}
