//! Keys and values: PUT, GET, DELETE of one, and batches.

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http::header::ETAG;
use unisondb_api::body::request::{Batch, Item, Put, Text};
use unisondb_api::{ApiError, Base64, base64};
use unisondb_types::{Key, Op, Value};

use crate::dispatch::Inside;
use crate::envelope::{self, Reply};
use crate::writing::{self, Entry};
use crate::{intake, path, reading};

/// PUT `/kv/{key}`: the value as base64 in JSON, or the body itself.
pub(crate) async fn put(at: &Inside<'_>, raw: Option<&str>, body: Body) -> Reply {
    let key = path::key(raw, at.call.query)?;
    let body = at.call.body(body).await?;
    let value = if intake::is_raw(&at.call.parts.headers) {
        Value::new(body)
    } else {
        let put: Put = intake::json(&body)?;
        let value = put.value.ok_or_else(|| missing("value"))?;
        value.into_value()
    };
    let entry = Entry::Kv(key.clone());
    writing::entry(at, Op::KvPut { key, value }, || entry).await
}

/// GET `/kv/{key}`: `{"value","found"}`, or the value itself.
pub(crate) async fn get(at: &Inside<'_>, raw: Option<&str>) -> Reply {
    let key = path::key(raw, at.call.query)?;
    let engine = reading::fresh(at).await?;
    let Some(entry) = engine.kv(&key).map_err(|e| crate::outcome::engine(&e))? else {
        let miss = &b"{\"value\":\"\",\"found\":false}\n"[..];
        return Ok(envelope::line(StatusCode::NOT_FOUND, miss.to_vec()));
    };
    let tag = envelope::etag(entry.lsn);
    let headers = &at.call.parts.headers;
    if reading::has(headers, &tag) {
        return Ok(envelope::not_modified(tag));
    }
    let mut response = if intake::wants_raw(headers) {
        envelope::raw(entry.value)
    } else {
        envelope::line(StatusCode::OK, found(&entry.value))
    };
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// The answer to the commonest request of all, in one allocation: base64 needs no escaping.
fn found(value: &Bytes) -> Vec<u8> {
    const BEGIN: &[u8] = b"{\"value\":\"";
    const END: &[u8] = b"\",\"found\":true}\n";
    let len = BEGIN.len() + base64::encoded_len(value.len()) + END.len();
    let mut body = Vec::with_capacity(len);
    body.extend_from_slice(BEGIN);
    base64::append(value, &mut body);
    body.extend_from_slice(END);
    body
}

/// DELETE `/kv/{key}`: a success also when it is not there.
pub(crate) async fn delete(at: &Inside<'_>, raw: Option<&str>) -> Reply {
    let key = path::key(raw, at.call.query)?;
    let entry = Entry::Kv(key.clone());
    writing::entry(at, Op::KvDelete { key }, || entry).await
}

/// POST `/kv/batch`.
pub(crate) async fn batch(at: &Inside<'_>, body: Body) -> Reply {
    let body = at.call.body(body).await?;
    let batch: Batch<'_> = intake::json(&body)?;
    writing::batch(at, operations(batch)?).await
}

fn operations(batch: Batch<'_>) -> Result<Vec<Op>, ApiError> {
    let operation = batch.operation.ok_or_else(|| missing("operation"))?;
    match operation.as_str() {
        "put" => {
            let items = batch.items.ok_or_else(|| missing("items"))?;
            path::at_most_items(items.len(), "items")?;
            items.into_iter().map(put_item).collect()
        }
        "delete" => {
            if batch.keys.is_none() && batch.keys_b64.is_none() {
                return Err(missing("keys"));
            }
            let keys = batch.keys.unwrap_or_default();
            let more = batch.keys_b64.unwrap_or_default();
            path::at_most_items(keys.len() + more.len(), "keys")?;
            let keys = keys
                .iter()
                .map(|k| Key::new(Bytes::copy_from_slice(k.as_str().as_bytes())));
            let more = more.into_iter().map(|k| Key::new(k.into_bytes()));
            keys.chain(more)
                .map(|key| Ok(Op::KvDelete { key: key? }))
                .collect()
        }
        other => Err(ApiError::bad_request(format_args!(
            "operation {other:?}: put or delete is wanted"
        ))),
    }
}

/// One key to set.
pub(crate) fn put_item(item: Item<'_>) -> Result<Op, ApiError> {
    let key = key_of(item.key, item.key_b64)?;
    let value = item.value.ok_or_else(|| missing("value"))?.into_value();
    Ok(Op::KvPut { key, value })
}

/// The key of an item: UTF-8 as it is, anything else as base64.
pub(crate) fn key_of(text: Option<Text<'_>>, b64: Option<Base64>) -> Result<Key, ApiError> {
    let bytes = match (text, b64) {
        (Some(text), None) => Bytes::copy_from_slice(text.as_str().as_bytes()),
        (None, Some(b64)) => b64.into_bytes(),
        (None, None) => return Err(missing("key")),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "both key and keyB64 are given; give one",
            ));
        }
    };
    Ok(Key::new(bytes)?)
}

/// 400: a field is not there.
pub(crate) fn missing(field: &str) -> ApiError {
    ApiError::bad_request(format_args!("the field {field:?} is missing"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use unisondb_types::limits;

    fn read(body: &str) -> Result<Vec<Op>, ApiError> {
        operations(intake::json(body.as_bytes())?)
    }

    #[test]
    fn an_answer_written_by_hand_is_what_serde_would_write() {
        for value in [&b""[..], b"a", b"\xff\xfe\xfd\xfc"] {
            let by_hand = found(&Bytes::copy_from_slice(value));
            let by_serde = envelope_text(value);
            assert_eq!(String::from_utf8(by_hand).unwrap(), by_serde);
        }
        fn envelope_text(value: &[u8]) -> String {
            let answer = unisondb_api::body::answer::Found {
                value: Base64::new(value.to_vec()),
                found: true,
            };
            serde_json::to_string(&answer).unwrap() + "\n"
        }
    }

    #[test]
    fn a_batch_says_what_it_lacks() {
        for (body, text) in [
            ("{}", "\"operation\" is missing"),
            (r#"{"operation":"put"}"#, "\"items\" is missing"),
            (
                r#"{"operation":"delete","keys":null}"#,
                "\"keys\" is missing",
            ),
            (r#"{"operation":"merge"}"#, "put or delete is wanted"),
            (
                r#"{"operation":"put","items":[{"value":""}]}"#,
                "\"key\" is missing",
            ),
            (
                r#"{"operation":"put","items":[{"key":"a"}]}"#,
                "\"value\" is missing",
            ),
            (
                r#"{"operation":"put","items":[{"key":"","value":""}]}"#,
                "at least one byte",
            ),
            (
                r#"{"operation":"put","items":[{"key":"a","value":"?"}]}"#,
                "base64",
            ),
        ] {
            let e = read(body).unwrap_err();
            assert_eq!(e.status(), StatusCode::BAD_REQUEST, "{body}");
            assert!(e.message().contains(text), "{body}: {e}");
        }
        let many = vec!["\"k\""; limits::ITEMS + 1].join(",");
        let e = read(&format!("{{\"operation\":\"delete\",\"keys\":[{many}]}}")).unwrap_err();
        assert_eq!(e.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(e.message().contains("10000"), "{e}");
    }

    #[test]
    fn keys_of_any_bytes_come_as_base64() {
        let ops = read(r#"{"operation":"delete","keys":["a"],"keysB64":["/w=="]}"#).unwrap();
        let key = |b: &'static [u8]| Key::new(b).unwrap();
        assert_eq!(
            ops,
            [
                Op::KvDelete { key: key(b"a") },
                Op::KvDelete { key: key(b"\xff") }
            ]
        );
    }
}
