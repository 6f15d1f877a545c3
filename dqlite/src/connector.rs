//! How the socket of another member is had: the seam for transports.

use std::collections::HashMap;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use crate::identity::MemberAddress;

/// How long a connection attempt over TCP may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Resolves a member's address and connects.
///
/// Called on libdqlite's threads for the raft transport and on blocking threads for clients, so it
/// may block. The descriptor is a connected stream: TCP with NODELAY set, a unix socket, or one end of
/// a socket pair whose other end is pumped through TLS. libdqlite itself never sets NODELAY, and
/// replication without it waits 40 ms for each delayed acknowledgement.
pub trait Connector: Send + Sync {
    /// Connects to the member, or says why not.
    fn connect(&self, address: &MemberAddress) -> io::Result<OwnedFd>;
}

/// Member addresses are host:port; plain TCP without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: &MemberAddress) -> io::Result<OwnedFd> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no address: {address}"));
        for candidate in address.as_str().to_socket_addrs()? {
            match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream.into());
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

/// Members are nodes of this very process: their addresses stand for abstract unix sockets.
#[derive(Debug, Clone, Default)]
pub struct LocalConnector {
    sockets: HashMap<MemberAddress, LocalSocket>,
}

impl LocalConnector {
    /// Knows nobody.
    pub fn new() -> LocalConnector {
        LocalConnector::default()
    }

    /// Adds a member and where its node listens.
    pub fn with(mut self, address: MemberAddress, socket: LocalSocket) -> LocalConnector {
        self.sockets.insert(address, socket);
        self
    }
}

impl Connector for LocalConnector {
    fn connect(&self, address: &MemberAddress) -> io::Result<OwnedFd> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no member {address}"));
        self.sockets.get(address).ok_or_else(unknown)?.connect().map(OwnedFd::from)
    }
}

/// A node without other members has nobody to connect to.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoConnector;

impl Connector for NoConnector {
    fn connect(&self, address: &MemberAddress) -> io::Result<OwnedFd> {
        let text = format!("this node was started without a connector, can't reach {address}");
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }
}

/// The abstract unix socket of a node: reachable from its own process only, which libdqlite checks
/// by the peer's pid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSocket {
    name: Vec<u8>,
}

impl LocalSocket {
    /// From libdqlite's notation, "@" and the name; `None` for anything else.
    pub fn parse(bound: &[u8]) -> Option<LocalSocket> {
        let name = bound.strip_prefix(b"@")?;
        (!name.is_empty()).then(|| LocalSocket { name: name.to_vec() })
    }

    /// Connects; the socket is blocking.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&self.name)?)
    }
}

impl std::fmt::Display for LocalSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "@{}", String::from_utf8_lossy(&self.name))
    }
}
