//! Who belongs to the cluster, with what Kubernetes says of each.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::api::{Api, ListParams};
use microcluster::message::Answer;
use microcluster::message::Request;
use microcluster::record::{MemberState, MemberView, SettingsRevision};
use skiff_api::{ClusterNode, NodeSettings, NodeState};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpStream;

use super::ask::AskError;
use super::{Cluster, peers, settings};
use crate::node::core::Node;

/// How long a node may take to show that it is there.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);
/// Where kubelets renew their leases every ten seconds.
const LEASES: &str = "kube-node-lease";

/// What Kubernetes knows of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    ready: bool,
    contact: Option<OffsetDateTime>,
}

/// Everybody, by name.
pub async fn list(node: &Node, cluster: &Cluster) -> Result<Vec<ClusterNode>, AskError> {
    let (members, newest) = match &cluster.desk {
        Some(desk) => {
            let record = desk.record().await.map_err(AskError::Refused)?;
            let newest = record.settings.value.shared.revision;
            (record.living().map(|member| member.view()).collect(), newest)
        }
        None => match cluster.ask(Request::Members {}).await? {
            Answer::Members { members, settings } => {
                let newest = settings.map(|settings| settings.shared.revision);
                (members, newest.unwrap_or_default())
            }
            _ => return Err(AskError::Answer),
        },
    };
    // Without an API server the record is all that is known. A worker may see its own Node only.
    let seen = match cluster.desk.is_some() {
        true => seen(node).await.ok(),
        false => None,
    };
    let peers = match cluster.desk.is_some() {
        true => peers::list(&cluster.paths).await.unwrap_or_default(),
        false => vec![],
    };
    let view = |member: &MemberView| ClusterNode {
        datastore: peers::role_of(&peers, member.id),
        ..view(member, newest, seen.as_ref())
    };
    Ok(members.iter().map(view).collect())
}

/// Whether somebody answers where the kubelet of a member listens.
pub async fn is_reachable(member: &MemberView, kubelet_port: u16) -> bool {
    for address in &member.addresses {
        let connected = TcpStream::connect((*address, kubelet_port));
        if matches!(tokio::time::timeout(REACH_TIMEOUT, connected).await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

async fn seen(
    node: &Node,
) -> Result<BTreeMap<String, Seen>, Box<dyn std::error::Error + Send + Sync>> {
    let client = node.clients.client().await?;
    let mut all = BTreeMap::<String, Seen>::new();
    let nodes: Api<KubeNode> = Api::all(client.clone());
    for object in nodes.list(&ListParams::default()).await? {
        let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        all.entry(object.metadata.name.unwrap_or_default()).or_default().ready = ready;
    }
    let leases: Api<Lease> = Api::namespaced(client, LEASES);
    for object in leases.list(&ListParams::default()).await? {
        let renewed = object.spec.and_then(|spec| spec.renew_time);
        let renewed =
            renewed.and_then(|at| OffsetDateTime::parse(&at.0.to_string(), &Rfc3339).ok());
        all.entry(object.metadata.name.unwrap_or_default()).or_default().contact = renewed;
    }
    Ok(all)
}

fn view(
    member: &MemberView,
    newest: SettingsRevision,
    seen: Option<&BTreeMap<String, Seen>>,
) -> ClusterNode {
    let own = seen.map(|seen| seen.get(member.name.as_str()).copied().unwrap_or_default());
    let state = match (&member.state, own) {
        (MemberState::Joining { .. }, _) => NodeState::Joining,
        (MemberState::Leaving, _) => NodeState::Leaving,
        (MemberState::Member, None) => NodeState::Member,
        (MemberState::Member, Some(seen)) if seen.ready => NodeState::Ready,
        (MemberState::Member, Some(_)) => NodeState::NotReady,
    };
    let time = |at: OffsetDateTime| at.format(&Rfc3339).ok();
    let contact = own.and_then(|seen| seen.contact).max(Some(member.last_contact));
    ClusterNode {
        name: member.name.to_string(),
        role: member.role.to_string(),
        datastore: None,
        state,
        addresses: member.addresses.iter().map(ToString::to_string).collect(),
        version: member.release.to_string(),
        kubernetes: member.kubernetes.to_string(),
        certificate_expires: member.expires.and_then(time),
        last_contact: contact.and_then(time),
        settings: Some(NodeSettings {
            revision: member.settings.revision.0,
            newest: newest.0,
            failed: member.settings.failure(newest).is_some(),
            reason: settings::behind(member, newest),
        }),
    }
}

#[cfg(test)]
mod tests {
    use microcluster::record::{AppliedSettings, NodeId, NodeRole};
    use microcluster::version::Version;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);

    fn member(state: MemberState) -> MemberView {
        MemberView {
            name: "beta".parse().unwrap(),
            id: NodeId::of_key(b"beta"),
            role: NodeRole::Worker,
            state,
            addresses: vec![[192, 0, 2, 2].into()],
            release: Version::new(0, 1, 0),
            kubernetes: Version::new(1, 36, 3),
            failure_domain: String::new(),
            expires: None,
            last_contact: NOW,
            settings: AppliedSettings::default(),
            rotation: Default::default(),
        }
    }

    #[test]
    fn a_node_is_as_kubernetes_sees_it_when_the_cluster_knows_it_as_a_member() {
        let seen = |ready| BTreeMap::from([("beta".to_owned(), Seen { ready, contact: None })]);
        let joining = MemberState::Joining {
            until: NOW,
            token: microcluster::token::Secret::from_bytes([1; 16]).token_id(),
            recipient: None,
        };
        for (state, seen, shown) in [
            (MemberState::Member, Some(seen(true)), NodeState::Ready),
            (MemberState::Member, Some(seen(false)), NodeState::NotReady),
            (MemberState::Member, Some(BTreeMap::new()), NodeState::NotReady),
            (MemberState::Member, None, NodeState::Member),
            (MemberState::Leaving, Some(seen(true)), NodeState::Leaving),
            (joining, Some(seen(true)), NodeState::Joining),
        ] {
            assert_eq!(view(&member(state), SettingsRevision(0), seen.as_ref()).state, shown);
        }
    }

    #[test]
    fn the_last_contact_is_the_later_one_of_record_and_lease() {
        let contact = |at| {
            let seen = Seen { ready: true, contact: Some(at) };
            let seen = BTreeMap::from([("beta".to_owned(), seen)]);
            view(&member(MemberState::Member), SettingsRevision(0), Some(&seen))
                .last_contact
                .unwrap()
        };
        assert_eq!(contact(NOW + time::Duration::SECOND), "2026-11-27T12:00:01Z");
        assert_eq!(contact(NOW - time::Duration::SECOND), "2026-11-27T12:00:00Z");
    }
}
