//! Three members in one process, joined by their local sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::{
    Client, Connection, DatabaseName, Error, LocalConnector, LocalSocket, MemberAddress, MemberId,
    NoLeader, Node, Role, params,
};
use tempfile::TempDir;

/// How long an election and a promotion may take here.
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    name: &'static str,
    nodes: Vec<Option<Node>>,
    connector: Arc<LocalConnector>,
    addresses: Vec<MemberAddress>,
    client: Client,
    dirs: Vec<TempDir>,
}

impl Cluster {
    /// Starts three nodes; the first leads, the others are added as voters.
    async fn start(name: &'static str) -> Cluster {
        let cluster = Cluster::of(name, 3);
        let mut leader = cluster.leader().await;
        for i in [2, 3] {
            leader.add(MemberId(i), &cluster.addresses[i as usize - 1]).await.expect("it is added");
            leader.assign(MemberId(i), Role::Voter).await.expect("it is promoted");
        }
        cluster
    }

    /// Starts nodes that do not know each other; the first leads.
    fn of(name: &'static str, count: u64) -> Cluster {
        let numbers = 1..=count;
        let known = numbers.clone().fold(LocalConnector::new(), |known, i| {
            let socket = LocalSocket::parse(bind(name, i).as_bytes()).expect("a socket's name");
            known.with(address(i), socket)
        });
        let connector = Arc::new(known);
        let dirs = numbers.clone().map(|_| TempDir::new().expect("a temporary directory"));
        let mut cluster = Cluster {
            name,
            nodes: Vec::new(),
            client: Client::new(connector.clone()),
            connector,
            addresses: numbers.clone().map(address).collect(),
            dirs: dirs.collect(),
        };
        cluster.nodes = numbers.map(|i| Some(cluster.node(i))).collect();
        cluster
    }

    /// Starts a node on its directory.
    fn node(&self, i: u64) -> Node {
        let builder = Node::builder(MemberId(i), address(i), self.dirs[i as usize - 1].path())
            .bind(&bind(self.name, i))
            .connector(self.connector.clone())
            .failure_domain(i)
            .network_latency(Duration::from_millis(20));
        builder.start().expect("node starts")
    }

    /// A connection to the leader, as soon as there is one.
    async fn leader(&self) -> Connection {
        let began = Instant::now();
        loop {
            match self.client.leader(&self.addresses).await {
                Ok(connection) => return connection,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn leader_id(&self) -> MemberId {
        let known = self.leader().await.leader().await.expect("it answers");
        known.expect("there is one").0
    }
}

fn bind(name: &str, i: u64) -> String {
    format!("@dqlite-{name}-{}-{i}", std::process::id())
}

fn address(i: u64) -> MemberAddress {
    MemberAddress::new(format!("member-{i}"))
}

fn name() -> DatabaseName {
    DatabaseName::new("kube").expect("name is allowed")
}

#[tokio::test]
async fn three_members_replicate_and_hand_leadership_over() {
    let mut cluster = Cluster::start("handover").await;
    let mut leader = cluster.leader().await;
    let members = leader.members().await.unwrap();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member.role == Role::Voter), "{members:?}");
    assert_eq!(leader.describe().await.unwrap().failure_domain, 1);
    leader.open(&name()).await.unwrap();
    leader.exec("CREATE TABLE t (v)", &[]).await.unwrap();
    leader.exec("INSERT INTO t VALUES (?)", &params![1]).await.unwrap();

    // A follower neither opens nor answers.
    let follower = cluster.client.connect(&cluster.addresses[1]).await.unwrap().open(&name()).await;
    assert!(matches!(follower, Err(Error::NotLeader { .. })), "{follower:?}");

    leader.transfer(Some(MemberId(2))).await.unwrap();
    assert_eq!(cluster.leader_id().await, MemberId(2));
    let refused = leader.exec("INSERT INTO t VALUES (2)", &[]).await.unwrap_err();
    assert!(refused.not_executed(), "{refused:?}");
    drop(leader);

    // The leader hands over and stops: the others go on without an election timeout of silence.
    let began = Instant::now();
    let node = cluster.nodes[1].take().unwrap();
    node.handover();
    node.stop().unwrap();
    let mut leader = cluster.leader().await;
    leader.open(&name()).await.unwrap();
    leader.exec("INSERT INTO t VALUES (3)", &[]).await.unwrap();
    eprintln!("written {:?} after the leader was told to stop", began.elapsed());
    let rows = leader.query("SELECT v FROM t ORDER BY v", &[]).await.unwrap();
    let values: Vec<i64> = rows.rows.iter().map(|row| row.integer(0).unwrap()).collect();
    assert_eq!(values, [1, 3]);

    leader.remove(MemberId(2)).await.unwrap();
    assert_eq!(leader.members().await.unwrap().len(), 2);
}

#[tokio::test]
async fn without_a_majority_nobody_is_found_to_lead() {
    let mut cluster = Cluster::start("majority").await;
    let mut leader = cluster.leader().await;
    leader.open(&name()).await.unwrap();
    leader.exec("CREATE TABLE t (v)", &[]).await.unwrap();
    drop((cluster.nodes[1].take(), cluster.nodes[2].take()));
    let error = leader.exec("INSERT INTO t VALUES (1)", &[]).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. } | Error::NotLeader { .. }), "{error:?}");
    let began = Instant::now();
    let NoLeader { tried } = loop {
        match cluster.client.leader(&cluster.addresses).await {
            Err(nobody) => break nobody,
            Ok(_) => assert!(began.elapsed() < PATIENCE, "it still believes that it leads"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(tried.len(), 3, "{tried:?}");
}

/// The first of a pair: with it two vote, so nobody leads without its vote.
#[tokio::test]
async fn a_member_that_did_not_hear_that_it_votes_is_asked_all_the_same() {
    let mut cluster = Cluster::of("unheard", 2);
    let mut leader = cluster.leader().await;
    leader.open(&name()).await.unwrap();
    leader.exec("CREATE TABLE t (v)", &[]).await.unwrap();
    leader.add(MemberId(2), &cluster.addresses[1]).await.unwrap();
    leader.assign(MemberId(2), Role::Standby).await.unwrap();
    // It has everything, and then goes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.nodes[1].take().unwrap().stop().unwrap();
    let assigned = leader.assign(MemberId(2), Role::Voter);
    let assigned = tokio::time::timeout(Duration::from_secs(3), assigned).await;
    assert!(!matches!(assigned, Ok(Ok(()))), "without it nothing can be committed");
    // What was on its way to it is gone with the leader's process.
    drop(leader);
    cluster.nodes[0].take().unwrap().stop().unwrap();
    cluster.nodes[0] = Some(cluster.node(1));
    cluster.nodes[1] = Some(cluster.node(2));
    let mut leader = cluster.leader().await;
    leader.open(&name()).await.unwrap();
    leader.exec("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    let members = leader.members().await.unwrap();
    assert!(members.iter().all(|member| member.role == Role::Voter), "{members:?}");
}
