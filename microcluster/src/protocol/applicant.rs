//! What a machine must be to be let in.

use std::net::IpAddr;

use crate::endpoint::is_reachable;
use crate::message::{Applicant, Choices, Refusal, RefusalCode};
use crate::record::{
    ADDRESSES_MAX, ClusterRecord, ClusterSettings, NODE_NAME_LENGTH_MAX, NodeId, NodeName,
    NodeRole, check_label,
};
use crate::token::TokenRecord;
use crate::version::{Version, check_api_server, check_kubelet};

/// As many nodes as Kubernetes itself is tested with.
pub const MEMBERS_MAX: usize = 5000;
/// Five vote and two stand by; each more costs an API server's memory and serves reads.
pub const CONTROL_PLANE_MAX: usize = 15;

/// Of an address of a datastore, which anybody may have written.
const DATASTORE_SHOWN_MAX: usize = 200;

/// Checks what an applicant says of itself against the cluster; its name when all is well.
pub(super) fn check_applicant(
    record: &ClusterRecord,
    token: &TokenRecord,
    applicant: &Applicant,
) -> Result<NodeName, Refusal> {
    let settings = &record.settings.value;
    if let Some(cluster) = &applicant.member_of {
        let whose = if *cluster == settings.cluster { "this" } else { "another" };
        let message = format!("the node is a member of {whose} cluster already");
        return Err(Refusal::new(RefusalCode::AlreadyMember, message)
            .hint("`skiff reset` on it, then `skiff join` again"));
    }
    let name = check_name(record, &applicant.name)?;
    check_token(token, &name, applicant.role)?;
    check_addresses(record, applicant.id, &applicant.addresses)?;
    check_choices(settings, &applicant.choices)?;
    check_kubernetes(record, applicant.role, applicant.kubernetes)?;
    check_failure_domain(&applicant.failure_domain)?;
    check_room(record, applicant.role)?;
    Ok(name)
}

fn check_name(record: &ClusterRecord, text: &str) -> Result<NodeName, Refusal> {
    let rename = "set `node.name` in its configuration";
    let name: NodeName = text.parse().map_err(|error| {
        let message = format!("a node cannot have this name: {error}");
        Refusal::new(RefusalCode::NameInvalid, message).hint(rename)
    })?;
    if record.settings.value.reserves_name(&name) {
        let message = format!("a node cannot be called {name}: the cluster itself uses that name");
        return Err(Refusal::new(RefusalCode::NameReserved, message).hint(rename));
    }
    if record.members.contains_key(&name) {
        let message = format!("there is a node {name} in the cluster already");
        return Err(Refusal::new(RefusalCode::NameTaken, message).hint(format!(
            "{rename}; or, when that machine is gone, `skiff remove-node {name}` on a member"
        )));
    }
    Ok(name)
}

fn check_token(token: &TokenRecord, name: &NodeName, role: NodeRole) -> Result<(), Refusal> {
    let add = "`skiff add-node` on a member makes another token";
    if token.role != role {
        let message = format!("the token is for a {} node, not for a {role} one", token.role);
        let join = match token.role {
            NodeRole::ControlPlane => "`skiff join TOKEN`, without --worker",
            NodeRole::Worker => "`skiff join TOKEN --worker`",
        };
        return Err(Refusal::new(RefusalCode::TokenForAnotherRole, message)
            .hint(format!("{join}; or {add}")));
    }
    match &token.name {
        Some(meant) if meant != name => {
            let message = format!("the token is for {meant}, not for {name}");
            Err(Refusal::new(RefusalCode::TokenForAnotherName, message).hint(add))
        }
        _ => Ok(()),
    }
}

/// Whether a node may have these addresses. They come into its certificate.
pub(super) fn check_addresses(
    record: &ClusterRecord,
    id: NodeId,
    addresses: &[IpAddr],
) -> Result<(), Refusal> {
    let refused = |code, message: String| {
        Err(Refusal::new(code, message).hint("set `node.address` in its configuration"))
    };
    if !(1..=ADDRESSES_MAX).contains(&addresses.len()) {
        let message =
            format!("a node has 1 to {ADDRESSES_MAX} addresses, and not {}", addresses.len());
        return refused(RefusalCode::AddressInvalid, message);
    }
    for address in addresses {
        if !is_reachable(*address) {
            let message = format!("others cannot reach a node at {address}");
            return refused(RefusalCode::AddressInvalid, message);
        }
        if let Some(why) = record.settings.value.reserves_address(*address) {
            return refused(RefusalCode::AddressInvalid, format!("{address} {why}"));
        }
        let has_it = |member: &&crate::record::MemberRecord| {
            member.id != id && member.addresses.contains(address)
        };
        if let Some(other) = record.living().find(has_it) {
            let message = format!("{address} is the address of {}", other.name);
            return refused(RefusalCode::AddressTaken, message);
        }
    }
    Ok(())
}

fn check_choices(settings: &ClusterSettings, choices: &Choices) -> Result<(), Refusal> {
    let differs = |key: &str, theirs: String, ours: String| {
        let message = format!("{key} is {theirs} there, and the cluster has {ours}");
        Err(Refusal::new(RefusalCode::RangesDiffer, message)
            .hint("take it out of the joining node's configuration, or give it the same value"))
    };
    let ranges = |ranges: &[ipnet::IpNet]| {
        ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    for (key, theirs, ours) in [
        ("network.pod-cidr", &choices.pod_cidrs, &settings.pod_cidrs),
        ("network.service-cidr", &choices.service_cidrs, &settings.service_cidrs),
    ] {
        if let Some(theirs) = theirs.as_ref().filter(|theirs| *theirs != ours) {
            return differs(key, ranges(theirs), ranges(ours));
        }
    }
    let domain = choices.dns_domain.as_ref();
    if let Some(theirs) = domain.filter(|theirs| **theirs != settings.dns_domain) {
        // Anybody's text: in a log it must not look like another line.
        let theirs = theirs.escape_debug().take(NODE_NAME_LENGTH_MAX).collect();
        return differs("network.dns-domain", theirs, settings.dns_domain.clone());
    }
    if let Some(theirs) = &choices.datastore
        && !settings.datastore.as_ref().is_some_and(|ours| is_same_datastore(theirs, ours))
    {
        let own = "Skiff's own datastore".to_owned();
        let theirs: String = theirs.escape_debug().take(DATASTORE_SHOWN_MAX).collect();
        let ours = settings.datastore.clone().unwrap_or(own);
        let message = format!("datastore.endpoint is {theirs} there, and the cluster has {ours}");
        return Err(Refusal::new(RefusalCode::DatastoresDiffer, message)
            .hint("take it out of the joining node's configuration, or give it the same value"));
    }
    match choices.dns_address {
        Some(theirs) if theirs != settings.dns_address => {
            differs("network.dns-address", theirs.to_string(), settings.dns_address.to_string())
        }
        _ => Ok(()),
    }
}

fn check_kubernetes(
    record: &ClusterRecord,
    role: NodeRole,
    kubernetes: Version,
) -> Result<(), Refusal> {
    let api_servers = record.api_servers();
    // The kubelet of a control-plane node reaches every API server, too.
    let mut checked = check_kubelet(kubernetes, &api_servers);
    if role == NodeRole::ControlPlane {
        checked =
            checked.and_then(|()| check_api_server(kubernetes, &api_servers, &record.kubelets()));
    }
    checked.map_err(|error| {
        Refusal::new(RefusalCode::KubernetesApart, error)
            .hint("install the release that the cluster has")
    })
}

/// Members of an etcd may be named one by one: one that both name makes it the same.
fn is_same_datastore(theirs: &str, ours: &str) -> bool {
    theirs.split(',').any(|one| ours.split(',').any(|other| one == other))
}

/// It becomes the value of a label.
pub(super) fn check_failure_domain(domain: &str) -> Result<(), Refusal> {
    check_label("topology.kubernetes.io/zone", domain).map_err(|error| {
        Refusal::new(RefusalCode::NameInvalid, format!("the failure domain cannot be: {error}"))
    })
}

fn check_room(record: &ClusterRecord, role: NodeRole) -> Result<(), Refusal> {
    if record.members.len() >= MEMBERS_MAX {
        let message = format!("the cluster has {MEMBERS_MAX} nodes, and more are not possible");
        return Err(Refusal::new(RefusalCode::ClusterFull, message));
    }
    if role == NodeRole::ControlPlane && record.control_plane().count() >= CONTROL_PLANE_MAX {
        let message =
            format!("the cluster has {CONTROL_PLANE_MAX} control-plane nodes, which is the most");
        return Err(Refusal::new(RefusalCode::ControlPlaneFull, message)
            .hint("join it as a worker: `skiff add-node --worker`"));
    }
    Ok(())
}
