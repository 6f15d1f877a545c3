//! Several members as real processes: killed, stopped, joined, removed.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[path = "members/cluster.rs"]
mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, get, put};

#[tokio::test]
async fn a_put_on_any_member_is_read_on_any_other_at_once() {
    let cluster = Cluster::start(3).await;
    let mut clients = Vec::new();
    for member in &cluster.members {
        clients.push(member.kv().await);
    }
    for round in 0..60 {
        let key = format!("key-{round}");
        let written = clients[round % 3].put(put(&key)).await.unwrap().into_inner();
        let revision = written.header.unwrap().revision;
        let read = clients[(round + 1) % 3].range(get(&key)).await.unwrap().into_inner();
        assert_eq!(read.kvs.len(), 1, "{key} is not seen");
        assert_eq!(read.kvs[0].mod_revision, revision);
    }
}

#[tokio::test]
async fn an_empty_store_is_at_revision_one_on_every_member() {
    let cluster = Cluster::start(3).await;
    for member in &cluster.members {
        let read = member.kv().await.range(get("nothing")).await.unwrap().into_inner();
        assert_eq!(read.header.unwrap().revision, 1);
    }
}

#[tokio::test]
async fn writes_resume_within_a_second_of_the_leaders_death() {
    let mut cluster = Cluster::start(3).await;
    let mut worst = Duration::ZERO;
    for round in 0..5 {
        let follower = cluster.follower().await;
        let leader = cluster.leader().await;
        let mut client = cluster.members[follower].kv().await;
        client.put(put("before")).await.unwrap();
        cluster.members[leader].kill();
        let began = Instant::now();
        let mut failures = 0;
        while let Err(status) = client.put(put(&format!("after-{round}"))).await {
            failures += 1;
            assert!(began.elapsed() < PATIENCE, "{status}");
        }
        let took = began.elapsed();
        eprintln!("round {round}: first write {took:?} after the kill, {failures} failed before");
        worst = worst.max(took);
        cluster.members[leader].start();
        cluster.settle(3).await;
    }
    assert!(worst < Duration::from_secs(1), "{worst:?}");
}
