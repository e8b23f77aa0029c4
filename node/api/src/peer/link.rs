//! [`Link`]: the way to one other node: one HTTP/2 connection, made when it is wanted and made again
//! when it broke.
//!
//! A question goes out once: whether one without an answer was heard is *unknown*, and the caller
//! decides. A connection on which nothing is heard any more is given up after two pings. Leaves to
//! others: how long an answer is waited for (the caller drops the future), TLS (it is [`Dial`]'s).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use unisondb_platform::{Clock, Dial};

use super::ask::{Asked, MESSAGE_BYTES, Told};
use super::{PATH, PeerError, envelope};

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a connection shows that it is alive, and how long it may fail to.
const PING: Duration = Duration::from_secs(1);
/// How long nobody is called again who could not be reached: many ask at once.
const REST: Duration = Duration::from_millis(100);
/// What may be on its way before it is acknowledged: a few of the longest messages.
const WINDOW_BYTES: u32 = 32 << 20;

/// The way to the node at one address. Cheap to clone; every clone is the same way.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    address: String,
    dial: Arc<dyn Dial>,
    clock: Arc<dyn Clock>,
    line: tokio::sync::Mutex<Line>,
}

enum Line {
    Down {
        /// Why it could not be made, and when that was tried last.
        tried: Option<(Duration, String)>,
    },
    Up(SendRequest<Full<Bytes>>),
}

impl Link {
    /// A way to `address` (`host:port`). Nothing is connected yet.
    pub fn new(address: String, dial: Arc<dyn Dial>, clock: Arc<dyn Clock>) -> Link {
        Link(Arc::new(Inner {
            address,
            dial,
            clock,
            line: tokio::sync::Mutex::new(Line::Down { tried: None }),
        }))
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// Asks, and gives what is told and what lies behind it.
    ///
    /// # Errors
    /// [`PeerError`]: says whether it may have been heard.
    pub async fn ask(&self, asked: &Asked, rest: &[u8]) -> Result<(Told, Bytes), PeerError> {
        let message = envelope::encode(asked, |out| out.extend_from_slice(rest));
        let mut sender = self.sender().await?;
        let lost = |why: String| PeerError::Lost(format!("{}: {why}", self.0.address));
        let request = Request::post(PATH)
            .header(http::header::HOST, &*self.0.address)
            .body(Full::new(message))
            .map_err(|e| PeerError::Unreachable(format!("{}: {e}", self.0.address)))?;
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|e| lost(told(&e)))?.into_parts();
        let body = Limited::new(body, MESSAGE_BYTES).collect().await;
        let body = body.map_err(|e| lost(e.to_string()))?.to_bytes();
        if head.status != StatusCode::OK {
            return Err(lost(format!("HTTP {}", head.status.as_u16())));
        }
        envelope::decode(body).map_err(|e| lost(e.to_string()))
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, PeerError> {
        let mut line = self.0.line.lock().await;
        let now = self.0.clock.monotonic();
        let unreachable = |why: &str| PeerError::Unreachable(format!("{}: {why}", self.0.address));
        match &*line {
            Line::Up(sender) if !sender.is_closed() => return Ok(sender.clone()),
            Line::Down {
                tried: Some((at, why)),
            } if now < *at + REST => return Err(unreachable(why)),
            _ => {}
        }
        // Whoever waits for the lock meanwhile shares what this comes to. Who gives up leaves it as
        // one that has not been tried.
        *line = Line::Down { tried: None };
        let made = tokio::select! {
            biased;
            made = self.connect() => made,
            () = self.0.clock.sleep(CONNECT) => Err("no connection in time".to_owned()),
        };
        match made {
            Ok(sender) => {
                *line = Line::Up(sender.clone());
                Ok(sender)
            }
            Err(why) => {
                let at = self.0.clock.monotonic();
                let error = unreachable(&why);
                *line = Line::Down {
                    tried: Some((at, why)),
                };
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = self.0.dial.dial(&self.0.address).await;
        let stream = stream.map_err(|e| e.to_string())?;
        let made = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = made.map_err(|e| told(&e))?;
        // It ends with the connection, and that with the last sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// hyper says only "http2 error"; what happened is its source.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
