//! Segments and snapshots from archives, compressed or not, in any order and mixture.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use unisondb_platform::DiskExt;
use unisondb_types::{Lsn, SegmentId, Target};

use super::super::verify;
use super::super::{BaseFrom, RestoreError};
use super::{node::Node, plan, request, restore};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut z = GzEncoder::new(Vec::new(), Compression::fast());
    z.write_all(bytes).unwrap();
    z.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut t = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut h = tar::Header::new_gnu();
        h.set_size(bytes.len() as u64);
        h.set_mode(0o600);
        t.append_data(&mut h, name, bytes.as_slice()).unwrap();
    }
    t.into_inner().unwrap()
}

/// A node with six segments or more, and its sealed ones' bytes.
fn node(seed: u64) -> (Node, Vec<(SegmentId, Vec<u8>)>) {
    let mut node = Node::new(seed);
    node.write(20);
    node.seal();
    node.snapshot("s.db");
    node.write(60);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let ids: Vec<_> = node
        .engine()
        .wal()
        .segments()
        .iter()
        .filter(|s| s.digest.is_some())
        .map(|s| s.id)
        .collect();
    assert!(ids.len() >= 6, "{ids:?}");
    let wal = node.backups().join("wal");
    let bytes = |id: SegmentId| node.disk.read(&wal.join(id.file_name()), 1 << 20).unwrap();
    let segments = ids.into_iter().map(|id| (id, bytes(id))).collect();
    (node, segments)
}

fn put(node: &Node, path: &str, bytes: &[u8]) -> PathBuf {
    let path = PathBuf::from(path);
    node.disk.create_folders(path.parent().unwrap()).unwrap();
    node.disk.publish(&path, bytes).unwrap();
    path
}

#[test]
fn every_packing_in_one_restore_gives_the_same_state() {
    let (node, segments) = node(40);
    let snapshot = node
        .disk
        .read(&node.backups().join("s.db"), 1 << 22)
        .unwrap();
    put(&node, "/p/snap/btree-20250108.db.zst", &zstd(&snapshot));
    for (i, (id, bytes)) in segments.iter().enumerate() {
        let name = id.file_name();
        match i % 6 {
            0 => put(&node, &format!("/p/{name}"), bytes),
            1 => put(&node, &format!("/p/{name}.gz"), &gzip(bytes)),
            2 => put(&node, &format!("/p/z/{name}.zst"), &zstd(bytes)),
            3 => {
                let member = (format!("wal/x/{name}"), bytes.clone());
                let junk = ("wal/x/readme.txt".to_owned(), b"hello".to_vec());
                put(
                    &node,
                    &format!("/p/a{i}.tar.gz"),
                    &gzip(&tar(&[junk, member])),
                )
            }
            4 => {
                let member = (format!("deep/{}/{name}.gz", "d".repeat(150)), gzip(bytes));
                put(&node, &format!("/p/b{i}.tar"), &tar(&[member]))
            }
            _ => {
                let member = (name.clone(), bytes.clone());
                put(&node, &format!("/p/c{i}.tar.zst"), &zstd(&tar(&[member])))
            }
        };
    }
    put(&node, "/p/notes.txt", b"nothing of ours");
    put(&node, "/p/000000009.wal.tmp", b"half");
    let base = BaseFrom::Folders(vec![PathBuf::from("/p")]);
    let asked = request("/b", base, &[], Target::Latest);
    let planned = plan(&node, &asked).unwrap();
    assert!(
        planned.problem.is_none() && planned.warnings.is_empty(),
        "{planned}"
    );
    let done = restore(&node, &asked).unwrap();
    assert_eq!(done.digest, node.moment(done.lsn).digest);
    assert_eq!(done.lsn, planned.reached.unwrap().lsn);

    let report = verify::verify(&node.disk, &[PathBuf::from("/p")], &|_| {}).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.segments.len(), segments.len());
    assert!(report.snapshots[0].entries.is_some_and(|n| n > 10));
    // Two files, and a readme in every sixth segment's tar.
    assert_eq!(
        report.others,
        2 + segments.iter().skip(3).step_by(6).count()
    );
}

#[test]
fn a_member_named_to_leave_its_folder_is_only_a_name() {
    let (node, segments) = node(41);
    let evil: Vec<_> = segments
        .iter()
        .map(|(id, b)| (id.file_name(), b.clone()))
        .collect();
    let mut archive = tar(&evil);
    // The builder refuses such names; an attacker's does not.
    for at in (0..archive.len()).step_by(512) {
        if archive[at..].starts_with(b"00000000")
            && archive.get(at + 257..at + 262) == Some(b"ustar")
        {
            archive[at..at + 13].copy_from_slice(b"../../../evil");
            let sum: u64 = (0..512)
                .map(|i| {
                    if (148..156).contains(&i) {
                        32
                    } else {
                        u64::from(archive[at + i])
                    }
                })
                .sum();
            archive[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let path = put(&node, "/p/evil.tar", &archive);
    let asked = request(
        "/b",
        BaseFrom::Folders(vec![]),
        &[&path],
        Target::Lsn(Lsn::new(30)),
    );
    let planned = plan(&node, &asked).unwrap();
    assert!(
        planned.segments[0]
            .file
            .to_string()
            .contains("../../../evil"),
        "{planned}"
    );
    restore(&node, &asked).unwrap();
    assert!(node.platform.disk.meta(Path::new("/evil")).is_err());
}

#[test]
fn an_archive_that_breaks_off_is_named_and_what_lies_before_is_used() {
    let (node, segments) = node(42);
    let members: Vec<_> = segments
        .iter()
        .map(|(id, b)| (id.file_name(), b.clone()))
        .collect();
    let archive = gzip(&tar(&members));
    let path = put(&node, "/p/cut.tgz", &archive[..archive.len() / 2]);
    let asked = |t| request("/b", BaseFrom::Folders(vec![]), &[&path], t);
    let report = verify::verify(&node.disk, std::slice::from_ref(&path), &|_| {}).unwrap();
    assert!(!report.ok);
    let target = Target::Lsn(Lsn::new(5));
    let planned = plan(&node, &asked(target)).unwrap();
    assert!(
        planned.warnings.iter().any(|w| w.contains("to its end")),
        "{planned}"
    );
    restore(&node, &asked(target)).unwrap();
}

#[test]
fn a_snapshot_that_is_still_encrypted_or_cut_is_named_so() {
    let (node, _) = node(43);
    let snapshot = node
        .disk
        .read(&node.backups().join("s.db"), 1 << 22)
        .unwrap();
    for (path, bytes, says) in [
        (
            "/x/a.gpg",
            b"\x85\x01\x0cxxxxxxxxxxxxxxxxxxxxxxxx".to_vec(),
            "gpg -d",
        ),
        ("/x/empty", Vec::new(), "empty"),
        (
            "/x/cut.zst",
            zstd(&snapshot[..snapshot.len() - 4096]),
            "trailer",
        ),
        ("/x/cut.db", snapshot[..8192].to_vec(), "truncated"),
        ("/x/torn.zst", zstd(&snapshot)[..300].to_vec(), ""),
    ] {
        let path = put(&node, path, &bytes);
        let base = BaseFrom::File(path.clone());
        match plan(&node, &request("/b", base, &[], Target::Latest)) {
            Err(RestoreError::BadBase { why, .. }) => assert!(why.contains(says), "{why}"),
            other => panic!("{}: {other:?}", path.display()),
        }
    }
    // A copy of a live data.mdb has no trailer: its entries are checked one by one.
    let bare = put(&node, "/x/bare.mdb", &snapshot[..snapshot.len() - 4096]);
    let asked = request("/b", BaseFrom::File(bare), &[], Target::Immediate);
    assert!(!plan(&node, &asked).unwrap().base.unwrap().certified);
    restore(&node, &asked).unwrap();
}
