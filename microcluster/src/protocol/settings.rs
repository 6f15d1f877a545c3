//! What all nodes share, when somebody changes it; and who takes it up when.
//!
//! ```text
//!   skiff set ──> tried there ──> revision 4 ──> workers: at once
//!                      │ no                  └─> control-plane nodes whose API server restarts: by turns
//!                      v                            turn ─> restart ─> ready ─> turn's end ─> the next one
//!                   refused                                    └─ not ready: as before, and no other one tries
//! ```

use time::OffsetDateTime;

use super::decision::{Decision, Outcome, TurnAnswer};
use crate::message::{Refusal, RefusalCode};
use crate::record::{
    ClusterRecord, ClusterSettings, MemberRecord, NodeId, SHARED_BYTES_MAX, SettingsChange,
    SettingsRevision, SharedSettings, TURN_TIME_MAX, Turn,
};
use crate::store::Change;

/// The shared setting whose names no node can have.
const API_NAMES: &str = "api.extra-sans";

/// Writes down where the API server of the only control-plane node listens. Where there are
/// several, one of them cannot speak for the others: all are dialled at the same port.
pub fn decide_api_port(record: &ClusterRecord, port: u16) -> Result<Decision, Refusal> {
    let settings = &record.settings.value;
    if settings.api_port == port {
        return Ok(Decision::of(Outcome::SettingsChanged));
    }
    if record.control_plane().count() > 1 {
        let message = format!(
            "api.port is {port} on this node, and the cluster's API servers listen at {}",
            settings.api_port
        );
        return Err(Refusal::new(RefusalCode::NotAllowed, message)
            .hint("give `api.port` one value on all control-plane nodes"));
    }
    let settings = ClusterSettings { api_port: port, ..settings.clone() };
    let changes = vec![
        Change::PutSettings { settings: Box::new(settings), was: Some(record.settings.revision) },
        // Another control-plane node may be joining at this moment.
        Change::membership(record),
    ];
    Ok(Decision::changing(changes, Outcome::SettingsChanged))
}

/// Changes shared settings. `check` knows what each may be, and sees all of them as they would be
/// then; two changes at once are made one after the other, each on what the other has left.
pub fn decide_set(
    record: &ClusterRecord,
    change: &SettingsChange,
    check: &dyn Fn(&ClusterSettings) -> Result<(), Refusal>,
) -> Result<Decision, Refusal> {
    let before = &record.settings.value;
    let revision = before.shared.revision;
    let shared = before.shared.changed(change);
    // It may have been made already, and only the answer was lost.
    let is_made =
        |expected: SettingsRevision| shared == before.shared && expected.next() == revision;
    let meant = |expected: &SettingsRevision| *expected != revision && !is_made(*expected);
    if let Some(expected) = change.expected.filter(meant) {
        let message = format!("the settings are of revision {revision} by now, not {expected}");
        return Err(Refusal::new(RefusalCode::SettingsChanged, message)
            .hint("skiff get --cluster, which shows what has changed"));
    }
    let bytes = shared.bytes();
    if bytes > SHARED_BYTES_MAX {
        let message = format!(
            "the cluster's settings would have {bytes} bytes, and {SHARED_BYTES_MAX} are possible"
        );
        return Err(Refusal::new(RefusalCode::SettingInvalid, message));
    }
    let touched = |key: &str| change.set.contains_key(key) || change.unset.contains(key);
    let api_names = match touched(API_NAMES) {
        true => names_of(&shared),
        false => before.api_names.clone(),
    };
    let after = ClusterSettings { api_names, shared, ..before.clone() };
    check(&after)?;
    check_names(record, &after)?;
    let outcome = Outcome::SettingsSet(after.shared.revision);
    if after == *before {
        return Ok(Decision::of(outcome));
    }
    let changes = vec![
        Change::PutSettings { settings: Box::new(after), was: Some(record.settings.revision) },
        // Another node may be joining under one of these names, and must see them.
        Change::membership(record),
    ];
    Ok(Decision::changing(changes, outcome))
}

fn names_of(shared: &SharedSettings) -> Vec<String> {
    let names = shared.values.get(API_NAMES).and_then(|names| names.as_array());
    names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// A node's own name or address in the API server's certificates would make it refused as a node.
fn check_names(record: &ClusterRecord, after: &ClusterSettings) -> Result<(), Refusal> {
    let before = &record.settings.value;
    if after.api_names == before.api_names {
        return Ok(());
    }
    let refused = |member: &MemberRecord, what: String| {
        let message =
            format!("{API_NAMES} holds {what}, which is that of the node {}", member.name);
        Err(Refusal::new(RefusalCode::SettingInvalid, message)
            .hint("leave it out: certificates hold the node's own anyway"))
    };
    for member in record.living() {
        if after.reserves_name(&member.name) && !before.reserves_name(&member.name) {
            return refused(member, member.name.to_string());
        }
        let is_new = |address: &&std::net::IpAddr| {
            after.reserves_address(**address).is_some()
                && before.reserves_address(**address).is_none()
        };
        if let Some(address) = member.addresses.iter().find(is_new) {
            return refused(member, address.to_string());
        }
    }
    Ok(())
}

/// Whether a control-plane node may restart its API server for settings of that revision.
pub fn decide_turn(
    record: &ClusterRecord,
    node: NodeId,
    revision: SettingsRevision,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let answer = |answer| Ok(Decision::of(Outcome::Turn(answer)));
    let settings = &record.settings.value;
    if settings.shared.revision != revision {
        return answer(TurnAnswer::Outdated);
    }
    for member in others(record, node) {
        if let Some(reason) = member.settings.failure(revision) {
            let (name, reason) = (member.name.clone(), reason.to_owned());
            return answer(TurnAnswer::Stopped { name, reason });
        }
    }
    Ok(decide_trial_turn(record, node, now))
}

/// Whether a control-plane node may restart its API server to try settings before they are recorded;
/// also where others could not take up the present ones, for these may be the remedy.
pub fn decide_trial_turn(record: &ClusterRecord, node: NodeId, now: OffsetDateTime) -> Decision {
    let shared = &record.settings.value.shared;
    if let Some(turn) = shared.turn.as_ref().filter(|turn| turn.until > now)
        && let Some(holder) = others(record, node).find(|member| member.id == turn.node)
    {
        return Decision::of(Outcome::Turn(TurnAnswer::Wait(holder.name.clone())));
    }
    let turn = Some(Turn { node, until: now + TURN_TIME_MAX });
    Decision::changing(vec![put_turn(record, turn)], Outcome::Turn(TurnAnswer::Granted))
}

fn others(record: &ClusterRecord, node: NodeId) -> impl Iterator<Item = &MemberRecord> {
    record.control_plane().filter(move |member| member.id != node)
}

/// Gives the turn back; somebody else's stays.
pub fn decide_turn_end(record: &ClusterRecord, node: NodeId) -> Decision {
    let turn = record.settings.value.shared.turn.as_ref();
    let changes = match turn.is_some_and(|turn| turn.node == node) {
        true => vec![put_turn(record, None)],
        false => vec![],
    };
    Decision::changing(changes, Outcome::SettingsChanged)
}

fn put_turn(record: &ClusterRecord, turn: Option<Turn>) -> Change {
    let settings = record.settings.value.clone();
    let shared = SharedSettings { turn, ..settings.shared.clone() };
    let settings = ClusterSettings { shared, ..settings };
    Change::PutSettings { settings: Box::new(settings), was: Some(record.settings.revision) }
}

#[cfg(test)]
#[path = "../protocol_settings_test.rs"]
mod tests;
