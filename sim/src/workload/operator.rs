//! The operator: takes backups over HTTP as the documented scripts do, keeps copies of what they
//! published somewhere else, and remembers what was said of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use unisondb_platform::memory::{MemoryDisk, Random};

use super::client::Shared;
use super::http::Http;
use crate::oracle::history::acknowledged;
use crate::oracle::log::{self, Id};
use crate::oracle::snapshot;
use crate::oracle::truth::{Source, Truth, unhex};
use crate::trace::What;
use crate::world::DATA;

/// What lies in another place, safe from all that happens to the node.
#[derive(Default)]
pub struct Archive {
    /// Segments by file name.
    pub segments: BTreeMap<String, Vec<u8>>,
    pub snapshots: Vec<Snapshot>,
}

impl Archive {
    pub fn has_segment_of(&self, lineage: Id) -> bool {
        let mut segments = self.segments.values();
        segments.any(|bytes| log::segment(bytes).is_some_and(|s| s.lineage == lineage))
    }
}

/// A snapshot, and what the node said of it.
pub struct Snapshot {
    pub bytes: Vec<u8>,
    pub lineage: Id,
    pub lsn: u64,
}

/// What the operator is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    Wal,
    Snapshot,
    Seal,
}

/// The operator's desk.
#[derive(Clone)]
pub struct Desk {
    pub shared: Shared,
    pub errands: Arc<Mutex<VecDeque<Errand>>>,
    pub archive: Arc<Mutex<Archive>>,
    pub truth: Arc<Mutex<Truth>>,
    /// The nodes' disks as they are now.
    pub disks: Arc<Mutex<Vec<MemoryDisk>>>,
    /// The script's state file.
    pub last_segment: Arc<Mutex<u64>>,
    /// What has been seen of the backups' folder.
    pub backups: Arc<Mutex<Backups>>,
}

/// What was published and has to stay.
#[derive(Default)]
pub struct Backups {
    /// On these nodes something went wrong with their disk: files may be damaged or gone.
    disturbed: BTreeSet<usize>,
    /// Files that nobody writes a second time, by node and path, and their sums.
    published: BTreeMap<(usize, String), [u8; 32]>,
    /// The last record that has been archived, and of which lineage.
    archived_to: Option<(Id, u64)>,
}

impl Desk {
    /// Until the run is over.
    #[allow(clippy::disallowed_methods)]
    pub async fn run(self) {
        let mut http = Http::new(self.shared.setting.nodes);
        let mut random = Random::keyed(self.shared.seed, b"operator", 0);
        let mut number = 0u64;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if *self.shared.over.lock() {
                return;
            }
            if *self.shared.hold.lock() {
                continue;
            }
            let Some(errand) = self.errands.lock().pop_front() else {
                continue;
            };
            number += 1;
            // As a balancer does: whichever node it is.
            http.turn(&mut random);
            match errand {
                Errand::Wal => self.wal(&mut http, number).await,
                Errand::Snapshot => self.snapshot(&mut http, number).await,
                Errand::Seal => {
                    self.ask(&mut http, "wal/seal", json!({})).await;
                }
            }
        }
    }

    async fn ask(
        &self,
        http: &mut Http,
        route: &str,
        body: Value,
    ) -> Option<(u16, Value, Option<Id>)> {
        let path = format!("/api/v1/{}/{route}", self.shared.namespace);
        let sent = Bytes::from(body.to_string());
        let reply = http.send(Method::POST, &path, &[], sent).await;
        match reply {
            Ok(reply) => {
                let answer = reply.json();
                self.shared.trace.event(
                    "operator",
                    format_args!("{route} {body} -> {} {answer}", reply.status),
                );
                self.shared.trace.note(What::Backup {
                    text: in_words(route, reply.status, &answer),
                    done: reply.status == 200,
                });
                self.shared
                    .counters
                    .add(&format!("{route} {}", reply.status));
                let lineage = reply.header("x-unison-lineage").and_then(unhex);
                Some((reply.status, answer, lineage))
            }
            Err(lost) => {
                self.shared
                    .trace
                    .event("operator", format_args!("{route} -> {lost:?}"));
                self.shared.trace.note(What::Backup {
                    text: format!("{route}: {lost:?}"),
                    done: false,
                });
                None
            }
        }
    }

    async fn wal(&self, http: &mut Http, number: u64) {
        // Now and then all over again, as one does who sets up a second archive.
        let after = match number.is_multiple_of(5) {
            true => 0,
            false => *self.last_segment.lock(),
        };
        // As the scripts do: the same folder, or one a call.
        let dir = if number.is_multiple_of(3) {
            "wal/archive".to_owned()
        } else {
            format!("wal/{number}")
        };
        let before = self.shared.history.lock().told.len();
        let answer = self
            .ask(
                http,
                "wal/backup",
                json!({"afterSegmentId": after, "backupDir": dir}),
            )
            .await;
        let Some((status, answer, lineage)) = answer else {
            return;
        };
        if status == 409 && answer["firstAvailable"].is_u64() {
            self.shared.counters.add("a gap was told");
            *self.last_segment.lock() = 0;
        }
        let (200, Some(backups)) = (status, answer["backups"].as_array()) else {
            return;
        };
        let mut newest = after;
        let mut ends = None;
        for backup in backups {
            let (Some(id), Some(path)) = (backup["segmentId"].as_u64(), backup["path"].as_str())
            else {
                self.find("B5: a backup without id or path");
                return;
            };
            if id <= newest {
                self.find(&format!("B19: segment {id} was given behind {newest}"));
            }
            newest = id;
            ends = self.keep(http.node(), id, path);
        }
        *self.last_segment.lock() = newest;
        if !backups.is_empty() {
            self.shared.counters.add("segments were archived");
        }
        // P8: what was acknowledged before the call is in what has been archived by now. (Where the disk
        // has lost the last segment again already, nobody can say what was in it.)
        let Some(lineage) = lineage else { return };
        let archived_to = {
            let mut seen = self.backups.lock();
            if !backups.is_empty() {
                seen.archived_to = ends.map(|ends| (lineage, ends));
            }
            seen.archived_to.filter(|(l, _)| *l == lineage)
        };
        if let (Some((_, ends)), true) = (archived_to, answer["sealed"] == true) {
            let told = &self.shared.history.lock().told[..before];
            let acked = acknowledged(told, lineage);
            if ends < acked {
                self.find(&format!(
                    "P8: a sealing WAL backup ends at record {ends}, {acked} had been acknowledged"
                ));
            }
        }
    }

    /// Copies a published segment to the archive; its last record.
    fn keep(&self, node: usize, id: u64, path: &str) -> Option<u64> {
        let bytes = self.read(node, path)?;
        let Some(segment) =
            log::segment(&bytes).filter(|s| s.footer.is_some() && s.bytes + 256 == bytes.len())
        else {
            // Damaged on the way to us: the disk of the backups is one that fails too.
            self.shared
                .counters
                .add("a published segment was found damaged");
            if !self.are_backups_disturbed(node) {
                self.find(&format!("P9: {path} was published and is no whole segment"));
            }
            return None;
        };
        if segment.id != id || segment.namespace != self.shared.namespace {
            self.find(&format!(
                "P6: {path} is segment {} of {}",
                segment.id, segment.namespace
            ));
        }
        let last = segment.footer.as_ref().map(|f| f.last);
        let wrong = self.truth.lock().add(&segment, &bytes, Source::Backup);
        wrong.iter().for_each(|w| self.find(w));
        self.published(node, path, &bytes);
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        self.archive.lock().segments.insert(name, bytes);
        last
    }

    async fn snapshot(&self, http: &mut Http, number: u64) {
        let path = if number.is_multiple_of(2) {
            "snapshots/latest.db".to_owned()
        } else {
            format!("snapshots/{number}.db")
        };
        let before = self.shared.history.lock().told.len();
        let answer = self.ask(http, "btree/backup", json!({"path": path})).await;
        let Some((200, answer, _)) = answer else {
            return;
        };
        let said = || -> Option<(String, u64, Id, [u8; 32])> {
            Some((
                answer["path"].as_str()?.to_owned(),
                answer["lsn"].as_u64()?,
                unhex(answer["lineage"].as_str()?)?,
                unhex(answer["digest"].as_str()?)?,
            ))
        };
        let Some((path, lsn, lineage, digest)) = said() else {
            self.find(&format!(
                "C3: a snapshot's answer lacks something: {answer}"
            ));
            return;
        };
        // Without a leader it is as new as the node is, and says so.
        if answer["sealed"] != true {
            self.shared
                .counters
                .add("a snapshot was taken without a leader");
        }
        let told = &self.shared.history.lock().told[..before];
        let acked = acknowledged(told, lineage);
        if answer["sealed"] == true && lsn < acked {
            self.find(&format!(
                "P8: a snapshot stands at record {lsn}, {acked} had been acknowledged"
            ));
        }
        let wrong = self.truth.lock().digest(lineage, lsn, digest, "a snapshot");
        wrong.iter().for_each(|w| self.find(w));
        let node = http.node();
        let Some(bytes) = self.read(node, &path) else {
            return;
        };
        if !snapshot::is_whole(&bytes) {
            // Damaged on the way to us, as a segment may be: who copies compares.
            self.shared
                .counters
                .add("a published snapshot was found damaged");
            if !self.are_backups_disturbed(node) {
                self.find(&format!(
                    "P9: {path} was published and is no whole snapshot"
                ));
            }
            return;
        }
        self.shared.counters.add("a snapshot was archived");
        // The other name is written again and again.
        if !number.is_multiple_of(2) {
            self.published(node, &path, &bytes);
        }
        self.archive.lock().snapshots.push(Snapshot {
            bytes,
            lineage,
            lsn,
        });
    }

    /// A file of the backups, if nothing has happened to it meanwhile.
    fn read(&self, node: usize, path: &str) -> Option<Vec<u8>> {
        let folder = format!("{DATA}/backups/{}", self.shared.namespace);
        let files = self.disks.lock()[node].files(Path::new(&folder));
        let found = files.into_iter().find(|(p, _)| p == Path::new(path));
        if found.is_none() {
            self.shared.counters.add("a published file was gone");
            if !self.are_backups_disturbed(node) {
                self.find(&format!("P9: {path} was published and is gone"));
            }
        }
        Some(found?.1)
    }

    fn published(&self, node: usize, path: &str, bytes: &[u8]) {
        let sum = *blake3::hash(bytes).as_bytes();
        let key = (node, path.to_owned());
        self.backups.lock().published.insert(key, sum);
    }

    /// Something goes wrong with the disk of a node's backups.
    pub fn backups_disturbed(&self, node: usize) {
        self.backups.lock().disturbed.insert(node);
    }

    pub fn are_backups_disturbed(&self, node: usize) -> bool {
        self.backups.lock().disturbed.contains(&node)
    }

    /// A node has lost its disk: nothing is there any more.
    pub fn lost(&self, node: usize) {
        self.backups.lock().published.retain(|(n, _), _| *n != node);
    }

    /// P9: what a node has published is there after each of its ends.
    pub fn check_published(&self, node: usize) {
        let folder = format!("{DATA}/backups/{}", self.shared.namespace);
        let there: BTreeMap<String, [u8; 32]> = self.disks.lock()[node]
            .files(Path::new(&folder))
            .into_iter()
            .map(|(path, bytes)| {
                let path = path.to_string_lossy().into_owned();
                (path, *blake3::hash(&bytes).as_bytes())
            })
            .collect();
        let seen = self.backups.lock();
        if seen.disturbed.contains(&node) {
            return;
        }
        let of_node = seen.published.iter().filter(|((n, _), _)| *n == node);
        for ((_, path), sum) in of_node {
            match there.get(path) {
                Some(now) if now == sum => {}
                Some(_) => self.find(&format!("P9: {path} was published and has changed")),
                None => self.find(&format!("P9: {path} was published and is gone")),
            }
        }
    }

    fn find(&self, what: &str) {
        self.shared.find(what);
    }
}

/// A backup's answer, for the timeline.
fn in_words(route: &str, status: u16, answer: &Value) -> String {
    if status != 200 {
        let why = answer["error"].as_str().or(answer["message"].as_str());
        return format!("{route}: {status} {}", why.unwrap_or_default());
    }
    match (answer["backups"].as_array(), answer["lsn"].as_u64()) {
        (Some(backups), _) => match backups.last() {
            Some(last) => format!(
                "{route}: {} segments, the last is {}",
                backups.len(),
                last["segmentId"]
            ),
            None => format!("{route}: nothing new"),
        },
        (None, Some(lsn)) => format!("{route}: LSN {lsn}"),
        (None, None) => format!("{route}: done"),
    }
}
