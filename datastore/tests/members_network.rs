//! Members that are cut off from each other. Needs root, for namespaces.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // only what a process needs that is not in a namespace
#[path = "members/cluster.rs"]
mod cluster;
#[path = "members/load.rs"]
mod load;
#[path = "members/network.rs"]
mod network;
#[path = "members/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use cluster::{PATIENCE, get, put};
use load::{Load, check_events, watch_all};
use network::Network;
use skiff_datastore::proto::kv_client::KvClient;

/// Rounds of cutting the leader off: in every test run, and in the long form.
const CUTS: (usize, usize) = (2, 20);

#[tokio::test]
async fn a_leader_that_is_cut_off_answers_nothing_stale_and_loses_nothing() {
    if let Some(reason) = network::missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let network = Network::start(3, Duration::ZERO, 0).await;
    let mut load_channels = Vec::new();
    for host in 0..3 {
        load_channels.push(network.channel(host).await.unwrap());
    }
    let watches: Vec<_> = load_channels.iter().map(|one| watch_all(one.clone(), "end")).collect();
    let load = Load::start("key", load_channels);
    let cuts = if cluster::is_full_form() { CUTS.1 } else { CUTS.0 };
    for round in 0..cuts {
        let old = network.leader(&[0, 1, 2]).await;
        let others: Vec<usize> = (0..3).filter(|host| *host != old).collect();
        network.wire.set_link(old, false);
        let began = Instant::now();
        let mut there = KvClient::new(network.channel(others[0]).await.unwrap());
        let key = format!("fresh-{round}");
        let newest = loop {
            match there.put(put(&key)).await {
                Ok(answer) => break answer.into_inner().header.unwrap().revision,
                Err(status) => assert!(began.elapsed() < PATIENCE, "{status}"),
            }
        };
        println!("round {round}: first write {:?} after the cut", began.elapsed());
        // The old leader still has its clients, and must not answer them from
        // what it knew.
        let mut here = KvClient::new(network.channel(old).await.unwrap());
        match here.range(get(&key)).await {
            Ok(read) => assert_eq!(read.into_inner().kvs[0].mod_revision, newest, "stale"),
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status}"),
        }
        network.wire.set_link(old, true);
        let healed = Instant::now();
        loop {
            match here.range(get(&key)).await {
                Ok(read) => {
                    assert_eq!(read.into_inner().kvs[0].mod_revision, newest);
                    break;
                }
                Err(status) => assert!(healed.elapsed() < PATIENCE, "{status}"),
            }
        }
        println!("round {round}: it answers {:?} after the healing", healed.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let told = load.stop().await;
    KvClient::new(network.channel(0).await.unwrap()).put(put("end")).await.unwrap();
    for watch in watches {
        check_events(&watch.await.unwrap(), &told);
    }
    println!("{} writes, {} failed", told.acknowledged.len(), told.failed.len());
    for host in 0..3 {
        told.check(network.channel(host).await.unwrap()).await;
    }
}
