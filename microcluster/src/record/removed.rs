//! A node that was one: so that it is told what it is when it comes back, and a message of its
//! former life, repeated, does not let it in again.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{NodeId, NodeName, NodeRole};
use crate::token::TOKEN_TTL_MAX;

/// How long it is remembered. Only a token that was alive when the node was removed could let a
/// repeated message of it in, and none lives longer. A stranger it stays for ever: who is not in
/// the record of members is none.
pub const REMOVED_KEPT: Duration = TOKEN_TTL_MAX;

/// Why it is not a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalReason {
    /// Somebody said `remove-node`.
    Removed,
    /// It left by itself.
    Left,
    /// Its join failed, and it said so.
    Undone,
    /// Its join took too long.
    Expired,
}

impl RemovalReason {
    /// Follows "this node".
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Removed => "was removed from the cluster",
            Self::Left => "has left the cluster",
            Self::Undone => "gave up joining",
            Self::Expired => "took too long to join and was forgotten",
        }
    }
}

/// What is left of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRecord {
    pub id: NodeId,
    /// Missing for one that was given up before it had entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<NodeRole>,
    pub reason: RemovalReason,
    #[serde(with = "time::serde::rfc3339")]
    pub when: OffsetDateTime,
}
