//! The node's certificates: until when each is good, and when another takes its place.

use serde::{Deserialize, Serialize};

/// `GET /v1/certificates`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// By the node's clock, RFC 3339.
    pub now: String,
    /// What speaks against that clock; absent when nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    pub certificates: Vec<Certificate>,
    /// New authorities that take the place of the old ones; absent when none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<AuthorityRotation>,
}

/// How far the cluster is with new authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityRotation {
    /// Counts where all nodes were to go, in former rotations too.
    pub step: u64,
    /// Where they go now: `old`, `both-old`, `both-new` or `new`; the last word says who signs.
    pub position: String,
    /// Whether it is on its way back to the old ones.
    pub back: bool,
    /// What they are called.
    pub old: String,
    pub new: String,
    /// RFC 3339, as are the others.
    pub since: String,
    /// How long what has signed until now is still believed, once all nodes are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<String>,
    /// Until then pods may have tokens that it has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_until: Option<String>,
    /// Nothing is kept of what is dropped.
    #[serde(default)]
    pub distrust: bool,
    pub nodes: Vec<RotationNode>,
    /// Secrets with tokens of service accounts that never end by themselves, as `namespace/name`: they
    /// are refused when what has signed them is dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_secrets: Vec<String>,
}

/// A node on that way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationNode {
    pub name: String,
    /// Whether it is where all go.
    pub done: bool,
    pub waited_for: bool,
    /// Why it could not do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub last_contact: String,
}

/// `POST /v1/authorities/rotate`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotateAuthorities {
    /// How long the old ones are believed after they have stopped signing, in seconds.
    pub hold_s: u64,
    /// Names of nodes that are not waited for.
    #[serde(default)]
    pub without: Vec<String>,
    #[serde(default)]
    pub distrust: bool,
}

/// One certificate. Of what cannot be read there are no times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub name: String,
    /// Who shows it to whom.
    pub purpose: String,
    pub state: CertificateState,
    /// The common name of who signed it.
    pub issuer: String,
    /// RFC 3339, as are the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    /// When another takes its place by itself; absent on an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<String>,
    pub file: String,
}

/// Whether a certificate is good, by the node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    Valid,
    NotYetValid,
    Expired,
    /// It is no certificate, or cannot be read.
    Unreadable,
}
