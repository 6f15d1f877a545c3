//! A cluster that comes back from an archive, up to where `skiff start` finds it: a record in which
//! this machine is the only member, and an identity for it that nobody has had before.

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;

use microcluster::protocol::{Founder, decide_restore};
use microcluster::record::{
    ClusterRecord, ClusterSettings, MemberRecord, NodeRole, SharedSettings,
};
use microcluster::store::Change;
use microcluster::trust::{Purpose, Signer, order_leaf, read_request};
use microcluster::version::Version;
use time::OffsetDateTime;

use super::found::FoundError;
use super::keys::Keys;
use super::signer::AuthoritySigner;
use super::{GroundError, Membership, Stage, release};
use crate::config::Config;
use crate::daemons::agent;
use crate::node::account;
use crate::node::authorities::{Authorities, SharedAuthorities};
use crate::paths::Paths;

/// The only member, and what its record is changed by.
pub struct Restored {
    pub changes: Vec<Change>,
    settings: ClusterSettings,
    member: MemberRecord,
    keys: Keys,
}

/// Decides what the record becomes. Touches nothing.
pub fn restored(
    record: &ClusterRecord,
    config: &Config,
    name: &str,
    address: IpAddr,
    kubernetes: Version,
    now: OffsetDateTime,
) -> Result<Restored, FoundError> {
    let keys = Keys::generate(&[Purpose::Node])?;
    let name = name.parse();
    let name = name.map_err(|error: microcluster::record::NodeNameError| FoundError::Setting {
        key: "node.name",
        why: error.to_string(),
    })?;
    let survivor = Founder {
        name,
        addresses: vec![address],
        public_key: keys.node_key(),
        release: release(),
        kubernetes,
        failure_domain: String::new(),
    };
    let settings = ClusterSettings {
        api_port: config.api.port,
        api_names: config.api.extra_sans.clone(),
        shared: SharedSettings { turn: None, ..record.settings.value.shared.clone() },
        ..record.settings.value.clone()
    };
    let decision =
        decide_restore(record, &settings, &survivor, now).map_err(FoundError::Refused)?;
    let put = decision.changes.iter().find_map(|change| match change {
        Change::PutMember { member, .. } => Some((**member).clone()),
        _ => None,
    });
    let member = put.ok_or_else(|| FoundError::Sign("no member was decided".into()))?;
    Ok(Restored { changes: decision.changes, settings, member, keys })
}

impl Restored {
    /// Writes the node's identity and its membership below a root whose authorities are there.
    pub fn settle(
        &self,
        paths: &Paths,
        authorities: Authorities,
        now: OffsetDateTime,
    ) -> Result<(), FoundError> {
        let sign = |error: &dyn std::fmt::Display| FoundError::Sign(error.to_string());
        let key = read_request(&self.keys.request(Purpose::Node)?);
        let key = key.map_err(|error| sign(&error))?;
        let signer = AuthoritySigner::new(SharedAuthorities::new(authorities), paths.pki());
        let leaf = signer.sign(&order_leaf(Purpose::Node, &self.member, &key, now), &self.settings);
        let leaf = leaf.map_err(|error| sign(&error))?;
        let dir = paths.daemon_pki(agent::NAME);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| FoundError::Sign(format!("{}: {error}", dir.display())))?;
        let account = account::ensure_agent().map_err(GroundError::Account)?;
        self.keys.store(&[leaf], paths, account)?;
        let membership = Membership {
            name: self.member.name.clone(),
            id: self.member.id,
            role: NodeRole::ControlPlane,
            stage: Stage::Member,
            settings: self.settings.clone(),
            members: vec![self.member.view()],
            endpoints: vec![],
            labels: self.member.labels.clone(),
            taints: self.member.taints.clone(),
        };
        Ok(membership.write(&paths.node())?)
    }
}
