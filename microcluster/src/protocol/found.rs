//! The first member: a lone node becomes a cluster of one when somebody adds another.

use std::net::IpAddr;

use time::OffsetDateTime;

use super::decision::{Decision, Outcome};
use crate::message::{Refusal, RefusalCode};
use crate::record::{
    AppliedSettings, ClusterSettings, DoneSteps, Fingerprint, MemberRecord, MemberState,
    Membership, NodeId, NodeName, NodeRole, Rest,
};
use crate::store::Change;
use crate::version::Version;

/// What the node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    pub name: NodeName,
    pub addresses: Vec<IpAddr>,
    /// SubjectPublicKeyInfo of its own identity.
    pub public_key: Vec<u8>,
    pub release: Version,
    pub kubernetes: Version,
    pub failure_domain: String,
}

/// The record of a cluster of one. It expects that there is none.
pub fn decide_found(
    settings: &ClusterSettings,
    founder: &Founder,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let member = MemberRecord {
        name: founder.name.clone(),
        id: NodeId::of_key(&founder.public_key),
        role: NodeRole::ControlPlane,
        state: MemberState::Member,
        addresses: founder.addresses.clone(),
        release: founder.release,
        kubernetes: founder.kubernetes,
        failure_domain: founder.failure_domain.clone(),
        labels: Default::default(),
        taints: vec![],
        keys: vec![Fingerprint::of(&founder.public_key)],
        certificates: vec![],
        joined: now,
        last_contact: now,
        settings: AppliedSettings::default(),
        rotation: DoneSteps::default(),
        rest: Rest::default(),
    };
    let checked = settings.check().and_then(|()| member.check());
    checked.map_err(|why| {
        let message = format!("this node cannot found a cluster: {why}");
        Refusal::new(RefusalCode::AddressInvalid, message)
    })?;
    if settings.reserves_name(&member.name) {
        let message = format!("a node cannot be called {}", member.name);
        return Err(Refusal::new(RefusalCode::NameReserved, message));
    }
    let changes = vec![
        Change::PutSettings { settings: Box::new(settings.clone()), was: None },
        Change::PutMembership { membership: Membership::default(), was: None },
        Change::PutMember { member: Box::new(member), was: None },
    ];
    Ok(Decision::changing(changes, Outcome::Founded))
}
