//! Members that are cut off from each other. Needs root, for namespaces.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // only what a process needs that is not in a namespace
#[path = "members/cluster.rs"]
mod cluster;
#[path = "members/load.rs"]
mod load;
#[allow(dead_code)] // what members that fail need
#[path = "members/network.rs"]
mod network;
#[path = "members/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use cluster::{PATIENCE, get, put};
use load::{Load, check_events, watch_all};
use network::Network;
use skiff_datastore::proto::StatusRequest;
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;

/// They measure times and want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Rounds of cutting the leader off: in every test run, and in the long form.
const CUTS: (usize, usize) = (2, 20);

#[tokio::test]
async fn a_leader_that_is_cut_off_answers_nothing_stale_and_loses_nothing() {
    let _turn = TURN.lock().await;
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

/// Chance is at work, and needs minutes to be just.
fn not_full_form() -> Option<&'static str> {
    (!cluster::is_full_form()).then_some("only in the long form: make soak")
}

/// The latency setting of each member, in milliseconds.
async fn latencies(network: &Network) -> Vec<u64> {
    let list = network.list(0).await.unwrap_or_default();
    list.members.iter().map(|member| member.latency_us / 1000).collect()
}

/// How often the store was claimed.
async fn epoch(network: &Network) -> u64 {
    let mut epoch = 0;
    for host in 0..3 {
        let mut client = MaintenanceClient::new(network.channel(host).await.unwrap());
        epoch = epoch.max(client.status(StatusRequest {}).await.unwrap().into_inner().raft_term);
    }
    epoch
}

async fn wait_for_latencies(network: &Network, least_ms: u64) {
    let began = Instant::now();
    loop {
        let ms = latencies(network).await;
        if ms.len() == 3 && ms.iter().all(|ms| *ms >= least_ms) {
            println!("timeouts suit the network after {:?}: {ms:?} ms", began.elapsed());
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{ms:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn members_meet_a_slower_network_one_by_one_and_no_write_fails() {
    let _turn = TURN.lock().await;
    if let Some(reason) = network::missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    // A network that was slow from the beginning: 80 ms to and fro.
    let network = Network::start(3, Duration::from_millis(40), 0).await;
    wait_for_latencies(&network, 100).await;
    let mut channels = Vec::new();
    for host in 0..3 {
        channels.push(network.channel(host).await.unwrap());
    }
    let watches: Vec<_> = channels.iter().map(|one| watch_all(one.clone(), "end")).collect();
    let load = Load::start("key", channels);
    tokio::time::sleep(Duration::from_secs(1)).await;
    network.wire.set_weather(Duration::from_millis(250), 0);
    wait_for_latencies(&network, 400).await;
    let told = load.stop().await;
    KvClient::new(network.channel(0).await.unwrap()).put(put("end")).await.unwrap();
    for watch in watches {
        check_events(&watch.await.unwrap(), &told);
    }
    println!("{} writes, longest pause {:?}", told.acknowledged.len(), told.longest_pause);
    cluster::check_failed(&told.failed, &network.logs());
    told.check(network.channel(0).await.unwrap()).await;
}

#[tokio::test]
async fn delay_and_loss_between_members_lose_no_write_and_hardly_a_leader() {
    let _turn = TURN.lock().await;
    if let Some(reason) = network::missing().or_else(not_full_form) {
        eprintln!("skipped: {reason}");
        return;
    }
    let network = Network::start(3, Duration::ZERO, 0).await;
    let mut watches = Vec::new();
    for host in 0..3 {
        watches.push(watch_all(network.channel(host).await.unwrap(), "end"));
    }
    let mut channels = Vec::new();
    for host in 0..3 {
        channels.push(network.channel(host).await.unwrap());
    }
    let load = Load::start("key", channels);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ms = latencies(&network).await;
    assert!(ms.iter().all(|ms| *ms < 100), "{ms:?}");
    network.wire.set_weather(Duration::from_millis(300), 20);
    let began = Instant::now();
    wait_for_latencies(&network, 200).await;
    let written = load.written();
    while load.written() == written {
        assert!(began.elapsed() < PATIENCE * 3, "nothing is written");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("first write {:?} after it became one", began.elapsed());
    let (before, written) = (epoch(&network).await, load.written());
    let looked = 300;
    tokio::time::sleep(Duration::from_secs(looked)).await;
    let changes = epoch(&network).await - before;
    let written = load.written() - written;
    println!("{written} writes and {changes} changes of the leader in {looked} s of it");
    assert!(written > 0, "nothing was written");
    assert!(changes <= 1 + looked / 60, "{changes} leaders in {looked} s");
    network.wire.set_weather(Duration::ZERO, 0);
    let told = load.stop().await;
    let mut client = KvClient::new(network.channel(0).await.unwrap());
    let healed = Instant::now();
    while let Err(status) = client.put(put("end")).await {
        assert!(healed.elapsed() < PATIENCE, "{status}");
    }
    for watch in watches {
        check_events(&watch.await.unwrap(), &told);
    }
    for host in 0..3 {
        told.check(network.channel(host).await.unwrap()).await;
    }
}
