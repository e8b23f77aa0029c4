//! Which status and text everything that can go wrong below has. One table, in one place.

use http::StatusCode;
use unisondb_api::{ApiError, WriteError};
use unisondb_engine::Error;
use unisondb_engine::backup::BackupError;
use unisondb_types::{Outcome, TxId};

use crate::HostError;

/// Exactly what the documentation promises when a disk is full.
const FULL: &str = "no space left on device";

/// A change that was not made, or of which nobody knows.
pub(crate) fn write(e: WriteError) -> ApiError {
    match e {
        WriteError::NotFound(name) => ApiError::namespace_not_found(&name),
        WriteError::TooLarge(_) => ApiError::too_large(e),
        WriteError::Overloaded(_) => ApiError::new(StatusCode::TOO_MANY_REQUESTS, e.to_string()),
        WriteError::Unavailable(_) => ApiError::unavailable(e),
        WriteError::ReadOnly(_) => ApiError::forbidden(e),
        WriteError::Full => ApiError::new(StatusCode::INSUFFICIENT_STORAGE, FULL),
        WriteError::Failed(_) => ApiError::internal(e),
        WriteError::Unknown(_) => {
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, e.to_string()).with("unknown", true)
        }
    }
}

/// What a request asks of a transaction: what a refusal is called depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnTx {
    /// One more step, or the commit.
    GoOn(TxId),
    /// The abort: of what is aborted already it is the same thing done twice.
    Abort(TxId),
}

/// A change that the log took and the state refused; `None` if it did what was asked.
pub(crate) fn refused(outcome: &Outcome, on: Option<OnTx>) -> Option<ApiError> {
    let tx = || match on {
        Some(OnTx::GoOn(id) | OnTx::Abort(id)) => id.to_string(),
        None => String::new(),
    };
    Some(match outcome {
        Outcome::Written { .. }
        | Outcome::Begun(_)
        | Outcome::Staged
        | Outcome::Committed { .. }
        | Outcome::Aborted => return None,
        Outcome::ConditionFailed { found } => {
            let text = match found {
                Some(lsn) => format!("condition not met: last written at LSN {lsn}"),
                None => "condition not met: there is no such entry".to_owned(),
            };
            ApiError::new(StatusCode::PRECONDITION_FAILED, text)
                .with("currentLsn", found.map(|lsn| lsn.get()))
        }
        Outcome::TxUnknown => tx_unknown(&tx()),
        Outcome::TxFinished { committed: true } => {
            ApiError::conflict(format_args!("transaction already committed: {}", tx()))
        }
        Outcome::TxFinished { committed: false } if matches!(on, Some(OnTx::Abort(_))) => {
            ApiError::conflict(format_args!("transaction already aborted: {}", tx()))
        }
        Outcome::TxFinished { committed: false } => ApiError::new(
            StatusCode::GONE,
            format!("transaction aborted: {}; begin a new one", tx()),
        ),
        Outcome::TxExpired => ApiError::new(
            StatusCode::GONE,
            format!("transaction expired: {}; begin a new one", tx()),
        ),
        Outcome::TxMisfit { reason } => ApiError::conflict(reason),
        Outcome::TxTooLarge { reason } => ApiError::too_large(reason),
        Outcome::KeyReused => {
            ApiError::conflict("this Idempotency-Key was used for another request; use a new one")
        }
    })
}

/// 404 for a transaction.
pub(crate) fn tx_unknown(id: &str) -> ApiError {
    ApiError::not_found(format_args!("transaction not found: {id}"))
}

/// A read that failed.
pub(crate) fn engine(e: &Error) -> ApiError {
    match e {
        Error::Stopped(_) => ApiError::unavailable(e),
        e if e.is_full() => ApiError::internal(FULL),
        e => ApiError::internal(e),
    }
}

/// A log that could not be read.
pub(crate) fn wal(e: unisondb_wal::Error) -> ApiError {
    engine(&Error::Wal(e))
}

/// A backup that was not made.
pub(crate) fn backup(e: &BackupError) -> ApiError {
    match e {
        BackupError::BadPath(_) => ApiError::bad_request(e),
        BackupError::Gap {
            first_available, ..
        } => ApiError::conflict(e).with("firstAvailable", first_available.get()),
        BackupError::Differs { .. } => ApiError::conflict(e),
        BackupError::Behind { .. } | BackupError::ReadOnly(_) => ApiError::unavailable(e),
        BackupError::Engine(e) => engine(e),
        BackupError::Permission(_)
        | BackupError::NoSpace
        | BackupError::Damaged { .. }
        | BackupError::Io { .. } => ApiError::internal(e),
    }
}

/// Something that the node did not do.
pub(crate) fn host(e: HostError) -> ApiError {
    match e {
        HostError::NotFound(name) => ApiError::namespace_not_found(&name),
        HostError::NoSuchNode(_) => ApiError::not_found(e),
        HostError::Refused(_) => ApiError::forbidden(e),
        HostError::Unavailable(_) => ApiError::unavailable(e),
        HostError::Full => ApiError::new(StatusCode::INSUFFICIENT_STORAGE, FULL),
        HostError::Failed(_) => ApiError::internal(e),
    }
}

/// Whether a backup call that ended so counts as a failure: what was refused before anything was
/// tried does not.
pub(crate) fn counts_as_failure(e: &ApiError) -> bool {
    !matches!(e.status().as_u16(), 400 | 401 | 403 | 404 | 405 | 413)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use unisondb_types::SegmentId;

    #[test]
    fn the_documented_texts_and_statuses_stand() {
        let cases = [
            (
                backup(&BackupError::Permission(PathBuf::from(
                    "/var/unison/data/backups/users/wal",
                ))),
                500,
                "{\"error\":\"permission denied: /var/unison/data/backups/users/wal\"}\n",
            ),
            (
                backup(&BackupError::NoSpace),
                500,
                "{\"error\":\"no space left on device\"}\n",
            ),
            (
                backup(&BackupError::Gap {
                    from: SegmentId::new(43),
                    to: SegmentId::new(51),
                    first_available: SegmentId::new(52),
                }),
                409,
                "{\"error\":\"wal gap: segments 43-51 are no longer here\",\"firstAvailable\":52}\n",
            ),
            (
                write(WriteError::NotFound("users".parse().expect("a name"))),
                404,
                "{\"error\":\"namespace not found: users\"}\n",
            ),
            (
                write(WriteError::Full),
                507,
                "{\"error\":\"no space left on device\"}\n",
            ),
            (
                write(WriteError::Unknown("timeout".into())),
                504,
                "{\"error\":\"the outcome is unknown: timeout; retry with the same Idempotency-Key\",\"unknown\":true}\n",
            ),
        ];
        let full = Outcome::TxTooLarge {
            reason: "a transaction has at most 10000 operations".to_owned(),
        };
        let full = refused(&full, None).expect("nothing was staged");
        assert_eq!(full.status().as_u16(), 413);
        for (e, status, body) in cases {
            assert_eq!(e.status().as_u16(), status);
            assert_eq!(String::from_utf8(e.body()).expect("JSON"), body);
        }
    }

    #[test]
    fn a_gap_and_a_differing_file_are_failures_and_a_refused_request_is_none() {
        assert!(counts_as_failure(&ApiError::conflict("gap")));
        assert!(counts_as_failure(&ApiError::internal("io")));
        assert!(!counts_as_failure(&ApiError::bad_request("path")));
        assert!(!counts_as_failure(&ApiError::too_large("body")));
    }
}
