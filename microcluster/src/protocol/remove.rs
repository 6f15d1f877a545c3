//! A node is taken away by somebody else: it need not exist any more.

use time::OffsetDateTime;

use super::decision::{Decision, Outcome};
use super::leave::check_not_last;
use super::undo::forget;
use crate::message::{Refusal, RefusalCode};
use crate::record::{ClusterRecord, MemberState, NodeName, NodeRole, RemovalReason};

/// What root asks for on a control-plane member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveRequest {
    pub name: NodeName,
    /// Although it answers.
    pub force: bool,
    /// Whether it does, as somebody has just tried.
    pub is_reachable: bool,
    /// The node on which this is asked.
    pub here: NodeName,
}

/// Makes a node a former one; its identity is refused from then on.
pub fn decide_remove(
    record: &ClusterRecord,
    request: &RemoveRequest,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let name = &request.name;
    let Some(member) = record.members.get(name) else {
        return was_removed(record, name).ok_or_else(|| {
            Refusal::new(RefusalCode::NodeUnknown, format!("there is no node {name}"))
                .hint("`skiff nodes` lists them")
        });
    };
    let node = &member.value;
    if *name == request.here {
        let message = format!("{name} is this node itself");
        return Err(
            Refusal::new(RefusalCode::NotAllowed, message).hint("`skiff leave` takes it out")
        );
    }
    if matches!(node.state, MemberState::Member) {
        check_not_last(record, node)?;
    }
    if request.is_reachable && !request.force {
        let message = format!("{name} answers, so it can leave in order");
        return Err(Refusal::new(RefusalCode::StillReachable, message)
            .hint(format!("`skiff leave` on it, or `skiff remove-node {name} --force`")));
    }
    let held_keys = node.role == NodeRole::ControlPlane;
    let outcome = Outcome::Removed { name: name.clone(), id: node.id, held_keys };
    Ok(Decision::changing(forget(record, member, RemovalReason::Removed, now), outcome))
}

/// Said again, it is done already.
fn was_removed(record: &ClusterRecord, name: &NodeName) -> Option<Decision> {
    let is_it = |removed: &&crate::record::RemovedRecord| {
        removed.name.as_ref() == Some(name) && removed.reason == RemovalReason::Removed
    };
    let removed = record.removed.values().map(|removed| &removed.value).find(is_it)?;
    let held_keys = removed.role == Some(NodeRole::ControlPlane);
    let outcome = Outcome::Removed { name: name.clone(), id: removed.id, held_keys };
    Some(Decision::of(outcome))
}
