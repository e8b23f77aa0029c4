//! Restores from the operator's archive, each compared with the model at the LSN it claims: by
//! `udbctl`'s code path into a new directory, and by plain copies and a start, as documented. What
//! must work and what must be refused is worked out from the archive alone, by [`Coverage`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use unisondb_engine::Engine;
use unisondb_engine::restore::{self, BaseFrom, Existing};
use unisondb_engine::start::{self, Folders};
use unisondb_platform::memory::{self, MemoryDisk, Random};
use unisondb_platform::{Access, DiskExt as _, FileExt as _, Platform};
use unisondb_types::{Key, LineageId, Lsn, RowKey, Stamp, Target};

use crate::oracle::log::{self, Id};
use crate::oracle::model::Model;
use crate::oracle::truth::Truth;
use crate::plan::Aim;
use crate::workload::operator::Archive;

/// What an archive can bring back of one history.
pub struct Coverage {
    pub lineage: Id,
    /// Whether a record of the history is in some archived segment; by LSN.
    held: Vec<bool>,
    /// LSNs of snapshots on the history, and their places in the archive.
    pub bases: Vec<(u64, usize)>,
    /// Names of the archived segments of the history.
    pub segments: BTreeSet<String>,
    /// Whether a lineage has segments here, but not the record that it begins with: a folder of these alone
    /// does not tell where it left its parent.
    beginnings_lack: bool,
    /// LSNs at which a segment ends.
    ends: BTreeSet<u64>,
    forks: BTreeSet<u64>,
}

impl Coverage {
    pub fn of(archive: &Archive, truth: &Truth, lineage: Id) -> Coverage {
        // A lineage of which nothing has been archived yet cannot be asked for: its parent can.
        Coverage::of_nearest(archive, truth, lineage, |id| {
            archive.snapshots.iter().any(|s| s.lineage == id) || archive.has_segment_of(id)
        })
    }

    /// The same, of what segments alone tell: a lineage known by its snapshots only is none.
    pub fn of_segments(&self, archive: &Archive, truth: &Truth) -> Coverage {
        Coverage::of_nearest(archive, truth, self.lineage, |id| {
            archive.has_segment_of(id)
        })
    }

    fn of_nearest(
        archive: &Archive,
        truth: &Truth,
        mut lineage: Id,
        is_known: impl Fn(Id) -> bool,
    ) -> Coverage {
        while !is_known(lineage)
            && let Some(Some((parent, _))) = truth.lineages().get(&lineage)
        {
            lineage = *parent;
        }
        // From the newest lineage down: up to which record each one counts.
        let mut limits = vec![(lineage, u64::MAX)];
        let mut forks = BTreeSet::new();
        let mut at = lineage;
        while let Some(Some((parent, fork))) = truth.lineages().get(&at) {
            let below = limits.last().map_or(u64::MAX, |l| l.1).min(*fork);
            limits.push((*parent, below));
            forks.insert(below);
            at = *parent;
        }
        let limit = |id: Id| limits.iter().find(|l| l.0 == id).map(|l| l.1);
        let mut coverage = Coverage {
            lineage,
            held: Vec::new(),
            bases: Vec::new(),
            segments: BTreeSet::new(),
            beginnings_lack: false,
            ends: BTreeSet::new(),
            forks,
        };
        let (mut seen, mut begun) = (BTreeSet::new(), BTreeSet::new());
        for (name, bytes) in &archive.segments {
            let Some(segment) = log::segment(bytes) else {
                continue;
            };
            seen.insert(segment.lineage);
            begun.extend(segment.records.iter().filter_map(|r| match &r.what {
                log::What::Lineage(l) => Some(l.id),
                _ => None,
            }));
            let Some(most) = limit(segment.lineage) else {
                continue;
            };
            let lsns = segment.records.iter().map(|r| r.lsn).filter(|n| *n <= most);
            let lsns: Vec<u64> = lsns.collect();
            let Some(last) = lsns.last() else { continue };
            coverage.segments.insert(name.clone());
            coverage.ends.insert(*last);
            for lsn in lsns {
                let lsn = usize::try_from(lsn).expect("a short log");
                if coverage.held.len() <= lsn {
                    coverage.held.resize(lsn + 1, false);
                }
                coverage.held[lsn] = true;
            }
        }
        coverage.beginnings_lack = !seen.is_subset(&begun);
        for (n, snapshot) in archive.snapshots.iter().enumerate() {
            if limit(snapshot.lineage).is_some_and(|most| snapshot.lsn <= most) {
                coverage.bases.push((snapshot.lsn, n));
            }
        }
        coverage.bases.sort_unstable();
        coverage
    }

    fn holds(&self, lsn: u64) -> bool {
        usize::try_from(lsn).is_ok_and(|n| self.held.get(n) == Some(&true))
    }

    /// How far the log leads on from a base without a hole.
    pub fn reach(&self, base: u64) -> u64 {
        (base + 1..)
            .find(|n| !self.holds(*n))
            .map_or(base, |n| n - 1)
    }

    /// Whether the state after record `lsn` can be had.
    pub fn can_reach(&self, lsn: u64) -> bool {
        let from_nothing = self.reach(0) >= lsn;
        from_nothing
            || self
                .bases
                .iter()
                .any(|b| b.0 <= lsn && self.reach(b.0) >= lsn)
    }

    /// The furthest that can be had.
    pub fn furthest(&self) -> u64 {
        let from = self.bases.iter().map(|b| b.0).chain([0]);
        from.map(|b| self.reach(b)).max().unwrap_or(0)
    }

    /// Whether a folder of these segments alone leaves open if the state after record `lsn` belongs to
    /// its history: there is a hole behind it, and where a lineage left its parent is not told.
    pub fn leaves_open(&self, lsn: u64) -> bool {
        self.beginnings_lack && self.has_more_than(self.reach(lsn))
    }

    /// Whether something lies behind the furthest that can be had: then "the latest" is refused, since it
    /// is behind a hole.
    pub fn has_more_than(&self, lsn: u64) -> bool {
        (self.held.len() as u64) > lsn + 1
    }

    pub fn is_inside_segment(&self, lsn: u64) -> bool {
        !self.ends.contains(&lsn)
    }

    /// Records that are reached from the nearest snapshot across a fork only.
    pub fn across_forks(&self) -> Vec<u64> {
        let nearest = |lsn: u64| self.bases.iter().rev().find(|b| b.0 <= lsn);
        let across = |lsn: &u64| self.is_across_fork(nearest(*lsn).map_or(0, |b| b.0), *lsn);
        (1..=self.furthest()).filter(across).collect()
    }

    pub fn is_across_fork(&self, base: u64, lsn: u64) -> bool {
        self.forks.iter().any(|f| base <= *f && *f < lsn)
    }
}

/// What restores have come to.
#[derive(Debug, Default)]
pub struct Tally {
    pub compared: u64,
    pub refused: u64,
    pub inside_segment: u64,
    pub across_fork: u64,
    pub big_base: u64,
}

/// All that restores need.
pub struct Bench<'a> {
    pub archive: &'a Archive,
    pub truth: &'a Truth,
    pub namespace: &'a str,
    pub keys: u64,
    pub seed: u64,
}

impl Bench<'_> {
    /// One restore, the `number`th, to a target that chance draws; what is wrong, in words.
    pub fn one(&self, all: &Coverage, number: u64, tally: &mut Tally) -> Vec<String> {
        let mut r = Random::keyed(self.seed, b"restore", number);
        // A folder of copies shows the history of its newest segment, whatever snapshots tell elsewhere.
        let by_copy = r.below(3) == 0;
        let folder = by_copy.then(|| all.of_segments(self.archive, self.truth));
        let coverage = folder.as_ref().unwrap_or(all);
        let furthest = coverage.furthest();
        if furthest == 0 {
            return Vec::new();
        }
        let aim = [
            Aim::Lsn,
            Aim::Lsn,
            Aim::Lsn,
            Aim::Time,
            Aim::Time,
            Aim::Latest,
        ][usize::try_from(r.below(6)).expect("an index")];
        // Mostly what can be had; now and then what cannot.
        let across = coverage.across_forks();
        let lsn = match r.below(12) {
            0 => furthest + 1 + r.below(3),
            1..=5 if !across.is_empty() => {
                across[usize::try_from(r.below(across.len() as u64)).expect("an index")]
            }
            _ => 1 + r.below(furthest),
        };
        let (target, expected) = self.aim(coverage, aim, lsn, &mut r);
        let seed = r.draw();
        let what = format!(
            "restore {number} to {target:?} by {}",
            if by_copy { "cp" } else { "udbctl" }
        );
        let done = match by_copy {
            true => self.by_copy(coverage, target, expected, seed, &mut r),
            false => self
                .by_udbctl(coverage, target, seed)
                .map(|engine| (engine, 0)),
        };
        let mut wrong = Vec::new();
        match (done, expected) {
            (Ok((engine, base)), Some(lsn)) => {
                tally.compared += 1;
                tally.inside_segment += u64::from(coverage.is_inside_segment(lsn));
                let base = coverage
                    .bases
                    .iter()
                    .rev()
                    .find(|b| b.0 <= lsn)
                    .map_or(base, |b| b.0);
                tally.across_fork += u64::from(coverage.is_across_fork(base, lsn));
                tally.big_base += u64::from(base >= 50);
                wrong.extend(self.compare(&engine, coverage.lineage, lsn));
            }
            (Err(_), None) => tally.refused += 1,
            // A folder with a hole behind the target, and nothing in it tells that this lies before a fork.
            (Err(why), Some(lsn))
                if by_copy && coverage.leaves_open(lsn) && why.contains("wal gap") =>
            {
                tally.refused += 1;
            }
            (Ok((engine, _)), None) => wrong.push(format!(
                "P11: it was not refused, it stands at {}",
                engine.applied()
            )),
            (Err(why), Some(lsn)) => {
                wrong.push(format!("P10: record {lsn} can be had, but: {why}"))
            }
        }
        wrong.into_iter().map(|w| format!("{what}: {w}")).collect()
    }

    /// The product's target, and the record after which it should stand; `None`: to be refused.
    fn aim(
        &self,
        coverage: &Coverage,
        aim: Aim,
        lsn: u64,
        r: &mut Random,
    ) -> (Target, Option<u64>) {
        let reached = |n: u64| (n > 0 && coverage.can_reach(n)).then_some(n);
        let furthest = coverage.furthest();
        let stamp = |n| {
            self.truth
                .record(coverage.lineage, n)
                .map_or(0, |r| r.stamp)
        };
        match aim {
            Aim::Latest | Aim::Immediate => {
                let there = Some(furthest).filter(|n| !coverage.has_more_than(*n));
                (Target::Latest, there.and_then(reached))
            }
            Aim::Lsn if r.below(4) == 0 => (Target::BeforeLsn(Lsn::new(lsn)), reached(lsn - 1)),
            Aim::Lsn => (Target::Lsn(Lsn::new(lsn)), reached(lsn)),
            Aim::Time => {
                // On a record's stamp, or just beside it.
                let time = (stamp(lsn.min(furthest)) + r.below(3)).saturating_sub(1);
                let last = (1..=furthest).take_while(|n| stamp(*n) <= time).last();
                // Reached by that very record, or passed by the next one in some segment.
                let passed = last.is_some_and(|n| stamp(n) == time || coverage.holds(n + 1));
                let expected = last.filter(|_| passed).and_then(reached);
                (Target::Time(Stamp::from_micros(time)), expected)
            }
        }
    }

    fn by_udbctl(&self, coverage: &Coverage, target: Target, seed: u64) -> Result<Engine, String> {
        let (platform, _, _) = memory::platform(seed);
        self.lay_out(&platform);
        let request = restore::Request {
            data_dir: PathBuf::from("/restored"),
            namespace: self.namespace.parse().map_err(|e| format!("{e}"))?,
            base: BaseFrom::Folders(vec![PathBuf::from("/backups/snapshots")]),
            wal: vec![PathBuf::from("/backups/wal")],
            target,
            lineage: Some(LineageId::from_bytes(coverage.lineage)),
            first_segment: None,
            existing: Existing::Refuse,
        };
        let disk = platform.disk.as_ref();
        let plan = restore::plan(disk, &request, &|_| ()).map_err(|e| e.to_string())?;
        restore::run(&platform, &request, &plan, &|_| ()).map_err(|e| e.to_string())?;
        self.open(&platform, "/restored", None)
    }

    fn by_copy(
        &self,
        coverage: &Coverage,
        target: Target,
        expected: Option<u64>,
        seed: u64,
        r: &mut Random,
    ) -> Result<(Engine, u64), String> {
        let (platform, _, _) = memory::platform(seed);
        // A snapshot from which the target can be had, if there is one: any of them.
        let good =
            |b: &&(u64, usize)| expected.is_none_or(|lsn| b.0 <= lsn && coverage.reach(b.0) >= lsn);
        let bases: Vec<_> = coverage.bases.iter().filter(good).collect();
        let from_log = expected.is_none_or(|lsn| coverage.reach(0) >= lsn);
        let base = match bases.len() {
            0 if !from_log => return Err("no base".to_owned()),
            0 => None,
            n => Some(bases[usize::try_from(r.below(n as u64)).expect("an index")]),
        };
        let home = format!("/data/{}", self.namespace);
        if let Some((_, n)) = base {
            write(
                &platform,
                &format!("{home}/db/data.mdb"),
                &self.archive.snapshots[*n].bytes,
            );
        }
        for name in &coverage.segments {
            write(
                &platform,
                &format!("{home}/wal/{name}"),
                &self.archive.segments[name],
            );
        }
        let engine = self.open(&platform, "/data", Some(target))?;
        Ok((engine, base.map_or(0, |b| b.0)))
    }

    fn lay_out(&self, platform: &Platform) {
        for (name, bytes) in &self.archive.segments {
            write(platform, &format!("/backups/wal/{name}"), bytes);
        }
        for (n, snapshot) in self.archive.snapshots.iter().enumerate() {
            write(
                platform,
                &format!("/backups/snapshots/{n}.db"),
                &snapshot.bytes,
            );
        }
        platform
            .disk
            .create_folders(Path::new("/backups/wal"))
            .expect("a fresh disk has room");
        platform
            .disk
            .create_folders(Path::new("/backups/snapshots"))
            .expect("a fresh disk has room");
    }

    fn open(
        &self,
        platform: &Platform,
        data: &str,
        target: Option<Target>,
    ) -> Result<Engine, String> {
        let folders = Folders {
            namespace: Some(self.namespace.parse().map_err(|e| format!("{e}"))?),
            home: PathBuf::from(format!("{data}/{}", self.namespace)),
            backups: PathBuf::from(format!("{data}/backups/{}", self.namespace)),
        };
        let request = start::Request {
            segment_size: 64 << 10,
            map_size: 16 << 20,
            target,
            ..start::Request::default()
        };
        let opened = start::open(platform, &folders, &request).map_err(|e| e.to_string())?;
        // A start reports what it could not reach instead of refusing.
        match opened.notes.iter().find(|n| n.value == "short") {
            Some(note) => Err(note.text.clone()),
            None => Ok(opened.engine),
        }
    }

    /// A restored namespace against the model after record `lsn`.
    fn compare(&self, engine: &Engine, lineage: Id, lsn: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        // One record of its own begins the new lineage.
        let stands = engine.applied().get();
        if stands != lsn + 1 {
            wrong.push(format!(
                "P10: it stands at record {stands}, {lsn} and the new lineage's were wanted"
            ));
        }
        if let Some(wanted) = self.truth.known_digest(lineage, lsn) {
            let found = engine.digest(Some(Lsn::new(lsn)));
            let same = matches!(&found, Ok(Some((_, digest))) if *digest.as_bytes() == wanted);
            if !same {
                wrong.push(format!(
                    "P7: at record {lsn} the digest is {found:?}, another one was named"
                ));
            }
        }
        match self.truth.state(lineage, lsn) {
            Ok(model) => {
                let found = read(engine, self.keys);
                wrong.extend(
                    model
                        .differences(&found)
                        .into_iter()
                        .map(|d| format!("P10: {d}")),
                );
            }
            Err(n) => wrong.push(format!("the model does not know record {n}")),
        }
        wrong
    }
}

/// What an open namespace holds.
pub fn read(engine: &Engine, keys: u64) -> Model {
    let mut model = Model::default();
    model.lsn = engine.applied().get();
    let scan = unisondb_engine::Scan {
        prefix: bytes::Bytes::new(),
        start: None,
        end: None,
        after: None,
        reverse: false,
        limit: 10_000,
        keys_only: false,
    };
    let page = engine.scan(&scan).expect("a restored state can be read");
    for (key, value) in page.items {
        let entry = engine
            .kv(&key)
            .expect("a restored state can be read")
            .expect("it was just seen");
        model.kv.insert(
            key.as_bytes().to_vec(),
            (value.unwrap_or_default().to_vec(), entry.lsn.get()),
        );
    }
    for n in 0..keys {
        let name = format!("k{n:02}");
        let row = RowKey::new(bytes::Bytes::from(name.clone())).expect("a short name");
        if let Some(row) = engine
            .row(&row, None)
            .expect("a restored state can be read")
        {
            let columns = row
                .columns
                .iter()
                .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()));
            model.rows.insert(
                name.clone().into_bytes(),
                (columns.collect(), row.lsn.get()),
            );
        }
        let key = Key::new(bytes::Bytes::from(name.clone())).expect("a short name");
        if let Some(lob) = engine.lob(&key).expect("a restored state can be read") {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < lob.len {
                let block = lob
                    .read(bytes.len() as u64)
                    .expect("a restored object can be read");
                bytes.extend_from_slice(&block);
            }
            model.lobs.insert(name.into_bytes(), (bytes, lob.lsn.get()));
        }
    }
    model
}

/// Writes a file and the folders above it, as `cp` does.
pub fn write(platform: &Platform, path: &str, bytes: &[u8]) {
    write_to(platform.disk.as_ref(), path, bytes);
}

pub fn write_to(disk: &dyn unisondb_platform::Disk, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    let folder = path.parent().expect("a file lies in a folder");
    disk.create_folders(folder).expect("there is room");
    if disk.exists(path).expect("a sound disk") {
        disk.remove_file(path).expect("a sound disk");
    }
    let file = disk.open(path, Access::CreateNew).expect("there is room");
    file.write_all_at(bytes, 0).expect("there is room");
}

/// For the harness: a disk as the trait that the product knows.
pub fn plain(disk: &MemoryDisk) -> &dyn unisondb_platform::Disk {
    disk
}
