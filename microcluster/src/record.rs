//! What the cluster knows of itself: its settings, members, tokens, and who was removed.
//!
//! It is read whole, at one revision, and every decision is made on that. A part knows the
//! revision of its last change; a decision's changes hold only if those parts are still the same.

mod fingerprint;
mod label;
mod member;
mod node;
mod removed;
mod rotation;
mod settings;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use fingerprint::{Fingerprint, FingerprintError};
pub use label::{LABELS_MAX, LabelError, TAINTS_MAX, check_label, check_taint};
pub use member::{
    ADDRESSES_MAX, Certificate, KEYS_MAX, MemberRecord, MemberState, MemberView, NodeRole,
};
pub use node::{NODE_NAME_LENGTH_MAX, NodeId, NodeIdError, NodeName, NodeNameError};
pub use removed::{REMOVED_KEPT, RemovalReason, RemovedRecord};
pub use rotation::{
    AuthorityCertificates, DoneSteps, FORMER_KEPT, FORMER_MAX, FailedStep, FormerAuthority,
    HOLD_MAX, Position, ReachedStep, Rotation, RotationRecord, RotationStep, Side, TOKEN_HOLD, Way,
};
pub use settings::{API_PORT_DEFAULT, ClusterId, ClusterSettings};
pub use shared::{
    AppliedSettings, FailedSettings, SHARED_BYTES_MAX, SettingsChange, SettingsRevision,
    SharedSettings, TURN_TIME_MAX, Turn,
};

use crate::token::{TokenId, TokenRecord};
use crate::version::Version;

/// Fields that a newer version wrote: they are kept when this one writes the record again.
pub type Rest = serde_json::Map<String, serde_json::Value>;

/// A point in the life of the record. It only grows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A part of the record, and when it last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    pub revision: Revision,
    pub value: T,
}

/// Counts changes that concern members as a whole: who comes, who goes, and at which address.
/// Two of these collide, because what one of them checked (a free address, another control-plane
/// member) the other could have taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub changes: u64,
}

/// Everything, as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRecord {
    pub revision: Revision,
    pub settings: Versioned<ClusterSettings>,
    pub membership: Versioned<Membership>,
    pub members: BTreeMap<NodeName, Versioned<MemberRecord>>,
    pub tokens: BTreeMap<TokenId, Versioned<TokenRecord>>,
    pub removed: BTreeMap<NodeId, Versioned<RemovedRecord>>,
}

/// A record that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{what} makes no sense: {why}")]
    Part { what: String, why: String },
    #[error("{what} is kept under the name of {other}")]
    Misplaced { what: String, other: String },
    #[error("{one} and {other} are the same node {id}")]
    TwiceTheNode { one: NodeName, other: NodeName, id: NodeId },
    #[error("{name} is a member and was removed")]
    RemovedMember { name: NodeName },
}

impl ClusterRecord {
    /// The living member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Versioned<MemberRecord>> {
        self.members.values().find(|member| member.value.id == id)
    }

    /// Members, those that are joining or leaving included.
    pub fn living(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.values().map(|member| &member.value)
    }

    /// Those that run a control plane or are about to.
    pub fn control_plane(&self) -> impl Iterator<Item = &MemberRecord> {
        self.living().filter(|member| member.role == NodeRole::ControlPlane)
    }

    /// Versions of the API servers.
    pub fn api_servers(&self) -> Vec<Version> {
        self.control_plane().map(|member| member.kubernetes).collect()
    }

    /// Versions of the kubelets.
    pub fn kubelets(&self) -> Vec<Version> {
        self.living().map(|member| member.kubernetes).collect()
    }

    /// What must hold of a record that was read or is about to be.
    pub fn check(&self) -> Result<(), RecordError> {
        let part = |what: &dyn fmt::Display, result: Result<(), &'static str>| {
            result.map_err(|why| RecordError::Part { what: what.to_string(), why: why.into() })
        };
        let misplaced = |what: String, other: String| RecordError::Misplaced { what, other };
        part(&"settings", self.settings.value.check())?;
        for (name, member) in &self.members {
            let member = &member.value;
            part(name, member.check())?;
            if member.name != *name {
                return Err(misplaced(member.name.to_string(), name.to_string()));
            }
            if self.removed.contains_key(&member.id) {
                return Err(RecordError::RemovedMember { name: name.clone() });
            }
        }
        for (id, token) in &self.tokens {
            part(id, token.value.check())?;
            if token.value.id != *id {
                return Err(misplaced(token.value.id.to_string(), id.to_string()));
            }
        }
        for (id, removed) in &self.removed {
            if removed.value.id != *id {
                return Err(misplaced(removed.value.id.to_string(), id.to_string()));
            }
        }
        self.check_ids()
    }

    fn check_ids(&self) -> Result<(), RecordError> {
        let mut seen = BTreeMap::new();
        for member in self.living() {
            if let Some(other) = seen.insert(member.id, &member.name) {
                let (one, other) = (member.name.clone(), other.clone());
                return Err(RecordError::TwiceTheNode { one, other, id: member.id });
            }
        }
        Ok(())
    }

    /// Addresses that more than one member has: none while every change goes through a decision.
    pub fn shared_addresses(&self) -> BTreeSet<std::net::IpAddr> {
        let mut seen = BTreeSet::new();
        let all = self.living().flat_map(|member| member.addresses.iter().copied());
        all.filter(|address| !seen.insert(*address)).collect()
    }
}
