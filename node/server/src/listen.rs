//! The listeners: every address that a name resolves to is bound (D22).
//!
//! An address that this machine does not have (no IPv6) is a warning while another one is bound;
//! none at all, or one that somebody else holds, is an error: half a node would answer some clients
//! and leave others to a stranger. Port 0 takes one free port for all addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};
use unisondb_platform::Listener;

use crate::config::{Address, Host};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1_024;
/// Tries to find one port that is free on every address.
const PORT_TRIES: usize = 16;

/// Why nothing is listened to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The name has no address.
    #[error("{address}: the host has no address: {source}")]
    Resolve {
        /// As configured.
        address: Address,
        /// What the resolver said.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("{socket} (of {address}) is in use by another process; choose another --http-addr")]
    Busy {
        /// As configured.
        address: Address,
        /// The one of its addresses.
        socket: SocketAddr,
    },
    /// Not one address could be bound.
    #[error("{address}: cannot listen on {socket}: {source}")]
    Bind {
        /// As configured.
        address: Address,
        /// The one of its addresses.
        socket: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Binds every address that `address` stands for.
///
/// # Errors
/// [`ListenError`].
pub async fn bind(address: &Address) -> Result<Vec<TcpListener>, ListenError> {
    let sockets = resolve(address).await?;
    let mut busy = None;
    for _ in 0..PORT_TRIES {
        match bind_all(address, &sockets) {
            // The free port of the first address was taken on the second: another one, then.
            Err(ListenError::Busy { address, socket }) if address.port() == 0 => {
                busy = Some(ListenError::Busy { address, socket });
            }
            done => return done,
        }
    }
    Err(busy.expect("only a busy port leads to another try"))
}

/// Where a listener listens.
pub fn addresses<L: Listener>(listeners: &[L]) -> Vec<SocketAddr> {
    listeners
        .iter()
        .filter_map(|listener| listener.address().ok())
        .collect()
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, ListenError> {
    let port = address.port();
    let at = |ip: IpAddr| SocketAddr::new(ip, port);
    let mut sockets = match address.host() {
        Host::Any => vec![
            at(Ipv4Addr::UNSPECIFIED.into()),
            at(Ipv6Addr::UNSPECIFIED.into()),
        ],
        Host::Ip(ip) => vec![at(*ip)],
        Host::Name(name) => match tokio::net::lookup_host((name.as_str(), port)).await {
            Ok(found) => found.collect(),
            // RFC 6761: localhost is the loopback, also where no resolver knows it.
            Err(_) if name == "localhost" => {
                vec![
                    at(Ipv4Addr::LOCALHOST.into()),
                    at(Ipv6Addr::LOCALHOST.into()),
                ]
            }
            Err(source) => {
                return Err(ListenError::Resolve {
                    address: address.clone(),
                    source,
                });
            }
        },
    };
    sockets.sort();
    sockets.dedup();
    Ok(sockets)
}

fn bind_all(address: &Address, sockets: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let mut bound: Vec<TcpListener> = Vec::new();
    let mut missing = Vec::new();
    for &socket in sockets {
        let mut socket = socket;
        if socket.port() == 0
            && let Some(first) = bound.first().and_then(|b| b.local_addr().ok())
        {
            socket.set_port(first.port());
        }
        match bind_one(socket, sockets.len() > 1) {
            Ok(listener) => bound.push(listener),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                let address = address.clone();
                return Err(ListenError::Busy { address, socket });
            }
            Err(source) => missing.push((socket, source)),
        }
    }
    if bound.is_empty() {
        let (socket, source) = missing.into_iter().next().unwrap_or_else(|| {
            let none = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            (none, io::ErrorKind::AddrNotAvailable.into())
        });
        return Err(ListenError::Bind {
            address: address.clone(),
            socket,
            source,
        });
    }
    for (socket, error) in missing {
        tracing::warn!(%address, %socket, %error, "one address of the listener cannot be bound");
    }
    Ok(bound)
}

fn bind_one(socket: SocketAddr, one_of_several: bool) -> io::Result<TcpListener> {
    let listener = match socket {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A port in TIME_WAIT after a restart is ours; one that is listened to stays busy.
    listener.set_reuseaddr(true)?;
    if socket.is_ipv6() && one_of_several {
        // Its own listener takes IPv4: without this [::] would hold the IPv4 port too.
        rustix::net::sockopt::set_ipv6_v6only(&listener, true)?;
    }
    listener.bind(socket)?;
    listener.listen(BACKLOG)
}

/// Whether everybody who can reach this listener sits on this machine.
pub fn is_loopback<L: Listener>(listeners: &[L]) -> bool {
    addresses(listeners)
        .iter()
        .all(|socket| socket.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn localhost_is_the_loopback_on_one_port() {
        let listeners = bind(&address("localhost:0")).await.unwrap();
        assert!(is_loopback(&listeners));
        let bound = addresses(&listeners);
        assert!(bound.iter().any(SocketAddr::is_ipv4), "{bound:?}");
        assert!(
            bound.iter().all(|socket| socket.port() == bound[0].port()),
            "{bound:?}"
        );
    }

    #[tokio::test]
    async fn every_interface_is_bound_when_no_host_is_given() {
        for any in [":0", "0.0.0.0:0"] {
            let listeners = bind(&address(any)).await.unwrap();
            assert!(!is_loopback(&listeners), "{any}");
        }
    }

    #[tokio::test]
    async fn a_busy_address_is_an_error_even_if_another_is_free() {
        let held = bind(&address("127.0.0.1:0")).await.unwrap();
        let port = addresses(&held)[0].port();
        let error = bind(&address(&format!("localhost:{port}")))
            .await
            .unwrap_err();
        assert!(matches!(error, ListenError::Busy { .. }), "{error}");
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_an_error_alone() {
        // TEST-NET-1 (RFC 5737): nobody's.
        let error = bind(&address("192.0.2.1:0")).await.unwrap_err();
        assert!(matches!(error, ListenError::Bind { .. }), "{error}");
    }

    #[test]
    fn a_missing_address_beside_a_bound_one_is_only_a_warning() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let sockets = [
            "127.0.0.1:0".parse().unwrap(),
            "192.0.2.1:0".parse().unwrap(),
        ];
        let bound = bind_all(&address("localhost:0"), &sockets).unwrap();
        assert_eq!(bound.len(), 1);
    }
}
