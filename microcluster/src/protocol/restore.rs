//! A cluster comes back from an archive: one node has its keys and objects again, and everybody
//! else of before is a former member.
//!
//! Nobody knows what happened between the archive and now. A token that is open here may have been
//! used or revoked since, and a machine that is a member here may have been removed; so neither is
//! believed. The restored node has a new identity, too: the machine of before may still exist.

use time::OffsetDateTime;

use super::decision::{Decision, Outcome};
use super::found::{Founder, decide_found};
use crate::message::Refusal;
use crate::record::{ClusterRecord, ClusterSettings, RemovalReason, RemovedRecord};
use crate::store::Change;
use crate::token::TokenRecord;

/// Makes `survivor` the only member, with the settings that hold from now on. Every identity of
/// before is refused as one of a removed node, and no token is good any more.
pub fn decide_restore(
    record: &ClusterRecord,
    settings: &ClusterSettings,
    survivor: &Founder,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    // A restored node is what a founder is, apart from the record that is there already.
    let founded = decide_found(settings, survivor, now)?;
    let former = |name: &_| record.members.get(name);
    let mut changes = vec![
        Change::PutSettings {
            settings: Box::new(settings.clone()),
            was: Some(record.settings.revision),
        },
        Change::membership(record),
    ];
    for change in founded.changes {
        if let Change::PutMember { mut member, .. } = change {
            let former = former(&member.name);
            if let Some(former) = former {
                member.labels.clone_from(&former.value.labels);
                member.taints.clone_from(&former.value.taints);
            }
            changes.push(Change::PutMember { member, was: former.map(|former| former.revision) });
        }
    }
    for member in record.members.values() {
        let node = &member.value;
        if node.name != survivor.name {
            changes.push(Change::DeleteMember { name: node.name.clone(), was: member.revision });
        }
        let removed = RemovedRecord {
            id: node.id,
            name: Some(node.name.clone()),
            role: Some(node.role),
            reason: RemovalReason::Removed,
            when: now,
        };
        changes.push(Change::PutRemoved { removed, was: None });
    }
    for token in record.tokens.values().filter(|token| !token.value.revoked) {
        let revoked = TokenRecord { revoked: true, ..token.value.clone() };
        changes.push(Change::token(revoked, token));
    }
    Ok(Decision::changing(changes, Outcome::Founded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::RefusalCode;
    use crate::protocol::Caller;
    use crate::record::NodeRole;
    use crate::sample::{self, NOW};
    use crate::store::MemoryStore;
    use crate::token::TokenState;

    fn restored(name: &str) -> (MemoryStore, Founder) {
        let store = sample::store();
        sample::add_token(&store, &sample::spec(NodeRole::Worker), 1);
        let survivor = Founder {
            name: name.parse().unwrap(),
            addresses: vec![[192, 0, 2, 77].into()],
            public_key: b"new".to_vec(),
            ..sample::founder()
        };
        let record = store.read_now().unwrap();
        let settings = ClusterSettings { api_port: 7000, ..record.settings.value.clone() };
        let decision = decide_restore(&record, &settings, &survivor, NOW).unwrap();
        store.apply_now(&decision.changes).unwrap();
        (store, survivor)
    }

    #[test]
    fn the_restored_node_is_the_only_member_whatever_it_is_called() {
        for name in ["first", "other"] {
            let (store, survivor) = restored(name);
            let record = store.read_now().unwrap();
            let names: Vec<_> = record.members.keys().map(ToString::to_string).collect();
            assert_eq!(names, [name]);
            let member = record.living().next().unwrap();
            assert_eq!(member.addresses, survivor.addresses);
            assert_eq!(record.settings.value.api_port, 7000);
            assert_eq!(record.membership.value.changes, 1);
            assert!(record.removed.contains_key(&sample::first().id));
        }
    }

    #[test]
    fn identities_of_before_are_refused_as_those_of_removed_nodes() {
        for name in ["first", "other"] {
            let (store, _) = restored(name);
            let record = store.read_now().unwrap();
            let refusal = Caller::Node(sample::first()).identify(&record, NOW).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::Removed);
        }
    }

    #[test]
    fn no_token_of_before_is_good_any_more() {
        let (store, _) = restored("first");
        let record = store.read_now().unwrap();
        let states: Vec<_> = record.tokens.values().map(|t| t.value.state_at(NOW)).collect();
        assert_eq!(states, [TokenState::Revoked]);
    }

    #[test]
    fn a_name_that_no_node_may_have_is_refused() {
        let store = sample::store();
        let record = store.read_now().unwrap();
        let survivor = Founder { name: "kubernetes".parse().unwrap(), ..sample::founder() };
        let refused = decide_restore(&record, &record.settings.value, &survivor, NOW);
        assert_eq!(refused.unwrap_err().code, RefusalCode::NameReserved);
    }
}
