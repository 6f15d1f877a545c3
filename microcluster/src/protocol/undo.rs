//! A join that failed is taken back: the node is forgotten and the token gets its use again.
//!
//! What is left is a line that says "undone", so that *enter*, delayed on its way and arriving
//! after *undo*, does not begin the join anew. That line is written even when nobody with this id
//! has entered yet. It costs the token an attempt, which bounds how many there can be.

use time::OffsetDateTime;

use super::caller::Caller;
use super::decision::{Decision, Outcome};
use super::join::open;
use crate::message::{GivenUp, Refusal, RefusalCode, Undo};
use crate::record::{
    ClusterRecord, MemberRecord, MemberState, NodeRole, RemovalReason, RemovedRecord, Versioned,
};
use crate::store::Change;
use crate::token::{TokenRecord, TokenState};

/// Takes a join back, and may be said again.
pub fn decide_undo(
    record: &ClusterRecord,
    undo: &Undo,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let done = Decision::of(Outcome::Undone);
    let proven = match undo {
        Undo::Own {} => {
            if is_undone(record, caller) {
                return Ok(done);
            }
            let (member, _) = caller.identify_late(record, now)?;
            return undo_member(record, member, now);
        }
        Undo::Proven(proven) => proven,
    };
    let (token, given_up) = open::<GivenUp>(record, proven)?;
    if record.removed.contains_key(&given_up.id) {
        return Ok(done);
    }
    if let Some(member) = record.member(given_up.id) {
        if member.value.joins_with().is_some_and(|joins_with| joins_with != token.value.id) {
            let message = format!("{} joins with another token", member.value.name);
            return Err(Refusal::new(RefusalCode::NotAllowed, message));
        }
        return undo_member(record, member, now);
    }
    match token.value.state_at(now) {
        // What made it so changed the token: an *enter* that was decided before collides.
        TokenState::Revoked | TokenState::WornOut => Ok(done),
        // Time changed nothing, so one that is still under way is to find this line.
        TokenState::Expired | TokenState::Live | TokenState::Used => {
            Ok(forbid(token, &given_up, now))
        }
    }
}

fn is_undone(record: &ClusterRecord, caller: &Caller) -> bool {
    let Caller::Node(identity) = caller else { return false };
    let removed = record.removed.get(&identity.id).map(|removed| removed.value.reason);
    matches!(removed, Some(RemovalReason::Undone | RemovalReason::Expired))
}

fn undo_member(
    record: &ClusterRecord,
    member: &Versioned<MemberRecord>,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    match member.value.state {
        MemberState::Joining { .. } => {
            let changes = forget(record, member, RemovalReason::Undone, now);
            Ok(Decision::changing(changes, Outcome::Undone))
        }
        MemberState::Member | MemberState::Leaving => {
            let message = format!("{} is a member: its join is over", member.value.name);
            Err(Refusal::new(RefusalCode::AlreadyMember, message).hint("`skiff reset` on it"))
        }
    }
}

/// Nobody has entered with this id, and nobody will.
fn forbid(token: &Versioned<TokenRecord>, given_up: &GivenUp, now: OffsetDateTime) -> Decision {
    if token.value.attempts_left == 0 {
        return Decision::of(Outcome::Undone);
    }
    let removed = RemovedRecord {
        id: given_up.id,
        name: None,
        role: None,
        reason: RemovalReason::Undone,
        when: now,
    };
    let changes = vec![
        Change::PutRemoved { removed, was: None },
        Change::token(token.value.spend_attempt(), token),
    ];
    Decision::changing(changes, Outcome::Undone)
}

/// What it takes to make a node a former one. A use that it joined with goes back to the token in
/// the same change that takes the node away: once, therefore.
pub(super) fn forget(
    record: &ClusterRecord,
    member: &Versioned<MemberRecord>,
    reason: RemovalReason,
    now: OffsetDateTime,
) -> Vec<Change> {
    let node = &member.value;
    let removed = RemovedRecord {
        id: node.id,
        name: Some(node.name.clone()),
        role: Some(node.role),
        reason,
        when: now,
    };
    let mut changes = vec![
        Change::DeleteMember { name: node.name.clone(), was: member.revision },
        Change::PutRemoved { removed, was: None },
    ];
    if let Some(token) = node.joins_with().and_then(|token| record.tokens.get(&token)) {
        changes.push(Change::token(token.value.give_back(), token));
    }
    // Two of these could each think that the other one stays.
    if node.role == NodeRole::ControlPlane {
        changes.push(Change::membership(record));
    }
    changes
}
