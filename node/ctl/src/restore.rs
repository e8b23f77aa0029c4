//! `udbctl restore`: plan, print, carry out.

use std::path::PathBuf;

use serde_json::json;
use unisondb_engine::restore::{self, BaseFrom, Existing, Request, Restored};
use unisondb_platform::Platform;
use unisondb_types::SegmentId;

use crate::cli::RestoreArgs;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::progress::Bar;
use crate::wal::absolute;

pub fn restore(platform: &Platform, args: &RestoreArgs, output: &Output) -> Result<(), Failure> {
    let request = request(args)?;
    let disk = platform.disk.as_ref();
    // Asked before hours of reading, and no server may start meanwhile; the run locks for itself.
    let lock = restore::admit(disk, &request)?;
    let bar = Bar::new();
    let planned = restore::plan(disk, &request, &|p| bar.show(p));
    bar.clear();
    let plan = planned?;
    if let Some(problem) = &plan.problem {
        if !output.is_json() {
            output.print(&plan, ToString::to_string)?;
        }
        let failure = Failure::new(Code::Conflict, problem.to_string());
        return Err(failure.with("plan", &plan));
    }
    if args.dry_run {
        let answer = json!({"dryRun": true, "plan": plan, "restored": null});
        return output.print(&answer, |_| format!("{plan}dry run: nothing was written\n"));
    }
    if !output.is_json() {
        output.print(&plan, ToString::to_string)?;
    }
    drop(lock);
    let done = restore::run(platform, &request, &plan, &|p| bar.show(p));
    bar.clear();
    let restored = done.map_err(|e| Failure::from(e).with("plan", &plan))?;
    let answer = json!({"dryRun": false, "plan": plan, "restored": restored});
    output.print(&answer, |_| in_words(&restored))
}

fn request(args: &RestoreArgs) -> Result<Request, Failure> {
    let target = args
        .target()
        .map_err(|why| Failure::new(Code::Usage, why))?;
    if let Some(id) = args
        .first_segment_id
        .filter(|id| *id > SegmentId::FIRST_MOST)
    {
        let why = format!(
            "--first-segment-id {id}: at most {} is wanted, so that later lineages have room",
            SegmentId::FIRST_MOST
        );
        return Err(Failure::new(Code::Usage, why));
    }
    let all = |paths: &[PathBuf]| -> Result<Vec<PathBuf>, Failure> {
        paths.iter().map(|p| absolute(p)).collect()
    };
    Ok(Request {
        data_dir: absolute(&args.data_dir)?,
        namespace: args.namespace.clone(),
        base: match &args.btree {
            Some(file) => BaseFrom::File(absolute(file)?),
            None => BaseFrom::Folders(all(&args.from)?),
        },
        wal: all(&args.wal)?,
        target,
        lineage: args.lineage,
        first_segment: args.first_segment_id,
        existing: if args.force {
            Existing::MoveToTrash
        } else {
            Existing::Refuse
        },
    })
}

fn in_words(restored: &Restored) -> String {
    let mut text = format!(
        "restored  {}: LSN {}, {}\n          digest {}\n          lineage {} begins with segment {}\n",
        restored.home.display(),
        restored.lsn,
        restored.time,
        restored.digest,
        restored.lineage,
        restored.first_segment,
    );
    if let Some(moved) = &restored.moved_to {
        text.push_str(&format!(
            "          what was there before lies in {}\n",
            moved.display()
        ));
    }
    text.push_str("          start the server on it now\n");
    text
}
