//! What skiffd knows of its node right now.

use microcluster::record::NodeRole;
use skiff_api::{Addon, BackupPart, ClusterPart, Notice, Service};

use crate::daemons::{External, Kept};

/// Facts, gathered by the tasks of skiffd; no judgement in here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// What every daemon's supervisor says, in the order of their needs.
    pub services: Vec<Service>,
    /// The Node object of this machine, once the API server told of it.
    pub node: NodeView,
    pub addons: Vec<Addon>,
    /// Limits of this version and things that need a hand.
    pub notices: Vec<Notice>,
    /// In a cluster of several nodes; none on a lone node.
    pub role: Option<NodeRole>,
    pub cluster: Option<ClusterPart>,
    /// Archives that are taken by a schedule.
    pub backup: Option<BackupPart>,
    /// The cluster does not know yet that this node is ready.
    pub joining: bool,
    /// Who keeps Kubernetes' objects, when that is not Skiff's own datastore.
    pub external: Option<DatastoreView>,
    /// The daemons are being ended.
    pub stopping: bool,
    /// The node was ready at least once since this skiffd started.
    pub was_ready: bool,
    /// Why the node could not be prepared; nothing runs then.
    pub failure: Option<String>,
}

/// An external datastore as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreView {
    pub kept: Kept,
    /// What it is and where.
    pub what: String,
    /// Why it does not answer, if so.
    pub failure: Option<String>,
}

impl DatastoreView {
    /// Before it was asked.
    pub fn of(external: &External) -> Self {
        let failure = Some("it was not asked yet".into());
        Self { kept: external.kept(), what: external.sentence(), failure }
    }
}

/// What Kubernetes says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    pub registered: bool,
    /// The API server has created what every cluster has: roles, priority classes.
    pub api_complete: bool,
    pub ready: bool,
    /// The kubelet's own sentence while it is not ready.
    pub message: String,
}
