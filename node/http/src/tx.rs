//! Transactions: begun, filled step by step, committed or aborted. Each step is a record, so that
//! they work through any node and survive its restart.

use axum::body::Body;
use unisondb_api::body::answer;
use unisondb_api::body::request::{Batch, Begin, Item, Put, RowItem};
use unisondb_api::{ApiError, TxStep};
use unisondb_engine::{TxInfo, TxStatus};
use unisondb_types::{AbortReason, Action, EntryType, Key, Op, Outcome, TxId, TxOperation, Value};

use crate::dispatch::{Absent, Inside};
use crate::envelope::{self, Reply};
use crate::kv::{self, missing};
use crate::outcome::{self, OnTx};
use crate::{intake, path, reading, row, writing};

/// POST `/tx/begin`.
pub(crate) async fn begin(at: &Inside<'_>, body: Body) -> Reply {
    let body = at.call.body(body).await?;
    let begin: Begin<'_> = intake::json(&body)?;
    let operation = match begin
        .operation
        .ok_or_else(|| missing("operation"))?
        .as_str()
    {
        "put" => TxOperation::Put,
        "update" => TxOperation::Update,
        "delete" => TxOperation::Delete,
        other => {
            return Err(ApiError::bad_request(format_args!(
                "operation {other:?}: put, update or delete is wanted"
            )));
        }
    };
    let entry_type = match begin
        .entry_type
        .ok_or_else(|| missing("entryType"))?
        .as_str()
    {
        "kv" => EntryType::Kv,
        "row" => EntryType::Row,
        "lob" => EntryType::Lob,
        other => {
            return Err(ApiError::bad_request(format_args!(
                "entryType {other:?}: kv, row or lob is wanted"
            )));
        }
    };
    let id = TxId::from_bytes(at.app().host.platform().entropy.id());
    let written = writing::submit(
        at,
        Action::Begin {
            id,
            operation,
            entry_type,
        },
        None,
    )
    .await?;
    let txn_id = match written.outcome {
        // For a repeated Idempotency-Key the first one's.
        Outcome::Begun(id) => id,
        _ => id,
    };
    Ok(envelope::json(&answer::Begun {
        txn_id,
        success: true,
        lsn: written.lsn,
    }))
}

/// POST `/tx/{id}/…`.
pub(crate) async fn step(at: &Inside<'_>, raw: &str, step: TxStep, body: Body) -> Reply {
    let id = path::tx(raw)?;
    let body = at.call.body(body).await?;
    let action = match step {
        TxStep::Commit => return commit(at, id).await,
        TxStep::Abort => {
            let reason = AbortReason::Client;
            let abort = Action::Abort { id, reason };
            let written = writing::submit(at, abort, Some(OnTx::Abort(id))).await?;
            return Ok(writing::done(written.lsn));
        }
        TxStep::Lob => {
            let key = path::key(None, at.call.query)?;
            match standing(at, id).await?.operation {
                TxOperation::Delete => Action::Stage {
                    id,
                    ops: vec![Op::LobDelete { key }],
                },
                TxOperation::Put | TxOperation::Update => Action::Chunk {
                    id,
                    key,
                    data: Value::new(body),
                },
            }
        }
        TxStep::Kv => {
            let operation = standing(at, id).await?.operation;
            Action::Stage {
                id,
                ops: kv_ops(at, operation, &body)?,
            }
        }
        TxStep::Row => {
            let operation = standing(at, id).await?.operation;
            let item: RowItem<'_> = intake::json(&body)?;
            let op = match operation {
                TxOperation::Delete => row::delete_item(item)?,
                TxOperation::Put | TxOperation::Update => row::put_item(item)?,
            };
            Action::Stage { id, ops: vec![op] }
        }
    };
    let written = writing::submit(at, action, Some(OnTx::GoOn(id))).await?;
    Ok(writing::done(written.lsn))
}

async fn commit(at: &Inside<'_>, id: TxId) -> Reply {
    let written = writing::submit(at, Action::Commit { id }, Some(OnTx::GoOn(id))).await?;
    let checksum = match written.outcome {
        Outcome::Committed { checksum, .. } => checksum,
        _ => None,
    };
    Ok(envelope::json(&answer::Committed {
        success: true,
        lsn: written.lsn,
        checksum,
    }))
}

/// The operations of a step on keys: one of `{"key","value"}`, many of `{"items"}` or `{"keys"}`,
/// or, with a raw body, the value of `?key=`.
fn kv_ops(
    at: &Inside<'_>,
    operation: TxOperation,
    body: &bytes::Bytes,
) -> Result<Vec<Op>, ApiError> {
    let named = at.call.query.bytes("key")?.is_some();
    let key = || path::key(None, at.call.query);
    let delete = operation == TxOperation::Delete;
    if delete && named {
        return Ok(vec![Op::KvDelete { key: key()? }]);
    }
    if intake::is_raw(&at.call.parts.headers) {
        let value = Value::new(body.clone());
        return Ok(vec![Op::KvPut { key: key()?, value }]);
    }
    if named {
        let put: Put = intake::json(body)?;
        let value = put.value.ok_or_else(|| missing("value"))?.into_value();
        return Ok(vec![Op::KvPut { key: key()?, value }]);
    }
    let many: Batch<'_> = intake::json(body)?;
    if delete && (many.keys.is_some() || many.keys_b64.is_some()) {
        let texts = many
            .keys
            .unwrap_or_default()
            .into_iter()
            .map(|k| (Some(k), None));
        let odd = many
            .keys_b64
            .unwrap_or_default()
            .into_iter()
            .map(|k| (None, Some(k)));
        let keys: Vec<_> = texts.chain(odd).collect();
        path::at_most_items(keys.len(), "keys")?;
        let key = |(text, b64)| {
            Ok(Op::KvDelete {
                key: kv::key_of(text, b64)?,
            })
        };
        return keys.into_iter().map(key).collect();
    }
    if let Some(items) = many.items {
        path::at_most_items(items.len(), "items")?;
        return items
            .into_iter()
            .map(|item| kv_op(operation, item))
            .collect();
    }
    Ok(vec![kv_op(operation, intake::json(body)?)?])
}

fn kv_op(operation: TxOperation, item: Item<'_>) -> Result<Op, ApiError> {
    match operation {
        TxOperation::Put | TxOperation::Update => kv::put_item(item),
        TxOperation::Delete => {
            let key: Key = kv::key_of(item.key, item.key_b64)?;
            Ok(Op::KvDelete { key })
        }
    }
}

/// How an open transaction stands. One that is not known here yet may have been begun through
/// another node: so before a 404 this node catches up.
async fn standing(at: &Inside<'_>, id: TxId) -> Result<TxInfo, ApiError> {
    let engine = at.open(Absent::Refuse).await?;
    let look = || engine.transaction(&id).map_err(|e| outcome::engine(&e));
    let mut status = look()?;
    if matches!(status, TxStatus::Unknown) {
        let writer = at.app().host.writer();
        let lsn = writer
            .barrier(&at.namespace)
            .await
            .map_err(outcome::write)?;
        reading::applied(at, engine, lsn).await?;
        status = look()?;
    }
    let refused = match status {
        TxStatus::Open(info) => return Ok(info),
        TxStatus::Finished { committed } => Outcome::TxFinished { committed },
        TxStatus::Expired => Outcome::TxExpired,
        TxStatus::Unknown => Outcome::TxUnknown,
    };
    Err(outcome::refused(&refused, Some(OnTx::GoOn(id))).expect("none of these is a success"))
}
