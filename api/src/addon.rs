//! What the registry can enable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One addon as `skiff addons list` shows it. `GET /v1/addons`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addon {
    pub name: String,
    pub description: String,
    /// Version of what it installs.
    pub version: String,
    /// Version that is in the cluster, when that is another one: `skiff addons upgrade` changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// Options that the user chose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<String, String>,
    /// Other names that people know it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    pub state: AddonState,
    /// Why it is not healthy, in the words of the objects themselves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One addon with everything that can be said of it. `GET /v1/addons/{name}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonDetails {
    #[serde(flatten)]
    pub addon: Addon,
    /// Addons that are enabled before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Addons that cannot be enabled beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Where it runs; everywhere when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// The option that a value without a name is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positional: Option<String>,
    #[serde(default)]
    pub options: Vec<AddonOption>,
    /// What users store in it, which is kept when it is disabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
}

/// One option of an addon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonOption {
    pub name: String,
    /// What a value must be, in words: `int, 1 to 100`.
    pub form: String,
    pub description: String,
    /// As it would be written on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What enabling or upgrading an addon now would change. `GET /v1/addons/{name}/diff`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonDiff {
    pub name: String,
    /// Version in the cluster.
    pub from: String,
    /// Version that there would be.
    pub to: String,
    pub changes: Vec<ObjectChange>,
}

/// What would be done to one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// Kind, namespace and name.
    pub object: String,
    pub action: ChangeAction,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeAction {
    Create,
    Change,
    Remove,
}

/// What would be changed in one object: its text, or JSON where it is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A repository of users' own addons. `GET /v1/repositories`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    pub name: String,
    /// Where it came from, as it was typed.
    pub source: String,
    /// Which state of the source that was, where the source knows states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Of everything in it.
    pub digest: String,
    /// Names of its addons, without the repository's own.
    pub addons: Vec<String>,
    /// Why nothing of it is used: it was changed in the cluster, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The addons of a repository. `POST /v1/repositories/{name}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepositoryContent {
    pub source: String,
    #[serde(default)]
    pub revision: Option<String>,
    /// Of each addon its files: path in its folder, and text.
    pub addons: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the cluster says of an addon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddonState {
    Disabled,
    /// Applied, its health conditions do not hold yet.
    Progressing,
    Enabled,
    /// It was healthy and is not now, or it failed to come up.
    Unhealthy,
    /// The API server does not answer, so nobody can know.
    Unknown,
}

/// `POST /v1/addons/{name}/{action}`: answers a stream of [`Progress`], one JSON object a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddonAction {
    Enable,
    Disable,
    Upgrade,
}

/// Body of an enable or disable request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnableRequest {
    /// `key=value` options, checked against the addon's definition.
    pub options: Vec<(String, String)>,
    /// Wait until its health conditions hold.
    pub wait: bool,
    pub timeout_s: u64,
    /// Say what would be done, do nothing.
    pub dry_run: bool,
    /// Delete what users stored in it as well, when it is disabled.
    pub delete_data: bool,
}

/// One line of progress on long work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Progress {
    /// What is being done now, or what is waited for.
    Step { message: String },
    /// The last line: it is done. `changed` is false when there was nothing to do.
    Done { message: String, changed: bool },
    /// The last line: it failed, and this is the state now.
    Failed { error: crate::ErrorBody },
}

impl Progress {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }
}
