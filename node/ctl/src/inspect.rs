//! `udbctl wal inspect`: what is in a segment, read to its end. Packed ones and those in archives
//! too. Copies of active segments are shown as far as they are whole.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Serialize;
use unisondb_engine::restore::reading::{self, Ask, Reading};
use unisondb_engine::restore::walk::{self, Place, Thing};
use unisondb_platform::{Disk, EntryKind};
use unisondb_types::{
    Action, Chain, ClusterId, Command, Digest, Kind, LineageId, Lsn, Namespace, SegmentId, Stamp,
    Term,
};
use unisondb_wal::Entry;

use crate::cli::InspectArgs;
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash, table};
use crate::wal::absolute;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    file: Place,
    segment: SegmentId,
    namespace: Namespace,
    cluster: ClusterId,
    lineage: LineageId,
    sealed: bool,
    first_lsn: Lsn,
    last_lsn: Option<Lsn>,
    first_time: Option<Stamp>,
    last_time: Option<Stamp>,
    last_term: Option<Term>,
    records: u64,
    kinds: BTreeMap<&'static str, u64>,
    bytes: u64,
    segment_size: u64,
    predecessor: Option<Before>,
    chain: Chain,
    digest: Option<Digest>,
    cut_by: Option<LineageId>,
    /// What stands behind the last good record, if that is not the end.
    torn: Option<String>,
}

#[derive(Serialize)]
struct Before {
    segment: SegmentId,
    lineage: LineageId,
    chain: Chain,
}

#[derive(Serialize)]
struct Row {
    lsn: Lsn,
    time: Stamp,
    term: Term,
    committed: Lsn,
    kind: &'static str,
    bytes: usize,
    what: String,
}

pub fn inspect(disk: &dyn Disk, args: &InspectArgs, output: &Output) -> Result<(), Failure> {
    let mut seen = 0;
    for file in &args.files {
        let file = absolute(file)?;
        if disk.meta(&file).is_ok_and(|m| m.kind == EntryKind::Folder) {
            let text = format!(
                "{0} is a folder: name the files in it ({0}/*.wal), or look at all of it with udbctl wal list {0}",
                file.display()
            );
            return Err(Failure::new(Code::Usage, text));
        }
        let mut failed = None;
        walk::visit(disk, &file, &mut |thing| {
            let one = one(thing, args, output);
            seen += usize::from(one.is_ok());
            match one {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })
        .map_err(|e| Failure::io(&file, &e))?;
        if let Some(failure) = failed {
            return Err(failure);
        }
    }
    if seen == 0 {
        return Err(Failure::new(
            Code::NotFound,
            "no segment in the files given",
        ));
    }
    Ok(())
}

fn one(thing: Thing<'_>, args: &InspectArgs, output: &Output) -> Result<(), Failure> {
    let place = thing.place.clone();
    let mut printed = Ok(());
    let reading = reading::read(thing.body, Ask::ALL, &mut |entry| {
        if args.records && printed.is_ok() {
            printed = output.print(&row(entry), record_in_words);
        }
    });
    printed?;
    let reading = reading.map_err(|e| {
        let text = format!("{place}: {e}; look for another copy of it");
        Failure::new(Code::Verification, text).with("file", &place)
    })?;
    output.print(&inspected(place, &reading), in_words)
}

fn row(entry: &Entry) -> Row {
    let r = &entry.record;
    Row {
        lsn: r.lsn,
        time: r.stamp,
        term: r.term,
        committed: r.committed,
        kind: kind(r.kind),
        bytes: r.payload.len(),
        what: match r.command() {
            Ok(command) => what(&command),
            Err(e) => format!("damaged: {e}"),
        },
    }
}

fn record_in_words(r: &Row) -> String {
    format!(
        "{:>10}  {}  term {}  {:<10}  {}\n",
        r.lsn, r.time, r.term, r.kind, r.what
    )
}

fn inspected(file: Place, r: &Reading) -> Inspected {
    let h = &r.header;
    Inspected {
        file,
        segment: h.id,
        namespace: h.namespace.clone(),
        cluster: h.cluster,
        lineage: h.lineage,
        sealed: r.footer.is_some(),
        first_lsn: h.first_lsn,
        last_lsn: r.last.map(|m| m.lsn),
        first_time: r.first.map(|m| m.stamp),
        last_time: r.last.map(|m| m.stamp),
        last_term: r.last.map(|m| m.term),
        records: r.records(),
        kinds: r.kinds.iter().map(|(k, n)| (kind(*k), *n)).collect(),
        bytes: r.bytes,
        segment_size: h.segment_size,
        predecessor: h.predecessor.map(|p| Before {
            segment: p.id,
            lineage: p.lineage,
            chain: p.chain,
        }),
        chain: h.chain_before().extend(h.id, r.content_sha256),
        digest: r.footer.map(|f| f.digest),
        cut_by: r.footer.and_then(|f| f.cut_by),
        torn: r.torn.clone(),
    }
}

fn in_words(i: &Inspected) -> String {
    let kinds: Vec<_> = i.kinds.iter().map(|(k, n)| format!("{n} {k}")).collect();
    let state = match (i.sealed, &i.torn, i.cut_by) {
        (true, _, Some(by)) => format!("sealed, cut at its end for lineage {by}"),
        (true, ..) => "sealed".to_owned(),
        (false, Some(torn), _) => format!("not sealed, torn: {torn}"),
        (false, None, _) => "not sealed".to_owned(),
    };
    let before = match &i.predecessor {
        Some(p) => format!("segment {} of lineage {}", p.segment, p.lineage),
        None => "nothing: the log begins here".to_owned(),
    };
    let rows = [
        ("file", i.file.to_string()),
        (
            "segment",
            format!("{:09} of namespace {}", i.segment.get(), i.namespace),
        ),
        ("state", state),
        ("LSN", format!("{} to {}", i.first_lsn, or_dash(i.last_lsn))),
        (
            "time",
            format!("{} to {}", or_dash(i.first_time), or_dash(i.last_time)),
        ),
        ("records", format!("{} ({})", i.records, kinds.join(", "))),
        ("bytes", format!("{}, rolls at {}", i.bytes, i.segment_size)),
        ("lineage", i.lineage.to_string()),
        ("cluster", i.cluster.to_string()),
        ("follows", before),
        ("chain", i.chain.to_string()),
        ("digest", or_dash(i.digest)),
    ];
    table(&rows.map(|(what, value)| vec![what.to_owned(), value]))
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Lineage => "lineage",
        Kind::User => "user",
        Kind::Seal => "seal",
        Kind::Check => "check",
        Kind::Blank => "blank",
        Kind::Membership => "membership",
    }
}

/// What a record does, without its values: keys may be shown, contents are nobody's business here.
fn what(command: &Command) -> String {
    match command {
        Command::Lineage(l) => format!("lineage {} begins", l.lineage),
        Command::User { action, .. } => match action {
            Action::Write { ops, .. } => format!("write of {} operation(s)", ops.len()),
            Action::Begin { id, .. } => format!("transaction {id} begins"),
            Action::Stage { id, ops } => format!("transaction {id}: {} operation(s)", ops.len()),
            Action::Chunk { id, data, .. } => {
                format!("transaction {id}: chunk of {} bytes", data.as_bytes().len())
            }
            Action::Commit { id } => format!("transaction {id} commits"),
            Action::Abort { id, reason } => format!("transaction {id} aborts ({reason})"),
        },
        Command::Seal(id) => format!("segment {id} ends"),
        Command::Check(c) => format!("segment {} adds up to digest {}", c.segment, c.digest),
        Command::Blank => String::new(),
        Command::Membership(members) => members.to_string(),
    }
}
