//! Rows: columns under one key, merged by PUT, removed alone or together.

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http::header::ETAG;
use unisondb_api::body::request::{ColumnsOrNames, DropColumns, PutRow, RowBatch, RowItem, Text};
use unisondb_api::{ApiError, Base64, base64};
use unisondb_types::{ColumnName, Op, RowColumns, RowKey, Value};

use crate::dispatch::Inside;
use crate::envelope::{self, Reply};
use crate::kv::missing;
use crate::writing::{self, Entry};
use crate::{intake, outcome, path, reading};

/// PUT `/row/{rowKey}`.
pub(crate) async fn put(at: &Inside<'_>, raw: Option<&str>, body: Body) -> Reply {
    let row = path::row_key(raw, at.call.query)?;
    let body = at.call.body(body).await?;
    let put: PutRow<'_> = intake::json(&body)?;
    let columns = put.columns.ok_or_else(|| missing("columns"))?.0;
    let columns = merged(&row, columns)?;
    let entry = Entry::Row(row.clone());
    writing::entry(at, Op::RowPut { row, columns }, || entry).await
}

/// GET `/row/{rowKey}`.
pub(crate) async fn get(at: &Inside<'_>, raw: Option<&str>) -> Reply {
    let row = path::row_key(raw, at.call.query)?;
    let columns = path::columns(at.call.query)?;
    let engine = reading::fresh(at).await?;
    let found = engine
        .row(&row, columns.as_deref())
        .map_err(|e| outcome::engine(&e))?;
    let Some(found) = found else {
        let miss = shown(&row, Vec::new(), Found::No);
        return Ok(envelope::line(StatusCode::NOT_FOUND, miss));
    };
    let tag = envelope::etag(found.lsn);
    if reading::has(&at.call.parts.headers, &tag) {
        return Ok(envelope::not_modified(tag));
    }
    let answer = shown(&row, found.columns, Found::Yes);
    let mut response = envelope::line(StatusCode::OK, answer);
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// `{"rowKey","columns","found"}`. What is not UTF-8 stands under names that end in `B64`.
///
/// Written out by hand, and each value let go of once it stands there: a row may be large, and is in
/// memory once.
fn shown(row: &RowKey, columns: Vec<(ColumnName, Value)>, found: Found) -> Vec<u8> {
    let size = |(name, value): &(ColumnName, Value)| {
        name.as_bytes().len() + value.as_bytes().len().div_ceil(3) * 4 + 8
    };
    let mut answer = Vec::with_capacity(128 + columns.iter().map(size).sum::<usize>());
    let mut odd = Vec::new();
    answer.extend_from_slice(b"{\"columns\":{");
    for (name, value) in columns {
        match std::str::from_utf8(name.as_bytes()) {
            Ok(text) => field(&mut answer, text, &base64::encode(value.as_bytes())),
            Err(_) => odd.push((name, value)),
        }
    }
    answer.push(b'}');
    if !odd.is_empty() {
        answer.extend_from_slice(b",\"columnsB64\":{");
        for (name, value) in odd {
            let name = base64::encode(name.as_bytes());
            field(&mut answer, &name, &base64::encode(value.as_bytes()));
        }
        answer.push(b'}');
    }
    answer.extend_from_slice(match found {
        Found::Yes => b",\"found\":true",
        Found::No => b",\"found\":false",
    });
    match std::str::from_utf8(row.as_bytes()) {
        Ok(text) => field(&mut answer, "rowKey", text),
        Err(_) => field(&mut answer, "rowKeyB64", &base64::encode(row.as_bytes())),
    }
    answer.extend_from_slice(b"}\n");
    answer
}

/// Whether a row is there.
enum Found {
    Yes,
    No,
}

/// One more field of the JSON object that `answer` ends in.
fn field(answer: &mut Vec<u8>, name: &str, text: &str) {
    if !answer.ends_with(b"{") {
        answer.push(b',');
    }
    serde_json::to_writer(&mut *answer, name).expect("text is JSON, in memory");
    answer.push(b':');
    serde_json::to_writer(&mut *answer, text).expect("text is JSON, in memory");
}

/// DELETE `/row/{rowKey}`.
pub(crate) async fn delete(at: &Inside<'_>, raw: Option<&str>) -> Reply {
    if at.call.query.list("columns")?.is_some() {
        return Err(ApiError::bad_request(
            "to remove columns use DELETE /row/{rowKey}/columns; this would remove the whole row",
        ));
    }
    let row = path::row_key(raw, at.call.query)?;
    let entry = Entry::Row(row.clone());
    writing::entry(at, Op::RowDelete { row }, || entry).await
}

/// DELETE `/row/{rowKey}/columns`: names in the query or in the body.
pub(crate) async fn delete_columns(at: &Inside<'_>, raw: Option<&str>, body: Body) -> Reply {
    let row = path::row_key(raw, at.call.query)?;
    let mut columns = path::columns(at.call.query)?.unwrap_or_default();
    let body = at.call.body(body).await?;
    if !body.trim_ascii().is_empty() {
        let named: DropColumns<'_> = intake::json(&body)?;
        let named = named.columns.unwrap_or_default().0;
        columns.extend(names(named.iter())?);
    }
    let columns = removed(&row, columns)?;
    let entry = Entry::Row(row.clone());
    writing::entry(at, Op::RowDeleteColumns { row, columns }, || entry).await
}

/// POST `/row/batch`.
pub(crate) async fn batch(at: &Inside<'_>, body: Body) -> Reply {
    let body = at.call.body(body).await?;
    let batch: RowBatch<'_> = intake::json(&body)?;
    let operation = batch.operation.ok_or_else(|| missing("operation"))?;
    let one: fn(RowItem<'_>) -> Result<Op, ApiError> = match operation.as_str() {
        "put" => put_item,
        "delete" => delete_item,
        other => {
            return Err(ApiError::bad_request(format_args!(
                "operation {other:?}: put or delete is wanted"
            )));
        }
    };
    let rows = batch.rows.ok_or_else(|| missing("rows"))?;
    path::at_most_items(rows.len(), "rows")?;
    let ops = rows.into_iter().map(one).collect::<Result<_, _>>()?;
    writing::batch(at, ops).await
}

/// One row to merge into.
pub(crate) fn put_item(item: RowItem<'_>) -> Result<Op, ApiError> {
    let row = key_of(item.row_key, item.row_key_b64)?;
    let ColumnsOrNames(pairs) = item.columns.ok_or_else(|| missing("columns"))?;
    let pairs = pairs.into_iter().map(|(name, value)| match value {
        Some(value) => Ok((name, value)),
        None => Err(ApiError::bad_request(format_args!(
            "column {:?} has no value",
            name.as_str()
        ))),
    });
    let columns = merged(&row, pairs.collect::<Result<_, _>>()?)?;
    Ok(Op::RowPut { row, columns })
}

/// One row to remove, or the columns of it that are named.
pub(crate) fn delete_item(item: RowItem<'_>) -> Result<Op, ApiError> {
    let row = key_of(item.row_key, item.row_key_b64)?;
    let Some(ColumnsOrNames(pairs)) = item.columns else {
        return Ok(Op::RowDelete { row });
    };
    let columns = names(pairs.iter().map(|(name, _)| name))?;
    let columns = removed(&row, columns)?;
    Ok(Op::RowDeleteColumns { row, columns })
}

/// The key of a row in a body: UTF-8 as it is, anything else as base64.
fn key_of(text: Option<Text<'_>>, b64: Option<Base64>) -> Result<RowKey, ApiError> {
    let bytes = match (text, b64) {
        (Some(text), None) => Bytes::copy_from_slice(text.as_str().as_bytes()),
        (None, Some(b64)) => b64.into_bytes(),
        (None, None) => return Err(missing("rowKey")),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "both rowKey and rowKeyB64 are given; give one",
            ));
        }
    };
    Ok(RowKey::new(bytes)?)
}

fn names<'a, 'b: 'a>(
    texts: impl Iterator<Item = &'a Text<'b>>,
) -> Result<Vec<ColumnName>, ApiError> {
    texts
        .map(|t| {
            Ok(ColumnName::new(Bytes::copy_from_slice(
                t.as_str().as_bytes(),
            ))?)
        })
        .collect()
}

fn merged(row: &RowKey, columns: Vec<(Text<'_>, Base64)>) -> Result<RowColumns, ApiError> {
    path::at_most_items(columns.len(), "columns")?;
    if columns.is_empty() {
        return Err(ApiError::bad_request("at least one column is wanted"));
    }
    let column = |(name, value): (Text<'_>, Base64)| {
        let name = ColumnName::new(Bytes::copy_from_slice(name.as_str().as_bytes()))?;
        path::fits(row, &name)?;
        Ok((name, value.into_value()))
    };
    columns.into_iter().map(column).collect()
}

fn removed(row: &RowKey, columns: Vec<ColumnName>) -> Result<Vec<ColumnName>, ApiError> {
    path::at_most_items(columns.len(), "columns")?;
    if columns.is_empty() {
        return Err(ApiError::bad_request("at least one column is wanted"));
    }
    for name in &columns {
        path::fits(row, name)?;
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use unisondb_types::Value;

    fn item(body: &str) -> RowItem<'_> {
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn deleting_a_row_of_a_batch_names_columns_or_means_the_row() {
        let row = RowKey::new("r").unwrap();
        let whole = delete_item(item(r#"{"rowKey":"r"}"#)).unwrap();
        assert_eq!(whole, Op::RowDelete { row: row.clone() });
        for body in [
            r#"{"rowKey":"r","columns":["a"]}"#,
            r#"{"rowKey":"r","columns":{"a":null}}"#,
        ] {
            let some = delete_item(item(body)).unwrap();
            let columns = vec![ColumnName::new("a").unwrap()];
            assert_eq!(
                some,
                Op::RowDeleteColumns {
                    row: row.clone(),
                    columns
                }
            );
        }
        // An empty list must not be taken for 'the whole row'.
        assert!(delete_item(item(r#"{"rowKey":"r","columns":[]}"#)).is_err());
        assert!(put_item(item(r#"{"rowKey":"r","columns":["a"]}"#)).is_err());
        assert!(put_item(item(r#"{"rowKey":"r","columns":{}}"#)).is_err());
    }

    #[test]
    fn a_row_key_and_a_column_name_share_their_limit() {
        let body = format!(
            r#"{{"rowKey":"{}","columns":{{"{}":""}}}}"#,
            "r".repeat(300),
            "c".repeat(181)
        );
        let e = put_item(item(&body)).unwrap_err();
        assert_eq!(e.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(e.message().contains("together at most 480 bytes"), "{e}");
    }

    #[test]
    fn what_is_not_utf8_is_shown_as_base64_beside_the_rest() {
        let row = RowKey::new(&b"\xff"[..]).unwrap();
        let columns = vec![
            (ColumnName::new("a").unwrap(), Value::new("x")),
            (ColumnName::new(&b"\xfe"[..]).unwrap(), Value::new("y")),
        ];
        assert_eq!(
            String::from_utf8(shown(&row, columns, Found::Yes)).unwrap(),
            "{\"columns\":{\"a\":\"eA==\"},\"columnsB64\":{\"/g==\":\"eQ==\"},\"found\":true,\"rowKeyB64\":\"/w==\"}\n"
        );
        let miss = shown(&RowKey::new("a\"b").unwrap(), Vec::new(), Found::No);
        assert_eq!(
            String::from_utf8(miss).unwrap(),
            "{\"columns\":{},\"found\":false,\"rowKey\":\"a\\\"b\"}\n"
        );
    }
}
