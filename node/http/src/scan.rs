//! GET `/kv`: pages of keys in order, each one moment of the state.

use std::borrow::Cow;

use bytes::Bytes;
use unisondb_api::body::answer::{Page, PageItem};
use unisondb_api::{ApiError, Base64, Cursor, Query};
use unisondb_engine::Scan;
use unisondb_types::limits;

use crate::dispatch::Inside;
use crate::envelope::{self, Reply};
use crate::{outcome, reading};

/// Entries on a page when the client does not say.
const LIMIT: usize = 1_000;

/// One page.
pub(crate) async fn page(at: &Inside<'_>) -> Reply {
    let scan = wanted(at.call.query)?;
    let engine = reading::fresh(at).await?;
    let page = engine.scan(&scan).map_err(|e| outcome::engine(&e))?;
    let cursor = page.next.map(|after| {
        let Scan {
            prefix,
            start,
            end,
            reverse,
            ..
        } = scan;
        Cursor {
            prefix,
            start,
            end,
            reverse,
            after,
        }
        .encode()
    });
    let items = page.items.into_iter().map(|(key, value)| {
        let bytes = key.to_bytes();
        let text = std::str::from_utf8(&bytes).ok().map(str::to_owned);
        PageItem {
            key_b64: text.is_none().then(|| Base64::new(bytes)),
            key: text,
            value: value.map(Base64::new),
        }
    });
    Ok(envelope::json(&Page {
        items: items.collect(),
        cursor,
        lsn: page.lsn,
    }))
}

/// The scan that the parameters describe. A cursor brings its scan's bounds along; parameters that
/// are given besides must agree with it.
fn wanted(query: Query<'_>) -> Result<Scan, ApiError> {
    let bound = |name: &'static str| -> Result<Option<Bytes>, ApiError> {
        let bytes = query.bytes(name)?.map(Cow::into_owned);
        if let Some(bytes) = &bytes
            && bytes.len() > limits::KEY_BYTES
        {
            return Err(ApiError::too_large(format_args!(
                "{name} has at most {} bytes, as keys have; this one has {}",
                limits::KEY_BYTES,
                bytes.len()
            )));
        }
        Ok(bytes.map(Bytes::from))
    };
    let limit = query
        .parse("limit", "a number from 1 to 10000")?
        .unwrap_or(LIMIT);
    if limit == 0 {
        return Err(ApiError::bad_request(
            "limit=0: a number from 1 to 10000 is wanted",
        ));
    }
    if limit > limits::PAGE_ITEMS {
        return Err(ApiError::too_large(format_args!(
            "a page has at most {} items",
            limits::PAGE_ITEMS
        )));
    }
    let keys_only = query.switch("keysOnly")?.unwrap_or_default();
    let prefix = bound("prefix")?;
    let start = bound("start")?;
    let end = bound("end")?;
    let reverse = query.switch("reverse")?;
    let Some(cursor) = query.text("cursor")? else {
        return Ok(Scan {
            prefix: prefix.unwrap_or_default(),
            start,
            end,
            after: None,
            reverse: reverse.unwrap_or_default(),
            limit,
            keys_only,
        });
    };
    let cursor = Cursor::decode(&cursor).map_err(ApiError::bad_request)?;
    let agrees = prefix.is_none_or(|p| p == cursor.prefix)
        && (start.is_none() || start == cursor.start)
        && (end.is_none() || end == cursor.end)
        && reverse.is_none_or(|r| r == cursor.reverse);
    if !agrees {
        return Err(ApiError::bad_request(
            "the cursor belongs to a scan with another prefix, start, end or direction",
        ));
    }
    Ok(Scan {
        prefix: cursor.prefix,
        start: cursor.start,
        end: cursor.end,
        after: Some(cursor.after),
        reverse: cursor.reverse,
        limit,
        keys_only,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::StatusCode;
    use unisondb_types::Key;

    fn read(raw: &str) -> Result<Scan, ApiError> {
        wanted(Query::new(Some(raw)))
    }

    #[test]
    fn a_cursor_alone_goes_on_with_the_same_scan_and_a_different_one_is_refused() {
        let cursor = Cursor {
            prefix: Bytes::from_static(b"user/"),
            start: None,
            end: Some(Bytes::from_static(b"user/z")),
            reverse: true,
            after: Key::new("user/q").unwrap(),
        };
        let text = cursor.encode();
        let scan = read(&format!("cursor={text}&limit=5")).unwrap();
        assert_eq!(
            (scan.prefix.as_ref(), scan.reverse, scan.limit),
            (&b"user/"[..], true, 5)
        );
        assert_eq!(scan.after, Some(cursor.after));
        assert!(read(&format!("cursor={text}&prefix=user/&end=user/z&reverse")).is_ok());
        for other in ["prefix=x", "start=a", "end=b", "reverse=false"] {
            let e = read(&format!("cursor={text}&{other}")).unwrap_err();
            assert_eq!(e.status(), StatusCode::BAD_REQUEST, "{other}");
        }
    }

    #[test]
    fn pages_have_a_limit_that_is_named() {
        assert_eq!(read("").unwrap().limit, LIMIT);
        assert_eq!(
            read("limit=0").unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            read("limit=x").unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            read("limit=10001").unwrap_err().status(),
            StatusCode::PAYLOAD_TOO_LARGE
        );
        let long = format!("prefix={}", "x".repeat(481));
        assert_eq!(
            read(&long).unwrap_err().status(),
            StatusCode::PAYLOAD_TOO_LARGE
        );
        assert_eq!(
            read("cursor=nonsense").unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }
}
