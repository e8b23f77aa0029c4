//! `udbctl verify`: what a set of files is worth.

use unisondb_engine::restore::verify::{Report, Wrong, verify as prove};
use unisondb_platform::Disk;

use crate::cli::VerifyArgs;
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash, table};
use crate::progress::Bar;
use crate::wal::absolute;

pub fn verify(disk: &dyn Disk, args: &VerifyArgs, output: &Output) -> Result<(), Failure> {
    let paths: Vec<_> = args
        .paths
        .iter()
        .map(|p| absolute(p))
        .collect::<Result<_, _>>()?;
    let bar = Bar::new();
    let report = prove(disk, &paths, &|p| bar.show(p));
    bar.clear();
    let report = report?;
    if report.ok {
        return output.print(&report, in_words);
    }
    let text = format!(
        "verification failed: {} problem(s); look for other copies of the files named, and verify again",
        report.problems.len()
    );
    if output.is_json() {
        let mut failure = Failure::new(Code::Verification, text);
        if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(&report) {
            failure.more = fields;
        }
        return Err(failure);
    }
    output.print(&report, in_words)?;
    Err(Failure::new(Code::Verification, text))
}

fn in_words(report: &Report) -> String {
    let mut text = String::new();
    if !report.segments.is_empty() {
        let head = [
            "segment",
            "namespace",
            "first LSN",
            "last LSN",
            "last time",
            "records",
            "state",
            "file",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for s in &report.segments {
            rows.push(vec![
                format!("{:09}", s.segment.get()),
                s.namespace.to_string(),
                s.first_lsn.to_string(),
                or_dash(s.last_lsn),
                or_dash(s.last_time),
                s.records.to_string(),
                if s.sealed { "sealed" } else { "not sealed" }.to_owned(),
                s.file.to_string(),
            ]);
        }
        text.push_str(&table(&rows));
    }
    if !report.snapshots.is_empty() {
        let head = [
            "snapshot",
            "namespace",
            "LSN",
            "time",
            "entries",
            "bytes",
            "file",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for s in &report.snapshots {
            rows.push(vec![
                if s.certified { "certified" } else { "bare" }.to_owned(),
                s.namespace.to_string(),
                s.lsn.to_string(),
                s.time.to_string(),
                or_dash(s.entries),
                s.bytes.to_string(),
                s.file.to_string(),
            ]);
        }
        text.push_str(&table(&rows));
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for problem in &report.problems {
        let word = match problem.kind {
            Wrong::Missing => "missing",
            Wrong::Swapped => "swapped",
            Wrong::Altered => "altered",
            Wrong::Foreign => "foreign",
            Wrong::Differs => "differs",
        };
        match &problem.file {
            Some(file) => text.push_str(&format!("{word}: {file}: {}\n", problem.why)),
            None => text.push_str(&format!("{word}: {}\n", problem.why)),
        }
    }
    if report.ok {
        text.push_str(&format!(
            "ok: {} segment(s) and {} snapshot(s) are whole and fit together\n",
            report.segments.len(),
            report.snapshots.len()
        ));
    }
    text
}
