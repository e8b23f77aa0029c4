//! One connection: made when it is wanted, kept while the node keeps it.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::ClientError;

/// How often a connection that turned out to be closed is replaced by a new one.
const ATTEMPTS: usize = 3;

#[derive(Debug)]
pub(super) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    async fn open(authority: &str) -> Result<Connection, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            authority: authority.to_owned(),
            source,
        };
        let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream))
                .await
                .map_err(|source| ClientError::Lost {
                    authority: authority.to_owned(),
                    source,
                })?;
        // Ends by itself when the sender is dropped; its error reaches the request that met it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection(sender))
    }

    /// Sends `request` on the connection in `place`, or on a new one that is then left there.
    pub(super) async fn send(
        place: &mut Option<Connection>,
        authority: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut connection = match place.take() {
                Some(kept) => kept,
                None => Connection::open(authority).await?,
            };
            if attempt < ATTEMPTS && connection.0.ready().await.is_err() {
                continue;
            }
            match connection.0.try_send_request(request).await {
                Ok(response) => {
                    *place = Some(connection);
                    return Ok(response);
                }
                Err(mut e) => match e.take_message() {
                    // It comes back only if no byte of it was sent: safe for a write too.
                    Some(unsent) if attempt < ATTEMPTS => request = unsent,
                    _ => {
                        return Err(ClientError::Lost {
                            authority: authority.to_owned(),
                            source: e.into_error(),
                        });
                    }
                },
            }
        }
    }
}
