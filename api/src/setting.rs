//! The node's settings and where each value came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One setting. `GET /v1/settings`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Dotted: `node.name`, `network.pod-cidr`, …
    pub key: String,
    /// As TOML would write it.
    pub value: String,
    /// `default`, the path of a file with the line (`/etc/skiff/skiff.toml:3`), `snap`, `cluster`, or
    /// `set (revision 3)`.
    pub origin: String,
    /// Whose it is: `node` or `cluster`; `both` where a node's own flags come after the cluster's.
    #[serde(default)]
    pub scope: String,
    /// What this node's own files say, where the cluster decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnSetting>,
    /// What it does, one sentence.
    pub description: String,
}

/// A value of a node's own files for a setting of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSetting {
    /// As TOML would write it.
    pub value: String,
    pub origin: String,
    /// It counts, after the cluster's; otherwise it is idle.
    pub added: bool,
}

/// `POST /v1/settings`: what to change for all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetRequest {
    #[serde(default)]
    pub set: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub unset: Vec<String>,
    /// Only if nobody has changed them since that revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetOutcome {
    /// Of the settings that hold now, or would.
    pub revision: u64,
    pub changes: Vec<SettingChange>,
    pub dry_run: bool,
}

/// One setting that becomes another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    pub key: String,
    pub before: String,
    pub after: String,
}
