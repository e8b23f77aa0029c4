//! Reading a request's body: at most 1 MiB, JSON whatever its type is called.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unisondb_api::{ApiError, lenient};
use unisondb_platform::Clock;
use unisondb_types::limits;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a body that is too long is read and thrown away, so that the client, still sending,
/// gets to read the answer.
const DRAIN: usize = 16 << 20;

/// Makes room for a body before any of it is read: for as much as is announced, or as much as there
/// may be.
///
/// # Errors
/// 413 to a client that waits with a body that is too long; 429 when too much is in memory.
pub(crate) fn room(
    bodies: &Arc<Semaphore>,
    headers: &HeaderMap,
    body: &Body,
) -> Result<OwnedSemaphorePermit, ApiError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok())
        .or(body.size_hint().upper());
    let most = limits::BODY_BYTES as u64;
    if headers.contains_key(EXPECT) && announced.is_some_and(|n| n > most) {
        return Err(too_long());
    }
    let wanted = announced.unwrap_or(most).min(most);
    let wanted = u32::try_from(wanted).expect("a body's limit is far below");
    let room = bodies.clone().try_acquire_many_owned(wanted);
    room.map_err(|_| {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "overloaded: requests of {} bytes are being worked on; retry",
                limits::BODIES_BYTES
            ),
        )
    })
}

/// The whole body.
pub(crate) async fn body(clock: &dyn Clock, body: Body) -> Result<Bytes, ApiError> {
    let mut read = pin!(collect(body));
    // Nearly always all is there already, and no timer is wanted.
    let first = std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
    if let Poll::Ready(done) = first {
        return done;
    }
    tokio::select! {
        biased;
        done = read => done,
        () = clock.sleep(PATIENCE) => Err(ApiError::bad_request(format_args!(
            "the body did not come within {} s", PATIENCE.as_secs()
        ))),
    }
}

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut len = 0usize;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| ApiError::bad_request(format_args!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        len = len.saturating_add(data.len());
        if len > DRAIN {
            break;
        }
        if len > limits::BODY_BYTES {
            continue;
        }
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    match len {
        len if len > limits::BODY_BYTES => Err(too_long()),
        _ if rest.is_empty() => Ok(first),
        _ => Ok(rest.freeze()),
    }
}

fn too_long() -> ApiError {
    ApiError::too_large(format_args!(
        "a body has at most {} bytes",
        limits::BODY_BYTES
    ))
}

/// Reads a body as the JSON object `T`.
pub(crate) fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    // A list would pass for a struct with its fields in order.
    if body.trim_ascii_start().first().is_some_and(|&b| b == b'[') {
        return Err(ApiError::bad_request(
            "invalid JSON: an object is wanted, not a list",
        ));
    }
    serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(format_args!("invalid JSON: {e}")))
}

/// As [`json`]; where it is allowed, a field without a value counts as left out. `room` keeps the
/// mended text for as long as `T` borrows from it.
pub(crate) fn json_mended<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    allowed: bool,
    room: &'a mut Vec<u8>,
) -> Result<T, ApiError> {
    match json(body) {
        Err(e) if allowed => match lenient::mend(body) {
            Some(mended) => {
                *room = mended;
                json(room)
            }
            None => Err(e),
        },
        read => read,
    }
}

/// Whether the body is the value itself.
pub(crate) fn is_raw(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|v| names_raw(v.as_bytes()))
}

/// Whether the client asks for the value itself.
pub(crate) fn wants_raw(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(ACCEPT).iter();
    all.any(|v| v.as_bytes().split(|&b| b == b',').any(names_raw))
}

fn names_raw(value: &[u8]) -> bool {
    let name = value.split(|&b| b == b';').next().unwrap_or_default();
    name.trim_ascii()
        .eq_ignore_ascii_case(b"application/octet-stream")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use unisondb_api::body::request::{Batch, BtreeBackup, RowBatch, WalBackup};

    #[test]
    fn a_list_is_no_object_and_the_cause_is_named() {
        let e = json::<WalBackup>(b" [1, \"wal/x\"]").unwrap_err();
        assert_eq!(e.status(), StatusCode::BAD_REQUEST);
        let e = json::<WalBackup>(br#"{"afterSegmentId": , "backupDir": "x"}"#).unwrap_err();
        assert_eq!(
            e.message(),
            "invalid JSON: expected value at line 1 column 20"
        );
    }

    #[test]
    fn a_missing_value_is_left_out_only_where_that_is_allowed() {
        let body = br#"{"afterSegmentId": , "backupDir": "x"}"#;
        assert!(json_mended::<WalBackup>(body, false, &mut Vec::new()).is_err());
        let mut room = Vec::new();
        let read: WalBackup = json_mended(body, true, &mut room).unwrap();
        assert_eq!(read.after_segment_id, None);
        assert_eq!(read.backup_dir.unwrap().as_str(), "x");
    }

    #[test]
    fn raw_bytes_are_asked_for_by_name_only() {
        let with = |name, value: &'static str| {
            let mut h = HeaderMap::new();
            h.insert(name, HeaderValue::from_static(value));
            h
        };
        assert!(is_raw(&with(
            CONTENT_TYPE,
            "Application/Octet-Stream; charset=x"
        )));
        assert!(!is_raw(&with(
            CONTENT_TYPE,
            "application/x-www-form-urlencoded"
        )));
        assert!(!is_raw(&HeaderMap::new()));
        assert!(wants_raw(&with(
            ACCEPT,
            "text/html, application/octet-stream;q=0.9"
        )));
        assert!(!wants_raw(&with(ACCEPT, "*/*")));
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_body_are_read_or_refused(body: Vec<u8>) {
            let _ = json::<Batch>(&body);
            let _ = json::<RowBatch>(&body);
            let _ = json::<BtreeBackup>(&body);
            let _ = json_mended::<WalBackup>(&body, true, &mut Vec::new());
        }
    }
}
