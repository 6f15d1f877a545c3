//! The streams between members, and who connects them: TLS over TCP in
//! production, memory in the simulation.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::server::Connected;

use super::dial::{attempt, connect};

/// A connected stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A stream of another member that came in.
pub trait Incoming: Duplex + Connected<ConnectInfo: Clone + Sync> + 'static {}

impl<T: Duplex + Connected<ConnectInfo: Clone + Sync> + 'static> Incoming for T {}

/// What dialling gives.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send>>;

/// Reaches other members.
pub trait Dial: Send + Sync + 'static {
    /// A stream to whoever listens at `address`, which waits so much longer
    /// than in a good network.
    fn dial(&self, address: String, patience: Duration) -> Dialled;
}

/// Dials by TCP and shows this member's certificate.
pub struct TlsDial {
    pub config: Arc<ClientConfig>,
}

impl Dial for TlsDial {
    fn dial(&self, address: String, patience: Duration) -> Dialled {
        let config = self.config.clone();
        Box::pin(async move {
            let stream = attempt(patience, || connect(&address, config.clone(), patience)).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}
