//! From a directory and options to a node that runs and reaches the others.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dqlite::{MemberId, Node, NodeError, SnapshotParams};
use skiff_doorway::handoff::Handed;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::channel::Channels;
use super::dial::RaftConnector;
use super::gossip::HealthTable;
use super::join::{JoinError, join};
use super::listener::{Arrivals, Door, INCOMING_MAX, PeerStream, accept};
use super::nodes::{Nodes, NodesError};
use super::peers::{Peer, raft_address};
use super::ping::Ping;
use super::renewal::{self, DiscardError, RENEWALS_MAX, renew};
use super::roster::{Roster, RosterError, Stage};
use super::run::Links;
use super::tls::{self, TlsError};
use super::transport::Transport;
use crate::database::Databases;
use crate::engine::Engine;
use crate::listen::Listen;
use crate::options::Options;
use crate::shared::{Damage, Integrity};
use crate::store::disk;

/// The agent's group may hand connections over.
const HANDOFF_MODE: u32 = 0o660;

/// Why a member could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("can't use the identity of members")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Nodes(#[from] NodesError),
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error("can't join")]
    Join(#[from] JoinError),
    #[error("{address:?} is no address that others can reach: {reason}")]
    Address { address: String, reason: String },
    #[error("can't listen for members on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("can't start the members' transport")]
    Transport(#[source] io::Error),
    #[error(
        "{dir} holds the datastore of a first member: start it without --join, \
         or empty the directory"
    )]
    Occupied { dir: PathBuf },
    #[error("another datastore runs on {dir}")]
    InUse { dir: PathBuf },
    #[error("dqlite can't start from its files in {dir}")]
    Start {
        dir: PathBuf,
        #[source]
        source: NodeError,
    },
    #[error(
        "this member was removed from its cluster; empty {dir} and join again to be a new member"
    )]
    Removed { dir: PathBuf },
    #[error(
        "the datastore was recovered without this member, which all others refuse; what it holds \
         stays in {dir}: move that away and join again as a new member, by the same command with \
         --join {address}"
    )]
    Disowned { dir: PathBuf, address: String },
    #[error(
        "the data in {dir} is damaged, and there are no other members to copy it from; keep a \
         copy and restore a backup: skiff datastore restore FILE --dir {dir} --replace"
    )]
    Sole {
        dir: PathBuf,
        #[source]
        source: Box<MemberError>,
    },
    #[error(
        "the data in {dir} is damaged, and no other member leads that it could be copied from; \
         see that most voters run, or bring the datastore back from the best of the others: \
         skiff datastore recover"
    )]
    Leaderless {
        dir: PathBuf,
        #[source]
        source: Box<MemberError>,
    },
    #[error(
        "the data in {dir} was found damaged {} times in one run, copied from other members each \
         time: look at the disk and the memory of this machine", RENEWALS_MAX + 1
    )]
    Again {
        dir: PathBuf,
        #[source]
        source: Box<MemberError>,
    },
    #[error("{}", match .0 {
        Damage::Files => "dqlite can't start from its files",
        Damage::Database => "its database holds what makes no sense",
        Damage::Differs => "it holds something else than most other members",
    })]
    Damaged(Damage),
    #[error(transparent)]
    Discard(DiscardError),
}

impl MemberError {
    /// Whether this member's data is damaged, so that starting again won't help.
    fn is_damage(&self) -> bool {
        matches!(self, MemberError::Start { source, .. } if source.is_damage())
    }
}

/// The same as [`open`], and begins anew when what is there is damaged.
pub async fn open_or_renew(
    options: &Options,
    engines: &Databases<Engine>,
) -> Result<Links<PeerStream>, MemberError> {
    for _ in 0..RENEWALS_MAX {
        match open(options).await {
            Err(error) if error.is_damage() => {
                let shared = || engines.iter().map(Engine::shared);
                shared().for_each(|one| one.set_integrity(Integrity::Damaged(Damage::Files)));
                renew(options, error).await?;
                shared().for_each(|one| one.begin_anew());
            }
            result => return result,
        }
    }
    open(options).await.map_err(|error| match error.is_damage() {
        true => MemberError::Again { dir: options.dir.clone(), source: Box::new(error) },
        false => error,
    })
}

/// Joins if need be and starts the node.
pub async fn open(options: &Options) -> Result<Links<PeerStream>, MemberError> {
    let dir = &options.dir;
    let roster = Arc::new(open_roster(dir, &options.join)?);
    renewal::discard(dir, &roster)?;
    let (nodes, follower) = Nodes::open(options.peer_nodes.as_deref())?;
    let identity = tls::Identity::load(options.pki.as_deref().unwrap_or(dir), nodes.clone())?;
    let transport = Transport::start().map_err(MemberError::Transport)?;
    transport.handle().spawn(follower.run());
    let arrivals = bind(&transport, options).await?;
    roster.state(own_line(options, &arrivals)?)?;
    let channels = Arc::new(Channels::new(roster.clone(), &identity));
    let ping = Ping { roster: roster.clone(), identity: identity.clone() };
    if roster.cluster_id().is_none() {
        join(&roster, &channels, &ping, &options.join).await?;
    } else if roster.renewal().is_some_and(|renewal| renewal.stage == Stage::Join) {
        join(&roster, &channels, &ping, &renewal::ways_in(&roster, &options.join)).await?;
        renewal::joined(&roster)?;
    }
    let (socket, bound) = watch::channel(None);
    let (incoming, connections) = mpsc::channel(INCOMING_MAX);
    let door = Door { roster: roster.clone(), identity: identity.clone(), socket: bound, incoming };
    transport.handle().spawn(accept(arrivals, door));
    let runtime = transport.handle().clone();
    let connector = RaftConnector { roster: roster.clone(), identity, runtime };
    let node = Arc::new(start_node(dir, &roster, connector).await?);
    socket.send_replace(Some(node.socket().clone()));
    let health = Arc::new(HealthTable::default());
    transport.handle().spawn(ping.run(health.clone()));
    let transport = Some(transport);
    Ok(Links { transport, roster, channels, health, nodes, node, connections })
}

/// Whether a directory has the store of a member that knows of no others: it becomes the first of
/// several when it is started as one, and can't join.
pub fn is_lone_store(dir: &Path) -> bool {
    !Roster::exists(dir) && dir.join("metadata1").exists()
}

fn open_roster(dir: &Path, join: &[String]) -> Result<Roster, MemberError> {
    if is_lone_store(dir) && !join.is_empty() {
        return Err(MemberError::Occupied { dir: dir.to_owned() });
    }
    let roster = Roster::open(dir, join.is_empty())?;
    if roster.is_removed(roster.own()) {
        return Err(MemberError::Removed { dir: dir.to_owned() });
    }
    Ok(roster)
}

/// Binds on the transport's runtime, which then owns the listener.
async fn bind(transport: &Transport, options: &Options) -> Result<Arrivals, MemberError> {
    let handoff = options.peer_handoff.clone();
    let address = options.peer_listen.clone().unwrap_or_default();
    let named = handoff.as_ref().map_or_else(|| address.clone(), |path| path.display().to_string());
    let bound = transport.handle().spawn(async move {
        match handoff {
            Some(path) => Handed::bind(&path, HANDOFF_MODE).map(Arrivals::Handed),
            None => TcpListener::bind(address).await.map(Arrivals::Own),
        }
    });
    let bound = bound.await.expect("binding does not panic");
    bound.map_err(|source| MemberError::Listen { address: named, source })
}

/// What this member tells others of itself.
fn own_line(options: &Options, arrivals: &Arrivals) -> Result<Peer, MemberError> {
    let unusable = |address: &str, reason: String| MemberError::Address {
        address: address.to_owned(),
        reason,
    };
    let address = match (&options.peer_advertise, arrivals) {
        (Some(address), _) => {
            let resolved: Vec<SocketAddr> = address
                .to_socket_addrs()
                .map_err(|error| unusable(address, error.to_string()))?
                .collect();
            if resolved.is_empty() {
                return Err(unusable(address, "it has no address".to_owned()));
            }
            address.clone()
        }
        (None, Arrivals::Handed(_)) => {
            let hint = "name one with --peer-advertise".to_owned();
            return Err(unusable("that of the agent", hint));
        }
        (None, Arrivals::Own(listener)) => {
            let bound = listener.local_addr().map_err(MemberError::Transport)?;
            if bound.ip().is_unspecified() {
                let hint = "name one with --peer-advertise".to_owned();
                return Err(unusable(&bound.to_string(), hint));
            }
            bound.to_string()
        }
    };
    let client_urls = options.listen.iter().map(|listen| match listen {
        Listen::Unix(path) => format!("unix:{}", path.display()),
        Listen::Tcp(address) => format!("http://{address}"),
    });
    Ok(Peer {
        address,
        failure_domain: options.failure_domain.clone(),
        client_urls: client_urls.collect(),
        node: options.peer_node.clone().unwrap_or_default(),
        ..Peer::default()
    })
}

async fn start_node(
    dir: &Path,
    roster: &Roster,
    connector: RaftConnector,
) -> Result<Node, MemberError> {
    let dir = dir.to_owned();
    let id: MemberId = roster.own();
    let latency = roster.begin();
    info!(member = id.0, latency_ms = latency.as_millis() as u64, "dqlite starts");
    let of_node = dir.clone();
    let start = move || {
        Node::builder(id, raft_address(id), of_node)
            .snapshot(SnapshotParams::every(disk::SNAPSHOT_ENTRIES))
            .network_latency(latency)
            .connector(Arc::new(connector))
            .start()
    };
    let started = tokio::task::spawn_blocking(start).await;
    started.expect("starting a node does not panic").map_err(|source| match source {
        NodeError::Locked { .. } => MemberError::InUse { dir },
        source => MemberError::Start { dir, source },
    })
}
