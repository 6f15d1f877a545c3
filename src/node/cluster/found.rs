//! Founding: a lone node becomes the first of a cluster. Pods go on; the datastore and the kubelet
//! are told anew.
//!
//! The membership on the disk is what makes a node one of a cluster, and it is written when
//! everything that it needs is there. What follows is done again at each start until it is done.

use std::sync::Arc;

use microcluster::message::Refusal;
use microcluster::protocol::{Founder, decide_found};
use microcluster::record::{
    ClusterId, ClusterSettings, Fingerprint, NodeRole, Rest, Rotation, RotationRecord,
    SharedSettings,
};
use microcluster::store::Change;
use microcluster::trust::{Purpose, Signer, order_leaf, read_request};
use skiff_api::Progress;
use skiff_supervisor::{DaemonSpec, HandleError};
use time::{Duration, OffsetDateTime};

use super::keys::{KeyError, Keys};
use super::member_leaf::{self, LeafError};
use super::signer::AuthoritySigner;
use super::{
    Cluster, GroundError, Membership, MembershipError, Stage, alone, begin, ground, release,
};
use crate::config::{Config, datastore_name};
use crate::daemons::{Context, agent, datastore, kube_node};
use crate::host;
use crate::node::authorities::{Authorities, SharedAuthorities};
use crate::node::core::Node;
use crate::node::prepare::{self, PrepareError};

#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    #[error("this node is a worker: nodes are added on a control-plane node")]
    Worker,
    #[error("port {port}, which a node of a cluster needs, is taken by {who}")]
    Port { port: u16, who: String },
    #[error("the setting {key} cannot be that of a cluster: {why}")]
    Setting { key: &'static str, why: String },
    #[error("{0}")]
    Refused(Refusal),
    #[error("the node's identity cannot be signed: {0}")]
    Sign(String),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the daemons were not told of the cluster")]
    Supervisor(#[from] HandleError),
    #[error("{0} did not come back as that of a cluster")]
    Late(&'static str),
}

impl FoundError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Port { .. } => Some("stop it, then skiff add-node".into()),
            _ => None,
        }
    }
}

/// How long the daemons may take to come back with what they were told.
const DAEMONS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Between two tries to write the record.
const FOUND_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// Founds the cluster, or answers false: there is one.
pub async fn found(
    node: &Arc<Node>,
    report: &(dyn Fn(Progress) + Send + Sync),
) -> Result<bool, FoundError> {
    let _turn = node.founding.lock().await;
    if let Some(cluster) = node.cluster() {
        return match cluster.desk {
            Some(_) => Ok(false),
            None => Err(FoundError::Worker),
        };
    }
    let shared = node.authorities.as_ref().ok_or(FoundError::Worker)?;
    // What is set meanwhile is set for the cluster.
    let _still = node.setting.lock().await;
    let root = node.root().to_string_lossy().into_owned();
    if let Some(taken) = host::on_ports(&[agent::API_PORT, agent::PORT], &root).into_iter().next() {
        let who = taken.process.unwrap_or_else(|| "somebody".into());
        return Err(FoundError::Port { port: taken.port, who });
    }
    let step = |message: &str| report(Progress::Step { message: message.into() });
    step("making this node the first of a cluster");
    let (context, authorities) = (node.context(), shared.now());
    let now = OffsetDateTime::now_utc();
    let membership = prepare_membership(node, &context, shared, now)?;
    let mut context = Context { cluster: None, ..context };
    context.cluster = Some(ground(&context.paths, &membership)?);
    prepare::kubeconfigs(&context)?;
    let config = node.config();
    let ttl = Duration::minutes(i64::from(config.pki.leaf_ttl_minutes));
    prepare::leaves(&context, &config.api.extra_sans, &authorities, now, ttl)?;
    member_leaf::ensure(&context.paths, &membership, &authorities, now)?;
    membership.write(&context.paths.node())?;
    prepare::files(&context)?;
    let specs = node.specs(&context);
    node.set_context(context);
    step("telling the datastore and the kubelet");
    let told = tell(node, specs).await;
    // Also when a daemon is late: from here on this is a node of a cluster.
    let cluster = begin(node, membership)?;
    told?;
    step("writing who belongs to the cluster");
    let founded = async {
        while let Err(error) = cluster.ensure_founded(node).await {
            tracing::debug!(%error, "not founded yet");
            tokio::time::sleep(FOUND_PAUSE).await;
        }
    };
    let founded = tokio::time::timeout(DAEMONS_TIMEOUT, founded).await;
    founded.map_err(|_| FoundError::Late(datastore::NAME))?;
    cluster.wake();
    Ok(true)
}

/// Replaces the daemons that run otherwise in a cluster, and waits for them.
async fn tell(node: &Node, specs: Vec<DaemonSpec>) -> Result<(), FoundError> {
    node.supervisor.reconfigure(specs).await?;
    for name in [datastore::NAME, agent::NAME, kube_node::NAME] {
        let names = [name.into()];
        let ready = node.supervisor.wait_ready(&names);
        let ready = tokio::time::timeout(DAEMONS_TIMEOUT, ready).await;
        ready.map_err(|_| FoundError::Late(name))??;
    }
    Ok(())
}

/// Makes the node's own identity, and says what the cluster is.
fn prepare_membership(
    node: &Node,
    context: &Context,
    authorities: &SharedAuthorities,
    now: OffsetDateTime,
) -> Result<Membership, FoundError> {
    let shared = node.kept_settings().set;
    let settings = ClusterSettings {
        rotation: alone::record(&context.paths)?,
        ..settings(&node.config(), shared, context, &authorities.now())?
    };
    // What was on its way here goes on in the cluster.
    let settings = match settings.rotation.current.as_deref().map(Rotation::authorities) {
        Some(authorities) => ClusterSettings { authorities, ..settings },
        None => settings,
    };
    let keys = Keys::generate(&[Purpose::Node])?;
    let founder = founder(context, &keys, node)?;
    let member = decide_found(&settings, &founder, now).map_err(FoundError::Refused)?.changes;
    let member = member.into_iter().find_map(|change| match change {
        Change::PutMember { member, .. } => Some(*member),
        _ => None,
    });
    let member = member.ok_or_else(|| FoundError::Sign("no member was decided".into()))?;
    // As everybody else's: from a request that proves the key.
    let key = read_request(&keys.request(Purpose::Node)?)
        .map_err(|error| FoundError::Sign(error.to_string()))?;
    let signer = AuthoritySigner::new(authorities.clone(), context.paths.pki());
    let leaf = signer.sign(&order_leaf(Purpose::Node, &member, &key, now), &settings);
    let leaf = leaf.map_err(|error| FoundError::Sign(error.to_string()))?;
    let membership = Membership {
        name: member.name.clone(),
        id: member.id,
        role: NodeRole::ControlPlane,
        stage: Stage::Member,
        settings,
        members: vec![member.view()],
        endpoints: vec![],
        labels: Default::default(),
        taints: vec![],
    };
    let account = ground(&context.paths, &membership)?.agent;
    keys.store(&[leaf], &context.paths, account)?;
    Ok(membership)
}

/// What the node says of itself, now and at each start until the record has it.
fn founder(context: &Context, keys: &Keys, node: &Node) -> Result<Founder, FoundError> {
    let setting = |key, why: String| FoundError::Setting { key, why };
    let name = context.node_name.parse();
    Ok(Founder {
        name: name.map_err(|error: microcluster::record::NodeNameError| {
            setting("node.name", error.to_string())
        })?,
        addresses: vec![context.address],
        public_key: keys.node_key(),
        release: release(),
        kubernetes: node.kubernetes(),
        failure_domain: String::new(),
    })
}

/// What every node of the cluster will share.
fn settings(
    config: &Config,
    shared: SharedSettings,
    context: &Context,
    authorities: &Authorities,
) -> Result<ClusterSettings, FoundError> {
    let range = |key: &'static str, text: &str| {
        let failed =
            |error: ipnet::AddrParseError| FoundError::Setting { key, why: error.to_string() };
        text.parse::<ipnet::IpNet>().map(|range| vec![range.trunc()]).map_err(failed)
    };
    let authority = Fingerprint::of(&authorities.cluster.certificate_der());
    Ok(ClusterSettings {
        // The first authority names the cluster, so that founding it again makes the same one.
        cluster: ClusterId(authority.to_string().chars().take(16).collect()),
        pod_cidrs: range("network.pod-cidr", &context.pod_cidr)?,
        service_cidrs: range("network.service-cidr", &context.service_cidr)?,
        dns_domain: context.domain.clone(),
        dns_address: context.dns_address,
        api_names: config.api.extra_sans.clone(),
        api_port: context.api_port,
        authorities: vec![authority],
        datastore: datastore_name(config.datastore.endpoint()),
        shared,
        rotation: RotationRecord::default(),
        rest: Rest::default(),
    })
}

impl Cluster {
    /// Writes the record of a cluster of one, unless there is a record.
    pub(super) async fn ensure_founded(&self, node: &Node) -> Result<(), FoundError> {
        let Some(desk) = &self.desk else { return Ok(()) };
        let founder = founder(&node.context(), &Keys::of_node(&self.paths)?, node)?;
        match desk.found(&self.membership().settings, &founder).await {
            Err(refusal) if refusal.code != microcluster::message::RefusalCode::AlreadyFounded => {
                Err(FoundError::Refused(refusal))
            }
            _ => Ok(()),
        }
    }
}
