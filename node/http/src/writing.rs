//! What every write has in common: conditions, the client's key for retries, and the way through
//! the [`Writer`](unisondb_api::Writer).

use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use unisondb_api::body::answer;
use unisondb_api::{ApiError, Written};
use unisondb_types::{
    Action, Condition, Idempotency, IdempotencyKey, Key, Lsn, Op, Outcome, RowKey, TxId, codec,
};

use crate::dispatch::{Absent, Inside};
use crate::envelope::{self, Reply};
use crate::outcome::{self, OnTx};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a condition is about.
#[derive(Clone)]
pub(crate) enum Entry {
    Kv(Key),
    Row(RowKey),
    Lob(Key),
}

impl Entry {
    fn absent(&self) -> Condition {
        match self.clone() {
            Entry::Kv(key) => Condition::KvAbsent(key),
            Entry::Row(row) => Condition::RowAbsent(row),
            Entry::Lob(key) => Condition::LobAbsent(key),
        }
    }
    fn at(&self, lsn: Lsn) -> Condition {
        match self.clone() {
            Entry::Kv(key) => Condition::KvAt(key, lsn),
            Entry::Row(row) => Condition::RowAt(row, lsn),
            Entry::Lob(key) => Condition::LobAt(key, lsn),
        }
    }
}

/// The conditions that the headers set on an entry.
pub(crate) fn conditions(
    headers: &HeaderMap,
    entry: impl FnOnce() -> Entry,
) -> Result<Vec<Condition>, ApiError> {
    let absent = headers.get(IF_NONE_MATCH);
    let at = headers.get(IF_MATCH);
    if absent.is_none() && at.is_none() {
        return Ok(Vec::new());
    }
    let entry = entry();
    let mut conditions = Vec::new();
    if let Some(value) = absent {
        if value.as_bytes().trim_ascii() != b"*" {
            return Err(ApiError::bad_request(
                "If-None-Match: only * is understood on a write",
            ));
        }
        conditions.push(entry.absent());
    }
    if let Some(value) = at {
        let lsn = tagged_lsn(value).ok_or_else(|| {
            ApiError::bad_request("If-Match: the LSN that a GET gave as ETag is wanted")
        })?;
        conditions.push(entry.at(lsn));
    }
    Ok(conditions)
}

/// `"17"` or `17`.
fn tagged_lsn(value: &HeaderValue) -> Option<Lsn> {
    let text = value.to_str().ok()?.trim();
    let bare = text
        .strip_prefix('"')
        .and_then(|t| t.strip_suffix('"'))
        .unwrap_or(text);
    let digits = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| bare.parse().ok()).flatten()
}

/// The client's key for retries, with what it stands for.
fn idempotency(headers: &HeaderMap, action: &Action) -> Result<Option<Idempotency>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = IdempotencyKey::new(value.as_bytes().to_vec())?;
    let print = match action {
        // Its id is drawn anew for each attempt: what it stands for is the rest.
        Action::Begin {
            operation,
            entry_type,
            ..
        } => codec::encode(&Action::Begin {
            id: TxId::from_bytes([0; 16]),
            operation: *operation,
            entry_type: *entry_type,
        }),
        action => codec::encode(action),
    };
    let hash = blake3::hash(&print);
    let fingerprint = *hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    Ok(Some(Idempotency { key, fingerprint }))
}

/// Has `action` written, and gives what came of it if it did what was asked.
pub(crate) async fn submit(
    at: &Inside<'_>,
    action: Action,
    on: Option<OnTx>,
) -> Result<Written, ApiError> {
    let idempotency = idempotency(&at.call.parts.headers, &action)?;
    // Last: a request that is refused anyway makes no namespace. A transaction cannot be in one
    // that is not there.
    at.open(if on.is_some() {
        Absent::Refuse
    } else {
        Absent::Create
    })
    .await?;
    let writer = at.app().host.writer();
    let written = writer
        .write(&at.namespace, action, idempotency)
        .await
        .map_err(outcome::write)?;
    match outcome::refused(&written.outcome, on) {
        Some(e) => Err(e),
        None => Ok(written),
    }
}

/// Writes `ops` on one entry, under the conditions of the headers: `{"success":true,"lsn":N}`.
pub(crate) async fn entry(at: &Inside<'_>, op: Op, entry: impl FnOnce() -> Entry) -> Reply {
    let conditions = conditions(&at.call.parts.headers, entry)?;
    let ops = vec![op];
    let written = submit(at, Action::Write { conditions, ops }, None).await?;
    Ok(done(written.lsn))
}

/// Writes `ops` as one: `{"success":true,"processed":n,"lsn":N}`.
pub(crate) async fn batch(at: &Inside<'_>, ops: Vec<Op>) -> Reply {
    let conditions = Vec::new();
    let written = submit(at, Action::Write { conditions, ops }, None).await?;
    let processed = match written.outcome {
        Outcome::Written { processed } => processed,
        _ => 0,
    };
    Ok(envelope::json(&answer::BatchWritten {
        success: true,
        processed,
        lsn: written.lsn,
    }))
}

/// `{"success":true,"lsn":N}`.
pub(crate) fn done(lsn: Lsn) -> axum::response::Response {
    envelope::json(&answer::Written { success: true, lsn })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use unisondb_types::{EntryType, TxOperation, Value};

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        let mut h = HeaderMap::new();
        h.insert(name, HeaderValue::from_static(value));
        h
    }

    #[test]
    fn conditions_are_a_star_or_an_lsn() {
        let key = Key::new("k").unwrap();
        let entry = || Entry::Kv(Key::new("k").unwrap());
        assert_eq!(conditions(&HeaderMap::new(), entry).unwrap(), []);
        for value in ["\"17\"", "17", " \"17\" "] {
            let found = conditions(&headers(IF_MATCH, value), entry).unwrap();
            assert_eq!(found, [Condition::KvAt(key.clone(), Lsn::new(17))]);
        }
        let found = conditions(&headers(IF_NONE_MATCH, "*"), entry).unwrap();
        assert_eq!(found, [Condition::KvAbsent(key)]);
        for (name, bad) in [
            (IF_MATCH, "*"),
            (IF_MATCH, "\"x\""),
            (IF_MATCH, "+7"),
            (IF_NONE_MATCH, "\"17\""),
        ] {
            assert!(conditions(&headers(name, bad), entry).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repeated_begin_stands_for_the_same_though_its_id_is_new() {
        let h = headers(IDEMPOTENCY_KEY, "again");
        let begin = |id| Action::Begin {
            id: TxId::from_bytes([id; 16]),
            operation: TxOperation::Put,
            entry_type: EntryType::Kv,
        };
        let print = |a: &Action| idempotency(&h, a).unwrap().unwrap().fingerprint;
        assert_eq!(print(&begin(1)), print(&begin(2)));
        let put = |v: &'static str| Action::Write {
            conditions: Vec::new(),
            ops: vec![Op::KvPut {
                key: Key::new("k").unwrap(),
                value: Value::new(v),
            }],
        };
        assert_ne!(print(&put("a")), print(&put("b")));
        assert!(idempotency(&headers(IDEMPOTENCY_KEY, ""), &put("a")).is_err());
        assert!(idempotency(&HeaderMap::new(), &put("a")).unwrap().is_none());
    }
}
