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
    nodes: Vec<Option<Node>>,
    addresses: Vec<MemberAddress>,
    client: Client,
    _dirs: Vec<TempDir>,
}

impl Cluster {
    /// Starts three nodes; the first leads, the others are added as voters.
    async fn start(name: &str) -> Cluster {
        let numbers = 1..=3;
        let bind = |i| format!("@dqlite-{name}-{}-{i}", std::process::id());
        let address = |i| MemberAddress::new(format!("member-{i}"));
        let known = numbers.clone().fold(LocalConnector::new(), |known, i| {
            known.with(address(i), LocalSocket::parse(bind(i).as_bytes()).expect("a socket's name"))
        });
        let connector = Arc::new(known);
        let dirs: Vec<TempDir> =
            numbers.clone().map(|_| TempDir::new().expect("a temporary directory")).collect();
        let nodes = numbers.clone().zip(&dirs).map(|(i, dir)| {
            let builder = Node::builder(MemberId(i), address(i), dir.path())
                .bind(&bind(i))
                .connector(connector.clone())
                .failure_domain(i)
                .network_latency(Duration::from_millis(20));
            Some(builder.start().expect("node starts"))
        });
        let nodes = nodes.collect();
        let (client, addresses) = (Client::new(connector), numbers.map(address).collect());
        let cluster = Cluster { nodes, addresses, client, _dirs: dirs };
        let mut leader = cluster.leader().await;
        for i in [2, 3] {
            leader.add(MemberId(i), &cluster.addresses[i as usize - 1]).await.expect("it is added");
            leader.assign(MemberId(i), Role::Voter).await.expect("it is promoted");
        }
        cluster
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
