//! The simulated network's sockets as the product's [`Listener`] and [`Dial`].

use std::io;
use std::net::SocketAddr;

use turmoil::net::{TcpListener, TcpStream};
use unisondb_platform::{Dial, Dialled, Listener, Stream};

/// Accepts simulated connections.
pub struct SimListener(TcpListener);

impl SimListener {
    /// Listens on every address of the host that calls it.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(port: u16) -> io::Result<SimListener> {
        Ok(SimListener(TcpListener::bind(("0.0.0.0", port)).await?))
    }
}

impl Listener for SimListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Makes simulated connections.
pub struct SimDial;

impl Dial for SimDial {
    fn dial<'a>(&'a self, address: &'a str) -> Dialled<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
