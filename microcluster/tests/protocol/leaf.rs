//! What a certificate says, read and expected independently of who made it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use microcluster::record::{Fingerprint, NodeId, NodeRole};
use microcluster::trust::{IssuedLeaf, Purpose};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::Oid;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::promises::Life;

const UID_OID: [u64; 8] = [1, 3, 6, 1, 4, 1, 57683, 2];

/// Whether this is what a node of this life may have; its key.
pub fn check(issued: &IssuedLeaf, id: NodeId, life: &Life) -> Result<Fingerprint, String> {
    let der = der(&issued.certificate);
    if Fingerprint::of(&der) != issued.fingerprint {
        return Err("its fingerprint is another".into());
    }
    let (_, leaf) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let uid = Oid::from(&UID_OID).expect("an object identifier");
    let text = |mut names: Vec<&str>| (names.len() == 1).then(|| names.remove(0).to_owned());
    let subject = leaf.subject();
    let common = text(subject.iter_common_name().filter_map(|n| n.as_str().ok()).collect());
    let found_id = text(subject.iter_by_oid(&uid).filter_map(|n| n.as_str().ok()).collect());
    let groups: Vec<&str> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let (expected, group) = subject_of(issued.purpose, life.name.as_str());
    if common.as_deref() != Some(&*expected) || groups != Vec::from_iter(group) {
        return Err(format!("it is for {common:?} of {groups:?}"));
    }
    if found_id != Some(id.to_string()) {
        return Err(format!("it is for {found_id:?}"));
    }
    if leaf.is_ca() {
        return Err("it is an authority".into());
    }
    let (names, addresses) = alternatives(&leaf);
    let may = names_of(issued.purpose, id, life);
    let addresses_may = issued.purpose == Purpose::KubeletServing;
    if let Some(name) = names.iter().find(|name| !may.contains(*name)) {
        return Err(format!("it is for {name}"));
    }
    if let Some(one) = addresses.iter().find(|a| !addresses_may || !life.addresses.contains(*a)) {
        return Err(format!("it is for {one}"));
    }
    Ok(Fingerprint::of(leaf.public_key().raw))
}

/// Of a PEM's first block.
pub fn der(pem: &str) -> Vec<u8> {
    parse_x509_pem(pem.as_bytes()).map(|(_, pem)| pem.contents).unwrap_or_default()
}

fn subject_of(purpose: Purpose, name: &str) -> (String, Option<&'static str>) {
    match purpose {
        Purpose::Node => (format!("skiff:node:{name}"), Some("skiff:nodes")),
        Purpose::KubeletClient | Purpose::KubeletServing => {
            (format!("system:node:{name}"), Some("system:nodes"))
        }
        Purpose::KubeProxy => ("system:kube-proxy".into(), None),
        Purpose::Network => (format!("skiff:network:{name}"), Some("skiff:networks")),
        Purpose::DatastoreMember => (format!("skiff:datastore:{name}"), None),
    }
}

fn names_of(purpose: Purpose, id: NodeId, life: &Life) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let decides = life.role == NodeRole::ControlPlane;
    match purpose {
        Purpose::Node => {
            names.insert(format!("{id}.node.skiff.internal"));
            names.extend(decides.then(|| "control-plane.skiff.internal".to_owned()));
        }
        Purpose::KubeletServing => names.extend([life.name.to_string()]),
        Purpose::DatastoreMember => {
            let all = "member.datastore.skiff.internal";
            let own = decides.then(|| [all.to_owned(), format!("{id}.{all}")]);
            names.extend(own.into_iter().flatten());
        }
        _ => {}
    }
    names
}

fn alternatives(leaf: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for extension in leaf.extensions() {
        let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() else {
            continue;
        };
        for name in &found.general_names {
            match name {
                GeneralName::DNSName(text) => names.push((*text).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let six = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                    addresses.extend(four.or(six).ok());
                }
                other => names.push(format!("{other:?}")),
            }
        }
    }
    (names, addresses)
}
