//! Several nodes: tokens to join with, and who belongs to the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a node is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPart {
    /// `control-plane` or `worker`.
    pub role: String,
    /// What the node does for the datastore: `leader`, `voter`, `stand-by` or `spare`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Name and address of each node that runs the control plane.
    pub control_plane: Vec<(String, String)>,
}

/// `POST /v1/cluster/tokens`: answers a [`Token`] with its text, which is told only once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRequest {
    /// Only a node of this name may join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `key=value:Effect`
    #[serde(default)]
    pub taints: Vec<String>,
    pub ttl_s: u64,
    pub uses: u32,
    /// It is for a worker; otherwise for a node that runs the control plane.
    #[serde(default)]
    pub worker: bool,
}

/// A token to join with. `GET /v1/cluster/tokens` answers all, without their texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its name in the open.
    pub id: String,
    pub role: String,
    pub state: TokenState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub uses: u32,
    pub uses_left: u32,
    /// RFC 3339.
    pub expires: String,
    /// What is typed on the machine that joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Whether somebody can join with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    Live,
    Used,
    Expired,
    Revoked,
    /// Too many joins with it were given up.
    WornOut,
}

/// A node of the cluster. `GET /v1/cluster/nodes`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNode {
    pub name: String,
    /// `control-plane` or `worker`.
    pub role: String,
    pub state: NodeState,
    /// What it does for the datastore: `leader`, `voter`, `stand-by` or `spare`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    pub addresses: Vec<String>,
    /// Of Skiff, and of Kubernetes.
    pub version: String,
    pub kubernetes: String,
    /// When the first of its certificates ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<String>,
    /// When it was last heard of, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<String>,
    /// Which settings it runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<NodeSettings>,
}

/// How far a node has got with the settings that the cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// Those that it runs with, and the cluster's.
    pub revision: u64,
    pub newest: u64,
    /// It has tried the newest and could not; it does not try again.
    #[serde(default)]
    pub failed: bool,
    /// Why it does not run with the newest; absent when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a node is, as the cluster sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    Ready,
    NotReady,
    Joining,
    Leaving,
    /// It is a member; whether it is ready cannot be seen from here.
    Member,
}

/// `POST /v1/cluster/nodes/{name}/remove`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveRequest {
    /// Although it answers.
    pub force: bool,
}

/// A node that belongs to the cluster no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// It had the keys of the cluster's authorities.
    pub held_keys: bool,
}

/// Who of the datastore's voters is there. `GET /v1/cluster/quorum`, on a control-plane node
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quorum {
    /// The node whose member leads; without one nothing is written, and nothing that must be true
    /// now is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// How many members vote, and how many of them are reachable, this node's own included.
    pub voters: usize,
    pub reachable: usize,
    pub members: Vec<QuorumMember>,
}

/// A member of the datastore, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuorumMember {
    /// Of its node.
    pub name: String,
    pub address: String,
    pub own: bool,
    /// `voter`, `stand-by` or `spare`; absent when this node's own datastore does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub reachable: bool,
    /// Of the objects, as last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// When it was last reachable, RFC 3339; absent when that was before skiffd started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<String>,
}

impl Quorum {
    /// Whether no majority of the voters is reachable and nobody leads.
    pub fn is_lost(&self) -> bool {
        self.leader.is_none() && self.reachable * 2 <= self.voters
    }
}
