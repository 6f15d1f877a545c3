//! What the registry can enable.

use serde::{Deserialize, Serialize};

/// One addon as `skiff addons list` shows it. `GET /v1/addons`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addon {
    pub name: String,
    pub description: String,
    /// Version of what it installs.
    pub version: String,
    /// Other names that people know it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    pub state: AddonState,
    /// Why it is not healthy, in the words of the objects themselves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
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
