//! A control-plane node asks for the authorities' keys, while new ones take the place of the old ones
//! or after it was off meanwhile.

use time::OffsetDateTime;

use super::caller::Caller;
use super::decision::{Decision, Outcome};
use super::join::check_recipient;
use crate::message::{Refusal, RefusalCode};
use crate::record::{ClusterRecord, MemberState, NodeRole};

/// Has them sealed to a key that the node has made for this one answer. Whoever joins gets them
/// another way, and a worker never.
pub fn decide_keys(
    record: &ClusterRecord,
    recipient: &str,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let member = &caller.identify(record, now)?.value;
    if member.role != NodeRole::ControlPlane || matches!(member.state, MemberState::Joining { .. })
    {
        let message = "only a node of the control plane gets the authorities' keys";
        return Err(Refusal::new(RefusalCode::NotAllowed, message));
    }
    let recipient = check_recipient(member.role, Some(recipient))?.unwrap_or_default();
    Ok(Decision::of(Outcome::Keys { recipient }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Request};
    use crate::protocol::decide;
    use crate::sample::{self, Joiner, NOW};
    use crate::store::MemoryStore;

    fn say(store: &MemoryStore, message: &Message, caller: &Caller) -> Result<Outcome, Refusal> {
        let record = store.read_now().unwrap();
        let decision = decide(&record, message, caller, sample::RELEASE, NOW)?;
        store.apply_now(&decision.changes).unwrap();
        Ok(decision.outcome)
    }

    #[test]
    fn keys_go_to_a_control_plane_member_by_an_identity_that_is_good_and_to_nobody_else() {
        let store = sample::store();
        let (member, worker) = (Joiner::control_plane(2, "second"), Joiner::new(3, "third"));
        let ask = |caller: &Caller, recipient: &str| {
            let request = Request::Keys { recipient: recipient.into() };
            say(&store, &sample::message(request), caller)
        };
        for (joiner, seed) in [(&member, 2), (&worker, 3)] {
            sample::add_token(&store, &sample::spec(joiner.applicant.role), seed);
            say(&store, &joiner.enter(), &Caller::Stranger).unwrap();
            let refused = ask(&joiner.caller(), "age1x").unwrap_err();
            assert_eq!(refused.code, RefusalCode::NotAllowed, "it joins still");
            say(&store, &sample::confirm(), &joiner.caller()).unwrap();
        }
        let keys = Outcome::Keys { recipient: "age1x".into() };
        assert_eq!(ask(&member.caller(), "age1x"), Ok(keys));
        let Caller::Node(identity) = member.caller() else { panic!("a node") };
        for (caller, recipient, code) in [
            (worker.caller(), "age1x", RefusalCode::NotAllowed),
            (Caller::Stranger, "age1x", RefusalCode::NotAllowed),
            (Caller::Former(identity), "age1x", RefusalCode::IdentityStale),
            (member.caller(), "ssh-rsa x", RefusalCode::RequestInvalid),
        ] {
            assert_eq!(ask(&caller, recipient).unwrap_err().code, code, "{caller:?}");
        }
    }
}
