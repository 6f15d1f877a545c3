//! Where other members come in: one port, told apart by ALPN.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dqlite::LocalSocket;
use skiff_doorway::handoff::Handed;
use skiff_doorway::places::{Place, Places};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::dial::{GREETING_BYTES, Greeting, WELCOME, tune};
use super::guarded::Guarded;
use super::is_understood;
use super::ping::echo;
use super::roster::Roster;
use super::tls::{ALPN_PEER, ALPN_PING, Identity, is_member};

/// How long a stranger may take to become a member by handshake and greeting.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at the same time, of one source: members may be behind one address,
const HANDSHAKES_OF_SOURCE_MAX: usize = 32;
/// and of all: what strangers can cost. Whoever is new takes the place of who stalls.
const HANDSHAKES_MAX: usize = 64;
/// Connections that wait for the server of our own protocol.
pub const INCOMING_MAX: usize = 64;
/// Pause after a failed accept, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections come in.
pub enum Arrivals {
    /// At a port of its own.
    Own(TcpListener),
    /// From the agent, at the port between nodes.
    Handed(Handed),
}

impl Arrivals {
    async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Arrivals::Own(listener) => listener.accept().await,
            Arrivals::Handed(handed) => loop {
                let Some(stream) = handed.accept().await else {
                    return std::future::pending().await;
                };
                // One that has gone meanwhile comes from nowhere.
                if let Ok(from) = stream.peer_addr() {
                    return Ok((stream, from));
                }
            },
        }
    }
}

/// A connection that came in.
pub type PeerStream = Guarded<TlsStream<TcpStream>>;

/// Everything an incoming connection meets.
#[derive(Clone)]
pub struct Door {
    pub roster: Arc<Roster>,
    pub identity: Identity,
    /// Where the own node listens, once it runs.
    pub socket: watch::Receiver<Option<LocalSocket>>,
    /// To the server of our own protocol.
    pub incoming: mpsc::Sender<Result<PeerStream, io::Error>>,
}

/// Accepts for ever.
pub async fn accept(mut arrivals: Arrivals, door: Door) {
    let places = Places::new(HANDSHAKES_OF_SOURCE_MAX, HANDSHAKES_MAX);
    loop {
        let (stream, from) = match arrivals.next().await {
            Ok(arrived) => arrived,
            Err(error) => {
                warn!(%error, "can't accept members");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (door, place) = (door.clone(), places.take(from.ip().into()));
        tokio::spawn(door.receive(stream, from, place));
    }
}

enum Entered {
    Ping(Box<PeerStream>),
    Raft(Box<PeerStream>, UnixStream),
    Peer,
}

/// Why a connection did not come in.
enum Refusal {
    /// It was not good enough.
    Told(String),
    /// It went by itself: of several attempts one came in.
    Left(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionReset | TimedOut | UnexpectedEof => Refusal::Left(error),
            _ => Refusal::Told(error.to_string()),
        }
    }
}

impl Door {
    async fn receive(self, stream: TcpStream, from: SocketAddr, mut place: Place) {
        let entered = tokio::select! {
            entered = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.enter(stream)) => entered,
            () = place.lost() => return debug!(%from, "stalled before it said who it is"),
        };
        drop(place);
        match entered {
            Ok(Ok(Entered::Raft(remote, local))) => pump(remote, local).await,
            Ok(Ok(Entered::Ping(remote))) => echo(remote).await,
            Ok(Ok(Entered::Peer)) => {}
            Ok(Err(Refusal::Left(error))) => debug!(%from, %error, "a connection was left"),
            Ok(Err(Refusal::Told(reason))) => {
                warn!(%from, reason, "refused a connection of a member");
            }
            Err(_) => debug!(%from, "a connection did not say who it is"),
        }
    }

    async fn enter(&self, stream: TcpStream) -> Result<Entered, Refusal> {
        let told = |reason: &str| Refusal::Told(reason.to_owned());
        tune(&stream, self.roster.patience())?;
        let acceptor = TlsAcceptor::from(self.identity.now().server);
        let stream = acceptor.accept(stream).await?;
        let session = stream.get_ref().1;
        if !is_member(session.peer_certificates()) {
            return Err(told("the certificate is not a member's"));
        }
        let nodes = self.identity.nodes();
        let visitor = nodes.identify(session.peer_certificates());
        let visitor = visitor.ok_or_else(|| told("its node is no member of the cluster"))?;
        let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
        let mut stream = Guarded::new(stream, visitor, nodes);
        if protocol.as_deref() == Some(ALPN_PEER) {
            let sent = self.incoming.send(Ok(stream)).await;
            return sent.map(|()| Entered::Peer).map_err(|_| told("the server has ended"));
        }
        let mut bytes = [0; GREETING_BYTES];
        stream.read_exact(&mut bytes).await?;
        let refusal = self.check(&bytes).err();
        if refusal.is_none() && protocol.as_deref() == Some(ALPN_PING) {
            stream.write_u8(WELCOME).await?;
            stream.flush().await?;
            return Ok(Entered::Ping(Box::new(stream)));
        }
        let socket = self.socket.borrow().clone();
        let (None, Some(socket)) = (&refusal, socket) else {
            let _ = stream.write_u8(0).await;
            let _ = stream.shutdown().await;
            return Err(
                refusal.map_or_else(|| told("this member is still starting"), Refusal::Told)
            );
        };
        let local = socket.connect()?;
        local.set_nonblocking(true)?;
        let local = UnixStream::from_std(local)?;
        stream.write_u8(WELCOME).await?;
        stream.flush().await?;
        Ok(Entered::Raft(Box::new(stream), local))
    }

    fn check(&self, bytes: &[u8; GREETING_BYTES]) -> Result<(), String> {
        let greeting = Greeting::decode(bytes).ok_or("that is no greeting")?;
        if !is_understood(greeting.version) {
            return Err(format!("it speaks version {} of the protocol", greeting.version));
        }
        if self.roster.cluster_id() != Some(greeting.cluster_id) {
            return Err("it belongs to another cluster".to_owned());
        }
        if greeting.to != self.roster.own() {
            return Err(format!("it wants member {}, this is another", greeting.to));
        }
        if self.roster.is_removed(greeting.from) {
            return Err(format!("member {} was removed", greeting.from));
        }
        Ok(())
    }
}

async fn pump(mut remote: Box<PeerStream>, mut local: UnixStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut *remote, &mut local).await {
        debug!(%error, "stream of raft ended");
    }
}
