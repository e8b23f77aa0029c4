//! `udbctl wal list` and `wal stats`: the segments of a folder, read without touching them, so
//! that a node may be writing there meanwhile. A list reads every byte: what it calls sealed is
//! whole. Sums believe the footers.

use std::path::{Path, PathBuf};

use serde::Serialize;
use unisondb_platform::{Disk, EntryKind};
use unisondb_types::{LineageId, Lsn, SegmentId, Stamp};
use unisondb_wal::{SegmentInfo, SegmentState, Survey};

use crate::cli::FolderArgs;
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash, table};

/// The state of a segment that is not what was written.
const DAMAGED: &str = "damaged";
/// The state of one that should lie between others.
const MISSING: &str = "missing";

/// A path as the platform wants it.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|e| Failure::new(Code::Usage, format!("{}: {e}", path.display())))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    folder: PathBuf,
    segments: Vec<Row>,
    others: Vec<Other>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    segment: SegmentId,
    state: &'static str,
    lineage: Option<LineageId>,
    first_lsn: Option<Lsn>,
    last_lsn: Option<Lsn>,
    first_time: Option<Stamp>,
    last_time: Option<Stamp>,
    records: u64,
    bytes: u64,
    /// Why it cannot be read, or what stands behind its last good record.
    problem: Option<String>,
}

#[derive(Serialize)]
struct Other {
    name: String,
    why: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    folder: PathBuf,
    segments: usize,
    sealed: usize,
    rolled: usize,
    active: usize,
    unreadable: usize,
    lineages: usize,
    records: u64,
    bytes: u64,
    disk_bytes: u64,
    first_lsn: Option<Lsn>,
    last_lsn: Option<Lsn>,
    first_time: Option<Stamp>,
    last_time: Option<Stamp>,
}

pub fn list(disk: &dyn Disk, args: &FolderArgs, output: &Output) -> Result<(), Failure> {
    let (folder, survey) = survey(disk, &args.folder)?;
    let segments: Vec<Row> = rows(disk, &survey);
    let wrong = segments
        .iter()
        .filter(|s| [DAMAGED, MISSING].contains(&s.state))
        .count();
    // The node's own: its vote, and room for the next segment.
    let ours = ["raft.state", "next.tmp"];
    let others = survey
        .strangers
        .into_iter()
        .filter(|s| !ours.contains(&s.name.as_str()))
        .map(|s| Other {
            name: s.name,
            why: s.why,
        })
        .collect();
    let listing = Listing {
        folder,
        segments,
        others,
    };
    if wrong == 0 {
        return output.print(&listing, listing_in_words);
    }
    let text = format!(
        "{wrong} segment(s) of {} damaged or missing; look for other copies of them, and let udbctl verify prove those",
        listing.folder.display()
    );
    let mut failure = Failure::new(Code::Verification, text);
    if output.is_json() {
        if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(&listing) {
            failure.more = fields;
        }
    } else {
        output.print(&listing, listing_in_words)?;
    }
    Err(failure)
}

/// A row for each segment: sealed ones are read to their end, unsealed ones have been.
fn rows(disk: &dyn Disk, survey: &Survey) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut before: Option<&SegmentInfo> = None;
    let newest = survey.segments.last().map(|s| s.id);
    for s in &survey.segments {
        let info = match &s.found {
            Ok(info) => info,
            Err(why) => {
                rows.push(row_without_facts(s.id, DAMAGED, s.bytes, why.to_string()));
                before = None;
                continue;
            }
        };
        rows.extend(before.and_then(|before| missing(before, info)));
        before = Some(info);
        let read = match info.state {
            SegmentState::Sealed => unisondb_wal::verify(disk, &s.path).map(drop),
            SegmentState::Active | SegmentState::Rolled => Ok(()),
        };
        let torn = s.torn.as_ref().map(ToString::to_string);
        let inside = torn.is_some() && Some(s.id) != newest;
        rows.push(Row {
            segment: s.id,
            state: if read.is_err() || inside {
                DAMAGED
            } else {
                info.state.as_str()
            },
            lineage: Some(info.header.lineage),
            first_lsn: Some(info.header.first_lsn),
            last_lsn: info.last_lsn,
            first_time: info.last_lsn.map(|_| info.first_stamp),
            last_time: info.last_lsn.map(|_| info.last_stamp),
            records: info.records,
            bytes: info.bytes,
            problem: read.err().map(|e| e.to_string()).or(torn),
        });
    }
    rows
}

/// What is missing between two segments that follow each other in the folder: ids between two
/// lineages do not exist, so the header of the later one decides.
fn missing(before: &SegmentInfo, after: &SegmentInfo) -> Option<Row> {
    let wanted = after.header.predecessor?;
    if wanted.id <= before.id {
        return None;
    }
    let first = match wanted.lineage == before.header.lineage {
        true => before.id.next(),
        false => wanted.id,
    };
    let problem = if first == wanted.id {
        format!("not here; segment {} follows it", after.id)
    } else {
        format!(
            "segments {first} to {} are not here; segment {} follows them",
            wanted.id, after.id
        )
    };
    Some(row_without_facts(first, MISSING, 0, problem))
}

fn row_without_facts(segment: SegmentId, state: &'static str, bytes: u64, problem: String) -> Row {
    Row {
        segment,
        state,
        lineage: None,
        first_lsn: None,
        last_lsn: None,
        first_time: None,
        last_time: None,
        records: 0,
        bytes,
        problem: Some(problem),
    }
}

fn listing_in_words(listing: &Listing) -> String {
    let head = [
        "segment",
        "state",
        "first LSN",
        "last LSN",
        "first time",
        "last time",
        "records",
        "bytes",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for s in &listing.segments {
        rows.push(vec![
            format!("{:09}", s.segment.get()),
            s.state.to_owned(),
            or_dash(s.first_lsn),
            or_dash(s.last_lsn),
            or_dash(s.first_time),
            or_dash(s.last_time),
            s.records.to_string(),
            s.bytes.to_string(),
            s.problem.clone().unwrap_or_default(),
        ]);
    }
    let mut text = table(&rows);
    for other in &listing.others {
        text.push_str(&format!("passed over: {}: {}\n", other.name, other.why));
    }
    text
}

pub fn stats(disk: &dyn Disk, args: &FolderArgs, output: &Output) -> Result<(), Failure> {
    let (folder, survey) = survey(disk, &args.folder)?;
    let infos: Vec<&SegmentInfo> = survey
        .segments
        .iter()
        .filter_map(|s| s.found.as_ref().ok())
        .collect();
    let count = |state| infos.iter().filter(|i| i.state == state).count();
    let with_records = || infos.iter().filter(|i| i.last_lsn.is_some());
    let lineages: std::collections::BTreeSet<_> = infos.iter().map(|i| i.header.lineage).collect();
    let totals = Totals {
        folder,
        segments: survey.segments.len(),
        sealed: count(SegmentState::Sealed),
        rolled: count(SegmentState::Rolled),
        active: count(SegmentState::Active),
        unreadable: survey.segments.len() - infos.len(),
        lineages: lineages.len(),
        records: infos.iter().map(|i| i.records).sum(),
        bytes: infos.iter().map(|i| i.bytes).sum(),
        disk_bytes: survey.segments.iter().map(|s| s.bytes).sum(),
        first_lsn: with_records().map(|i| i.header.first_lsn).min(),
        last_lsn: with_records().filter_map(|i| i.last_lsn).max(),
        first_time: with_records().map(|i| i.first_stamp).min(),
        last_time: with_records().map(|i| i.last_stamp).max(),
    };
    output.print(&totals, |t| {
        let rows = [
            ("folder", t.folder.display().to_string()),
            (
                "segments",
                format!(
                    "{} ({} sealed, {} rolled, {} active)",
                    t.segments, t.sealed, t.rolled, t.active
                ),
            ),
            ("damaged", t.unreadable.to_string()),
            ("lineages", t.lineages.to_string()),
            ("records", t.records.to_string()),
            (
                "bytes",
                format!("{} of data in {} of files", t.bytes, t.disk_bytes),
            ),
            (
                "LSN",
                format!("{} to {}", or_dash(t.first_lsn), or_dash(t.last_lsn)),
            ),
            (
                "time",
                format!("{} to {}", or_dash(t.first_time), or_dash(t.last_time)),
            ),
        ];
        table(&rows.map(|(what, value)| vec![what.to_owned(), value]))
    })
}

fn survey(disk: &dyn Disk, folder: &Path) -> Result<(PathBuf, Survey), Failure> {
    let mut folder = absolute(folder)?;
    // A namespace's folder, or the flat layout: its log lies in `wal/`.
    let inner = folder.join("wal");
    if disk.meta(&inner).is_ok_and(|m| m.kind == EntryKind::Folder) {
        folder = inner;
    }
    disk.list(&folder).map_err(|e| Failure::io(&folder, &e))?;
    let survey = unisondb_wal::survey(disk, &folder)
        .map_err(|e| Failure::new(Code::Failed, e.to_string()))?;
    if survey.segments.is_empty() {
        return Err(Failure::new(
            Code::NotFound,
            format!(
                "{} holds no segment; name the folder with the .wal files in it",
                folder.display()
            ),
        ));
    }
    Ok((folder, survey))
}
