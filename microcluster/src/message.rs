//! What is said on `skiff-cluster/1`: one request, one answer, JSON.
//!
//! Members one minor release apart work together, so a field that is not known is left alone, and
//! a field that is new has a default. A request that is not known is refused with its name.

mod refusal;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use refusal::{Refusal, RefusalCode};

use crate::record::{
    AppliedSettings, ClusterId, ClusterSettings, DoneSteps, MemberView, NodeId, NodeName, NodeRole,
};
use crate::token::{Proven, Statement};
use crate::trust::{AuthorityBundle, IssuedLeaf, Purpose};
use crate::version::Version;

/// A request: six signing requests and a few names are 8 KiB.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// An answer: it holds a line of 500 bytes for each member, of whom there are 5000 at most.
pub const ANSWER_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A request with who sends it and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Of Skiff, at the sender.
    pub release: Version,
    /// By the sender's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub sent: OffsetDateTime,
    pub request: Request,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Could I join, and what is the cluster? Changes nothing. States an [`Applicant`].
    Ask(Proven),
    /// Let me in.
    Enter(Enter),
    /// I am ready: make me a member.
    Confirm {},
    /// Forget that I wanted to join.
    Undo(Undo),
    /// New certificates for me; here is what has changed.
    Renew(Renew),
    /// Who belongs to the cluster?
    Members {},
    /// I go.
    Leave(LeaveStep),
    /// The authorities' keys for me, a control-plane node, sealed to this age recipient, whose
    /// identity I forget afterwards.
    Keys { recipient: String },
}

impl Request {
    /// Whether another member may be asked when one could not do it: what was done already is done
    /// once. Who enters spends a use of a token, and says it again to the same member first.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Ask(_) | Self::Confirm {} | Self::Undo(_) | Self::Renew(_) => true,
            Self::Members {} | Self::Leave(_) | Self::Keys { .. } => true,
            Self::Enter(_) => false,
        }
    }
}

/// What a machine is that wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applicant {
    /// Of the key that it will enter with.
    pub id: NodeId,
    /// As it is, right or wrong: the refusal says what is wrong with it.
    pub name: String,
    pub role: NodeRole,
    /// The first is the one that others use.
    pub addresses: Vec<IpAddr>,
    pub kubernetes: Version,
    #[serde(default)]
    pub failure_domain: String,
    #[serde(default)]
    pub choices: Choices,
    /// The cluster that it belongs to already.
    #[serde(default)]
    pub member_of: Option<ClusterId>,
    /// By its clock. It stands here once more because this is what its token has signed.
    #[serde(with = "time::serde::rfc3339")]
    pub sent: OffsetDateTime,
}

impl Statement for Applicant {
    const KIND: &'static str = "ask";
}

/// Settings that somebody wrote down on the joiner. What nobody chose is missing and taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    #[serde(default)]
    pub pod_cidrs: Option<Vec<IpNet>>,
    #[serde(default)]
    pub service_cidrs: Option<Vec<IpNet>>,
    #[serde(default)]
    pub dns_domain: Option<String>,
    #[serde(default)]
    pub dns_address: Option<IpAddr>,
    /// Of a machine that would run the control plane.
    #[serde(default)]
    pub datastore: Option<String>,
}

/// Two ways in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enter {
    /// With a token. States an [`Entrant`].
    Proven(Proven),
    /// Once more, by the identity that the first time gave: the joiner had died, or its disk.
    Again { requests: Vec<SigningRequest> },
}

/// What is stated when a machine enters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrant {
    pub applicant: Applicant,
    pub requests: Vec<SigningRequest>,
    /// To whom the authorities' keys are sealed, should it be a control-plane member: an age
    /// recipient whose identity the joiner made for this and forgets afterwards.
    #[serde(default)]
    pub recipient: Option<String>,
}

impl Statement for Entrant {
    const KIND: &'static str = "enter";
}

/// One public key with the proof that the sender has the private one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningRequest {
    pub purpose: Purpose,
    /// PKCS#10, DER in base64.
    pub request: String,
}

/// Two ways of not joining after all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// The answer to *enter* never came, so there is no identity. States a [`GivenUp`].
    Proven(Proven),
    /// By the identity that was given.
    Own {},
}

/// What is stated when a join is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    pub id: NodeId,
}

impl Statement for GivenUp {
    const KIND: &'static str = "undo";
}

/// New certificates. What is missing stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    #[serde(default)]
    pub requests: Vec<SigningRequest>,
    #[serde(default)]
    pub addresses: Option<Vec<IpAddr>>,
    #[serde(default)]
    pub kubernetes: Option<Version>,
    #[serde(default)]
    pub failure_domain: Option<String>,
    /// Which of the cluster's settings it runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<AppliedSettings>,
    /// How far it is with new authorities of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<DoneSteps>,
}

/// Leaving takes a while: pods are moved, the datastore's member is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveStep {
    Begin,
    /// Changed my mind, or could not.
    Cancel,
    Finish,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Asked(Asked),
    Entered(Box<Entered>),
    Confirmed {},
    Undone {},
    Renewed(Renewed),
    Members {
        members: Vec<MemberView>,
        /// What they share; a member of a former release does not say.
        #[serde(default)]
        settings: Option<ClusterSettings>,
    },
    Leaving(LeaveStep),
    /// As in [`Entered`].
    Keys {
        sealed: String,
        bundle: AuthorityBundle,
        settings: ClusterSettings,
    },
    Refused(Refusal),
}

/// What the cluster is, and that it would let the asker in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub settings: ClusterSettings,
    /// Of Skiff, here.
    pub release: Version,
    /// Of the newest API server.
    pub kubernetes: Version,
    pub members: Vec<MemberView>,
    /// By the clock here.
    #[serde(with = "time::serde::rfc3339")]
    pub now: OffsetDateTime,
}

/// Everything that a node needs to set itself up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    pub name: NodeName,
    pub id: NodeId,
    pub role: NodeRole,
    pub leaves: Vec<IssuedLeaf>,
    pub bundle: AuthorityBundle,
    pub settings: ClusterSettings,
    pub members: Vec<MemberView>,
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub taints: Vec<String>,
    /// For control-plane members: the authorities' keys, encrypted for the recipient. The joiner
    /// believes them only when they fit the certificates of the bundle, and the bundle only when
    /// it holds the authority of the token.
    #[serde(default)]
    pub sealed: Option<String>,
    /// When the join is forgotten unless it was confirmed.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

/// New certificates, and what else may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    pub leaves: Vec<IssuedLeaf>,
    pub bundle: AuthorityBundle,
    pub settings: ClusterSettings,
    pub members: Vec<MemberView>,
}

impl Message {
    /// Reads a request.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > REQUEST_MESSAGE_BYTES_MAX {
            return Err(Refusal::too_large(bytes.len(), REQUEST_MESSAGE_BYTES_MAX));
        }
        serde_json::from_slice(bytes).map_err(|error| Refusal::malformed(&error))
    }

    /// Writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written")
    }
}

impl Answer {
    /// Whether whoever answered could not do it now, and another one perhaps can.
    pub fn is_unable(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is_passing())
    }

    /// Reads an answer; what is none is told as a refusal, so that a caller has one kind of both.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > ANSWER_MESSAGE_BYTES_MAX {
            return Err(Refusal::too_large(bytes.len(), ANSWER_MESSAGE_BYTES_MAX));
        }
        serde_json::from_slice(bytes).map_err(|error| Refusal::malformed(&error))
    }

    /// Writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers can be written")
    }
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
