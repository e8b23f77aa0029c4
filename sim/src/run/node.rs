//! [`Node`]: a node's process as the harness sees it: up or not, ended and started.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::watch;
use turmoil::Sim;
use unisondb_engine::start::{self, Folders};
use unisondb_platform::DiskExt as _;
use unisondb_platform::memory::{MemoryClock, MemoryDisk, platform_on};

use super::{NAMESPACES, Shell};
use crate::oracle::log::{self, Id};
use crate::oracle::truth::Truth;
use crate::plan::Setting;
use crate::restores;
use crate::world::host::{self, Status};
use crate::world::{DATA, Machine, PEER_PORT};

pub struct Node {
    /// Of its host.
    pub name: String,
    pub machine: Shell,
    stop: Rc<RefCell<watch::Sender<bool>>>,
    flags: Vec<String>,
    up: bool,
    /// Faults of the disk were injected since the last start.
    pub disturbed: bool,
    /// Writes to the backups have landed in other places, at some time in the run.
    pub misdirected: bool,
    /// Starts in a row that failed although nothing was wrong.
    pub failed_starts: u64,
    /// It has lost its disk, and is not in the cluster again yet.
    pub is_fresh: bool,
    /// It was told to stop: how late it may be at most, and when it starts again.
    pub stopping: Option<(u64, u64)>,
    /// At the operation that was set the process is killed, not the power lost.
    pub kill_at_freeze: bool,
}

impl Node {
    pub fn new(
        machine: Machine,
        setting: &Setting,
        hosts: &[String],
        sim: &mut Sim<'static>,
    ) -> Node {
        let name = machine.name.clone();
        let mut flags = vec![
            format!("--segment-size={}", setting.segment_bytes),
            format!("--flush-bytes={}", setting.flush_bytes),
            format!("--flush-interval={}ms", setting.flush_ms),
            format!("--wal-retention={}s", setting.retention_seconds),
            format!("--ballast-bytes={}", setting.ballast_bytes),
            "--map-size=16MiB".to_owned(),
            "--scrub-interval=20s".to_owned(),
        ];
        if hosts.len() > 1 {
            // Whatever is configured on a node, a namespace has the size that it began with.
            let number = hosts.iter().position(|host| *host == name);
            let more = setting.segment_bytes << (number.unwrap_or_default() % 2);
            flags[0] = format!("--segment-size={more}");
            let at = |host: &String| format!("{host}:{PEER_PORT}");
            let peers: Vec<String> = hosts.iter().map(at).collect();
            flags.extend([
                format!("--peer-addr={}", at(&name)),
                format!("--peers={}", peers.join(",")),
                format!("--namespaces={}", NAMESPACES.join(",")),
            ]);
        }
        let machine = Rc::new(RefCell::new(machine));
        machine.borrow_mut().flags = flags.clone();
        let stop = Rc::new(RefCell::new(watch::Sender::new(false)));
        let (shell, told) = (machine.clone(), stop.clone());
        let host = name.clone();
        sim.host(name.clone(), move || {
            let mut machine = shell.borrow_mut();
            let platform = machine.boot();
            let (flags, status) = (machine.flags.clone(), machine.status.clone());
            let wrong = machine.wrong.clone();
            let stop = told.borrow().subscribe();
            let host = host.clone();
            async move {
                host::run(host, platform, flags, status, wrong, stop).await?;
                Ok(())
            }
        });
        Node {
            name,
            is_fresh: false,
            stopping: None,
            machine,
            stop,
            flags,
            up: true,
            disturbed: false,
            misdirected: false,
            failed_starts: 0,
            kill_at_freeze: false,
        }
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    pub fn status(&self) -> Status {
        match self.up {
            true => self.machine.borrow().status.lock().clone(),
            false => Status::Stopped,
        }
    }

    /// SIGTERM.
    pub fn tell_to_stop(&self) {
        self.stop.borrow().send_replace(true);
    }

    /// The process is gone; the disk is what `end` makes of it.
    pub fn end(
        &mut self,
        sim: &mut Sim<'static>,
        end: impl FnOnce(&MemoryDisk) -> MemoryDisk,
    ) -> MemoryDisk {
        let disk = self.machine.borrow().disk.clone();
        // Frozen first: what is dropped must not write.
        disk.freeze();
        sim.crash(self.name.as_str());
        let next = end(&disk);
        self.machine.borrow_mut().disk = next.clone();
        self.up = false;
        self.stopping = None;
        next
    }

    /// Starts it, once with further flags.
    pub fn start(&mut self, sim: &mut Sim<'static>, more: &[String]) {
        *self.stop.borrow_mut() = watch::Sender::new(false);
        self.machine.borrow_mut().flags = [&self.flags[..], more].concat();
        *self.machine.borrow().status.lock() = Status::Starting;
        self.up = true;
        self.disturbed = false;
        sim.bounce(self.name.as_str());
    }

    /// The segments of the live log, as they are on the disk.
    pub fn log(&self, namespace: &str) -> Vec<(PathBuf, Vec<u8>, log::Segment)> {
        let folder = format!("{DATA}/{namespace}/wal");
        let files = self.machine.borrow().disk.files(Path::new(&folder));
        let segments = files
            .into_iter()
            .filter(|(p, _)| p.extension().is_some_and(|e| e == "wal"));
        segments
            .filter_map(|(path, bytes)| {
                let segment = log::segment(&bytes)?;
                Some((path, bytes, segment))
            })
            .collect()
    }

    /// Names of all files on its disk that show what they are: that can be read (once every fault is
    /// healed, a sector that went bad is all that can keep one from it), and have not lost their beginning
    /// to another place.
    pub fn files(&self) -> Vec<PathBuf> {
        let disk = self.machine.borrow().disk.clone();
        let files = disk.files(Path::new("/")).into_iter();
        let shows = |path: &PathBuf| {
            let bytes = restores::plain(&disk).read(path, 1 << 30);
            bytes.is_ok_and(|b| !(self.misdirected && lacks_its_beginning(&b)))
        };
        files.map(|(path, _)| path).filter(shows).collect()
    }

    /// The lineage of the newest segment.
    pub fn lineage(&self, namespace: &str) -> Option<Id> {
        let log = self.log(namespace);
        log.iter()
            .max_by_key(|(_, _, s)| s.id)
            .map(|(_, _, s)| s.lineage)
    }

    /// The state on the disk, opened beside the run, against the model.
    pub fn final_state(
        &self,
        truth: &Truth,
        lineage: Id,
        namespace: &str,
        keys: u64,
    ) -> Vec<String> {
        let disk = self.machine.borrow().disk.kill();
        let platform = platform_on(&disk, &MemoryClock::default(), 1);
        let folders = Folders {
            namespace: namespace.parse().ok(),
            home: PathBuf::from(format!("{DATA}/{namespace}")),
            backups: PathBuf::from(format!("{DATA}/backups/{namespace}")),
        };
        let request = start::Request {
            map_size: 16 << 20,
            ..start::Request::default()
        };
        let engine = match start::open(&platform, &folders, &request) {
            Ok(opened) => opened.engine,
            Err(e) => {
                return vec![format!(
                    "the node's directory does not open at the end: {e}"
                )];
            }
        };
        let lsn = engine.applied().get();
        let mut wrong = Vec::new();
        if lsn < truth.committed(lineage) {
            wrong.push(format!(
                "P1: at the end record {lsn} is the last, {} was committed",
                truth.committed(lineage)
            ));
        }
        match truth.state(lineage, lsn) {
            Ok(model) => wrong.extend(
                model
                    .differences(&restores::read(&engine, keys))
                    .into_iter()
                    .map(|d| format!("at the end: {d}")),
            ),
            Err(n) => wrong.push(format!("P1: at the end record {n} is nowhere")),
        }
        wrong
    }
}

/// Whether the first sector was never written, though something behind it was: the disk has put it
/// elsewhere.
fn lacks_its_beginning(file: &[u8]) -> bool {
    let (first, rest) = file.split_at(file.len().min(512));
    !rest.is_empty() && first.iter().all(|b| *b == 0)
}
