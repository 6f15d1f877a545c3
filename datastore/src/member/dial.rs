//! Connections to other members: raft's streams for libdqlite, and channels
//! for our own protocol.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use dqlite::{Connector, MemberAddress, MemberId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::VERSION;
use super::guarded::Guarded;
use super::peers::member_of;
use super::roster::Roster;
use super::tls::{Identity, Protocol, member_name};
use super::wire::Target;

/// How long attempts to reach a member may take, in a good network.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// A second attempt begins beside one that takes so long: a link that heals
/// is noticed by a new attempt before the kernel repeats an old one.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a raft stream is tried before libdqlite is told that it failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const DIAL_PAUSE: Duration = Duration::from_millis(50);
/// What was sent and not acknowledged for so long shows a broken link, in a
/// good network: better a new connection than waiting for the kernel's ever
/// slower repetitions.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// What a raft stream begins with: who greets whom, in which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub version: u32,
    pub cluster_id: u64,
    pub from: MemberId,
    pub to: MemberId,
}

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"skrf";
/// The answer to a greeting that is welcome; anything else is a refusal.
pub const WELCOME: u8 = 1;

impl Greeting {
    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cluster_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.from.0.to_le_bytes());
        bytes[24..].copy_from_slice(&self.to.0.to_le_bytes());
        bytes
    }

    /// As it came over the wire; nothing when it is something else.
    pub fn decode(bytes: &[u8; GREETING_BYTES]) -> Option<Greeting> {
        let number = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        if bytes[..4] != MAGIC {
            return None;
        }
        Some(Greeting {
            version: u32::from_le_bytes(bytes[4..8].try_into().ok()?),
            cluster_id: number(8)?,
            from: MemberId(number(16)?),
            to: MemberId(number(24)?),
        })
    }
}

/// Gives libdqlite its streams.
///
/// The answer is one end of a socket pair, at once: a thread of libdqlite's
/// pool must never wait for a member that is gone. Behind the other end the
/// member is dialled and bytes are pumped; when that fails the pair is closed,
/// and libdqlite asks again.
pub struct RaftConnector {
    pub roster: Arc<Roster>,
    pub identity: Identity,
    /// Of the transport's own thread.
    pub runtime: Handle,
}

impl Connector for RaftConnector {
    fn connect(&self, address: &MemberAddress) -> io::Result<OwnedFd> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no member {address}"));
        let to = member_of(address).ok_or_else(unknown)?;
        if self.roster.is_removed(to) || self.roster.peer(to).is_none() {
            return Err(unknown());
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (roster, identity) = (self.roster.clone(), self.identity.clone());
        self.runtime.spawn(async move {
            if let Err(error) = carry(&roster, &identity, to, ours).await {
                debug!(member = %to, %error, "stream of raft ended");
            }
        });
        Ok(theirs.into())
    }
}

async fn carry(
    roster: &Roster,
    identity: &Identity,
    to: MemberId,
    local: std::os::unix::net::UnixStream,
) -> io::Result<()> {
    let mut local = UnixStream::from_std(local)?;
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let mut remote = loop {
        match greet(roster, identity, Protocol::Raft, to).await {
            Ok(remote) => break remote,
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(DIAL_PAUSE).await,
        }
    };
    tokio::io::copy_bidirectional(&mut local, &mut remote).await.map(drop)
}

/// A connection to another member.
pub type Dialled = Guarded<TlsStream<TcpStream>>;

/// A stream to a member that knows who this is and wants to talk.
pub async fn greet(
    roster: &Roster,
    identity: &Identity,
    protocol: Protocol,
    to: MemberId,
) -> io::Result<Dialled> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the member is not known any more");
    let peer = roster.peer(to).filter(|peer| !peer.removed).ok_or_else(unknown)?;
    let cluster_id = roster.cluster_id().ok_or_else(unknown)?;
    let target = Target { address: peer.address, node: peer.node };
    attempt(roster.patience(), || async {
        let mut stream = connect(&target, identity, protocol, roster.patience()).await?;
        let greeting = Greeting { version: VERSION, cluster_id, from: roster.own(), to };
        stream.write_all(&greeting.encode()).await?;
        stream.flush().await?;
        match stream.read_u8().await? {
            WELCOME => Ok(stream),
            _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the member refused")),
        }
    })
    .await
}

/// Does what connects, until the first attempt succeeds or fails; one that
/// takes long gets others beside it.
pub async fn attempt<T, F>(patience: Duration, connect: impl Fn() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut attempts = FuturesUnordered::new();
    let deadline = tokio::time::sleep(ATTEMPT_TIMEOUT + patience);
    tokio::pin!(deadline);
    loop {
        attempts.push(connect());
        tokio::select! {
            Some(result) = attempts.next() => return result,
            () = tokio::time::sleep(ATTEMPT_INTERVAL) => {}
            () = &mut deadline => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A TLS stream to whoever has shown the certificate of a member that may be a
/// peer, and of that node where it is known. A silence of `patience` longer than
/// in a good network does not break it.
pub async fn connect(
    target: &Target,
    identity: &Identity,
    protocol: Protocol,
    patience: Duration,
) -> io::Result<Dialled> {
    let name = member_name(&target.node)?;
    let stream = TcpStream::connect(&target.address).await?;
    tune(&stream, patience)?;
    let config = identity.now().client(protocol);
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let refused = || io::Error::new(io::ErrorKind::PermissionDenied, "its node is no member");
    let certificates = stream.get_ref().1.peer_certificates();
    let visitor = identity.nodes().identify(certificates).ok_or_else(refused)?;
    Ok(Guarded::new(stream, visitor, identity.nodes()))
}

/// No waiting for more to send, and no hanging on a link that is gone.
pub fn tune(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let fd = stream.as_fd();
    let silence = SILENCE_MAX + patience;
    setsockopt(&fd, sockopt::TcpUserTimeout, &(silence.as_millis() as u32))?;
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    setsockopt(&fd, sockopt::TcpKeepIdle, &1)?;
    setsockopt(&fd, sockopt::TcpKeepInterval, &1)?;
    setsockopt(&fd, sockopt::TcpKeepCount, &3)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn greetings_come_back_as_they_were(version: u32, cluster_id: u64, from: u64, to: u64) {
            let (from, to) = (MemberId(from), MemberId(to));
            let greeting = Greeting { version, cluster_id, from, to };
            prop_assert_eq!(Greeting::decode(&greeting.encode()), Some(greeting));
        }

        #[test]
        fn something_else_is_no_greeting(bytes: [u8; GREETING_BYTES]) {
            prop_assume!(bytes[..4] != MAGIC);
            prop_assert_eq!(Greeting::decode(&bytes), None);
        }
    }
}
