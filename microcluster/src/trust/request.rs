//! A signing request (PKCS#10): what is read of it, and why it is refused.
//!
//! Only the public key is taken. Names in a request are not needed; when there are some, they must
//! be those that the node gets anyway. A request for somebody else's name could be answered with
//! the sender's own name instead, which is as safe, but then nobody learns that a node asked to be
//! `system:masters`: it is refused, and the refusal is logged where people look.

use std::net::IpAddr;

use rcgen::PublicKeyData;
use x509_parser::certification_request::{X509CertificationRequest, X509CertificationRequestInfo};
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519,
    OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::order::LeafOrder;

/// A request with a P-256 key and a few names has 400 bytes.
pub const REQUEST_BYTES_MAX: usize = 4096;
/// Names that are looked at; a request needs none.
const NAMES_MAX: usize = 32;
/// An uncompressed point on P-256.
const P256_POINT_BYTES: usize = 65;
const ED25519_POINT_BYTES: usize = 32;

/// Why a request is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("it has {0} bytes, and {REQUEST_BYTES_MAX} are possible")]
    TooLong(usize),
    #[error("it is no PKCS#10 signing request")]
    Unreadable,
    #[error("its key is neither P-256 nor Ed25519")]
    Key,
    #[error("its sender does not have the key: the signature is wrong")]
    Proof,
    #[error("it asks for more than {NAMES_MAX} names")]
    TooManyNames,
    #[error("it asks to be an authority")]
    Authority,
    #[error("it asks for something that certificates here do not have: {0}")]
    Unknown(&'static str),
    #[error("it asks for a name that is not the node's own: {0:?}")]
    ForeignName(String),
}

/// A public key whose private half the sender has, and what the sender would like to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenKey {
    public_key: Vec<u8>,
    names: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Common(String),
    Organisation(String),
    Dns(String),
    Address(IpAddr),
    /// An attribute or a kind of name that no certificate of ours has.
    Other(String),
}

impl ProvenKey {
    /// SubjectPublicKeyInfo, DER, written anew: what is signed has one form only.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Whether every name that is asked for is one that the order has.
    pub fn check_names(&self, order: &LeafOrder) -> Result<(), RequestError> {
        let is_own = |name: &Name| match name {
            Name::Common(text) => *text == order.common_name,
            Name::Organisation(text) => order.organisations.contains(text),
            Name::Dns(text) => order.dns_names.contains(text),
            Name::Address(address) => order.addresses.contains(address),
            Name::Other(_) => false,
        };
        match self.names.iter().find(|name| !is_own(name)) {
            None => Ok(()),
            Some(name) => Err(RequestError::ForeignName(name.shown())),
        }
    }
}

impl Name {
    fn shown(&self) -> String {
        match self {
            Self::Common(text) | Self::Organisation(text) | Self::Dns(text) | Self::Other(text) => {
                text.chars().take(100).collect()
            }
            Self::Address(address) => address.to_string(),
        }
    }
}

/// Reads a request and checks that its sender has the key.
pub fn read_request(der: &[u8]) -> Result<ProvenKey, RequestError> {
    if der.len() > REQUEST_BYTES_MAX {
        return Err(RequestError::TooLong(der.len()));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| RequestError::Unreadable)?;
    let whole_bytes =
        |bits: &x509_parser::asn1_rs::BitString<'_>| bits.unused_bits == 0 && !bits.data.is_empty();
    let key = &request.certification_request_info.subject_pki.subject_public_key;
    if !rest.is_empty() || !whole_bytes(&request.signature_value) || !whole_bytes(key) {
        return Err(RequestError::Unreadable);
    }
    let info = &request.certification_request_info;
    let public_key = read_key(&info.subject_pki, &request)?;
    request.verify_signature().map_err(|_| RequestError::Proof)?;
    let mut names = subject_names(info);
    asked_names(info, &mut names)?;
    if names.len() > NAMES_MAX {
        return Err(RequestError::TooManyNames);
    }
    Ok(ProvenKey { public_key, names })
}

fn read_key(
    key: &SubjectPublicKeyInfo<'_>,
    request: &X509CertificationRequest<'_>,
) -> Result<Vec<u8>, RequestError> {
    let kind = &key.algorithm.algorithm;
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    let signature = &request.signature_algorithm.algorithm;
    let point = &key.subject_public_key.data;
    let is_p256 = *kind == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256)
        && *signature == OID_SIG_ECDSA_WITH_SHA256
        && point.len() == P256_POINT_BYTES
        && point.first() == Some(&4);
    let is_ed25519 = *kind == OID_SIG_ED25519
        && *signature == OID_SIG_ED25519
        && point.len() == ED25519_POINT_BYTES;
    if !is_p256 && !is_ed25519 {
        return Err(RequestError::Key);
    }
    let key = rcgen::SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::Key)?;
    Ok(key.subject_public_key_info())
}

fn subject_names(info: &X509CertificationRequestInfo<'_>) -> Vec<Name> {
    let name = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let kind = attribute.attr_type();
        match attribute.as_str() {
            Ok(text) if *kind == OID_X509_COMMON_NAME => Name::Common(text.to_owned()),
            Ok(text) if *kind == OID_X509_ORGANIZATION_NAME => Name::Organisation(text.to_owned()),
            Ok(text) => Name::Other(format!("{kind}={text}")),
            Err(_) => Name::Other(kind.to_string()),
        }
    };
    info.subject.iter_attributes().take(NAMES_MAX + 1).map(name).collect()
}

fn asked_names(
    info: &X509CertificationRequestInfo<'_>,
    names: &mut Vec<Name>,
) -> Result<(), RequestError> {
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
            return Err(RequestError::Unknown("an attribute"));
        };
        for extension in &asked.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(asked) => {
                    names.extend(asked.general_names.iter().take(NAMES_MAX + 1).map(general_name));
                }
                ParsedExtension::BasicConstraints(basic) if basic.ca => {
                    return Err(RequestError::Authority);
                }
                ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                    return Err(RequestError::Authority);
                }
                // The purpose says how a certificate may be used, whatever these say.
                ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_) => {}
                _ => return Err(RequestError::Unknown("an extension")),
            }
        }
    }
    Ok(())
}

fn general_name(name: &GeneralName<'_>) -> Name {
    match name {
        GeneralName::DNSName(text) => Name::Dns((*text).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let six = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            four.or(six).map_or_else(|_| Name::Other("an address".into()), Name::Address)
        }
        GeneralName::RFC822Name(text) | GeneralName::URI(text) => Name::Other((*text).to_owned()),
        _ => Name::Other("a name of another kind".into()),
    }
}
