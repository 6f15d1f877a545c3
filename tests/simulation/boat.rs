//! The members of a history: production's code, on modelled nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use skiff_datastore::compactor::LayoutLimits;
use skiff_datastore::member::channel::Channels;
use skiff_datastore::member::gossip::HealthTable;
use skiff_datastore::member::nodes::Nodes;
use skiff_datastore::member::roster::Roster;
use skiff_datastore::member::run::{Links, Member, Seat};
use skiff_datastore::shared::Limits;
use skiff_datastore::{Database, Databases, Engine, Options};
use tokio::sync::watch;

use super::cluster::Cluster;
use super::network::{Network, SimDial, address};
use super::node::SimNode;
use super::plant::Plant;
use super::trace::Trace;
use datastore_history::chance::Chance;

/// A member that runs.
#[derive(Clone)]
pub struct Up {
    pub id: u64,
    pub engine: Engine,
    pub killed: watch::Receiver<bool>,
}

struct Running {
    up: Up,
    member: Member,
}

/// All members, running or not.
pub struct Boat {
    pub ids: Vec<u64>,
    pub cluster: Arc<Cluster>,
    pub network: Arc<Network>,
    pub trace: Trace,
    dir: PathBuf,
    running: Mutex<BTreeMap<u64, Running>>,
    chance: Arc<Mutex<Chance>>,
    busy: u64,
    layout: LayoutLimits,
    plant: Option<Plant>,
}

impl Boat {
    /// Members that do not run yet.
    pub fn new(
        ids: Vec<u64>,
        cluster: Arc<Cluster>,
        network: Arc<Network>,
        mut chance: Chance,
        plant: Option<Plant>,
        (dir, trace): (&Path, Trace),
    ) -> Arc<Boat> {
        let busy = if chance.happens(500) { 0 } else { chance.within(1, 60) };
        let layout = choose_layout(&mut chance);
        let boat = Boat {
            ids,
            layout,
            cluster,
            network,
            trace,
            dir: dir.to_owned(),
            running: Mutex::default(),
            chance: Arc::new(Mutex::new(chance)),
            busy,
            plant,
        };
        boat.ids.iter().for_each(|id| boat.write_roster(*id));
        Arc::new(boat)
    }

    fn dir_of(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// What joining leaves behind.
    fn write_roster(&self, id: u64) {
        let line = |id: &u64| {
            (id.to_string(), serde_json::json!({ "version": 1, "address": address(*id) }))
        };
        let peers: serde_json::Map<_, _> = self.ids.iter().map(line).collect();
        let roster = serde_json::json!({
            "format": 1, "id": id, "cluster_id": 77, "round_trip_us": 0, "peers": peers,
        });
        std::fs::create_dir_all(self.dir_of(id)).unwrap();
        std::fs::write(self.dir_of(id).join("member.json"), roster.to_string()).unwrap();
    }

    /// Starts a member as a new process.
    pub fn start(&self, id: u64) {
        let (incarnation, killed) = self.cluster.boot(id);
        self.trace.note(format!("member {id} starts, {incarnation}"));
        let dir = self.dir_of(id);
        let roster = Arc::new(Roster::open(&dir, true).unwrap());
        roster.begin();
        let options = options(&dir);
        let seat = Seat::new(Database::Kube, Limits { layout: self.layout, ..Limits::default() });
        let engine = seat.engine.clone();
        let network = self.network.clone();
        let dial = SimDial { network, own: id, killed: killed.clone() };
        let links = Links {
            transport: None,
            roster: roster.clone(),
            channels: Arc::new(Channels::over(roster, Arc::new(dial))),
            health: Arc::new(HealthTable::default()),
            nodes: Nodes::any(),
            node: Arc::new(SimNode {
                cluster: self.cluster.clone(),
                id,
                killed: killed.clone(),
                dir,
                chance: self.chance.clone(),
                busy: self.busy,
                plant: self.plant,
            }),
            connections: self.network.listen(id, killed.clone()),
        };
        let member = Member::assemble(&options, Databases::kube(seat), links);
        let up = Up { id, engine, killed };
        self.running.lock().unwrap().insert(id, Running { up, member });
    }

    /// Ends a member as `kill -9` or a loss of power does.
    pub fn kill(&self, id: u64) {
        let Some(running) = self.running.lock().unwrap().remove(&id) else { return };
        self.trace.note(format!("member {id} is killed"));
        self.cluster.kill(id);
        running.member.abandon();
    }

    /// Ends a member orderly.
    pub async fn stop(&self, id: u64) {
        let Some(running) = self.running.lock().unwrap().remove(&id) else { return };
        self.trace.note(format!("member {id} stops"));
        running.member.hand_over().await;
        running.member.stop().await;
        self.trace.note(format!("member {id} has stopped"));
    }

    /// The members that run, in order.
    pub fn up(&self) -> Vec<Up> {
        self.running.lock().unwrap().values().map(|running| running.up.clone()).collect()
    }
}

impl Boat {
    /// A member that believes that it leads, the one that did so longest first.
    pub fn leader(&self) -> Option<u64> {
        let leads = |id: &u64| Some((self.cluster.leads(*id)?, *id));
        self.ids.iter().filter_map(leads).min().map(|(_, id)| id)
    }
}

/// In half of the histories the log is merged and folded all the time.
fn choose_layout(chance: &mut Chance) -> LayoutLimits {
    let small = LayoutLimits {
        chunk_bytes_max: chance.within(60, 300) as usize,
        chunks_per_step: chance.within(1, 3) as usize,
        merge_rows_min: 2,
        merge_rows_max: chance.within(2, 8) as usize,
        fold_bytes_min: chance.within(100, 1_000) as usize,
        fold_rows_min: chance.within(3, 20) as usize,
        ..LayoutLimits::default()
    };
    if chance.happens(500) { small } else { LayoutLimits::default() }
}

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        listen: Vec::new(),
        cert_file: None,
        key_file: None,
        trusted_ca_file: None,
        client_cert_auth: false,
        socket_group: None,
        socket_mode: 0o660,
        cluster_listen: None,
        cluster_socket_mode: 0o600,
        watch_progress_notify_interval: Duration::from_secs(5),
        warning_unary_request_duration: Duration::from_secs(1),
        enable_distributed_tracing: false,
        distributed_tracing_address: String::new(),
        distributed_tracing_service_name: String::new(),
        distributed_tracing_instance_id: None,
        distributed_tracing_sampling_rate: 0,
        listen_metrics_urls: Vec::new(),
        max_request_bytes: 1 << 20,
        quota_backend_bytes: 1 << 30,
        peer_listen: None,
        peer_handoff: None,
        peer_advertise: None,
        peer_node: None,
        peer_nodes: None,
        pki: None,
        join: Vec::new(),
        failure_domain: String::new(),
    }
}
