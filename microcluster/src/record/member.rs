//! A node as the cluster knows it. Names in certificates come from here and from nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    AppliedSettings, DoneSteps, Fingerprint, LABELS_MAX, NodeId, NodeName, Rest, TAINTS_MAX,
};
use crate::endpoint::is_reachable;
use crate::token::TokenId;
use crate::trust::Purpose;
use crate::version::Version;

/// Addresses of a node; the first is the one that others use.
pub const ADDRESSES_MAX: usize = 8;
/// Keys by which a node is known: the one that it showed last, and those that it was given
/// certificates for since. Answers that were lost lock nobody out, in whatever order they were made,
/// nor, as a rule, does somebody who says former requests again.
pub const KEYS_MAX: usize = 16;

/// What runs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// The control plane, the datastore, and pods.
    ControlPlane,
    /// Pods.
    Worker,
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        })
    }
}

/// How far it belongs to the cluster. One that was removed is a [`super::RemovedRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// It has certificates and sets itself up. Forgotten at `until` unless it says that it is
    /// done, and then the token gets its use back.
    Joining {
        #[serde(with = "time::serde::rfc3339")]
        until: OffsetDateTime,
        token: TokenId,
        /// To whom the authorities' keys were sealed. They are never sealed to another when the
        /// node enters again: that is not signed by the token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recipient: Option<String>,
    },
    Member,
    /// It is on its way out.
    Leaving,
}

/// A certificate that was handed out and is not yet replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub purpose: Purpose,
    pub fingerprint: Fingerprint,
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    pub name: NodeName,
    pub id: NodeId,
    pub role: NodeRole,
    pub state: MemberState,
    pub addresses: Vec<IpAddr>,
    /// Of Skiff.
    pub release: Version,
    pub kubernetes: Version,
    /// What fails together carries the same; empty is a domain of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_domain: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Of the public keys that prove who it is, see [`KEYS_MAX`].
    pub keys: Vec<Fingerprint>,
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    #[serde(with = "time::serde::rfc3339")]
    pub joined: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub last_contact: OffsetDateTime,
    /// Which of the cluster's settings it runs with.
    #[serde(default)]
    pub settings: AppliedSettings,
    /// How far it is with new authorities of the cluster.
    #[serde(default)]
    pub rotation: DoneSteps,
    /// What a newer version wrote and this one does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

impl MemberRecord {
    /// What cannot be right.
    pub fn check(&self) -> Result<(), &'static str> {
        if !(1..=ADDRESSES_MAX).contains(&self.addresses.len()) {
            return Err("it has no address or too many");
        }
        if !self.addresses.iter().all(|address| is_reachable(*address)) {
            return Err("one of its addresses cannot be reached by others");
        }
        if !(1..=KEYS_MAX).contains(&self.keys.len()) {
            return Err("it has no key or too many");
        }
        if self.labels.len() > LABELS_MAX || self.taints.len() > TAINTS_MAX {
            return Err("it has too many labels or taints");
        }
        Ok(())
    }

    /// Whether it joins with a token still.
    pub fn joins_with(&self) -> Option<TokenId> {
        match self.state {
            MemberState::Joining { token, .. } => Some(token),
            MemberState::Member | MemberState::Leaving => None,
        }
    }

    /// Puts a certificate in the place of the former one for the same purpose.
    pub fn note(&mut self, certificate: Certificate) {
        self.certificates.retain(|former| former.purpose != certificate.purpose);
        self.certificates.push(certificate);
        self.certificates.sort_by_key(|certificate| certificate.purpose);
    }

    /// What members may know of each other.
    pub fn view(&self) -> MemberView {
        MemberView {
            name: self.name.clone(),
            id: self.id,
            role: self.role,
            state: self.state.clone(),
            addresses: self.addresses.clone(),
            release: self.release,
            kubernetes: self.kubernetes,
            failure_domain: self.failure_domain.clone(),
            expires: self.certificates.iter().map(|certificate| certificate.not_after).min(),
            last_contact: self.last_contact,
            settings: self.settings.clone(),
            rotation: self.rotation.clone(),
        }
    }
}

/// A member as others are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    pub name: NodeName,
    pub id: NodeId,
    pub role: NodeRole,
    pub state: MemberState,
    pub addresses: Vec<IpAddr>,
    pub release: Version,
    pub kubernetes: Version,
    #[serde(default)]
    pub failure_domain: String,
    /// When the first of its certificates does.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub expires: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub last_contact: OffsetDateTime,
    #[serde(default)]
    pub settings: AppliedSettings,
    #[serde(default)]
    pub rotation: DoneSteps,
}
