//! A namespace with a history, its snapshot and its archive, and the documented commands on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use unisondb_engine::start::{Request, StartError};
use unisondb_platform::{Platform, real};
use unisondb_types::{Lsn, SegmentId, Target};

use super::{Model, Rig, request};

/// A namespace with a history, its backups, and what it was at each LSN.
pub struct World {
    pub platform: Platform,
    _dir: tempfile::TempDir,
    pub home: PathBuf,
    pub snapshot: PathBuf,
    pub snapshot_lsn: Lsn,
    pub archive: PathBuf,
    pub model: Model,
    pub last: Lsn,
}

/// 60 writes, a snapshot, 120 more; everything sealed and archived.
pub fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let home = super::home(dir.path());
    let platform = real::platform();
    let mut rig = Rig::open(&platform, &home).unwrap();
    let fill = |rig: &mut Rig, from: usize, n: usize| {
        for i in from..from + n {
            rig.put(
                &format!("k{}", i % 40),
                &format!("value {i} {}", "x".repeat(i % 90)),
            )
            .unwrap();
        }
    };
    fill(&mut rig, 0, 60);
    let through = rig.seal().unwrap();
    let snapshot = rig.engine.backup_snapshot("snap/base.db", through).unwrap();
    fill(&mut rig, 60, 120);
    rig.seal().unwrap();
    let copies = rig
        .engine
        .backup_wal(SegmentId::ZERO, "wal/archive")
        .unwrap();
    assert!(copies.copies.len() > 6);
    let world = World {
        home,
        snapshot: snapshot.path,
        snapshot_lsn: snapshot.lsn,
        archive: copies.copies[0].path.parent().unwrap().to_owned(),
        model: rig.model.clone(),
        last: *rig.model.at.keys().next_back().unwrap(),
        platform,
        _dir: dir,
    };
    rig.close();
    world
}

/// One write, a snapshot, and two writes that no segment is sealed behind.
pub fn small_world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let home = super::home(dir.path());
    let platform = real::platform();
    let mut rig = Rig::open(&platform, &home).unwrap();
    rig.put("a", "1").unwrap();
    let through = rig.seal().unwrap();
    let snapshot = rig.engine.backup_snapshot("s.db", through).unwrap();
    rig.put("b", "2").unwrap();
    let last = rig.put("c", "3").unwrap();
    let world = World {
        archive: dir.path().join("backups/users/wal/archive"),
        snapshot: snapshot.path,
        snapshot_lsn: snapshot.lsn,
        model: rig.model.clone(),
        last,
        home,
        platform,
        _dir: dir,
    };
    rig.close();
    world
}

impl World {
    pub fn open(&self, request: &Request) -> Result<Rig, StartError> {
        Rig::open_with(&self.platform, &self.home, request)
    }
    pub fn empty(&self, folder: &str) {
        for e in fs::read_dir(self.home.join(folder)).unwrap() {
            fs::remove_file(e.unwrap().path()).unwrap();
        }
    }
    pub fn put_snapshot(&self) {
        self.empty("db");
        fs::copy(&self.snapshot, self.home.join("db/data.mdb")).unwrap();
    }
    pub fn put_archive(&self) {
        self.empty("wal");
        for path in segments(&self.archive) {
            fs::copy(&path, self.home.join("wal").join(path.file_name().unwrap())).unwrap();
        }
    }
    /// What a restore by copying begins with: the snapshot, and the archive as the log.
    pub fn put_backups(&self) {
        self.put_snapshot();
        self.put_archive();
    }
    pub fn to(&self, target: Target) -> Request {
        Request {
            target: Some(target),
            ..request()
        }
    }
}

pub fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|x| x == "wal"))
        .collect();
    all.sort();
    all
}

/// Everything below a folder, by name.
pub fn all_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for e in fs::read_dir(folder).unwrap() {
        let path = e.unwrap().path();
        if path.is_dir() {
            all.extend(all_below(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}
