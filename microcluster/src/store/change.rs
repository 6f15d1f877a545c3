//! One change of the record, with what it expects to find.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::record::{
    ClusterRecord, ClusterSettings, MemberRecord, Membership, NodeId, NodeName, RemovedRecord,
    Revision, Versioned,
};
use crate::token::{TokenId, TokenRecord};

/// A part of the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Settings,
    Membership,
    Member(NodeName),
    Token(TokenId),
    Removed(NodeId),
    /// Of a kind that this version does not know.
    Other(String),
}

/// A key that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names nothing in a cluster's record")]
pub struct KeyError(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("settings"),
            Self::Membership => f.write_str("membership"),
            Self::Member(name) => write!(f, "members/{name}"),
            Self::Token(id) => write!(f, "tokens/{id}"),
            Self::Removed(id) => write!(f, "removed/{id}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let failed = || KeyError(text.chars().take(100).collect());
        Ok(match text.split_once('/') {
            None if text == "settings" => Self::Settings,
            None if text == "membership" => Self::Membership,
            Some(("members", name)) => Self::Member(name.parse().map_err(|_| failed())?),
            Some(("tokens", id)) => Self::Token(id.parse().map_err(|_| failed())?),
            Some(("removed", id)) => Self::Removed(id.parse().map_err(|_| failed())?),
            _ => Self::Other(text.to_owned()),
        })
    }
}

/// A change. `was` is the revision of the part's last change, and nothing when the part must not
/// be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    PutSettings { settings: Box<ClusterSettings>, was: Option<Revision> },
    PutMembership { membership: Membership, was: Option<Revision> },
    PutMember { member: Box<MemberRecord>, was: Option<Revision> },
    DeleteMember { name: NodeName, was: Revision },
    PutToken { token: Box<TokenRecord>, was: Option<Revision> },
    DeleteToken { id: TokenId, was: Revision },
    PutRemoved { removed: RemovedRecord, was: Option<Revision> },
    DeleteRemoved { id: NodeId, was: Revision },
}

/// A change as a store of keys and values makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub was: Option<Revision>,
    /// Nothing deletes.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// Counts that members as a whole have changed, see [`Membership`].
    pub fn membership(record: &ClusterRecord) -> Self {
        let changes = record.membership.value.changes.wrapping_add(1);
        let was = Some(record.membership.revision);
        Self::PutMembership { membership: Membership { changes }, was }
    }

    /// Puts a member in the place of what was read.
    pub fn member(member: MemberRecord, was: &Versioned<MemberRecord>) -> Self {
        Self::PutMember { member: Box::new(member), was: Some(was.revision) }
    }

    /// Puts a token in the place of what was read.
    pub fn token(token: TokenRecord, was: &Versioned<TokenRecord>) -> Self {
        Self::PutToken { token: Box::new(token), was: Some(was.revision) }
    }

    /// What changes.
    pub fn key(&self) -> Key {
        match self {
            Self::PutSettings { .. } => Key::Settings,
            Self::PutMembership { .. } => Key::Membership,
            Self::PutMember { member, .. } => Key::Member(member.name.clone()),
            Self::DeleteMember { name, .. } => Key::Member(name.clone()),
            Self::PutToken { token, .. } => Key::Token(token.id),
            Self::DeleteToken { id, .. } => Key::Token(*id),
            Self::PutRemoved { removed, .. } => Key::Removed(removed.id),
            Self::DeleteRemoved { id, .. } => Key::Removed(*id),
        }
    }

    /// What it expects.
    pub fn was(&self) -> Option<Revision> {
        match self {
            Self::PutSettings { was, .. }
            | Self::PutMembership { was, .. }
            | Self::PutMember { was, .. }
            | Self::PutToken { was, .. }
            | Self::PutRemoved { was, .. } => *was,
            Self::DeleteMember { was, .. }
            | Self::DeleteToken { was, .. }
            | Self::DeleteRemoved { was, .. } => Some(*was),
        }
    }

    /// As a store of keys and values makes it.
    pub fn to_write(&self) -> Write {
        let value = match self {
            Self::PutSettings { settings, .. } => Some(encode(settings)),
            Self::PutMembership { membership, .. } => Some(encode(membership)),
            Self::PutMember { member, .. } => Some(encode(member)),
            Self::PutToken { token, .. } => Some(encode(token)),
            Self::PutRemoved { removed, .. } => Some(encode(removed)),
            Self::DeleteMember { .. } | Self::DeleteToken { .. } | Self::DeleteRemoved { .. } => {
                None
            }
        };
        Write { key: self.key().to_string(), was: self.was(), value }
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can be written")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_read_back_and_those_of_a_newer_version_are_left_alone() {
        let id = NodeId::of_key(b"key");
        for key in
            [Key::Settings, Key::Membership, Key::Member("a.b".parse().unwrap()), Key::Removed(id)]
        {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        assert_eq!("colours/blue".parse(), Ok(Key::Other("colours/blue".into())));
        assert!("members/A".parse::<Key>().is_err());
        assert!("tokens/1".parse::<Key>().is_err());
    }

    proptest! {
        #[test]
        fn no_key_panics(text in "(members/|tokens/|removed/)?.*") {
            let _ = text.parse::<Key>();
        }
    }
}
