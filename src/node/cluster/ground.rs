//! What must be on the disk before a node's daemons run as those of a cluster.

use std::io;
use std::path::PathBuf;

use microcluster::balancer::backends;
use microcluster::record::NodeRole;
use microcluster::store::StoreError;
use skiff_datastore::member::nodes::{NodeList, NodesError};
use skiff_datastore::member::open::is_lone_store;

use super::{Membership, MembershipError, ways};
use crate::daemons::{self, agent};
use crate::node::account::{self, AccountError};
use crate::node::layout::{self, LayoutError};
use crate::paths::Paths;

#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("the list of API servers cannot be kept")]
    Backends(#[from] backends::BackendsError),
    #[error("the list of the datastore's peers cannot be kept")]
    Nodes(#[from] NodesError),
    #[error("the cluster's record cannot be kept")]
    Record(#[from] StoreError),
    #[error("cannot listen on {}", .0.display())]
    Listen(PathBuf, #[source] io::Error),
}

/// Makes the accounts, the directories and the lists of who is where; safe to repeat.
pub fn ground(paths: &Paths, membership: &Membership) -> Result<daemons::Cluster, GroundError> {
    let agent = account::ensure_agent()?;
    layout::ensure_cluster(paths, agent)?;
    if membership.role == NodeRole::ControlPlane {
        layout::ensure_member(paths, agent, account::ensure()?.datastore)?;
    }
    store_lists(paths, membership)?;
    Ok(daemons::Cluster {
        role: membership.role,
        id: membership.id,
        agent,
        labels: membership.labels.clone(),
        taints: membership.taints.clone(),
        join: ways_in(paths, membership),
        elects: membership.elects(),
    })
}

/// Through whom the datastore becomes a member. One that was recovered here is the first again.
fn ways_in(paths: &Paths, membership: &Membership) -> Vec<String> {
    match is_lone_store(&paths.datastore()) {
        true => vec![],
        false => membership.endpoints.iter().map(ToString::to_string).collect(),
    }
}

/// Tells the balancer and the datastore who there is, when that has changed.
pub fn store_lists(paths: &Paths, membership: &Membership) -> Result<(), GroundError> {
    store_backends(paths, membership)?;
    if membership.role == NodeRole::Worker {
        return Ok(());
    }
    let path = paths.datastore_nodes();
    let wanted = NodeList { ways: ways::of(paths, membership), ..membership.datastore_nodes() };
    // One that cannot be read is replaced.
    if NodeList::load(&path).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    Ok(wanted.store(&path)?)
}

fn store_backends(paths: &Paths, membership: &Membership) -> Result<(), GroundError> {
    let path = agent::backends(paths);
    let wanted = membership.backends();
    // One that cannot be read is replaced.
    if wanted.is_empty() || backends::load(&path).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    Ok(backends::store(&path, &wanted)?)
}
