//! [`Wire`]: the connection below hyper. What hyper answers by itself, to what it cannot read as a
//! request, has no body; here it is held back, and the listener says it in the contract's words.
//!
//! ```text
//!  Quiet --service called--> Asked --answer's body taken--> Answered --all flushed--> Quiet
//! ```
//!
//! Bytes that are written while it is quiet are hyper's own: the router's are all out. So nothing
//! of an answer is ever mistaken, whatever bytes it holds. One case is left: a client that sends a
//! request that cannot be read right behind a good one, and does not take that one's answer
//! meanwhile, may get hyper's empty 400 behind it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use unisondb_api::ApiError;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// Of what hyper answers by itself, so much is kept: its head is much shorter.
const HELD_BYTES: usize = 1_024;
/// Longest target of a request, in bytes: what the `http` crate takes.
const URI_BYTES: usize = 65_534;
/// Most headers of a request: hyper's own default, set here by name.
pub(crate) const HEADERS: usize = 100;
/// Longest head of a request, in bytes.
pub(crate) const HEAD_BYTES: usize = 400 << 10;

/// A request that could not be read: in the extensions of what the router is asked instead.
#[derive(Clone)]
pub(crate) struct Unread(pub(crate) ApiError);

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Turn {
    #[default]
    Quiet,
    Asked,
    Answered,
}

#[derive(Default)]
struct Seen {
    turn: Turn,
    /// Something came that is not yet a request.
    heard: bool,
    first: Option<u8>,
    held: Vec<u8>,
}

/// What the listener and the wire know of each other.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Seen>>);

impl Turns {
    /// A request was read.
    pub(crate) fn asked(&self) {
        let mut seen = self.0.lock();
        seen.turn = Turn::Asked;
        seen.heard = false;
    }

    /// Marks an answer's body, to learn when it was taken.
    pub(crate) fn watch(&self, body: Body) -> Watched {
        let turns = self.clone();
        Watched { body, turns }
    }

    /// What is to be said instead of nothing, if the connection ended with a request that could
    /// not be read and nothing stands before it.
    pub(crate) fn unread(&self, e: &hyper::Error, patience_s: u64) -> Option<ApiError> {
        let seen = self.0.lock();
        if seen.turn != Turn::Quiet {
            return None;
        }
        if e.is_timeout() && seen.heard {
            return Some(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the head of the request did not come within {patience_s} s"),
            ));
        }
        if !e.is_parse() {
            return None;
        }
        let status = seen.held.get(9..12).unwrap_or_default();
        Some(match status {
            b"414" => ApiError::new(
                StatusCode::URI_TOO_LONG,
                format!("a URI has at most {URI_BYTES} bytes"),
            ),
            b"431" => wide(),
            _ if seen.first == Some(TLS_HANDSHAKE) => ApiError::bad_request(
                "the request cannot be read: it begins like TLS, and this listener speaks plain HTTP; use http://",
            ),
            _ => ApiError::bad_request(format_args!("the request cannot be read: {e}")),
        })
    }
}

fn wide() -> ApiError {
    ApiError::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        format!("the head of a request has at most {HEAD_BYTES} bytes and {HEADERS} headers"),
    )
}

/// Refuses a head that is longer than allowed. hyper looks at its bound only while a head is not
/// yet whole: one that comes quickly may be twice as long.
pub(crate) fn too_wide<B>(request: &http::Request<B>) -> Option<Unread> {
    let target = request.uri().path().len() + request.uri().query().map_or(0, str::len);
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    (target + headers > HEAD_BYTES).then(|| Unread(wide()))
}

/// The body of an answer.
pub(crate) struct Watched {
    body: Body,
    turns: Turns,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.turns.0.lock().turn = Turn::Answered;
    }
}

/// A stream with hyper's own answers held back.
pub(crate) struct Wire<'a, S> {
    stream: &'a mut S,
    turns: Turns,
}

impl<'a, S> Wire<'a, S> {
    pub(crate) fn new(stream: &'a mut S, turns: Turns) -> Wire<'a, S> {
        Wire { stream, turns }
    }

    /// Takes what hyper writes of its own.
    fn holds<'b>(&self, parts: impl Iterator<Item = &'b [u8]>) -> Option<usize> {
        let mut seen = self.turns.0.lock();
        if seen.turn != Turn::Quiet {
            return None;
        }
        let mut all = 0;
        for part in parts {
            let room = HELD_BYTES.saturating_sub(seen.held.len());
            seen.held.extend_from_slice(&part[..part.len().min(room)]);
            all += part.len();
        }
        Some(all)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.stream).poll_read(cx, buf);
        if let Some(first) = buf.filled().get(before) {
            let mut seen = self.turns.0.lock();
            seen.first.get_or_insert(*first);
            seen.heard |= seen.turn == Turn::Quiet;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.holds(std::iter::once(buf)) {
            Some(all) => Poll::Ready(Ok(all)),
            None => Pin::new(&mut *self.stream).poll_write(cx, buf),
        }
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.holds(bufs.iter().map(|b| &**b)) {
            Some(all) => Poll::Ready(Ok(all)),
            None => Pin::new(&mut *self.stream).poll_write_vectored(cx, bufs),
        }
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut *self.stream).poll_flush(cx);
        // hyper flushes only when its own buffer is empty.
        if let Poll::Ready(Ok(())) = flushed {
            let mut seen = self.turns.0.lock();
            if seen.turn == Turn::Answered {
                seen.turn = Turn::Quiet;
            }
        }
        flushed
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There is something to say yet.
        if !self.turns.0.lock().held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
