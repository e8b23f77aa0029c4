//! The documented backup calls, and seal.
//!
//! The work is a task of its own: a client that leaves, or a balancer that loses patience, does not
//! stop it (P9), and the next call finds it done. What it publishes is whole or nothing; that is
//! the engine's part. This one seals first, through the log, so that a quiet system's backup holds
//! its last writes too (P8), and tells what came of it: answer, audit line, metrics.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use unisondb_api::body::{answer, request};
use unisondb_api::{ApiError, Place, Route, WriteError};
use unisondb_engine::Engine;
use unisondb_engine::backup::{BackupKind, SnapshotBackup, WalBackup};
use unisondb_platform::OffloadExt;
use unisondb_types::{Lsn, Namespace, SegmentId};

use crate::audit::{self, Record};
use crate::dispatch::{Absent, App, Inside};
use crate::envelope::{self, Reply, X_SHA256};
use crate::kv::missing;
use crate::path::Named;
use crate::{intake, metrics, outcome, path};

/// How long a seal may take, whatever the writer says of leaders.
const SEAL: Duration = Duration::from_secs(60);

/// Whether the active segment is sealed first.
#[derive(Clone, Copy, PartialEq)]
enum Seal {
    First,
    Not,
}

/// What sealing first came to.
pub(crate) struct SealedFirst {
    /// Whether all that was acknowledged before is in sealed segments.
    pub(crate) sealed: bool,
    /// Why not.
    pub(crate) reason: Option<String>,
    /// What the backup has to hold at least.
    pub(crate) through: Lsn,
}

/// POST `/wal/backup`.
pub(crate) async fn wal(at: &Inside<'_>, body: Body) -> Reply {
    let job = read_wal(at, body).await;
    let asked = job.as_ref().map_or("", |(_, dir, _)| dir.as_str());
    let record = Record::of(at, Route::In("", Place::WalBackup).pattern(), asked);
    run(
        at,
        BackupKind::Wal,
        record,
        job,
        |app, engine, (after, dir, seal)| async move {
            let first = match seal {
                Seal::First => seal_first(&app, &engine).await?,
                Seal::Not => SealedFirst {
                    sealed: false,
                    reason: None,
                    through: engine.applied(),
                },
            };
            // What was acknowledged is in no sealed segment, and not for want of data: an empty list
            // would say that there is nothing new.
            if let Some(why) = engine.footer_waits().filter(|_| !first.sealed) {
                return Err(ApiError::internal(why));
            }
            let copied = blocking(&app, move || engine.backup_wal(after, &dir)).await?;
            let copied = copied.map_err(|e| outcome::backup(&e))?;
            Ok(Done::wal(first, copied))
        },
    )
    .await
}

/// POST `/btree/backup`.
pub(crate) async fn btree(at: &Inside<'_>, body: Body) -> Reply {
    let job = read_btree(at, body).await;
    let asked = job.as_ref().map_or("", String::as_str);
    let record = Record::of(at, Route::In("", Place::BtreeBackup).pattern(), asked);
    run(
        at,
        BackupKind::Btree,
        record,
        job,
        |app, engine, path| async move {
            let first = seal_first(&app, &engine).await?;
            let through = first.through;
            let made = blocking(&app, move || engine.backup_snapshot(&path, through)).await?;
            let made = made.map_err(|e| outcome::backup(&e))?;
            Ok(Done::Btree(first, made))
        },
    )
    .await
}

async fn read_wal(at: &Inside<'_>, body: Body) -> Result<(SegmentId, String, Seal), ApiError> {
    let body = at.call.body(body).await?;
    let mut room = Vec::new();
    let lenient = at.app().settings.lenient_json;
    let asked: request::WalBackup<'_> = intake::json_mended(&body, lenient, &mut room)?;
    let dir = asked.backup_dir.ok_or_else(|| missing("backupDir"))?;
    path::check_backup_path(dir.as_str(), Named::Folder)?;
    let after = SegmentId::new(asked.after_segment_id.unwrap_or_default());
    let seal = if asked.seal == Some(false) {
        Seal::Not
    } else {
        Seal::First
    };
    Ok((after, dir.as_str().to_owned(), seal))
}

async fn read_btree(at: &Inside<'_>, body: Body) -> Result<String, ApiError> {
    let body = at.call.body(body).await?;
    let mut room = Vec::new();
    let lenient = at.app().settings.lenient_json;
    let asked: request::BtreeBackup<'_> = intake::json_mended(&body, lenient, &mut room)?;
    let path = asked.path.ok_or_else(|| missing("path"))?;
    path::check_backup_path(path.as_str(), Named::File)?;
    Ok(path.as_str().to_owned())
}

/// What a backup made.
enum Done {
    Wal(SealedFirst, WalBackup),
    Btree(SealedFirst, SnapshotBackup),
}

/// Carries a backup call through, in a task of its own, and tells of its end.
async fn run<J, F>(
    at: &Inside<'_>,
    kind: BackupKind,
    record: Record,
    job: Result<J, ApiError>,
    work: impl FnOnce(Arc<App>, Engine, J) -> F + Send + 'static,
) -> Reply
where
    J: Send + 'static,
    F: Future<Output = Result<Done, ApiError>> + Send,
{
    let ready = match job {
        Ok(job) => at
            .open(Absent::Refuse)
            .await
            .map(|engine| (job, engine.clone())),
        Err(e) => Err(e),
    };
    let (job, engine) = match ready {
        Ok(ready) => ready,
        Err(e) => {
            record.refused(&e);
            // No engine counts a backup that did not come to it.
            if outcome::counts_as_failure(&e) {
                at.app().missed.failed(&at.namespace, kind);
            }
            return Err(e);
        }
    };
    let (app, namespace) = (Arc::clone(at.app()), at.namespace.clone());
    let task = tokio::spawn(async move {
        // Never closed, so there is always a turn.
        let _turn = app.heavy.acquire().await;
        let begun = app.clock().monotonic();
        let done = work(Arc::clone(&app), engine, job).await;
        let took = app.clock().monotonic().saturating_sub(begun);
        match done {
            Ok(done) => {
                metrics::took(&namespace, kind, took);
                app.missed.succeeded(&namespace, kind);
                Ok(done.answer(&app, &namespace, &record))
            }
            Err(e) => {
                record.refused(&e);
                Err(e)
            }
        }
    });
    match task.await {
        Ok(reply) => reply,
        Err(e) => Err(ApiError::internal(format_args!(
            "the backup broke off: {e}"
        ))),
    }
}

/// Runs `job` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    app: &App,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    Ok(app.host.platform().offload.blocking(job).await)
}

/// Seals through the log. Without a leader the backup goes on with what is sealed here, and holds
/// at least what this node has answered or shown (P8).
pub(crate) async fn seal_first(app: &App, engine: &Engine) -> Result<SealedFirst, ApiError> {
    let namespace = engine.namespace();
    // Before the call: whatever was shown until now has to be in it.
    let shown = engine.applied();
    let writer = app.host.writer();
    let sealed = tokio::select! {
        biased;
        sealed = writer.seal(namespace) => sealed,
        () = app.clock().sleep(SEAL) => Err(WriteError::Unavailable(format!(
            "the active segment was not sealed within {} s", SEAL.as_secs()
        ))),
    };
    match sealed {
        Ok(sealed) => Ok(SealedFirst {
            sealed: true,
            reason: None,
            through: sealed.lsn.max(shown),
        }),
        Err(e @ WriteError::NotFound(_)) => Err(outcome::write(e)),
        Err(e) => {
            tracing::warn!(%namespace, reason = %e, "a backup goes on with what is sealed");
            Ok(SealedFirst {
                sealed: false,
                reason: Some(e.to_string()),
                through: shown,
            })
        }
    }
}

impl Done {
    fn wal(first: SealedFirst, copied: WalBackup) -> Done {
        debug_assert!(
            copied
                .copies
                .windows(2)
                .all(|w| w[0].segment < w[1].segment),
            "scripts take the last one for the newest"
        );
        Done::Wal(first, copied)
    }

    fn answer(self, app: &App, namespace: &Namespace, record: &Record) -> Response {
        let node = app.host.about().node;
        match self {
            Done::Wal(
                SealedFirst { sealed, reason, .. },
                WalBackup {
                    copies,
                    first_available,
                },
            ) => {
                let ids = audit::ids(copies.iter().map(|c| c.segment));
                record.done(&ids, copies.iter().map(|c| c.bytes).sum());
                let backups = copies.into_iter().map(|c| answer::BackedUp {
                    segment_id: c.segment,
                    path: shown(&c.path),
                    bytes: c.bytes,
                    sha256: c.sha256,
                    download_url: download(namespace, c.segment),
                });
                envelope::json(&answer::WalBackups {
                    backups: backups.collect(),
                    sealed,
                    reason,
                    first_available,
                    node,
                })
            }
            Done::Btree(SealedFirst { sealed, reason, .. }, s) => {
                record.done(&format!("lsn {} segment {}", s.lsn, s.segment), s.bytes);
                let sum = envelope::text(&s.sha256.to_string());
                let mut response = envelope::json(&answer::BtreeBackedUp {
                    path: shown(&s.path),
                    bytes: s.bytes,
                    lsn: s.lsn,
                    time: s.stamp,
                    lineage: s.lineage,
                    segment_id: s.segment,
                    sealed,
                    reason,
                    digest: s.digest,
                    sha256: s.sha256,
                    node,
                });
                response.headers_mut().insert(X_SHA256, sum);
                response
            }
        }
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn download(namespace: &Namespace, segment: SegmentId) -> String {
    let id = segment.to_string();
    Route::In(namespace.as_str(), Place::Segment(&id)).to_string()
}

/// POST `/wal/seal`.
pub(crate) async fn seal(at: &Inside<'_>) -> Reply {
    let record = Record::of(at, Route::In("", Place::WalSeal).pattern(), "");
    let sealed = async {
        at.open(Absent::Refuse).await?;
        let writer = at.app().host.writer();
        tokio::select! {
            biased;
            sealed = writer.seal(&at.namespace) => sealed.map_err(outcome::write),
            () = at.app().clock().sleep(SEAL) => Err(ApiError::unavailable(format_args!(
                "the active segment was not sealed within {} s", SEAL.as_secs()
            ))),
        }
    }
    .await;
    match sealed {
        Ok(sealed) => {
            record.done(&audit::ids(sealed.segment), 0);
            Ok(envelope::json(&answer::SealedUpTo {
                success: true,
                segment_id: sealed.segment,
                lsn: sealed.lsn,
            }))
        }
        Err(e) => {
            record.refused(&e);
            Err(e)
        }
    }
}
