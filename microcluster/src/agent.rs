//! What runs in the agent's process: the door with its relay, and the balancer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::balancer::{Backend, BackendsError, Balancer, Checker, Timing, backends};
use crate::door::{Door, DoorError};
use crate::relay::Relay;
use crate::tls::{Identity, IdentityFiles, TlsError};
use skiff_doorway::handoff::{Courier, Handoff};

/// Face the network for a node: the port between nodes, and this node's way to the API
///
/// It needs no privilege, and keeps nothing but a certificate that lives for a day.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Listen for other nodes here
    ///
    /// A node without a control plane goes without. Can be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<SocketAddr>,

    /// Show this certificate
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,

    /// The key of --certificate, which may be in the same file
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,

    /// Believe certificates that these authorities have signed
    #[arg(long, value_name = "FILE")]
    pub authority: PathBuf,

    /// Let these former authorities' nodes in to ask for another certificate
    ///
    /// The file need not be there.
    #[arg(long, value_name = "FILE")]
    pub former: Option<PathBuf>,

    /// Pass requests on to this socket of skiffd, which serves nothing else
    #[arg(long, value_name = "SOCKET")]
    pub skiffd: PathBuf,

    /// Hand connections over to the datastore at this socket
    #[arg(long, value_name = "SOCKET")]
    pub datastore: PathBuf,

    /// Listen for this node's own clients of the API here
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6444")]
    pub balancer_listen: SocketAddr,

    /// Find the API servers in this file, at each of its changes
    #[arg(long, value_name = "FILE")]
    pub backends: PathBuf,
}

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Backends(#[from] BackendsError),
    #[error("--balancer-listen {0} is no loopback address, and whoever connects is passed on")]
    NotLoopback(SocketAddr),
    #[error("can't listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Everything bound and read, ready to run.
pub struct Agent {
    door: Door,
    courier: Courier,
    balancer: Balancer,
    backends: PathBuf,
    list: watch::Sender<Vec<Backend>>,
    api_address: SocketAddr,
}

impl Agent {
    /// Reads the identity and opens the ports.
    pub async fn bind(options: Options) -> Result<Agent, AgentError> {
        let Options { certificate, key, authority, former, .. } = options;
        let identity = Identity::load(IdentityFiles { certificate, key, authority, former })?;
        let identity = Arc::new(identity);
        // A damaged list is told now, when somebody looks.
        let known = backends::load(&options.backends)?;
        let address = options.balancer_listen;
        if !address.ip().to_canonical().is_loopback() {
            return Err(AgentError::NotLoopback(address));
        }
        let failed = |source| AgentError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let api_address = listener.local_addr().map_err(failed)?;
        let balancer = Balancer::new(listener, Checker::new(identity.clone(), Timing::default()));
        let (handoff, courier) = Handoff::new(options.datastore);
        let relay = Arc::new(Relay::new(identity, options.skiffd));
        let door = Door::bind(&options.listen, handoff, relay).await?;
        let (list, _) = watch::channel(known);
        Ok(Agent { door, courier, balancer, backends: options.backends, list, api_address })
    }

    /// Where other nodes come in.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.door.addresses()
    }

    /// Where this node's own clients come in.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Runs until `stop`; everything ends with it.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Agent { door, courier, balancer, backends: path, list, .. } = self;
        let listen = door.addresses();
        info!(?listen, api = %self.api_address, "the agent is ready");
        let list_of_balancer = list.subscribe();
        let work = async {
            tokio::join!(
                door.run(),
                courier.run(),
                balancer.run(list_of_balancer),
                backends::follow(&path, &list),
            )
        };
        tokio::select! {
            () = stop => {}
            _ = work => {}
        }
    }
}
