//! Bad bytes are named, and a good copy beside them is used.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use unisondb_platform::{Disk, DiskExt, VolumeKind};
use unisondb_types::{Lsn, SegmentId, Target};

use super::super::verify::{self, Wrong};
use super::super::{BaseFrom, RestoreError};
use super::{all_of, node::Node, plan, request, restore};
use crate::start::StartError;

fn node_with_wal(seed: u64) -> (Node, PathBuf) {
    let mut node = Node::new(seed);
    node.write(60);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let wal = node.backups().join("wal");
    (node, wal)
}

fn segment(wal: &Path, id: u64) -> PathBuf {
    wal.join(SegmentId::new(id).file_name())
}

fn from_wal(wal: &Path, target: Target) -> super::super::Request {
    request("/b", BaseFrom::Folders(vec![]), &[wal], target)
}

fn wrongs(node: &Node, path: &Path) -> Vec<Wrong> {
    let report = verify::verify(node.platform.disk.as_ref(), &[path.to_owned()], &|_| {}).unwrap();
    assert_eq!(report.ok, report.problems.is_empty());
    report.problems.into_iter().map(|p| p.kind).collect()
}

#[test]
fn a_flipped_bit_in_a_needed_segment_is_named_and_another_copy_is_used() {
    let (mut node, wal) = node_with_wal(20);
    node.disk.flip(&segment(&wal, 2), 1000, 4).unwrap();
    match plan(&node, &from_wal(&wal, Target::Latest)) {
        Err(RestoreError::Damaged { segment, place, .. }) => {
            assert_eq!(segment.get(), 2);
            assert!(place.ends_with("000000002.wal"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(wrongs(&node, &wal)[0], Wrong::Altered);
    // Not needed, not in the way.
    let end = Lsn::new(8);
    assert_eq!(
        restore(&node, &from_wal(&wal, Target::Lsn(end)))
            .unwrap()
            .lsn,
        end
    );

    node.back_up_wal(SegmentId::ZERO, "copy");
    let copy = node.backups().join("copy");
    let asked = request(
        "/c",
        BaseFrom::Folders(vec![]),
        &[&wal, &copy],
        Target::Latest,
    );
    let plan = plan(&node, &asked).unwrap();
    assert!(
        plan.warnings.iter().any(|w| w.contains("000000002.wal")),
        "{plan}"
    );
    restore(&node, &asked).unwrap();
}

#[test]
fn a_torn_last_file_is_good_up_to_the_tear_and_the_rest_is_short() {
    let (node, wal) = node_with_wal(21);
    let last = node
        .engine()
        .wal()
        .segments()
        .iter()
        .filter(|s| s.digest.is_some())
        .count();
    let path = segment(&wal, last as u64);
    let len = node.disk.meta_len(&path);
    let file = node
        .platform
        .disk
        .open(&path, unisondb_platform::Access::Write)
        .unwrap();
    file.set_len(len - 400).unwrap();
    let plan = plan(&node, &from_wal(&wal, Target::Latest)).unwrap();
    assert!(plan.problem.is_none(), "{plan}");
    assert!(
        plan.warnings.iter().any(|w| w.contains("is not whole")),
        "{plan}"
    );
    let end = plan.reached.unwrap().lsn;
    let done = restore(&node, &from_wal(&wal, Target::Latest)).unwrap();
    assert_eq!((done.lsn, done.digest), (end, node.moment(end).digest));
    assert!(wrongs(&node, &wal).contains(&Wrong::Altered));
}

#[test]
fn two_files_that_claim_to_be_one_segment_are_both_named() {
    let (mut a, wal) = node_with_wal(22);
    // The same history, gone on otherwise: as after a copy of a whole directory.
    let id = a.engine().wal().segments()[2].id;
    let bytes = a.disk.read(&segment(&wal, id.get()), 1 << 20).unwrap();
    a.write(1);
    let other = Path::new("/other");
    a.platform.disk.create_folder(other).unwrap();
    let mut forged = bytes.clone();
    forge_digest(&mut forged);
    a.platform
        .disk
        .publish(&other.join("x.wal"), &forged)
        .unwrap();
    let asked = request(
        "/b",
        BaseFrom::Folders(vec![]),
        &[&wal, other],
        Target::Latest,
    );
    match plan(&a, &asked) {
        Err(RestoreError::Differs {
            segment,
            one,
            other,
        }) => {
            assert_eq!(segment, id);
            assert!(one != other);
        }
        found => panic!("{found:?}"),
    }
    // An identical one is no matter.
    a.platform
        .disk
        .publish(&other.join("x.wal"), &bytes)
        .unwrap();
    restore(&a, &asked).unwrap();
}

/// A footer that says another digest, with a good CRC.
fn forge_digest(segment: &mut [u8]) {
    let at = segment.len() - unisondb_wal::FOOTER_BYTES;
    let mut footer = unisondb_wal::Footer::decode(&segment[at..]).unwrap();
    footer.digest = unisondb_types::Digest::from_bytes([9; 32]);
    segment[at..].copy_from_slice(&footer.encode());
}

#[test]
fn a_forged_digest_stops_the_replay_and_leaves_nothing_behind() {
    let (node, wal) = node_with_wal(23);
    let path = segment(&wal, 2);
    let mut bytes = node.disk.read(&path, 1 << 20).unwrap();
    forge_digest(&mut bytes);
    node.platform.disk.publish(&path, &bytes).unwrap();
    let done = restore(&node, &from_wal(&wal, Target::Latest));
    assert!(matches!(done, Err(RestoreError::Start(_))), "{done:?}");
    let left: Vec<_> = node.platform.disk.list(Path::new("/b")).unwrap();
    assert!(left.iter().all(|e| e.name == "LOCK"), "{left:?}");
}

#[test]
fn a_restore_onto_a_network_file_system_is_refused_before_anything_is_written() {
    for mount in ["/b", "/b/users"] {
        let (node, wal) = node_with_wal(29);
        node.disk.create_folders(Path::new("/b/users")).unwrap();
        node.disk
            .set_volume(Path::new(mount), VolumeKind::Network("NFS"));
        let done = restore(&node, &from_wal(&wal, Target::Latest));
        let refused = matches!(
            done,
            Err(RestoreError::Start(StartError::Network(ref on))) if on.path == Path::new(mount)
        );
        assert!(refused, "{done:?}");
        let left = node.disk.list(Path::new("/b")).unwrap();
        assert_eq!(left.len(), 1, "nothing is made: {left:?}");
    }
}

#[test]
fn a_segment_of_another_namespace_or_history_is_left_aside_and_named() {
    let (node, wal) = node_with_wal(24);
    let (stranger, theirs) = node_with_wal(25);
    let bytes = stranger.disk.read(&segment(&theirs, 2), 1 << 20).unwrap();
    // Same namespace and cluster, another lineage, under the name of ours.
    let mixed = Path::new("/mixed");
    node.platform.disk.create_folder(mixed).unwrap();
    node.platform
        .disk
        .publish(&mixed.join("000000002.wal"), &bytes)
        .unwrap();
    let asked = request(
        "/b",
        BaseFrom::Folders(vec![]),
        &[&wal, mixed],
        Target::Latest,
    );
    assert!(matches!(
        plan(&node, &asked),
        Err(RestoreError::Ambiguous { .. })
    ));
    let mut asked = asked;
    asked.lineage = Some(node.engine().lineage());
    restore(&node, &asked).unwrap();

    node.platform
        .disk
        .publish(&wal.join("000000099.wal"), &bytes)
        .unwrap();
    let found = wrongs(&node, &wal);
    assert!(
        found.contains(&Wrong::Foreign) && found.contains(&Wrong::Swapped),
        "{found:?}"
    );
    let mut other = asked.clone();
    other.namespace = "orders".parse().unwrap();
    other.lineage = None;
    let refused = plan(&node, &other);
    assert!(
        matches!(refused, Err(RestoreError::OtherNamespaces { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_segment_that_was_written_after_other_bytes_does_not_continue_the_row() {
    // Twins: the same lineage, ids, LSNs and lengths, and other values; as after a copied machine.
    let twin = |value: &str| {
        let mut node = Node::new(28);
        for i in 0..60 {
            node.put(&format!("key-{}", i % 10), &format!("{value:>300}"));
        }
        node.back_up_wal(SegmentId::ZERO, "wal");
        let wal = node.backups().join("wal");
        (node, wal)
    };
    let ((node, wal), (other, theirs)) = (twin("a"), twin("b"));
    assert_eq!(node.engine().lineage(), other.engine().lineage());
    let bytes = other.disk.read(&segment(&theirs, 3), 1 << 20).unwrap();
    node.platform
        .disk
        .publish(&segment(&wal, 3), &bytes)
        .unwrap();
    match plan(&node, &from_wal(&wal, Target::Latest)) {
        Err(RestoreError::Broken { segment, .. }) => assert_eq!(segment.get(), 3),
        found => panic!("{found:?}"),
    }
    // What follows it does not continue it either.
    assert_eq!(wrongs(&node, &wal), [Wrong::Altered, Wrong::Altered]);
}

#[test]
fn verify_names_what_is_missing_and_swapped_and_passes_what_is_whole() {
    let (node, wal) = node_with_wal(26);
    node.snapshot("snapshots/s.db");
    assert_eq!(wrongs(&node, &node.backups()), []);
    let (two, three) = (segment(&wal, 2), segment(&wal, 3));
    let swap = wal.join("swap");
    node.platform.disk.rename(&two, &swap).unwrap();
    node.platform.disk.rename(&three, &two).unwrap();
    assert_eq!(wrongs(&node, &wal), [Wrong::Swapped]);
    node.platform.disk.rename(&swap, &three).unwrap();
    assert_eq!(wrongs(&node, &wal), [Wrong::Swapped, Wrong::Swapped]);
    // Names are for people: a restore goes by what is inside.
    restore(&node, &from_wal(&wal, Target::Latest)).unwrap();
    node.platform.disk.remove_file(&three).unwrap();
    let found = wrongs(&node, &wal);
    assert!(found.contains(&Wrong::Missing), "{found:?}");
}

#[test]
fn a_destroyed_snapshot_is_named_and_not_silently_another_file() {
    let mut node = Node::new(27);
    node.write(20);
    node.seal();
    node.snapshot("snapshots/one.db");
    node.write(20);
    node.seal();
    node.snapshot("snapshots/two.db");
    let folder = node.backups().join("snapshots");
    let two = folder.join("two.db");
    let good = node.platform.disk.read(&two, 1 << 30).unwrap();
    let zeroed = [&vec![0; 4_096][..], &good[4_096..]].concat();
    let mut flipped = good.clone();
    flipped[17] ^= 1;
    let cut = good[..good.len() - 7].to_vec();
    let longer = [&good[..], &[0]].concat();
    for (what, bytes) in [
        ("emptied", &Vec::new()),
        ("its first page zeroed", &zeroed),
        ("another magic number", &flipped),
        ("cut in its trailer", &cut),
        ("added to", &longer),
    ] {
        node.platform.disk.remove_file(&two).unwrap();
        node.platform.disk.publish(&two, bytes).unwrap();
        assert_eq!(wrongs(&node, &folder), [Wrong::Altered], "{what}");
        let asked = request(
            "/b",
            BaseFrom::Folders(vec![folder.clone()]),
            &[],
            Target::Latest,
        );
        let plan = plan(&node, &asked).unwrap();
        assert!(
            plan.warnings.iter().any(|w| w.contains("two.db")),
            "{what}: {plan}"
        );
    }
    // What never was a backup is nobody's damage.
    node.platform
        .disk
        .publish(&folder.join("notes.txt"), b"")
        .unwrap();
    node.platform.disk.publish(&two, &good).unwrap();
    assert_eq!(wrongs(&node, &folder), []);
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_an_older_one() {
    let mut node = Node::new(27);
    node.write(20);
    node.seal();
    node.snapshot("s/old.db");
    node.write(20);
    node.seal();
    node.snapshot("s/new.db");
    node.write(5);
    node.back_up_wal(SegmentId::ZERO, "wal");
    let new = node.backups().join("s/new.db");
    let len = node.disk.meta_len(&new);
    // A byte in the middle of an entry: the meta pages are good, the checksum is not.
    node.disk.flip(&new, len - 4096 - 300, 1).unwrap();
    let asked = all_of(&node, "/b", Target::Latest);
    let planned = plan(&node, &asked).unwrap();
    assert!(
        planned
            .base
            .as_ref()
            .unwrap()
            .file
            .to_string()
            .ends_with("old.db"),
        "{planned}"
    );
    assert!(
        planned.warnings.iter().any(|w| w.contains("new.db")),
        "{planned}"
    );
    restore(&node, &asked).unwrap();
    let wal = node.backups().join("wal");
    let forced = request("/c", BaseFrom::File(new), &[&wal], Target::Latest);
    assert!(matches!(
        plan(&node, &forced),
        Err(RestoreError::BadBase { .. })
    ));
}

trait Lengths {
    fn meta_len(&self, path: &Path) -> u64;
}

impl Lengths for unisondb_platform::memory::MemoryDisk {
    fn meta_len(&self, path: &Path) -> u64 {
        unisondb_platform::Disk::meta(self, path).unwrap().len
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_in_a_backup_folder_are_named_or_passed_over(
        files in proptest::collection::vec(
            (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..600)), 1..4),
    ) {
        let (platform, disk, _) = unisondb_platform::memory::platform(1);
        platform.disk.create_folder(Path::new("/w")).unwrap();
        for (i, (kind, mut bytes)) in files.into_iter().enumerate() {
            let magic: &[u8] = match kind % 6 {
                0 => b"UNISNWAL",
                1 => &[0x1f, 0x8b, 8, 0],
                2 => &[0x28, 0xb5, 0x2f, 0xfd],
                3 => &[0; 16],
                _ => b"",
            };
            bytes.splice(0..0, magic.iter().copied());
            if kind % 6 == 3 {
                bytes.splice(16..16, [0xde, 0xc0, 0xef, 0xbe]);
            }
            if kind % 6 == 4 && bytes.len() > 262 {
                bytes[257..262].copy_from_slice(b"ustar");
            }
            disk.publish(&Path::new("/w").join(format!("00000000{i}.wal")), &bytes).unwrap();
        }
        let folder = vec![PathBuf::from("/w")];
        let asked = request("/b", BaseFrom::Folders(folder.clone()), &[], Target::Latest);
        let planned = super::super::plan(&disk, &asked, &|_| {});
        prop_assert!(planned.is_err());
        let report = verify::verify(&disk, &folder, &|_| {}).unwrap();
        prop_assert!(!report.ok);
    }
}

#[test]
fn a_snapshot_whose_first_bytes_are_damaged_is_named_though_nothing_tells_what_it_was() {
    for damage in ["cut", "flipped", "emptied"] {
        let (mut node, wal) = node_with_wal(31);
        node.snapshot("s/old.db");
        node.write(10);
        node.snapshot("s/new.db");
        let folder = node.backups().join("s");
        for sum in ["old.db.sha256", "new.db.sha256"] {
            node.disk.remove_file(&folder.join(sum)).unwrap();
        }
        let path = folder.join("new.db");
        let mut bytes = node.disk.read(&path, 1 << 24).unwrap();
        match damage {
            "cut" => bytes.truncate(10),
            "flipped" => bytes[16] ^= 1,
            _ => bytes.clear(),
        }
        node.disk.publish(&path, &bytes).unwrap();
        // LMDB's lock file begins much as its data file does, and is nobody's backup.
        let lock = [0xde, 0xc0, 0xef, 0xbe, 2, 0, 0, 0];
        node.disk.publish(&folder.join("lock.mdb"), &lock).unwrap();
        assert_eq!(wrongs(&node, &folder), [Wrong::Altered], "{damage}");
        let asked = request(
            "/b",
            BaseFrom::Folders(vec![folder]),
            &[&wal],
            Target::Latest,
        );
        let told = plan(&node, &asked).unwrap().warnings.join("; ");
        let why = match damage {
            "emptied" => "new.db: it is empty (0 bytes)",
            _ => "new.db: it has a snapshot's name, but is none",
        };
        assert!(told.contains(why), "{damage}: {told}");
    }
}
