//! Large objects: streamed chunk by chunk, so that gigabytes need no gigabytes of memory. They are
//! written in transactions (`tx.rs`).

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use unisondb_api::ApiError;
use unisondb_engine::Lob;
use unisondb_types::Op;

use crate::dispatch::Inside;
use crate::envelope::{self, RAW, Reply, X_CRC32C};
use crate::range::{self, Wanted};
use crate::writing::{self, Entry};
use crate::{outcome, path, reading};

/// GET `/lob/{key}`.
pub(crate) async fn get(at: &Inside<'_>, raw: Option<&str>) -> Reply {
    let key = path::key(raw, at.call.query)?;
    let engine = reading::fresh(at).await?;
    let Some(lob) = engine.lob(&key).map_err(|e| outcome::engine(&e))? else {
        return Err(ApiError::not_found("object not found"));
    };
    let tag = envelope::etag(lob.lsn);
    let headers = &at.call.parts.headers;
    if reading::has(headers, &tag) {
        return Ok(envelope::not_modified(tag));
    }
    let Ok(cut) = Cut::of(headers, &tag, lob.len) else {
        return Ok(unsatisfiable(lob.len));
    };
    let crc = HeaderValue::from(lob.crc32c);
    let mut response = axum::response::Response::new(Body::from_stream(stream::unfold(
        Some((lob, cut.from)),
        move |state| async move { next(state, cut.to) },
    )));
    cut.describe(&mut response);
    let headers = response.headers_mut();
    headers.insert(ETAG, tag);
    headers.insert(X_CRC32C, crc);
    Ok(response)
}

type Step = (Result<Bytes, std::io::Error>, Option<(Lob, u64)>);

/// The next piece: read only when the connection has taken the one before. An error ends the
/// connection, so that nobody takes a part for the whole.
fn next(state: Option<(Lob, u64)>, to: u64) -> Option<Step> {
    let (lob, from) = state?;
    if from >= to {
        return None;
    }
    match lob.read(from) {
        Ok(piece) if !piece.is_empty() => {
            let left = usize::try_from(to - from).unwrap_or(usize::MAX);
            let piece = piece.slice(..piece.len().min(left));
            let behind = from + piece.len() as u64;
            Some((Ok(piece), Some((lob, behind))))
        }
        Ok(_) => Some((Err(std::io::Error::other("the object ends early")), None)),
        Err(e) => {
            tracing::error!(offset = from, error = %e, "an object could not be read to its end");
            Some((Err(std::io::Error::other(e.to_string())), None))
        }
    }
}

/// The bytes that an answer carries.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) from: u64,
    pub(crate) to: u64,
    len: u64,
    partial: bool,
}

/// A range of which nothing is there.
pub(crate) struct Unsatisfiable;

impl Cut {
    /// What the headers ask for, of `len` bytes that `tag` stands for. A range of what has changed
    /// since is none (`If-Range`).
    pub(crate) fn of(
        headers: &HeaderMap,
        tag: &HeaderValue,
        len: u64,
    ) -> Result<Cut, Unsatisfiable> {
        let of_this = range::is_of(headers.get_all(IF_RANGE), tag);
        let header = headers.get(RANGE).filter(|_| of_this);
        let header = header.map(HeaderValue::as_bytes);
        match range::wanted(header, len) {
            Wanted::All => Ok(Cut {
                from: 0,
                to: len,
                len,
                partial: false,
            }),
            Wanted::Part(r) => Ok(Cut {
                from: r.start,
                to: r.end,
                len,
                partial: true,
            }),
            Wanted::Nothing => Err(Unsatisfiable),
        }
    }

    /// Status and headers for it.
    pub(crate) fn describe(&self, response: &mut axum::response::Response) {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, RAW);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.to - self.from));
        if self.partial {
            let shown = format!("bytes {}-{}/{}", self.from, self.to - 1, self.len);
            let shown = HeaderValue::try_from(shown).expect("digits may stand in a header");
            headers.insert(CONTENT_RANGE, shown);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
    }
}

/// 416.
pub(crate) fn unsatisfiable(len: u64) -> axum::response::Response {
    let e = ApiError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        format!("nothing of that range is there: the length is {len}"),
    );
    let mut response = envelope::error(&e);
    let whole = HeaderValue::try_from(format!("bytes */{len}")).expect("digits and a star");
    response.headers_mut().insert(CONTENT_RANGE, whole);
    response
}

/// DELETE `/lob/{key}`: a success also when it is not there.
pub(crate) async fn delete(at: &Inside<'_>, raw: Option<&str>) -> Reply {
    let key = path::key(raw, at.call.query)?;
    let entry = Entry::Lob(key.clone());
    writing::entry(at, Op::LobDelete { key }, || entry).await
}
