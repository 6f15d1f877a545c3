//! The joiner is Ready: from now on it is a member.

use time::OffsetDateTime;

use super::caller::Caller;
use super::decision::{Decision, Outcome};
use crate::message::{Refusal, RefusalCode};
use crate::record::{ClusterRecord, MemberRecord, MemberState};
use crate::store::Change;

/// Late is not too late: as long as the keeper has not forgotten the node, it may be done.
pub fn decide_confirm(
    record: &ClusterRecord,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let member = caller.identify(record, now)?;
    match member.value.state {
        MemberState::Member => Ok(Decision::of(Outcome::Confirmed)),
        MemberState::Leaving => {
            let message = format!("{} is leaving and does not join", member.value.name);
            Err(Refusal::new(RefusalCode::NotJoining, message))
        }
        MemberState::Joining { .. } => {
            let confirmed = MemberRecord {
                state: MemberState::Member,
                joined: now,
                last_contact: now,
                ..member.value.clone()
            };
            let changes = vec![Change::member(confirmed, member)];
            Ok(Decision::changing(changes, Outcome::Confirmed))
        }
    }
}
