use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::record::{MemberRecord, NodeRole};
use crate::sample::{self, Joiner, NOW, TestSigner};

fn member(name: &str, role: NodeRole) -> (MemberRecord, Joiner) {
    let (joiner, store) = (Joiner::new(1, name), sample::store());
    let mut member = store.read_now().unwrap().living().next().unwrap().clone();
    member.name = name.parse().unwrap();
    member.id = joiner.id();
    member.role = role;
    member.addresses = vec![[192, 0, 2, 7].into(), "2001:db8::7".parse().unwrap()];
    (member, joiner)
}

fn issue(purpose: Purpose, member: &MemberRecord, key: &KeyPair, signer: &TestSigner) -> Vec<u8> {
    let key = read_request(&sample::request_der(key, &[])).unwrap();
    let order = order_leaf(purpose, member, &key, NOW);
    let leaf = signer.sign(&order, &sample::settings()).unwrap();
    let pem = Pem::iter_from_buffer(leaf.certificate.as_bytes()).next().unwrap().unwrap();
    assert_eq!(crate::record::Fingerprint::of(&pem.contents), leaf.fingerprint);
    pem.contents
}

/// What Kubernetes' and everybody's verification says of it, `hours` later.
struct Verified {
    client: bool,
    server_names: Vec<String>,
}

fn verify(der: &[u8], signer: &TestSigner, names: &[&str], hours: u64) -> Verified {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(signer.authority.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        NOW.unix_timestamp() as u64 + hours * 3600,
    ));
    let leaf = CertificateDer::from(der.to_vec());
    let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let client = client.build().unwrap().verify_client_cert(&leaf, &[], now).is_ok();
    let server = WebPkiServerVerifier::builder_with_provider(roots, provider).build().unwrap();
    let is_good = |name: &&&str| {
        let name = ServerName::try_from((**name).to_owned()).unwrap();
        server.verify_server_cert(&leaf, &[], &name, &[], now).is_ok()
    };
    let server_names = names.iter().filter(is_good).map(|name| (*name).to_owned()).collect();
    Verified { client, server_names }
}

const NAMES: [&str; 9] = [
    "alpha",
    "192.0.2.7",
    "2001:db8::7",
    "first",
    "127.0.0.1",
    "kubernetes.default.svc",
    CONTROL_PLANE_SERVER_NAME,
    DATASTORE_SERVER_NAME,
    "localhost",
];

#[test]
fn each_certificate_is_good_for_its_purpose_and_for_nothing_else() {
    let signer = TestSigner::new();
    let control: &[&str] = &[CONTROL_PLANE_SERVER_NAME];
    for (purpose, role, client, server) in [
        (Purpose::Node, NodeRole::Worker, true, &[][..]),
        (Purpose::Node, NodeRole::ControlPlane, true, control),
        (Purpose::KubeletClient, NodeRole::Worker, true, &[]),
        (Purpose::KubeletServing, NodeRole::Worker, false, &NAMES[..3]),
        (Purpose::KubeProxy, NodeRole::Worker, true, &[]),
        (Purpose::Network, NodeRole::Worker, true, &[]),
        (Purpose::DatastoreMember, NodeRole::ControlPlane, true, &[DATASTORE_SERVER_NAME]),
    ] {
        let (member, joiner) = member("alpha", role);
        let der = issue(purpose, &member, &joiner.key, &signer);
        let verified = verify(&der, &signer, &NAMES, 0);
        assert_eq!(
            (verified.client, &verified.server_names[..]),
            (client, &owned(server)[..]),
            "{purpose}"
        );
        let stranger = verify(&der, &TestSigner::new(), &NAMES, 0);
        assert!(!stranger.client && stranger.server_names.is_empty());
    }
}

#[test]
fn a_member_of_the_datastore_is_known_by_its_node() {
    let signer = TestSigner::new();
    let (member, joiner) = member("alpha", NodeRole::ControlPlane);
    let der = issue(Purpose::DatastoreMember, &member, &joiner.key, &signer);
    let own = format!("{}.{DATASTORE_SERVER_NAME}", member.id);
    let other = format!("{}.{DATASTORE_SERVER_NAME}", crate::record::NodeId::of_key(b"other"));
    let verified = verify(&der, &signer, &[&own, &other], 0);
    assert_eq!(verified.server_names, [own]);
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_certificate_lives_for_a_day_at_most() {
    let (signer, (member, joiner)) = (TestSigner::new(), member("alpha", NodeRole::Worker));
    for purpose in Purpose::ALL {
        let der = issue(purpose, &member, &joiner.key, &signer);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let validity = certificate.validity();
        let (from, to) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        assert!(to - from <= time::Duration::hours(24), "{purpose}");
        assert!(from <= NOW - 2 * crate::protocol::CLOCKS_APART_MAX);
        assert!(!certificate.is_ca());
        let late = verify(&der, &signer, &NAMES, 24);
        assert!(!late.client && late.server_names.is_empty(), "{purpose}");
    }
}

#[test]
fn names_and_groups_are_those_of_the_table() {
    let (signer, (member, joiner)) = (TestSigner::new(), member("alpha", NodeRole::ControlPlane));
    for (purpose, subject) in [
        (Purpose::Node, "CN=skiff:node:alpha, O=skiff:nodes"),
        (Purpose::KubeletClient, "CN=system:node:alpha, O=system:nodes"),
        (Purpose::KubeletServing, "CN=system:node:alpha, O=system:nodes"),
        (Purpose::KubeProxy, "CN=system:kube-proxy"),
        (Purpose::Network, "CN=skiff:network:alpha, O=skiff:networks"),
        (Purpose::DatastoreMember, "CN=skiff:datastore:alpha"),
    ] {
        let der = issue(purpose, &member, &joiner.key, &signer);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        // Of Kubernetes: the user's UID.
        let uid = format!("1.3.6.1.4.1.57683.2={}", member.id);
        let found = certificate.subject().to_string();
        assert!(found.contains(&member.id.to_string()), "{found}");
        let attributes = certificate.subject().iter_attributes();
        let shown: Vec<String> = attributes
            .map(|attribute| {
                let kind = match attribute.attr_type().to_string().as_str() {
                    "2.5.4.3" => "CN".to_owned(),
                    "2.5.4.10" => "O".to_owned(),
                    other => other.to_owned(),
                };
                format!("{kind}={}", attribute.as_str().unwrap())
            })
            .collect();
        let mut wanted: Vec<String> = subject.split(", ").map(str::to_owned).collect();
        wanted.push(uid);
        assert_eq!(shown, wanted, "{purpose}");
    }
}

#[test]
fn two_certificates_never_share_a_serial_number() {
    let (signer, (member, joiner)) = (TestSigner::new(), member("alpha", NodeRole::ControlPlane));
    let serial = |der: Vec<u8>| X509Certificate::from_der(&der).unwrap().1.raw_serial_as_string();
    let mut seen: Vec<_> = Purpose::ALL
        .into_iter()
        .map(|purpose| serial(issue(purpose, &member, &joiner.key, &signer)))
        .collect();
    let moved = MemberRecord { addresses: vec![[192, 0, 2, 8].into()], ..member };
    seen.push(serial(issue(Purpose::KubeletServing, &moved, &joiner.key, &signer)));
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn an_identity_reads_back_and_other_certificates_are_none() {
    let (signer, (member, joiner)) = (TestSigner::new(), member("alpha", NodeRole::Worker));
    let der = issue(Purpose::Node, &member, &joiner.key, &signer);
    let identity = read_identity(&der).unwrap();
    assert_eq!((identity.name, identity.id), (member.name.clone(), member.id));
    assert_eq!(
        identity.key,
        match joiner.caller() {
            crate::protocol::Caller::Node(identity) => identity.key,
            _ => panic!("a node"),
        }
    );
    for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::Node) {
        let der = issue(purpose, &member, &joiner.key, &signer);
        assert!(matches!(read_identity(&der), Err(IdentityError::NoNode(_))), "{purpose}");
    }
    assert_eq!(read_identity(b"x"), Err(IdentityError::Unreadable));
    let longer = [&der[..], b"x"].concat();
    assert_eq!(read_identity(&longer), Err(IdentityError::Unreadable));
}

#[test]
fn keys_of_p256_and_ed25519_are_signed_and_others_are_not() {
    for (kind, result) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, Ok(())),
        (&PKCS_ED25519, Ok(())),
        (&PKCS_ECDSA_P384_SHA384, Err(RequestError::Key)),
    ] {
        let key = KeyPair::generate_for(kind).unwrap();
        assert_eq!(read_request(&sample::request_der(&key, &[])).map(drop), result);
    }
}

#[test]
fn a_request_whose_sender_does_not_have_the_key_is_refused() {
    let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut der = sample::request_der(&mine, &[]);
    let other = theirs.public_key_raw();
    let at = der.windows(65).position(|bytes| bytes == mine.public_key_raw()).unwrap();
    der[at..at + 65].copy_from_slice(other);
    assert_eq!(read_request(&der), Err(RequestError::Proof));
}

#[test]
fn a_request_that_is_none_or_too_long_is_refused() {
    let key = KeyPair::generate().unwrap();
    let der = sample::request_der(&key, &[]);
    for bytes in [&b""[..], b"x", &der[..der.len() - 1], &[&der[..], b"x"].concat()] {
        assert_eq!(read_request(bytes), Err(RequestError::Unreadable));
    }
    assert_eq!(read_request(&vec![0; 5000]), Err(RequestError::TooLong(5000)));
}

#[test]
fn a_request_to_be_an_authority_or_something_unknown_is_refused() {
    let key = KeyPair::generate().unwrap();
    let request = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        read_request(params.serialize_request(&key).unwrap().der()).map(drop)
    };
    assert_eq!(request(|_| {}), Ok(()));
    assert_eq!(
        request(|p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
        Err(RequestError::Authority)
    );
    assert_eq!(
        request(|p| p.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign]),
        Err(RequestError::Authority)
    );
    let unknown = |p: &mut rcgen::CertificateParams| {
        let extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        p.custom_extensions = vec![extension];
    };
    assert!(matches!(request(unknown), Err(RequestError::Unknown(_))));
}

#[test]
fn a_request_may_ask_for_the_nodes_own_names_and_for_no_other() {
    let (member, joiner) = member("alpha", NodeRole::Worker);
    for (names, foreign) in [
        (&[][..], None),
        (&["CN=system:node:alpha", "O=system:nodes", "alpha", "192.0.2.7"][..], None),
        (&["CN=system:node:beta"], Some("system:node:beta")),
        (&["CN=system:node:alpha", "O=system:masters"], Some("system:masters")),
        (&["OU=system:masters"], Some("2.5.4.11=system:masters")),
        (&["kubernetes"], Some("kubernetes")),
        (&["192.0.2.1"], Some("192.0.2.1")),
    ] {
        let key = read_request(&sample::request_der(&joiner.key, names)).unwrap();
        let order = order_leaf(Purpose::KubeletServing, &member, &key, NOW);
        let refused = key.check_names(&order).err();
        assert_eq!(refused, foreign.map(|name| RequestError::ForeignName(name.into())));
    }
}

#[test]
fn a_request_with_very_many_names_is_refused() {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = (0..60).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(
        read_request(&sample::request_der(&key, &names)).map(drop),
        Err(RequestError::TooManyNames)
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = read_request(&bytes);
        let _ = read_identity(&bytes);
    }

    // A real one with a byte changed gets further in. Outside of what is signed the parser takes
    // some tags for others; what is read is then the same.
    #[test]
    fn a_changed_request_is_refused_or_says_the_same(
        at: prop::sample::Index,
        byte: u8,
        seed in 0..4usize,
    ) {
        let names = [&[][..], &["CN=a", "O=b"], &["alpha", "192.0.2.7"], &["OU=x"]][seed];
        let key = KeyPair::generate().unwrap();
        let mut der = sample::request_der(&key, names);
        let real = read_request(&der).unwrap();
        let at_request = at.index(der.len());
        der[at_request] = byte;
        let read = read_request(&der);
        prop_assert!(read.is_err() || read == Ok(real), "{at_request} {byte}");
        let (member, joiner) = member("alpha", NodeRole::Worker);
        let mut der = issue(Purpose::Node, &member, &joiner.key, &TestSigner::new());
        let at = at.index(der.len());
        der[at] = byte;
        let _ = read_identity(&der);
    }
}
