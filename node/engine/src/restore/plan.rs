//! [`Plan`]: what a restore will do, or why it cannot. Printed for people by `Display`, for
//! programs as JSON. How it is found is in `super::planner`.

use std::fmt;

use serde::{Serialize, Serializer};
use unisondb_platform::Disk;
use unisondb_types::{
    ClusterId, LineageId, LineageRecord, Lsn, Namespace, SegmentId, Sha256Sum, Stamp, Target,
};

use super::planner::Planner;
use super::sources::Snapshot;
use super::walk::Place;
use super::{Request, RestoreError, Watch, in_words};

/// What a restore does.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The namespace.
    pub namespace: Namespace,
    /// The cluster or single node that the history belongs to.
    pub cluster: ClusterId,
    /// The history that is followed: the lineage that it ends in.
    pub lineage: LineageId,
    /// Where it was asked to stop.
    #[serde(serialize_with = "target")]
    pub target: Target,
    /// What it starts from; without one, the log is replayed from LSN 1.
    pub base: Option<Base>,
    /// What is replayed, in this order.
    pub segments: Vec<Step>,
    /// How many records are replayed.
    pub records: u64,
    /// The last record in the restored state, as far as the sources lead.
    pub reached: Option<Point>,
    /// Why it cannot be carried out, if it cannot.
    pub problem: Option<Problem>,
    /// What was found wrong and is not needed, or is worth knowing.
    pub warnings: Vec<String>,
    /// Highest segment id seen in the sources.
    #[serde(skip)]
    pub newest_segment: SegmentId,
    /// The base as found.
    #[serde(skip)]
    pub(super) snapshot: Option<Snapshot>,
}

/// A moment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The record.
    pub lsn: Lsn,
    /// Its time.
    pub time: Stamp,
}

/// The snapshot that a restore starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// Where it lies.
    pub file: Place,
    /// The last record in it.
    pub lsn: Lsn,
    /// That record's time.
    pub time: Stamp,
    /// That record's lineage.
    pub lineage: LineageId,
    /// Length in bytes, unpacked.
    pub bytes: u64,
    /// Whether its trailer proves its bytes (otherwise: every entry was checked).
    pub certified: bool,
}

/// A segment that is replayed, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its id.
    pub segment: SegmentId,
    /// Its lineage.
    pub lineage: LineageId,
    /// Where it lies.
    pub file: Place,
    /// First record that is replayed.
    pub first_lsn: Lsn,
    /// Last record that is replayed.
    pub last_lsn: Lsn,
    /// Time of that.
    pub last_time: Stamp,
    /// Whether it has a footer, and so a digest that replay is compared with.
    pub sealed: bool,
    /// Bytes to copy: the whole file, or what of it is good when it has no footer.
    pub bytes: u64,
    /// Length of header and good frames.
    #[serde(skip)]
    pub(super) content_bytes: u64,
    /// SHA-256 of these.
    #[serde(skip)]
    pub(super) content_sha256: Sha256Sum,
    /// The record that its lineage begins with, if it stands in this segment.
    #[serde(skip)]
    pub(super) record: Option<LineageRecord>,
}

/// Why what is at hand does not lead to the target. Nothing is written then (P11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "kind"
)]
pub enum Problem {
    /// Segments are missing in the middle.
    Gap {
        /// The first missing one.
        from_segment: SegmentId,
        /// The last missing one.
        to_segment: SegmentId,
        /// The first missing record.
        from_lsn: Lsn,
        /// The last missing record.
        to_lsn: Lsn,
        /// How far one can go without them.
        reached: Option<Point>,
    },
    /// No record reaches or passes the target.
    Short {
        /// What was asked for, in words.
        asked: String,
        /// The last moment that can be reached.
        reached: Point,
    },
    /// Every snapshot is past the target, and the log does not begin early enough.
    TooEarly {
        /// What was asked for, in words.
        asked: String,
        /// The earliest snapshot.
        earliest: Option<Point>,
        /// The first record of the log that is at hand.
        log_begins: Option<Lsn>,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Gap {
                from_segment,
                to_segment,
                from_lsn,
                to_lsn,
                reached,
            } => {
                write!(
                    f,
                    "wal gap: {} missing (LSN {from_lsn} to {to_lsn}); give the folder that has it",
                    from_segment.to_last(*to_segment)
                )?;
                match reached {
                    Some(p) => write!(f, ", or stop before it with --to-lsn {}", p.lsn),
                    None => Ok(()),
                }
            }
            Problem::Short { asked, reached } => write!(
                f,
                "reached {} < asked {asked}: no record at or past it is in these files (the last is LSN {}); \
                 give later segments, or take what there is with --to-lsn {}",
                reached.time, reached.lsn, reached.lsn
            ),
            Problem::TooEarly {
                asked,
                earliest,
                log_begins,
            } => {
                write!(f, "nothing leads to {asked}: ")?;
                match earliest {
                    Some(p) => {
                        write!(f, "the earliest snapshot is of LSN {} at {}", p.lsn, p.time)?
                    }
                    None => write!(f, "there is no snapshot")?,
                }
                match log_begins {
                    Some(Lsn::FIRST) => write!(f, " and LSN 1 is the first of the log")?,
                    Some(lsn) => write!(f, " and the log begins at LSN {lsn}, not at 1")?,
                    None => write!(f, " and there is no segment")?,
                }
                match log_begins {
                    Some(Lsn::FIRST) => write!(f, "; nothing is older: ask for a later moment"),
                    _ => write!(f, "; give an older snapshot or older segments"),
                }
            }
        }
    }
}

/// Finds out how `request` can be met. Reads everything that is needed and proves it; writes
/// nothing. What is at hand may not suffice: see [`Plan::problem`].
///
/// # Errors
/// [`RestoreError`] when what is there is damaged, contradicts itself, or is nothing at all.
pub fn plan(disk: &dyn Disk, request: &Request, watch: Watch<'_>) -> Result<Plan, RestoreError> {
    Planner::new(disk, request, watch)?.plan()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "restore   namespace {} to {}",
            self.namespace,
            in_words(self.target)
        )?;
        writeln!(
            f,
            "history   lineage {} of cluster {}",
            self.lineage, self.cluster
        )?;
        match &self.base {
            Some(b) => {
                writeln!(
                    f,
                    "base      LSN {}, {}, {} bytes: {}",
                    b.lsn, b.time, b.bytes, b.file
                )?;
            }
            None => writeln!(f, "base      none: the log from LSN 1 on")?,
        }
        let n = self.segments.len();
        let s = if n == 1 { "" } else { "s" };
        writeln!(f, "replay    {n} segment{s}, {} records", self.records)?;
        for s in &self.segments {
            let state = if s.sealed { "sealed" } else { "not sealed" };
            writeln!(
                f,
                "          {:09}  LSN {} to {}, until {}, {state}: {}",
                s.segment, s.first_lsn, s.last_lsn, s.last_time, s.file
            )?;
        }
        match &self.reached {
            Some(p) => writeln!(f, "reaches   LSN {}, {}", p.lsn, p.time)?,
            None => writeln!(f, "reaches   nothing")?,
        }
        for warning in &self.warnings {
            writeln!(f, "warning   {warning}")?;
        }
        match &self.problem {
            Some(problem) => writeln!(f, "problem   {problem}"),
            None => Ok(()),
        }
    }
}

fn target<S: Serializer>(target: &Target, s: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = s.serialize_map(None)?;
    match target {
        Target::Latest => map.serialize_entry("kind", "latest")?,
        Target::Immediate => map.serialize_entry("kind", "immediate")?,
        Target::Lsn(n) | Target::BeforeLsn(n) => {
            map.serialize_entry("kind", "lsn")?;
            map.serialize_entry("lsn", n)?;
            map.serialize_entry("exclusive", &matches!(target, Target::BeforeLsn(_)))?;
        }
        Target::Time(t) | Target::BeforeTime(t) => {
            map.serialize_entry("kind", "time")?;
            map.serialize_entry("time", t)?;
            map.serialize_entry("exclusive", &matches!(target, Target::BeforeTime(_)))?;
        }
    }
    map.end()
}
