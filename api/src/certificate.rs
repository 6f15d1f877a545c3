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
