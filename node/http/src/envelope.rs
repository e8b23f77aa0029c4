//! What an answer looks like: one line of JSON, or raw bytes, and the headers that go with it.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::Serialize;
use unisondb_api::ApiError;
use unisondb_types::{LineageId, Lsn};

/// An answer, or why there is none.
pub(crate) type Reply = Result<Response, ApiError>;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const RAW: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// The node's name.
pub(crate) const X_NODE: HeaderName = HeaderName::from_static("x-unison-node");
/// `leader`, `follower` or `relayer`.
pub(crate) const X_ROLE: HeaderName = HeaderName::from_static("x-unison-role");
/// Applied here, in the namespace named.
pub(crate) const X_LSN: HeaderName = HeaderName::from_static("x-unison-lsn");
/// The history of the namespace named.
pub(crate) const X_LINEAGE: HeaderName = HeaderName::from_static("x-unison-lineage");
/// SHA-256 of a file that is pulled.
pub(crate) const X_SHA256: HeaderName = HeaderName::from_static("x-checksum-sha256");
/// CRC-32C of an object.
pub(crate) const X_CRC32C: HeaderName = HeaderName::from_static("x-checksum-crc32c");

/// When to come back after a 429 or 503, in seconds.
const COME_BACK: HeaderValue = HeaderValue::from_static("1");

/// 200 with one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Response {
    json_at(StatusCode::OK, value)
}

/// One line of JSON.
pub(crate) fn json_at(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = Vec::with_capacity(128);
    serde_json::to_writer(&mut body, value).expect("answers are maps with text keys, in memory");
    body.push(b'\n');
    line(status, body)
}

/// One line of JSON that is written out already, newline included.
pub(crate) fn line(status: StatusCode, body: Vec<u8>) -> Response {
    debug_assert!(body.ends_with(b"\n"), "an answer ends in a newline");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// 200 with the bytes themselves.
pub(crate) fn raw(bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, RAW);
    response
}

/// An error, with the headers that its status wants.
pub(crate) fn error(e: &ApiError) -> Response {
    let mut response = line(e.status(), e.body());
    if e.is_temporary() {
        response.headers_mut().insert(RETRY_AFTER, COME_BACK);
    }
    if e.status() == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    }
    response
}

/// 405, with what is allowed.
pub(crate) fn wrong_method(allow: &'static str) -> Response {
    let e = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("method not allowed here; allowed: {allow}"),
    );
    let mut response = error(&e);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// 304.
pub(crate) fn not_modified(etag: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(ETAG, etag);
    response
}

/// The same head without the body, and with its length if that is known: the answer to HEAD.
pub(crate) fn head_only(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    if let Some(len) = body.size_hint().exact()
        && head.status != StatusCode::NOT_MODIFIED
    {
        head.headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(len));
    }
    // Dropped unread: whatever produces it stops.
    drop(body);
    Response::from_parts(
        head,
        Body::new(http_body_util::Empty::new().map_err(|e| match e {})),
    )
}

/// The tag of an entry: the LSN that wrote it.
pub(crate) fn etag(lsn: Lsn) -> HeaderValue {
    quoted(lsn)
}

/// `text` in quotes, as tags are.
pub(crate) fn quoted(text: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(format!("\"{text}\"")).expect("digits and letters may stand in a header")
}

/// A lineage's name, as a header.
pub(crate) fn lineage(id: LineageId) -> HeaderValue {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, b) in text.chunks_exact_mut(2).zip(id.as_bytes()) {
        pair[0] = DIGITS[usize::from(b >> 4)];
        pair[1] = DIGITS[usize::from(b & 15)];
    }
    HeaderValue::from_bytes(&text).expect("hexadecimal digits may stand in a header")
}

/// Text that may hold anything, as a header.
pub(crate) fn text(text: &str) -> HeaderValue {
    let safe = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    HeaderValue::try_from(text.chars().map(safe).collect::<String>())
        .expect("printable ASCII may stand in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_is_spelled_in_a_header_as_it_is_everywhere() {
        let id =
            LineageId::from_bytes([0x0f, 0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xff]);
        assert_eq!(lineage(id).as_bytes(), id.to_string().as_bytes());
    }

    #[test]
    fn temporary_errors_say_when_to_come_back_and_unknown_ones_who_to_be() {
        let r = error(&ApiError::unavailable("starting"));
        assert!(r.headers().contains_key(RETRY_AFTER));
        let r = error(&ApiError::unauthorized());
        assert_eq!(r.headers()[WWW_AUTHENTICATE], "Bearer");
        let r = error(&ApiError::bad_request("no"));
        assert!(!r.headers().contains_key(RETRY_AFTER));
    }
}
