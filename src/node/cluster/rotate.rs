//! What people ask about the cluster's authorities: to replace them, to turn round, to wait no
//! longer, and how far it is.

use std::collections::BTreeSet;

use microcluster::desk::{Desk, SystemClock};
use microcluster::message::{Refusal, RefusalCode};
use microcluster::protocol::RotationRequest;
use microcluster::record::{
    Fingerprint, MemberView, NodeId, NodeName, Position, RotationRecord, RotationStep, Side,
    TOKEN_HOLD, Way,
};
use microcluster::store::Store;
use skiff_api::{AuthorityRotation, RotateAuthorities, RotationNode};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::signer::AuthoritySigner;
use crate::node::authorities::{AuthoritiesError, Pair, forget_next, store_next};
use crate::node::core::Node;

/// How long the old authority passes for the new one's on a way back: for pods that were started
/// meanwhile.
const CROSSED_BACK_LIFE: Duration = Duration::days(30);

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("the new keys cannot be kept")]
    Keys(#[from] AuthoritiesError),
    #[error("the keys of the cluster's authorities are not on this node yet")]
    Keyless,
}

impl RotateError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => Some(refusal.hint.clone()).filter(|hint| !hint.is_empty()),
            Self::Keys(_) => Some("skiff check".into()),
            Self::Keyless => Some("type it on another control-plane node".into()),
        }
    }
}

/// Decides for the cluster, or for a node that is alone.
type RotationDesk<S> = Desk<S, AuthoritySigner, SystemClock>;

/// Begins, or turns round when it goes back; answers the step. The caller holds `Node::setting`: nobody
/// looks for keys that belong to nothing meanwhile.
pub async fn begin<S: Store>(
    node: &Node,
    desk: &RotationDesk<S>,
    asked: &RotateAuthorities,
) -> Result<RotationStep, RotateError> {
    let without = names(&asked.without)?;
    let record = desk.record().await.map_err(RotateError::Refused)?;
    let settings = &record.settings.value;
    if let Some(current) = &settings.rotation.current {
        if !without.is_empty() {
            return desk.rotate_without(&without).await.map_err(RotateError::Refused);
        }
        if current.way == Way::On || asked.distrust {
            return Err(RotateError::Refused(under_way(&settings.rotation)));
        }
        return desk.turn_rotation(Way::On, "").await.map_err(RotateError::Refused);
    }
    let now = OffsetDateTime::now_utc();
    let old = keys_of(node, settings.authorities.first())?;
    let number = settings.rotation.step.0.saturating_add(2);
    // Two of one name would be taken for one, whatever the record has lost.
    let own = common_name(&old.certificates.cluster);
    let number = (number..).find(|number| own != format!("skiff {number}")).unwrap_or(number);
    let new = Pair::fresh(number, &old, now).map_err(AuthoritiesError::from)?;
    let pki = node.paths().pki();
    store_next(&pki, &new)?;
    let hold = i64::try_from(asked.hold_s).unwrap_or(i64::MAX);
    let request = RotationRequest {
        old: old.certificates.clone(),
        new: new.certificates.clone(),
        hold: Duration::seconds(hold),
        without,
        distrust: asked.distrust,
    };
    let begun = desk.begin_rotation(&request).await;
    if let Err(refusal) = &begun
        && !refusal.is_passing()
    {
        // What remains is taken away at some other time.
        let _ = forget_next(&pki);
    }
    let step = begun.map_err(RotateError::Refused)?;
    tracing::info!(%step, authority = number, "the cluster gets new authorities");
    Ok(step)
}

/// Turns round.
pub async fn back<S: Store>(
    node: &Node,
    desk: &RotationDesk<S>,
) -> Result<RotationStep, RotateError> {
    let record = desk.record().await.map_err(RotateError::Refused)?;
    let mut crossed = String::new();
    if let Some(current) = record.settings.value.rotation.current.as_deref()
        && current.target == Position::New
    {
        let old = keys_of(node, current.old.fingerprint().as_ref())?;
        let new = keys_of(node, current.new.fingerprint().as_ref())?;
        let now = OffsetDateTime::now_utc();
        crossed = old
            .cluster
            .crossed(&new.cluster, now, CROSSED_BACK_LIFE)
            .map_err(AuthoritiesError::from)?;
    }
    let step = desk.turn_rotation(Way::Back, &crossed).await.map_err(RotateError::Refused)?;
    tracing::info!(%step, "the cluster goes back to its old authorities");
    Ok(step)
}

/// The keys of an authority, which this node must have.
fn keys_of(node: &Node, authority: Option<&Fingerprint>) -> Result<Pair, RotateError> {
    let authorities = node.authorities();
    let pair = authorities.as_ref().zip(authority).and_then(|(all, one)| all.find(one));
    pair.cloned().ok_or(RotateError::Keyless)
}

fn names(texts: &[String]) -> Result<BTreeSet<NodeName>, RotateError> {
    let parsed = texts.iter().map(|text| text.parse());
    parsed.collect::<Result<_, _>>().map_err(|error: microcluster::record::NodeNameError| {
        let refusal = Refusal::new(RefusalCode::NodeUnknown, error);
        RotateError::Refused(refusal.hint("skiff nodes"))
    })
}

fn under_way(rotation: &RotationRecord) -> Refusal {
    let message =
        format!("the cluster's authorities are being replaced already: step {}", rotation.step);
    Refusal::new(RefusalCode::NotAllowed, message).hint(
        "skiff certs status, which says how far it is; `skiff certs rotate --back` turns round",
    )
}

/// How far it is, if one is under way. Pure.
pub fn view(
    record: &RotationRecord,
    members: &[MemberView],
    now: OffsetDateTime,
) -> Option<AuthorityRotation> {
    let current = record.current.as_deref()?;
    let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let is_waited_for = |id: &NodeId| !current.without.contains(id);
    let node = |member: &MemberView| RotationNode {
        name: member.name.to_string(),
        done: member.rotation.step == record.step,
        waited_for: is_waited_for(&member.id),
        reason: member.rotation.failure(record.step).map(str::to_owned),
        last_contact: time(member.last_contact),
    };
    let nodes: Vec<RotationNode> = members.iter().map(node).collect();
    let all_there = nodes.iter().all(|node| node.done || !node.waited_for);
    let held = current.complete.zip(current.hold()).filter(|_| all_there);
    let held = held.map(|(complete, hold)| complete.saturating_add(hold));
    let safe = current.complete.map(|complete| complete.saturating_add(TOKEN_HOLD));
    let name = |side: Side| common_name(&current.side(side).cluster);
    Some(AuthorityRotation {
        step: record.step.0,
        position: position(current.target).into(),
        back: current.way == Way::Back,
        old: name(Side::Old),
        new: name(Side::New),
        since: time(current.since),
        held_until: held.filter(|until| now < *until).map(time),
        tokens_until: safe.filter(|until| now < *until).map(time),
        distrust: current.distrust,
        nodes,
        token_secrets: vec![],
    })
}

fn position(position: Position) -> &'static str {
    match position {
        Position::Old => "old",
        Position::BothOld => "both-old",
        Position::BothNew => "both-new",
        Position::New => "new",
    }
}

fn common_name(pem: &str) -> String {
    crate::pki::common_name(pem).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use microcluster::record::{AuthorityCertificates, Rotation};
    use time::macros::datetime;

    use super::*;
    use crate::node::cluster::membership::sample;

    const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

    fn record(step: u64, complete: Option<OffsetDateTime>) -> RotationRecord {
        let side = || AuthorityCertificates {
            cluster: String::new(),
            front_proxy: String::new(),
            crossed: String::new(),
            service_account: String::new(),
        };
        let current = Rotation {
            target: Position::BothNew,
            way: Way::On,
            old: side(),
            new: side(),
            since: NOW,
            complete,
            hold_s: 86_400,
            finished: false,
            without: BTreeSet::new(),
            distrust: false,
        };
        let (step, current) = (RotationStep(step), Some(Box::new(current)));
        RotationRecord { step, current, ..RotationRecord::default() }
    }

    #[test]
    fn it_is_told_who_is_missing_and_until_when_the_old_ones_are_held() {
        let mut members = sample().members;
        assert_eq!(view(&RotationRecord::default(), &members, NOW), None);
        let shown = view(&record(2, None), &members, NOW).unwrap();
        assert_eq!((&*shown.position, shown.held_until), ("both-new", None));
        assert!(shown.nodes.iter().all(|node| !node.done && node.waited_for));
        for member in &mut members {
            member.rotation.step = RotationStep(2);
        }
        let shown = view(&record(2, Some(NOW)), &members, NOW).unwrap();
        assert!(shown.nodes.iter().all(|node| node.done));
        assert_eq!(shown.held_until.as_deref(), Some("2026-11-29T12:00:00Z"));
        assert_eq!(shown.tokens_until.as_deref(), Some("2026-11-28T13:10:00Z"));
        members[0].rotation.step = RotationStep(1);
        let shown = view(&record(2, Some(NOW)), &members, NOW).unwrap();
        assert_eq!(shown.held_until, None, "somebody joined meanwhile");
    }
}
