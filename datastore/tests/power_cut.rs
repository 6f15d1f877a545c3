//! Acknowledged means synced: on a disk that loses what was not. Needs root and
//! /dev/fuse. The same rounds run against etcd, and on a disk that lies about
//! its syncs, where they must find a loss.
//!
//! `SKIFF_TEST_POWER_CUTS=full` runs the long form: forty cuts each.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // what members that come and go need
#[path = "members/cluster.rs"]
mod cluster;
#[allow(dead_code)] // what only a bad network is measured by
#[path = "members/load.rs"]
mod load;
#[allow(dead_code)] // an etcd on a disk of its own
#[path = "differential/peer.rs"]
mod peer;
#[path = "power_cut/server.rs"]
mod server;

use std::time::Duration;

use cluster::{Cluster, get, put};
use load::{Load, Told};
use lossy_disk::{Disk, Faults, Loss};
use server::{Kind, Server};
use skiff_datastore::proto::kv_client::KvClient;
use tonic::transport::Channel;

/// They want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Power cuts in a row: in every test run, and in the long form.
const CUTS: (u64, u64) = (4, 40);
/// Writers at once.
const WRITERS: usize = 16;
/// Writes one after the other whose syncs are counted.
const COUNTED: u64 = 200;

fn cuts() -> u64 {
    let full = std::env::var("SKIFF_TEST_POWER_CUTS").is_ok_and(|form| form == "full");
    if full { CUTS.1 } else { CUTS.0 }
}

/// Why these tests can't run here, if so.
fn is_missing() -> bool {
    let missing = !nix::unistd::getuid().is_root() || std::fs::metadata("/dev/fuse").is_err();
    if missing {
        eprintln!("skipped: a file system in user space needs root and /dev/fuse");
    }
    missing
}

/// Every second cut tears what was not synced instead of losing all of it.
fn loss(round: u64) -> Loss {
    if round.is_multiple_of(2) { Loss::All } else { Loss::Torn(round) }
}

/// Writes until the power fails; what was acknowledged in all rounds.
async fn cut_again_and_again(server: &mut Server, rounds: u64) -> Told {
    let mut all = Told::default();
    for round in 0..rounds {
        let channel = server.start().await;
        let load = Load::start(&format!("round-{round}"), vec![channel; WRITERS]);
        while load.written() < 100 * (round % 3 + 1) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        server.kill();
        let told = load.stop().await;
        server.disk.power_cut(loss(round)).unwrap();
        all.acknowledged.extend(told.acknowledged);
    }
    all
}

async fn survives(kind: Kind) {
    let Some(mut server) = Server::new(kind) else { return };
    if kind == Kind::Etcd {
        // etcd 3.7.3 does not make the names of its first directories durable.
        server.start().await;
        server.kill();
        server.disk.sync_all();
    }
    let told = cut_again_and_again(&mut server, cuts()).await;
    println!("{kind:?}: {} writes were acknowledged", told.acknowledged.len());
    told.check(server.start().await).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_power_cuts() {
    let _turn = TURN.lock().await;
    if is_missing() {
        return;
    }
    survives(Kind::Ours).await;
}

#[tokio::test]
async fn etcd_passes_the_same_power_cuts() {
    let _turn = TURN.lock().await;
    if is_missing() {
        return;
    }
    survives(Kind::Etcd).await;
}

#[tokio::test]
async fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let _turn = TURN.lock().await;
    if is_missing() {
        return;
    }
    let mut server = Server::new(Kind::Ours).unwrap();
    let mut client = KvClient::new(server.start().await);
    client.put(put("before")).await.unwrap();
    server.disk.set_faults(Faults { ignore_syncs: true, ..Faults::default() });
    client.put(put("after")).await.unwrap();
    server.kill();
    server.disk.power_cut(Loss::All).unwrap();
    server.disk.set_faults(Faults::default());
    let mut client = KvClient::new(server.start().await);
    let found = |client: &mut KvClient<Channel>, key: &str| {
        let (mut client, request) = (client.clone(), get(key));
        async move { client.range(request).await.unwrap().into_inner().kvs.len() }
    };
    assert_eq!(found(&mut client, "before").await, 1);
    assert_eq!(found(&mut client, "after").await, 0, "the disk did not lose what it should");
}

/// How many syncs so many writes took that waited for each other.
async fn count_syncs(kind: Kind) -> Option<u64> {
    let mut server = Server::new(kind)?;
    let mut client = KvClient::new(server.start().await);
    client.put(put("first")).await.unwrap();
    let before = server.disk.counts();
    for number in 0..COUNTED {
        client.put(put(&format!("key-{number}"))).await.unwrap();
    }
    let after = server.disk.counts();
    let syncs = after.syncs - before.syncs;
    let bytes = after.written_bytes - before.written_bytes;
    println!("{kind:?}: {syncs} syncs, {bytes} bytes for {COUNTED} writes one after the other");
    Some(syncs)
}

#[tokio::test]
async fn each_write_that_is_waited_for_is_synced_as_etcd_does() {
    let _turn = TURN.lock().await;
    if is_missing() {
        return;
    }
    let ours = count_syncs(Kind::Ours).await.unwrap();
    assert!(ours >= COUNTED, "{ours} syncs for {COUNTED} writes");
    if let Some(etcd) = count_syncs(Kind::Etcd).await {
        assert!(etcd >= COUNTED, "etcd: {etcd} syncs for {COUNTED} writes");
    }
}

/// Three members, each with a disk of its own.
async fn members_with_disks() -> (Cluster, Vec<Disk>) {
    let mut cluster = Cluster::new(3);
    let mut disks = Vec::new();
    for member in &mut cluster.members {
        std::fs::create_dir(member.dir()).unwrap();
        disks.push(Disk::mount(member.dir(), 256 << 20).unwrap());
        member.start();
    }
    cluster.settle(3).await;
    (cluster, disks)
}

#[tokio::test]
async fn a_power_cut_of_all_members_at_once_loses_nothing_acknowledged() {
    let _turn = TURN.lock().await;
    if is_missing() {
        return;
    }
    let (mut cluster, mut disks) = members_with_disks().await;
    let mut all = Told::default();
    for round in 0..cuts() / 2 {
        let mut channels = Vec::new();
        for position in 0..WRITERS {
            channels.push(cluster.members[position % 3].channel().await.unwrap());
        }
        let load = Load::start(&format!("round-{round}"), channels);
        while load.written() < 200 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        for member in &mut cluster.members {
            member.kill();
        }
        all.acknowledged.extend(load.stop().await.acknowledged);
        for (disk, member) in disks.iter_mut().zip(&mut cluster.members) {
            disk.power_cut(loss(round)).unwrap();
            member.start();
        }
        cluster.settle(3).await;
    }
    println!("{} writes were acknowledged", all.acknowledged.len());
    for member in &cluster.members {
        all.check(member.channel().await.unwrap()).await;
    }
    drop(cluster);
}

#[tokio::test]
async fn a_member_whose_power_fails_alone_comes_back_and_nothing_is_lost() {
    let _turn = TURN.lock().await;
    if is_missing() {
        return;
    }
    let (mut cluster, mut disks) = members_with_disks().await;
    let mut all = Told::default();
    for round in 0..cuts() {
        let victim = match round % 2 {
            0 => cluster.leader().await,
            _ => cluster.follower().await,
        };
        let other = (victim + 1) % 3;
        let channel = cluster.members[other].channel().await.unwrap();
        let load = Load::start(&format!("round-{round}"), vec![channel; WRITERS]);
        while load.written() < 200 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        cluster.members[victim].kill();
        disks[victim].power_cut(loss(round)).unwrap();
        let so_far = load.written();
        while load.written() < so_far + 200 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        cluster.members[victim].start();
        cluster.settle(3).await;
        all.acknowledged.extend(load.stop().await.acknowledged);
    }
    for member in &cluster.members {
        all.check(member.channel().await.unwrap()).await;
    }
    drop(cluster);
}
