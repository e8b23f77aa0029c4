//! A real workload: clients write keys, rows, objects, batches and transactions while backups of
//! both kinds run; the server is killed in the middle and started again; all that was acknowledged
//! is there. Then it is destroyed and restored to many moments, each equal in content and digest to
//! what it was; then a restored node goes on, is backed up, and is restored across the fork, twice.
//!
//! Small by default; `UNISON_WORKLOAD=full`, `UNISON_SOAK_SECONDS=N`: see `workload::load::Scale`.
//! `UNISON_SEED=N` repeats what the clients choose (not how threads and kill meet).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use unisondb_tests::build;
use unisondb_tests::http::Client;
use unisondb_tests::node::Node;
use unisondb_tests::workload::archive::{self, Archive, Digests};
use unisondb_tests::workload::load::{Load, Scale, seed};
use unisondb_tests::workload::model::{Content, Timeline};
use unisondb_tests::workload::restore::{self, Sources, Target, restore};
use unisondb_tests::workload::settle::{settle, unknown};
use unisondb_tests::workload::text::Chance;
use unisondb_tests::workload::upload::Upload;
use unisondb_tests::workload::worker::Worker;
use unisondb_tests::workload::{NAMESPACE, content};

/// Longest time without any progress.
const STUCK: Duration = Duration::from_secs(120);

/// One history and its server's folders.
struct History {
    line: Timeline,
    digests: Digests,
    data: PathBuf,
    backups: PathBuf,
    /// Its name.
    lineage: String,
}

impl History {
    fn segments(&self) -> PathBuf {
        self.backups.join(NAMESPACE).join("wal")
    }
    /// The LSN so many thousandths into those of `range` at which digest and content are known.
    fn known(&self, range: impl RangeBounds<u64>, thousandths: usize) -> u64 {
        let sure = |lsn: &u64| self.line.unsure(*lsn).count() == 0;
        let all: Vec<u64> = self
            .digests
            .range(range)
            .map(|(lsn, _)| *lsn)
            .filter(sure)
            .collect();
        all[all.len() * thousandths / 1000]
    }
    /// Its backups, and the segments of older histories.
    fn sources(&self, older: &[&History]) -> Sources {
        let wal = older
            .iter()
            .copied()
            .chain([self])
            .map(History::segments)
            .collect();
        Sources {
            from: self.backups.join(NAMESPACE),
            wal,
            lineage: None,
        }
    }
}

struct Run {
    scale: Scale,
    seed: u64,
    chance: Chance,
    folder: PathBuf,
    begun: Instant,
}

impl Run {
    fn say(&self, text: impl std::fmt::Display) {
        eprintln!("[{:6.1} s] {text}", self.begun.elapsed().as_secs_f64());
    }

    fn start(&self, history: &History) -> Node {
        let backups = history.backups.display().to_string();
        let mut flags = vec!["--backup-dir", &*backups];
        flags.extend(self.scale.flags);
        Node::start(&history.data, &flags)
    }

    /// Puts a load on a server, kills it `kills` times in the middle, and stops it at the end, with
    /// a backup of everything.
    fn load(&mut self, history: &mut History, load: &Load, kills: u64, object: Option<u64>) {
        let mut node = self.start(history);
        let name = serde_json::json!({ "name": NAMESPACE });
        node.client()
            .post("/api/v1/namespaces", &name)
            .unwrap()
            .expect(200);
        let clients = 0..self.scale.clients;
        let seed = self.chance.number();
        let worker = |n| Worker::new(n, seed, node.address(), &history.line);
        let mut workers: Vec<_> = clients.map(worker).collect();
        let mut upload = object.map(|len| Upload::new(self.seed | 1, len, node.address()));
        let mut archive = Archive::new(node.address());
        for part in 0..=kills {
            let share = 1000 / (kills + 1);
            let until = part * share + share / 4 + self.chance.below(share / 2);
            let kill = (part < kills).then_some(until);
            let fleet = (&mut *workers, &mut upload, &mut archive);
            let left = self.part(history, node, load, kill, fleet);
            history
                .line
                .extend(workers.iter_mut().flat_map(Worker::take));
            history.line.extend(upload.as_mut().and_then(Upload::take));
            node = match left {
                Some(node) => node,
                None => self.killed(history, &mut workers),
            };
            let address = node.address();
            workers.iter_mut().for_each(|w| w.connect(address));
            upload.iter_mut().for_each(|u| u.connect(address));
            archive.connect(address);
        }
        let clients = self.scale.clients;
        // One more write behind the snapshot, so that the last segment holds what the log says of it.
        archive.snapshot().expect("the server is there");
        workers[0].put().expect("the server is there");
        archive.wal().expect("the server is there");
        history.line.extend(workers[0].take());
        for (lsn, digest) in std::mem::take(&mut archive.digests) {
            archive::note(&mut history.digests, lsn, digest);
        }
        let (lsn, digest) = archive::sealed_end(&mut node.client());
        history.digests.split_off(&(lsn + 1));
        archive::note(&mut history.digests, lsn, digest);
        history.lineage = archive::lineage(&mut node.client());
        history
            .line
            .compare(lsn, &content::read(&mut node.client(), clients))
            .unwrap();
        let contended = history.line.conditions_held().unwrap();
        self.say(format_args!(
            "{} writes acknowledged to LSN {lsn}, {contended} of them on a contended condition; \
             {} WAL backups and {} snapshots meanwhile, {} digests noted",
            load.acknowledged(),
            archive.wal_backups,
            archive.snapshots,
            history.digests.len()
        ));
        if let Some(upload) = upload {
            assert!(upload.committed());
            self.say(format_args!(
                "the object outlived {} kills",
                upload.interrupted
            ));
        }
        assert!(node.stop().success(), "a stopped server ends well");
    }

    /// All write until the load is done, or until the server is killed at `kill` thousandths. Gives
    /// the server, if it still runs.
    fn part(
        &mut self,
        history: &mut History,
        node: Node,
        load: &Load,
        kill: Option<u64>,
        (workers, upload, archive): (&mut [Worker], &mut Option<Upload>, &mut Archive),
    ) -> Option<Node> {
        load.resume();
        let address = node.address().to_owned();
        let pause = Duration::from_micros(self.chance.below(20_000));
        let mut node = Some(node);
        thread::scope(|scope| {
            let mut writers: Vec<_> = workers
                .iter_mut()
                .map(|w| scope.spawn(|| w.run(load)))
                .collect();
            writers.extend(upload.iter_mut().map(|u| scope.spawn(|| u.run(load))));
            let archiver = scope.spawn(|| archive.run(load));
            let watcher = scope.spawn(|| archive::watch(&address, load, &mut history.digests));
            let mut last = (Instant::now(), load.acknowledged());
            while !writers.iter().all(|w| w.is_finished()) {
                if kill.is_some_and(|at| load.progress() >= at) {
                    thread::sleep(pause);
                    node.take().expect("it is killed once").kill();
                    load.end();
                    break;
                }
                let now = load.acknowledged();
                if now / 20_000 > last.1 / 20_000 {
                    self.say(format_args!("{now} writes"));
                }
                if now > last.1 {
                    last = (Instant::now(), now);
                }
                assert!(last.0.elapsed() < STUCK, "no write for {STUCK:?}");
                thread::sleep(Duration::from_millis(2));
            }
            let writers: Vec<_> = writers.into_iter().map(|w| w.join()).collect();
            load.end();
            let others = [archiver.join(), watcher.join()];
            for ended in writers.into_iter().chain(others) {
                ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
        node
    }

    /// Starts the killed server again and finds everything that was acknowledged.
    fn killed(&mut self, history: &mut History, workers: &mut [Worker]) -> Node {
        let unknown = unknown(workers);
        let begun = Instant::now();
        let node = self.start(history);
        let ready = begun.elapsed();
        let mut http = node.client();
        let (now, _) = archive::digest(&mut http).expect("the server is there");
        let found = content::read(&mut http, self.scale.clients);
        let tags = content::tags(&mut http, found.kv.keys().map(|key| &**key));
        settle(workers, &found, &tags, now);
        let before = history.line.len();
        history
            .line
            .extend(workers.iter_mut().flat_map(Worker::take));
        let happened = history.line.len() - before;
        history.line.compare(now, &found).unwrap();
        let expected = history.line.tags(now);
        let wrong: Vec<_> = expected
            .iter()
            .filter(|(key, lsn)| tags.get(**key) != Some(*lsn))
            .collect();
        assert!(
            wrong.is_empty(),
            "keys at other LSNs than answered: {wrong:?}"
        );
        self.say(format_args!(
            "killed at LSN {now} or so, ready after {ready:.2?}: all {before} acknowledged writes are \
             there; {unknown} unknown, {happened} of them happened"
        ));
        node
    }

    /// Moments at which digest and content are known, spread over the whole history.
    fn moments(&mut self, history: &History, count: usize) -> Vec<u64> {
        let first = history.line.writes().first().map_or(0, |w| w.when.last());
        let all: Vec<u64> = history
            .digests
            .keys()
            .copied()
            .filter(|lsn| *lsn >= first)
            .collect();
        assert!(all.len() > count, "only {} digests were noted", all.len());
        (0..count).map(|_| *self.chance.one(&all)).collect()
    }

    /// Restores to `target` and compares what is then served with what was there at `lsn`.
    fn restored(&mut self, at: &History, sources: &Sources, target: &Target, lsn: u64) -> PathBuf {
        let into = self.folder.join("restored");
        if into.exists() {
            fs::remove_dir_all(&into).unwrap();
        }
        let done = restore(&into, sources, target);
        assert_eq!(done.lsn, lsn, "{target:?}: {}", done.report);
        if let Some(digest) = at.digests.get(&lsn) {
            assert_eq!(done.digest, *digest, "{target:?}: {}", done.report);
        }
        let node = Node::start(&into, self.scale.flags);
        let found = content::read(&mut node.client(), self.scale.clients);
        at.line
            .compare(lsn, &found)
            .unwrap_or_else(|e| panic!("{target:?}: {e}"));
        self.entries_keep_their_tags(&mut node.client(), at, lsn, &found);
        node.kill();
        into
    }

    /// Some keys still carry the LSN of the write that set them.
    fn entries_keep_their_tags(
        &mut self,
        http: &mut Client,
        at: &History,
        lsn: u64,
        found: &Content,
    ) {
        let expected = at.line.tags(lsn);
        let known: Vec<&str> = found
            .kv
            .keys()
            .map(|k| &**k)
            .filter(|k| expected.contains_key(k))
            .collect();
        if known.is_empty() {
            return;
        }
        let some: Vec<&str> = (0..20).map(|_| *self.chance.one(&known)).collect();
        for (key, tag) in content::tags(http, some.into_iter()) {
            assert_eq!(tag, expected[&*key], "{key} at LSN {lsn}");
        }
    }

    /// To `count` random LSNs and as many random times.
    fn many_restores(&mut self, history: &History, count: usize) {
        restore::verify(&[&history.backups]);
        let sources = history.sources(&[]);
        let mut targets = Vec::new();
        for (i, lsn) in self.moments(history, count).into_iter().enumerate() {
            let exclusive = i % 4 == 3 && lsn < *history.digests.keys().last().unwrap();
            targets.push((
                if exclusive {
                    Target::BeforeLsn(lsn + 1)
                } else {
                    Target::Lsn(lsn)
                },
                lsn,
            ));
        }
        let moments = self.moments(history, count);
        let last = *history.digests.keys().last().unwrap();
        let wanted: Vec<u64> = moments
            .iter()
            .flat_map(|lsn| [*lsn, last.min(lsn + 1)])
            .collect();
        let times = restore::times(&history.segments(), &wanted);
        for (i, lsn) in moments.into_iter().enumerate() {
            let (this, next) = (&times[&lsn], &times[&last.min(lsn + 1)]);
            let target = match i % 4 {
                1 if this != next => Target::BeforeTime(next.clone()),
                2 => Target::Time(this.clone()),
                _ => Target::Time(restore::between(this, next)),
            };
            targets.push((target, lsn));
        }
        for (i, (target, lsn)) in targets.iter().enumerate() {
            self.restored(history, &sources, target, *lsn);
            self.say(format_args!(
                "restored {} of {}: {target:?}",
                i + 1,
                targets.len()
            ));
        }
        self.restored(history, &sources, &Target::Latest, last);
    }

    /// A restored node goes on in a history of its own from `fork` on, and that one is restored
    /// across its fork. `older` are the histories before the parent.
    fn fork(&mut self, older: &[&History], parent: &History, fork: u64) -> History {
        let sources = parent.sources(older);
        let into = self.restored(parent, &sources, &Target::Lsn(fork), fork);
        let generation = older.len() + 1;
        let mut child = History {
            line: parent.line.fork(fork),
            digests: parent
                .digests
                .range(..=fork)
                .map(|(l, d)| (*l, d.clone()))
                .collect(),
            data: self.folder.join(format!("data-{generation}")),
            backups: self.folder.join(format!("backups-{generation}")),
            lineage: String::new(),
        };
        fs::rename(into, &child.data).unwrap();
        let load = Load::new(self.scale.writes.min(30_000) / 10, None);
        self.load(&mut child, &load, 0, None);
        fs::remove_dir_all(&child.data).unwrap();

        let all = [older, &[parent, &child]].concat();
        restore::verify(&all.iter().map(|h| &*h.backups).collect::<Vec<_>>());
        // The child's snapshots are all behind the fork: before it, a restore starts from the
        // parent's, or from the log alone.
        let own = child.sources(&all[..all.len() - 1]);
        let both = Sources {
            from: sources.from.clone(),
            ..own.clone()
        };
        let before = parent
            .digests
            .range(..fork)
            .map(|(l, _)| *l)
            .nth(1)
            .unwrap();
        let (middle, last) = (child.known(fork + 1.., 500), child.known(fork + 1.., 999));
        self.restored(&child, &both, &Target::Lsn(before), before);
        self.restored(&child, &own, &Target::Lsn(fork), fork);
        self.restored(&child, &both, &Target::Lsn(middle), middle);
        self.restored(&child, &own, &Target::Latest, last);
        // The parent's own past behind the fork is still to be had, when it is named.
        let parents = Sources {
            lineage: Some(parent.lineage.clone()),
            ..both
        };
        let last = *parent.digests.keys().last().unwrap();
        self.restored(parent, &parents, &Target::Lsn(last), last);
        self.say(format_args!(
            "restored to both sides of the fork at LSN {fork}"
        ));
        child
    }
}

#[test]
fn a_real_workload_survives_kills_and_is_restored_to_any_moment() {
    // Not on the run's time.
    build::binaries();
    let seed = seed();
    let scale = Scale::from_environment();
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("workload-{}", std::process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let mut run = Run {
        chance: Chance::new(seed),
        scale,
        seed,
        folder,
        begun: Instant::now(),
    };
    run.say(format_args!("UNISON_SEED={seed}, {:?}", run.scale));

    let mut history = History {
        line: Timeline::default(),
        digests: Digests::new(),
        data: run.folder.join("data-0"),
        backups: run.folder.join("backups-0"),
        lineage: String::new(),
    };
    let load = Load::new(run.scale.writes, run.scale.time);
    let (kills, object) = (run.scale.kills, run.scale.object);
    run.load(&mut history, &load, kills, Some(object));
    // Destroyed: from here on there are only the backups.
    fs::remove_dir_all(&history.data).unwrap();

    run.many_restores(&history, run.scale.restores);
    // In the middle, so that the same LSNs are written differently; then behind that fork.
    let first = history.known(.., 600);
    let child = run.fork(&[], &history, first);
    let second = child.known(first + 1.., 500);
    let grandchild = run.fork(&[&history], &child, second);
    if run.scale.forks > 2 {
        // Before the first fork, which leaves the histories between out.
        let third = grandchild.known(..first, 500);
        run.fork(&[&history, &child], &grandchild, third);
    }
    run.say("done");
    fs::remove_dir_all(&run.folder).unwrap();
}
