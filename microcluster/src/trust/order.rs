//! A certificate as it will be: its names come from the record of the node.
//!
//! | purpose | name | groups | alternative names | used as |
//! |---|---|---|---|---|
//! | `node` | `skiff:node:NAME` | `skiff:nodes` | `ID.node.skiff.internal`; control plane: `control-plane.skiff.internal` | both |
//! | `kubelet-client` | `system:node:NAME` | `system:nodes` | | client |
//! | `kubelet-serving` | `system:node:NAME` | `system:nodes` | the name, the addresses | server |
//! | `kube-proxy` | `system:kube-proxy` | | | client |
//! | `network` | `skiff:network:NAME` | `skiff:networks` | | client |
//! | `datastore-member` | `skiff:datastore:NAME` | | `member.datastore.skiff.internal`, `ID.member.datastore.skiff.internal` | both |
//!
//! All carry the node's id as `1.3.6.1.4.1.57683.2`, from which Kubernetes reads a user's UID: a
//! machine that was removed and one that came in its place have the same name, and an
//! authorization rule can still tell them apart. So can it with kube-proxy's, whose name all
//! nodes share.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::request::ProvenKey;
use crate::record::{MemberRecord, NodeId, NodeName, NodeRole};

/// From the beginning of its validity to its end.
pub const LEAF_LIFE: Duration = Duration::hours(24);
/// How far back its validity begins. Clocks that are further apart than half of this are refused
/// at the door.
pub const BACKDATE: Duration = Duration::minutes(10);
/// What a joiner must find in the certificate of whoever answers it. A worker's leaf ends in the
/// same authority and must not pass for a member that lets others in.
pub const CONTROL_PLANE_SERVER_NAME: &str = "control-plane.skiff.internal";
/// What members of the datastore look for in each other's certificates.
pub const DATASTORE_SERVER_NAME: &str = "member.datastore.skiff.internal";
/// Kubernetes reads the user's UID from an attribute of this type.
pub const UID_OID: [u64; 8] = [1, 3, 6, 1, 4, 1, 57683, 2];
/// The common name of a node's own identity begins so.
pub(super) const NODE_PREFIX: &str = "skiff:node:";

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The node's own identity on port 7443.
    Node,
    KubeletClient,
    KubeletServing,
    KubeProxy,
    /// The network between pods of different nodes.
    Network,
    DatastoreMember,
}

impl Purpose {
    /// In the order of messages.
    pub const ALL: [Self; 6] = [
        Self::Node,
        Self::KubeletClient,
        Self::KubeletServing,
        Self::KubeProxy,
        Self::Network,
        Self::DatastoreMember,
    ];

    /// Whether a node of this role has one.
    pub fn is_for(self, role: NodeRole) -> bool {
        self != Self::DatastoreMember || role == NodeRole::ControlPlane
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::KubeletClient => "kubelet-client",
            Self::KubeletServing => "kubelet-serving",
            Self::KubeProxy => "kube-proxy",
            Self::Network => "network",
            Self::DatastoreMember => "datastore-member",
        })
    }
}

/// Which side of a connection shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    Both,
}

/// A certificate to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafOrder {
    pub purpose: Purpose,
    pub common_name: String,
    pub organisations: Vec<String>,
    pub id: NodeId,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// The node that a certificate is for, as the cluster knows it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub name: &'a NodeName,
    pub id: NodeId,
    pub role: NodeRole,
    pub addresses: &'a [IpAddr],
}

impl<'a> From<&'a MemberRecord> for Subject<'a> {
    fn from(member: &'a MemberRecord) -> Self {
        let MemberRecord { name, id, role, addresses, .. } = member;
        Self { name, id: *id, role: *role, addresses }
    }
}

/// What a node gets for a purpose. `key` gives the public key and nothing else.
pub fn order_leaf<'a>(
    purpose: Purpose,
    subject: impl Into<Subject<'a>>,
    key: &ProvenKey,
    now: OffsetDateTime,
) -> LeafOrder {
    let Subject { name, id, role, addresses: own } = subject.into();
    let (common_name, organisation) = match purpose {
        Purpose::Node => (format!("{NODE_PREFIX}{name}"), Some("skiff:nodes")),
        Purpose::KubeletClient | Purpose::KubeletServing => {
            (format!("system:node:{name}"), Some("system:nodes"))
        }
        Purpose::KubeProxy => ("system:kube-proxy".into(), None),
        Purpose::Network => (format!("skiff:network:{name}"), Some("skiff:networks")),
        Purpose::DatastoreMember => (format!("skiff:datastore:{name}"), None),
    };
    let (dns_names, addresses) = match purpose {
        Purpose::Node => {
            let mut names = vec![format!("{id}.node.skiff.internal")];
            if role == NodeRole::ControlPlane {
                names.push(CONTROL_PLANE_SERVER_NAME.into());
            }
            (names, vec![])
        }
        Purpose::KubeletServing => (vec![name.to_string()], own.to_vec()),
        // The second one is for dialling this node's member, and for telling whose it is.
        Purpose::DatastoreMember => {
            let own = format!("{id}.{DATASTORE_SERVER_NAME}");
            (vec![DATASTORE_SERVER_NAME.into(), own], vec![])
        }
        Purpose::KubeletClient | Purpose::KubeProxy | Purpose::Network => (vec![], vec![]),
    };
    let usage = match purpose {
        Purpose::Node | Purpose::DatastoreMember => Usage::Both,
        Purpose::KubeletServing => Usage::Server,
        Purpose::KubeletClient | Purpose::KubeProxy | Purpose::Network => Usage::Client,
    };
    let not_before = now - BACKDATE;
    LeafOrder {
        purpose,
        common_name,
        organisations: organisation.into_iter().map(str::to_owned).collect(),
        id,
        dns_names,
        addresses,
        usage,
        public_key: key.public_key().to_vec(),
        not_before,
        not_after: not_before + LEAF_LIFE,
    }
}
