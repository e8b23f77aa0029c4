//! Who belongs to the group: kept with the state, and what it means for a start. One voter alone
//! decides what lies in its log; one of several applies no more than what it knows to be committed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use std::fs;
use std::path::PathBuf;

use rig::Rig;
use unisondb_engine::start::{self, Origin, StartError};
use unisondb_platform::real;
use unisondb_types::{Command, Lsn, Members};

/// A folder in which a namespace is opened again and again.
struct Place {
    _dir: tempfile::TempDir,
    home: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let home = rig::home(dir.path());
        Place { _dir: dir, home }
    }
    fn try_open(&self) -> Result<Rig, StartError> {
        Rig::open(&real::platform(), &self.home)
    }
    fn open(&self) -> Rig {
        self.try_open().unwrap()
    }
}

/// Durable here, and committed by nobody yet.
fn append(rig: &Rig, value: &str) -> Lsn {
    let wal = rig.engine.wal();
    let command = Command::User {
        idempotency: None,
        action: rig::put("b", value),
    };
    let now = rig.platform.clock.now();
    let record = (command.kind(), command.payload());
    wal.append(rig.term, now, &[record]).unwrap();
    wal.sync().unwrap()
}

fn group(voters: &[u64], learners: &[u64]) -> Members {
    let mut members = Members::of(voters.to_vec());
    members.learners = learners.to_vec();
    members
}

fn own(rig: &Rig) -> u64 {
    rig.engine.history().members[0]
}

#[test]
fn members_are_those_of_the_lineage_until_a_record_says_otherwise() {
    let place = Place::new();
    let mut rig = place.open();
    let own = own(&rig);
    let begun = rig.engine.applied_stand().unwrap().membership;
    assert_eq!((begun.lsn, begun.members), (Lsn::FIRST, group(&[own], &[])));

    rig.put("a", "1").unwrap();
    let changed = group(&[own], &[7]);
    let (lsn, _) = rig.propose(&Command::Membership(changed.clone())).unwrap();
    rig.put("b", "2").unwrap();
    let applied = rig.engine.applied_stand().unwrap();
    assert_eq!((applied.lsn, applied.membership.lsn), (lsn.next(), lsn));
    assert_eq!(applied.membership.members, changed);

    let before = rig.engine.flushed_stand().unwrap();
    assert!(
        before.is_none_or(|stand| stand.lsn < lsn),
        "not flushed yet"
    );
    rig.engine.flush().unwrap();
    assert_eq!(rig.engine.flushed_stand().unwrap().unwrap(), applied);
    drop(rig);
    assert_eq!(place.open().engine.applied_stand().unwrap(), applied);
}

#[test]
fn one_of_several_applies_at_a_start_what_it_knows_to_be_committed() {
    let place = Place::new();
    let mut rig = place.open();
    let members = group(&[own(&rig), 8, 9], &[]);
    rig.propose(&Command::Membership(members)).unwrap();
    let vouched = rig.put("a", "1").unwrap();
    // What stands on the first one's frame was committed when it was made, and no more is known.
    append(&rig, "2");
    append(&rig, "3");
    let last = append(&rig, "4");
    drop(rig);

    let rig = place.open();
    assert_eq!(rig.engine.applied(), vouched);
    let wal = rig.engine.wal();
    assert_eq!((wal.committed(), wal.last()), (vouched, last));
}

#[test]
fn the_only_voter_applies_all_of_its_log() {
    let place = Place::new();
    let rig = place.open();
    let last = append(&rig, "1");
    drop(rig);
    assert_eq!(place.open().engine.applied(), last);
}

#[test]
fn a_lost_vote_is_made_again_by_the_only_voter_and_by_nobody_else() {
    let place = Place::new();
    let mut rig = place.open();
    let (id, term) = (own(&rig), rig.term);
    let damage = || fs::write(place.home.join("wal/raft.state"), [1; 1024]).unwrap();
    rig.put("a", "1").unwrap();
    drop(rig);
    damage();
    let mut rig = place.open();
    assert_eq!(own(&rig), id);
    assert!(rig.term > term, "above every term in the log");

    let members = group(&[id, 8, 9], &[]);
    rig.propose(&Command::Membership(members)).unwrap();
    rig.put("b", "2").unwrap();
    drop(rig);
    damage();
    let Err(StartError::Refused(why)) = place.try_open() else {
        panic!("it could vote twice in one term");
    };
    assert!(why.contains("raft.state is damaged"), "{why}");
    assert!(why.contains("add it again"), "it says what to do: {why}");
}

#[test]
fn who_joins_begins_with_the_very_segment_that_the_lineage_began_with() {
    let (founder, joiner) = (Place::new(), Place::new());
    let rig = founder.open();
    let first = rig.engine.wal().read(Lsn::FIRST, 1).unwrap();
    let origin = Origin::of(&first[0].record).unwrap();
    let folders = rig::folders(&joiner.home);
    let join = || start::join(&real::platform(), &folders, &origin);
    let id = join().unwrap();
    assert_eq!(join().unwrap(), id, "done again it is the same member");
    assert_ne!(id, own(&rig));

    let joined = joiner.open();
    assert_eq!(joined.engine.applied(), Lsn::FIRST);
    let record = &joined.engine.wal().read(Lsn::FIRST, 1).unwrap()[0];
    assert_eq!(record, &first[0], "CRC and all");
    assert_eq!(
        joined.engine.applied_stand().unwrap().membership.members,
        group(&[own(&rig)], &[]),
        "it is no member yet"
    );
    drop(joined);
    let Err(StartError::Refused(why)) = join() else {
        panic!("it has a state already");
    };
    assert!(why.contains("only an empty folder joins"), "{why}");
}

#[test]
fn a_lineage_that_began_at_a_fork_cannot_be_joined_by_its_log() {
    let world = rig::world::small_world();
    world.empty("wal");
    world.put_snapshot();
    let rig = world.open(&rig::request()).unwrap();
    let begun = rig.engine.history().first_lsn();
    let record = &rig.engine.wal().read(begun, 1).unwrap()[0].record;
    let origin = Origin::of(record).unwrap();
    let place = Place::new();
    let folders = rig::folders(&place.home);
    let Err(StartError::Refused(why)) = start::join(&real::platform(), &folders, &origin) else {
        panic!("the records before the fork are nowhere");
    };
    assert!(why.contains("snapshot"), "{why}");
    assert!(!place.home.exists(), "nothing was made");
}

#[test]
fn a_vote_of_another_history_keeps_no_record_from_being_applied() {
    let (place, other) = (Place::new(), Place::new());
    let rig = place.open();
    let last = append(&rig, "1");
    drop(rig);
    drop(other.open());
    // As after a restore that is taken back by hand: the log of before, the vote of since.
    let vote = "wal/raft.state";
    fs::copy(other.home.join(vote), place.home.join(vote)).unwrap();
    assert_eq!(place.open().engine.applied(), last);
}

#[test]
fn who_joined_makes_no_vote_and_applies_nothing_by_itself() {
    let (founder, joiner) = (Place::new(), Place::new());
    let rig = founder.open();
    let first = rig.engine.wal().read(Lsn::FIRST, 1).unwrap();
    let origin = Origin::of(&first[0].record).unwrap();
    start::join(&real::platform(), &rig::folders(&joiner.home), &origin).unwrap();
    let joined = joiner.open();
    let last = append(&joined, "replicated, and committed by nobody yet");
    drop(joined);
    let joined = joiner.open();
    assert_eq!(
        (joined.engine.applied(), joined.engine.wal().last()),
        (Lsn::FIRST, last)
    );
    drop(joined);
    fs::write(joiner.home.join("wal/raft.state"), [1; 1024]).unwrap();
    assert!(
        matches!(joiner.try_open(), Err(StartError::Refused(_))),
        "it would take its founder's name"
    );
}
