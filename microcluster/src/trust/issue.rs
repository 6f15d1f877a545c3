//! Signing what was ordered.

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType, SerialNumber,
    SigningKey, SubjectPublicKeyInfo,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::order::{LeafOrder, Purpose, UID_OID, Usage};
use crate::record::{Certificate, ClusterSettings, Fingerprint};

/// A serial number: 127 bits, so that its first bit says "positive".
const SERIAL_BYTES: usize = 16;

/// What a node must trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityBundle {
    /// Certificates of the cluster's authorities, PEM; several while one replaces another.
    pub cluster: String,
    /// Those of the front proxy's, which only API servers need.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub front_proxy: String,
}

/// A certificate as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedLeaf {
    pub purpose: Purpose,
    /// PEM.
    pub certificate: String,
    pub fingerprint: Fingerprint,
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
}

impl IssuedLeaf {
    /// What the record keeps of it.
    pub fn certificate(&self) -> Certificate {
        Certificate {
            purpose: self.purpose,
            fingerprint: self.fingerprint,
            not_after: self.not_after,
        }
    }
}

/// Why nothing was signed. Whoever asked cannot help it.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the certificate for {purpose} cannot be signed")]
    Sign {
        purpose: Purpose,
        #[source]
        source: rcgen::Error,
    },
    #[error("the authority cannot be used: {0}")]
    Authority(String),
    #[error("the authorities' keys cannot be sealed: {0}")]
    Seal(String),
    /// Others have them.
    #[error("this node has not got the keys of the cluster's authorities yet")]
    NotYet,
}

/// Whoever has the authorities' keys.
pub trait Signer: Send + Sync {
    /// Signs one certificate; [`certify`] does, with the issuer that these settings name first.
    fn sign(&self, order: &LeafOrder, settings: &ClusterSettings) -> Result<IssuedLeaf, SignError>;

    /// What is to be trusted by these settings.
    fn bundle(&self, settings: &ClusterSettings) -> AuthorityBundle;

    /// The keys of the authorities, of service accounts and of Secrets at rest, encrypted so that
    /// only the holder of `recipient` reads them: the answer passes through the agent.
    fn seal(&self, recipient: &str, settings: &ClusterSettings) -> Result<String, SignError>;
}

/// Signs an order. Its serial number follows from what is signed, so it needs no random source
/// and no two certificates share one.
pub fn certify<K: SigningKey>(
    order: &LeafOrder,
    issuer: &rcgen::Issuer<'_, K>,
) -> Result<IssuedLeaf, SignError> {
    let failed = |source| SignError::Sign { purpose: order.purpose, source };
    let key = SubjectPublicKeyInfo::from_der(&order.public_key).map_err(failed)?;
    let mut params = CertificateParams::new(order.dns_names.clone()).map_err(failed)?;
    params.subject_alt_names.extend(order.addresses.iter().copied().map(SanType::IpAddress));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, order.common_name.as_str());
    for organisation in &order.organisations {
        params.distinguished_name.push(DnType::OrganizationName, organisation.as_str());
    }
    params.distinguished_name.push(DnType::CustomDnType(UID_OID.to_vec()), order.id.to_string());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match order.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Both => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial(order)));
    params.not_before = order.not_before;
    params.not_after = order.not_after;
    let certificate = params.signed_by(&key, issuer).map_err(failed)?;
    Ok(IssuedLeaf {
        purpose: order.purpose,
        fingerprint: Fingerprint::of(certificate.der()),
        certificate: certificate.pem(),
        not_after: order.not_after,
    })
}

fn serial(order: &LeafOrder) -> [u8; SERIAL_BYTES] {
    let mut digest = Sha256::new();
    digest.update(&order.public_key);
    digest.update(order.purpose.to_string());
    digest.update(order.not_before.unix_timestamp_nanos().to_be_bytes());
    // The same key again, for another name or address, at the same moment.
    digest.update(format!("{order:?}"));
    let mut serial = [0; SERIAL_BYTES];
    serial.copy_from_slice(&digest.finalize()[..SERIAL_BYTES]);
    serial[0] &= 0x7f;
    // A serial number that begins with zeros is written shorter, and zero is none.
    serial[0] |= 0x40;
    serial
}
