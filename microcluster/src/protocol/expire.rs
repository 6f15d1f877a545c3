//! The keeper: forgets joins that nobody finished, tokens that are long over, and nodes that were
//! removed so long ago that no token of their time is alive.

use time::{Duration, OffsetDateTime};

use super::decision::{Decision, Outcome};
use super::undo::forget;
use crate::record::{ClusterRecord, MemberState, REMOVED_KEPT, RemovalReason};
use crate::store::Change;

/// Lines that are taken away at once: a forgotten join is four changes.
pub const EXPIRED_AT_ONCE_MAX: usize = 20;
/// How long a token that is over is listed, so that "expired" can be told from "unknown".
const TOKEN_KEPT: Duration = Duration::days(7);

/// What is over by now, up to [`EXPIRED_AT_ONCE_MAX`] lines. One join only: two may have come with
/// one token, and a change can be made once.
pub fn decide_expire(record: &ClusterRecord, now: OffsetDateTime) -> Decision {
    let join = record.members.values().find(|member| match member.value.state {
        MemberState::Joining { until, .. } => now >= until,
        MemberState::Member | MemberState::Leaving => false,
    });
    if let Some(member) = join {
        let changes = forget(record, member, RemovalReason::Expired, now);
        return Decision::changing(changes, Outcome::Expired { count: 1, has_more: true });
    }
    let tokens = record
        .tokens
        .values()
        .filter(|token| now - token.value.expires >= TOKEN_KEPT)
        // A join gives its use back to it still.
        .filter(|token| record.living().all(|node| node.joins_with() != Some(token.value.id)))
        .map(|token| Change::DeleteToken { id: token.value.id, was: token.revision });
    let removed = record
        .removed
        .values()
        .filter(|removed| now - removed.value.when >= REMOVED_KEPT)
        .map(|removed| Change::DeleteRemoved { id: removed.value.id, was: removed.revision });
    let mut changes: Vec<Change> = tokens.chain(removed).take(EXPIRED_AT_ONCE_MAX + 1).collect();
    let has_more = changes.len() > EXPIRED_AT_ONCE_MAX;
    changes.truncate(EXPIRED_AT_ONCE_MAX);
    let count = changes.len();
    Decision::changing(changes, Outcome::Expired { count, has_more })
}
