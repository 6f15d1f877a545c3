//! What skiffd is while it runs, and what it answers.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use microcluster::record::NodeRole;
use skiff_api::{
    AddonDetails, AddonDiff, ClientCertificate, CredentialRequest, EnableRequest,
    KubeconfigRequest, NodeSettings, Progress, Service, ServiceAction, Setting, Status, Version,
};
use skiff_supervisor::{DaemonSpec, Handle, HandleError};
use time::{Duration, OffsetDateTime};
use tokio::sync::{Notify, mpsc, watch};

use super::authorities::{Authorities, SharedAuthorities};
use super::cluster::{self, Cluster, LeafError};
use super::credential::{self, CredentialError};
use super::prepare::{self, PrepareError};
use super::settings::{Kept, renew_notices};
use super::status::{Board, service};
use super::{external, route};
use crate::addon::{self, AddonError, Addons, Facts};
use crate::config::Config;
use crate::daemons::{self, Context, Probes};
use crate::distribution::Distribution;
use crate::host::{address, resolver};
use crate::kube::ClientSource;
use crate::paths::Paths;
use crate::pki::StoreError;

/// What the server hands to skiffd's main task; each reports on its own stream.
#[derive(Debug)]
pub enum Order {
    /// End pods and daemons, leave nothing, exit.
    Stop { reply: mpsc::Sender<Progress> },
    /// Restart the daemons one after the other; pods stay.
    Restart { reply: mpsc::Sender<Progress> },
    /// Stop, then remove the node's state.
    Reset { reply: mpsc::Sender<Progress> },
    /// Exit and leave everything running, for another skiffd to adopt.
    Detach { reply: mpsc::Sender<Progress> },
}

/// Why certificates were not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Member(#[from] LeafError),
}

/// Why the controllers were not told that there are more of them.
#[derive(Debug, thiserror::Error)]
pub enum ElectError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the daemons were not told")]
    Supervisor(#[from] HandleError),
}

/// skiffd's shared state.
pub struct Node {
    /// The settings that hold now.
    pub(super) config: watch::Sender<Arc<Config>>,
    /// What of the shared ones it runs with.
    pub(super) kept_settings: Mutex<Kept>,
    /// One takes up other settings at a time.
    pub(super) setting: tokio::sync::Mutex<()>,
    /// New authorities may be on their way.
    pub(super) rotation_wake: Notify,
    /// Alone, one decides about them at a time.
    pub(super) rotation_turn: tokio::sync::Mutex<()>,
    /// Where the settings were read.
    pub(super) settings_file: PathBuf,
    pub(super) build: Distribution,
    pub(super) build_id: String,
    pub(super) context: Mutex<Context>,
    pub(super) probes: Probes,
    /// Nobody has seen yet that the external datastore holds nobody's objects.
    pub(super) unseen: AtomicBool,
    /// None on a worker.
    pub(super) authorities: Option<SharedAuthorities>,
    pub(super) clients: ClientSource,
    /// This node's part in a cluster of several.
    pub(super) cluster: Mutex<Option<Arc<Cluster>>>,
    /// One founds a cluster at a time.
    pub(super) founding: tokio::sync::Mutex<()>,
    pub(super) addons: Addons,
    pub(super) board: Arc<Board>,
    pub(super) supervisor: Handle,
    pub(super) orders: mpsc::Sender<Order>,
}

impl Node {
    pub fn status(&self) -> Status {
        self.board.status()
    }

    pub fn watch(&self) -> watch::Receiver<Status> {
        self.board.watch()
    }

    pub fn version(&self) -> Version {
        Version {
            skiff: env!("CARGO_PKG_VERSION").into(),
            build: self.build_id.clone(),
            arch: self.build.arch.clone(),
            components: self.build.components.clone(),
        }
    }

    pub fn settings(&self) -> Vec<Setting> {
        self.config().settings()
    }

    /// The settings that hold now.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    pub(super) fn set_config(&self, config: Arc<Config>) {
        self.config.send_replace(config);
        self.renew_notices();
    }

    /// As `skiff nodes` tells it of a node that is alone.
    pub(super) fn own_settings(&self) -> NodeSettings {
        let revision = self.kept_settings().set.revision.0;
        NodeSettings { revision, newest: revision, failed: false, reason: None }
    }

    pub(super) fn kept_settings(&self) -> Kept {
        self.kept_settings.lock().expect("no holder of this lock panics").clone()
    }

    /// Remembers what of the shared settings this node runs with.
    pub(super) fn keep_settings(&self, kept: Kept) -> Result<(), StoreError> {
        kept.write(&self.paths().node())?;
        *self.kept_settings.lock().expect("no holder of this lock panics") = kept;
        self.renew_notices();
        Ok(())
    }

    pub(super) fn renew_notices(&self) {
        let (config, kept) = (self.config(), self.kept_settings());
        self.board.update(|observed| renew_notices(&mut observed.notices, &config, &kept));
    }

    pub(super) fn paths(&self) -> Paths {
        self.context.lock().expect("no holder of this lock panics").paths.clone()
    }

    pub(super) fn root(&self) -> PathBuf {
        self.paths().root().into()
    }

    pub(super) fn builds(&self) -> PathBuf {
        self.paths().builds()
    }

    pub(super) fn context(&self) -> Context {
        self.context.lock().expect("no holder of this lock panics").clone()
    }

    /// The daemons as they should be. While nobody has seen that an external datastore is free,
    /// nothing writes into it.
    pub(super) fn specs(&self, context: &Context) -> Vec<DaemonSpec> {
        let specs = daemons::specs(context, &self.probes);
        match self.unseen.load(Ordering::Relaxed) {
            true => external::held_back(specs),
            false => specs,
        }
    }

    /// Changes it and answers what it is then.
    pub(super) fn update_context(&self, change: impl FnOnce(&mut Context)) -> Context {
        let mut context = self.context.lock().expect("no holder of this lock panics");
        change(&mut context);
        context.clone()
    }

    pub(super) fn set_context(&self, context: Context) {
        *self.context.lock().expect("no holder of this lock panics") = context;
    }

    /// None on a node that is alone.
    pub(super) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.lock().expect("no holder of this lock panics").clone()
    }

    /// What signs here, and whom the node believes; none on a worker.
    pub(super) fn authorities(&self) -> Option<Arc<Authorities>> {
        self.authorities.as_ref().map(SharedAuthorities::now)
    }

    /// The cluster whose control plane is elsewhere.
    pub(super) fn worker_of(&self) -> Option<Arc<Cluster>> {
        self.cluster().filter(|_| self.authorities.is_none())
    }

    /// The version of Kubernetes that runs here.
    pub(super) fn kubernetes(&self) -> microcluster::version::Version {
        cluster::version_of(self.build.version_of("kube"))
    }

    /// Daemons with processor time and memory, measured now.
    pub async fn services_with_usage(&self) -> Vec<Service> {
        match self.supervisor.measure().await {
            Ok(daemons) => daemons.iter().map(service).collect(),
            // The supervisor ended: what was last published is all there is.
            Err(_) => self.status().services,
        }
    }

    pub async fn act_on_service(&self, name: &str, action: ServiceAction) -> Result<(), String> {
        let name = name.into();
        let outcome = match action {
            ServiceAction::Start => self.supervisor.start(&name).await,
            ServiceAction::Stop => self.supervisor.stop(&name).await.map(drop),
            ServiceAction::Restart => self.supervisor.restart(&name).await.map(drop),
        };
        outcome.map_err(|error| error.to_string())
    }

    pub fn kubeconfig(&self, request: &KubeconfigRequest) -> Result<String, CredentialError> {
        let server = {
            let context = self.context.lock().expect("no holder of this lock panics");
            match context.address {
                std::net::IpAddr::V4(v4) => format!("https://{v4}:{}", context.api_port),
                std::net::IpAddr::V6(v6) => format!("https://[{v6}]:{}", context.api_port),
            }
        };
        let authorities = self.authorities().ok_or(CredentialError::Worker)?;
        credential::kubeconfig(&authorities, request, &server, OffsetDateTime::now_utc())
    }

    pub fn credential(
        &self,
        request: &CredentialRequest,
    ) -> Result<ClientCertificate, CredentialError> {
        let authorities = self.authorities().ok_or(CredentialError::Worker)?;
        credential::certificate(&authorities, request, OffsetDateTime::now_utc())
    }

    /// The addon that a name or an alias stands for, with all that can be said of it.
    pub fn addon(&self, name: &str) -> Result<AddonDetails, AddonError> {
        let found = self.addons.find(name)?;
        let known = self.status().addons.into_iter().find(|addon| addon.name == found.name);
        let known = known.unwrap_or_else(|| addon::unseen(&found));
        Ok(addon::details(known, &found.definition))
    }

    pub async fn addon_diff(&self, name: &str) -> Result<AddonDiff, AddonError> {
        self.addons.diff(name, &self.facts()).await
    }

    pub async fn upgrade_addon(
        &self,
        name: &str,
        request: &EnableRequest,
        report: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Progress, AddonError> {
        self.addons.upgrade(name, request, &self.facts(), report).await
    }

    pub async fn enable(
        &self,
        name: &str,
        request: &EnableRequest,
        report: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Progress, AddonError> {
        self.addons.enable(name, request, &self.facts(), report).await
    }

    pub async fn disable(
        &self,
        name: &str,
        request: &EnableRequest,
        report: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Progress, AddonError> {
        self.addons.disable(name, request, report).await
    }

    /// Brings the enabled addons in step with this build and the facts of today.
    pub(super) async fn reconcile_addons(&self) {
        if self.authorities.is_none() {
            return;
        }
        let log = |line| tracing::info!(?line, "addon");
        if let Err(error) = self.addons.reconcile(&self.facts(), &log).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the addons may not be as this build has them");
        }
    }

    /// What the manifests of addons may ask for, as it is now.
    pub(super) fn facts(&self) -> Facts {
        let context = self.context.lock().expect("no holder of this lock panics");
        let resolvers = std::fs::read_to_string(&context.resolver).unwrap_or_default();
        Facts {
            dns_address: context.dns_address,
            domain: context.domain.clone(),
            pod_cidr: context.pod_cidr.clone(),
            service_cidr: context.service_cidr.clone(),
            resolvers: resolver::usable(&resolvers),
        }
    }

    /// Renews what is due; answers when to look again.
    pub(super) fn renew_leaves(&self, now: OffsetDateTime) -> Result<OffsetDateTime, RenewError> {
        let config = self.config();
        let ttl = Duration::minutes(i64::from(config.pki.leaf_ttl_minutes));
        // A worker asks its cluster, see `cluster/upkeep.rs`.
        let Some(authorities) = self.authorities() else { return Ok(now + ttl / 2) };
        let (context, sans) = (self.context(), &config.api.extra_sans);
        let next = prepare::leaves(&context, sans, &authorities, now, ttl)?;
        let Some(cluster) = self.cluster() else { return Ok(next) };
        let membership = cluster.membership();
        let own = cluster::ensure_member_leaf(&context.paths, &membership, &authorities, now)?;
        Ok(next.min(own))
    }

    /// Has the controllers of several nodes agree on one, or those of the only node not ask.
    pub(super) async fn elect(&self, elects: bool) -> Result<(), ElectError> {
        let context = {
            let mut context = self.context.lock().expect("no holder of this lock panics");
            let part = context.cluster.as_mut().filter(|part| part.role == NodeRole::ControlPlane);
            match part.filter(|part| part.elects != elects) {
                Some(part) => part.elects = elects,
                None => return Ok(()),
            }
            context.clone()
        };
        tracing::info!(elects, "the number of control-plane nodes is another one");
        prepare::files(&context)?;
        Ok(self.supervisor.reconfigure(self.specs(&context)).await?)
    }

    /// New leaves for all daemons that an authority here signs for; answers how many.
    pub(super) fn replace_leaves(&self, now: OffsetDateTime) -> Result<usize, RenewError> {
        let config = self.config();
        let ttl = Duration::minutes(i64::from(config.pki.leaf_ttl_minutes));
        let Some(authorities) = self.authorities() else { return Ok(0) };
        let (context, sans) = (self.context(), &config.api.extra_sans);
        let count = prepare::all_leaves(&context, sans, &authorities, now, ttl)?;
        let Some(cluster) = self.cluster() else { return Ok(count) };
        let membership = cluster.membership();
        cluster::replace_member_leaf(&context.paths, &membership, &authorities, now)?;
        Ok(count + 1)
    }

    /// Takes the machine's new address over, when it has one: certificates, then the daemons that
    /// were told the old one. Pods stay.
    pub(super) async fn follow_address(&self) -> bool {
        if self.config().node.address.is_some() {
            return false;
        }
        let candidates = address::candidates();
        let context = {
            let mut context = self.context.lock().expect("no holder of this lock panics");
            let Some(address) = address::follow(context.address, &candidates) else {
                return false;
            };
            tracing::info!(from = %context.address, to = %address, "the node's address changed");
            context.address = address;
            context.clone()
        };
        self.board.set_address(Some(context.address.to_string()));
        if let Err(reason) = route::ensure(&context.service_cidr, context.address) {
            tracing::error!(reason, "no route to the Services from this machine");
        }
        if let Err(error) = self.renew_leaves(OffsetDateTime::now_utc()) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no leaf for the new address"
            );
        }
        if let Err(error) = prepare::files(&context) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no files for the new address"
            );
            return true;
        }
        let specs = self.specs(&context);
        if let Err(error) = self.supervisor.reconfigure(specs).await {
            tracing::error!(%error, "the daemons were not told of the new address");
        }
        if let Some(cluster) = self.cluster() {
            cluster.wake();
        }
        true
    }
}
