//! What must hold after a fault, whatever it was: everything that was answered is there, the state is
//! one that the log really had, nothing half done has a final name, ids never go back; and the
//! namespace goes on.

use std::path::{Path, PathBuf};

use unisondb_engine::start::Request;
use unisondb_platform::memory::MemoryDisk;
use unisondb_platform::{Disk, DiskExt, EntryKind};
use unisondb_store::Trailer;
use unisondb_store::image::Image;
use unisondb_types::{Digest, EntryHash, Lsn, SegmentId};
use unisondb_wal::{SegmentState, Stop};

use super::{COPIES, Node, SNAPSHOT, Step, Told, backups, home, put};
use crate::rig::Moment;

/// Tables whose entries count in the digest (`docs/formats/state.md`).
const IN_DIGEST: [u8; 7] = [1, 2, 3, 5, 6, 7, 9];

const FILE_LIMIT: u64 = 64 << 20;

/// Starts over `disk` and holds what is found against what was told, and against the run without a
/// fault. `what` says what went wrong, for messages.
pub fn check(disk: &MemoryDisk, reference: &Told, told: &Told, request: &Request, what: &str) {
    published(disk, reference, told, what);
    let mut node = Node::on(disk, request);
    node.start()
        .unwrap_or_else(|e| panic!("{what}: does not start: {e}"));
    let rig = node.rig();
    let applied = rig.engine.applied();
    assert!(
        applied >= told.acked,
        "{what}: {} was answered, {applied} is there",
        told.acked
    );
    let expected = reference.moments.get(&applied);
    let expected = expected.unwrap_or_else(|| panic!("{what}: no state was ever at {applied}"));
    same(
        &rig.moment(),
        expected,
        &format!("{what}: state at {applied}"),
    );
    sealed(&mut node, reference, told, what);
    ids(&mut node, told, what);
    goes_on(node, request, what);
}

/// What was shown once stays: it takes records, copies and images, and has them after a power loss.
pub fn goes_on(mut node: Node, request: &Request, what: &str) {
    // What is due from before, then something new.
    let steps = [
        put("afterwards", 600),
        Step::Seal,
        Step::Flush,
        put("and then", 40),
    ];
    let done = node
        .settle()
        .map_err(|e| (0, e))
        .and_then(|()| node.run(&steps));
    done.unwrap_or_else(|e| panic!("{what}: does not go on: {e:?}"));
    let rig = node.rig();
    let copied = rig.engine.backup_wal(SegmentId::ZERO, "afterwards");
    let copied = copied.unwrap_or_else(|e| panic!("{what}: cannot be backed up: {e}"));
    assert!(!copied.copies.is_empty(), "{what}: something was sealed");
    let mut image = Vec::new();
    let mut sink = |block: &[u8]| {
        image.extend_from_slice(block);
        Ok(())
    };
    let applied = rig.engine.applied();
    let made = rig.engine.snapshot_to(applied, &mut sink);
    let made = made.unwrap_or_else(|e| panic!("{what}: no snapshot: {e}"));
    assert_eq!(
        digest_of(&image),
        made.digest,
        "{what}: LMDB's entries, added up"
    );
    let before = rig.moment();
    assert_eq!(before.digest, made.digest, "{what}: LMDB and the engine");

    let lost = node.disk.crash(1);
    drop(node);
    let mut node = Node::on(&lost, request);
    node.start()
        .unwrap_or_else(|e| panic!("{what}: does not start a second time: {e}"));
    same(
        &node.rig().moment(),
        &before,
        &format!("{what}: second start"),
    );
}

fn same(found: &Moment, expected: &Moment, what: &str) {
    let names = |m: &Moment| -> Vec<String> {
        m.keys
            .iter()
            .map(|(k, v)| format!("{}={}", k.escape_ascii(), v.len()))
            .collect()
    };
    assert_eq!(names(found), names(expected), "{what}");
    assert!(
        found == expected,
        "{what}: found {found:?}, expected {expected:?}"
    );
}

fn sealed(node: &mut Node, reference: &Told, told: &Told, what: &str) {
    let disk = node.disk.clone();
    let segments = node.rig().engine.wal().segments();
    for segment in segments.iter().filter(|s| s.state == SegmentState::Sealed) {
        let path = home().join("wal").join(segment.id.file_name());
        let bytes = disk.read(&path, FILE_LIMIT).unwrap();
        if let Some(expected) = reference.sealed.get(&segment.id) {
            assert!(
                bytes == *expected,
                "{what}: segment {} has other bytes",
                segment.id
            );
        }
    }
    for id in told.sealed.keys().filter(|id| **id > told.purged) {
        let found = segments.iter().find(|s| s.id == *id);
        let sealed = found.is_some_and(|s| s.state == SegmentState::Sealed);
        assert!(
            sealed,
            "{what}: segment {id} was sealed, now it is {found:?}"
        );
    }
}

/// P12, for the next lineage and for this one.
fn ids(node: &mut Node, told: &Told, what: &str) {
    let active = node.rig().engine.wal().active().id;
    assert!(
        active >= told.highest,
        "{what}: {} was in use, now it is {active}",
        told.highest
    );
    let text = node.disk.read(&home().join("ids"), 1000).unwrap();
    let text = String::from_utf8(text).unwrap();
    let id = text
        .lines()
        .next()
        .and_then(|l| l.strip_prefix("unisondb-ids-1 "));
    let id: SegmentId = id.and_then(|id| id.parse().ok()).unwrap();
    assert!(id >= active, "{what}: `ids` says {id}, {active} is in use");
}

/// P9: whatever has a final name below the backup root is whole, and what was reported is there.
pub fn published(disk: &MemoryDisk, reference: &Told, told: &Told, what: &str) {
    let mut files = Vec::new();
    walk(disk, &backups(), &mut files);
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".tmp") {
            continue;
        }
        let what = format!("{what}: {}", path.display());
        if let Some(of) = name.strip_suffix(".sha256") {
            let line = String::from_utf8(disk.read(path, 1000).unwrap()).unwrap();
            let bytes = disk.read(&path.with_file_name(of), FILE_LIMIT);
            let bytes = bytes.unwrap_or_else(|e| panic!("{what}: a sum of nothing: {e}"));
            assert_eq!(line, format!("{}  {of}\n", sha256(&bytes)), "{what}");
        } else if let Some(id) = SegmentId::parse_file_name(&name) {
            let verified =
                unisondb_wal::verify(disk, path).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(
                (verified.stop, verified.info.id),
                (Stop::Footer, id),
                "{what}"
            );
            if let Some(expected) = reference.sealed.get(&id) {
                assert!(
                    disk.read(path, FILE_LIMIT).unwrap() == *expected,
                    "{what}: other bytes"
                );
            }
        } else {
            let lsn = snapshot(disk, path, reference, &what);
            assert!(
                Some(lsn) >= told.snapshot,
                "{what}: {:?} was reported",
                told.snapshot
            );
        }
    }
    for (id, sum) in &told.copies {
        let path = backups().join(COPIES).join(id.file_name());
        let bytes = disk.read(&path, FILE_LIMIT);
        let bytes = bytes.unwrap_or_else(|e| panic!("{what}: {} is gone: {e}", path.display()));
        assert_eq!(
            sha256(&bytes),
            sum.to_string(),
            "{what}: {}",
            path.display()
        );
    }
    let there = files.contains(&backups().join(SNAPSHOT));
    assert!(
        there || told.snapshot.is_none(),
        "{what}: the snapshot is gone"
    );
}

fn snapshot(disk: &MemoryDisk, path: &Path, reference: &Told, what: &str) -> Lsn {
    let bytes = disk.read(path, FILE_LIMIT).unwrap();
    let trailer = Trailer::find(&bytes[..]).unwrap_or_else(|e| panic!("{what}: {e}"));
    let trailer = trailer.unwrap_or_else(|| panic!("{what}: no trailer"));
    trailer
        .verify(&bytes[..])
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(digest_of(&bytes), trailer.digest, "{what}");
    // One of an earlier history, in a restored folder, is not in this reference.
    if let Some(moment) = reference.moments.get(&trailer.lsn) {
        assert_eq!(trailer.digest, moment.digest, "{what}: LSN {}", trailer.lsn);
    }
    trailer.lsn
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let sum = sha2::Sha256::digest(bytes);
    unisondb_types::Sha256Sum::from_bytes(sum.into()).to_string()
}

/// The digest of a snapshot's entries, added up anew.
fn digest_of(snapshot: &[u8]) -> Digest {
    let image = Image::open(snapshot).unwrap();
    let mut digest = Digest::EMPTY;
    for item in image.iter() {
        let item = item.unwrap();
        let (hash, rest) = item.value.split_at(32);
        let hash = EntryHash::from_bytes(hash.try_into().unwrap());
        let (lsn, payload) = rest.split_at(8);
        let lsn = Lsn::new(u64::from_le_bytes(lsn.try_into().unwrap()));
        let (table, name) = item.key.split_first().unwrap();
        assert_eq!(hash, EntryHash::of(*table, name, lsn, payload));
        if IN_DIGEST.contains(table) {
            digest.add(&hash);
        }
    }
    digest
}

fn walk(disk: &MemoryDisk, folder: &Path, files: &mut Vec<PathBuf>) {
    // No backup was begun before the fault.
    let Ok(entries) = disk.list(folder) else {
        return;
    };
    for entry in entries {
        let path = folder.join(&entry.name);
        match entry.kind {
            EntryKind::Folder => walk(disk, &path, files),
            _ => files.push(path),
        }
    }
}
