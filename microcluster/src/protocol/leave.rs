//! A member goes by itself: it says so, moves its pods and its datastore role, and says that it
//! is gone.

use time::OffsetDateTime;

use super::caller::Caller;
use super::decision::{Decision, Outcome};
use super::undo::forget;
use crate::message::{LeaveStep, Refusal, RefusalCode};
use crate::record::{ClusterRecord, MemberRecord, MemberState, NodeId, NodeRole, RemovalReason};
use crate::store::Change;

/// One step of leaving; each may be said again.
pub fn decide_leave(
    record: &ClusterRecord,
    step: LeaveStep,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let outcome = Outcome::Leaving(step);
    if step == LeaveStep::Finish && has_left(record, caller) {
        return Ok(Decision::of(outcome));
    }
    let member = caller.identify(record, now)?;
    let node = &member.value;
    let turned = |state| MemberRecord { state, last_contact: now, ..node.clone() };
    let changes = match (step, &node.state) {
        (_, MemberState::Joining { .. }) => {
            let message = format!("{} has not finished joining", node.name);
            return Err(Refusal::new(RefusalCode::NotMember, message)
                .hint("give the join up instead: `skiff reset` on it"));
        }
        (LeaveStep::Begin, MemberState::Member) => {
            check_not_last(record, node)?;
            let mut changes = vec![Change::member(turned(MemberState::Leaving), member)];
            if node.role == NodeRole::ControlPlane {
                changes.push(Change::membership(record));
            }
            changes
        }
        (LeaveStep::Cancel, MemberState::Leaving) => {
            vec![Change::member(turned(MemberState::Member), member)]
        }
        (LeaveStep::Begin, MemberState::Leaving) | (LeaveStep::Cancel, MemberState::Member) => {
            vec![]
        }
        (LeaveStep::Finish, MemberState::Leaving) => {
            forget(record, member, RemovalReason::Left, now)
        }
        (LeaveStep::Finish, MemberState::Member) => {
            let message = format!("{} has not said that it leaves", node.name);
            return Err(Refusal::new(RefusalCode::NotAllowed, message).hint("`skiff leave` on it"));
        }
    };
    Ok(Decision::changing(changes, outcome))
}

fn has_left(record: &ClusterRecord, caller: &Caller) -> bool {
    let Caller::Node(identity) = caller else { return false };
    let removed = record.removed.get(&identity.id);
    removed.is_some_and(|removed| removed.value.reason == RemovalReason::Left)
}

/// Whether another control-plane node stays.
pub(super) fn check_not_last(record: &ClusterRecord, node: &MemberRecord) -> Result<(), Refusal> {
    let id: NodeId = node.id;
    let stays = |other: &MemberRecord| other.id != id && matches!(other.state, MemberState::Member);
    if node.role == NodeRole::Worker || record.control_plane().any(stays) {
        return Ok(());
    }
    let message = format!("{} is the last control-plane node: the cluster lives on it", node.name);
    Err(Refusal::new(RefusalCode::LastControlPlane, message)
        .hint("`skiff reset` on it ends the cluster; or join another control-plane node first"))
}
