//! Images as found: good ones are read, and no byte sequence does more harm than an error (D16).
#![allow(clippy::unwrap_used)]
use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::store::tests::{MUST_EXIST, copy, store};
use crate::{DATA_FILE, Store};

const PAGE: usize = 4_096;

/// A file as it is while a node runs: two levels, overflow values, a list of free pages.
static LIVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (dir, store) = store();
    let key = |n: u8| format!("key {n:03}").into_bytes();
    for n in 0..60u8 {
        let len = if n % 10 == 0 { 9_000 } else { 300 };
        store.commit([(key(n), Some(vec![n; len]))]).unwrap();
    }
    store
        .commit((40..60).map(|n| (key(n), None::<&[u8]>)))
        .unwrap();
    // Moves what is left away from the end.
    for _ in 0..3 {
        store.commit([(key(1), Some(vec![1; 300]))]).unwrap();
    }
    store.close();
    fs::read(dir.path().join(DATA_FILE)).unwrap()
});

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    Image::open(bytes)?.iter().collect()
}

/// The live file with some bytes replaced.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = LIVE.clone();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Offset of the meta page in use.
fn meta_at() -> usize {
    let commit = Image::open(LIVE.as_slice()).unwrap().meta().commit;
    PAGE * usize::from(commit % 2 == 1)
}

fn root_at() -> usize {
    let root = Image::open(LIVE.as_slice())
        .unwrap()
        .meta()
        .main
        .root
        .unwrap();
    PAGE * usize::try_from(root).unwrap()
}

fn corrupted(file: &[u8]) -> String {
    let scanned = Image::open(file).and_then(|i| i.scan());
    match scanned {
        Err(Error::Corrupted { page, why }) => format!("page {page} {why}"),
        other => panic!("passed: {other:?}"),
    }
}

#[test]
fn the_file_under_test_has_every_kind_of_page() {
    let image = Image::open(LIVE.as_slice()).unwrap();
    let scan = image.scan().unwrap();
    assert_eq!(scan.entries, 40);
    assert_eq!(scan.leaked_pages, 0);
    assert!(scan.free_pages > 5, "{scan:?}");
    assert_eq!(image.meta().main.depth, 2);
    assert_eq!(image.meta().free.depth, 1);
    assert_eq!(entries(&LIVE).unwrap().len(), 40);
}

#[test]
fn what_is_not_an_lmdb_file_is_said_in_words() {
    let said = |bytes: &[u8]| check_live(bytes).unwrap_err().to_string();
    assert_eq!(said(b""), "the file is empty (0 bytes)");
    assert_eq!(said(b"hello"), "not an LMDB file");
    assert_eq!(said(&[0xa5; 70_000]), "not an LMDB file");
    for (magic, what) in [
        (&b"\x28\xb5\x2f\xfd"[..], "zstd -d"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"\x85\x01\x0c", "gpg -d"),
        (b"\x8c\x0d\x04", "gpg -d"),
        (b"-----BEGIN PGP MESSAGE-----", "gpg -d"),
    ] {
        let text = said(&[magic, &[1; 5_000]].concat());
        assert!(
            text.starts_with("not an LMDB file: it ") && text.contains(what),
            "{text}"
        );
    }
    let mut tar = vec![b'x'; 10_240];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(said(&tar).contains("tar archive"));
}

#[test]
fn layouts_that_lmdb_cannot_have_here_are_told_apart() {
    let check = |at: usize, bytes: &[u8]| check_live(patched(at, bytes)).unwrap_err();
    assert!(matches!(
        check(16, &[0xbe, 0xef, 0xc0, 0xde]),
        Error::ByteOrder
    ));
    assert!(matches!(
        check(20, &[231, 3, 0, 0]),
        Error::Version { found: 999 }
    ));
    assert!(matches!(
        check(PAGE + 20, &[2]),
        Error::Version { found: 2 }
    ));
    assert!(matches!(
        check(40, &[0, 32, 1, 0]),
        Error::PageSize { found: 73_728 }
    ));
    assert!(matches!(
        check(PAGE + 16, &[0]),
        Error::Corrupted { page: 1, .. }
    ));
    assert!(matches!(
        check(meta_at() + 92, &[4]),
        Error::Corrupted { .. }
    ));
}

#[test]
fn a_file_cut_anywhere_is_truncated_unless_only_free_pages_are_missing() {
    let whole = entries(&LIVE).unwrap();
    let (mut cut, mut harmless) = (0, 0);
    for keep in (1..LIVE.len()).rev().filter(|n| n % 1_024 == 0 || *n < 200) {
        let file = &LIVE[..keep];
        match check_live(file) {
            Ok(_) => {
                harmless += 1;
                assert_eq!(entries(file).unwrap(), whole);
            }
            Err(Error::Truncated { have, want }) => {
                cut += 1;
                assert!(
                    have == keep as u64 && want > have,
                    "{have} {want} at {keep}"
                );
            }
            Err(Error::NotLmdb { .. }) => assert!(keep < 20),
            Err(e) => panic!("{e} at {keep}"),
        }
    }
    assert!(cut > 20 && harmless > 3, "{cut} {harmless}");
}

#[test]
fn a_copy_cut_anywhere_is_truncated() {
    let (_dir, store) = store();
    let entries = (0..90u8).map(|n| ([n], Some(vec![n; 700])));
    store.commit(entries).unwrap();
    let image = copy(&store);
    for keep in (200..image.len()).step_by(512) {
        let cut = check_live(&image[..keep]);
        assert!(
            matches!(cut, Err(Error::Truncated { .. })),
            "{cut:?} at {keep}"
        );
    }
}

#[test]
fn loops_and_pages_named_twice_are_found() {
    let root = root_at();
    let number = u64::try_from(root / PAGE).unwrap();
    // The offsets of the root's first two nodes, and the children that they name.
    let node = |i: usize| root + usize::from(meta::u16_at(&LIVE, root + 16 + 2 * i));
    let own = &number.to_le_bytes()[..6];
    assert!(corrupted(&patched(node(1), own)).contains("in use elsewhere"));
    let sibling = LIVE[node(0)..node(0) + 4].to_vec();
    assert!(corrupted(&patched(node(1), &sibling)).contains("in use elsewhere"));
    // `get` follows one path, so a loop ends at the tree's depth: at a page that is no leaf.
    let looped = patched(node(1), own);
    let looped = Image::open(&looped).unwrap();
    let below = &LIVE[node(1) + 8..node(1) + 15];
    assert!(matches!(looped.get(below), Err(Error::Corrupted { page, .. }) if page == number));
    assert!(corrupted(&patched(node(1), &[0xff; 4])).contains("the file has 2 to"));
}

#[test]
fn numbers_that_would_lead_out_of_a_page_or_the_file_are_found() {
    let (meta, root) = (meta_at(), root_at());
    for (at, bytes) in [
        (root + 12, &[0xff, 0xff][..]), // lower
        (root + 12, &[17, 0]),          // lower, odd
        (root + 14, &[0, 0]),           // upper
        (root + 14, &[0xff, 0xff]),     // upper
        (root + 16, &[0xfc, 0x0f]),     // a node on the edge
        (root + 16, &[0xff, 0xff]),     // a node behind the page
        (root + 16, &[20, 0]),          // a node in the offsets
        (root + 10, &[2, 0]),           // a branch that says leaf
        (root + 10, &[0x11, 0]),        // dirty: LMDB would write to the map
        (root, &[9, 9, 9]),             // another page's number
        (meta + 88 + 6, &[1, 0]),       // depth
        (meta + 88 + 6, &[3, 0]),       // depth
        (meta + 88 + 32, &[41, 0]),     // entries
    ] {
        let said = corrupted(&patched(at, bytes));
        assert!(!said.is_empty(), "{at} {bytes:?}");
    }
    for (at, bytes) in [
        (meta + 88 + 6, &[33, 0][..]),           // depth
        (meta + 88 + 40, &[0xff, 0xff, 0xff]),   // root
        (meta + 88 + 40, &[1, 0]),               // root: a meta page
        (meta + 136, &[0xff; 8]),                // last page
        (meta + 144, &[1, 1, 1, 1, 1, 1, 1, 1]), // commit: on the wrong page, or newest
    ] {
        let file = patched(at, bytes);
        assert!(check_live(&file).is_err(), "{at} {bytes:?}");
    }
    let huge = patched(meta + 136, &[0, 0, 0, 0, 0, 1]);
    assert!(matches!(check_live(&huge), Err(Error::Truncated { .. })));
}

#[test]
fn an_overflow_value_is_followed_only_inside_the_file() {
    // The first page of an overflow run that is in use: its header says how many.
    let used: Vec<usize> = (2..LIVE.len() / PAGE)
        .map(|n| n * PAGE)
        .filter(|&at| meta::u16_at(&LIVE, at + 10) == 4 && meta::u32_at(&LIVE, at + 12) == 3)
        .collect();
    assert!(!used.is_empty());
    let mut found = 0;
    for at in used {
        for pages in [0u32, 1, 4, u32::MAX] {
            let file = patched(at + 12, &pages.to_le_bytes());
            found += usize::from(Image::open(&file).unwrap().scan().is_err());
        }
    }
    assert!(found >= 3 * 4, "{found}");
}

#[test]
fn a_list_of_free_pages_that_lmdb_could_not_trust_is_found() {
    let free = Image::open(LIVE.as_slice())
        .unwrap()
        .meta()
        .free
        .root
        .unwrap();
    let page = usize::try_from(free).unwrap() * PAGE;
    let node = page + usize::from(meta::u16_at(&LIVE, page + 16));
    // Behind node header and key: the count, then the numbers.
    let list = node + 16;
    let in_use = u64::try_from(root_at() / PAGE).unwrap();
    assert!(corrupted(&patched(list, &[0xff; 8])).contains("broken list"));
    assert!(corrupted(&patched(list, &[200])).contains("broken list"));
    let text = corrupted(&patched(list + 8, &in_use.to_le_bytes()));
    assert!(
        text.contains("in use elsewhere") || text.contains("out of order"),
        "{text}"
    );
    assert!(corrupted(&patched(list + 8, &[0xff; 8])).contains("the file has 2 to"));
    assert!(corrupted(&patched(list + 8, &[0; 8])).contains("page"));
}

/// What a scan lets through must be safe for LMDB itself: if it is not, this process dies.
#[test]
fn what_passes_a_scan_can_be_mapped_read_and_written() {
    let (mut passed, mut seed) = (0, 7u64);
    for _ in 0..1_500 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Headers and offsets are a small part of a page: three of four flips go there.
        let [a, b, bit, kind, ..] = seed.to_be_bytes();
        let page = usize::from(a) % (LIVE.len() / PAGE);
        let within = match kind % 4 {
            0 => usize::from(b) * 16 + usize::from(bit) / 16,
            _ => usize::from(b) % 200,
        };
        let mut file = LIVE.clone();
        file[page * PAGE + within] ^= 1 << (bit % 8);
        let Ok(image) = Image::open(&file) else {
            continue;
        };
        if image.scan().is_err() {
            continue;
        }
        passed += 1;
        if passed > 120 {
            break;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(DATA_FILE), &file).unwrap();
        let store = Store::open(dir.path(), MUST_EXIST).unwrap();
        let of_image: Vec<_> = image.iter().map(|e| e.unwrap()).collect();
        let view = store.read().unwrap();
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let of_lmdb: Vec<_> = view
            .range(all.0, all.1, crate::Direction::Forward)
            .map(|e| e.unwrap())
            .map(|(k, v)| Entry {
                key: k.to_vec().into(),
                value: v.to_vec().into(),
            })
            .collect();
        assert_eq!(of_image, of_lmdb);
        drop(view);
        for n in 0..3u8 {
            let entries = of_lmdb.iter().map(|e| (e.key.clone(), Some(vec![n; 900])));
            store.commit(entries).unwrap();
        }
        store
            .commit(of_lmdb.iter().map(|e| (e.key.clone(), None::<&[u8]>)))
            .unwrap();
    }
    assert!(passed > 60, "{passed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_give_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 0..20_000), like_lmdb: bool) {
        if like_lmdb {
            let n = bytes.len().min(2 * PAGE);
            bytes[..n].copy_from_slice(&LIVE[..n]);
        }
        if let Ok(image) = Image::open(&bytes) {
            let _ = (image.scan().is_ok(), image.iter().count(), image.get(b"key 001").is_ok());
        }
    }

    #[test]
    fn flipped_bytes_anywhere_give_an_answer(flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6)) {
        let mut file = LIVE.clone();
        for (at, xor) in flips {
            let at = at.index(file.len());
            file[at] ^= xor;
        }
        if let Ok(image) = Image::open(&file) {
            let whole = image.scan().is_ok() && image.iter().all(|e| e.is_ok());
            let found = image.get(b"key 001");
            if whole {
                prop_assert!(found.is_ok());
            }
        }
    }
}

#[test]
fn every_byte_of_headers_and_meta_pages_can_be_flipped() {
    let whole = entries(&LIVE).unwrap();
    let pages = LIVE.len() / PAGE;
    let mut detected = 0;
    for page in 0..pages {
        let depth = if page < 2 { 152 } else { 40 };
        for at in 0..depth {
            let mut file = LIVE.clone();
            file[page * PAGE + at] ^= 0x41;
            let scanned = Image::open(&file).and_then(|image| image.scan());
            match scanned {
                // The number of the last commit: the one before it, whole too, is then the last.
                Ok(_) if page < 2 && (144..152).contains(&at) => {}
                // A field that nobody reads, or a page that is free.
                Ok(_) => assert_eq!(entries(&file).unwrap().len(), whole.len()),
                Err(_) => detected += 1,
            }
        }
    }
    assert!(detected > 300, "{detected}");
}
