//! Where a namespace stands: offset, stats, checkpoint, digest.

use unisondb_api::ApiError;
use unisondb_api::body::answer;
use unisondb_types::Stamp;

use crate::dispatch::{Absent, Inside};
use crate::envelope::{self, Reply};
use crate::{outcome, reading};

/// GET `/offset`.
pub(crate) async fn offset(at: &Inside<'_>) -> Reply {
    let p = at.open(Absent::Refuse).await?.positions();
    Ok(envelope::json(&answer::Offset {
        namespace: at.namespace.to_string(),
        segment_id: p.segment,
        offset: p.offset,
        lsn: p.applied,
    }))
}

/// GET `/stats`.
pub(crate) async fn stats(at: &Inside<'_>) -> Reply {
    let engine = at.open(Absent::Refuse).await?;
    let p = engine.positions();
    Ok(envelope::json(&answer::Stats {
        namespace: at.namespace.to_string(),
        ops_received: p.ops_received,
        ops_flushed: p.ops_flushed,
        current_segment: p.segment,
        current_offset: p.offset,
        last_flush_time: p.last_flush,
        lsn: p.applied,
        flushed_lsn: p.flushed,
        durable_lsn: p.durable,
        committed_lsn: p.committed,
        last_lsn: p.last,
        applied_time: (p.applied_stamp > Stamp::ZERO).then_some(p.applied_stamp),
        open_transactions: p.open_transactions,
        memtable_bytes: p.memtable_bytes,
        lineage: engine.lineage(),
    }))
}

/// GET `/checkpoint`.
pub(crate) async fn checkpoint(at: &Inside<'_>) -> Reply {
    let p = at.open(Absent::Refuse).await?.positions();
    Ok(envelope::json(&answer::Checkpoint {
        namespace: at.namespace.to_string(),
        record_processed: p.records_processed,
        segment_id: p.segment,
        offset: p.offset,
        lsn: p.applied,
        flushed_lsn: p.flushed,
    }))
}

/// GET `/digest`.
pub(crate) async fn digest(at: &Inside<'_>) -> Reply {
    let wanted = at.call.query.parse("lsn", "a log position")?;
    let engine = reading::fresh(at).await?;
    let Some((lsn, digest)) = engine.digest(wanted).map_err(|e| outcome::engine(&e))? else {
        let lsn = wanted.unwrap_or_default();
        return Err(ApiError::not_found(format_args!(
            "no digest is known at LSN {lsn}: there is one at {} (applied here), at the end of each sealed segment, and where this lineage was forked",
            engine.applied()
        )));
    };
    Ok(envelope::json(&answer::DigestAt {
        lsn,
        digest,
        lineage: engine.lineage(),
    }))
}
