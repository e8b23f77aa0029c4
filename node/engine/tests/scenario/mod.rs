//! A life of one namespace on an in-memory disk, step by step: what it does, and what its clients
//! were told. Run to its end it is the reference; run into a fault it says what must be there after.

#![allow(dead_code, clippy::unwrap_used)]

pub mod oracle;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use unisondb_engine::backup::BackupError;
use unisondb_engine::start::{self, Request, StartError};
use unisondb_platform::memory::{MemoryClock, MemoryDisk, Native, platform_on};
use unisondb_platform::{Access, Disk, DiskExt, FileExt};
use unisondb_types::{
    Action, Check, ColumnName, Command, EntryType, Idempotency, IdempotencyKey, Key, Lsn, Op,
    RowKey, SegmentId, Sha256Sum, TxId, TxOperation, Value,
};
use unisondb_wal::SegmentState;

use crate::rig::{self, Moment, Rig};

/// Where the copies of segments go, below the backup root.
pub const COPIES: &str = "wal";
/// Name of the snapshot, below the backup root. Each one replaces the one before.
pub const SNAPSHOT: &str = "btree/base.db";

pub fn home() -> PathBuf {
    rig::home(Path::new("/data"))
}

pub fn backups() -> PathBuf {
    rig::folders(&home()).backups
}

pub fn fresh_disk() -> MemoryDisk {
    // In memory where there is such a folder: LMDB's commits are real, their fsyncs need not be.
    let fast = Path::new("/dev/shm");
    let scratch = if fast.is_dir() {
        tempfile::tempdir_in(fast)
    } else {
        tempfile::tempdir()
    };
    MemoryDisk::new(Native::component("db", scratch.unwrap()))
}

/// What the node does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Starts.
    Open,
    /// Proposes a record, and the checks that it makes due.
    Do(Command),
    /// Ends the active segment.
    Seal,
    /// Brings all into LMDB.
    Flush,
    /// Copies the segments that were sealed since the last time.
    Copy,
    /// Replaces the snapshot.
    Snapshot,
    /// Purges all sealed segments that it may.
    Purge,
    /// Stops as told.
    Close,
    /// Is gone without a word.
    Die,
}

/// Why a step was not done.
#[derive(Debug)]
pub enum Trouble {
    Start(StartError),
    Engine(unisondb_engine::Error),
    Backup(BackupError),
}

impl Trouble {
    pub fn is_full(&self) -> bool {
        match self {
            Trouble::Start(StartError::Full(_)) | Trouble::Backup(BackupError::NoSpace) => true,
            Trouble::Start(StartError::Engine(e)) | Trouble::Engine(e) => e.is_full(),
            Trouble::Backup(BackupError::Engine(e)) => e.is_full(),
            _ => false,
        }
    }
}

impl<E: Into<unisondb_engine::Error>> From<E> for Trouble {
    fn from(e: E) -> Trouble {
        Trouble::Engine(e.into())
    }
}

/// What clients and operators were told.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// The last record that was answered.
    pub acked: Lsn,
    /// The state after each record that was applied.
    pub moments: BTreeMap<Lsn, Moment>,
    /// The bytes of each segment that was sealed.
    pub sealed: BTreeMap<SegmentId, Vec<u8>>,
    /// The last segment that was purged, or may have been.
    pub purged: SegmentId,
    /// Copies that were reported.
    pub copies: BTreeMap<SegmentId, Sha256Sum>,
    /// The LSN of the last snapshot that was reported.
    pub snapshot: Option<Lsn>,
    /// The highest segment id seen.
    pub highest: SegmentId,
}

pub struct Node {
    pub disk: MemoryDisk,
    pub request: Request,
    pub rig: Option<Rig>,
    pub told: Told,
    /// Checks that are due and not yet in the log.
    owed: Vec<Check>,
}

impl Node {
    pub fn on(disk: &MemoryDisk, request: &Request) -> Node {
        Node {
            disk: disk.clone(),
            request: request.clone(),
            rig: None,
            told: Told::default(),
            owed: Vec::new(),
        }
    }

    /// Does the steps up to the first that fails; gives that one's place and why.
    pub fn run(&mut self, steps: &[Step]) -> Result<(), (usize, Trouble)> {
        for (n, step) in steps.iter().enumerate() {
            self.step(step).map_err(|e| (n, e))?;
        }
        Ok(())
    }

    pub fn step(&mut self, step: &Step) -> Result<(), Trouble> {
        match step {
            Step::Open => {
                self.start().map_err(Trouble::Start)?;
                self.settle()
            }
            Step::Do(command) => self.propose(command),
            Step::Seal => {
                let active = self.rig().engine.wal().active().id;
                self.propose(&Command::Seal(active))
            }
            Step::Flush => Ok(self.rig().engine.flush().map(drop)?),
            Step::Copy => {
                let after = self.told.copies.keys().last().copied().unwrap_or_default();
                let made = self
                    .rig()
                    .engine
                    .backup_wal(after, COPIES)
                    .map_err(Trouble::Backup)?;
                self.told
                    .copies
                    .extend(made.copies.into_iter().map(|c| (c.segment, c.sha256)));
                Ok(())
            }
            Step::Snapshot => {
                let acked = self.told.acked;
                let made = self.rig().engine.backup_snapshot(SNAPSHOT, acked);
                self.told.snapshot = Some(made.map_err(Trouble::Backup)?.lsn);
                Ok(())
            }
            Step::Purge => {
                // As an operator who keeps what has not been copied.
                let copied = self.told.copies.keys().last().copied();
                let copied = copied.unwrap_or_default();
                self.told.purged = self.told.purged.max(copied);
                self.rig().engine.wal().purge(copied)?;
                Ok(())
            }
            Step::Close => {
                let Rig {
                    engine, applier, ..
                } = self.rig.take().unwrap();
                drop(applier);
                Ok(engine.shut_down()?)
            }
            Step::Die => {
                self.rig = None;
                Ok(())
            }
        }
    }

    pub fn rig(&mut self) -> &mut Rig {
        self.rig
            .as_mut()
            .expect("the scenario has opened the namespace")
    }

    /// Starts, and nothing more: what is due is not proposed yet.
    pub fn start(&mut self) -> Result<(), StartError> {
        let clock = MemoryClock::default();
        // Another boot draws other ids: the number of operations so far is as good as any seed.
        let platform = platform_on(&self.disk, &clock, self.disk.ops());
        let opened = start::open(&platform, &rig::folders(&home()), &self.request)?;
        self.owed.clear();
        self.rig = Some(Rig {
            platform,
            engine: opened.engine,
            applier: opened.applier,
            term: opened.vote.state().term,
            notes: opened.notes,
            model: rig::Model::default(),
        });
        self.saw();
        Ok(())
    }

    fn append(&mut self, command: &Command) -> Result<(), Trouble> {
        let rig = self.rig();
        let (wal, now) = (rig.engine.wal(), rig.platform.clock.now());
        wal.reserve(8 << 10)?;
        wal.append(rig.term, now, &[(command.kind(), command.payload())])?;
        Ok(())
    }

    pub fn propose(&mut self, command: &Command) -> Result<(), Trouble> {
        self.settle()?;
        self.append(command)?;
        self.settle()
    }

    /// Syncs and applies what has been appended, checks included, and answers for it.
    pub fn settle(&mut self) -> Result<(), Trouble> {
        loop {
            let wal = self.rig().engine.wal().clone();
            let durable = wal.sync()?;
            wal.commit(durable);
            while self.rig().applier.applied() < durable {
                let next = self.rig().applier.applied().next();
                for entry in wal.read(next, 1)? {
                    let applied = self.rig().applier.apply(&entry);
                    self.saw();
                    applied?;
                }
            }
            self.told.acked = self.told.acked.max(durable);
            let due = self.rig().engine.unconfirmed_checks();
            self.owed.extend(due);
            let Some(check) = self.owed.first().copied() else {
                return Ok(());
            };
            self.append(&Command::Check(check))?;
            self.owed.remove(0);
        }
    }

    /// Takes down what can be seen just now.
    fn saw(&mut self) {
        let Some(rig) = &self.rig else { return };
        self.told.moments.insert(rig.engine.applied(), rig.moment());
        for segment in rig.engine.wal().segments() {
            self.told.highest = self.told.highest.max(segment.id);
            if segment.state == SegmentState::Sealed && !self.told.sealed.contains_key(&segment.id)
            {
                let path = home().join("wal").join(segment.id.file_name());
                // A disk that has just stopped tells nothing, and nothing was told.
                if let Ok(bytes) = self.disk.read(&path, 1 << 20) {
                    self.told.sealed.insert(segment.id, bytes);
                }
            }
        }
    }
}

/// Copies the last snapshot over `db/`, as the documentation has an operator do it.
pub fn put_snapshot_in_place(disk: &MemoryDisk) {
    let db = home().join("db");
    disk.remove_all(&db).unwrap();
    disk.create_folders(&db).unwrap();
    let bytes = disk.read(&backups().join(SNAPSHOT), 16 << 20).unwrap();
    let file = disk.open(&db.join("data.mdb"), Access::CreateNew).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_folder(&db).unwrap();
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec()).unwrap()
}

fn value(byte: u8, len: usize) -> Value {
    Value::new(vec![byte; len])
}

fn user(action: Action) -> Step {
    Step::Do(Command::User {
        idempotency: None,
        action,
    })
}

fn write(ops: Vec<Op>) -> Action {
    Action::Write {
        conditions: Vec::new(),
        ops,
    }
}

pub fn put(name: &str, len: usize) -> Step {
    let byte = name.bytes().last().unwrap();
    user(write(vec![Op::KvPut {
        key: key(name),
        value: value(byte, len),
    }]))
}

fn begin(id: u8, entry_type: EntryType) -> Step {
    let id = TxId::from_bytes([id; 16]);
    user(Action::Begin {
        id,
        operation: TxOperation::Put,
        entry_type,
    })
}

fn stage(id: u8, name: &str) -> Step {
    let ops = vec![Op::KvPut {
        key: key(name),
        value: value(id, 40),
    }];
    user(Action::Stage {
        id: TxId::from_bytes([id; 16]),
        ops,
    })
}

fn chunk(id: u8, len: usize) -> Step {
    let (id, data) = (TxId::from_bytes([id; 16]), value(id, len));
    user(Action::Chunk {
        id,
        key: key("object"),
        data,
    })
}

fn commit(id: u8) -> Step {
    user(Action::Commit {
        id: TxId::from_bytes([id; 16]),
    })
}

/// Rows, a batch, a retry, transactions, an object that is replaced, rolls, seals, flushes, backups
/// of both kinds, a purge, two restarts.
pub fn life() -> Vec<Step> {
    let column = |name: &str| ColumnName::new(name.as_bytes().to_vec()).unwrap();
    let row = RowKey::new("row").unwrap();
    let rows = vec![
        Op::RowPut {
            row: row.clone(),
            columns: vec![(column("a"), value(1, 50)), (column("b"), value(2, 50))],
        },
        Op::KvPut {
            key: key("batch"),
            value: value(3, 30),
        },
    ];
    let retry = |byte| {
        Step::Do(Command::User {
            idempotency: Some(Idempotency {
                key: IdempotencyKey::new("retry").unwrap(),
                fingerprint: [7; 16],
            }),
            action: write(vec![Op::KvPut {
                key: key("once"),
                value: value(byte, 20),
            }]),
        })
    };
    let mut steps = vec![
        Step::Open,
        put("a", 900),
        user(write(rows)),
        retry(1),
        retry(2),
    ];
    steps.extend([
        begin(1, EntryType::Kv),
        stage(1, "staged"),
        put("b", 900),
        commit(1),
    ]);
    steps.extend([put("c", 1500), Step::Flush]);
    steps.extend([
        begin(2, EntryType::Lob),
        chunk(2, 1200),
        chunk(2, 1300),
        commit(2),
    ]);
    steps.extend([Step::Seal, Step::Copy, Step::Snapshot]);
    let drop_column = Op::RowDeleteColumns {
        row,
        columns: vec![column("a")],
    };
    steps.extend([
        begin(3, EntryType::Lob),
        chunk(3, 1000),
        commit(3),
        user(write(vec![drop_column])),
    ]);
    steps.extend([
        put("d", 2000),
        begin(4, EntryType::Kv),
        stage(4, "left open"),
        Step::Flush,
    ]);
    steps.extend([
        put("e", 700),
        Step::Purge,
        put("a", 800),
        Step::Seal,
        Step::Copy,
    ]);
    steps.extend([put("f", 300), Step::Snapshot, put("g", 200), Step::Close]);
    steps.extend([
        Step::Open,
        put("h", 1800),
        put("i", 1800),
        Step::Flush,
        put("j", 100),
        Step::Die,
    ]);
    steps.extend([
        Step::Open,
        put("k", 900),
        Step::Seal,
        Step::Copy,
        put("l", 500),
        Step::Close,
    ]);
    steps
}

/// What follows a restore.
pub fn restored_life() -> Vec<Step> {
    let mut steps = vec![
        Step::Open,
        put("m", 900),
        put("n", 1500),
        Step::Flush,
        put("o", 1500),
    ];
    steps.extend([
        Step::Seal,
        Step::Copy,
        Step::Snapshot,
        put("p", 100),
        Step::Die,
    ]);
    steps.extend([Step::Open, put("q", 900), Step::Close]);
    steps
}
