//! What every store must do, as functions that a test calls with its own.
//!
//! A store that passes may stand below a [`crate::desk::Desk`]. Each case brings an empty store.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Founder, decide_found, decide_set};
use crate::record::{
    API_PORT_DEFAULT, ClusterId, ClusterRecord, ClusterSettings, Fingerprint, MemberRecord,
    MemberState, NodeId, RemovalReason, RemovedRecord, Rest, Revision, RotationRecord,
    SettingsChange, SharedSettings,
};
use crate::store::{Change, Store, StoreError};
use crate::version::Version;

/// Writers in the case of many.
const WRITERS: u64 = 8;
/// What a waiter is given before it is counted as stuck.
const PATIENCE: Duration = Duration::from_secs(10);
const NOW: time::OffsetDateTime = time::OffsetDateTime::UNIX_EPOCH;

/// Runs every case, each on an empty store from `fresh`.
pub async fn run_all<S, F>(fresh: impl Fn() -> F)
where
    S: Store + 'static,
    F: Future<Output = S>,
{
    an_empty_store_has_no_cluster(fresh().await).await;
    what_was_applied_is_read(fresh().await).await;
    a_change_that_expects_something_else_is_refused_whole(fresh().await).await;
    of_two_that_expect_the_same_one_wins(fresh().await).await;
    what_was_deleted_is_gone_and_can_come_anew(fresh().await).await;
    many_writers_lose_no_change(Arc::new(fresh().await)).await;
    settings_that_are_set_at_once_are_all_there(Arc::new(fresh().await)).await;
    a_waiter_is_woken_and_does_not_wait_for_what_has_been(Arc::new(fresh().await)).await;
}

fn settings() -> ClusterSettings {
    let range = |text: &str| vec![text.parse().expect("a range")];
    ClusterSettings {
        cluster: ClusterId("suite".into()),
        pod_cidrs: range("10.1.0.0/16"),
        service_cidrs: range("10.152.183.0/24"),
        dns_domain: "cluster.local".into(),
        dns_address: [10, 152, 183, 10].into(),
        api_names: vec![],
        api_port: API_PORT_DEFAULT,
        authorities: vec![Fingerprint::of(b"authority")],
        datastore: None,
        shared: SharedSettings::default(),
        rotation: RotationRecord::default(),
        rest: Rest::default(),
    }
}

async fn found(store: &impl Store) -> ClusterRecord {
    let founder = Founder {
        name: "first".parse().expect("a name"),
        addresses: vec![[192, 0, 2, 1].into()],
        public_key: b"first".to_vec(),
        release: Version::new(0, 1, 0),
        kubernetes: Version::new(1, 36, 3),
        failure_domain: String::new(),
    };
    let decision = decide_found(&settings(), &founder, NOW).expect("a cluster can be founded");
    store.apply(&decision.changes).await.expect("an empty store takes a cluster");
    store.read().await.expect("a cluster can be read")
}

fn first(record: &ClusterRecord) -> &MemberRecord {
    record.living().next().expect("the first member is there")
}

fn tombstone(key: &[u8]) -> RemovedRecord {
    let (name, role) = (None, None);
    RemovedRecord { id: NodeId::of_key(key), name, role, reason: RemovalReason::Undone, when: NOW }
}

fn is_collision(result: Result<Revision, StoreError>) -> bool {
    matches!(result, Err(StoreError::Collided { .. }))
}

async fn an_empty_store_has_no_cluster(store: impl Store) {
    assert!(matches!(store.read().await, Err(StoreError::NoCluster)));
}

async fn what_was_applied_is_read(store: impl Store) {
    let before = found(&store).await;
    assert_eq!(before.settings.value, settings());
    let leaving = MemberRecord { state: MemberState::Leaving, ..first(&before).clone() };
    let was = before.members.values().next().expect("the first member is there");
    let change = Change::member(leaving.clone(), was);
    let revision = store.apply(&[change]).await.expect("nobody was in between");
    let after = store.read().await.expect("a cluster can be read");
    assert_eq!(first(&after), &leaving);
    assert!(revision > before.revision && after.revision >= revision);
    assert_eq!(after.members.values().next().map(|member| member.revision), Some(revision));
    assert_eq!(after.settings.revision, before.settings.revision, "it was not touched");
}

async fn a_change_that_expects_something_else_is_refused_whole(store: impl Store) {
    let record = found(&store).await;
    let good = Change::PutRemoved { removed: tombstone(b"a"), was: None };
    let stale = Change::DeleteMember { name: first(&record).name.clone(), was: Revision(u64::MAX) };
    assert!(is_collision(store.apply(&[good.clone(), stale]).await));
    let there = Change::PutSettings { settings: Box::new(settings()), was: None };
    assert!(is_collision(store.apply(&[good.clone(), there]).await));
    let missing = Change::DeleteRemoved { id: NodeId::of_key(b"b"), was: Revision(1) };
    assert!(is_collision(store.apply(&[good, missing]).await));
    let after = store.read().await.expect("a cluster can be read");
    assert!(after.removed.is_empty(), "the good half was made");
    assert_eq!(after.members, record.members);
}

async fn of_two_that_expect_the_same_one_wins(store: impl Store) {
    let record = found(&store).await;
    store.apply(&[Change::membership(&record)]).await.expect("nobody was in between");
    assert!(is_collision(store.apply(&[Change::membership(&record)]).await));
}

async fn what_was_deleted_is_gone_and_can_come_anew(store: impl Store) {
    found(&store).await;
    let put = Change::PutRemoved { removed: tombstone(b"a"), was: None };
    let id = NodeId::of_key(b"a");
    let was = store.apply(std::slice::from_ref(&put)).await.expect("it is not there");
    store.apply(&[Change::DeleteRemoved { id, was }]).await.expect("it is there");
    assert!(is_collision(store.apply(&[Change::DeleteRemoved { id, was }]).await));
    let again = store.apply(&[put]).await.expect("it is not there any more");
    assert!(again > was, "a revision came twice");
    assert!(is_collision(store.apply(&[Change::DeleteRemoved { id, was }]).await));
}

async fn many_writers_lose_no_change<S: Store + 'static>(store: Arc<S>) {
    let before = found(&*store).await.membership.value.changes;
    let writer = |store: Arc<S>| async move {
        loop {
            let record = store.read().await.expect("a cluster can be read");
            match store.apply(&[Change::membership(&record)]).await {
                Ok(_) => return,
                Err(StoreError::Collided { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(writer(store.clone()))).collect();
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    let after = store.read().await.expect("a cluster can be read");
    assert_eq!(after.membership.value.changes, before + WRITERS);
}

async fn settings_that_are_set_at_once_are_all_there<S: Store + 'static>(store: Arc<S>) {
    found(&*store).await;
    let writer = |store: Arc<S>, n: u64| async move {
        let change = SettingsChange {
            set: [(format!("key-{n}"), n.into()), ("shared".to_owned(), n.into())].into(),
            ..SettingsChange::default()
        };
        loop {
            let record = store.read().await.expect("a cluster can be read");
            let decision =
                decide_set(&record, &change, &|_| Ok(())).expect("nothing is against it");
            match store.apply(&decision.changes).await {
                Ok(_) => return,
                Err(StoreError::Collided { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(writer(store.clone(), n))).collect();
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    let shared = store.read().await.expect("a cluster can be read").settings.value.shared;
    assert_eq!(shared.revision.0, WRITERS, "each is counted once");
    for n in 0..WRITERS {
        assert_eq!(shared.values.get(&format!("key-{n}")), Some(&n.into()));
    }
    assert!(shared.values.contains_key("shared"), "and one of them came last");
}

async fn a_waiter_is_woken_and_does_not_wait_for_what_has_been<S: Store + 'static>(store: Arc<S>) {
    let record = found(&*store).await;
    let long_ago = store.later_than(Revision(0));
    let latest = tokio::time::timeout(PATIENCE, long_ago).await.expect("it has been");
    assert_eq!(latest.expect("it can be waited for"), record.revision);
    let waiting = {
        let (store, seen) = (store.clone(), record.revision);
        tokio::spawn(async move { store.later_than(seen).await })
    };
    let made = store.apply(&[Change::membership(&record)]).await.expect("nobody was in between");
    let woken = tokio::time::timeout(PATIENCE, waiting).await.expect("nobody woke the waiter");
    assert_eq!(woken.expect("it ends").expect("it can be waited for"), made);
}
