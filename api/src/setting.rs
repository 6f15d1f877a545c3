//! The node's settings and where each value came from.

use serde::{Deserialize, Serialize};

/// One setting. `GET /v1/settings`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Dotted: `node.name`, `network.pod-cidr`, …
    pub key: String,
    /// As TOML would write it.
    pub value: String,
    /// `default`, the path of a file with the line (`/etc/skiff/skiff.toml:3`), or `snap`.
    pub origin: String,
    /// What it does, one sentence.
    pub description: String,
}
