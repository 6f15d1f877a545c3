//! No, with the reason and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of a sender's text that a refusal repeats.
const SHOWN_MAX: usize = 200;

/// Why something was not done. Nothing has changed when one is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    pub code: RefusalCode,
    /// One sentence for people, lower-case, without full stop.
    pub message: String,
    /// What to do; empty when there is nothing.
    #[serde(default)]
    pub hint: String,
}

/// For programs. One that a newer version has and this one does not is [`RefusalCode::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    Malformed,
    TooLarge,
    /// Releases of Skiff that do not work together.
    ReleasesApart,
    /// Versions of Kubernetes that do not.
    KubernetesApart,
    ClocksApart,
    TokenUnknown,
    TokenUsed,
    TokenWornOut,
    TokenExpired,
    TokenRevoked,
    TokenForAnotherRole,
    TokenForAnotherName,
    NameInvalid,
    NameReserved,
    NameTaken,
    AddressInvalid,
    AddressTaken,
    RangesDiffer,
    /// Kubernetes' objects are kept somewhere else.
    DatastoresDiffer,
    /// A port of the joiner cannot be reached from the member.
    JoinerUnreached,
    AlreadyMember,
    ClusterFull,
    ControlPlaneFull,
    /// The node was removed, left, or its join was undone.
    Removed,
    NotMember,
    /// The identity has expired, or is a former one.
    IdentityStale,
    /// A signing request that cannot be signed.
    RequestInvalid,
    /// A signing request for names that are not the node's own.
    RequestForeign,
    NotAllowed,
    LastControlPlane,
    NodeUnknown,
    StillReachable,
    /// The datastore would lose its majority.
    StillNeeded,
    NotJoining,
    TokenInvalid,
    AlreadyFounded,
    /// A setting cannot have that value.
    SettingInvalid,
    /// Somebody has changed the settings meanwhile.
    SettingsChanged,
    /// Too much at once; the same again works.
    Busy,
    /// The cluster's record cannot be read or written now.
    Unavailable,
    #[serde(other)]
    Other,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(code: RefusalCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), hint: String::new() }
    }

    /// The same with what to do.
    #[must_use]
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: hint.to_string(), ..self }
    }

    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        let shown: String = error.to_string().chars().take(SHOWN_MAX).collect();
        Self::new(RefusalCode::Malformed, format!("the message cannot be read: {shown}"))
            .hint("is the other side a Skiff of a release near this one?")
    }

    pub(super) fn too_large(bytes: usize, bytes_max: usize) -> Self {
        let message = format!("the message has {bytes} bytes, and {bytes_max} are possible");
        Self::new(RefusalCode::TooLarge, message)
    }

    /// Whether the same request may be granted in a moment.
    pub fn is_passing(&self) -> bool {
        matches!(self.code, RefusalCode::Busy | RefusalCode::Unavailable)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
