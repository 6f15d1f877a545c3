//! Members whose connections somebody else accepts, and whose nodes a file names.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // what members that come and go need
#[path = "members/cluster.rs"]
mod cluster;

use std::path::Path;
use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, Way, free_port, get, put};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use skiff_datastore::member::nodes::NodeList;
use skiff_datastore::member::tls::{AUTHORITY_FILE, IDENTITY_FILE, MEMBER_NAME};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::peer::{MemberView, Role};
use skiff_doorway::handoff::Handoff;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// What a file with the nodes says, at least so much later.
const FOLLOWED: Duration = Duration::from_millis(1500);
/// Members that could find each other would have by now.
const ALONE: Duration = Duration::from_secs(3);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_lone_store_becomes_one_of_several_keeps_its_data_and_knows_whose_members_they_are() {
    let mut cluster = Cluster::new(4);
    let authority = Authority::new();
    for (number, node) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let pki = cluster.home.path().join(format!("pki-{node}"));
        authority.issue(node, &pki);
        let member = &mut cluster.members[number];
        member.set_pki(&pki);
        member.has_cluster = true;
        agent(member.peer, &member.handoff_socket()).await;
    }
    // Alone, with something in both databases.
    cluster.members[0].way = Way::Alone;
    cluster.members[0].start();
    write(cluster.members[0].kv().await, "kube").await;
    write(KvClient::new(cluster.members[0].cluster_channel().await), "record").await;
    cluster.members[0].stop().await;

    nodes(&cluster, &["a", "b"], &["c"]);
    for (number, node) in ["a", "b", "c", "d"].into_iter().enumerate() {
        cluster.members[number].way = Way::Handed(node);
        cluster.members[number].start();
    }
    for number in 0..3 {
        assert!(has(cluster.members[number].kv().await, "kube").await, "member {number}");
        let record = KvClient::new(cluster.members[number].cluster_channel().await);
        assert!(has(record, "record").await, "member {number}");
    }
    // Whoever is joining does not vote, and two of them make no third.
    wait(&cluster, |members| members.len() == 3 && all(members, |m| m.reachable)).await;
    tokio::time::sleep(FOLLOWED).await;
    wait(&cluster, |members| voters(members) == 1).await;
    nodes(&cluster, &["a", "b", "c"], &[]);
    wait(&cluster, |members| voters(members) == 3).await;
    // Nobody has let d in.
    let log = std::fs::read_to_string(cluster.members[0].log()).unwrap();
    assert!(log.contains("its node is no member"), "{log}");

    // A node that goes is cut off at once, in the middle of a connection.
    nodes(&cluster, &["a", "b"], &[]);
    wait(&cluster, |members| members.iter().any(|member| member.node == "c" && !member.reachable))
        .await;
    write(cluster.members[0].kv().await, "later").await;
    assert!(has(cluster.members[1].kv().await, "later").await);
}

#[tokio::test]
async fn members_that_have_all_moved_at_once_find_each_other_by_one_place() {
    let mut cluster = Cluster::new(3);
    let authority = Authority::new();
    let names = ["a", "b", "c"];
    nodes(&cluster, &names, &[]);
    let mut agents = Vec::new();
    for (member, node) in cluster.members.iter_mut().zip(names) {
        let pki = member.dir().with_file_name(format!("pki-{node}"));
        authority.issue(node, &pki);
        member.set_pki(&pki);
        member.way = Way::Handed(node);
        agents.push(agent(member.peer, &member.handoff_socket()).await);
        member.start();
    }
    cluster.settle(3).await;
    write(cluster.members[1].kv().await, "before").await;

    // All of them are elsewhere, in whatever order they start.
    for (member, agent) in cluster.members.iter_mut().zip(&agents) {
        member.stop().await;
        agent.abort();
        member.peer = free_port();
        self::agent(member.peer, &member.handoff_socket()).await;
    }
    for member in cluster.members.iter_mut().rev() {
        member.start();
    }
    tokio::time::sleep(ALONE).await;
    for member in &cluster.members {
        let seen = member.list().await;
        assert!(!seen.is_ok_and(|list| list.leader != 0), "somebody leads");
    }
    let begun = Instant::now();
    let mut list = NodeList::load(&cluster.home.path().join("nodes.json")).unwrap();
    list.ways.insert(format!("127.0.0.1:{}", cluster.members[1].peer));
    list.store(&cluster.home.path().join("nodes.json")).unwrap();
    cluster.settle(3).await;
    println!("one place was named: {:.1} s later somebody leads", begun.elapsed().as_secs_f64());
    write(cluster.members[2].kv().await, "after").await;
    for key in ["before", "after"] {
        assert!(has(cluster.members[0].kv().await, key).await, "{key}");
    }
}

/// Tries again, as clients do: on a busy machine the leader may just be another one.
async fn write(mut client: KvClient<Channel>, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.put(put(key)).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether the key is there; tries again for the same reason.
async fn has(mut client: KvClient<Channel>, key: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.range(get(key)).await {
            Ok(found) => return found.into_inner().kvs.len() == 1,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn nodes(cluster: &Cluster, members: &[&str], joining: &[&str]) {
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    let list = NodeList { members: set(members), joining: set(joining), ..NodeList::default() };
    list.store(&cluster.home.path().join("nodes.json")).unwrap();
}

fn all(members: &[MemberView], is: impl Fn(&MemberView) -> bool) -> bool {
    members.iter().all(is)
}

fn voters(members: &[MemberView]) -> usize {
    members.iter().filter(|member| member.role() == Role::Voter).count()
}

/// Waits until the first member says so.
async fn wait(cluster: &Cluster, holds: impl Fn(&[MemberView]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = cluster.members[0].list().await;
        if seen.as_ref().is_ok_and(|list| holds(&list.members)) {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Accepts at a port and hands everything over.
async fn agent(port: u16, socket: &Path) -> JoinHandle<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let (handoff, courier) = Handoff::new(socket.to_owned());
    tokio::spawn(courier.run());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = handoff.give(stream);
        }
    })
}

/// Of the nodes' certificates.
struct Authority {
    key: KeyPair,
    params: CertificateParams,
    certificate: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { key, params, certificate }
    }

    /// As a node has it: certificate and key in one file.
    fn issue(&self, node: &str, dir: &Path) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let names = [MEMBER_NAME.to_owned(), format!("{node}.{MEMBER_NAME}")];
        let name = |name: String| SanType::DnsName(name.try_into().unwrap());
        params.subject_alt_names = names.into_iter().map(name).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_params(&self.params, &self.key);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(AUTHORITY_FILE), &self.certificate).unwrap();
        let both = format!("{}{}", leaf.pem(), key.serialize_pem());
        std::fs::write(dir.join(IDENTITY_FILE), both).unwrap();
    }
}
