//! Whose certificate somebody showed on port 7443.
//!
//! That it ends in the cluster's authority was verified before, by TLS. Here it is read which node
//! it names; whether that node is a member, and this one of its keys, the record says.

use time::OffsetDateTime;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::order::{NODE_PREFIX, UID_OID};
use crate::record::{Fingerprint, NodeId, NodeName};

/// A leaf of ours has 700 bytes.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// A node as its certificate tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub name: NodeName,
    pub id: NodeId,
    /// Of the public key.
    pub key: Fingerprint,
    /// Of the certificate.
    pub fingerprint: Fingerprint,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// Why a certificate names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("it is no certificate")]
    Unreadable,
    #[error("it is not a node's identity: {0:?}")]
    NoNode(String),
}

/// Reads the certificate (DER) that was shown.
pub fn read_identity(der: &[u8]) -> Result<PeerIdentity, IdentityError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(IdentityError::Unreadable);
    }
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
    if !rest.is_empty() {
        return Err(IdentityError::Unreadable);
    }
    let subject = certificate.subject();
    let no_node = || IdentityError::NoNode(subject.to_string().chars().take(100).collect());
    let mut names = subject.iter_common_name();
    let name = match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().map_err(|_| no_node())?,
        _ => return Err(no_node()),
    };
    let name = name.strip_prefix(NODE_PREFIX).and_then(|name| name.parse().ok());
    let uid = Oid::from(&UID_OID).map_err(|_| no_node())?;
    let mut ids = subject.iter_by_oid(&uid);
    let id = match (ids.next(), ids.next()) {
        (Some(id), None) => id.as_str().ok().and_then(|id| id.parse().ok()),
        _ => None,
    };
    let (Some(name), Some(id)) = (name, id) else { return Err(no_node()) };
    let validity = certificate.validity();
    Ok(PeerIdentity {
        name,
        id,
        key: Fingerprint::of(certificate.public_key().raw),
        fingerprint: Fingerprint::of(der),
        not_before: validity.not_before.to_datetime(),
        not_after: validity.not_after.to_datetime(),
    })
}
