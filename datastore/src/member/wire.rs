//! The streams between members, and who connects them: TLS over TCP in
//! production, memory in the simulation.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::server::Connected;

use super::dial::{attempt, connect};
use super::tls::{Identity, Protocol};

/// A connected stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream of another member that came in.
pub trait Incoming: Duplex + Connected<ConnectInfo: Clone + Sync> + 'static {}

impl<T: Duplex + Connected<ConnectInfo: Clone + Sync> + 'static> Incoming for T {}

/// What dialling gives.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send>>;

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: String,
    /// The node that must answer there; empty when that is not known.
    pub node: String,
}

/// Reaches other members.
pub trait Dial: Send + Sync + 'static {
    /// A stream to whoever listens at `target`, which waits so much longer
    /// than in a good network.
    fn dial(&self, target: Target, patience: Duration) -> Dialled;
}

/// Dials by TCP and shows this member's certificate.
pub struct TlsDial {
    pub identity: Identity,
}

impl Dial for TlsDial {
    fn dial(&self, target: Target, patience: Duration) -> Dialled {
        let identity = self.identity.clone();
        Box::pin(async move {
            let connect = || connect(&target, &identity, Protocol::Peer, patience);
            let stream = attempt(patience, connect).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}
