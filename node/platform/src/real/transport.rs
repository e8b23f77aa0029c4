//! The system's TCP sockets as a [`Listener`].

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::Listener;

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Answers are small and complete: waiting to fill a packet only adds delay. A socket that
        // refuses is closed already, which the next read tells.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
