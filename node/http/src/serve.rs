//! The listener loop: connections with bounds on how many, how slow and, at the end, how long.
//!
//! Real sockets only: the simulator hands the router its own. On shutdown nothing new is accepted,
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
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::{envelope, guard};

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

struct Serving {
    router: Router,
    tls: Option<TlsAcceptor>,
    bounds: Connections,
    turns: Arc<Semaphore>,
}

/// Serves `router` on all `listeners` until `shutdown` is ready and requests under way are done.
pub async fn serve(
    listeners: Vec<TcpListener>,
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    bounds: Connections,
    shutdown: impl Future<Output = ()>,
) {
    let serving = Arc::new(Serving {
        router,
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

async fn accept(listener: TcpListener, serving: Arc<Serving>, mut stopping: watch::Receiver<bool>) {
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

async fn next(
    listener: &TcpListener,
    turns: &Arc<Semaphore>,
) -> (
    Option<OwnedSemaphorePermit>,
    std::io::Result<(TcpStream, SocketAddr)>,
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

async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    serving: Arc<Serving>,
    stopping: watch::Receiver<bool>,
    _turn: Option<OwnedSemaphorePermit>,
) {
    // Answers are small and complete: waiting to fill a packet only adds delay. A socket that
    // refuses is closed already, which the next read tells.
    let _ = stream.set_nodelay(true);
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

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    serving: &Serving,
    mut stopping: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
        if is_audited(&request) {
            request.extensions_mut().insert(Peer(peer));
        }
        let refused = guard::one_host(request.version(), request.headers()).err();
        let mut router = serving.router.clone();
        async move {
            if let Some(e) = refused {
                return Ok(envelope::error(&e));
            }
            let answer: Result<Response, Infallible> = router.call(request.map(Body::new)).await;
            answer
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(serving.bounds.header)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stop_is_wanted(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%peer, error = %e, "a connection broke off");
    }
}
