//! Archives of the cluster that skiffd takes by itself.

use serde::{Deserialize, Serialize};

/// How the schedule is kept. Part of the status of a control-plane node with a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPart {
    /// Where archives are kept.
    pub place: String,
    /// How often one is due, in seconds.
    pub every_s: u64,
    /// When the newest one was taken, RFC 3339; absent when there is none or nobody could look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// When the next is due, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Attempts in a row that brought none, and why the last did not.
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Two periods have passed without a good one.
    pub overdue: bool,
    /// Another control-plane node takes them: the one whose datastore leads.
    pub elsewhere: bool,
}
