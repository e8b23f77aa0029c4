//! Pulling backups over HTTP, for a client whose disk is elsewhere: the same bytes that a backup
//! call would have written.
//!
//! Files are read in blocks, where that may block, each only when the connection has taken the one
//! before. Whatever is served has been proven first (P13): a segment against its footer, a snapshot
//! while it was made.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::Method;
use http::header::{ETAG, HeaderName};
use tokio::sync::OwnedSemaphorePermit;
use unisondb_api::body::answer;
use unisondb_api::{ApiError, Place, Route};
use unisondb_engine::backup::SnapshotFile;
use unisondb_platform::{FileExt, Offload, OffloadExt};
use unisondb_types::Sha256Sum;
use unisondb_wal::{SealedFile, SegmentInfo, SegmentState};

use crate::audit::{self, Record};
use crate::backup::{blocking, seal_first};
use crate::dispatch::{Absent, Inside};
use crate::envelope::{self, Reply, X_SHA256};
use crate::lob::{Cut, unsatisfiable};
use crate::{outcome, path, reading};

/// How much is read at once.
const BLOCK: u64 = 256 << 10;

/// GET `/wal/segments`.
pub(crate) async fn segments(at: &Inside<'_>) -> Reply {
    let engine = at.open(Absent::Refuse).await?.clone();
    let node = at.app().host.about().node;
    // Sums of segments from before this start are computed when first asked for, and then kept: off
    // the runtime, and in turn with all else that reads whole files.
    let _turn = turn(at).await;
    let segments = blocking(at.app(), move || {
        let wal = engine.wal();
        let shown = |info: SegmentInfo| {
            let sealed = info.state == SegmentState::Sealed;
            // One that cannot be read is listed all the same; pulling it names the fault.
            let sha256 = if sealed {
                wal.sha256(info.id).ok()
            } else {
                None
            };
            segment_answer(info, sha256)
        };
        wal.segments().into_iter().map(shown).collect()
    })
    .await?;
    Ok(envelope::json(&answer::Segments { segments, node }))
}

fn segment_answer(info: SegmentInfo, sha256: Option<Sha256Sum>) -> answer::Segment {
    let any = info.last_lsn.is_some();
    answer::Segment {
        segment_id: info.id,
        state: info.state.as_str().to_owned(),
        bytes: info.bytes,
        records: info.records,
        first_lsn: info.header.first_lsn,
        last_lsn: info.last_lsn,
        first_time: any.then_some(info.first_stamp),
        last_time: any.then_some(info.last_stamp),
        sha256,
        chain: info.chain,
        digest: info.digest,
        lineage: info.header.lineage,
        predecessor: info.header.predecessor.map(|p| answer::Predecessor {
            segment_id: p.id,
            lineage: p.lineage,
            chain: p.chain,
        }),
    }
}

/// GET `/wal/segments/{id}`.
pub(crate) async fn segment(at: &Inside<'_>, raw: &str) -> Reply {
    let record = Record::of(at, Route::In("", Place::Segment("")).pattern(), "");
    let done = sealed_segment(at, raw).await;
    match &done {
        Ok((_, id, bytes)) => record.done(&audit::ids([*id]), *bytes),
        Err(e) => record.refused(e),
    }
    done.map(|(response, ..)| response)
}

type Pulled = (Response, unisondb_types::SegmentId, u64);

async fn sealed_segment(at: &Inside<'_>, raw: &str) -> Result<Pulled, ApiError> {
    let id = path::segment(raw)?;
    let engine = at.open(Absent::Refuse).await?;
    let info = engine.wal().segment(id);
    let Some(info) = info else {
        return Err(ApiError::not_found(format_args!("segment not found: {id}")));
    };
    if info.state != SegmentState::Sealed {
        return Err(ApiError::conflict(format_args!(
            "segment {id} is not sealed yet: it is {}",
            info.state.as_str()
        )));
    }
    let turn = turn(at).await;
    let wal = engine.wal().clone();
    // Opened first: a purge meanwhile takes the name away, not the bytes.
    let checked = blocking(at.app(), move || {
        let file = wal.open_sealed(id)?;
        let sha256 = match wal.scrub(id)?.info.sha256 {
            Some(sum) => sum,
            None => wal.sha256(id)?,
        };
        Ok::<_, unisondb_wal::Error>((file, sha256))
    })
    .await?;
    let (file, sha256) = checked.map_err(outcome::wal)?;
    let len = file.len;
    Ok((
        stream(at, Source::Segment(Box::new(file)), len, sha256, turn),
        id,
        len,
    ))
}

/// GET `/btree/snapshot`.
pub(crate) async fn snapshot(at: &Inside<'_>) -> Reply {
    let record = Record::of(at, Route::In("", Place::BtreeSnapshot).pattern(), "");
    let done = fresh_snapshot(at).await;
    match &done {
        Ok((_, ids, bytes)) => record.done(ids, *bytes),
        Err(e) => record.refused(e),
    }
    done.map(|(response, ..)| response)
}

async fn fresh_snapshot(at: &Inside<'_>) -> Result<(Response, String, u64), ApiError> {
    let engine = at.open(Absent::Refuse).await?.clone();
    let turn = turn(at).await;
    let first = seal_first(at.app(), &engine).await?;
    reading::applied(at, &engine, first.through).await?;
    let made = blocking(at.app(), move || engine.snapshot_file(first.through)).await?;
    let file = made.map_err(|e| outcome::backup(&e))?;
    let about = file.about.clone();
    let (len, sha256) = (about.bytes, about.sha256);
    let mut response = stream(at, Source::Snapshot(file), len, sha256, turn);
    let headers = response.headers_mut();
    let mut say = |name: &'static str, value: String| {
        headers.insert(HeaderName::from_static(name), envelope::text(&value));
    };
    say("x-unison-snapshot-lsn", about.lsn.to_string());
    say("x-unison-snapshot-segment", about.segment.to_string());
    say("x-unison-snapshot-digest", about.digest.to_string());
    say("x-unison-snapshot-sealed", first.sealed.to_string());
    let ids = format!("lsn {} segment {}", about.lsn, about.segment);
    Ok((response, ids, len))
}

async fn turn(at: &Inside<'_>) -> Option<OwnedSemaphorePermit> {
    // `None` only if it were closed, which it never is.
    Arc::clone(&at.app().heavy).acquire_owned().await.ok()
}

/// A file that is being sent.
enum Source {
    Segment(Box<SealedFile>),
    Snapshot(SnapshotFile),
}

impl Source {
    fn read(&self, from: u64, len: u64) -> io::Result<Bytes> {
        let len = usize::try_from(len).expect("a block fits into memory");
        let mut block = vec![0; len];
        match self {
            Source::Segment(s) => s.file.read_exact_at(&mut block, from)?,
            Source::Snapshot(s) => s.read_exact_at(&mut block, from)?,
        }
        Ok(Bytes::from(block))
    }
}

fn stream(
    at: &Inside<'_>,
    source: Source,
    len: u64,
    sha256: Sha256Sum,
    turn: Option<OwnedSemaphorePermit>,
) -> Response {
    let parts = at.call.parts;
    let tag = envelope::quoted(sha256);
    if reading::has(&parts.headers, &tag) {
        return envelope::not_modified(tag);
    }
    let Ok(cut) = Cut::of(&parts.headers, &tag, len) else {
        return unsatisfiable(len);
    };
    let mut response = if parts.method == Method::HEAD {
        Response::new(Body::empty())
    } else {
        let offload = Arc::clone(&at.app().host.platform().offload);
        let state = Some(Sending {
            source: Arc::new(source),
            offload,
            from: cut.from,
            _turn: turn,
        });
        Response::new(Body::from_stream(stream::unfold(state, move |s| {
            next(s, cut.to)
        })))
    };
    cut.describe(&mut response);
    let headers = response.headers_mut();
    headers.insert(ETAG, tag);
    headers.insert(X_SHA256, envelope::text(&sha256.to_string()));
    response
}

struct Sending {
    source: Arc<Source>,
    offload: Arc<dyn Offload>,
    from: u64,
    /// Given back when the last byte is gone, or the client is.
    _turn: Option<OwnedSemaphorePermit>,
}

async fn next(state: Option<Sending>, to: u64) -> Option<(io::Result<Bytes>, Option<Sending>)> {
    let mut sending = state?;
    if sending.from >= to {
        return None;
    }
    let (source, from) = (Arc::clone(&sending.source), sending.from);
    let len = BLOCK.min(to - from);
    let read = sending
        .offload
        .blocking(move || source.read(from, len))
        .await;
    match read {
        Ok(block) => {
            sending.from += len;
            Some((Ok(block), Some(sending)))
        }
        // Ends the connection: the client sees that this is not the whole.
        Err(e) => {
            tracing::error!(offset = from, error = %e, "a file could not be sent to its end");
            Some((Err(e), None))
        }
    }
}
