//! New authorities for a cluster: one target after the other, each when all nodes are at the last.
//!
//! ```text
//!            begin             all there          all there, held       all there
//!   settled ──────> BothOld ──────────────> BothNew ────────────> New ─────────────> settled: the new ones
//!      ^               │^                     │^                   │
//!      │           turn││turn             turn││turn           turn│
//!      │               v│                     v│                   v
//!      └─────────────  Old <──────────────  BothOld <───────────  BothNew
//!        all there          all there, held         all there              settled: the old ones
//! ```
//!
//! So nodes are at the target or at the one it came from, and these two believe each other.

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use super::decision::{Decision, Outcome};
use crate::message::{Refusal, RefusalCode};
use crate::record::{
    AuthorityCertificates, ClusterRecord, ClusterSettings, FORMER_KEPT, FORMER_MAX,
    FormerAuthority, HOLD_MAX, MemberRecord, NodeId, NodeName, NodeRole, Position, Rotation,
    RotationRecord, Side, TOKEN_HOLD, Way,
};
use crate::store::Change;
use crate::token::TokenRecord;
use crate::version::Version;

/// Nodes of an earlier release would never say that they are there. It is to be the release in which
/// nodes first take part.
pub const ROTATION_SINCE: Version = Version::new(0, 1, 0);

/// So many are ended in one change; with the others nobody comes in either.
const TOKENS_AT_ONCE_MAX: usize = 80;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRequest {
    pub old: AuthorityCertificates,
    pub new: AuthorityCertificates,
    /// How long the old ones are believed after the last one has stopped signing.
    pub hold: Duration,
    pub without: BTreeSet<NodeName>,
    /// Nothing is kept of the old ones in the end.
    pub distrust: bool,
}

/// Begins. Whoever asks has the new keys.
pub fn decide_rotation_begin(
    record: &ClusterRecord,
    request: &RotationRequest,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let settings = &record.settings.value;
    if let Some(current) = &settings.rotation.current {
        // It may have been begun by this, and only the answer was lost.
        if current.new == request.new {
            return Ok(Decision::of(Outcome::Rotation(settings.rotation.step)));
        }
        let message = "the cluster's authorities are being replaced already";
        return Err(Refusal::new(RefusalCode::NotAllowed, message)
            .hint("`skiff certs status` shows how far it is"));
    }
    check_certificates(settings, request)?;
    if !(TOKEN_HOLD..=HOLD_MAX).contains(&request.hold) {
        let (min, max) = (TOKEN_HOLD.whole_minutes(), HOLD_MAX.whole_days());
        let message = format!("the old authorities are held for {min} min to {max} days");
        return Err(Refusal::new(RefusalCode::SettingInvalid, message));
    }
    if let Some(member) = record.living().find(|member| member.release < ROTATION_SINCE) {
        let message =
            format!("{} runs {}, which cannot take new authorities", member.name, member.release);
        return Err(Refusal::new(RefusalCode::ReleasesApart, message)
            .hint(format!("{ROTATION_SINCE} or later is needed on every node")));
    }
    let rotation = Rotation {
        target: Position::Old,
        way: Way::On,
        old: request.old.clone(),
        new: request.new.clone(),
        since: now,
        complete: None,
        hold_s: u32::try_from(request.hold.whole_seconds()).unwrap_or(u32::MAX),
        finished: false,
        without: spare(record, &request.without, &BTreeSet::new())?,
        distrust: request.distrust,
    };
    Ok(to_target(record, &rotation, Position::BothOld, Way::On, now))
}

/// Turns round: where the nodes came from is the target again, whoever has left it. On the way back
/// from where only the new authority is believed, `crossed` is the old one's certificate that the new
/// one has signed.
pub fn decide_rotation_turn(
    record: &ClusterRecord,
    way: Way,
    crossed: &str,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let rotation = current(record)?;
    if rotation.way == way {
        return Ok(Decision::of(Outcome::Rotation(record.settings.value.rotation.step)));
    }
    let mut rotation = rotation.clone();
    if rotation.target == Position::New && way == Way::Back {
        crossed.clone_into(&mut rotation.old.crossed);
        rotation.old.check().map_err(senseless("old"))?;
    }
    let rotation = &rotation;
    let from = rotation.target.next(way).ok_or_else(|| {
        // The first target of a way is never its beginning.
        Refusal::new(RefusalCode::NotAllowed, "there is nothing to turn round for")
    })?;
    Ok(to_target(record, rotation, from, way, now))
}

/// The keeper's: what follows when all are there. Changes nothing while somebody is missing or what
/// has signed is still held.
pub fn decide_rotation_advance(record: &ClusterRecord, now: OffsetDateTime) -> Decision {
    let rest = Decision::of(Outcome::Rotation(record.settings.value.rotation.step));
    let Ok(rotation) = current(record) else { return rest };
    if missing_in_rotation(record).next().is_some() {
        return rest;
    }
    let Some(next) = rotation.target.next(rotation.way) else {
        return put(record, settle(&record.settings.value, rotation, now));
    };
    let go_on = || to_target(record, rotation, next, rotation.way, now);
    let Some(hold) = rotation.hold() else { return go_on() };
    match rotation.complete {
        None => put_rotation(record, Rotation { complete: Some(now), ..rotation.clone() }),
        Some(complete) if now < complete.saturating_add(hold) => rest,
        Some(_) => go_on(),
    }
}

/// What has signed is held no longer, on somebody's word.
pub fn decide_rotation_finish(record: &ClusterRecord) -> Result<Decision, Refusal> {
    let rotation = current(record)?;
    let step = record.settings.value.rotation.step;
    if rotation.finished {
        return Ok(Decision::of(Outcome::Rotation(step)));
    }
    if let Some(member) = missing_in_rotation(record).next() {
        let message = format!("{} has not done step {step} yet", member.name);
        return Err(Refusal::new(RefusalCode::NotAllowed, message)
            .hint("`skiff certs status` shows who is missing, and why"));
    }
    if rotation.hold().is_none() {
        let message = "nothing is held: the next step follows by itself";
        return Err(Refusal::new(RefusalCode::NotAllowed, message));
    }
    Ok(put_rotation(record, Rotation { finished: true, ..rotation.clone() }))
}

/// Some nodes are not waited for: they get new certificates when they are back.
pub fn decide_rotation_without(
    record: &ClusterRecord,
    names: &BTreeSet<NodeName>,
) -> Result<Decision, Refusal> {
    let rotation = current(record)?;
    let without = spare(record, names, &rotation.without)?;
    if without == rotation.without {
        return Ok(Decision::of(Outcome::Rotation(record.settings.value.rotation.step)));
    }
    Ok(put_rotation(record, Rotation { without, ..rotation.clone() }))
}

/// Who has not done the present step and is waited for, whoever joins or leaves included.
pub fn missing_in_rotation(record: &ClusterRecord) -> impl Iterator<Item = &MemberRecord> {
    let rotation = &record.settings.value.rotation;
    record.living().filter(move |member| {
        let Some(current) = &rotation.current else { return false };
        // Not "at least": a step that the record does not know is no word about this one.
        member.rotation.step != rotation.step && !current.without.contains(&member.id)
    })
}

fn current(record: &ClusterRecord) -> Result<&Rotation, Refusal> {
    record.settings.value.rotation.current.as_deref().ok_or_else(|| {
        Refusal::new(RefusalCode::NotAllowed, "the cluster's authorities are not being replaced")
            .hint("`skiff certs rotate --authorities` begins it")
    })
}

fn check_certificates(
    settings: &ClusterSettings,
    request: &RotationRequest,
) -> Result<(), Refusal> {
    let refused = |message: String| Err(Refusal::new(RefusalCode::RequestInvalid, message));
    request.old.check().map_err(senseless("old"))?;
    request.new.check().map_err(senseless("new"))?;
    if request.new.crossed.is_empty() {
        return refused("the old authority has not signed the new one".into());
    }
    let (old, new) = (request.old.fingerprint(), request.new.fingerprint());
    if settings.authorities.iter().copied().map(Some).ne([old]) {
        return refused("the old authority is not the one that the cluster has".into());
    }
    if old == new || request.old.service_account == request.new.service_account {
        return refused("the new authorities are the old ones".into());
    }
    Ok(())
}

fn senseless(side: &'static str) -> impl Fn(&'static str) -> Refusal {
    move |why| {
        let message = format!("the {side} authorities make no sense: {why}");
        Refusal::new(RefusalCode::RequestInvalid, message)
    }
}

/// Adds nodes by name to those that are not waited for. Somebody must have the keys.
fn spare(
    record: &ClusterRecord,
    names: &BTreeSet<NodeName>,
    already: &BTreeSet<NodeId>,
) -> Result<BTreeSet<NodeId>, Refusal> {
    let mut without = already.clone();
    for name in names {
        let Some(member) = record.members.get(name) else {
            return Err(Refusal::new(RefusalCode::NodeUnknown, format!("there is no node {name}"))
                .hint("`skiff nodes` lists them"));
        };
        without.insert(member.value.id);
    }
    let is_waited_for = |member: &MemberRecord| {
        member.role == NodeRole::ControlPlane && !without.contains(&member.id)
    };
    if !record.living().any(is_waited_for) {
        let message = "one control-plane node at least must have the keys of the new authorities";
        return Err(Refusal::new(RefusalCode::NotAllowed, message));
    }
    Ok(without)
}

fn to_target(
    record: &ClusterRecord,
    rotation: &Rotation,
    target: Position,
    way: Way,
    now: OffsetDateTime,
) -> Decision {
    let (since, complete, finished) = (now, None, false);
    let rotation = Rotation { target, way, since, complete, finished, ..rotation.clone() };
    let settings = &record.settings.value;
    let after = RotationRecord {
        step: settings.rotation.step.next(),
        current: Some(Box::new(rotation.clone())),
        ..settings.rotation.clone()
    };
    let authorities = rotation.authorities();
    let mut decision =
        put(record, ClusterSettings { authorities, rotation: after, ..settings.clone() });
    decision.changes.extend(end_tokens(record, &rotation));
    decision
}

/// Whoever has a token of an authority that nobody shows any more could verify nobody.
fn end_tokens(record: &ClusterRecord, rotation: &Rotation) -> Vec<Change> {
    let authorities = rotation.authorities();
    let is_over = |token: &TokenRecord| !token.revoked && !authorities.contains(&token.authority);
    let over = record.tokens.values().filter(|token| is_over(&token.value));
    over.take(TOKENS_AT_ONCE_MAX)
        .map(|token| Change::token(TokenRecord { revoked: true, ..token.value.clone() }, token))
        .collect()
}

/// All are at the end of the way, and know only one of the two.
fn settle(settings: &ClusterSettings, rotation: &Rotation, now: OffsetDateTime) -> ClusterSettings {
    let (left, dropped) = match rotation.way {
        Way::On => (Side::New, Side::Old),
        Way::Back => (Side::Old, Side::New),
    };
    let left = rotation.side(left);
    let mut former = settings.rotation.former.clone();
    former.retain(|former| now < former.until);
    // On a way back that nobody began by itself, nobody knows only the new one.
    if !rotation.distrust && !left.crossed.is_empty() {
        former.push(FormerAuthority {
            cluster: rotation.side(dropped).cluster.clone(),
            crossed: left.crossed.clone(),
            until: now.saturating_add(FORMER_KEPT),
        });
    }
    if rotation.distrust && rotation.way == Way::On {
        former.clear();
    }
    former.drain(..former.len().saturating_sub(FORMER_MAX));
    let authorities = left.fingerprint().into_iter().collect();
    let rotation = RotationRecord { current: None, former, ..settings.rotation.clone() };
    ClusterSettings { authorities, rotation, ..settings.clone() }
}

fn put_rotation(record: &ClusterRecord, rotation: Rotation) -> Decision {
    let settings = record.settings.value.clone();
    let current = Some(Box::new(rotation));
    let rotation = RotationRecord { current, ..settings.rotation.clone() };
    put(record, ClusterSettings { rotation, ..settings })
}

fn put(record: &ClusterRecord, settings: ClusterSettings) -> Decision {
    let outcome = Outcome::Rotation(settings.rotation.step);
    let changes = vec![
        Change::PutSettings { settings: Box::new(settings), was: Some(record.settings.revision) },
        // Another node may be joining at this moment, and is waited for.
        Change::membership(record),
    ];
    Decision::changing(changes, outcome)
}

#[cfg(test)]
#[path = "../protocol_rotation_test.rs"]
mod tests;
