//! The node as a whole: is it running, is it ready, what is it made of.

use serde::{Deserialize, Serialize};

use crate::{Addon, BackupPart, ClusterPart, Service};

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Where the node is in its life.
    pub phase: Phase,
    /// The name under which Kubernetes knows this node.
    pub node: String,
    /// The address that Kubernetes knows, absent before it is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Skiff's version, and the version of Kubernetes.
    pub version: String,
    pub kubernetes: String,
    /// What must hold for the node to be ready, in the order in which it comes true.
    pub conditions: Vec<Condition>,
    /// What the user should know: limits that hold today, things that need a hand.
    pub notices: Vec<Notice>,
    pub services: Vec<Service>,
    pub addons: Vec<Addon>,
    /// What this node is in its cluster; absent on one that is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterPart>,
    /// Who keeps Kubernetes' objects, in words; absent when that is Skiff's own datastore. Whether it
    /// answers is a condition, `external-datastore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Archives that are taken by a schedule; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPart>,
    /// Seconds since skiffd started.
    pub uptime_s: u64,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The daemons are coming up.
    Starting,
    /// Everything that Skiff runs is well and Kubernetes calls the node Ready.
    Ready,
    /// It ran, and something is wrong now.
    Degraded,
    /// The daemons are being stopped.
    Stopping,
    /// skiffd runs, its daemons do not.
    Stopped,
}

/// One thing that must hold, and the sentence that says what is waited for while it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `datastore`, `containerd`, `api-server`, `node-registered`, `node-ready`, …
    pub name: String,
    pub holds: bool,
    /// What it waits for or what is wrong; empty when it holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Something the user should know, with a remedy when there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Stable word for scripts: `network-policy-not-enforced`, `load-balancer-pending`, …
    pub name: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// `GET /v1/version`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub skiff: String,
    /// The build that runs: a digest of the distribution.
    pub build: String,
    pub arch: String,
    pub components: Vec<Component>,
}

/// A program we ship.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    pub name: String,
    pub version: String,
}
