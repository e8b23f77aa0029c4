//! From a request to its answer: the door, the route, the handler, the headers that all have.
//!
//! The path is read by the contract's own [`Route::parse`], from the raw bytes of the URI: a key
//! may be any bytes, which a router that decodes to UTF-8 first would refuse. axum carries the
//! result, bodies and connections.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, VARY,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unisondb_api::{ApiError, Miss, Place, Query, Route};
use unisondb_engine::Engine;
use unisondb_platform::Clock;
use unisondb_types::{Namespace, limits};

use crate::envelope::{self, Reply, X_LINEAGE, X_LSN, X_NODE, X_ROLE};
use crate::host::{Host, State as NamespaceState};
use crate::metrics::{Missed, Requests, UNROUTED};
use crate::tokens::Token;
use crate::wire::Unread;
use crate::{Peer, Settings, backup, guard, intake, kv, lob, node, outcome, path, position, pull};
use crate::{row, scan, tx};

/// How long a request waits for a namespace that is being recovered, and a read for an LSN.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits between two looks at a namespace that is being recovered.
const LOOK: Duration = Duration::from_millis(20);
/// So many make [`PATIENCE`].
const LOOKS: u32 = 250;
/// Backups and pulls that run side by side; more wait their turn. Each sits in a disk.
const HEAVY: usize = 16;

/// The service for a host: everything that a node or relayer answers.
pub fn router(host: Arc<dyn Host>, settings: Settings) -> Router {
    Router::new()
        .fallback(handle)
        .with_state(Arc::new(App::new(host, settings)))
}

/// What all requests share.
pub(crate) struct App {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) settings: Settings,
    pub(crate) requests: Requests,
    pub(crate) missed: Missed,
    pub(crate) heavy: Arc<Semaphore>,
    /// Bytes of bodies that may be read yet.
    bodies: Arc<Semaphore>,
    node: HeaderValue,
}

/// A request past the door.
pub(crate) struct Call<'a> {
    pub(crate) app: &'a Arc<App>,
    pub(crate) parts: &'a Parts,
    pub(crate) query: Query<'a>,
    /// `None`: no tokens are configured.
    pub(crate) who: Option<&'a Token>,
    /// Its body's share of what may be in memory, until it is answered.
    share: OnceLock<OwnedSemaphorePermit>,
}

/// A request in a namespace.
pub(crate) struct Inside<'a> {
    pub(crate) call: Call<'a>,
    pub(crate) namespace: Namespace,
    /// Found once, when it is first wanted; the answer's headers are about it.
    engine: OnceLock<Engine>,
}

/// What a namespace that is not there means.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Absent {
    /// 404.
    Refuse,
    /// It is made, where that is configured.
    Create,
}

impl App {
    fn new(host: Arc<dyn Host>, settings: Settings) -> App {
        let node = envelope::text(&host.about().node);
        App {
            host,
            settings,
            requests: Requests::default(),
            missed: Missed::default(),
            heavy: Arc::new(Semaphore::new(HEAVY)),
            bodies: Arc::new(Semaphore::new(limits::BODIES_BYTES)),
            node,
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.host.platform().clock.as_ref()
    }
}

async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let begun = app.clock().monotonic();
    let (parts, body) = request.into_parts();
    let (number, mut response) = match parts.extensions.get::<Unread>() {
        Some(Unread(e)) => (UNROUTED, envelope::error(e)),
        None => answer(&app, &parts, body).await,
    };
    let headers = response.headers_mut();
    headers.insert(X_NODE, app.node.clone());
    headers.insert(X_ROLE, HeaderValue::from_static(app.host.role()));
    if parts.method == Method::HEAD {
        response = envelope::head_only(response);
    }
    let took = app.clock().monotonic().saturating_sub(begun);
    app.requests.count(number, response.status(), took);
    response
}

async fn answer(app: &Arc<App>, parts: &Parts, body: Body) -> (usize, Response) {
    let origin = match guard::door(&app.settings, parts) {
        Ok(origin) => origin,
        Err(e) => return (UNROUTED, envelope::error(&e)),
    };
    let (number, mut response) = match Route::parse(&parts.method, parts.uri.path()) {
        Ok(route) => (route.number(), routed(app, parts, body, route).await),
        Err(Miss::Path) => (
            UNROUTED,
            envelope::error(&ApiError::not_found("no such route")),
        ),
        Err(Miss::Method(allow)) if origin.is_some() && parts.method == Method::OPTIONS => {
            (UNROUTED, preflight(allow))
        }
        Err(Miss::Method(allow)) => (UNROUTED, envelope::wrong_method(allow)),
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        let exposed = "ETag, X-Unison-Node, X-Unison-Role, X-Unison-Lsn, X-Unison-Lineage";
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(exposed),
        );
    }
    (number, response)
}

/// What a page of an allowed origin may send.
fn preflight(allow: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(allow),
    );
    let allowed = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Range";
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(allowed),
    );
    response
}

async fn routed(app: &Arc<App>, parts: &Parts, body: Body, route: Route<'_>) -> Response {
    let who = if guard::is_monitoring(route) && !app.settings.guard_monitoring {
        Ok(None)
    } else {
        guard::who(&app.settings, parts)
    };
    let who = match who {
        Ok(who) => who,
        Err(e) => return envelope::error(&e),
    };
    let call = Call {
        app,
        parts,
        query: Query::new(parts.uri.query()),
        who,
        share: OnceLock::new(),
    };
    let Route::In(raw, place) = route else {
        let reply = node::answer(&call, route, body).await;
        return reply.unwrap_or_else(|e| envelope::error(&e));
    };
    let namespace = match path::namespace(raw) {
        Ok(namespace) => namespace,
        Err(e) => return envelope::error(&e),
    };
    let inside = Inside {
        call,
        namespace,
        engine: OnceLock::new(),
    };
    let mut response = match within(&inside, place, body).await {
        Ok(response) => response,
        Err(e) => envelope::error(&e),
    };
    if let Some(engine) = inside.engine.get() {
        let headers = response.headers_mut();
        headers.insert(X_LSN, HeaderValue::from(engine.applied().get()));
        headers.insert(X_LINEAGE, envelope::lineage(engine.lineage()));
    }
    response
}

async fn within(at: &Inside<'_>, place: Place<'_>, body: Body) -> Reply {
    let method = &at.call.parts.method;
    let needed = guard::needed(place, method);
    guard::allow(at.call.who, needed, at.namespace.as_str())?;
    match place {
        Place::Kv(key) => match *method {
            Method::PUT => kv::put(at, key, body).await,
            Method::DELETE => kv::delete(at, key).await,
            _ if key.is_none() && at.call.query.bytes("key")?.is_none() => scan::page(at).await,
            _ => kv::get(at, key).await,
        },
        Place::KvBatch => kv::batch(at, body).await,
        Place::Row(key) => match *method {
            Method::PUT => row::put(at, key, body).await,
            // `/row/columns?key=`: the key that the path leaves out stands in the query.
            Method::DELETE if key == Some("columns") && at.call.query.bytes("key")?.is_some() => {
                row::delete_columns(at, None, body).await
            }
            Method::DELETE => row::delete(at, key).await,
            _ => row::get(at, key).await,
        },
        Place::RowColumns(key) => row::delete_columns(at, key, body).await,
        Place::RowBatch => row::batch(at, body).await,
        Place::Lob(key) => match *method {
            Method::DELETE => lob::delete(at, key).await,
            _ => lob::get(at, key).await,
        },
        Place::TxBegin => tx::begin(at, body).await,
        Place::Tx(id, step) => tx::step(at, id, step, body).await,
        Place::Offset => position::offset(at).await,
        Place::Stats => position::stats(at).await,
        Place::Checkpoint => position::checkpoint(at).await,
        Place::Digest => position::digest(at).await,
        // Rare and long: kept out of the future that every read allocates.
        Place::WalBackup => Box::pin(backup::wal(at, body)).await,
        Place::BtreeBackup => Box::pin(backup::btree(at, body)).await,
        Place::WalSeal => Box::pin(backup::seal(at)).await,
        Place::Segments => Box::pin(pull::segments(at)).await,
        Place::Segment(id) => Box::pin(pull::segment(at, id)).await,
        Place::BtreeSnapshot => Box::pin(pull::snapshot(at)).await,
    }
}

impl Call<'_> {
    /// Who asks, for the audit log.
    pub(crate) fn name(&self) -> String {
        match self.who {
            Some(token) => token.name.clone(),
            None => match self.parts.extensions.get::<Peer>() {
                Some(Peer(address)) => address.to_string(),
                None => "unknown".to_owned(),
            },
        }
    }

    /// The whole body.
    pub(crate) async fn body(&self, body: Body) -> Result<bytes::Bytes, ApiError> {
        let share = intake::room(&self.app.bodies, &self.parts.headers, &body)?;
        // Only this request fills its own cell.
        let _ = self.share.set(share);
        intake::body(self.app.clock(), body).await
    }
}

impl Inside<'_> {
    pub(crate) fn app(&self) -> &Arc<App> {
        self.call.app
    }

    /// The namespace, open. While it is being recovered this waits, but not for ever: then 503.
    pub(crate) async fn open(&self, absent: Absent) -> Result<&Engine, ApiError> {
        if self.engine.get().is_none() {
            let found = self.find(absent).await?;
            // Only this request fills its own cell.
            let _ = self.engine.set(found);
        }
        Ok(self.engine.get().expect("was filled just now"))
    }

    async fn find(&self, absent: Absent) -> Result<Engine, ApiError> {
        let (host, clock) = (&self.app().host, self.app().clock());
        let mut looks = 0;
        loop {
            let doing = match host.find(&self.namespace).map(|standing| standing.state) {
                Some(NamespaceState::Open { engine, .. }) => return Ok(engine),
                Some(NamespaceState::Failed { reason }) => {
                    return Err(ApiError::unavailable(format_args!(
                        "namespace {} is stopped: {reason}",
                        self.namespace
                    )));
                }
                Some(NamespaceState::Starting { doing }) => doing,
                None if absent == Absent::Create && host.auto_create() => {
                    return host.create(&self.namespace).await.map_err(outcome::host);
                }
                None => return Err(outcome::host(host.absent(&self.namespace).await)),
            };
            looks += 1;
            if looks > LOOKS {
                return Err(ApiError::unavailable(format_args!(
                    "namespace {} is starting: {doing}",
                    self.namespace
                )));
            }
            clock.sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every request allocates its future once, and moves it there.
    #[test]
    fn the_future_of_a_request_stays_small() {
        fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(handle);
        assert!(bytes <= 2_048, "{bytes} bytes");
    }
}
