//! [`Client`]: a small client for one node, for the command line and for tests.
//!
//! One connection, kept open and shared by clones: calls take turns on it. A request is sent
//! again only when it is certain that no byte of it went out. A write without an answer is
//! *unknown*: [`ClientError::Lost`] says so, and the caller decides (P3).
//!
//! Leaves to others: TLS (a URL with `https` is refused), retries, balancing.

mod calls;
mod connection;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use self::connection::Connection;
use crate::Route;

/// Talks to one node.
#[derive(Debug, Clone)]
pub struct Client {
    base: Arc<Base>,
    connection: Arc<tokio::sync::Mutex<Option<Connection>>>,
}

#[derive(Debug)]
struct Base {
    /// `host:port`, for connecting and for the `Host` header.
    authority: String,
    host: HeaderValue,
    token: Option<HeaderValue>,
}

/// Why there is no answer, or not the one wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL or token cannot be used.
    #[error("{0}")]
    Config(String),
    /// Nobody listens there, or the name is not known. Nothing was sent.
    #[error("cannot reach http://{authority}: {source}")]
    Unreachable {
        /// `host:port`.
        authority: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke before the whole answer was there: whether the request was carried
    /// out is unknown.
    #[error("http://{authority} gave no whole answer: {source}")]
    Lost {
        /// `host:port`.
        authority: String,
        /// What the connection said.
        source: hyper::Error,
    },
    /// The node said no.
    #[error("{error} (HTTP {})", status.as_u16())]
    Refused {
        /// The status.
        status: StatusCode,
        /// The field `error`, or the body's beginning when it is no JSON of ours.
        error: String,
        /// The whole body.
        body: serde_json::Value,
    },
    /// The node said yes, in words that are not of this contract.
    #[error("the answer is not what this version understands: {0}")]
    Unexpected(String),
}

/// Whole answer to a request.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Download {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    body: Incoming,
    authority: String,
}

impl Client {
    /// A client for `base` (`http://host:port`, or just `host:port`; the port is 8080 if left out).
    ///
    /// # Errors
    /// [`ClientError::Config`] when that is no such URL, or the token cannot stand in a header.
    pub fn new(base: &str, token: Option<&str>) -> Result<Client, ClientError> {
        let config = |why: String| ClientError::Config(why);
        if base.starts_with("https://") {
            return Err(config(format!(
                "{base}: this client does not speak TLS; use http://, on the node itself or through a tunnel"
            )));
        }
        let authority = base
            .strip_prefix("http://")
            .unwrap_or(base)
            .trim_end_matches('/');
        let parsed: http::uri::Authority = authority
            .parse()
            .map_err(|e| config(format!("{base:?} is not http://HOST:PORT: {e}")))?;
        let authority = format!("{}:{}", parsed.host(), parsed.port_u16().unwrap_or(8080));
        let host = HeaderValue::from_str(&authority)
            .map_err(|e| config(format!("{base:?} is not http://HOST:PORT: {e}")))?;
        let token = token
            .map(|t| HeaderValue::from_str(&format!("Bearer {t}")))
            .transpose()
            .map_err(|_| config("the token holds characters that a header cannot".into()))?
            .map(|mut t| {
                t.set_sensitive(true);
                t
            });
        Ok(Client {
            base: Arc::new(Base {
                authority,
                host,
                token,
            }),
            connection: Arc::default(),
        })
    }

    /// `host:port` of the node.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.base.authority
    }

    /// Sends any request and gives the whole answer, whatever its status. `query` goes behind the
    /// `?` as it is.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Lost`].
    pub async fn send(
        &self,
        method: Method,
        route: Route<'_>,
        query: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, ClientError> {
        let Download {
            status,
            headers,
            body,
            authority,
        } = self
            .open(method, route, query, headers, body.into())
            .await?;
        let body = body
            .collect()
            .await
            .map_err(|source| ClientError::Lost { authority, source })?
            .to_bytes();
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    /// Sends a GET and gives the answer as soon as its headers are there.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Lost`]; [`ClientError::Refused`] when the
    /// status is no success.
    pub async fn download(&self, route: Route<'_>, query: &str) -> Result<Download, ClientError> {
        // On a connection of its own: it is busy until the last byte is there.
        let alone = Client {
            base: Arc::clone(&self.base),
            connection: Arc::default(),
        };
        let answer = alone
            .open(Method::GET, route, query, &[], Bytes::new())
            .await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let Download {
            status,
            body,
            authority,
            ..
        } = answer;
        let body = body
            .collect()
            .await
            .map_err(|source| ClientError::Lost { authority, source })?
            .to_bytes();
        Err(refused(status, &body))
    }

    async fn open(
        &self,
        method: Method,
        route: Route<'_>,
        query: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Download, ClientError> {
        let mut target = route.to_string();
        if !query.is_empty() {
            target.push('?');
            target.push_str(query);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, self.base.host.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.base.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|e| ClientError::Config(format!("not a request: {e}")))?;
        let authority = self.base.authority.clone();
        let mut place = self.connection.lock().await;
        let answer = Connection::send(&mut place, &authority, request).await?;
        let (head, body) = answer.into_parts();
        Ok(Download {
            status: head.status,
            headers: head.headers,
            body,
            authority,
        })
    }

    /// Sends JSON (or nothing) and reads the answer as `T`.
    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        route: Route<'_>,
        query: &str,
        body: Option<&(impl serde::Serialize + ?Sized)>,
    ) -> Result<T, ClientError> {
        let body = body.map_or(Ok(Vec::new()), serde_json::to_vec);
        let body = body.map_err(|e| ClientError::Config(format!("not JSON: {e}")))?;
        let headers = [(CONTENT_TYPE.as_str(), "application/json")];
        self.send(method, route, query, &headers, body)
            .await?
            .json()
    }
}

impl Reply {
    /// The body of a success as `T`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for any other status, [`ClientError::Unexpected`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        if !self.status.is_success() {
            return Err(refused(self.status, &self.body));
        }
        serde_json::from_slice(&self.body).map_err(|e| ClientError::Unexpected(e.to_string()))
    }
}

impl Download {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError::Lost`]: what came so far is not the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| ClientError::Lost {
                authority: self.authority.clone(),
                source,
            })?;
            // Trailers are no data.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let error = match json.get("error").and_then(|e| e.as_str()) {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(body).chars().take(200).collect(),
    };
    ClientError::Refused {
        status,
        error,
        body: json,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_base_url_is_a_host_and_perhaps_a_port() {
        let at = |base: &str| Client::new(base, None).map(|c| c.authority().to_owned());
        assert_eq!(at("http://localhost:9999/").unwrap(), "localhost:9999");
        assert_eq!(at("localhost").unwrap(), "localhost:8080");
        assert_eq!(at("http://[::1]:80").unwrap(), "[::1]:80");
        for bad in [
            "https://localhost",
            "http://",
            "http://a b",
            "http://h:1/path",
            "ftp://x",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert!(Client::new("localhost", Some("a\nb")).is_err());
    }

    #[test]
    fn a_refusal_keeps_its_text_and_foreign_pages_are_shown() {
        let ours = refused(
            StatusCode::NOT_FOUND,
            b"{\"error\":\"namespace not found: x\"}\n",
        );
        assert_eq!(ours.to_string(), "namespace not found: x (HTTP 404)");
        let foreign = refused(StatusCode::BAD_GATEWAY, b"<html>502");
        assert_eq!(foreign.to_string(), "<html>502 (HTTP 502)");
    }
}
