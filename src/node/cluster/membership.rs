//! What a node of a cluster knows of that, kept in its own directory: who it is, what the cluster
//! is, and whom to ask. A node that is alone has none.
//!
//! ```text
//!   skiff join: look, ask ─> join.json ─enter─> membership.json: joining ─ready─> member
//!                                │                     │
//!                                └── the join is undone: everything goes
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use microcluster::balancer::Backend;
use microcluster::endpoint::Endpoint;
use microcluster::record::{
    ClusterSettings, MemberState, MemberView, NodeId, NodeName, NodeRole, SharedSettings,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skiff_api::ClusterPart;
use skiff_datastore::member::nodes::NodeList;

use crate::config::Shared;
use crate::daemons::agent;
use crate::pki::{StoreError, write_private};

const FILE: &str = "membership.json";
const JOIN_FILE: &str = "join.json";

/// See the module's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub name: NodeName,
    pub id: NodeId,
    pub role: NodeRole,
    pub stage: Stage,
    pub settings: ClusterSettings,
    /// As they were when last heard of.
    pub members: Vec<MemberView>,
    /// Where the token said that control-plane members are.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub taints: Vec<String>,
}

/// How far a node belongs to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It has its certificates, and the cluster does not know yet that it is ready.
    Joining,
    Member,
}

/// A join that may have begun at the cluster and has left nothing here but this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The token, which is what takes it back.
    pub token: String,
    pub id: NodeId,
}

#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Write(#[from] StoreError),
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

impl Membership {
    /// Of the node whose own directory is `dir`.
    pub fn read(dir: &Path) -> Result<Option<Self>, MembershipError> {
        read(&dir.join(FILE))
    }

    pub fn write(&self, dir: &Path) -> Result<(), MembershipError> {
        write(&dir.join(FILE), self)
    }

    /// Whether the cluster was founded here: nobody let this node in.
    pub fn is_founder(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether several nodes run the controllers.
    pub fn elects(&self) -> bool {
        self.control_plane().count() > 1
    }

    /// Whose members may be peers of this node's datastore. Until a join is over, its member does
    /// not vote.
    pub fn datastore_nodes(&self) -> NodeList {
        let mut list = NodeList::default();
        for member in self.control_plane() {
            match member.state {
                MemberState::Joining { .. } => list.joining.insert(member.id.to_string()),
                MemberState::Member | MemberState::Leaving => {
                    list.members.insert(member.id.to_string())
                }
            };
        }
        list
    }

    /// What the node shares with all others, over its own files.
    pub fn shared(&self, set: SharedSettings) -> Shared {
        shared(&self.settings, self.role, self.is_founder(), set)
    }

    /// Whether that is the address of that node, as it was last heard of.
    pub fn has_at(&self, node: &str, address: &str) -> bool {
        let named = self.members.iter().filter(|member| member.id.to_string() == node);
        named.flat_map(addresses).any(|known| known == address)
    }

    /// Where the record has other control-plane members.
    pub fn recorded(&self) -> Vec<String> {
        self.control_plane().filter(|member| member.id != self.id).flat_map(addresses).collect()
    }

    /// Where other control-plane members answer, the ones that were heard of last first.
    pub fn others(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let endpoints = self.endpoints.iter().map(ToString::to_string);
        for address in self.recorded().into_iter().chain(endpoints) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// Whether nobody else runs the control plane, as far as is known.
    pub fn is_sole(&self) -> bool {
        let knows = !self.members.is_empty();
        knows && self.control_plane().all(|member| member.id == self.id)
    }

    /// The API servers for the balancer.
    pub fn backends(&self) -> Vec<Backend> {
        let backend = |member: &MemberView| {
            let address = SocketAddr::new(*member.addresses.first()?, self.settings.api_port);
            let local = member.id == self.id;
            Some(Backend { node: member.name.to_string(), address, local })
        };
        self.control_plane().filter_map(backend).collect()
    }

    /// This node as the cluster sees it.
    pub fn own(&self) -> Option<&MemberView> {
        self.members.iter().find(|member| member.id == self.id)
    }

    /// As the status tells it, with what the node's member of the datastore does.
    pub fn part(&self, datastore: Option<String>) -> ClusterPart {
        let address = |member: &MemberView| member.addresses.first().map(ToString::to_string);
        let control_plane = self.control_plane().filter(|member| member.id != self.id);
        let control_plane = control_plane
            .map(|member| (member.name.to_string(), address(member).unwrap_or_default()));
        let (role, control_plane) = (self.role.to_string(), control_plane.collect());
        ClusterPart { role, datastore, control_plane }
    }

    fn control_plane(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.role == NodeRole::ControlPlane)
    }
}

impl Begun {
    pub fn read(dir: &Path) -> Result<Option<Self>, MembershipError> {
        read(&dir.join(JOIN_FILE))
    }

    pub fn write(&self, dir: &Path) -> Result<(), MembershipError> {
        write(&dir.join(JOIN_FILE), self)
    }

    /// Forgets it.
    pub fn remove(dir: &Path) -> io::Result<()> {
        remove(&dir.join(JOIN_FILE))
    }
}

/// What a node of that role shares with all others. Ranges and names of the founder are what the
/// cluster's were made of, and a change of them is refused.
pub fn shared(
    settings: &ClusterSettings,
    role: NodeRole,
    is_founder: bool,
    set: SharedSettings,
) -> Shared {
    let mut shared = Shared::set(set);
    let mut decide = |key: &str, value: toml::Value| {
        shared.decided.insert(key.to_owned(), value);
    };
    decide("network.dns-address", settings.dns_address.to_string().into());
    if is_founder {
        return shared;
    }
    let first = |ranges: &[ipnet::IpNet]| ranges.first().map(|range| range.to_string().into());
    for (key, range) in [
        ("network.pod-cidr", first(&settings.pod_cidrs)),
        ("network.service-cidr", first(&settings.service_cidrs)),
    ] {
        if let Some(range) = range {
            decide(key, range);
        }
    }
    decide("network.dns-domain", settings.dns_domain.clone().into());
    if role == NodeRole::ControlPlane {
        decide("api.port", i64::from(settings.api_port).into());
        shared.api_names.clone_from(&settings.api_names);
        shared.datastore.clone_from(&settings.datastore);
    }
    shared
}

/// Where a member is met.
fn addresses(member: &MemberView) -> impl Iterator<Item = String> {
    member.addresses.iter().map(|address| SocketAddr::new(*address, agent::PORT).to_string())
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, MembershipError> {
    let path = path.to_path_buf();
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| MembershipError::Damaged { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MembershipError::Read { path, source }),
    }
}

pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), MembershipError> {
    let text = serde_json::to_vec_pretty(value).expect("texts and numbers can be written");
    Ok(write_private(path, &text, 0o600, (0, 0))?)
}

#[cfg(test)]
pub(super) use tests::membership as sample;

#[cfg(test)]
mod tests {
    use microcluster::record::{
        AppliedSettings, ClusterId, Fingerprint, MemberState, Rest, RotationRecord, SharedSettings,
    };
    use microcluster::version::Version;
    use time::OffsetDateTime;

    use super::*;
    use crate::config::{Config, Sources};

    fn member(name: &str, role: NodeRole, last: u8) -> MemberView {
        MemberView {
            name: name.parse().unwrap(),
            id: NodeId::of_key(name.as_bytes()),
            role,
            state: MemberState::Member,
            addresses: vec![[192, 0, 2, last].into()],
            release: Version::new(0, 1, 0),
            kubernetes: Version::new(1, 36, 3),
            failure_domain: String::new(),
            expires: None,
            last_contact: OffsetDateTime::UNIX_EPOCH,
            settings: AppliedSettings::default(),
            rotation: Default::default(),
        }
    }

    /// Of `beta`, a worker of `alpha`.
    pub fn membership() -> Membership {
        Membership {
            name: "beta".parse().unwrap(),
            id: NodeId::of_key(b"beta"),
            role: NodeRole::Worker,
            stage: Stage::Member,
            settings: ClusterSettings {
                cluster: ClusterId("c".into()),
                pod_cidrs: vec!["10.2.0.0/16".parse().unwrap()],
                service_cidrs: vec!["10.9.0.0/24".parse().unwrap()],
                dns_domain: "other.local".into(),
                dns_address: [10, 9, 0, 10].into(),
                api_names: vec![],
                api_port: 16443,
                authorities: vec![Fingerprint::of(b"authority")],
                datastore: None,
                shared: SharedSettings::default(),
                rotation: RotationRecord::default(),
                rest: Rest::default(),
            },
            members: vec![
                member("alpha", NodeRole::ControlPlane, 1),
                member("beta", NodeRole::Worker, 2),
            ],
            endpoints: vec![
                "192.0.2.1:7443".parse().unwrap(),
                "alpha.example:7443".parse().unwrap(),
            ],
            labels: BTreeMap::new(),
            taints: vec![],
        }
    }

    #[test]
    fn whom_to_ask_are_the_control_plane_and_then_what_the_token_said() {
        assert_eq!(membership().others(), ["192.0.2.1:7443", "alpha.example:7443"]);
        let unheard = Membership { members: vec![], ..membership() };
        assert_eq!(unheard.others(), ["192.0.2.1:7443", "alpha.example:7443"]);
        let alpha = Membership { id: NodeId::of_key(b"alpha"), endpoints: vec![], ..membership() };
        assert!(alpha.others().is_empty());
        assert!(alpha.is_sole() && !membership().is_sole() && !unheard.is_sole());
    }

    #[test]
    fn api_servers_are_those_of_the_control_plane_at_the_clusters_port() {
        let backends = membership().backends();
        let found: Vec<_> = backends.iter().map(|b| (&*b.node, b.address, b.local)).collect();
        assert_eq!(found, [("alpha", "192.0.2.1:16443".parse().unwrap(), false)]);
        let first = Membership {
            id: NodeId::of_key(b"alpha"),
            role: NodeRole::ControlPlane,
            ..membership()
        };
        assert!(first.backends()[0].local);
    }

    /// With the settings that a node of this membership has.
    fn config(membership: &Membership, text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skiff.toml");
        fs::write(&file, text).unwrap();
        let shared = membership.shared(membership.settings.shared.clone());
        Config::load_with(&Sources { file, snap: None }, &shared).unwrap()
    }

    #[test]
    fn a_node_takes_the_clusters_settings_over_and_the_first_one_keeps_its_ranges() {
        let worker = config(&membership(), "");
        let network = &worker.network;
        assert_eq!(
            (&*network.pod_cidr, &*network.service_cidr, &*network.dns_domain),
            ("10.2.0.0/16", "10.9.0.0/24", "other.local")
        );
        assert_eq!(network.dns_address.to_string(), "10.9.0.10");
        assert_eq!(worker.api.port, Config::default().api.port);
        let mut joined = Membership { role: NodeRole::ControlPlane, ..membership() };
        joined.settings.api_names = vec!["api.example.org".into()];
        joined.settings.datastore = Some("https://a:2379".into());
        joined.settings.shared.values = [("network.mtu".to_owned(), 1400.into())].into();
        let ca = "[datastore]\nca-file = \"/ca\"\n";
        let member = config(&joined, &format!("[api]\nextra-sans = [\"own\"]\n{ca}"));
        assert_eq!((&*member.network.pod_cidr, member.api.port), ("10.2.0.0/16", 16443));
        assert_eq!(member.api.extra_sans, ["own", "api.example.org"]);
        assert_eq!(member.datastore.endpoint.as_deref(), Some("https://a:2379"));
        assert_eq!(member.network.mtu, 1400);
        let first = Membership { endpoints: vec![], ..joined };
        let services = "[network]\nservice-cidr = \"10.9.0.0/24\"\n";
        let first = config(&first, services);
        assert_eq!(first.network.pod_cidr, Config::default().network.pod_cidr);
        assert_eq!(first.network.dns_address.to_string(), "10.9.0.10");
        assert_eq!((first.network.mtu, first.datastore.endpoint), (1400, None));
    }

    #[test]
    fn who_joins_is_a_peer_of_the_datastore_and_does_not_vote() {
        let mut all = membership();
        assert!(!all.elects());
        let mut gamma = member("gamma", NodeRole::ControlPlane, 3);
        gamma.state = MemberState::Joining {
            until: OffsetDateTime::UNIX_EPOCH,
            token: microcluster::token::Secret::from_bytes([1; 16]).token_id(),
            recipient: None,
        };
        all.members.push(gamma);
        let list = all.datastore_nodes();
        let id = |name: &str| NodeId::of_key(name.as_bytes()).to_string();
        assert_eq!(list.members.into_iter().collect::<Vec<_>>(), [id("alpha")]);
        assert_eq!(list.joining.into_iter().collect::<Vec<_>>(), [id("gamma")]);
        assert!(all.elects());
    }

    #[test]
    fn what_was_written_reads_back_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Membership::read(dir.path()).unwrap(), None);
        membership().write(dir.path()).unwrap();
        assert_eq!(Membership::read(dir.path()).unwrap(), Some(membership()));
        fs::write(dir.path().join(FILE), "{").unwrap();
        let error = Membership::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        let begun = Begun { token: "skiff1.x".into(), id: NodeId::of_key(b"beta") };
        begun.write(dir.path()).unwrap();
        assert_eq!(Begun::read(dir.path()).unwrap(), Some(begun));
        Begun::remove(dir.path()).unwrap();
        Begun::remove(dir.path()).unwrap();
        assert_eq!(Begun::read(dir.path()).unwrap(), None);
    }
}
