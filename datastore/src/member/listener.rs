//! Where other members come in: one port, told apart by ALPN.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dqlite::LocalSocket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::dial::{GREETING_BYTES, Greeting, WELCOME, tune};
use super::is_understood;
use super::ping::echo;
use super::roster::Roster;
use super::tls::{ALPN_PEER, ALPN_PING, Identity, is_member};

/// How long a stranger may take to become a member by handshake and greeting.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at the same time: what strangers can cost.
const HANDSHAKES_MAX: usize = 64;
/// Connections that wait for the server of our own protocol.
pub const INCOMING_MAX: usize = 64;
/// Pause after a failed accept, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection of our own protocol.
pub struct PeerStream(TlsStream<TcpStream>);

/// Everything an incoming connection meets.
#[derive(Clone)]
pub struct Door {
    pub roster: Arc<Roster>,
    pub identity: Identity,
    /// Where the own node listens, once it runs.
    pub socket: watch::Receiver<Option<LocalSocket>>,
    /// To the server of our own protocol.
    pub incoming: mpsc::Sender<Result<PeerStream, std::io::Error>>,
}

/// Accepts for ever.
pub async fn accept(listener: TcpListener, door: Door) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let permit = handshakes.clone().acquire_owned().await.expect("it is never closed");
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "can't accept members");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let door = door.clone();
        tokio::spawn(async move {
            let entered = tokio::time::timeout(HANDSHAKE_TIMEOUT, door.enter(stream)).await;
            drop(permit);
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
        });
    }
}

enum Entered {
    Ping(Box<TlsStream<TcpStream>>),
    Raft(Box<TlsStream<TcpStream>>, UnixStream),
    Peer,
}

/// Why a connection did not come in.
enum Refusal {
    /// It was not good enough.
    Told(String),
    /// It went by itself: of several attempts one came in.
    Left(std::io::Error),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionReset | TimedOut | UnexpectedEof => Refusal::Left(error),
            _ => Refusal::Told(error.to_string()),
        }
    }
}

impl Door {
    async fn enter(&self, stream: TcpStream) -> Result<Entered, Refusal> {
        let told = |reason: &str| Refusal::Told(reason.to_owned());
        tune(&stream, self.roster.patience())?;
        let acceptor = TlsAcceptor::from(self.identity.server.clone());
        let mut stream = acceptor.accept(stream).await?;
        let session = stream.get_ref().1;
        if !is_member(session.peer_certificates()) {
            return Err(told("the certificate is not a member's"));
        }
        let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
        if protocol.as_deref() == Some(ALPN_PEER) {
            let sent = self.incoming.send(Ok(PeerStream(stream))).await;
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

async fn pump(mut remote: Box<TlsStream<TcpStream>>, mut local: UnixStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut *remote, &mut local).await {
        debug!(%error, "stream of raft ended");
    }
}

impl Connected for PeerStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
