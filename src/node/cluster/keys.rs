//! The keys of a node of a cluster: made here, certified there, and never sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use data_encoding::BASE64;
use microcluster::message::SigningRequest;
use microcluster::record::{NodeId, NodeRole};
use microcluster::trust::{IssuedLeaf, Purpose};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};

use crate::daemons::{agent, datastore, kube_node};
use crate::node::account::Account;
use crate::paths::Paths;
use crate::pki::{StoreError, write_private};

/// What a worker shows to others.
pub const OF_WORKER: [Purpose; 5] = [
    Purpose::Node,
    Purpose::KubeletClient,
    Purpose::KubeletServing,
    Purpose::KubeProxy,
    Purpose::Network,
];

/// What a control-plane node asks the cluster for. It signs the rest with the authority that it gets.
pub const OF_CONTROL_PLANE: [Purpose; 1] = [Purpose::Node];

/// What the cluster certifies for a node; the rest is signed with the authority that lies there.
pub fn of(role: NodeRole) -> &'static [Purpose] {
    match role {
        NodeRole::Worker => &OF_WORKER,
        NodeRole::ControlPlane => &OF_CONTROL_PLANE,
    }
}

/// One for each purpose.
pub struct Keys(BTreeMap<Purpose, KeyPair>);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot make a key")]
    Generate(#[source] rcgen::Error),
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("there is no key in {}", .0.display())]
    Damaged(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Keys {
    /// Fresh ones.
    pub fn generate(purposes: &[Purpose]) -> Result<Self, KeyError> {
        let key = |purpose: &Purpose| Ok((*purpose, KeyPair::generate()?));
        let keys: Result<_, rcgen::Error> = purposes.iter().map(key).collect();
        keys.map(Self).map_err(KeyError::Generate)
    }

    /// The one of the node itself, as it lies there: its first key names a node for life.
    pub fn of_node(paths: &Paths) -> Result<Self, KeyError> {
        let path = agent::identity(paths);
        let text = fs::read_to_string(&path).map_err(|e| KeyError::Read(path.clone(), e))?;
        // rcgen reads the first block of a text only, and here that is the certificate.
        let key = text.find("-----BEGIN PRIVATE KEY-----").map(|start| &text[start..]);
        let key = key.and_then(|key| KeyPair::from_pem(key).ok());
        let key = key.ok_or(KeyError::Damaged(path))?;
        Ok(Self(BTreeMap::from([(Purpose::Node, key)])))
    }

    /// The public half of the node's own.
    pub fn node_key(&self) -> Vec<u8> {
        let key = self.0.get(&Purpose::Node);
        key.map(|key| key.subject_public_key_info()).unwrap_or_default()
    }

    /// The id of a node that enters with these.
    pub fn id(&self) -> NodeId {
        NodeId::of_key(&self.node_key())
    }

    /// Without any name: names come from the cluster's record.
    pub fn requests(&self) -> Result<Vec<SigningRequest>, KeyError> {
        let write = |(purpose, key): (&Purpose, &KeyPair)| {
            Ok(SigningRequest { purpose: *purpose, request: BASE64.encode(&request(key)?) })
        };
        self.0.iter().map(write).collect()
    }

    /// The one for a purpose that there is a key for, DER.
    pub fn request(&self, purpose: Purpose) -> Result<Vec<u8>, KeyError> {
        self.0.get(&purpose).map_or_else(|| Ok(vec![]), request)
    }

    /// Puts certificates with their keys where the daemons find them. The account is that of the
    /// daemon without privilege which has one of them: the agent, or the datastore.
    pub fn store(
        &self,
        leaves: &[IssuedLeaf],
        paths: &Paths,
        account: Account,
    ) -> Result<(), KeyError> {
        for leaf in leaves {
            let Some(key) = self.0.get(&leaf.purpose) else { continue };
            let pem = format!("{}{}", leaf.certificate, key.serialize_pem());
            let owner = match leaf.purpose {
                Purpose::Node | Purpose::DatastoreMember => (account.uid, account.gid),
                _ => (0, 0),
            };
            write_private(&place(paths, leaf.purpose), pem.as_bytes(), 0o600, owner)?;
        }
        Ok(())
    }
}

fn request(key: &KeyPair) -> Result<Vec<u8>, KeyError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(KeyError::Generate)?;
    Ok(request.der().to_vec())
}

/// Where the certificate for a purpose lies, with its key.
pub fn place(paths: &Paths, purpose: Purpose) -> PathBuf {
    let of_kube = |name: &str| paths.daemon_pki(kube_node::NAME).join(name);
    match purpose {
        Purpose::Node => agent::identity(paths),
        Purpose::KubeletClient => of_kube("kubelet.pem"),
        Purpose::KubeletServing => of_kube("kubelet-serving.pem"),
        Purpose::KubeProxy => of_kube("kube-proxy.pem"),
        Purpose::Network => of_kube("network.pem"),
        Purpose::DatastoreMember => {
            paths.daemon_pki(datastore::NAME).join(skiff_datastore::member::tls::IDENTITY_FILE)
        }
    }
}
