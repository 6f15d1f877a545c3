//! Members that come and go as real processes: growth, removal, replacement.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // what members need that stay
#[path = "members/cluster.rs"]
mod cluster;
#[allow(dead_code)] // what only a bad network is measured by
#[path = "members/load.rs"]
mod load;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cluster::{Cluster, Member, PATIENCE, get, is_voter, put};
use load::{Load, check_events, watch_all};
use skiff_datastore::proto::peer::{ListResponse, MemberView, Role};
use tonic::Code;

/// They want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until what a member says of the members is as wished.
async fn wait_for(member: &Member, what: &str, is_so: impl Fn(&ListResponse) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = member.list().await;
        if list.as_ref().is_ok_and(&is_so) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} does not come: {list:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn id_of(member: &Member) -> u64 {
    member.list().await.unwrap().answered_by
}

async fn load_on(name: &str, member: &Member) -> Load {
    let channels = [member.channel().await.unwrap(), member.channel().await.unwrap()];
    Load::start(name, channels.to_vec())
}

/// What a member says that ends by itself when it is started.
fn last_words(member: &Member) -> String {
    let output = member.command().stderr(Stdio::piped()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn one_grows_to_five_and_shrinks_to_another_one_without_a_failed_write_or_a_lost_event() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::new(5);
    cluster.members[0].start();
    cluster.settle(1).await;
    let first_load = load_on("first", &cluster.members[0]).await;
    let first_watch = watch_all(cluster.members[0].channel().await.unwrap(), "first-end");
    for position in [1, 2] {
        cluster.members[position].start();
    }
    cluster.settle(3).await;
    // This member stays to the end, whoever comes, goes and leads.
    let load = load_on("second", &cluster.members[1]).await;
    let watch = watch_all(cluster.members[1].channel().await.unwrap(), "end");
    for position in [3, 4] {
        cluster.members[position].start();
    }
    cluster.settle(5).await;
    let first_told = first_load.stop().await;
    cluster.members[0].kv().await.put(put("first-end")).await.unwrap();
    check_events(&first_watch.await.unwrap(), &first_told);
    for (leaving, voters) in [([4, 0], 3), ([3, 2], 1)] {
        for position in leaving {
            let id = id_of(&cluster.members[position]).await;
            cluster.members[1].remove(id).await.unwrap();
            cluster.members[position].wait_for_end().await;
        }
        cluster.settle(voters).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let told = load.stop().await;
    cluster.members[1].kv().await.put(put("end")).await.unwrap();
    let seen = watch.await.unwrap();
    cluster.check_failed(&first_told.failed);
    cluster.check_failed(&told.failed);
    assert!(told.acknowledged.len() > 100, "only {} writes", told.acknowledged.len());
    println!("{} events, longest pause of a writer {:?}", seen.len(), told.longest_pause);
    for told in [&first_told, &told] {
        check_events(&seen, told);
        told.check(cluster.members[1].channel().await.unwrap()).await;
    }
    // A member that was removed does not come back under its old number.
    let text = last_words(&cluster.members[0]);
    assert!(text.contains("was removed from its cluster"), "{text}");
}

#[tokio::test]
async fn a_dead_member_is_replaced_by_a_new_one_under_load() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let other = 3 - leader - follower;
    let load = load_on("key", &cluster.members[follower]).await;
    let watch = watch_all(cluster.members[follower].channel().await.unwrap(), "end");
    let (dead, living) =
        (id_of(&cluster.members[leader]).await, id_of(&cluster.members[other]).await);
    cluster.members[leader].kill();
    cluster.settle(3).await;
    // The two that are left need each other.
    let refused = cluster.members[follower].remove(living).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let new = cluster.add();
    let through = vec![cluster.members[leader].peer, cluster.members[follower].peer];
    cluster.members[new].set_join(through);
    cluster.members[new].start();
    let roles = |list: &ListResponse| -> BTreeMap<u64, i32> {
        list.members.iter().map(|member| (member.id, member.role)).collect()
    };
    wait_for(&cluster.members[follower], "the dead member's replacement", |list| {
        let voters = list.members.iter().filter(|member| is_voter(member)).count();
        voters == 3 && roles(list).get(&dead).is_some_and(|role| *role != i32::from(Role::Voter))
    })
    .await;
    cluster.members[follower].remove(dead).await.unwrap();
    wait_for(&cluster.members[new], "the removal", |list| {
        list.leader != 0 && list.members.len() == 3 && list.members.iter().all(is_voter)
    })
    .await;
    // The new one counts: with it the others survive another death.
    cluster.members[other].kill();
    let mut client = cluster.members[new].kv().await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = client.put(put("replaced")).await {
        assert!(Instant::now() < deadline, "{status}");
    }
    let told = load.stop().await;
    cluster.members[follower].kv().await.put(put("end")).await.unwrap();
    let seen = watch.await.unwrap();
    println!("{} events, {} failed writes", seen.len(), told.failed.len());
    check_events(&seen, &told);
    told.check(cluster.members[new].channel().await.unwrap()).await;
    // Whoever was removed in its absence learns it, and ends.
    cluster.members[leader].start();
    assert!(!cluster.members[leader].wait_for_end().await.success());
    let text = last_words(&cluster.members[leader]);
    assert!(text.contains("was removed from its cluster"), "{text}");
}

#[tokio::test]
async fn a_member_whose_directory_is_gone_comes_back_as_a_new_one() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let position = cluster.follower().await.max(1);
    cluster.members[0].kv().await.put(put("a")).await.unwrap();
    let lost = id_of(&cluster.members[position]).await;
    cluster.members[position].kill();
    std::fs::remove_dir_all(cluster.members[position].dir()).unwrap();
    cluster.members[position].start();
    wait_for(&cluster.members[0], "the new member's vote", |list| {
        let is_lost = |member: &&MemberView| member.id == lost;
        list.members.iter().filter(|member| is_voter(member)).count() == 3
            && list.members.iter().find(is_lost).is_none_or(|member| !is_voter(member))
    })
    .await;
    cluster.members[0].remove(lost).await.unwrap();
    cluster.settle(3).await;
    let read = cluster.members[position].kv().await.range(get("a")).await.unwrap().into_inner();
    assert_eq!(read.kvs.len(), 1);
}

#[tokio::test]
async fn a_spare_serves_and_finds_the_next_leader() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(5).await;
    for _ in 0..3 {
        let new = cluster.add();
        cluster.members[new].start();
    }
    cluster.settle(5).await;
    let of_role = |list: &ListResponse, role: Role| -> Vec<u64> {
        let of_role = list.members.iter().filter(|member| member.role == i32::from(role));
        of_role.map(|member| member.id).collect()
    };
    wait_for(&cluster.members[0], "a pair of stand-bys and a spare", |list| {
        of_role(list, Role::Standby).len() == 2 && of_role(list, Role::Spare).len() == 1
    })
    .await;
    let spare = of_role(&cluster.members[0].list().await.unwrap(), Role::Spare)[0];
    let mut position = 5;
    while id_of(&cluster.members[position]).await != spare {
        position += 1;
    }
    let load = load_on("key", &cluster.members[position]).await;
    let watch = watch_all(cluster.members[position].channel().await.unwrap(), "end");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let leader = cluster.leader().await;
    cluster.members[leader].kill();
    let began = Instant::now();
    let mut client = cluster.members[position].kv().await;
    while let Err(status) = client.put(put("after")).await {
        assert!(began.elapsed() < PATIENCE, "{status}");
    }
    println!("first write through a spare {:?} after the leader's death", began.elapsed());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let told = load.stop().await;
    client.put(put("end")).await.unwrap();
    check_events(&watch.await.unwrap(), &told);
    told.check(cluster.members[position].channel().await.unwrap()).await;
}
#[tokio::test]
async fn a_dead_voter_is_replaced_by_a_standby_and_domains_are_spread() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::new(5);
    for (position, domain) in ["a", "a", "b", "c"].into_iter().enumerate() {
        cluster.members[position].set_domain(domain);
        cluster.members[position].start();
    }
    cluster.settle(3).await;
    let voters = |list: &ListResponse| {
        let voters = list.members.iter().filter(|member| is_voter(member));
        let mut domains: Vec<_> = voters.map(|member| member.failure_domain.clone()).collect();
        domains.sort();
        domains
    };
    let spread = |list: &ListResponse| voters(list) == ["a", "b", "c"];
    wait_for(&cluster.members[0], "a voter in each domain", spread).await;
    cluster.members[3].kill();
    let replaced = |list: &ListResponse| voters(list) == ["a", "a", "b"];
    wait_for(&cluster.members[0], "the dead voter's replacement", replaced).await;
}
