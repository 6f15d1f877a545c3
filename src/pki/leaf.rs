//! Leaves: one file with certificate and key each, replaced long before it expires.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use microcluster::record::NodeId;
use microcluster::trust::UID_OID;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::oid_registry::Oid;
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
    /// Of a node of a cluster: by it the node is refused when it was removed.
    pub id: Option<NodeId>,
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
    /// The node whose it is.
    pub id: Option<NodeId>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// The issuer's common name, and its whole name as it stands there.
    pub issuer: String,
    pub issuer_der: Vec<u8>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl LeafInfo {
    /// When another should take its place: at half of its life.
    pub fn due(&self) -> OffsetDateTime {
        // A certificate that somebody made may end in the year 9999.
        let issued = self.not_before.saturating_add(BACKDATE);
        issued.saturating_add((self.not_after - issued) / 2)
    }
}

/// What is to be done with a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Good; look again then.
    Keep {
        until: OffsetDateTime,
    },
    Issue {
        reason: &'static str,
    },
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
    let middle = leaf.due();
    if leaf.common_name != spec.common_name
        || sorted(&leaf.organisations) != sorted(&spec.organisations)
        || sorted(&leaf.dns_names) != sorted(&spec.dns_names)
        || !same_addresses
    {
        Plan::Issue { reason: "its names are not those of the node any more" }
    } else if leaf.id != spec.id {
        Plan::Issue { reason: "it does not say which node of the cluster this is" }
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
    let text = std::str::from_utf8(pem).ok()?;
    // rcgen reads the first block of a text only, and here that is the certificate.
    let key = text.find("-----BEGIN PRIVATE KEY-----")?;
    KeyPair::from_pem(&text[key..]).ok()?;
    parse_certificate(pem)
}

/// Whether behind a file's first certificate stand these and no others.
pub fn shows_behind(path: &Path, others: &str) -> bool {
    let certificates = |text: &[u8]| -> Vec<Vec<u8>> {
        let blocks = Pem::iter_from_buffer(text).filter_map(Result::ok);
        let blocks = blocks.filter(|block| block.label == "CERTIFICATE");
        blocks.map(|block| block.contents).collect()
    };
    let shown = certificates(&std::fs::read(path).unwrap_or_default());
    shown.get(1..).is_some_and(|behind| *behind == *certificates(others.as_bytes()))
}

/// Reads the first certificate of a file in which there is no key: an authority's, say.
pub fn inspect_certificate(path: &Path) -> Option<LeafInfo> {
    parse_certificate(&std::fs::read(path).ok()?)
}

fn parse_certificate(pem: &[u8]) -> Option<LeafInfo> {
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
        id: Oid::from(&UID_OID).ok().and_then(|uid| {
            let id = names.iter_by_oid(&uid).next().and_then(text);
            id.and_then(|id| id.parse().ok())
        }),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        issuer: certificate.issuer().iter_common_name().next().and_then(text).unwrap_or_default(),
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
        subject_der(self.certificate_pem())
    }

    /// The certificate as it is compared by its sum.
    pub fn certificate_der(&self) -> Vec<u8> {
        let blocks = Pem::iter_from_buffer(self.certificate_pem().as_bytes());
        blocks.filter_map(Result::ok).next().map(|block| block.contents).unwrap_or_default()
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
        if let Some(id) = spec.id {
            let uid = DnType::CustomDnType(UID_OID.to_vec());
            params.distinguished_name.push(uid, id.to_string());
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

/// The subject of an authority as it stands in leaves that it has signed.
pub fn subject_der(authority_pem: &str) -> Vec<u8> {
    Pem::iter_from_buffer(authority_pem.as_bytes())
        .filter_map(Result::ok)
        .find_map(|block| Some(block.parse_x509().ok()?.subject().as_raw().to_vec()))
        .unwrap_or_default()
}

/// What the first certificate of a text is called.
pub fn common_name(certificate_pem: &str) -> Option<String> {
    let blocks = Pem::iter_from_buffer(certificate_pem.as_bytes()).filter_map(Result::ok);
    let block = blocks.into_iter().next()?;
    let certificate = block.parse_x509().ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
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

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::hours(24);
    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-23 00:00 UTC);

    fn spec(dir: &Path) -> LeafSpec {
        LeafSpec {
            path: dir.join("leaf.pem"),
            issuer: Issuer::Cluster,
            common_name: "system:node:a".into(),
            organisations: vec!["system:nodes".into()],
            id: None,
            dns_names: vec!["a".into()],
            addresses: vec![IpAddr::from([192, 0, 2, 2])],
            usage: Usage::Both,
            owner: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
        }
    }

    fn issued(dir: &Path) -> (Authority, LeafSpec, LeafInfo) {
        let authority = Authority::ensure(dir, "ca", "test", NOW).unwrap();
        let spec = spec(dir);
        let (certificate, key) = authority.issue(&spec, NOW, TTL).unwrap();
        std::fs::write(&spec.path, certificate + &key).unwrap();
        let info = inspect(&spec.path).unwrap();
        (authority, spec, info)
    }

    fn reason(plan: Plan) -> &'static str {
        match plan {
            Plan::Issue { reason } => reason,
            Plan::Keep { .. } => "kept",
        }
    }

    #[test]
    fn a_leaf_is_kept_for_half_of_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, spec, info) = issued(dir.path());
        let issuer = authority.subject_der();
        assert_eq!(info.common_name, "system:node:a");
        assert_eq!(info.organisations, ["system:nodes"]);
        let plan = |now| plan_renewal(&spec, Some(&info), &issuer, now);
        let until = NOW + TTL / 2;
        assert_eq!(plan(NOW), Plan::Keep { until });
        assert_eq!(reason(plan(until)), "half of its life is over");
        assert_eq!(reason(plan(NOW + Duration::days(730))), "half of its life is over");
        let back = plan(NOW - Duration::days(730));
        assert_eq!(reason(back), "it is not valid yet: the clock went back");
    }

    #[test]
    fn a_new_address_or_another_authority_needs_a_new_leaf() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, mut spec, info) = issued(dir.path());
        let stranger = plan_renewal(&spec, Some(&info), b"someone else", NOW);
        assert_eq!(reason(stranger), "another authority signed it");
        spec.addresses = vec![IpAddr::from([192, 0, 2, 3])];
        let moved = plan_renewal(&spec, Some(&info), &authority.subject_der(), NOW);
        assert_eq!(reason(moved), "its names are not those of the node any more");
    }

    #[test]
    fn a_leaf_says_which_node_of_a_cluster_it_is_and_one_that_does_not_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, mut spec, lone) = issued(dir.path());
        let issuer = authority.subject_der();
        assert_eq!(lone.id, None);
        let id = NodeId::of_key(b"beta");
        spec.id = Some(id);
        let founded = plan_renewal(&spec, Some(&lone), &issuer, NOW);
        assert_eq!(reason(founded), "it does not say which node of the cluster this is");
        let (certificate, key) = authority.issue(&spec, NOW, TTL).unwrap();
        let leaf = parse((certificate + &key).as_bytes()).unwrap();
        assert_eq!(leaf.id, Some(id));
        assert_eq!(
            (&leaf.common_name, &leaf.organisations),
            (&lone.common_name, &lone.organisations)
        );
        assert_eq!(reason(plan_renewal(&spec, Some(&leaf), &issuer, NOW)), "kept");
        // Restored from an archive: the same name, and another node.
        spec.id = Some(NodeId::of_key(b"another key"));
        let restored = plan_renewal(&spec, Some(&leaf), &issuer, NOW);
        assert_eq!(reason(restored), "it does not say which node of the cluster this is");
    }

    #[test]
    fn a_corrupt_leaf_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, spec, _) = issued(dir.path());
        for content in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\0"]
        {
            std::fs::write(&spec.path, content).unwrap();
            let plan =
                plan_renewal(&spec, inspect(&spec.path).as_ref(), &authority.subject_der(), NOW);
            assert_eq!(reason(plan), "there is none that can be read");
        }
    }

    #[test]
    fn an_authority_is_never_made_anew_over_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, ..) = issued(dir.path());
        let again = Authority::ensure(dir.path(), "ca", "test", NOW).unwrap();
        assert_eq!(again.certificate_pem(), authority.certificate_pem());
        std::fs::write(dir.path().join("ca.crt"), "rubbish").unwrap();
        let error = Authority::ensure(dir.path(), "ca", "test", NOW).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = Authority::ensure(dir.path(), "ca", "test", NOW).unwrap_err();
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }

    #[test]
    fn a_lost_certificate_of_an_authority_is_made_again_from_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, spec, info) = issued(dir.path());
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        let again = Authority::ensure(dir.path(), "ca", "test", NOW).unwrap();
        assert_eq!(again.subject_der(), authority.subject_der());
        let plan = plan_renewal(&spec, Some(&info), &again.subject_der(), NOW);
        assert!(matches!(plan, Plan::Keep { .. }));
    }

    #[test]
    fn a_certificate_that_never_ends_has_a_moment_at_which_it_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let (.., info) = issued(dir.path());
        let end = time::PrimitiveDateTime::MAX.assume_utc();
        let odd = LeafInfo { not_before: end, not_after: end, ..info };
        assert_eq!(odd.due(), end);
    }

    proptest::proptest! {
        #[test]
        fn no_content_of_a_leaf_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse_certificate(&bytes);
        }
    }
}
