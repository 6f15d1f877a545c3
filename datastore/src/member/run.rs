//! The daemon as one of several members.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::{MemberId, Node, NodeError, SnapshotParams};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::channel::{Channels, MESSAGE_BYTES_MAX};
use super::dial::RaftConnector;
use super::gossip::{Gossip, HealthTable};
use super::join::{JoinError, join};
use super::keeper::Keeper;
use super::listener::{Door, INCOMING_MAX, accept};
use super::operator::Operator;
use super::peers::{Peer, raft_address};
use super::replica::{Copy, Replica};
use super::roster::{Roster, RosterError};
use super::service::PeerService;
use super::tls::{Identity, TlsError};
use super::transport::Transport;
use crate::engine::Engine;
use crate::listen::Listen;
use crate::options::Options;
use crate::proto::peer::members_server::MembersServer;
use crate::proto::peer::peer_server::PeerServer;
use crate::route::{Course, Route};
use crate::shared::{Limits, Shared};
use crate::state::State;
use crate::store::disk;

/// libdqlite's latency setting at least: a leader's death is noticed after 15
/// to 30 times this, so that the first new write comes within a second.
const LATENCY_MIN: Duration = Duration::from_millis(15);
/// And at most: then a leader's death costs up to 15 seconds.
const LATENCY_MAX: Duration = Duration::from_millis(500);
/// How many round trips the setting stands for.
const ROUND_TRIPS: u32 = 4;
/// How often the space taken is looked at.
const SIZE_PERIOD: Duration = Duration::from_secs(2);
/// How often the round trips are noted for the next start.
const NOTE_PERIOD: Duration = Duration::from_secs(10);

/// Why a member could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("can't use the identity of members")]
    Tls(#[from] TlsError),
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
}

/// A member that runs.
pub struct Member {
    pub engine: Engine,
    pub operator: Operator,
    /// Becomes true when there is something to read.
    pub ready: watch::Receiver<bool>,
    node: Arc<Node>,
    roster: Arc<Roster>,
    keeper: Keeper,
    replica: JoinHandle<()>,
    yielding: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    transport: Transport,
}

/// The latency to tell libdqlite, from the largest round trip that was seen.
pub fn choose_latency(round_trip: Duration) -> Duration {
    (round_trip * ROUND_TRIPS).clamp(LATENCY_MIN, LATENCY_MAX)
}

impl Member {
    /// Joins if need be, starts the node, and begins to lead or follow.
    pub async fn start(options: &Options) -> Result<Member, MemberError> {
        let dir = &options.dir;
        let roster = Arc::new(open_roster(dir, &options.join)?);
        let identity = Identity::load(options.pki.as_deref().unwrap_or(dir))?;
        let transport = Transport::start().map_err(MemberError::Transport)?;
        let listener = bind(&transport, options).await?;
        roster.state(own_line(options, &listener)?)?;
        let channels = Arc::new(Channels::new(roster.clone(), &identity));
        if roster.cluster_id().is_none() {
            join(&roster, &channels, &options.join).await?;
        }
        let (socket, bound) = watch::channel(None);
        let (incoming, connections) = mpsc::channel(INCOMING_MAX);
        let door =
            Door { roster: roster.clone(), identity: identity.clone(), socket: bound, incoming };
        transport.handle().spawn(accept(listener, door));
        let runtime = transport.handle().clone();
        let connector = RaftConnector { roster: roster.clone(), identity, runtime };
        let node = Arc::new(start_node(dir, &roster, connector).await?);
        socket.send_replace(Some(node.socket().clone()));
        Ok(Member::assemble(options, transport, roster, channels, node, connections))
    }

    fn assemble(
        options: &Options,
        transport: Transport,
        roster: Arc<Roster>,
        channels: Arc<Channels>,
        node: Arc<Node>,
        connections: mpsc::Receiver<io::Result<super::listener::PeerStream>>,
    ) -> Member {
        let limits = Limits {
            request_bytes_max: options.max_request_bytes,
            quota_bytes: options.quota_backend_bytes,
            ..Limits::default()
        };
        let nobody =
            crate::identity::Identity { cluster_id: 0, member_id: roster.own().0, epoch: 0 };
        let shared = Arc::new(Shared::new(State::default(), nobody, limits, Instant::now));
        let (course, course_seen) = watch::channel(Course::Seeks);
        let engine = Engine::among(shared.clone(), Route::among(course_seen));
        let (leader_seen, leader) = watch::channel(None);
        let (yielding, yields) = watch::channel(false);
        let (ready_seen, ready) = watch::channel(false);
        let health = Arc::new(HealthTable::default());
        let keeper = Keeper {
            engine: engine.clone(),
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            health: health.clone(),
            leader: leader.clone(),
        };
        let operator = Operator { keeper: keeper.clone() };
        shared.set_operator(operator.clone());
        let replica = Replica {
            engine: engine.clone(),
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            leader: leader.clone(),
            course,
            yielding: yields,
            ready: ready_seen,
            copy: Copy::default(),
        };
        let service = PeerService {
            engine: engine.clone(),
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            leader,
            health: health.clone(),
        };
        let gossip = Gossip {
            engine: engine.clone(),
            roster: roster.clone(),
            channels,
            health: health.clone(),
        };
        let tasks = vec![
            tokio::spawn(super::watcher::watch_leader(node.clone(), health.clone(), leader_seen)),
            tokio::spawn(note_round_trips(gossip.health.clone(), roster.clone())),
            tokio::spawn(note_size(shared.clone(), options.dir.clone())),
            tokio::spawn(gossip.run()),
            tokio::spawn(keeper.clone().run()),
            tokio::spawn(serve_members(service, operator.clone(), connections)),
        ];
        let replica = tokio::spawn(replica.run());
        Member {
            engine,
            operator,
            ready,
            node,
            roster,
            keeper,
            replica,
            yielding,
            tasks,
            transport,
        }
    }

    /// Returns when this member was removed.
    pub async fn removed(&self) {
        let mut changed = self.roster.subscribe();
        while !self.roster.is_removed(self.roster.own()) {
            // The roster is as long-lived as this.
            let _ = changed.changed().await;
        }
    }

    /// Gives leadership away while requests are still served.
    pub async fn hand_over(&self) {
        if !self.engine.leads() {
            return;
        }
        let result = match self.keeper.members().await {
            Ok(members) => self.keeper.hand_over(&members).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            warn!(%error, "leadership could not be handed over");
        }
    }

    /// Ends orderly. What was acknowledged is safe with or without this.
    pub async fn stop(self) {
        let Member { node, replica, yielding, tasks, transport, .. } = self;
        yielding.send_replace(true);
        let _ = tokio::time::timeout(Duration::from_secs(5), replica).await;
        tasks.iter().for_each(JoinHandle::abort);
        let stop = move || {
            if let Err(error) = node.end() {
                warn!(%error, "dqlite did not stop orderly");
            }
            drop(transport);
        };
        tokio::task::spawn_blocking(stop).await.expect("stopping a node does not panic");
    }
}

fn open_roster(dir: &Path, join: &[String]) -> Result<Roster, MemberError> {
    let is_new = !Roster::exists(dir);
    if is_new && !join.is_empty() && dir.join("metadata1").exists() {
        return Err(MemberError::Occupied { dir: dir.to_owned() });
    }
    let roster = Roster::open(dir, join.is_empty())?;
    if roster.is_removed(roster.own()) {
        return Err(MemberError::Removed { dir: dir.to_owned() });
    }
    Ok(roster)
}

/// Binds on the transport's runtime, which then owns the listener.
async fn bind(transport: &Transport, options: &Options) -> Result<TcpListener, MemberError> {
    let address = options.peer_listen.clone().unwrap_or_default();
    let to_bind = address.clone();
    let bound = transport.handle().spawn(async move { TcpListener::bind(to_bind).await });
    let bound = bound.await.expect("binding does not panic");
    bound.map_err(|source| MemberError::Listen { address, source })
}

/// What this member tells others of itself.
fn own_line(options: &Options, listener: &TcpListener) -> Result<Peer, MemberError> {
    let unusable = |address: &str, reason: String| MemberError::Address {
        address: address.to_owned(),
        reason,
    };
    let address = match &options.peer_advertise {
        Some(address) => {
            let resolved: Vec<SocketAddr> = address
                .to_socket_addrs()
                .map_err(|error| unusable(address, error.to_string()))?
                .collect();
            if resolved.is_empty() {
                return Err(unusable(address, "it has no address".to_owned()));
            }
            address.clone()
        }
        None => {
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
    let latency = choose_latency(Duration::from_micros(roster.round_trip_us()));
    info!(member = id.0, latency_ms = latency.as_millis() as u64, "dqlite starts");
    let of_node = dir.clone();
    let start = move || {
        let entries = disk::choose_snapshot_entries(disk::snapshot_bytes(&of_node));
        Node::builder(id, raft_address(id), of_node)
            .snapshot(SnapshotParams::every(entries))
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

async fn serve_members(
    service: PeerService,
    operator: Operator,
    connections: mpsc::Receiver<io::Result<super::listener::PeerStream>>,
) {
    let peers = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(peers)
        .add_service(MembersServer::new(operator))
        .serve_with_incoming(ReceiverStream::new(connections));
    if let Err(error) = served.await {
        tracing::error!(error = &error as &dyn std::error::Error, "members are not served");
    }
}

/// Looks how much space this member takes; the writer does so more often.
async fn note_size(shared: Arc<Shared>, dir: PathBuf) {
    loop {
        shared.set_size(disk::size(&dir));
        tokio::time::sleep(SIZE_PERIOD).await;
    }
}

/// Keeps the largest round trip for the next start: libdqlite's timeouts
/// can't be changed while it runs.
async fn note_round_trips(health: Arc<HealthTable>, roster: Arc<Roster>) {
    loop {
        tokio::time::sleep(NOTE_PERIOD).await;
        let Some(round_trip) = health.round_trip_max(Instant::now()) else { continue };
        let former = choose_latency(Duration::from_micros(roster.round_trip_us()));
        let now = choose_latency(round_trip);
        // Small changes are not worth a write.
        if now > former * 5 / 4 || now < former * 4 / 5 {
            let noted = roster.set_round_trip_us(round_trip.as_micros() as u64);
            info!(latency_ms = now.as_millis() as u64, "timeouts at the next start will differ");
            if let Err(error) = noted {
                warn!(error = &error as &dyn std::error::Error, "round trips are not kept");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_network_within_bounds() {
        let ms = Duration::from_millis;
        assert_eq!(choose_latency(Duration::ZERO), LATENCY_MIN);
        assert_eq!(choose_latency(ms(10)), ms(40));
        assert_eq!(choose_latency(ms(600)), LATENCY_MAX);
    }
}
