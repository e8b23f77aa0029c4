//! The contract of the traits as functions that panic with the rule that is broken. Every
//! implementation runs them: the real ones, those in memory, and whatever a test wraps around them.
//!
//! What can only be seen by pulling the plug (durability) is not here: the in-memory disk is the
//! model of it, with tests of its own.

mod calls;
mod extras;

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::{Access, Clock, Disk, DiskExt, Entropy, File, FileExt, Offload, OffloadExt};

/// Checks a disk. `make` gives a disk and an empty folder on it, other ones each time.
///
/// # Panics
/// When a rule is broken.
pub fn disk(make: &dyn Fn() -> (Arc<dyn Disk>, PathBuf)) {
    for rule in [
        calls::opening,
        calls::folders,
        calls::listing,
        calls::reading_and_writing,
        calls::lengths,
        calls::renaming_files,
        calls::renaming_folders,
        calls::exchanging,
        calls::removing,
        calls::locking,
        calls::syncing_and_space,
        calls::side_by_side,
        extras::whole_files,
        extras::publishing,
        extras::folders_with_parents,
        extras::removing_all,
    ] {
        let (disk, folder) = make();
        rule(&*disk, &folder);
    }
}

/// Checks that what [`Disk::native`] gives is the same folder.
///
/// # Panics
/// When a rule is broken.
pub fn native(disk: &dyn Disk, folder: &Path) {
    let real = ok("a folder has a native path", disk.native(folder));
    put(disk, &folder.join("here"), b"through the disk");
    let bytes = std::fs::read(real.join("here"));
    assert_eq!(
        ok("it is on the machine's disk", bytes),
        b"through the disk"
    );
    let written = std::fs::write(real.join("there"), b"past the disk");
    ok("the native folder can be written", written);
    assert_eq!(get(disk, &folder.join("there")), b"past the disk");
}

/// Checks a clock; `pass` lets time pass, if it does not by itself.
///
/// # Panics
/// When a rule is broken.
pub async fn clock(clock: &dyn Clock, pass: impl Fn(Duration)) {
    let step = Duration::from_millis(2);
    let (wall, start) = (clock.now(), clock.monotonic());
    assert!(wall.micros() > 0, "the clock shows a time");
    let sleep = clock.sleep(step);
    pass(step);
    sleep.await;
    let passed = clock.monotonic().saturating_sub(start);
    assert!(passed >= step, "a sleep of {step:?} took {passed:?}");
    clock.sleep(Duration::ZERO).await;
    let mut last = clock.monotonic();
    for _ in 0..1000 {
        let now = clock.monotonic();
        assert!(
            now >= last,
            "monotonic time went back from {last:?} to {now:?}"
        );
        last = now;
    }
}

/// Checks a source of chance.
///
/// # Panics
/// When a rule is broken.
pub fn entropy(entropy: &dyn Entropy) {
    let mut ids: Vec<[u8; 16]> = (0..1000).map(|_| entropy.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1000, "an id came twice");
    for len in [0, 1, 7, 8, 9, 31, 1000] {
        let mut bytes = vec![0; len];
        entropy.fill(&mut bytes);
        let zeroes = bytes.rsplit(|b| *b != 0).next().map_or(0, <[u8]>::len);
        assert!(
            len < 31 || zeroes < 16,
            "the end of {len} bytes was not filled"
        );
    }
}

/// Checks where blocking work goes.
///
/// # Panics
/// When a rule is broken.
pub async fn offload(offload: &dyn Offload) {
    let results: Vec<_> = (0..200u64)
        .map(|n| offload.blocking(move || n * n))
        .collect();
    for (n, result) in (0u64..).zip(results) {
        assert_eq!(result.await, n * n, "a job gives its own result");
    }
    // A caller that gives up does not take its job with it.
    let (done, ran) = tokio::sync::oneshot::channel();
    drop(offload.blocking(move || done.send(())));
    assert!(
        ran.await.is_ok(),
        "a job runs though nobody waits for its result"
    );

    let (ask, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<u32>>(1);
    let (ended, end) = tokio::sync::oneshot::channel();
    let answers = async move {
        let mut n = 0;
        while let Some(answer) = asked.recv().await {
            n += 1;
            answer.send(n).ok();
        }
        ended.send(n).ok();
    };
    offload.thread("conformance", Box::pin(answers));
    for n in 1..=3 {
        let (answer, answered) = tokio::sync::oneshot::channel();
        assert!(ask.send(answer).await.is_ok(), "a loop lives until its end");
        assert_eq!(answered.await, Ok(n), "a loop answers in order");
    }
    drop(ask);
    assert_eq!(end.await, Ok(3), "a loop is driven to its end");
}

#[track_caller]
fn ok<T, E: Display>(rule: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{rule}: {error}"))
}

#[track_caller]
fn refused<T>(rule: &str, kind: ErrorKind, result: io::Result<T>) {
    match result {
        Ok(_) => panic!("{rule}: {kind:?} expected, found Ok"),
        Err(error) => assert_eq!(error.kind(), kind, "{rule}"),
    }
}

#[track_caller]
fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Arc<dyn File> {
    let file = ok("a new file is made", disk.open(path, Access::CreateNew));
    ok("a file takes bytes", file.write_all_at(bytes, 0));
    file
}

#[track_caller]
fn get(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    ok("a file is read", disk.read(path, u64::MAX))
}

fn names(disk: &dyn Disk, folder: &Path) -> Vec<String> {
    let entries = ok("a folder is listed", disk.list(folder));
    entries.into_iter().map(|entry| entry.name).collect()
}
