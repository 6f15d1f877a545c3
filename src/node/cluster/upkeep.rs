//! What must stay true of a node in its cluster: that it is a member, its certificates, the lists of
//! API servers and of the datastore's peers; and on a control-plane node what nobody else looks
//! after.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::api::{Api, DeleteParams, ListParams};
use microcluster::message::{Answer, Refusal, RefusalCode, Request};
use microcluster::record::{ClusterSettings, MemberRecord, MemberView, NodeRole, Revision};
use skiff_api::Notice;
use skiff_datastore::member::report::OperatorError;
use skiff_supervisor::HandleError;

use super::ask::AskError;
use super::found::FoundError;
use super::ground::store_lists;
use super::keys::KeyError;
use super::renewal::{Asks, renew_by, renew_when_due};
use super::{Begun, Cluster, ClusterDesk, GroundError, MembershipError, Stage, peers};
use crate::daemons::datastore;
use crate::kube::ClientError;
use crate::node::account::AccountError;
use crate::node::bootstrap;
use crate::node::core::{ElectError, Node};
use crate::node::plan::{JOINED, REMOVED};
use crate::pki::StoreError;

/// How often the cluster is looked at: who comes or goes is known within this time.
const INTERVAL: Duration = Duration::from_secs(15);
/// How often a control-plane node takes away what is over.
const KEEPER_INTERVAL: Duration = Duration::from_secs(60);
/// How long the datastore may be away before others are asked how the cluster is.
const DATASTORE_PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries to follow the record.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the cluster's record cannot be used: {0}")]
    Record(Refusal),
    #[error(transparent)]
    Found(#[from] FoundError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Elect(#[from] ElectError),
    #[error(transparent)]
    Supervisor(#[from] HandleError),
    #[error("cannot remove the line that says how the join is taken back")]
    Forget(#[source] io::Error),
    #[error("the datastore's members cannot be looked after")]
    Peers(#[from] OperatorError),
    #[error("the API server did not do it")]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl UpkeepError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Ask(error) => error.hint(),
            _ => None,
        }
    }
}

/// What is done once in the life of a skiffd, and when something was done last.
#[derive(Default)]
struct Done {
    founded: bool,
    /// The record was read, so there is one to be followed.
    looked: bool,
    roles: bool,
    kept: Option<Instant>,
    /// The last turn did not wait any longer for the datastore here.
    away: bool,
}

/// Never ends. What fails is tried again at the next turn, and told when it is news.
pub async fn run(node: Arc<Node>, cluster: Arc<Cluster>) {
    let mut status = node.watch();
    let mut done = Done::default();
    let mut told = String::new();
    let mut follower = None;
    let own_datastore = [datastore::NAME.into()];
    loop {
        show(&node, &cluster);
        let outcome = turn(&node, &cluster, &mut done).await;
        if done.looked {
            follower.get_or_insert_with(|| tokio::spawn(follow(node.clone(), cluster.clone())));
        }
        if let Err(error) = &outcome {
            tell_removed(&node, error);
        }
        let failure = outcome.err().map(|error| chain(&error)).unwrap_or_default();
        if failure != told && !failure.is_empty() {
            tracing::warn!(
                reason = failure,
                "the node's part in its cluster is not as it should be"
            );
        }
        told = failure;
        show(&node, &cluster);
        let joining = cluster.membership().stage == Stage::Joining;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = cluster.wake.notified() => {}
            _ = status.changed(), if joining => {}
            // The record is old by then: perhaps everybody is somewhere else, this node too.
            _ = node.supervisor.wait_ready(&own_datastore), if done.away => {}
        }
    }
}

async fn turn(node: &Node, cluster: &Cluster, done: &mut Done) -> Result<(), UpkeepError> {
    let membership = cluster.membership();
    match &cluster.desk {
        Some(desk) => {
            let names = [datastore::NAME.into()];
            let ready = node.supervisor.wait_ready(&names);
            let waited = tokio::time::timeout(DATASTORE_PATIENCE, ready).await;
            done.away = waited.is_err();
            match waited {
                Ok(ready) => ready?,
                // Perhaps the others go on without this node; they say so, or where they are now.
                Err(_) if membership.others().is_empty() => return Ok(()),
                Err(_) => return hear_of_others(node, cluster).await,
            }
            if !done.founded && membership.is_founder() {
                cluster.ensure_founded(node).await?;
                done.founded = true;
            }
            look(node, cluster, desk).await?;
            done.looked = true;
            confirm_when_ready(node, cluster).await?;
            renew_when_due(node, cluster).await?;
            if cluster.membership().stage == Stage::Joining {
                return Ok(());
            }
            // Before the rest: until then not even this node's kubelet dials its API server.
            let told = tell_api_port(node, cluster, desk).await;
            look_at_peers(cluster, desk).await?;
            keep(node, desk, done).await?;
            told
        }
        None => {
            // First: with certificates that have ended, nothing else is answered.
            renew_when_due(node, cluster).await?;
            confirm_when_ready(node, cluster).await?;
            hear_of_others(node, cluster).await
        }
    }
}

async fn hear_of_others(node: &Node, cluster: &Cluster) -> Result<(), UpkeepError> {
    match cluster.ask_others(Request::Members {}).await {
        // Its time is over, or its authority was replaced while the node was off.
        Err(AskError::Refused(refusal)) if refusal.code == RefusalCode::IdentityStale => {
            renew_by(node, cluster, true, Asks::Others).await
        }
        Ok(Answer::Members { members, settings }) => note(node, cluster, members, settings).await,
        answer => answer.map(drop).map_err(UpkeepError::from),
    }
}

/// The node's own setting may have changed since the cluster was founded, and other nodes dial what
/// the record says.
async fn tell_api_port(
    node: &Node,
    cluster: &Cluster,
    desk: &ClusterDesk,
) -> Result<(), UpkeepError> {
    let port = node.context().api_port;
    if cluster.membership().settings.api_port == port {
        return Ok(());
    }
    desk.set_api_port(port).await.map_err(UpkeepError::Record)?;
    tracing::info!(port, "the cluster knows where the API server listens now");
    look(node, cluster, desk).await?;
    Ok(())
}

/// Takes over at once what the record says, whenever it is another one: a node that joins is let in
/// by the datastore, and one that was removed is not any more. Never ends.
async fn follow(node: Arc<Node>, cluster: Arc<Cluster>) {
    let Some(desk) = &cluster.desk else { return };
    loop {
        if node.supervisor.wait_ready(&[datastore::NAME.into()]).await.is_err() {
            return;
        }
        let seen = match look(&node, &cluster, desk).await {
            Ok(seen) => desk.later_than(seen).await.map(drop).map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        if let Err(reason) = seen {
            tracing::debug!(reason, "the record is not followed");
            tokio::time::sleep(FOLLOW_PAUSE).await;
        }
    }
}

/// Tells the cluster that nothing is missing but its word.
async fn confirm_when_ready(node: &Node, cluster: &Cluster) -> Result<(), UpkeepError> {
    let membership = cluster.membership();
    if membership.stage == Stage::Joining && is_ready_but_for_joining(node) {
        cluster.ask(Request::Confirm {}).await?;
        // Of a join that was being taken back when the cluster had the last word already.
        // Before the stage: what fails is done again at the next turn, as a whole.
        Begun::remove(&cluster.paths.node()).map_err(UpkeepError::Forget)?;
        cluster.update(|membership| membership.stage = Stage::Member)?;
        tracing::info!(name = %membership.name, "joined");
    }
    Ok(())
}

/// Takes over what the record says; as of which revision.
pub(super) async fn look(
    node: &Node,
    cluster: &Cluster,
    desk: &ClusterDesk,
) -> Result<Revision, UpkeepError> {
    let _turn = cluster.looking.lock().await;
    let record = desk.record().await.map_err(UpkeepError::Record)?;
    // Known at once, also while the join of this node is not over.
    if let Some(removed) = record.removed.get(&cluster.membership().id) {
        notice_removed(node, format!("this node {}", removed.value.reason.sentence()));
    }
    let members = record.living().map(MemberRecord::view).collect();
    note(node, cluster, members, Some(record.settings.value.clone())).await?;
    Ok(record.revision)
}

/// What this node's member of the datastore does; and whose member is over goes.
async fn look_at_peers(cluster: &Cluster, desk: &ClusterDesk) -> Result<(), UpkeepError> {
    let members = peers::list(&cluster.paths).await?;
    let role = peers::role_of(&members, cluster.membership().id);
    *cluster.datastore.lock().expect("no holder of this lock panics") = role;
    let record = desk.record().await.map_err(UpkeepError::Record)?;
    Ok(peers::reconcile(&cluster.paths, &members, &record).await?)
}

pub(super) async fn note(
    node: &Node,
    cluster: &Cluster,
    members: Vec<MemberView>,
    settings: Option<ClusterSettings>,
) -> Result<(), UpkeepError> {
    let before = cluster.membership();
    cluster.update(|membership| {
        // Whoever tells of nobody knows nothing: the ones that were known are still worth a try.
        if members.iter().any(|member| member.role == NodeRole::ControlPlane) {
            membership.members = members;
        }
        membership.settings = settings.unwrap_or_else(|| membership.settings.clone());
    })?;
    cluster.settings_wake.notify_one();
    let membership = cluster.membership();
    if membership != before {
        node.rotation_wake.notify_one();
    }
    store_lists(&cluster.paths, &membership)?;
    Ok(node.elect(membership.elects()).await?)
}

/// What is over goes: tokens, joins that nobody finished, and Node objects of nodes that were
/// removed.
async fn keep(node: &Node, desk: &ClusterDesk, done: &mut Done) -> Result<(), UpkeepError> {
    let client = node.clients.client().await?;
    if !done.roles {
        bootstrap::apply_network(&client).await?;
        done.roles = true;
    }
    if done.kept.is_none_or(|kept| kept.elapsed() >= KEEPER_INTERVAL) {
        desk.expire().await.map_err(UpkeepError::Record)?;
        done.kept = Some(Instant::now());
    }
    let api: Api<KubeNode> = Api::all(client);
    // Read before the record: a Node that is there has a member then, or none any more.
    let there = api.list_metadata(&ListParams::default()).await?;
    let record = desk.record().await.map_err(UpkeepError::Record)?;
    let removed: BTreeSet<&str> = record
        .removed
        .values()
        .filter_map(|removed| removed.value.name.as_ref())
        .filter(|name| !record.members.contains_key(*name))
        .map(|name| name.as_str())
        .collect();
    for name in there.items.iter().filter_map(|object| object.metadata.name.as_deref()) {
        if removed.contains(name) {
            tracing::info!(
                node = name,
                "its Node goes: it does not belong to the cluster any more"
            );
            match api.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(refusal)) if refusal.code == 404 => {}
                outcome => drop(outcome?),
            }
        }
    }
    Ok(())
}

/// Whether nothing is missing but the cluster's word.
fn is_ready_but_for_joining(node: &Node) -> bool {
    let status = node.status();
    status.conditions.iter().all(|condition| condition.holds || condition.name == JOINED)
}

fn show(node: &Node, cluster: &Cluster) {
    let membership = cluster.membership();
    let datastore = cluster.datastore.lock().expect("no holder of this lock panics").clone();
    node.board.update(|observed| {
        observed.role = Some(membership.role);
        observed.joining = membership.stage == Stage::Joining;
        observed.cluster = Some(membership.part(datastore));
    });
}

fn tell_removed(node: &Node, error: &UpkeepError) {
    let UpkeepError::Ask(AskError::Refused(refusal)) = error else { return };
    if matches!(refusal.code, RefusalCode::Removed | RefusalCode::NotMember) {
        notice_removed(node, refusal.message.clone());
    }
}

fn notice_removed(node: &Node, message: String) {
    let notice = Notice {
        name: REMOVED.into(),
        message,
        remedy: Some("`sudo skiff reset` makes the machine free for another start or join".into()),
    };
    node.board.update(|observed| {
        observed.notices.retain(|notice| notice.name != REMOVED);
        observed.notices.insert(0, notice);
    });
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
