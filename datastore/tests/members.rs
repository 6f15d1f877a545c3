//! Several members as real processes: killed, stopped, and asked meanwhile.
//!
//! `SKIFF_TEST_MEMBERS=full` runs the long form: twenty kills in a row.
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
use nix::sys::signal::Signal;
use skiff_datastore::proto::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, lease_client::LeaseClient,
};
use tonic::transport::Channel;

/// They measure times and want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Kills of the leader in a row: in every test run, and in the long form.
const KILLS: (usize, usize) = (4, 20);

#[tokio::test]
async fn a_put_on_any_member_is_read_on_any_other_at_once() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(3).await;
    let mut clients = Vec::new();
    for member in &cluster.members {
        clients.push(member.kv().await);
    }
    for client in &mut clients {
        let read = client.range(get("nothing")).await.unwrap().into_inner();
        assert_eq!(read.header.unwrap().revision, 1, "an empty store is at revision 1");
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
async fn members_start_in_any_order_and_carry_on_after_a_kill_of_all() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::new(3);
    cluster.members[2].start();
    cluster.members[1].start();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(cluster.members[2].child.as_mut().unwrap().try_wait().unwrap().is_none());
    cluster.members[0].start();
    cluster.settle(3).await;
    let log = std::fs::read_to_string(cluster.members[2].log()).unwrap();
    let reasons: Vec<_> =
        log.lines().filter_map(|line| Some(line.split_once("not joined yet")?.1)).collect();
    assert!(reasons[0].contains("refused"), "{log}");
    // It asks many times, and the reason may change while the first member starts.
    assert!(
        reasons.windows(2).all(|pair| pair[0] != pair[1]),
        "it says what it waits for once: {log}"
    );
    cluster.members[1].kv().await.put(put("a")).await.unwrap();
    for member in &mut cluster.members {
        member.kill();
    }
    for position in [1, 0, 2] {
        cluster.members[position].start();
    }
    cluster.settle(3).await;
    for member in &cluster.members {
        let read = member.kv().await.range(get("a")).await.unwrap().into_inner();
        assert_eq!(read.kvs.len(), 1);
        assert_eq!(read.header.unwrap().revision, 2);
    }
}

#[tokio::test]
async fn kills_of_the_leader_lose_nothing_and_writes_resume_within_a_second() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let mut times = Vec::new();
    let kills = if cluster::is_full_form() { KILLS.1 } else { KILLS.0 };
    for round in 0..kills {
        let (leader, follower) = (cluster.leader().await, cluster.follower().await);
        let mut client = cluster.members[follower].kv().await;
        client.put(put(&format!("before-{round}"))).await.unwrap();
        let began = Instant::now();
        cluster.members[leader].kill();
        while let Err(status) = client.put(put(&format!("after-{round}"))).await {
            assert!(began.elapsed() < PATIENCE, "{status}");
        }
        times.push(began.elapsed());
        cluster.members[leader].start();
        cluster.settle(3).await;
    }
    times.sort();
    println!("first write after the leader's death: median {:?}, all {times:?}", times[kills / 2]);
    let mut client = cluster.members[0].kv().await;
    for round in 0..kills {
        for key in ["before", "after"] {
            let read = client.range(get(&format!("{key}-{round}"))).await.unwrap().into_inner();
            assert_eq!(read.kvs.len(), 1, "{key}-{round} is lost");
        }
    }
    // Beside a whole test run one of them may wait for the processor.
    let bounded = if cluster::is_full_form() { kills - 1 } else { kills / 2 };
    assert!(times[bounded] < Duration::from_secs(1), "{times:?}");
}

#[tokio::test]
async fn a_watch_on_a_follower_sees_each_revision_once_through_kills_of_the_leader() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    // The member with the watch must live: another one leads at each kill.
    let watched = cluster.follower().await;
    let watch = watch_all(cluster.members[watched].channel().await.unwrap(), "end");
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(cluster.members[watched].channel().await.unwrap());
    }
    let load = Load::start("key", channels);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let leader = cluster.leader().await;
        if leader == watched {
            // Leadership moves away in peace; the watch stays where it is.
            cluster.members[watched].signal(Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            cluster.members[watched].signal(Signal::SIGCONT);
            continue;
        }
        cluster.members[leader].kill();
        tokio::time::sleep(Duration::from_millis(1000)).await;
        cluster.members[leader].start();
        cluster.settle(3).await;
    }
    let told = load.stop().await;
    cluster.members[watched].kv().await.put(put("end")).await.unwrap();
    let seen = watch.await.unwrap();
    assert!(told.acknowledged.len() > 100, "only {} writes", told.acknowledged.len());
    println!("{} events, {} failed: {:?}", seen.len(), told.failed.len(), told.failed);
    check_events(&seen, &told);
    for member in &cluster.members {
        told.check(member.channel().await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_graceful_stop_hands_leadership_over_and_no_write_fails() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut channels = Vec::new();
    for position in (0..3).filter(|position| *position != leader) {
        channels.push(cluster.members[position].channel().await.unwrap());
        channels.push(cluster.members[position].channel().await.unwrap());
    }
    let load = Load::start("key", channels);
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.members[leader].stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let told = load.stop().await;
    cluster.check_failed(&told.failed);
    println!("longest pause of a writer: {:?}", told.longest_pause);
    let follower = cluster.follower().await;
    told.check(cluster.members[follower].channel().await.unwrap()).await;
    let log = std::fs::read_to_string(cluster.members[leader].log()).unwrap();
    assert!(log.contains("leadership is handed over"), "{log}");
}

#[tokio::test]
async fn a_stopped_leader_is_replaced_and_answers_nothing_stale_when_it_wakes() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut before = cluster.members[leader].kv().await;
    before.put(put("a")).await.unwrap();
    cluster.members[leader].signal(Signal::SIGSTOP);
    let mut client = cluster.members[follower].kv().await;
    let revision = loop {
        if let Ok(answer) = client.put(put("a")).await {
            break answer.into_inner().header.unwrap().revision;
        }
    };
    // These wait in its socket until it wakes, when it still believes to lead.
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let mut client = before.clone();
            tokio::spawn(async move { client.range(get("a")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.members[leader].signal(Signal::SIGCONT);
    for read in reads {
        let read = read.await.unwrap().unwrap().into_inner();
        assert!(read.kvs[0].mod_revision >= revision, "a stale read");
    }
}

#[tokio::test]
async fn a_strangers_certificate_is_refused() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::new(2);
    cluster.members[0].start();
    cluster.settle(1).await;
    let stranger = cluster.home.path().join("stranger");
    skiff_datastore::member::pki::make(&stranger).unwrap();
    cluster.members[1].set_pki(&stranger);
    cluster.members[1].start();
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(cluster.members[0].list().await.unwrap().members.len(), 1);
    let log = std::fs::read_to_string(cluster.members[1].log()).unwrap();
    assert!(log.contains("not joined yet") && log.contains("certificate"), "{log}");
    let log = std::fs::read_to_string(cluster.members[0].log()).unwrap();
    assert!(!log.contains(" joined"), "{log}");
}

#[tokio::test]
async fn leases_are_kept_alive_through_any_member_and_outlive_their_leader() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let channel: Channel = cluster.members[follower].channel().await.unwrap();
    let mut leases = LeaseClient::new(channel);
    let granted =
        leases.lease_grant(LeaseGrantRequest { ttl: 3, id: 0 }).await.unwrap().into_inner();
    let key = PutRequest { lease: granted.id, ..put("leased") };
    let mut client = cluster.members[follower].kv().await;
    client.put(key).await.unwrap();
    cluster.members[leader].kill();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let ask = futures::stream::once(async move { LeaseKeepAliveRequest { id: granted.id } });
        let mut answers = leases.lease_keep_alive(ask).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 3);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(client.range(get("leased")).await.unwrap().into_inner().kvs.len(), 1);
    let deadline = Instant::now() + PATIENCE;
    while !client.range(get("leased")).await.unwrap().into_inner().kvs.is_empty() {
        assert!(Instant::now() < deadline, "the lease does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_a_majority_only_serializable_reads_are_answered() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    cluster.members[0].kv().await.put(put("a")).await.unwrap();
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    for position in 0..3 {
        if position != follower {
            cluster.members[position].kill();
        }
    }
    let mut client = cluster.members[follower].kv().await;
    let serializable = RangeRequest { serializable: true, ..get("a") };
    let read = client.range(serializable).await.unwrap().into_inner();
    assert_eq!(read.kvs.len(), 1);
    let refused = client.put(put("b")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    let refused = client.range(get("a")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    cluster.members[leader].start();
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = client.put(put("c")).await {
        assert!(Instant::now() < deadline, "{status}");
    }
}
