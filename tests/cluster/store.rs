//! The record in the datastore is a store, whatever happens to the datastore.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use microcluster::protocol::{Founder, decide_found};
use microcluster::record::{
    ClusterId, ClusterSettings, Fingerprint, Rest, Revision, RotationRecord, SharedSettings,
};
use microcluster::store::{Change, Store, StoreError};
use microcluster::suite;
use microcluster::version::Version;
use skiff::node::cluster::store::RecordStore;
use tokio::task::JoinHandle;

use crate::datastore::{Datastores, PATIENCE};

/// A store, and the daemon behind it.
struct Served {
    store: RecordStore,
    _daemon: Datastores,
}

impl Store for Served {
    async fn read(&self) -> Result<microcluster::record::ClusterRecord, StoreError> {
        self.store.read().await
    }

    async fn apply(&self, changes: &[Change]) -> Result<Revision, StoreError> {
        self.store.apply(changes).await
    }

    async fn later_than(&self, seen: Revision) -> Result<Revision, StoreError> {
        self.store.later_than(seen).await
    }
}

#[tokio::test]
async fn the_datastore_passes_the_suite_of_stores() {
    suite::run_all(|| async {
        let daemon = Datastores::start(1).await;
        Served { store: daemon.record(0), _daemon: daemon }
    })
    .await;
}

/// Founds a cluster.
async fn found(store: &RecordStore) {
    let range = |text: &str| vec![text.parse().unwrap()];
    let settings = ClusterSettings {
        cluster: ClusterId("test".into()),
        pod_cidrs: range("10.1.0.0/16"),
        service_cidrs: range("10.152.183.0/24"),
        dns_domain: "cluster.local".into(),
        dns_address: [10, 152, 183, 10].into(),
        api_names: vec![],
        api_port: 6443,
        authorities: vec![Fingerprint::of(b"authority")],
        datastore: None,
        shared: SharedSettings::default(),
        rotation: RotationRecord::default(),
        rest: Rest::default(),
    };
    let founder = Founder {
        name: "first".parse().unwrap(),
        addresses: vec![[192, 0, 2, 1].into()],
        public_key: b"first".to_vec(),
        release: Version::new(0, 1, 0),
        kubernetes: Version::new(1, 36, 3),
        failure_domain: String::new(),
    };
    let now = time::OffsetDateTime::UNIX_EPOCH;
    let decision = decide_found(&settings, &founder, now).unwrap();
    store.apply(&decision.changes).await.unwrap();
}

/// What a writer was told.
#[derive(Debug, Default)]
struct Told {
    made: u64,
    unknown: u64,
    collided: u64,
    unavailable: u64,
}

/// Counts up by compare-and-set until told to stop.
fn count_up(store: RecordStore, stop: Arc<AtomicBool>) -> JoinHandle<Told> {
    tokio::spawn(async move {
        let mut told = Told::default();
        while !stop.load(Ordering::Relaxed) {
            let result = match store.read().await {
                Ok(record) => store.apply(&[Change::membership(&record)]).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(_) => told.made += 1,
                Err(StoreError::Collided { .. }) => told.collided += 1,
                Err(StoreError::Unknown(_)) => told.unknown += 1,
                Err(StoreError::Unavailable(_)) => {
                    told.unavailable += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        told
    })
}

/// Follows the record until told to stop; the revisions that it was woken for.
fn follow(store: RecordStore, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Revision>> {
    tokio::spawn(async move {
        let mut seen = vec![Revision(0)];
        while !stop.load(Ordering::Relaxed) {
            let last = *seen.last().unwrap();
            let waited = tokio::time::timeout(Duration::from_secs(1), store.later_than(last)).await;
            match waited {
                Ok(Ok(later)) => seen.push(later),
                Ok(Err(StoreError::Unavailable(_))) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => {}
            }
        }
        seen
    })
}

/// Nothing that was answered is lost, and nothing was made that was said not to be.
async fn check(store: &RecordStore, told: &[Told], followed: &[Vec<Revision>]) {
    println!("{told:?}");
    let record = tokio::time::timeout(PATIENCE, store.read()).await.unwrap().unwrap();
    let (mut made, mut unknown) = (0, 0);
    for one in told {
        made += one.made;
        unknown += one.unknown;
    }
    // Founding counts as the first change.
    let changes = record.membership.value.changes;
    let first = changes - made - changes.saturating_sub(made).min(unknown);
    assert!(first <= 1, "{changes} changes where {made} were made and {unknown} unknown");
    assert!(changes >= made, "only {changes} of {made}");
    for seen in followed {
        assert!(seen.is_sorted_by(|one, other| one < other), "{seen:?}");
        assert!(seen.len() > 10, "the waiter slept: {seen:?}");
        assert_eq!(seen.last(), Some(&record.revision), "the waiter missed the end");
    }
}

/// Kills whoever `choose` says, some times, while the record is changed and followed through all.
async fn storm(mut datastores: Datastores, rounds: u32) {
    found(&datastores.record(0)).await;
    let (stop, stop_following) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let all = 0..datastores.members.len();
    let writers: Vec<_> =
        all.clone().map(|number| count_up(datastores.record(number), stop.clone())).collect();
    let followers: Vec<_> =
        all.map(|number| follow(datastores.record(number), Arc::clone(&stop_following))).collect();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let leader = datastores.leader().await;
        datastores.kill(leader);
        tokio::time::sleep(Duration::from_millis(700)).await;
        datastores.run(leader);
        datastores.wait_for(leader).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for writer in writers {
        told.push(writer.await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop_following.store(true, Ordering::Relaxed);
    let mut followed = Vec::new();
    for follower in followers {
        followed.push(follower.await.unwrap());
    }
    for number in 0..datastores.members.len() {
        check(&datastores.record(number), &told, &followed).await;
    }
}

#[tokio::test]
async fn the_record_outlives_kill_9_of_the_only_member() {
    storm(Datastores::start(1).await, 5).await;
}

#[tokio::test]
async fn the_record_of_three_members_outlives_kill_9_of_each_leader() {
    let datastores = Datastores::start(3).await;
    datastores.settle().await;
    storm(datastores, 5).await;
}
