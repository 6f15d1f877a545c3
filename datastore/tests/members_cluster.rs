//! Both databases among several members.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // what members that come and go need
#[path = "members/cluster.rs"]
mod cluster;
#[allow(dead_code)] // what only a bad network is measured by
#[path = "members/load.rs"]
mod load;

use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, get, put};
use load::{Load, check_events, watch_all};
use skiff_datastore::probe_at;
use skiff_datastore::proto::RangeRequest;
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::recovery::{Options, Recovery};
use tonic::transport::Channel;

/// They want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Running members, of which those at `with` serve the second database.
async fn start(count: usize, with: &[usize]) -> Cluster {
    let mut cluster = Cluster::new(count);
    for (position, member) in cluster.members.iter_mut().enumerate() {
        member.has_cluster = with.contains(&position);
        member.start();
    }
    cluster.settle(count).await;
    cluster
}

async fn record(cluster: &Cluster, position: usize) -> KvClient<Channel> {
    KvClient::new(cluster.members[position].cluster_channel().await)
}

/// A put that waits out changes of the leader.
async fn put_patiently(client: &mut KvClient<Channel>, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = client.put(put(key)).await {
        assert!(Instant::now() < deadline, "{status}");
    }
}

#[tokio::test]
async fn both_databases_go_on_through_kills_of_the_leader_and_a_follower_watches() {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, &[0, 1, 2]).await;
    // The member with the watch must live: another one leads at each kill.
    let watched = cluster.follower().await;
    let channel = cluster.members[watched].cluster_channel().await;
    let watch = watch_all(channel.clone(), "end");
    let kube = cluster.members[watched].channel().await.unwrap();
    let loads = [
        Load::start("object", vec![kube.clone(), kube.clone()]),
        Load::start("member", vec![channel.clone(), channel.clone()]),
    ];
    let mut kills = 0;
    while kills < 4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        let leader = cluster.leader().await;
        if leader == watched {
            break;
        }
        cluster.members[leader].kill();
        kills += 1;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.members[leader].start();
        cluster.settle(3).await;
    }
    let [objects, members] = loads;
    let (objects, members) = (objects.stop().await, members.stop().await);
    put_patiently(&mut KvClient::new(channel), "end").await;
    let seen = watch.await.unwrap();
    check_events(&seen, &members);
    println!(
        "{kills} kills; kube: {} acknowledged, longest pause {:?}; cluster: {}, {:?}, {} events",
        objects.acknowledged.len(),
        objects.longest_pause,
        members.acknowledged.len(),
        members.longest_pause,
        seen.len(),
    );
    assert!(objects.acknowledged.len() > 100 && members.acknowledged.len() > 100);
    for member in &cluster.members {
        objects.check(member.channel().await.unwrap()).await;
        members.check(member.cluster_channel().await).await;
        let one = objects.acknowledged.keys().next().unwrap();
        let mut client = KvClient::new(member.cluster_channel().await);
        let found = client.range(get(one)).await.unwrap().into_inner();
        assert!(found.kvs.is_empty(), "{one} is in the wrong database");
    }
}

#[tokio::test]
async fn a_put_on_any_member_is_read_on_any_other_at_once() {
    let _turn = TURN.lock().await;
    let cluster = start(3, &[0, 1, 2]).await;
    for round in 0..30 {
        let (writer, reader) = (round % 3, (round + 1 + round / 3 % 2) % 3);
        let key = format!("key-{round}");
        record(&cluster, writer).await.put(put(&key)).await.unwrap();
        let found = record(&cluster, reader).await.range(get(&key)).await.unwrap().into_inner();
        assert_eq!(found.kvs.len(), 1, "{key} by {writer} is not there on {reader}");
    }
}

#[tokio::test]
async fn a_leader_without_the_database_does_no_harm_and_gives_way_to_one_with_it() {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, &[1, 2]).await;
    assert_eq!(cluster.leader().await, 0, "the first member leads");
    let mut kube = cluster.members[1].kv().await;
    kube.put(put("object")).await.unwrap();
    for position in [1, 2] {
        let socket = cluster.members[position].cluster_socket();
        assert!(probe_at(&socket).await.is_err(), "it serves what nobody leads");
    }
    cluster.members[0].stop().await;
    put_patiently(&mut record(&cluster, 1).await, "member").await;
    let found = record(&cluster, 2).await.range(get("member")).await.unwrap().into_inner();
    assert_eq!((found.kvs.len(), found.header.unwrap().revision), (1, 2));
    let everything =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let found = kube.range(everything).await.unwrap().into_inner();
    assert_eq!(found.kvs.len(), 1, "what is the cluster's went to kube: {found:?}");
    // It comes back as it was; whoever leads hands over to the other that serves both.
    cluster.members[0].start();
    cluster.settle(3).await;
    let leader = cluster.leader().await;
    assert_ne!(leader, 0);
    cluster.members[leader].stop().await;
    let heir = 3 - leader;
    put_patiently(&mut record(&cluster, heir).await, "again").await;
    assert_eq!(cluster.leader().await, heir);
}

#[tokio::test]
async fn a_recovery_keeps_both_databases() {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, &[0, 1, 2]).await;
    cluster.members[0].kv().await.put(put("object")).await.unwrap();
    for key in ["one", "two"] {
        record(&cluster, 1).await.put(put(key)).await.unwrap();
    }
    let survivor = cluster.follower().await;
    // Its log has both when it was read through it.
    record(&cluster, survivor).await.range(get("two")).await.unwrap();
    cluster.members.iter_mut().for_each(cluster::Member::kill);
    let options = Options {
        dir: cluster.members[survivor].dir().to_owned(),
        pki: None,
        also: Vec::new(),
        ways: Vec::new(),
        stamp: "now".to_owned(),
    };
    let recovery = Recovery::look(options).await.unwrap();
    let found = recovery.found().cluster.unwrap();
    assert_eq!((found.revision, found.keys), (3, 2));
    recovery.finish(1000).await.unwrap();
    cluster.members[survivor].set_join(Vec::new());
    cluster.members[survivor].start();
    cluster.settle_some(&[survivor], 1).await;
    let found = record(&cluster, survivor).await.range(get("two")).await.unwrap().into_inner();
    assert_eq!((found.kvs.len(), found.header.unwrap().revision), (1, 1003));
    let mut kube = cluster.members[survivor].kv().await;
    assert_eq!(kube.range(get("object")).await.unwrap().into_inner().kvs.len(), 1);
}
