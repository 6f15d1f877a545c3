//! The daemon as one of several members.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::channel::{Channels, MESSAGE_BYTES_MAX};
use super::comparison::Comparison;
use super::gossip::{Gossip, HealthTable};
use super::keeper::Keeper;
use super::operator::Operator;
use super::replica::{Copy, Replica};
use super::roster::Roster;
use super::service::PeerService;
use super::timing::choose_latency;
use super::transport::Transport;
use super::tuner::rescue;
use super::wire::Incoming;
use crate::clock;
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
    pub engine: Engine,
    /// Becomes true when there is something to read.
    pub ready: watch::Sender<bool>,
    pub(super) course: watch::Sender<Course>,
    pub(super) copy: Copy,
}

impl Seat {
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
    pub fn new(options: &Options) -> Seat {
        let limits = Limits {
            request_bytes_max: options.max_request_bytes,
            quota_bytes: options.quota_backend_bytes,
            ..Limits::default()
        };
        Seat::within(limits)
    }

    /// The same with bounds that an operator can't set.
    pub fn within(limits: Limits) -> Seat {
        let nobody = Identity { cluster_id: 0, member_id: 0, epoch: 0 };
        let shared = Arc::new(Shared::new(State::default(), nobody, limits, clock::now));
        shared.set_among_others();
        let (course, course_seen) = watch::channel(Course::Seeks);
        let engine = Engine::among(shared, Route::among(course_seen));
        Seat { engine, ready: watch::channel(false).0, course, copy: Copy::default() }
    }
}

/// A member that runs.
pub struct Member {
    engine: Engine,
    node: Arc<dyn SqlNode>,
    roster: Arc<Roster>,
    keeper: Keeper,
    replica: JoinHandle<Seat>,
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
    pub node: Arc<dyn SqlNode>,
    /// Connections of our own protocol that came in.
    pub connections: mpsc::Receiver<io::Result<S>>,
}

impl Member {
    /// Begins to lead or follow, with a node that runs.
    pub fn assemble<S: Incoming>(options: &Options, seat: Seat, links: Links<S>) -> Member {
        let Links { transport, roster, channels, health, node, connections } = links;
        let engine = seat.engine.clone();
        let shared = engine.shared().clone();
        let nobody = Identity { member_id: roster.own().0, ..shared.identity() };
        shared.set_identity(nobody);
        let (leader_seen, leader) = watch::channel(None);
        let (yielding, yields) = watch::channel(false);
        let restart = Arc::new(Notify::new());
        let keeper = Keeper {
            engine: engine.clone(),
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            health: health.clone(),
            leader: leader.clone(),
            restart: restart.clone(),
        };
        let operator = Operator { keeper: keeper.clone() };
        shared.set_operator(Some(operator.clone()));
        let replica = Replica {
            seat,
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            leader: leader.clone(),
            yielding: yields,
        };
        let service = PeerService {
            engine: engine.clone(),
            node: node.clone(),
            roster: roster.clone(),
            channels: channels.clone(),
            leader,
            health: health.clone(),
            restart: restart.clone(),
        };
        let comparison =
            Comparison { shared: shared.clone(), roster: roster.clone(), health: health.clone() };
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
            tokio::spawn(comparison.run()),
            tokio::spawn(super::renewal::leave(operator.clone())),
            tokio::spawn(keeper.clone().run()),
            tokio::spawn(rescue(keeper.clone())),
        ];
        let (closing, closed) = watch::channel(false);
        let members = tokio::spawn(serve_members(service, operator, connections, closed));
        let replica = tokio::spawn(replica.run());
        Member {
            engine,
            node,
            roster,
            keeper,
            replica,
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

    /// Returns when this member's data can't be believed; how that showed.
    pub async fn damaged(&self) -> Damage {
        self.engine.shared().damaged().await
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
        if !self.engine.leads() {
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
                let _ = tokio::time::timeout(bound, self.engine.wait_until_following()).await;
            }
        }
    }

    /// Ends orderly. What was acknowledged is safe with or without this.
    pub async fn stop(self) -> Seat {
        let Member { engine, node, roster, mut replica, mut members, .. } = self;
        let Member { yielding, closing, tasks, transport, .. } = self;
        engine.shared().set_operator(None);
        yielding.send_replace(true);
        // A commit that finds no majority ends with the node.
        let ended = tokio::time::timeout(REPLICA_TIMEOUT, &mut replica).await.ok();
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
        let ended = match ended {
            Some(ended) => ended,
            None => replica.await,
        };
        ended.expect("the replica does not panic and is not aborted")
    }
}

impl Member {
    /// Ends without any order, as a process that is killed: for simulations.
    pub fn abandon(self) {
        self.engine.shared().set_operator(None);
        self.tasks.iter().chain([&self.members]).for_each(JoinHandle::abort);
        self.replica.abort();
    }
}

async fn serve_members<S: Incoming>(
    service: PeerService,
    operator: Operator,
    connections: mpsc::Receiver<io::Result<S>>,
    mut closed: watch::Receiver<bool>,
) {
    let close = async move {
        // An error means that the member has gone.
        let _ = closed.wait_for(|closed| *closed).await;
    };
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
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), close);
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
