//! [`Listener`]: where connections come from. [`Dial`]: how they are made. Real: TCP sockets of the
//! system. Simulated: those of a network that is cut, slowed down and reordered as told.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// Accepts connections at one address.
pub trait Listener: Send + Sync + 'static {
    /// A connection: bytes both ways, in order, until either side or the network ends it.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and who is at its other end. Small answers are sent at once on it.
    ///
    /// # Errors
    /// As the operating system: of one connection that is gone already, or for want of descriptors.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Where it listens.
    ///
    /// # Errors
    /// As the operating system.
    fn address(&self) -> io::Result<SocketAddr>;
}

/// A connection that was made: bytes both ways, in order, until either side or the network ends it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A connection, some time later.
pub type Dialled<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Makes connections.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `address` (`host:port`). Small messages are sent at once on it. It may take as long
    /// as the network lets it: the caller has a deadline.
    fn dial<'a>(&'a self, address: &'a str) -> Dialled<'a>;
}
