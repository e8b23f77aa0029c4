//! What the tests of this crate share: a machine in memory, a lineage, records.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use unisondb_platform::memory::{self, MemoryDisk};
use unisondb_platform::{Disk, DiskExt, Platform};
use unisondb_types::{
    Ancestor, ClusterId, Command, Kind, LineageId, LineageReason, LineageRecord, Lsn, Parent,
    SegmentId, Stamp, Target, Term,
};

use crate::{Error, Options, Recovery, Wal, begin};

pub(crate) const SEGMENT_SIZE: u64 = 4096;

/// Small everything, so that a few records make several segments.
pub(crate) fn options() -> Options {
    Options {
        segment_size: SEGMENT_SIZE,
        zero_ahead: 1024,
        largest_payload: 600,
        memory: 2000,
        ..Options::default()
    }
}

pub(crate) fn lineage(n: u8) -> LineageId {
    LineageId::from_bytes([n; 16])
}

pub(crate) fn created() -> LineageRecord {
    LineageRecord {
        cluster: ClusterId::from_bytes([7; 16]),
        namespace: "users".parse().unwrap(),
        lineage: lineage(1),
        parent: None,
        ancestors: Vec::new(),
        first_segment: SegmentId::FIRST,
        segment_size: SEGMENT_SIZE,
        members: vec![11],
        reason: LineageReason::Created,
    }
}

/// A lineage that goes on from `parent`, whose record says what it was.
pub(crate) fn forked(
    n: u8,
    from: &LineageRecord,
    parent: Parent,
    first: SegmentId,
) -> LineageRecord {
    let mut ancestors = vec![Ancestor {
        lineage: parent.lineage,
        fork: parent.fork,
    }];
    ancestors.extend(from.ancestors.iter().copied());
    LineageRecord {
        lineage: lineage(n),
        ancestors,
        first_segment: first,
        reason: LineageReason::Restored(Target::Lsn(parent.fork)),
        parent: Some(parent),
        ..from.clone()
    }
}

pub(crate) fn time(n: u64) -> Stamp {
    Stamp::from_micros(1_700_000_000_000_000 + n)
}

/// User data of `len` bytes that starts with `n`.
pub(crate) fn user(n: u64, len: usize) -> (Kind, Bytes) {
    let mut payload = vec![0xa5; len.max(8)];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    (Kind::User, payload.into())
}

pub(crate) fn seal(id: u64) -> (Kind, Bytes) {
    (Kind::Seal, Command::Seal(SegmentId::new(id)).payload())
}

pub(crate) fn blank() -> (Kind, Bytes) {
    (Kind::Blank, Bytes::new())
}

pub(crate) fn digest(n: u8) -> unisondb_types::Digest {
    unisondb_types::Digest::from_bytes([n; 32])
}

/// A machine with a folder for a log.
#[derive(Clone)]
pub(crate) struct Machine {
    pub platform: Platform,
    pub disk: MemoryDisk,
}

impl Machine {
    pub fn new() -> Machine {
        let machine = Machine::on(MemoryDisk::default());
        machine.disk.create_folders(&dir()).unwrap();
        machine
    }
    pub fn on(disk: MemoryDisk) -> Machine {
        let clock = memory::MemoryClock::default();
        Machine {
            platform: memory::platform_on(&disk, &clock, 1),
            disk,
        }
    }
    /// With a log that was just begun.
    pub fn begun() -> Machine {
        let machine = Machine::new();
        machine.begin(&created());
        machine
    }
    pub fn begin(&self, record: &LineageRecord) {
        begin(&self.platform, &dir(), record, Term::new(1), time(0)).unwrap();
    }
    pub fn try_open(&self, options: Options, vouched: u64) -> Result<(Wal, Recovery), Error> {
        Wal::open(&self.platform, &dir(), options, Lsn::new(vouched))
    }
    pub fn open(&self) -> Wal {
        self.try_open(options(), 0).unwrap().0
    }
    pub fn recover(&self) -> Recovery {
        self.try_open(options(), 0).unwrap().1
    }
    pub fn file(&self, name: &str) -> Vec<u8> {
        self.disk.read(&dir().join(name), 1 << 24).unwrap()
    }
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.disk.publish(&dir().join(name), bytes).unwrap();
    }
    pub fn remove(&self, name: &str) {
        self.disk.remove_file(&dir().join(name)).unwrap();
    }
    pub fn names(&self) -> Vec<String> {
        let entries = self.disk.list(&dir()).unwrap();
        entries.into_iter().map(|e| e.name).collect()
    }
    /// After a power loss.
    pub fn crash(&self, seed: u64) -> Machine {
        Machine::on(self.disk.crash(seed))
    }
    pub fn kill(&self) -> Machine {
        Machine::on(self.disk.kill())
    }
}

pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/data/users/wal")
}
pub(crate) fn path(id: u64) -> PathBuf {
    dir().join(name(id))
}
pub(crate) fn name(id: u64) -> String {
    SegmentId::new(id).file_name()
}
pub(crate) fn id(n: u64) -> SegmentId {
    SegmentId::new(n)
}
pub(crate) fn lsn(n: u64) -> Lsn {
    Lsn::new(n)
}

/// Appends `count` records of 300 bytes of payload; each is synced and called committed, so the
/// next one vouches for it.
pub(crate) fn fill(wal: &Wal, count: u64) {
    for _ in 0..count {
        let n = wal.last().get() + 1;
        wal.append(Term::new(1), time(n), &[user(n, 300)]).unwrap();
        let durable = wal.sync().unwrap();
        wal.commit(durable);
    }
}

/// Every record from `from` on, read in small pieces.
pub(crate) fn all(wal: &Wal, from: u64) -> Vec<crate::Entry> {
    let mut entries = Vec::new();
    let mut next = lsn(from);
    loop {
        let some = wal.read(next, 700).unwrap();
        let Some(last) = some.last() else {
            return entries;
        };
        next = last.record.lsn.next();
        entries.extend(some);
    }
}

/// The machine's disk as the trait that the functions take.
pub(crate) fn on(machine: &Machine) -> &dyn Disk {
    &machine.disk
}

pub(crate) fn exists(machine: &Machine, path: &Path) -> bool {
    machine.disk.exists(path).unwrap()
}
