//! [`Http`]: one client's connection to the node, with a deadline on everything: the simulated
//! network loses what is sent through a cut, for ever.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use turmoil::net::TcpStream;

use crate::trace::Answered;
use crate::world::{NODE, PORT};

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(8);

/// One connection, made anew when it breaks.
#[derive(Default)]
pub struct Http {
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// An answer that came whole.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Nothing was sent.
    Unreachable,
    /// It may have been carried out.
    Unknown,
}

impl Http {
    /// Sends a request and waits for the whole answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Lost> {
        let mut sent = false;
        let exchange = tokio::time::timeout(
            DEADLINE,
            self.exchange(method, path, headers, body, &mut sent),
        )
        .await;
        match exchange {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) | Err(_) => {
                self.connection = None;
                Err(if sent {
                    Lost::Unknown
                } else {
                    Lost::Unreachable
                })
            }
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        sent: &mut bool,
    ) -> Option<Reply> {
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            self.connection = None;
            let stream = TcpStream::connect((NODE, PORT)).await.ok()?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(async move { drop(connection.await) });
            self.connection = Some(sender);
        }
        let sender = self.connection.as_mut()?;
        sender.ready().await.ok()?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{NODE}:{PORT}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("the parts are sound");
        *sent = true;
        let response = sender.send_request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}

/// What a client knows of a write by its answer.
pub fn answered(outcome: &Result<Reply, Lost>) -> Answered {
    match outcome {
        Ok(reply) if reply.status == 200 => Answered::Acknowledged {
            lsn: reply.json()["lsn"].as_u64(),
        },
        Ok(reply) if matches!(reply.status, 500 | 504) => Answered::Unknown,
        Ok(reply) => Answered::Refused {
            status: reply.status,
        },
        Err(Lost::Unreachable) => Answered::Unreachable,
        Err(Lost::Unknown) => Answered::Unknown,
    }
}
