//! What skiffd knows of its node right now.

use skiff_api::{Addon, Notice, Service};

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
    /// The daemons are being ended.
    pub stopping: bool,
    /// The node was ready at least once since this skiffd started.
    pub was_ready: bool,
    /// Why the node could not be prepared; nothing runs then.
    pub failure: Option<String>,
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
