//! The daemon as one of several members.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tracing::{Instrument, info, warn};

use super::breakdown;
use super::channel::{CLUSTER_PATH, Channels, MESSAGE_BYTES_MAX};
use super::comparison::Comparison;
use super::gossip::{Gossip, HealthTable};
use super::keeper::Keeper;
use super::nodes::Nodes;
use super::operator::Operator;
use super::replica::{Copy, Replica};
use super::roster::Roster;
use super::service::PeerService;
use super::timing::choose_latency;
use super::transport::Transport;
use super::tuner::rescue;
use super::wire::Incoming;
use crate::clock;
use crate::database::{Database, Databases};
use crate::engine::Engine;
use crate::identity::Identity;
use crate::options::Options;
use crate::proto::peer::members_server::MembersServer;
use crate::proto::peer::peer_server::PeerServer;
use crate::route::{Course, Route};
use crate::shared::{Damage, Limits, Shared};
use crate::state::State;
use crate::store::disk;
use crate::store::node::SqlNode;

/// How long the next leader may take to be followed, in a good network.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long answers to other members may take to leave, in a good network.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long what was begun may take before the node ends under it.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the space taken is looked at.
const SIZE_PERIOD: Duration = Duration::from_secs(2);
/// How often it is looked whether others refuse this member.
const REFUSALS_PERIOD: Duration = Duration::from_millis(500);
/// How often the round trips are noted for the next start.
const NOTE_PERIOD: Duration = Duration::from_secs(10);

/// What outlives a node: the state that readers see, with its watchers, and
/// where requests find the leader.
pub struct Seat {
    pub database: Database,
    pub engine: Engine,
    /// Becomes true when there is something to read.
    pub ready: watch::Sender<bool>,
    pub(super) course: watch::Sender<Course>,
    pub(super) copy: Copy,
}

impl Seat {
    /// One for each database that the options want.
    pub fn all(options: &Options) -> Databases<Seat> {
        options.databases().map(|database| Seat::new(database, options.limits(database)))
    }

    /// Forgets what is in it, but for what readers and watchers have seen:
    /// everything is told anew.
    pub fn renew(&mut self) {
        if let Some((pending, _)) = self.copy.take_pending() {
            pending.give_up();
            self.engine.shared().set_undecided(false);
        }
        self.copy = Copy::default();
        self.engine.shared().begin_anew();
    }

    /// With nothing in it, and nobody who leads.
    pub fn new(database: Database, limits: Limits) -> Seat {
        let nobody = Identity { cluster_id: 0, member_id: 0, epoch: 0 };
        let shared = Arc::new(Shared::new(State::default(), nobody, limits, clock::now));
        shared.set_among_others();
        let (course, course_seen) = watch::channel(Course::Seeks);
        let engine = Engine::among(shared, Route::among(course_seen));
        Seat { database, engine, ready: watch::channel(false).0, course, copy: Copy::default() }
    }
}

/// A member that runs.
pub struct Member {
    engines: Databases<Engine>,
    node: Arc<dyn SqlNode>,
    roster: Arc<Roster>,
    keeper: Keeper,
    replicas: Databases<JoinHandle<Seat>>,
    /// Serves other members.
    members: JoinHandle<()>,
    closing: watch::Sender<bool>,
    yielding: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    transport: Option<Transport>,
}

/// What reaches the others, and the own node.
pub struct Links<S> {
    /// Missing when something else carries bytes between members.
    pub transport: Option<Transport>,
    pub roster: Arc<Roster>,
    pub channels: Arc<Channels>,
    pub health: Arc<HealthTable>,
    /// Which of the members' nodes may vote.
    pub nodes: Nodes,
    pub node: Arc<dyn SqlNode>,
    /// Connections of our own protocol that came in.
    pub connections: mpsc::Receiver<io::Result<S>>,
}

impl Member {
    /// Begins to lead or follow, with a node that runs.
    pub fn assemble<S: Incoming>(
        options: &Options,
        seats: Databases<Seat>,
        links: Links<S>,
    ) -> Member {
        let Links { transport, roster, channels, health, nodes, node, connections } = links;
        let engines = seats.as_ref().map(|seat| seat.engine.clone());
        let (leader_seen, leader) = watch::channel(None);
        let (yielding, yields) = watch::channel(false);
        let restart = Arc::new(Notify::new());
        let keeper = Keeper {
            engines: engines.clone(),
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            health: health.clone(),
            nodes: nodes.clone(),
            leader: leader.clone(),
            restart: restart.clone(),
        };
        let operator = Operator { keeper: keeper.clone() };
        for shared in engines.iter().map(Engine::shared) {
            shared.set_identity(Identity { member_id: roster.own().0, ..shared.identity() });
            shared.set_operator(Some(operator.clone()));
        }
        let services = seats.as_ref().map(|seat| PeerService {
            database: seat.database,
            engine: seat.engine.clone(),
            engines: engines.clone(),
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            leader: leader.clone(),
            health: health.clone(),
            restart: restart.clone(),
        });
        let comparisons = seats.as_ref().map(|seat| {
            let shared = seat.engine.shared().clone();
            let (database, roster, health) = (seat.database, roster.clone(), health.clone());
            let comparison = Comparison { database, shared, roster, health };
            tokio::spawn(comparison.run().instrument(database.span()))
        });
        let replicas = seats.map(|seat| {
            let span = seat.database.span();
            let replica = Replica {
                seat,
                node: node.clone(),
                roster: roster.clone(),
                channels: channels.clone(),
                leader: leader.clone(),
                yielding: yields.clone(),
            };
            tokio::spawn(replica.run().instrument(span))
        });
        let gossip = Gossip {
            engines: engines.clone(),
            roster: roster.clone(),
            channels,
            health: health.clone(),
            nodes,
        };
        let mut tasks = vec![
            tokio::spawn(super::watcher::watch_leader(node.clone(), health.clone(), leader_seen)),
            tokio::spawn(note_round_trips(gossip.health.clone(), roster.clone())),
            tokio::spawn(note_size(engines.clone(), options.dir.clone())),
            tokio::spawn(gossip.clone().run()),
            tokio::spawn(gossip.seek()),
            tokio::spawn(super::renewal::leave(operator.clone())),
            tokio::spawn(keeper.clone().run()),
            tokio::spawn(rescue(keeper.clone())),
        ];
        tasks.extend(comparisons);
        let (closing, closed) = watch::channel(false);
        let members = tokio::spawn(serve_members(services, operator, connections, closed));
        Member {
            engines,
            node,
            roster,
            keeper,
            replicas,
            members,
            closing,
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

    /// Returns when all others that answer have refused this member for some
    /// seconds, as one of another cluster: the address of one of them.
    pub async fn disowned(&self) -> String {
        loop {
            if let Some(by) = self.keeper.health.last_word(clock::now()) {
                return self.roster.peer(by).unwrap_or_default().address;
            }
            tokio::time::sleep(REFUSALS_PERIOD).await;
        }
    }

    /// Returns when the node is to start again, with other timeouts.
    pub async fn restart(&self) {
        self.keeper.restart.notified().await;
    }

    /// Returns when the node does nothing any more.
    pub async fn broken(&self) {
        while !self.node.is_broken() {
            tokio::time::sleep(breakdown::PERIOD).await;
        }
    }

    /// Returns when this member's data can't be believed, in whichever database;
    /// how that showed.
    pub async fn damaged(&self) -> Damage {
        let each = self.engines.iter().map(|engine| Box::pin(engine.shared().damaged()));
        futures::future::select_all(each).await.0
    }

    /// Gives leadership away, to a member that does not vote yet if need be:
    /// this one will not come back as it is.
    pub async fn give_way(&self) {
        // Perhaps raft has chosen it, and it could not read what it leads.
        if *self.keeper.leader.borrow() != Some(self.roster.own()) {
            return;
        }
        let given = async { self.keeper.give_way(&self.keeper.members().await?).await };
        if let Err(error) = given.await {
            warn!(%error, "leadership could not be given away");
        }
    }

    /// Gives leadership away while requests are still served.
    pub async fn hand_over(&self) {
        if !self.engines.iter().any(Engine::leads) {
            return;
        }
        let result = match self.keeper.members().await {
            Ok(members) => self.keeper.hand_over(&members).await,
            Err(error) => Err(error),
        };
        match result {
            Err(error) => warn!(%error, "leadership could not be handed over"),
            // Whoever waits for the last commit learns its outcome from the next leader.
            Ok(false) => {}
            Ok(true) => {
                let bound = SETTLE_TIMEOUT + self.roster.patience();
                let follow = self.engines.iter().map(Engine::wait_until_following);
                let _ = tokio::time::timeout(bound, futures::future::join_all(follow)).await;
            }
        }
    }

    /// Ends orderly. What was acknowledged is safe with or without this.
    pub async fn stop(self) -> Databases<Seat> {
        let Member { engines, node, roster, replicas, mut members, .. } = self;
        let Member { yielding, closing, tasks, transport, .. } = self;
        engines.iter().for_each(|engine| engine.shared().set_operator(None));
        yielding.send_replace(true);
        // A commit that finds no majority ends with the node.
        let mut seats = Box::pin(seats_of(replicas));
        let ended = tokio::time::timeout(REPLICA_TIMEOUT, &mut seats).await.ok();
        // What other members asked is answered before their connections end.
        closing.send_replace(true);
        let bound = LEAVE_TIMEOUT + roster.patience();
        let _ = tokio::time::timeout(bound, &mut members).await;
        members.abort();
        tasks.iter().for_each(JoinHandle::abort);
        if let Err(error) = node.end().await {
            warn!(%error, "dqlite did not stop orderly");
        }
        if let Some(transport) = transport {
            let stop = move || drop(transport);
            tokio::task::spawn_blocking(stop).await.expect("the transport does not panic");
        }
        match ended {
            Some(ended) => ended,
            None => seats.await,
        }
    }
}

async fn seats_of(replicas: Databases<JoinHandle<Seat>>) -> Databases<Seat> {
    let ended = "a replica does not panic and is not aborted";
    let Databases { kube, cluster } = replicas;
    let kube = kube.await.expect(ended);
    let cluster = match cluster {
        Some(cluster) => Some(cluster.await.expect(ended)),
        None => None,
    };
    Databases { kube, cluster }
}

impl Member {
    /// Ends without any order, as a process that is killed: for simulations.
    pub fn abandon(self) {
        self.engines.iter().for_each(|engine| engine.shared().set_operator(None));
        self.tasks.iter().chain([&self.members]).for_each(JoinHandle::abort);
        self.replicas.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_members<S: Incoming>(
    services: Databases<PeerService>,
    operator: Operator,
    connections: mpsc::Receiver<io::Result<S>>,
    mut closed: watch::Receiver<bool>,
) {
    let close = async move {
        // An error means that the member has gone.
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let Databases { kube, cluster } = services.map(|service| {
        PeerServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    });
    let mut routes = Routes::new(kube).into_axum_router();
    if let Some(cluster) = cluster {
        routes = routes.nest(CLUSTER_PATH, Routes::new(cluster).into_axum_router());
    }
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_routes(routes.into())
        .add_service(MembersServer::new(operator))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), close);
    if let Err(error) = served.await {
        tracing::error!(error = &error as &dyn std::error::Error, "members are not served");
    }
}

/// Looks how much space this member takes; the writer does so more often.
async fn note_size(engines: Databases<Engine>, dir: PathBuf) {
    loop {
        let (size, free_bytes) = (disk::size(&dir), disk::free_bytes(&dir).unwrap_or(u64::MAX));
        for shared in engines.iter().map(Engine::shared) {
            shared.set_size(size);
            shared.set_free_bytes(free_bytes);
        }
        tokio::time::sleep(SIZE_PERIOD).await;
    }
}

/// Keeps the largest round trip for the next start: libdqlite's timeouts
/// can't be changed while it runs.
async fn note_round_trips(health: Arc<HealthTable>, roster: Arc<Roster>) {
    loop {
        tokio::time::sleep(NOTE_PERIOD).await;
        let Some(round_trip) = health.round_trip_max(clock::now()) else { continue };
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
