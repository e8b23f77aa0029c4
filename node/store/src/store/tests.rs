//! One LMDB environment: commits, views, growth, and what a failure leaves (D12).
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::image::{self, Image};
use crate::{Create, DATA_FILE, Direction};

pub(crate) const MUST_EXIST: Options = Options {
    map_size: 1 << 20,
    create: Create::MustExist,
};
const SMALL: Options = Options {
    map_size: 1 << 20,
    create: Create::IfMissing,
};

pub(crate) fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), SMALL).unwrap();
    (dir, store)
}

fn put(store: &Store, key: &[u8], value: &[u8]) {
    store.commit([(key, Some(value))]).unwrap();
}

pub(crate) fn copy(store: &Store) -> Vec<u8> {
    let mut image = Vec::new();
    let bytes = store
        .image(|| (), &mut |chunk| {
            image.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
    assert_eq!(bytes, image.len() as u64);
    image
}

#[test]
fn a_commit_is_there_after_closing_and_opening_again() {
    let (dir, store) = store();
    put(&store, b"a", b"1");
    let view = store.read().unwrap();
    store
        .commit([(&b"a"[..], None), (b"b", Some(&b"2"[..])), (b"none", None)])
        .unwrap();
    // The view is of its own commit.
    assert_eq!(view.get(b"a").unwrap(), Some(&b"1"[..]));
    assert_eq!(view.get(b"b").unwrap(), None);
    drop(view);
    store.close();

    let store = Store::open(dir.path(), MUST_EXIST).unwrap();
    let view = store.read().unwrap();
    assert_eq!(view.get(b"a").unwrap(), None);
    assert_eq!(view.get(b"b").unwrap(), Some(&b"2"[..]));
    assert_eq!(view.entries().unwrap(), 1);
}

#[test]
fn a_folder_is_opened_once() {
    let (dir, store) = store();
    let again = Store::open(dir.path(), SMALL);
    assert!(matches!(again, Err(Error::AlreadyOpen { .. })), "{again:?}");
    store.close();
    Store::open(dir.path(), SMALL).unwrap();
}

#[test]
fn a_stale_or_foreign_lock_file_does_not_matter() {
    let (dir, store) = store();
    put(&store, b"a", b"1");
    store.close();
    for lock in [&b""[..], &[0xa5; 100], &[0xa5; 100_000]] {
        fs::write(dir.path().join(crate::LOCK_FILE), lock).unwrap();
        let store = Store::open(dir.path(), MUST_EXIST).unwrap();
        assert_eq!(store.read().unwrap().get(b"a").unwrap(), Some(&b"1"[..]));
        store.close();
    }
}

#[test]
fn close_waits_for_the_last_view() {
    let (dir, store) = store();
    let view = store.read().unwrap();
    let closed = AtomicBool::new(false);
    std::thread::scope(|s| {
        let closer = s.spawn(|| {
            store.close();
            closed.store(true, Ordering::SeqCst);
        });
        assert!(!closed.load(Ordering::SeqCst));
        drop(view);
        closer.join().unwrap();
    });
    Store::open(dir.path(), SMALL).unwrap();
}

#[test]
fn a_missing_or_foreign_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join(DATA_FILE);
    let missing = Store::open(dir.path(), MUST_EXIST).unwrap_err();
    assert!(
        matches!(&missing, Error::Missing { path } if *path == data.canonicalize().unwrap_or(data.clone()))
    );
    assert!(!data.exists());

    let no_folder = Store::open(&dir.path().join("none"), SMALL).unwrap_err();
    assert!(
        no_folder
            .to_string()
            .starts_with("no such file or directory: ")
    );

    for (bytes, said) in [
        (&b""[..], "the file is empty (0 bytes)"),
        (
            b"\x28\xb5\x2f\xfd rest",
            "not an LMDB file: it is still compressed, run zstd -d first",
        ),
        (&[7; 9_000], "not an LMDB file"),
    ] {
        fs::write(&data, bytes).unwrap();
        for options in [SMALL, MUST_EXIST] {
            let e = Store::open(dir.path(), options).unwrap_err();
            assert!(matches!(e, Error::File { .. }), "{e}");
            assert!(e.to_string().ends_with(said), "{e}");
        }
        assert_eq!(fs::read(&data).unwrap(), bytes);
    }
}

#[test]
fn nobody_else_reads_the_state_or_its_lock_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, store) = store();
    put(&store, b"a", b"1");
    store.close();
    // A restore brings no lock file: it is made by the next start.
    fs::remove_file(dir.path().join(crate::LOCK_FILE)).unwrap();
    let _store = Store::open(dir.path(), MUST_EXIST).unwrap();
    for name in [DATA_FILE, crate::LOCK_FILE] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o077, 0, "{name} has mode {:o}", mode.mode());
    }
}

#[test]
fn a_kill_while_making_leaves_no_database_and_the_next_start_makes_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("making")).unwrap();
    fs::write(dir.path().join("making/data.mdb"), b"").unwrap();
    let store = Store::open(dir.path(), SMALL).unwrap();
    put(&store, b"a", b"1");
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [DATA_FILE, crate::LOCK_FILE]);
}

#[test]
fn keys_and_values_out_of_bounds_are_refused_before_anything_is_written() {
    let (_dir, store) = store();
    let long = [1; KEY_BYTES + 1];
    for key in [&b""[..], &long] {
        let e = store.commit([(&b"good"[..], Some(&b"1"[..])), (key, Some(b"2"))]);
        assert!(matches!(e, Err(Error::Size { what: "key", .. })), "{e:?}");
        let view = store.read().unwrap();
        assert_eq!(view.get(key).unwrap(), None);
        assert_eq!(view.entries().unwrap(), 0);
    }
    put(&store, &long[1..], b"");
    assert_eq!(
        store.read().unwrap().get(&long[1..]).unwrap(),
        Some(&b""[..])
    );
}

#[test]
fn a_full_map_grows_once_the_views_have_ended() {
    let (dir, store) = store();
    put(&store, b"old", b"1");
    let big = vec![7; 3 << 20];
    let view = store.read().unwrap();
    let e = store.commit([(&b"big"[..], Some(&big[..]))]);
    assert!(matches!(e, Err(Error::Busy { open: 1, .. })), "{e:?}");
    assert_eq!(view.get(b"old").unwrap(), Some(&b"1"[..]));
    assert_eq!(store.read().unwrap().get(b"big").unwrap(), None);
    drop(view);
    store.commit([(&b"big"[..], Some(&big[..]))]).unwrap();
    for n in 0..20u8 {
        store.commit([([n], Some(vec![n; 400_000]))]).unwrap();
    }
    let view = store.read().unwrap();
    assert_eq!(view.get(b"big").unwrap(), Some(&big[..]));
    assert_eq!(view.get(&[19]).unwrap(), Some(&[19; 400_000][..]));
    drop(view);
    assert!(store.stats().unwrap().map_bytes >= 8 << 20);
    store.close();
    // A map smaller than the file is not taken literally.
    let store = Store::open(dir.path(), MUST_EXIST).unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.map_bytes >= 2 * stats.file_bytes, "{stats:?}");
    put(&store, b"more", b"1");
}

#[test]
fn views_go_on_while_another_thread_makes_the_map_grow() {
    let (_dir, store) = store();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let view = store.read().unwrap();
                    let all = view.range(Bound::Unbounded, Bound::Unbounded, Direction::Forward);
                    // Every commit adds one entry, and its number is the value of all of them.
                    let values: Vec<u8> = all.map(|e| e.unwrap().1[0]).collect();
                    assert!(values.iter().all(|&v| usize::from(v) == values.len()));
                }
            });
        }
        for n in 1..=12u8 {
            let entries = (1..=n).map(|i| ([i], Some(vec![n; 200_000])));
            loop {
                match store.commit(entries.clone()) {
                    Ok(()) => break,
                    Err(Error::Busy { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_copy_taken_while_writing_is_one_whole_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let write = |n: u64| {
        let n = n.to_be_bytes();
        let pad = vec![n[7]; 5_000];
        let entries = (0..40u8).map(|i| ([i], Some([&n[..], &pad].concat())));
        store.commit(entries).unwrap();
        n
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let writer = s.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::SeqCst) {
                n += 1;
                write(n);
            }
        });
        for _ in 0..10 {
            let before = store.read().unwrap().get(&[0]).unwrap().unwrap()[..8].to_vec();
            let mut after = None;
            let mut image = Vec::new();
            store
                .image(
                    || {
                        after =
                            Some(store.read().unwrap().get(&[0]).unwrap().unwrap()[..8].to_vec())
                    },
                    &mut |chunk| {
                        image.extend_from_slice(chunk);
                        Ok(())
                    },
                )
                .unwrap();
            let image = Image::open(image).unwrap();
            let of: Vec<_> = image
                .iter()
                .map(|e| e.unwrap().value[..8].to_vec())
                .collect();
            assert_eq!(of.len(), 40);
            assert!(of.iter().all(|n| *n == of[0]));
            // Not older than what was there, not newer than what `begun` saw.
            assert!(before <= of[0] && of[0] <= after.unwrap());
        }
        done.store(true, Ordering::SeqCst);
        writer.join().unwrap();
    });
}

#[test]
fn a_failing_receiver_ends_the_copy_and_nothing_else() {
    let (_dir, store) = store();
    let entries = (0..200u8).map(|n| ([n], Some(vec![n; 60_000])));
    store.commit(entries).unwrap();
    // At every chunk that there is.
    let mut chunks = 0;
    store
        .image(|| (), &mut |_| {
            chunks += 1;
            Ok(())
        })
        .unwrap();
    assert!(chunks > 10, "{chunks} chunks are few");
    for good_chunks in 0..chunks {
        let mut left = good_chunks;
        let e = store.image(|| (), &mut |_| {
            if left == 0 {
                return Err(io::Error::other("full"));
            }
            left -= 1;
            Ok(())
        });
        assert!(matches!(e, Err(Error::Sink(_))), "{e:?}");
    }
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        store.image(|| (), &mut |_| panic!("the receiver panics on purpose"))
    }));
    assert!(panicked.is_err());
    assert_eq!(store.gate().open(), 0);
    assert_eq!(Image::open(copy(&store)).unwrap().iter().count(), 200);
}

#[test]
fn an_empty_store_has_an_image_too() {
    let (_dir, store) = store();
    let image = Image::open(copy(&store)).unwrap();
    assert_eq!(image.scan().unwrap().entries, 0);
    assert_eq!(image.iter().count(), 0);
    assert!(image.get(b"a").unwrap().is_none());
}

#[test]
fn a_failed_write_poisons_but_a_full_disk_does_not() {
    let (_dir, store) = store();
    put(&store, b"a", b"1");
    for full in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
        assert!(matches!(store.judge(full.into(), 9), Error::Full { .. }));
    }
    put(&store, b"b", b"2");
    let (told, heard) = std::sync::mpsc::channel();
    store.when_poisoned(move |why| told.send(why.to_owned()).unwrap());
    // There is room, so this EIO is no short write.
    assert!(matches!(
        store.judge(Errno::IO.into(), 9),
        Error::Poisoned { .. }
    ));
    let e = store.commit([(b"c", Some(b"3"))]);
    assert!(matches!(e, Err(Error::Poisoned { .. })), "{e:?}");
    assert!(store.poisoned().unwrap().contains("os error 5"));
    assert_eq!(
        heard.iter().collect::<Vec<_>>(),
        [store.poisoned().unwrap()]
    );
    assert_eq!(store.read().unwrap().get(b"b").unwrap(), Some(&b"2"[..]));
    let stats = store.stats().unwrap();
    assert_eq!(stats.file_bytes % stats.page_bytes, 0);
}

/// The file size limit stands in for a full disk: LMDB meets a short write, then EFBIG. In a process
/// of its own, because the limit is the process's, with SIGXFSZ ignored as an inherited setting.
#[test]
fn a_full_disk_leaves_the_old_state_and_the_same_commit_works_when_there_is_room() {
    const CHILD: &str = "UNISONDB_STORE_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return on_a_full_disk();
    }
    let name = "store::tests::a_full_disk_leaves_the_old_state_and_the_same_commit_works_when_there_is_room";
    let out = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && text.contains("room again"),
        "{text}"
    );
}

fn on_a_full_disk() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let (dir, store) = store();
    let options = Options {
        map_size: 64 << 20,
        ..MUST_EXIST
    };
    store.close();
    let store = Store::open(dir.path(), options).unwrap();
    let value = |n: u8| Some(vec![n; 1_000]);
    store.commit((0..100u8).map(|k| ([k], value(1)))).unwrap();
    let unlimited = getrlimit(Resource::Fsize);
    let before = store.stats().unwrap().file_bytes;
    let mut refused = 0;
    // From "not one page" to "not the last page": each way a write can be cut short.
    for room in (0..300_000).step_by(7_001) {
        let limit = Rlimit {
            current: Some(before + room),
            maximum: unlimited.maximum,
        };
        setrlimit(Resource::Fsize, limit).unwrap();
        let changes = || (0..=255u8).map(|k| ([k], value(2)));
        let result = store.commit(changes());
        let view = store.read().unwrap();
        if result.is_ok() {
            break;
        }
        assert!(matches!(result, Err(Error::Full { .. })), "{result:?}");
        refused += 1;
        assert_eq!(view.entries().unwrap(), 100);
        assert_eq!(view.get(&[7]).unwrap(), Some(&[1; 1_000][..]));
        drop(view);
        let file = fs::File::open(dir.path().join(DATA_FILE)).unwrap();
        assert_eq!(Image::open(file).unwrap().scan().unwrap().entries, 100);
    }
    assert!(refused > 10, "{refused}");
    setrlimit(Resource::Fsize, unlimited).unwrap();
    store.commit((0..=255u8).map(|k| ([k], value(3)))).unwrap();
    assert_eq!(store.read().unwrap().entries().unwrap(), 256);
    println!("room again after {refused} refusals");
}

/// Pages that a transaction takes at the end of the file and gives back are not written by LMDB, if
/// it has looked at its free pages before: so there have to be some.
fn used_and_freed(store: &Store) {
    for n in 0..6u8 {
        put(store, b"a", &[n]);
    }
    let value = vec![7; 100_000];
    store
        .commit([(b"b", Some(&value[..])), (b"b", None)])
        .unwrap();
}

#[test]
fn the_file_is_never_shorter_than_its_meta_page_says() {
    let (dir, store) = store();
    let data = dir.path().join(DATA_FILE);
    let before = fs::metadata(&data).unwrap().len();
    used_and_freed(&store);
    let meta = image::check_live(fs::File::open(&data).unwrap()).unwrap();
    assert!(meta.bytes() > before + 20 * 4_096, "{meta:?}");
    assert!(fs::metadata(&data).unwrap().len() >= meta.bytes());
}

#[test]
fn a_kill_before_the_file_is_extended_does_no_harm() {
    let (dir, store) = store();
    let data = dir.path().join(DATA_FILE);
    used_and_freed(&store);
    store.close();
    let meta = image::check_live(fs::File::open(&data).unwrap()).unwrap();
    // As LMDB left it, but for a page or two.
    let file = File::options().write(true).open(&data).unwrap();
    file.set_len(meta.bytes() - 10 * 4_096).unwrap();
    let store = Store::open(dir.path(), MUST_EXIST).unwrap();
    assert_eq!(fs::metadata(&data).unwrap().len(), meta.bytes());
    put(&store, b"b", b"2");
    assert_eq!(store.read().unwrap().entries().unwrap(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = prop_oneof![
        4 => prop::collection::vec(0u8..4, 1..5),
        1 => prop::collection::vec(any::<u8>(), 1..=KEY_BYTES),
    ];
    let value = prop_oneof![
        4 => (any::<u8>(), 0usize..1_200).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 1_500usize..20_000).prop_map(|(b, n)| vec![b; n]),
    ];
    let change = (key, prop::option::weighted(0.7, value));
    let commit = prop::collection::vec(change, 0..40).prop_map(Step::Commit);
    prop::collection::vec(prop_oneof![9 => commit, 1 => Just(Step::Reopen)], 1..14)
}

fn bound(kind: u8, key: &[u8]) -> Bound<&[u8]> {
    match kind % 3 {
        0 => Bound::Unbounded,
        1 => Bound::Included(key),
        _ => Bound::Excluded(key),
    }
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn store_live_file_and_image_all_hold_what_a_map_holds(
        steps in steps(),
        bounds in prop::collection::vec((any::<u8>(), prop::collection::vec(0u8..4, 0..4), any::<u8>(), prop::collection::vec(0u8..4, 0..4)), 12),
    ) {
        let (dir, mut store) = store();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    store.commit(changes.clone()).unwrap();
                    for (key, value) in changes {
                        match value {
                            Some(value) => drop(model.insert(key, value)),
                            None => drop(model.remove(&key)),
                        }
                    }
                }
                Step::Reopen => {
                    store.close();
                    store = Store::open(dir.path(), MUST_EXIST).unwrap();
                }
            }
        }
        let all: Pairs = model.clone().into_iter().collect();
        let view = store.read().unwrap();
        for (from_kind, from, to_kind, to) in &bounds {
            let (from, to) = (bound(*from_kind, from), bound(*to_kind, to));
            let inside = |k: &[u8]| {
                let low = match from { Bound::Unbounded => true, Bound::Included(f) => k >= f, Bound::Excluded(f) => k > f };
                let high = match to { Bound::Unbounded => true, Bound::Included(t) => k <= t, Bound::Excluded(t) => k < t };
                low && high
            };
            let mut expected: Pairs = all.iter().filter(|(k, _)| inside(k)).cloned().collect();
            for direction in [Direction::Forward, Direction::Backward] {
                let found: Pairs = view.range(from, to, direction).map(|e| e.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
                prop_assert_eq!(&found, &expected);
                expected.reverse();
            }
        }
        drop(view);

        let live = fs::read(dir.path().join(DATA_FILE)).unwrap();
        for bytes in [live, copy(&store)] {
            let image = Image::open(&bytes).unwrap();
            let found: Pairs = image.iter().map(|e| e.unwrap()).map(|e| (e.key.to_vec(), e.value.to_vec())).collect();
            prop_assert_eq!(&found, &all);
            let scan = image.scan().unwrap();
            prop_assert_eq!((scan.entries, scan.leaked_pages), (all.len() as u64, 0));
            for (key, value) in &all {
                let found = image.get(key).unwrap();
                prop_assert_eq!(found.as_deref(), Some(&value[..]));
            }
            prop_assert!(image.get(b"\x09absent").unwrap().is_none());
            prop_assert_eq!(image.get(b"").unwrap(), None);
        }
    }
}
