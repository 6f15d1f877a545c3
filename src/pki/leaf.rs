//! Leaves: one file with certificate and key each, replaced long before it expires.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use super::authority::Authority;

/// How far back a leaf's validity begins: machines' clocks differ by minutes.
const BACKDATE: Duration = Duration::minutes(10);

/// What a leaf is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    Both,
}

/// Which authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    Cluster,
    FrontProxy,
}

/// A leaf as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSpec {
    pub path: PathBuf,
    pub issuer: Issuer,
    pub common_name: String,
    pub organisations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
    /// User and group that may read it.
    pub owner: (u32, u32),
}

/// What a leaf on disk says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafInfo {
    pub common_name: String,
    pub organisations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub issuer_der: Vec<u8>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// What is to be done with a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Good; look again then.
    Keep { until: OffsetDateTime },
    Issue { reason: &'static str },
}

/// Decides. `current` is what [`inspect`] made of the file, `issuer` the signer's subject.
pub fn plan_renewal(
    spec: &LeafSpec,
    current: Option<&LeafInfo>,
    issuer: &[u8],
    now: OffsetDateTime,
) -> Plan {
    let Some(leaf) = current else {
        return Plan::Issue { reason: "there is none that can be read" };
    };
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let same_addresses = leaf.addresses.len() == spec.addresses.len()
        && spec.addresses.iter().all(|address| leaf.addresses.contains(address));
    let middle = leaf.not_before + (leaf.not_after - leaf.not_before) / 2;
    if leaf.common_name != spec.common_name
        || sorted(&leaf.organisations) != sorted(&spec.organisations)
        || sorted(&leaf.dns_names) != sorted(&spec.dns_names)
        || !same_addresses
    {
        Plan::Issue { reason: "its names are not those of the node any more" }
    } else if leaf.issuer_der != issuer {
        Plan::Issue { reason: "another authority signed it" }
    } else if now < leaf.not_before {
        Plan::Issue { reason: "it is not valid yet: the clock went back" }
    } else if now >= middle {
        Plan::Issue { reason: "half of its life is over" }
    } else {
        Plan::Keep { until: middle }
    }
}

/// Reads a leaf; `None` when there is none or it is not a leaf: both are cured by a new one.
pub fn inspect(path: &Path) -> Option<LeafInfo> {
    parse(&std::fs::read(path).ok()?)
}

fn parse(pem: &[u8]) -> Option<LeafInfo> {
    KeyPair::from_pem(std::str::from_utf8(pem).ok()?).ok()?;
    let block = Pem::iter_from_buffer(pem)
        .filter_map(Result::ok)
        .find(|block| block.label == "CERTIFICATE")?;
    let certificate = block.parse_x509().ok()?;
    let names = certificate.subject();
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        value.as_str().ok().map(str::to_owned)
    };
    let mut info = LeafInfo {
        common_name: names.iter_common_name().next().and_then(text).unwrap_or_default(),
        organisations: names.iter_organization().filter_map(text).collect(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        issuer_der: certificate.issuer().as_raw().to_vec(),
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
    };
    if let Ok(Some(sans)) = certificate.subject_alternative_name() {
        for name in &sans.value.general_names {
            match name {
                x509_parser::extensions::GeneralName::DNSName(name) => {
                    info.dns_names.push((*name).to_owned());
                }
                x509_parser::extensions::GeneralName::IPAddress(bytes) => {
                    info.addresses.extend(address(bytes));
                }
                _ => {}
            }
        }
    }
    Some(info)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

impl Authority {
    /// The signer's subject as it stands in the leaves.
    pub fn subject_der(&self) -> Vec<u8> {
        Pem::iter_from_buffer(self.certificate_pem().as_bytes())
            .filter_map(Result::ok)
            .find_map(|block| Some(block.parse_x509().ok()?.subject().as_raw().to_vec()))
            .unwrap_or_default()
    }

    /// Signs a new leaf: certificate and key as PEM.
    pub fn issue(
        &self,
        spec: &LeafSpec,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(spec.dns_names.clone())?;
        params.subject_alt_names.extend(spec.addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, spec.common_name.as_str());
        for organisation in &spec.organisations {
            params.distinguished_name.push(DnType::OrganizationName, organisation.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match spec.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial(&key)));
        params.not_before = now - BACKDATE;
        params.not_after = now + ttl;
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// A serial number nobody can guess and nobody repeats: the key that it belongs to is random.
fn serial(key: &KeyPair) -> [u8; 16] {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(key.public_key_raw());
    let mut serial = [0; 16];
    serial.copy_from_slice(&digest[..16]);
    serial[0] &= 0x7f;
    serial
}
