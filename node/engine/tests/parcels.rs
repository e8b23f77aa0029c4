//! A member that lacks purged records takes over what another gives: a snapshot, and the beginning of the
//! segment that its last record stands in. Whole or not at all, whatever is killed when; and what its log
//! holds from then on is everybody's, byte for byte.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;
mod scenario;

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use rig::Rig;
use unisondb_engine::backup::Outgoing;
use unisondb_engine::start::{self, Arrived, Incoming, Origin, StartError};
use unisondb_platform::Platform;
use unisondb_platform::memory::{MemoryClock, MemoryDisk, platform_on};
use unisondb_types::{Command, Lsn, SegmentId};
use unisondb_wal::{Frame, SegmentState};

fn machine(disk: &MemoryDisk, seed: u64) -> Platform {
    platform_on(disk, &MemoryClock::default(), seed)
}

fn home() -> PathBuf {
    rig::home(Path::new("/data"))
}

/// Opens it as a member that does not lead: it proposes nothing.
fn open(platform: &Platform) -> Result<Rig, StartError> {
    let opened = start::open(platform, &rig::folders(&home()), &rig::request())?;
    Ok(Rig {
        platform: platform.clone(),
        engine: opened.engine,
        applier: opened.applier,
        term: opened.vote.state().term,
        notes: opened.notes,
        model: rig::Model::default(),
    })
}

fn writes(leader: &mut Rig, name: &str, n: usize) {
    for i in 0..n {
        let value = format!("{name} {i} {}", "x".repeat(i * 7 % 200));
        leader.put(&format!("k{}", i % 20), &value).unwrap();
    }
}

/// Takes what the leader has behind the member's last record, as a follower does.
fn follow(member: &mut Rig, leader: &Rig) {
    let (from, to) = (member.engine.wal().clone(), leader.engine.wal().clone());
    while from.last() < to.last() {
        for entry in to.read(from.last().next(), 16 << 10).unwrap() {
            let mut bytes = BytesMut::new();
            entry.put_frame(&mut bytes);
            let frame = Frame::split_from(&mut bytes.freeze()).unwrap();
            from.append_frames(&[frame]).unwrap();
        }
    }
    from.sync().unwrap();
    from.commit(from.last());
    while member.applier.applied() < from.last() {
        for entry in from
            .read(member.applier.applied().next(), 16 << 10)
            .unwrap()
        {
            member.applier.apply(&entry).unwrap();
            member.applier.seal_owed().unwrap();
        }
    }
}

/// How the leader's log ends when it makes a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Inside a segment.
    Inside,
    /// With the record that ends a segment.
    WithASeal,
    /// Behind that lie records that are nobody's data: another seal would end nothing.
    BehindASeal,
}

/// A leader that has purged what a member lacks; the member's disk, closed, and how far it goes.
struct Pair {
    leader: Rig,
    member: MemoryDisk,
    stands: Lsn,
}

impl Pair {
    fn new(ends: Ends) -> Pair {
        let mut leader = Rig::open(&machine(&scenario::fresh_disk(), 1), &home()).unwrap();
        let first = leader.engine.wal().read(Lsn::FIRST, 1).unwrap();
        let origin = Origin::of(&first[0].record).unwrap();
        let disk = scenario::fresh_disk();
        let platform = machine(&disk, 2);
        start::join(&platform, &rig::folders(&home()), &origin).unwrap();
        let mut member = open(&platform).unwrap();
        writes(&mut leader, "first", 60);
        follow(&mut member, &leader);
        let stands = member.engine.wal().last();
        member.close();
        writes(&mut leader, "second", 90);
        if ends != Ends::Inside {
            leader.seal().unwrap();
        }
        if ends == Ends::WithASeal {
            writes(&mut leader, "third", 1);
            // The seal alone, without the record that confirms what it ended.
            let id = leader.engine.wal().active().id;
            let last = leader.engine.wal().last();
            let clock = leader.platform.clock.now();
            let seal = Command::Seal(id);
            let wal = leader.engine.wal().clone();
            let term = leader.term;
            let made = wal.append(term, clock, &[(seal.kind(), seal.payload())]);
            wal.sync().unwrap();
            wal.commit(wal.last());
            leader.applier.apply(&made.unwrap()[0]).unwrap();
            assert_eq!(leader.engine.applied(), last.next());
        }
        leader.engine.flush().unwrap();
        let gone = leader.engine.wal().purge(SegmentId::new(u64::MAX)).unwrap();
        assert!(!gone.is_empty() && leader.engine.wal().first() > stands.next());
        disk.freeze();
        Pair {
            leader,
            member: disk.kill(),
            stands,
        }
    }

    fn outgoing(&self) -> Outgoing {
        let outgoing = self.leader.engine.outgoing(self.leader.engine.applied());
        outgoing.unwrap()
    }
}

/// Receives all of it, in pieces that meet no border.
fn receive(platform: &Platform, outgoing: &Outgoing, home: &Path) -> Result<Incoming, StartError> {
    let mut incoming = Incoming::begin(platform, home, outgoing.parcel)?;
    while !incoming.is_all_there() {
        incoming.write(&outgoing.read(incoming.at(), 5_001).unwrap())?;
    }
    Ok(incoming)
}

fn take(platform: &Platform, pair: &Pair, outgoing: &Outgoing) -> Result<Arrived, StartError> {
    let history = pair.leader.engine.history();
    let incoming = receive(platform, outgoing, &home())?;
    incoming.finish(&history.namespace, history.lineage, Lsn::ZERO)
}

/// The member goes on as everybody: the same state, and the same bytes in every segment that is sealed.
fn goes_on(mut member: Rig, pair: &mut Pair, what: &str) {
    let leader = &mut pair.leader;
    leader.checks().unwrap();
    writes(leader, "fourth", 60);
    leader.seal().unwrap();
    leader.checks().unwrap();
    follow(&mut member, leader);
    assert!(member.moment() == leader.moment(), "{what}: another state");
    let wal = member.engine.wal();
    let mut equal = 0;
    for segment in wal.segments() {
        let theirs = leader.engine.wal().segment(segment.id).unwrap();
        assert_eq!(segment.state, theirs.state, "{what}: {}", segment.id);
        if segment.state == SegmentState::Sealed {
            let sums = (
                wal.sha256(segment.id),
                leader.engine.wal().sha256(segment.id),
            );
            assert_eq!(sums.0.unwrap(), sums.1.unwrap(), "{what}: {}", segment.id);
            equal += 1;
        }
    }
    assert!(equal > 2, "{what}: {equal} sealed segments");
    member.close();
}

#[test]
fn a_member_takes_over_state_and_log_and_goes_on_with_everybodys_bytes() {
    for ends in [Ends::Inside, Ends::WithASeal, Ends::BehindASeal] {
        let mut pair = Pair::new(ends);
        let what = format!("{ends:?}");
        let platform = machine(&pair.member, 3);
        let before = start::inspect(&platform, &rig::folders(&home()), &rig::request()).unwrap();
        let outgoing = pair.outgoing();
        let arrived = take(&platform, &pair, &outgoing).unwrap();
        assert_eq!(arrived.parcel.lsn, pair.leader.engine.applied(), "{what}");
        start::put_aside(&platform, &home(), arrived).unwrap();
        let member = open(&platform).unwrap();
        assert_eq!(member.engine.applied(), arrived.parcel.lsn, "{what}");
        assert_eq!(member.engine.wal().last(), arrived.parcel.lsn, "{what}");
        assert!(member.notes.iter().any(|note| note.value == "snapshot"));
        assert_eq!(before.namespace, *member.engine.namespace());
        let first = member.engine.wal().segments()[0].id;
        assert_eq!(first, arrived.parcel.segment, "{what}: the old log is gone");
        drop(outgoing);
        goes_on(member, &mut pair, &what);
        // And once more, from what it is now.
        let again = open(&platform).unwrap();
        assert!(
            again.moment() == pair.leader.moment(),
            "{what}: opened again"
        );
    }
}

#[test]
fn a_log_whose_beginning_a_parcel_needs_is_not_purged_while_it_is_kept() {
    let mut pair = Pair::new(Ends::Inside);
    let outgoing = pair.outgoing();
    let needed = outgoing.parcel.segment;
    writes(&mut pair.leader, "more", 90);
    pair.leader.seal().unwrap();
    pair.leader.checks().unwrap();
    let wal = pair.leader.engine.wal().clone();
    let all = SegmentId::new(u64::MAX);
    assert!(
        wal.purgeable(all)
            .is_none_or(|lsn| lsn < outgoing.parcel.lsn)
    );
    wal.purge(all).unwrap();
    assert!(wal.segment(needed).is_some());
    drop(outgoing);
    let last = wal.purgeable(all).unwrap();
    assert!(
        last >= pair
            .leader
            .engine
            .wal()
            .segment(needed)
            .unwrap()
            .last_lsn
            .unwrap()
    );
    wal.purge(all).unwrap();
    assert_eq!((wal.segment(needed), wal.first()), (None, last.next()));
}

#[test]
fn any_damage_on_the_way_is_found_before_anything_is_touched() {
    let pair = Pair::new(Ends::BehindASeal);
    let platform = machine(&pair.member, 3);
    let outgoing = pair.outgoing();
    let history = pair.leader.engine.history();
    let bytes = outgoing.read(0, usize::MAX).unwrap().len();
    let all = outgoing.parcel.bytes().unwrap();
    let mut whole = outgoing.read(0, usize::MAX).unwrap();
    whole.extend(outgoing.read(bytes as u64, usize::MAX).unwrap());
    assert_eq!(whole.len() as u64, all);
    let arrives = |bytes: &[u8], namespace: &str, through| {
        let mut incoming = Incoming::begin(&platform, &home(), outgoing.parcel).unwrap();
        incoming.write(bytes)?;
        incoming.finish(&namespace.parse().unwrap(), history.lineage, through)
    };
    // Every page, and the segment more closely.
    let places = (0..whole.len()).step_by(4_096);
    let places = places.chain((bytes..whole.len()).step_by(37));
    for at in places.map(|at| at + at % 31).filter(|at| *at < whole.len()) {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        let refused = arrives(&bad, "users", Lsn::ZERO);
        assert!(refused.is_err(), "byte {at} of {}", whole.len());
    }
    let refused = |result: Result<Arrived, StartError>| result.unwrap_err().to_string();
    let why = refused(arrives(&whole[..whole.len() - 1], "users", Lsn::ZERO));
    assert!(why.contains("no snapshot to take"), "{why}");
    let why = refused(arrives(&whole, "others", Lsn::ZERO));
    assert!(why.contains("not of others"), "{why}");
    let why = refused(arrives(&whole, "users", outgoing.parcel.lsn.next()));
    assert!(why.contains("is wanted"), "{why}");
    whole.push(0);
    let why = refused(arrives(&whole, "users", Lsn::ZERO));
    assert!(why.contains("more of a snapshot"), "{why}");
    // All that came to nothing: what it was it is.
    let member = open(&platform).unwrap();
    assert_eq!(member.engine.wal().last(), pair.stands);
}

#[test]
fn what_was_made_in_a_term_that_this_node_does_not_know_is_not_put_aside() {
    let pair = Pair::new(Ends::Inside);
    let platform = machine(&pair.member, 3);
    let outgoing = pair.outgoing();
    let mut arrived = take(&platform, &pair, &outgoing).unwrap();
    arrived.parcel.term = unisondb_types::Term::new(9);
    let refused = start::put_aside(&platform, &home(), arrived).unwrap_err();
    assert!(refused.to_string().contains("term 9"), "{refused}");
}

#[test]
fn an_empty_folder_begins_with_a_parcel() {
    let mut pair = Pair::new(Ends::BehindASeal);
    let platform = machine(&scenario::fresh_disk(), 4);
    let outgoing = pair.outgoing();
    let folders = rig::folders(&home());
    let id = start::prepare(&platform, &folders, outgoing.parcel.term).unwrap();
    assert_eq!(
        start::prepare(&platform, &folders, outgoing.parcel.term).unwrap(),
        id,
        "drawn once"
    );
    let arrived = take(&platform, &pair, &outgoing).unwrap();
    start::put_aside(&platform, &home(), arrived).unwrap();
    let opened = start::open(&platform, &folders, &rig::request()).unwrap();
    assert_eq!(opened.vote.state().raft_id, id);
    drop((opened, outgoing));
    let member = open(&platform).unwrap();
    goes_on(member, &mut pair, "an empty folder");
}

/// Receives, puts aside, starts and follows; how far it came when the disk froze.
fn catch_up(disk: &MemoryDisk, pair: &Pair, outgoing: &Outgoing) -> Result<(), (bool, StartError)> {
    let platform = machine(disk, disk.ops());
    let arrived = take(&platform, pair, outgoing).map_err(|e| (false, e))?;
    start::put_aside(&platform, &home(), arrived).map_err(|e| (false, e))?;
    let member = open(&platform).map_err(|e| (true, e))?;
    assert_eq!(member.engine.applied(), arrived.parcel.lsn);
    member.close();
    Ok(())
}

#[test]
fn killed_or_without_power_at_any_operation_it_is_the_old_member_or_the_new_one() {
    let mut pair = Pair::new(Ends::BehindASeal);
    let outgoing = pair.outgoing();
    let old = pair.stands;
    let new = outgoing.parcel.lsn;
    pair.member.freeze();
    let reference = pair.member.kill();
    catch_up(&reference, &pair, &outgoing).unwrap();
    let ops = reference.ops();
    let mut seen = (0, 0);
    for n in 0..ops {
        let disk = pair.member.kill();
        disk.freeze_at(n);
        let put = match catch_up(&disk, &pair, &outgoing) {
            Ok(()) => true,
            Err((put, _)) => put,
        };
        let ends = [
            ("killed", disk.kill()),
            ("without power", disk.crash(n)),
            ("without power again", disk.crash(n + 1_000_000)),
        ];
        for (how, left) in ends {
            let what = format!(
                "{how} at operation {n}: {}",
                reference.log()[usize::try_from(n).unwrap()]
            );
            let platform = machine(&left, 1_000 + n);
            let member = open(&platform).unwrap_or_else(|e| panic!("{what}: {e}"));
            let last = member.engine.wal().last();
            assert!(
                last == new || (last == old && !put),
                "{what}: LSN {last}, neither {old} nor {new} (put aside: {put})"
            );
            match last == new {
                true => {
                    assert!(member.moment() == pair.leader.moment(), "{what}");
                    seen.1 += 1;
                }
                false => seen.0 += 1,
            }
            member.close();
            if last == old {
                catch_up(&left, &pair, &outgoing).unwrap_or_else(|(_, e)| panic!("{what}: {e}"));
            }
        }
    }
    assert!(seen.0 > 20 && seen.1 > 20, "old and new: {seen:?}");
    // The bytes of what it then writes are everybody's.
    drop(outgoing);
    let member = open(&machine(&reference, 7)).unwrap();
    goes_on(member, &mut pair, "afterwards");
}
