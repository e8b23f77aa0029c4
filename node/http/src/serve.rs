//! The listener loop: connections with bounds on how many, how slow and, at the end, how long.
//!
//! On shutdown nothing new is accepted,
//! requests under way are finished within [`Connections::drain`], and idle connections are closed.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use unisondb_api::Respond;
use unisondb_platform::Listener;

use crate::guard;
use crate::peers;
use crate::wire::{self, Turns, Unread, Wire};

/// How long the last word on a connection may take.
const TELLING: Duration = Duration::from_secs(2);
/// How much is read and thrown away behind it.
const TELLING_BYTES: u64 = 16 << 20;

/// How long nothing more is said of connections that cannot be accepted.
const QUIET: Duration = Duration::from_secs(10);

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Most at once; more wait in the system's queue.
    pub max: usize,
    /// How long a client may take for the head of a request, the wait for a next one included.
    pub header: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long requests under way may take once the node shuts down.
    pub drain: Duration,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            max: 10_000,
            header: Duration::from_secs(75),
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// From where a request came; in the extensions of requests that the audit log tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What is spoken on a connection.
enum Speech {
    /// HTTP/1.1, with clients.
    Clients(Router),
    /// HTTP/2, with other nodes.
    Peers(Arc<dyn Respond>, Arc<Semaphore>),
}

struct Serving {
    speech: Speech,
    tls: Option<TlsAcceptor>,
    bounds: Connections,
    turns: Arc<Semaphore>,
}

/// Serves `router` on all `listeners` until `shutdown` is ready and requests under way are done.
pub async fn serve<L: Listener>(
    listeners: Vec<L>,
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    bounds: Connections,
    shutdown: impl Future<Output = ()>,
) {
    listen(listeners, Speech::Clients(router), tls, bounds, shutdown).await;
}

/// The same for the listeners that other nodes talk to: what they ask is answered by `respond`.
pub async fn serve_peers<L: Listener>(
    listeners: Vec<L>,
    respond: Arc<dyn Respond>,
    tls: Option<Arc<rustls::ServerConfig>>,
    bounds: Connections,
    shutdown: impl Future<Output = ()>,
) {
    listen(
        listeners,
        Speech::Peers(respond, peers::room()),
        tls,
        bounds,
        shutdown,
    )
    .await;
}

async fn listen<L: Listener>(
    listeners: Vec<L>,
    speech: Speech,
    tls: Option<Arc<rustls::ServerConfig>>,
    bounds: Connections,
    shutdown: impl Future<Output = ()>,
) {
    let serving = Arc::new(Serving {
        speech,
        tls: tls.map(TlsAcceptor::from),
        bounds,
        turns: Arc::new(Semaphore::new(bounds.max.clamp(1, Semaphore::MAX_PERMITS))),
    });
    let (stop, stopping) = watch::channel(false);
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, Arc::clone(&serving), stopping.clone()));
    }
    shutdown.await;
    // The loops hold receivers for as long as they run.
    let _ = stop.send(true);
    while loops.join_next().await.is_some() {}
}

async fn accept<L: Listener>(
    listener: L,
    serving: Arc<Serving>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    // Running while nothing more is said of connections that cannot be accepted.
    let mut quiet = tokio::time::interval(QUIET);
    let mut said = false;
    loop {
        tokio::select! {
            biased;
            () = stop_is_wanted(&mut stopping) => break,
            Some(_) = open.join_next(), if !open.is_empty() => {}
            _ = quiet.tick(), if said => said = false,
            (turn, accepted) = next(&listener, &serving.turns) => match accepted {
                Ok((stream, peer)) => {
                    open.spawn(greet(stream, peer, Arc::clone(&serving), stopping.clone(), turn));
                }
                Err(e) if is_of_one_connection(&e) => {}
                Err(e) => {
                    // Too many open files, mostly: it passes when some connection ends.
                    if !said {
                        said = true;
                        quiet.reset();
                        tracing::warn!(error = %e, "no connection could be accepted; trying again");
                    }
                    let pause = Duration::from_millis(100);
                    let _ = tokio::time::timeout(pause, stop_is_wanted(&mut stopping)).await;
                }
            },
        }
    }
    drop(listener);
    let finished = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(serving.bounds.drain, finished)
        .await
        .is_err()
    {
        tracing::warn!("requests that took too long were cut off by the shutdown");
    }
}

/// Ready when the node shuts down, or whoever could say so is gone.
async fn stop_is_wanted(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn next<L: Listener>(
    listener: &L,
    turns: &Arc<Semaphore>,
) -> (
    Option<OwnedSemaphorePermit>,
    std::io::Result<(L::Stream, SocketAddr)>,
) {
    let turn = Arc::clone(turns).acquire_owned().await.ok();
    (turn, listener.accept().await)
}

fn is_of_one_connection(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        e.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

async fn greet<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    serving: Arc<Serving>,
    stopping: watch::Receiver<bool>,
    _turn: Option<OwnedSemaphorePermit>,
) {
    let Some(tls) = &serving.tls else {
        return talk(stream, peer, &serving, stopping).await;
    };
    match tokio::time::timeout(serving.bounds.handshake, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(stream, peer, &serving, stopping).await,
        Ok(Err(e)) => tracing::debug!(%peer, error = %e, "no TLS with this client"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

/// Whether the audit log may tell of it: what changes something, and pulls of whole backups. Other
/// reads are spared the allocation.
fn is_audited(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    request.method() == Method::POST
        || path.ends_with("/btree/snapshot")
        || path.contains("/wal/segments/")
}

async fn talk<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    serving: &Serving,
    mut stopping: watch::Receiver<bool>,
) {
    match &serving.speech {
        Speech::Clients(router) => {
            talk_with_client(stream, peer, router, serving.bounds, stopping).await;
        }
        Speech::Peers(respond, bytes) => {
            peers::talk(stream, peer, respond, bytes, stop_is_wanted(&mut stopping)).await;
        }
    }
}

async fn talk_with_client<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: SocketAddr,
    router: &Router,
    bounds: Connections,
    mut stopping: watch::Receiver<bool>,
) {
    let turns = Turns::default();
    let ended = {
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
            turns.asked();
            if is_audited(&request) {
                request.extensions_mut().insert(Peer(peer));
            }
            let unread = wire::too_wide(&request).or_else(|| {
                let hosts = guard::one_host(request.version(), request.headers());
                hosts.err().map(Unread)
            });
            let refused = unread.is_some();
            if let Some(unread) = unread {
                request.extensions_mut().insert(unread);
            }
            let mut router = router.clone();
            let turns = &turns;
            async move {
                let answer: Result<Response, Infallible> =
                    router.call(request.map(Body::new)).await;
                answer.map(|mut answer| {
                    if refused {
                        let close = HeaderValue::from_static("close");
                        answer.headers_mut().insert(CONNECTION, close);
                    }
                    answer.map(|body| turns.watch(body))
                })
            }
        });
        let wire = Wire::new(&mut stream, turns.clone());
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.header)
                .max_buf_size(wire::HEAD_BYTES)
                .max_headers(wire::HEADERS)
                .serve_connection(TokioIo::new(wire), service)
        );
        tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = stop_is_wanted(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let Err(e) = ended else {
        return;
    };
    tracing::debug!(%peer, error = %e, "a connection broke off");
    if let Some(unread) = turns.unread(&e, bounds.header.as_secs()) {
        let told = tell(&mut stream, router, Unread(unread));
        // A client that goes away, or takes nothing, hears nothing.
        let _ = tokio::time::timeout(TELLING, told).await;
    }
}

/// Answers what was no request, as the last thing on its connection.
async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    router: &Router,
    unread: Unread,
) -> std::io::Result<()> {
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(unread);
    let answer: Result<Response, Infallible> = router.clone().call(request).await;
    let Ok(answer) = answer;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let body = body.to_bytes();
    let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let last = format!(
        "content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    bytes.extend_from_slice(last.as_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    stream.shutdown().await?;
    // What the client still sends is read and thrown away: closed over it, the connection would be
    // reset, and the answer lost.
    let mut rest = stream.take(TELLING_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}
