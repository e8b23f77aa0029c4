//! One connection with another node: HTTP/2, one path, one kind of body.
//!
//! Whatever arrives on it is answered; what is no question of this protocol in HTTP's own words. A
//! connection on which nothing is heard any more is given up after a ping. Leaves to others: what is
//! said in a body, and to whom it is for (`unisondb_api::peer`).

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use unisondb_api::Respond;
use unisondb_api::peer::PATH;
use unisondb_api::peer::ask::MESSAGE_BYTES;

/// How often a connection is asked whether it is alive, and how long it may take to say so.
const PING: Duration = Duration::from_secs(5);
/// Questions under way on one connection: those of every group, and what is written through here.
const STREAMS: u32 = 4_096;
/// How long a connection may be there before the first question on it, and how long the body of one may
/// take.
const READ: Duration = Duration::from_secs(10);
/// Bytes of questions that are read or answered at once, all connections together; more wait.
const BYTES: usize = 256 << 20;
/// What may be on its way before it is acknowledged.
const WINDOW_BYTES: u32 = 32 << 20;

/// Answers until the connection ends, or `stop` is ready and what is under way is answered.
pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    respond: &Arc<dyn Respond>,
    bytes: &Arc<Semaphore>,
    stop: impl Future<Output = ()>,
) {
    let (respond, bytes) = (Arc::clone(respond), Arc::clone(bytes));
    let (heard, mut hearing) = watch::channel(false);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (respond, bytes) = (Arc::clone(&respond), Arc::clone(&bytes));
        heard.send_replace(true);
        async move { Ok::<_, Infallible>(answer(request, respond.as_ref(), &bytes).await) }
    });
    let silent = async {
        let heard = hearing.wait_for(|heard| *heard);
        if tokio::time::timeout(READ, heard).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = silent => {
            tracing::debug!(%peer, "a connection on which nothing was asked");
            return;
        }
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection with another node broke off");
    }
}

/// Room for what all connections together hold in memory.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BYTES))
}

async fn answer(
    request: Request<Incoming>,
    respond: &dyn Respond,
    bytes: &Semaphore,
) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return only(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::POST {
        return only(StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = request.into_body();
    // Who does not say how much it is may take as much as is allowed.
    let most = body.size_hint().exact().unwrap_or(MESSAGE_BYTES as u64);
    if most > MESSAGE_BYTES as u64 {
        return only(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let share = bytes
        .acquire_many(u32::try_from(most).unwrap_or(u32::MAX))
        .await;
    let _share = share.expect("the semaphore is never closed");
    let body = Limited::new(body, MESSAGE_BYTES).collect();
    match tokio::time::timeout(READ, body).await {
        Ok(Ok(body)) => Response::new(Full::new(respond.respond(body.to_bytes()).await)),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            only(StatusCode::PAYLOAD_TOO_LARGE)
        }
        Ok(Err(_)) => only(StatusCode::BAD_REQUEST),
        Err(_) => only(StatusCode::REQUEST_TIMEOUT),
    }
}

fn only(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
