//! Faults at every disk operation of a namespace's life: power lost, process killed, disk full, fsync
//! failed. After each the node is started again over what the disk kept, and the oracle asks for all
//! that was answered.
//!
//! `cargo test` takes a sample of the operations, another one for each kind of fault;
//! `UNISON_SWEEP=full` takes all of them, `UNISON_SWEEP=56` the one that a failure named.

#![allow(clippy::unwrap_used)]

mod rig;
mod scenario;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use scenario::{Node, Step, Told, fresh_disk, life, oracle, restored_life};
use unisondb_engine::start::Request;
use unisondb_platform::memory::{Effect, MemoryDisk, OpKind, Operation, Policy};
use unisondb_types::Target;

/// A disk to begin with, and what is done on it.
struct Story {
    name: &'static str,
    begin: Box<dyn Fn() -> MemoryDisk>,
    request: Request,
    steps: Vec<Step>,
}

/// What the story comes to without a fault, and the operations that it does.
struct Reference {
    told: Told,
    ops: Vec<Operation>,
}

impl Story {
    /// A namespace from its creation on.
    fn life() -> Story {
        Story {
            name: "life",
            begin: Box::new(fresh_disk),
            request: rig::request(),
            steps: life(),
        }
    }

    /// The last snapshot was put back over `db/` and the node started: with a target, without the
    /// vote, or as it is.
    fn restored(name: &'static str, target: Option<Target>, vote: Vote) -> Story {
        let lived = fresh_disk();
        Node::on(&lived, &rig::request()).run(&life()).unwrap();
        scenario::put_snapshot_in_place(&lived);
        if vote == Vote::Gone {
            use unisondb_platform::Disk;
            let wal = scenario::home().join("wal");
            lived.remove_file(&wal.join("raft.state")).unwrap();
            lived.sync_folder(&wal).unwrap();
        }
        Story {
            name,
            begin: Box::new(move || lived.kill()),
            request: Request {
                target,
                ..rig::request()
            },
            steps: restored_life(),
        }
    }

    fn reference(&self) -> Reference {
        let disk = (self.begin)();
        let before = disk.ops();
        assert_eq!(before, 0, "a new machine counts from zero");
        let mut node = Node::on(&disk, &self.request);
        node.run(&self.steps)
            .unwrap_or_else(|e| panic!("{}: without a fault: {e:?}", self.name));
        let ops = disk.log();
        assert_eq!(
            ops.len() as u64,
            disk.ops(),
            "the log of the disk holds the whole story"
        );
        Reference {
            told: node.told,
            ops,
        }
    }

    /// Runs into a fault; gives what was told until then, and whether a step failed.
    fn run(&self, disk: &MemoryDisk) -> (Node, Option<(usize, scenario::Trouble)>) {
        let mut node = Node::on(disk, &self.request);
        let failed = node.run(&self.steps).err();
        (node, failed)
    }
}

#[derive(PartialEq)]
enum Vote {
    There,
    Gone,
}

/// Of the operations at `places`, those to look at: all, one, or every so many, about `most` of them.
fn sample(places: Vec<usize>, most: usize, first: usize) -> Vec<usize> {
    match std::env::var("UNISON_SWEEP") {
        Ok(all) if all == "full" => places,
        Ok(one) => places
            .into_iter()
            .filter(|n| n.to_string() == one)
            .collect(),
        Err(_) => {
            let stride = places.len().div_ceil(most).max(1);
            places
                .into_iter()
                .skip(first % stride)
                .step_by(stride)
                .collect()
        }
    }
}

/// Asks of every one of `places` and tells all that fail, not only the first.
fn sweep(places: Vec<usize>, ask: impl Fn(usize)) {
    let mut failed = Vec::new();
    let asked = places.len();
    for n in places {
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| ask(n))) {
            let text = panic
                .downcast::<String>()
                .map_or_else(|_| "?".to_owned(), |text| *text);
            failed.push(format!("{n}: {text}"));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {asked} fail:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

fn crash_at(story: &Story, reference: &Reference, n: usize) {
    let disk = (story.begin)();
    disk.freeze_at(n as u64);
    let (node, failed) = story.run(&disk);
    assert!(
        disk.is_frozen(),
        "{}: operation {n} was never reached",
        story.name
    );
    let told = node.told.clone();
    drop((node, failed));
    for seed in [n as u64, n as u64 + 1_000_000] {
        let what = format!(
            "{}: power lost at {}, seed {seed}",
            story.name, reference.ops[n]
        );
        let lost = disk.crash(seed);
        oracle::check(&lost, &reference.told, &told, &story.request, &what);
    }
    let what = format!("{}: killed at {}", story.name, reference.ops[n]);
    oracle::check(&disk.kill(), &reference.told, &told, &story.request, &what);
}

fn crash_sweep(story: &Story, most: usize, first: usize) {
    let reference = story.reference();
    let places = sample((0..reference.ops.len()).collect(), most, first);
    sweep(places, |n| crash_at(story, &reference, n));
}

#[test]
fn a_life_has_all_that_faults_are_looked_for_in() {
    let Reference { told, ops } = Story::life().reference();
    assert!(
        told.sealed.len() >= 6,
        "segments sealed: {}",
        told.sealed.len()
    );
    assert!(
        told.copies.len() >= 5,
        "segments copied: {}",
        told.copies.len()
    );
    assert!(told.purged.get() >= 2, "segments purged: {}", told.purged);
    assert!(told.snapshot.is_some());
    let done = |kind: OpKind, name: &str| {
        let named = |op: &&Operation| op.path.to_string_lossy().ends_with(name);
        ops.iter().filter(|op| op.kind == kind).any(|op| named(&op))
    };
    assert!(
        done(OpKind::RemoveFile, "wal/000000001.wal"),
        "a segment goes"
    );
    assert!(done(OpKind::Rename, "wal/next.tmp"), "a segment begins");
    assert!(
        done(OpKind::Write, "btree/base.db.tmp"),
        "a snapshot is written"
    );
    assert!(done(OpKind::Sync, "raft.state"), "a vote is synced again");
}

#[test]
fn power_lost_at_any_operation_of_a_life_loses_nothing_that_was_answered() {
    crash_sweep(&Story::life(), 30, 0);
}

/// Behind the last snapshot, with segments beyond it.
fn some_target() -> Target {
    let life = Story::life().reference().told;
    Target::Lsn(life.snapshot.unwrap().next().next())
}

#[test]
fn power_lost_while_segments_are_set_aside_leaves_a_log_without_a_hole() {
    let story = Story::restored("set aside", Some(some_target()), Vote::There);
    let reference = story.reference();
    let aside = |op: &Operation| {
        let to = op.to.as_ref().unwrap_or(&op.path);
        to.to_string_lossy().contains("wal.lineage-")
    };
    let first = reference.ops.iter().position(aside).unwrap();
    let last = reference.ops.iter().rposition(aside).unwrap();
    // Each by one rename; their folder is synced once for all.
    let moved = |op: &&Operation| op.kind == OpKind::Rename && aside(op);
    let moved = reference.ops.iter().filter(moved).count();
    assert!(moved > 1, "more than one segment is set aside, not {moved}");
    let places = (first..=last + 2).collect();
    sweep(places, |n| crash_at(&story, &reference, n));
}

#[test]
fn power_lost_at_any_operation_of_a_restore_to_a_target_ends_in_that_restore() {
    let target = some_target();
    crash_sweep(
        &Story::restored("restored to a target", Some(target), Vote::There),
        10,
        3,
    );
}

#[test]
fn power_lost_at_any_operation_of_a_restore_without_the_vote_ends_in_that_restore() {
    crash_sweep(
        &Story::restored("restored without the vote", None, Vote::Gone),
        10,
        5,
    );
}

#[test]
fn power_lost_at_any_operation_over_a_snapshot_beside_its_log_goes_on_in_the_same_lineage() {
    crash_sweep(
        &Story::restored("snapshot beside its log", None, Vote::There),
        10,
        7,
    );
}

/// One effect at one operation.
struct At {
    number: u64,
    effect: Effect,
}

impl Policy for At {
    fn decide(&self, operation: &Operation) -> Option<Effect> {
        (operation.number == self.number && operation.kind.is_mutating()).then_some(self.effect)
    }
}

/// The operations of these kinds.
fn of_kinds(reference: &Reference, kinds: &[OpKind]) -> Vec<usize> {
    let fits = |op: &&Operation| kinds.contains(&op.kind);
    reference
        .ops
        .iter()
        .filter(fits)
        .map(|op| usize::try_from(op.number).unwrap())
        .collect()
}

#[test]
fn a_failed_sync_is_final_and_loses_nothing_that_was_answered() {
    let story = Story::life();
    let reference = story.reference();
    let syncs = of_kinds(&reference, &[OpKind::Sync, OpKind::SyncFolder]);
    let poisoned = Cell::new(0);
    let syncs = sample(syncs, 20, 1);
    let enough = syncs.len() / 4;
    sweep(syncs, |n| {
        let disk = (story.begin)();
        disk.set_seed(n as u64);
        disk.set_policy(Arc::new(At {
            number: n as u64,
            effect: Effect::Eio,
        }));
        let (mut node, failed) = story.run(&disk);
        let what = format!(
            "{}: sync failed at {}, then {failed:?}",
            story.name, reference.ops[n]
        );
        if let Some((at, _)) = &failed
            && matches!(story.steps[*at], Step::Do(_) | Step::Seal)
        {
            let refused = node.propose(&unisondb_types::Command::Blank);
            assert!(refused.is_err(), "{what}: the log takes more");
            poisoned.set(poisoned.get() + 1);
        }
        let told = node.told.clone();
        drop(node);
        // Killed, the page cache still shows what the disk has lost: nobody may build on it. (A new
        // folder whose name was lost is beyond anybody's help: files are written anew, folders not.)
        if n == 0 || reference.ops[n - 1].kind != OpKind::CreateFolder {
            let killed = format!("{what}, killed");
            oracle::check(
                &disk.kill(),
                &reference.told,
                &told,
                &story.request,
                &killed,
            );
        }
        let crashed = format!("{what}, power lost");
        oracle::check(
            &disk.crash(n as u64),
            &reference.told,
            &told,
            &story.request,
            &crashed,
        );
    });
    let poisoned = poisoned.get();
    assert!(
        poisoned >= enough,
        "only {poisoned} of the failed syncs were the log's"
    );
}

fn full_at(story: &Story, reference: &Reference, n: usize) {
    let disk = (story.begin)();
    disk.set_policy(Arc::new(At {
        number: n as u64,
        effect: Effect::Full,
    }));
    let (mut node, failed) = story.run(&disk);
    let what = format!(
        "{}: full at {}, then {failed:?}",
        story.name, reference.ops[n]
    );
    let Some((at, trouble)) = failed else {
        // It helped itself, or it was nothing that anybody waits for.
        let last = node.told.moments.last_key_value();
        let last = last.map(|(_, moment)| moment.clone()).unwrap();
        let told = node.told.clone();
        drop(node);
        return room_again(&disk.crash(n as u64), story, &told, &last, &what);
    };
    assert!(
        trouble.is_full(),
        "{what}: does not say that the disk is full"
    );
    if node.rig.is_none() {
        // A start may be tried again; so may anything else, in the same process.
        node.step(&Step::Open)
            .unwrap_or_else(|e| panic!("{what}: start: {e:?}"));
    }
    let rest = story.steps[at..]
        .iter()
        .filter(|s| !matches!(s, Step::Open));
    let rest: Vec<Step> = rest
        .take_while(|s| !matches!(s, Step::Close | Step::Die))
        .cloned()
        .collect();
    node.run(&rest)
        .unwrap_or_else(|e| panic!("{what}: there is room, and yet {e:?}"));
    let (told, last) = (node.told.clone(), node.rig().moment());
    drop(node);
    room_again(&disk.crash(n as u64), story, &told, &last, &what);
}

/// After a power loss: the last state that was shown, and whole backups.
fn room_again(lost: &MemoryDisk, story: &Story, told: &Told, last: &rig::Moment, what: &str) {
    let mut node = Node::on(lost, &story.request);
    node.start()
        .unwrap_or_else(|e| panic!("{what}: does not start: {e}"));
    assert!(
        node.rig().moment() == *last,
        "{what}: something that was answered is gone"
    );
    oracle::published(lost, &Told::default(), told, what);
    oracle::goes_on(node, &story.request, what);
}

#[test]
fn a_full_disk_refuses_and_goes_on_without_a_restart_once_there_is_room() {
    let story = Story::life();
    let reference = story.reference();
    let takes_room = [OpKind::CreateFile, OpKind::CreateFolder, OpKind::Write];
    let places = sample(of_kinds(&reference, &takes_room), 25, 2);
    sweep(places, |n| full_at(&story, &reference, n));
}

#[test]
fn a_footer_that_finds_no_room_is_written_later() {
    let story = Story::life();
    let reference = story.reference();
    let footers = of_kinds(&reference, &[OpKind::Write]).into_iter();
    let footers: Vec<usize> = footers
        .filter(|n| {
            let op = &reference.ops[*n];
            op.len == unisondb_wal::FOOTER_BYTES && op.path.extension().is_some_and(|e| e == "wal")
        })
        .collect();
    assert!(footers.len() >= 6, "{footers:?}");
    sweep(footers, |n| full_at(&story, &reference, n));
}
