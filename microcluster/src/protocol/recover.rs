//! A cluster goes on from one survivor after most of its datastore's voters are lost for ever.
//!
//! The survivor stays who it was, and so do the workers: nobody has taken their place. Every other
//! node of the control plane becomes a former one, whether it is lost or only was not chosen, since
//! what its datastore holds is another history from here on. Tokens that are open here may have
//! been used or revoked in what was lost, so none is believed.

use time::OffsetDateTime;

use super::decision::{Decision, Outcome};
use crate::message::{Refusal, RefusalCode};
use crate::record::{ClusterRecord, NodeId, NodeRole, ReachedStep, RemovalReason, RemovedRecord};
use crate::store::Change;
use crate::token::TokenRecord;

/// Makes `survivor` the only node of the control plane; `reached` is how far it is with new
/// authorities, if it is on its way. Said again, it changes nothing.
pub fn decide_recover(
    record: &ClusterRecord,
    survivor: NodeId,
    reached: Option<ReachedStep>,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    if record.member(survivor).is_none() {
        let message = "the record that this node holds does not know this node";
        return Err(Refusal::new(RefusalCode::NotMember, message)
            .hint("recover from another control-plane node, or restore an archive"));
    }
    let settings = &record.settings.value;
    let lost = record.members.values().filter(|member| {
        member.value.role == NodeRole::ControlPlane && member.value.id != survivor
    });
    let mut changes = Vec::new();
    for member in lost {
        let node = &member.value;
        let removed = RemovedRecord {
            id: node.id,
            name: Some(node.name.clone()),
            role: Some(node.role),
            reason: RemovalReason::Removed,
            when: now,
        };
        changes.push(Change::DeleteMember { name: node.name.clone(), was: member.revision });
        changes.push(Change::PutRemoved { removed, was: None });
    }
    if !changes.is_empty() {
        changes.push(Change::membership(record));
        if let Some(reached) = reached.filter(|_| settings.rotation.current.is_some()) {
            let settings = Box::new(settings.resumed(reached, now));
            changes.push(Change::PutSettings { settings, was: Some(record.settings.revision) });
        }
    }
    for token in record.tokens.values().filter(|token| !token.value.revoked) {
        let revoked = TokenRecord { revoked: true, ..token.value.clone() };
        changes.push(Change::token(revoked, token));
    }
    Ok(Decision::changing(changes, Outcome::Recovered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Caller, Founder, decide_found};
    use crate::record::MemberRecord;
    use crate::sample::{self, NOW};
    use crate::store::MemoryStore;
    use crate::token::TokenState;

    /// The first node, two more of the control plane, a worker, and an open token.
    fn store() -> MemoryStore {
        let store = sample::store();
        sample::add_token(&store, &sample::spec(NodeRole::Worker), 1);
        for (name, role) in [
            ("beta", NodeRole::ControlPlane),
            ("gamma", NodeRole::ControlPlane),
            ("delta", NodeRole::Worker),
        ] {
            let founder = Founder {
                name: name.parse().unwrap(),
                public_key: name.as_bytes().to_vec(),
                ..sample::founder()
            };
            let record = store.read_now().unwrap();
            let settings = record.settings.value.clone();
            let decided = decide_found(&settings, &founder, NOW).unwrap().changes;
            let put = decided.into_iter().find_map(|change| match change {
                Change::PutMember { member, .. } => Some(*member),
                _ => None,
            });
            let member = Box::new(MemberRecord { role, ..put.unwrap() });
            store.apply_now(&[Change::PutMember { member, was: None }]).unwrap();
        }
        store
    }

    fn names(record: &ClusterRecord) -> Vec<String> {
        record.members.keys().map(ToString::to_string).collect()
    }

    fn recovered(survivor: &str) -> MemoryStore {
        let store = store();
        let record = store.read_now().unwrap();
        let survivor = record.members[&survivor.parse().unwrap()].value.id;
        let decision = decide_recover(&record, survivor, None, NOW).unwrap();
        store.apply_now(&decision.changes).unwrap();
        store
    }

    #[test]
    fn the_survivor_and_the_workers_stay_and_the_rest_of_the_control_plane_is_former() {
        let before = store().read_now().unwrap();
        let survivor = before.members[&"beta".parse().unwrap()].value.clone();
        let record = recovered("beta").read_now().unwrap();
        assert_eq!(names(&record), ["beta", "delta"]);
        assert_eq!(record.member(survivor.id).unwrap().value, survivor);
        assert_eq!(record.membership.value.changes, before.membership.value.changes + 1);
        for name in ["first", "gamma"] {
            let id = before.members[&name.parse().unwrap()].value.id;
            let removed = &record.removed[&id].value;
            assert_eq!(removed.name.as_ref().unwrap().to_string(), name);
            assert_eq!(removed.reason, RemovalReason::Removed);
        }
        let refusal = Caller::Node(sample::first()).identify(&record, NOW).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Removed);
    }

    /// Which of them votes is the datastore's affair: either may be the one that is left.
    #[test]
    fn of_two_control_plane_nodes_either_goes_on() {
        for (survivor, lost) in [("first", "beta"), ("beta", "first")] {
            let store = store();
            let gone = |record: &ClusterRecord, name: &str| {
                let member = &record.members[&name.parse().unwrap()];
                Change::DeleteMember { name: name.parse().unwrap(), was: member.revision }
            };
            let record = store.read_now().unwrap();
            store.apply_now(&[gone(&record, "gamma"), gone(&record, "delta")]).unwrap();
            let record = store.read_now().unwrap();
            let id = |name: &str| record.members[&name.parse().unwrap()].value.id;
            let changes = decide_recover(&record, id(survivor), None, NOW).unwrap().changes;
            store.apply_now(&changes).unwrap();
            let after = store.read_now().unwrap();
            assert_eq!(names(&after), [survivor]);
            assert!(after.removed.contains_key(&id(lost)), "{lost}");
        }
    }

    #[test]
    fn no_token_that_was_open_is_good_any_more() {
        let record = recovered("first").read_now().unwrap();
        let states: Vec<_> = record.tokens.values().map(|t| t.value.state_at(NOW)).collect();
        assert_eq!(states, [TokenState::Revoked]);
    }

    #[test]
    fn said_again_it_changes_nothing() {
        let record = recovered("first").read_now().unwrap();
        let again = decide_recover(&record, sample::first().id, None, NOW).unwrap();
        assert_eq!(again.changes, []);
    }

    #[test]
    fn a_node_that_the_record_does_not_know_is_no_survivor() {
        let record = store().read_now().unwrap();
        let refused = decide_recover(&record, NodeId::of_key(b"nobody"), None, NOW).unwrap_err();
        assert_eq!(refused.code, RefusalCode::NotMember);
    }
}
