//! [`Http`]: one client's connection to a node, or to one of several, with a deadline on everything: the simulated
//! network loses what is sent through a cut, for ever.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use turmoil::net::TcpStream;
use unisondb_platform::memory::Random;

use crate::trace::Answered;
use crate::world::{self, PORT};

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(8);

/// One connection, made anew when it breaks; of several nodes to the next one then.
pub struct Http {
    hosts: Vec<String>,
    /// Which of them it goes to.
    node: usize,
    /// How many connections there were.
    made: u64,
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
    /// To the first of so many nodes.
    pub fn new(nodes: u64) -> Http {
        Http {
            hosts: world::hosts(nodes),
            node: 0,
            made: 0,
            connection: None,
        }
    }

    /// Goes to any node from now on, where there are several.
    pub fn turn(&mut self, random: &mut Random) {
        if self.hosts.len() > 1 {
            let node = usize::try_from(random.below(self.hosts.len() as u64));
            self.turn_to(node.expect("an index"));
        }
    }

    fn turn_to(&mut self, node: usize) {
        if node != self.node {
            self.connection = None;
        }
        self.node = node;
    }

    /// The node that it goes to; the last answer came from there, if it has not turned since.
    pub fn node(&self) -> usize {
        self.node
    }

    /// Which connection it is that it has.
    pub fn connection(&self) -> u64 {
        self.made
    }

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
                self.turn_to((self.node + 1) % self.hosts.len());
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
        let host = self.hosts[self.node].as_str();
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            self.connection = None;
            self.made += 1;
            let stream = TcpStream::connect((host, PORT)).await.ok()?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(async move { drop(connection.await) });
            self.connection = Some(sender);
        }
        let sender = self.connection.as_mut()?;
        sender.ready().await.ok()?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{host}:{PORT}"));
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
