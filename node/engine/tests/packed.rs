//! Segments put into `wal/` as they lay in the archive: packed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rig::request;
use rig::world::{World, segments, world};
use unisondb_engine::start::StartError;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut z = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    z.write_all(bytes).unwrap();
    z.finish().unwrap()
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

/// The archive in `wal/`, packed in both ways by turns, and nothing else there.
fn put_packed(w: &World) -> Vec<PathBuf> {
    w.put_archive();
    let all = segments(&w.home.join("wal"));
    for (n, path) in all.iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        let (end, packed) = match n % 2 {
            0 => (".gz", gzip(&bytes)),
            _ => (".zst", zstd::encode_all(&bytes[..], 1).unwrap()),
        };
        fs::write(with_end(path, end), packed).unwrap();
        fs::remove_file(path).unwrap();
    }
    all
}

fn packed_names(w: &World) -> usize {
    let names = fs::read_dir(w.home.join("wal")).unwrap();
    let packed = |n: &String| n.ends_with(".gz") || n.ends_with(".zst");
    names
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(packed)
        .count()
}

#[test]
fn packed_segments_of_a_restored_directory_are_unpacked_and_replayed() {
    for snapshot in [true, false] {
        let w = world();
        if snapshot {
            w.put_snapshot();
        } else {
            w.empty("db");
        }
        let all = put_packed(&w);
        // What a kill left half unpacked.
        fs::write(with_end(all.last().unwrap(), ".tmp"), b"half").unwrap();
        let rig = w.open(&request()).unwrap();
        rig::same(&rig.keys(), &w.model.at[&w.last].keys);
        let said = rig.notes.iter().filter(|n| n.field == "unpacked").count();
        assert!(
            said > 3 && (snapshot || said == all.len()),
            "{:?}",
            rig.notes
        );
        assert_eq!(packed_names(&w), all.len(), "the packed files stay");
        assert!(!with_end(all.last().unwrap(), ".tmp").exists());
        rig.close();
    }
}

#[test]
fn a_packed_segment_whose_plain_file_is_there_is_ignored_and_named() {
    let w = world();
    w.put_backups();
    let all = segments(&w.home.join("wal"));
    fs::write(with_end(all.last().unwrap(), ".gz"), b"anything").unwrap();
    let rig = w.open(&request()).unwrap();
    rig::same(&rig.keys(), &w.model.at[&w.last].keys);
    let ignored = rig
        .notes
        .iter()
        .any(|n| n.field == "ignored" && n.text.contains(".wal.gz"));
    assert!(ignored, "{:?}", rig.notes);
}

#[test]
fn an_ordinary_start_unpacks_nothing() {
    let w = world();
    let all = segments(&w.home.join("wal"));
    let pack = |path: &Path| {
        let packed = gzip(&fs::read(path).unwrap());
        fs::write(with_end(path, ".gz"), packed).unwrap();
        fs::remove_file(path).unwrap();
    };
    // One that the state does not need: the start goes on without it.
    pack(&all[1]);
    let rig = w.open(&request()).unwrap();
    assert!(!all[1].exists());
    assert!(
        !rig.notes.iter().any(|n| n.field == "unpacked"),
        "{:?}",
        rig.notes
    );
    rig.close();
    // Those from the state's on, which a restored directory would have unpacked: records are missing.
    let needed = &segments(&w.home.join("wal"))[all.len() - 3..];
    needed.iter().for_each(|path| pack(path));
    match w.open(&request()) {
        Err(StartError::Refused(e)) => assert!(e.contains("records are missing"), "{e}"),
        other => panic!("{:?}", other.map(|rig| rig.notes)),
    }
    assert!(!needed.iter().any(|path| path.exists()));
}

#[test]
fn what_is_no_packed_copy_of_the_segment_is_named_and_the_gap_stays() {
    let w = world();
    let other = world();
    for case in 0..4 {
        w.put_snapshot();
        let all = put_packed(&w);
        let n = (all.len() - 3) / 2 * 2;
        let target = with_end(&all[n], ".gz");
        let good = fs::read(&target).unwrap();
        let plain = fs::read(w.archive.join(all[n].file_name().unwrap())).unwrap();
        let mut rotten = plain.clone();
        let middle = rotten.len() / 2;
        rotten[middle] ^= 1;
        let bad = match case {
            0 => good[..good.len() / 2].to_vec(),
            1 => gzip(&rotten),
            2 => gzip(&[&plain[..], &vec![0; 4 << 20]].concat()),
            _ => gzip(&fs::read(&segments(&other.archive)[n + 1]).unwrap()),
        };
        fs::write(&target, bad).unwrap();
        match w.open(&request()) {
            Err(StartError::Gap { .. }) => {}
            Err(e) => panic!("case {case}: {e}"),
            Ok(_) => panic!("case {case}: opened"),
        }
        assert!(!all[n].exists() && !with_end(&all[n], ".tmp").exists());
        fs::write(&target, good).unwrap();
        let rig = w.open(&request()).unwrap();
        rig::same(&rig.keys(), &w.model.at[&w.last].keys);
        rig.close();
        fs::remove_dir_all(w.home.join("wal")).unwrap();
        fs::create_dir(w.home.join("wal")).unwrap();
    }
}
