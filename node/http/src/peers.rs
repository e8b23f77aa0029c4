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
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use unisondb_api::Respond;
use unisondb_api::peer::PATH;
use unisondb_api::peer::ask::MESSAGE_BYTES;

/// How often a connection is asked whether it is alive, and how long it may take to say so.
const PING: Duration = Duration::from_secs(5);
/// Questions under way on one connection: those of every group, and what is written through here.
const STREAMS: u32 = 10_000;
/// What may be on its way before it is acknowledged.
const WINDOW_BYTES: u32 = 32 << 20;

/// Answers until the connection ends, or `stop` is ready and what is under way is answered.
pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    respond: &Arc<dyn Respond>,
    stop: impl Future<Output = ()>,
) {
    let respond = Arc::clone(respond);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let respond = Arc::clone(&respond);
        async move { Ok::<_, Infallible>(answer(request, respond.as_ref()).await) }
    });
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
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection with another node broke off");
    }
}

async fn answer(request: Request<Incoming>, respond: &dyn Respond) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return only(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::POST {
        return only(StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = Limited::new(request.into_body(), MESSAGE_BYTES);
    match body.collect().await {
        Ok(body) => Response::new(Full::new(respond.respond(body.to_bytes()).await)),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => only(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => only(StatusCode::BAD_REQUEST),
    }
}

fn only(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
