//! skiffd's life: prepare, run, carry out orders, end.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use skiff_api::{ErrorBody, Progress};
use skiff_supervisor::{Handle, HandleError, Snapshot, StartError, Supervisor};
use time::{Duration, OffsetDateTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::authorities::SharedAuthorities;
use super::cluster::{self, GroundError, LeafError, Membership, MembershipError};
use super::core::{Node, Order};
use super::external::{DoubtError, OCCUPIED_HINT};
use super::lock::{Lock, LockError};
use super::observed::DatastoreView;
use super::prepare::{self, PrepareError};
use super::settings::{Kept, KeptError};
use super::status::{Board, Identity};
use super::stop::{Stop, remove_state};
use super::{backup, external, observe, plan, probe, route, server, settings, upkeep};
use crate::addon::{self, Addons};
use crate::backup::{SwitchError, go_on_locked};
use crate::config::{ChoiceError, Choices, Config, ConfigError, Sources};
use crate::daemons::{self, Context, Probes, kube_node};
use crate::distribution::{self, Distribution, DistributionError};
use crate::kube::ClientSource;
use crate::paths::Paths;

/// Orders that wait while one is carried out.
const ORDERS_MAX: usize = 4;

/// How skiffd is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub paths: Paths,
    /// Another configuration file than the root's own.
    pub config: Option<PathBuf>,
}

impl Options {
    fn sources(&self) -> Sources {
        Sources::of(self.config.clone().unwrap_or_else(|| self.paths.config()))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("a node needs root")]
    NotRoot,
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Kept(#[from] KeptError),
    #[error(transparent)]
    External(#[from] DoubtError),
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Cluster(#[from] GroundError),
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("the daemons cannot be supervised")]
    Supervisor(#[from] StartError),
    #[error("cannot listen on {}", .0.display())]
    Listen(PathBuf, #[source] io::Error),
    #[error("cannot remove {}", .0.display())]
    Reset(PathBuf, #[source] io::Error),
    #[error("cannot leave the daemons to another skiffd")]
    Detach(#[source] HandleError),
    #[error("a restore that was interrupted cannot be finished")]
    Restore(#[source] SwitchError),
    #[error("cannot receive signals")]
    Signal(#[source] io::Error),
}

impl NodeError {
    /// What to do next, where the situation is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Choice(error) => error.hint(),
            Self::Kept(error) => error.hint(),
            Self::External(DoubtError::Occupied(_)) => Some(OCCUPIED_HINT.into()),
            _ => None,
        }
    }
}

/// The node's settings, and what of them cannot change later. Refuses what is not valid and what
/// contradicts the first start; changes nothing.
pub fn configuration(options: &Options) -> Result<(Config, Choices), NodeError> {
    let sources = options.sources();
    let config = Config::load_with(&sources, &settings::shared(&options.paths)?)?;
    let choices = prepare::choices(&config)?;
    if let Some(then) = Choices::read(&options.paths.node())? {
        choices.hold_to(&then, &config, &sources.file)?;
    }
    Ok((config, choices))
}

/// Runs until it is ordered to end. The runtime may have a single thread. Whoever started it in
/// the background reads the reason of a failure from [`Paths::start_failure`].
pub async fn run(options: Options) -> Result<(), NodeError> {
    if !super::account::is_root() {
        return Err(NodeError::NotRoot);
    }
    let failure = options.paths.start_failure();
    let _lock = Lock::take(&options.paths.run().join("skiffd.pid"))?;
    let _ = std::fs::remove_file(&failure);
    let outcome = match go_on_locked(&options.paths) {
        Ok(_) => live(options).await,
        Err(error) => Err(NodeError::Restore(error)),
    };
    if let Err(error) = &outcome {
        tracing::error!(error = error as &dyn std::error::Error, "skiffd ends");
        let body = ErrorBody { hint: error.hint(), ..server::error_body(error) };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let _ = std::fs::write(&failure, body);
    }
    outcome
}

/// Resets a node whose skiffd does not run. What it left running is ended first.
pub async fn reset_stopped(paths: &Paths) -> Result<(), NodeError> {
    let _lock = Lock::take(&paths.run().join("skiffd.pid"))?;
    let cgroup = format!("/{}", paths.instance());
    let kube = paths.builds().join("current/bin/kube");
    let stop = Stop { paths, kube: &kube, cgroup: &cgroup, bridge: prepare::BRIDGE };
    stop.remove_leftovers().await;
    // Not of the configuration: that it changed may be the reason for the reset.
    if let Ok(Some(began)) = Choices::read(&paths.node()) {
        route::remove(&began.service_cidr);
    }
    remove_state(paths).map_err(|e| NodeError::Reset(paths.root().into(), e))
}

async fn live(options: Options) -> Result<(), NodeError> {
    let (config, choices) = configuration(&options)?;
    let settings_file = options.sources().file;
    let paths = options.paths;
    let build = Distribution::find()?;
    build.require_complete()?;
    let accounts = prepare::ground(&paths)?;
    let socket = paths.skiffd_socket();
    let listener = server::bind(&socket, accounts.skiff_gid)
        .map_err(|e| NodeError::Listen(socket.clone(), e))?;

    let membership = Membership::read(&paths.node())?;
    let part = membership.as_ref().map(|membership| cluster::ground(&paths, membership));
    let mut context = prepare::context(&paths, &config, &build, accounts, part.transpose()?)?;
    let authorities = identities(&mut context, &config, membership.as_ref())?;
    prepare::files(&context)?;
    let is_new = membership.is_none() && !Choices::is_recorded(&paths.node());
    let unseen = match &context.external {
        Some(external) => external::doubt(&paths, external, is_new, config.datastore.adopt).await?,
        None => false,
    };
    // The last moment before something in the kernel or in the datastore is made of them: a start
    // that failed earlier has decided nothing.
    choices.record(&paths.node())?;
    if let Err(reason) = route::ensure(&context.service_cidr, context.address) {
        tracing::error!(reason, "no route to the Services from this machine");
    }

    let clients = ClientSource::new(match context.is_worker() {
        true => paths.daemon_pki(kube_node::NAME).join("kubelet.kubeconfig"),
        false => paths.node().join("admin.kubeconfig"),
    });
    let addons = Addons::new(addon::Settings {
        distribution: build.clone(),
        clients: clients.clone(),
        containerd_socket: paths.containerd_socket(),
    });
    let (supervisor, probes) = supervise(&context, &build, &clients, unseen).await?;
    let board = Arc::new(Board::new(Identity {
        node: context.node_name.clone(),
        skiff_version: env!("CARGO_PKG_VERSION").into(),
        kubernetes_version: build.version_of("kube").into(),
    }));
    board.set_address(Some(context.address.to_string()));
    board.update(|observed| {
        observed.role = context.role();
        observed.external = context.external.as_ref().map(DatastoreView::of);
        // What is said of the cluster is said by its control plane.
        if !context.is_worker() {
            observed.notices = plan::standing_notices();
        }
    });
    let (orders, mut queue) = mpsc::channel(ORDERS_MAX);
    let build_id = distribution::current(&paths.builds()).map(|(id, _)| id.to_string());
    let name = context.node_name.clone();
    let pod_cidr = (!context.is_worker()).then(|| context.pod_cidr.clone());
    let runs_addons = pod_cidr.is_some();
    let kept_settings = running_settings(&paths, membership.as_ref())?;
    let node = Arc::new(Node {
        config: watch::Sender::new(Arc::new(config)),
        kept_settings: Mutex::new(kept_settings),
        setting: tokio::sync::Mutex::default(),
        rotation_wake: tokio::sync::Notify::new(),
        rotation_turn: tokio::sync::Mutex::default(),
        settings_file,
        build,
        build_id: build_id.unwrap_or_default(),
        context: Mutex::new(context),
        probes,
        unseen: AtomicBool::new(unseen),
        authorities,
        clients: clients.clone(),
        cluster: Mutex::default(),
        founding: tokio::sync::Mutex::default(),
        addons,
        board: board.clone(),
        supervisor: supervisor.clone(),
        orders,
    });
    node.renew_notices();
    tokio::spawn(observe::daemons(supervisor.clone(), board.clone()));
    tokio::spawn(observe::node(supervisor.clone(), board.clone(), clients, name, pod_cidr));
    if runs_addons {
        tokio::spawn(observe::addons(node.clone()));
    }
    match membership {
        Some(membership) => drop(cluster::begin(&node, membership)?),
        None => drop(tokio::spawn(cluster::alone::run(node.clone()))),
    }
    tokio::spawn(upkeep::run(node.clone()));
    tokio::spawn(external::watch(node.clone()));
    tokio::spawn(backup::run(node.clone()));
    tokio::spawn(server::serve(listener, node.clone()));
    let ended = carry_out(&node, &mut queue, &paths).await;
    let _ = std::fs::remove_file(&socket);
    ended
}

/// What of the shared settings this node runs with: what it ran with, or those that it joined with.
fn running_settings(paths: &Paths, membership: Option<&Membership>) -> Result<Kept, NodeError> {
    match (Kept::read(&paths.node()), membership) {
        // What failed is tried once more: a start is how a person asks for that.
        (Ok(Some(kept)), _) => Ok(Kept { failed: None, ..kept }),
        (Ok(None) | Err(KeptError::Damaged { .. }), Some(membership)) => {
            let kept = Kept::running(&membership.settings.shared);
            kept.write(&paths.node()).map_err(PrepareError::from)?;
            Ok(kept)
        }
        (Ok(None), None) => Ok(Kept::default()),
        (Err(error), _) => Err(error.into()),
    }
}

/// Keys and certificates: a worker has those that its cluster gave it, and no authority's key.
fn identities(
    context: &mut Context,
    config: &Config,
    membership: Option<&Membership>,
) -> Result<Option<SharedAuthorities>, NodeError> {
    if context.is_worker() {
        prepare::kubeconfigs(context)?;
        return Ok(None);
    }
    let now = OffsetDateTime::now_utc();
    let authorities = prepare::secrets(context, now)?;
    let ttl = Duration::minutes(i64::from(config.pki.leaf_ttl_minutes));
    prepare::leaves(context, &config.api.extra_sans, &authorities, now, ttl)?;
    if let Some(membership) = membership {
        cluster::ensure_member_leaf(&context.paths, membership, &authorities, now)?;
    }
    context.authorities = authorities.stamp();
    Ok(Some(SharedAuthorities::new(authorities)))
}

async fn supervise(
    context: &Context,
    build: &Distribution,
    clients: &ClientSource,
    unseen: bool,
) -> Result<(Handle, Probes), NodeError> {
    let paths = &context.paths;
    let probes = Probes {
        containerd: probe::containerd(paths, build),
        api_server: probe::api_server(clients.clone()),
        agent: probe::agent(),
    };
    let cgroups = skiff_supervisor::cgroup::Cgroups::detect();
    if let Err(error) = cgroups.ensure(&format!("{}/shim", context.cgroup)) {
        tracing::warn!(%error, "no control group for the shims");
    }
    let skiff = context.program("skiff").to_string_lossy().into_owned();
    let config = skiff_supervisor::Config {
        launcher: vec![skiff, "confine".into()],
        records: paths.daemon_records(),
        cgroup: context.cgroup.clone(),
        start: true,
    };
    let mut specs = daemons::specs(context, &probes);
    if unseen {
        specs = external::held_back(specs);
    }
    let supervisor = Supervisor::start(config, specs).await?;
    Ok((supervisor, probes))
}

/// How long a client may take to read the last line of an order.
const LAST_LINE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Waits for orders and signals; returns when skiffd is to end.
async fn carry_out(
    node: &Arc<Node>,
    queue: &mut mpsc::Receiver<Order>,
    paths: &Paths,
) -> Result<(), NodeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Signal)?;
    loop {
        let order = tokio::select! {
            order = queue.recv() => order,
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        match order {
            None => {
                tracing::info!("leaving; the daemons stay");
                return detach(node).await;
            }
            Some(Order::Detach { reply }) => {
                detach(node).await?;
                done(&reply, "skiffd left; the daemons stay").await;
                return Ok(());
            }
            Some(Order::Restart { reply }) => {
                step(&reply, "restarting the daemons one after the other");
                match restart(node).await {
                    Ok(()) => done(&reply, "the daemons were restarted; pods kept running").await,
                    Err(error) => fail(&reply, "the daemons were not restarted", &error).await,
                }
            }
            Some(Order::Stop { reply }) => {
                stop(node, paths, &reply).await;
                done(&reply, "the node is stopped").await;
                return Ok(());
            }
            Some(Order::Reset { reply }) => {
                stop(node, paths, &reply).await;
                step(&reply, "removing the node's state");
                match remove_state(paths) {
                    Ok(()) => done(&reply, "the node is as new").await,
                    Err(error) => fail(&reply, "cannot remove the node's state", &error).await,
                }
                return Ok(());
            }
        }
    }
}

/// Returns when every daemon runs anew and is ready.
async fn restart(node: &Node) -> Result<(), HandleError> {
    let pids = |snapshot: &Snapshot| -> Vec<Option<u32>> {
        snapshot.daemons.iter().map(|daemon| daemon.pid).collect()
    };
    let before = pids(&node.supervisor.snapshot());
    node.supervisor.restart_all().await?;
    let mut changes = node.supervisor.subscribe();
    loop {
        let now = changes.borrow_and_update().clone();
        let anew = pids(&now).iter().zip(&before).all(|(now, before)| now != before);
        if anew && now.all_ready() {
            return Ok(());
        }
        if changes.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn detach(node: &Node) -> Result<(), NodeError> {
    node.supervisor.clone().detach().await.map_err(NodeError::Detach)
}

async fn stop(node: &Node, paths: &Paths, reply: &mpsc::Sender<Progress>) {
    node.board.update(|observed| observed.stopping = true);
    let context = node.context.lock().expect("no holder of this lock panics").clone();
    let kube = context.program("kube");
    let stop = Stop { paths, kube: &kube, cgroup: &context.cgroup, bridge: &context.bridge };
    stop.run(node.supervisor.clone(), |line| step(reply, &line)).await;
    route::remove(&context.service_cidr);
}

fn step(reply: &mpsc::Sender<Progress>, message: &str) {
    // A reader that went away or is slow misses a line; the work goes on.
    let _ = reply.try_send(Progress::Step { message: message.into() });
}

async fn done(reply: &mpsc::Sender<Progress>, message: &str) {
    finish(reply, Progress::Done { message: message.into(), changed: true }).await;
}

async fn fail(reply: &mpsc::Sender<Progress>, message: &str, error: &dyn std::error::Error) {
    let error = skiff_api::ErrorBody {
        message: message.into(),
        causes: vec![error.to_string()],
        hint: None,
    };
    finish(reply, Progress::Failed { error }).await;
}

/// Returns when the last line is on its way to the client, or the client went away: the process may
/// end then. The line is written by the task that has it, before this one goes on: skiffd has one thread.
async fn finish(reply: &mpsc::Sender<Progress>, last: Progress) {
    let _ = reply.send(last).await;
    // A reader that stopped reading holds nobody up.
    let _ = tokio::time::timeout(LAST_LINE_TIMEOUT, reply.closed()).await;
}
