//! What a node is called, and which one it is.
//!
//! The name can be given again: a new machine takes the place of a broken one. The id cannot: it
//! follows from the key that the node made when it joined, so nobody else can have it, and the
//! certificates of the broken machine stay those of the broken machine.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A node's name is the value of its label `kubernetes.io/hostname`, and values are no longer.
pub const NODE_NAME_LENGTH_MAX: usize = 63;

/// A name as Kubernetes takes it: a lower-case subdomain of RFC 1123.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Why a text is no name of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    #[error("the name is empty")]
    Empty,
    #[error("{name:?} has {length} characters, and {NODE_NAME_LENGTH_MAX} are possible")]
    TooLong { name: String, length: usize },
    #[error("{name:?} has capital letters; {lower:?} would do")]
    Capitals { name: String, lower: String },
    #[error("{name:?} has {character:?}, and only a-z, 0-9, '-' and '.' are possible")]
    Character { name: String, character: char },
    #[error("{name:?} has a part between dots that is empty or begins or ends with '-'")]
    Part { name: String },
    #[error("{name:?} is an address and no name")]
    Address { name: String },
}

impl NodeName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(text: &str) -> Result<(), NodeNameError> {
        let name = || text.chars().take(NODE_NAME_LENGTH_MAX).collect::<String>();
        let length = text.chars().count();
        if text.is_empty() {
            return Err(NodeNameError::Empty);
        }
        if length > NODE_NAME_LENGTH_MAX {
            return Err(NodeNameError::TooLong { name: name(), length });
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(NodeNameError::Address { name: name() });
        }
        if text.chars().any(|c| c.is_ascii_uppercase()) {
            let lower = text.to_ascii_lowercase();
            Self::check(&lower)?;
            return Err(NodeNameError::Capitals { name: name(), lower });
        }
        let known = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.');
        if let Some(character) = text.chars().find(|c| !known(c)) {
            return Err(NodeNameError::Character { name: name(), character });
        }
        let part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
        if !text.split('.').all(part) {
            return Err(NodeNameError::Part { name: name() });
        }
        Ok(())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, NodeNameError> {
        Self::check(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(text: String) -> Result<Self, NodeNameError> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

/// Which node it is, for life. In texts 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId([u8; 16]);

/// A text that is no id of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a node: 32 lower-case hexadecimal digits")]
pub struct NodeIdError(String);

impl NodeId {
    /// Of the node that joins with this key (SubjectPublicKeyInfo).
    pub fn of_key(public_key: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(b"skiff node\0").chain_update(public_key);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        Self(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| NodeIdError(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;

    fn try_from(text: String) -> Result<Self, NodeIdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_kubernetes_would_not_take_say_why() {
        for (text, why) in [
            ("", "the name is empty"),
            ("Alpha", "\"Alpha\" has capital letters; \"alpha\" would do"),
            ("a_b", "\"a_b\" has '_', and only a-z, 0-9, '-' and '.' are possible"),
            ("A_b", "\"a_b\" has '_', and only a-z, 0-9, '-' and '.' are possible"),
            ("bär", "\"bär\" has 'ä', and only a-z, 0-9, '-' and '.' are possible"),
            ("-a", "\"-a\" has a part between dots that is empty or begins or ends with '-'"),
            ("a..b", "\"a..b\" has a part between dots that is empty or begins or ends with '-'"),
            ("10.0.0.1", "\"10.0.0.1\" is an address and no name"),
        ] {
            assert_eq!(text.parse::<NodeName>().unwrap_err().to_string(), why);
        }
        assert!("x".repeat(63).parse::<NodeName>().is_ok());
        assert!(matches!(
            "x".repeat(64).parse::<NodeName>(),
            Err(NodeNameError::TooLong { length: 64, .. })
        ));
        assert!("rack-1.example".parse::<NodeName>().is_ok());
    }

    #[test]
    fn an_id_follows_from_the_key_and_reads_back() {
        let id = NodeId::of_key(b"key");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(id, NodeId::of_key(b"another"));
        assert!("ABCDEF".parse::<NodeId>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_name_or_an_id_panic(text in ".*", near in "[a-zA-Z0-9.-]{0,70}") {
            for text in [&text, &near] {
                let _ = text.parse::<NodeId>();
                let _ = text.parse::<super::super::Fingerprint>();
                if let Ok(name) = text.parse::<NodeName>() {
                    prop_assert_eq!(name.as_str(), text);
                    prop_assert!(text.len() <= NODE_NAME_LENGTH_MAX);
                }
            }
        }
    }
}
