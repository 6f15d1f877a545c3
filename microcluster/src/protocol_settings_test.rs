//! Shared settings: who may set what, and whose turn it is to take it up.

use serde_json::json;
use time::Duration;

use super::*;
use crate::message::Renew;
use crate::protocol::Caller;
use crate::record::{AppliedSettings, FailedSettings, NodeRole};
use crate::sample::{self, Joiner, NOW};
use crate::store::MemoryStore;

/// A cluster of `first` and others that run the control plane, by their seeds.
fn cluster(others: &[u8]) -> (MemoryStore, Vec<Joiner>) {
    let store = sample::store();
    let joiners = others.iter().map(|seed| {
        let joiner = Joiner::control_plane(*seed, &format!("node-{seed}"));
        sample::add_token(&store, &sample::spec(NodeRole::ControlPlane), *seed);
        say(&store, &joiner.enter(), &Caller::Stranger);
        say(&store, &sample::confirm(), &joiner.caller());
        joiner
    });
    let joiners = joiners.collect();
    (store, joiners)
}

fn say(store: &MemoryStore, message: &crate::message::Message, caller: &Caller) {
    let record = store.read_now().unwrap();
    let decision = crate::protocol::decide(&record, message, caller, sample::RELEASE, NOW).unwrap();
    store.apply_now(&decision.changes).unwrap();
}

fn change(key: &str, value: serde_json::Value) -> SettingsChange {
    SettingsChange { set: [(key.to_owned(), value)].into(), ..SettingsChange::default() }
}

fn set(store: &MemoryStore, change: &SettingsChange) -> Result<SettingsRevision, RefusalCode> {
    let before = store.read_now().unwrap();
    match decide_set(&before, change, &|_| Ok(())) {
        Ok(decision) => {
            store.apply_now(&decision.changes).unwrap();
            let after = store.read_now().unwrap();
            after.check().unwrap();
            assert_eq!(
                decision.outcome,
                Outcome::SettingsSet(after.settings.value.shared.revision)
            );
            Ok(after.settings.value.shared.revision)
        }
        Err(refusal) => {
            assert_eq!(store.read_now().unwrap(), before, "a refusal changed something");
            Err(refusal.code)
        }
    }
}

#[test]
fn a_change_is_made_on_what_the_one_before_has_left() {
    let (store, _) = cluster(&[]);
    assert_eq!(set(&store, &change("a", json!(1))), Ok(SettingsRevision(1)));
    assert_eq!(set(&store, &change("b", json!(["x"]))), Ok(SettingsRevision(2)));
    assert_eq!(set(&store, &change("b", json!(["x"]))), Ok(SettingsRevision(2)), "no change");
    let unset = SettingsChange { unset: ["a".to_owned()].into(), ..SettingsChange::default() };
    assert_eq!(set(&store, &unset), Ok(SettingsRevision(3)));
    let shared = store.read_now().unwrap().settings.value.shared;
    assert_eq!(shared.values, change("b", json!(["x"])).set);
}

#[test]
fn who_names_a_revision_is_refused_when_it_is_another_one_by_now() {
    let (store, _) = cluster(&[]);
    let expecting = |n, value| SettingsChange {
        expected: Some(SettingsRevision(n)),
        ..change("a", json!(value))
    };
    assert_eq!(set(&store, &expecting(0, 1)), Ok(SettingsRevision(1)));
    // The answer was lost, and the desk decides again.
    assert_eq!(set(&store, &expecting(0, 1)), Ok(SettingsRevision(1)));
    assert_eq!(set(&store, &expecting(0, 2)), Err(RefusalCode::SettingsChanged));
    assert_eq!(set(&store, &expecting(1, 2)), Ok(SettingsRevision(2)));
}

#[test]
fn what_the_settings_table_refuses_and_what_is_too_large_changes_nothing() {
    let (store, _) = cluster(&[]);
    let record = store.read_now().unwrap();
    let refuse = |_: &ClusterSettings| Err(Refusal::new(RefusalCode::SettingInvalid, "no"));
    let refused = decide_set(&record, &change("a", json!(1)), &refuse).unwrap_err();
    assert_eq!(refused.code, RefusalCode::SettingInvalid);
    let large = "x".repeat(SHARED_BYTES_MAX);
    assert_eq!(set(&store, &change("a", json!(large))), Err(RefusalCode::SettingInvalid));
}

#[test]
fn names_of_the_api_server_are_kept_from_nodes_and_those_of_nodes_from_it() {
    let (store, _) = cluster(&[2]);
    let names = |names: &[&str]| change(API_NAMES, json!(names));
    for name in ["node-2", "192.0.2.102", "192.0.2.1"] {
        assert_eq!(set(&store, &names(&[name])), Err(RefusalCode::SettingInvalid), "{name}");
    }
    set(&store, &names(&["api.example.org"])).unwrap();
    let settings = store.read_now().unwrap().settings.value;
    assert!(settings.reserves_name(&"api.example.org".parse().unwrap()));
    let unset = SettingsChange { unset: [API_NAMES.to_owned()].into(), ..Default::default() };
    set(&store, &unset).unwrap();
    assert!(store.read_now().unwrap().settings.value.api_names.is_empty());
}

fn turn(store: &MemoryStore, node: NodeId, revision: u64, later: Duration) -> TurnAnswer {
    let record = store.read_now().unwrap();
    let decision = decide_turn(&record, node, SettingsRevision(revision), NOW + later).unwrap();
    store.apply_now(&decision.changes).unwrap();
    match decision.outcome {
        Outcome::Turn(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn end_turn(store: &MemoryStore, node: NodeId) {
    let decision = decide_turn_end(&store.read_now().unwrap(), node);
    store.apply_now(&decision.changes).unwrap();
}

#[test]
fn one_control_plane_node_at_a_time_has_the_turn_and_nobody_keeps_it_for_ever() {
    let (store, joiners) = cluster(&[2, 3]);
    let (two, three) = (joiners[0].id(), joiners[1].id());
    set(&store, &change("a", json!(1))).unwrap();
    let wait = |name: &str| TurnAnswer::Wait(name.parse().unwrap());
    assert_eq!(turn(&store, two, 0, Duration::ZERO), TurnAnswer::Outdated);
    assert_eq!(turn(&store, two, 1, Duration::ZERO), TurnAnswer::Granted);
    assert_eq!(turn(&store, two, 1, Duration::ZERO), TurnAnswer::Granted, "it is its own");
    assert_eq!(turn(&store, three, 1, Duration::ZERO), wait("node-2"));
    end_turn(&store, three);
    assert_eq!(turn(&store, three, 1, Duration::ZERO), wait("node-2"), "not theirs to end");
    end_turn(&store, two);
    assert_eq!(turn(&store, three, 1, Duration::ZERO), TurnAnswer::Granted);
    // Its machine lost its power.
    assert_eq!(turn(&store, two, 1, TURN_TIME_MAX - Duration::SECOND), wait("node-3"));
    assert_eq!(turn(&store, two, 1, TURN_TIME_MAX), TurnAnswer::Granted);
}

#[test]
fn where_one_could_not_take_them_up_no_other_one_tries_until_they_are_others() {
    let (store, joiners) = cluster(&[2, 3]);
    set(&store, &change("a", json!(1))).unwrap();
    let failed = FailedSettings { revision: SettingsRevision(1), reason: "it\nends".into() };
    let said = AppliedSettings { revision: SettingsRevision(0), failed: Some(failed) };
    let renew = Renew { settings: Some(said), ..sample::renew(vec![]) };
    let message = sample::message(crate::message::Request::Renew(renew));
    say(&store, &message, &joiners[0].caller());
    let (name, reason) = ("node-2".parse().unwrap(), "it ends".to_owned());
    let stopped = TurnAnswer::Stopped { name, reason };
    assert_eq!(turn(&store, joiners[1].id(), 1, Duration::ZERO), stopped);
    // Others may be the remedy: they are tried before they are set.
    let trial = decide_trial_turn(&store.read_now().unwrap(), joiners[1].id(), NOW);
    assert_eq!(trial.outcome, Outcome::Turn(TurnAnswer::Granted));
    // Who failed may try once more: it knows best.
    assert_eq!(turn(&store, joiners[0].id(), 1, Duration::ZERO), TurnAnswer::Granted);
    end_turn(&store, joiners[0].id());
    set(&store, &change("a", json!(2))).unwrap();
    assert_eq!(turn(&store, joiners[1].id(), 2, Duration::ZERO), TurnAnswer::Granted);
}

#[test]
fn a_control_plane_node_must_keep_its_objects_where_the_cluster_does() {
    let store = sample::store();
    sample::add_token(&store, &sample::spec(NodeRole::ControlPlane), 1);
    let record = store.read_now().unwrap();
    let ask = |settings: &ClusterSettings, datastore: Option<&str>| {
        let mut record = record.clone();
        record.settings.value = settings.clone();
        let mut joiner = Joiner::control_plane(1, "alpha");
        joiner.applicant.choices.datastore = datastore.map(str::to_owned);
        let asked = crate::protocol::decide(
            &record,
            &joiner.ask(),
            &Caller::Stranger,
            sample::RELEASE,
            NOW,
        );
        asked.map(drop).map_err(|refusal| refusal.code)
    };
    let own = sample::settings();
    let etcd = ClusterSettings { datastore: Some("https://a:2379".into()), ..own.clone() };
    assert_eq!(ask(&own, None), Ok(()));
    assert_eq!(ask(&etcd, None), Ok(()), "it takes the cluster's over");
    assert_eq!(ask(&etcd, Some("https://a:2379")), Ok(()));
    assert_eq!(ask(&etcd, Some("https://b:2379,https://a:2379")), Ok(()), "one member more");
    for (settings, theirs) in [(&own, "https://a:2379"), (&etcd, "https://b:2379")] {
        assert_eq!(ask(settings, Some(theirs)), Err(RefusalCode::DatastoresDiffer), "{theirs}");
    }
}
