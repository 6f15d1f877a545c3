//! Who asks.

use time::OffsetDateTime;

use crate::message::{Refusal, RefusalCode};
use crate::record::{ClusterRecord, MemberRecord, Versioned};
use crate::trust::{PeerIdentity, read_identity};

/// As the connection tells it, not the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Showed no certificate.
    Stranger,
    /// Showed one that ends in the cluster's authority.
    Node(PeerIdentity),
    /// In a former one, of which anybody may have the key: what proves the node is its own.
    Former(PeerIdentity),
}

/// Whether a certificate whose time is over will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expired {
    Refused,
    Accepted,
}

impl Caller {
    /// By the certificate (DER) that was shown, whose chain was verified. One that is good for
    /// something else, a kubelet's say, makes nobody a node here.
    pub fn of(shown: Option<&[u8]>) -> Result<Self, Refusal> {
        let Some(der) = shown else { return Ok(Self::Stranger) };
        read_identity(der).map(Self::Node).map_err(|error| {
            let message = format!("the certificate that was shown is of no use here: {error}");
            Refusal::new(RefusalCode::NotAllowed, message)
        })
    }

    /// The same of a certificate that ends in a former authority.
    pub fn of_former(shown: &[u8]) -> Result<Self, Refusal> {
        Ok(match Self::of(Some(shown))? {
            Self::Node(identity) => Self::Former(identity),
            other => other,
        })
    }

    /// The member that asks.
    pub fn identify<'a>(
        &self,
        record: &'a ClusterRecord,
        now: OffsetDateTime,
    ) -> Result<&'a Versioned<MemberRecord>, Refusal> {
        self.find(record, now, Expired::Refused).map(|(member, _)| member)
    }

    /// The member that asks for new certificates, and how it proved who it is. It may have been
    /// off for a month: its key is still its own, and as long as nobody removed it, it belongs
    /// here.
    pub fn identify_late<'a, 'b>(
        &'b self,
        record: &'a ClusterRecord,
        now: OffsetDateTime,
    ) -> Result<(&'a Versioned<MemberRecord>, &'b PeerIdentity), Refusal> {
        self.find(record, now, Expired::Accepted)
    }

    fn find<'a, 'b>(
        &'b self,
        record: &'a ClusterRecord,
        now: OffsetDateTime,
        expired: Expired,
    ) -> Result<(&'a Versioned<MemberRecord>, &'b PeerIdentity), Refusal> {
        let identity = match self {
            Self::Node(identity) => identity,
            Self::Former(identity) if expired == Expired::Accepted => identity,
            Self::Former(identity) => {
                let message =
                    format!("{} shows a certificate of a former authority", identity.name);
                return Err(Refusal::new(RefusalCode::IdentityStale, message)
                    .hint("the node asks for a new one by itself"));
            }
            Self::Stranger => {
                let message =
                    "only a node of the cluster may ask this, and no certificate was shown";
                return Err(Refusal::new(RefusalCode::NotAllowed, message));
            }
        };
        if let Some(removed) = record.removed.get(&identity.id) {
            return Err(removed_refusal(removed.value.reason.sentence()));
        }
        let not_member = || {
            let message =
                format!("{} ({}) is not a member of this cluster", identity.name, identity.id);
            Refusal::new(RefusalCode::NotMember, message)
                .hint("`skiff reset` on it, then `skiff join` with a new token")
        };
        let member = record.member(identity.id).ok_or_else(not_member)?;
        if member.value.name != identity.name {
            return Err(not_member());
        }
        if !member.value.keys.contains(&identity.key) {
            let message = format!("{} has other keys by now than the one it shows", identity.name);
            return Err(Refusal::new(RefusalCode::IdentityStale, message)
                .hint("was it restored from a copy? `skiff reset` and `skiff join` make it anew"));
        }
        if now < identity.not_before || (now > identity.not_after && expired == Expired::Refused) {
            let message = format!("the certificate of {} is not valid now", identity.name);
            return Err(Refusal::new(RefusalCode::IdentityStale, message)
                .hint("the node renews it by itself; is its clock right?"));
        }
        Ok((member, identity))
    }
}

/// What a node is told that was one.
pub(super) fn removed_refusal(sentence: &str) -> Refusal {
    Refusal::new(RefusalCode::Removed, format!("this node {sentence}"))
        .hint("`skiff reset` on it cleans it; then it may join with a new token")
}
