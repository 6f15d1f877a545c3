//! Members as processes on the loopback interface.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_datastore::Listen;
use skiff_datastore::member::pki;
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::peer::members_client::MembersClient;
use skiff_datastore::proto::peer::{ListRequest, ListResponse, RemoveRequest, Role};
use skiff_datastore::proto::{PutRequest, RangeRequest};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

/// Everything that should happen has happened after this, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Whether the long form was asked for.
pub fn is_full_form() -> bool {
    std::env::var("SKIFF_TEST_MEMBERS").is_ok_and(|form| form == "full")
}

/// One member: its place, and its process while it runs.
pub struct Member {
    pub child: Option<Child>,
    dir: PathBuf,
    pub listen: u16,
    pub peer: u16,
    join: Vec<u16>,
    pki: PathBuf,
    domain: String,
    /// How others come to it from its next start on.
    pub way: Way,
    /// Whether it serves the database `cluster` from its next start on.
    pub has_cluster: bool,
}

/// How others come to a member.
pub enum Way {
    /// There are none.
    Alone,
    Port,
    /// Somebody hands them over, and this is its node; peers are those in `nodes.json`.
    Handed(&'static str),
}

/// Some members with one authority.
pub struct Cluster {
    pub home: TempDir,
    pub members: Vec<Member>,
}

/// Ports below those that the kernel gives to whoever asks for any, connections included.
const PORTS: Range<u32> = 10_000..30_000;

/// A port that nobody has and that this process is given once: between two calls nobody listens at
/// the first one's yet, and the kernel would give it again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run beside each other begin apart.
    let first = std::process::id().wrapping_mul(97);
    loop {
        let next = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + next % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).expect("the range is one of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The daemon under test.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples/standalone")
}

impl Cluster {
    /// Places for `count` members; none runs yet. All but the first join it.
    pub fn new(count: usize) -> Cluster {
        let home = TempDir::new().unwrap();
        pki::make(&home.path().join("pki")).unwrap();
        let mut cluster = Cluster { home, members: Vec::new() };
        for _ in 0..count {
            cluster.add();
        }
        cluster
    }

    /// A place for one more member.
    pub fn add(&mut self) -> usize {
        let number = self.members.len();
        let join = if number == 0 { Vec::new() } else { vec![self.members[0].peer] };
        self.members.push(Member {
            child: None,
            dir: self.home.path().join(format!("member-{number}")),
            listen: free_port(),
            peer: free_port(),
            join,
            pki: self.home.path().join("pki"),
            domain: String::new(),
            way: Way::Port,
            has_cluster: false,
        });
        number
    }

    /// Running members that all follow one leader and have their roles.
    pub async fn start(count: usize) -> Cluster {
        let mut cluster = Cluster::new(count);
        for member in &mut cluster.members {
            member.start();
        }
        cluster.settle(count).await;
        cluster
    }

    /// Waits until every running member serves, knows the leader, and
    /// `voters` vote.
    pub async fn settle(&self, voters: usize) {
        let running = |position: &usize| self.members[*position].child.is_some();
        let running: Vec<usize> = (0..self.members.len()).filter(running).collect();
        self.settle_some(&running, voters).await;
    }

    /// The same for these members.
    pub async fn settle_some(&self, positions: &[usize], voters: usize) {
        let deadline = Instant::now() + PATIENCE;
        for member in positions.iter().map(|position| &self.members[*position]) {
            loop {
                let seen = member.list().await;
                if let Ok(list) = &seen {
                    let votes = |one: &&_| is_voter(one);
                    if list.leader != 0 && list.members.iter().filter(votes).count() == voters {
                        break;
                    }
                }
                assert!(Instant::now() < deadline, "{} does not settle: {seen:?}", member.listen);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// See [`check_failed`].
    pub fn check_failed(&self, failed: &BTreeMap<String, String>) {
        let read = |member: &Member| std::fs::read_to_string(member.log()).unwrap_or_default();
        check_failed(failed, &self.members.iter().map(read).collect::<String>());
    }

    /// The position of the leader, as the members that answer see it.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (position, member) in self.members.iter().enumerate() {
                if member.child.is_none() {
                    continue;
                }
                if let Ok(list) = member.list().await
                    && list.leader != 0
                    && list.leader == list.answered_by
                {
                    return position;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The position of some running member that does not lead.
    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        let running = |position: &usize| self.members[*position].child.is_some();
        (0..self.members.len()).filter(running).find(|position| *position != leader).unwrap()
    }
}

/// No write failed, unless a leader was lost without having given leadership
/// away: on a machine so busy that heartbeats came late.
pub fn check_failed(failed: &BTreeMap<String, String>, logs: &str) {
    // Once for each, whatever databases it has.
    let of_kube = |line: &&str| !line.contains(" cluster: ");
    let lines = logs.lines().filter(of_kube);
    let leaders = lines.filter(|line| line.contains("this member leads epoch=")).count();
    let restarts = logs.matches("this node starts again").count();
    let planned = logs.matches("leadership is handed over").count() + restarts + 1;
    if leaders > planned {
        println!("{leaders} leaders where {planned} were planned: {failed:?}");
        return;
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Whether a member votes.
pub fn is_voter(member: &skiff_datastore::proto::peer::MemberView) -> bool {
    member.role == i32::from(Role::Voter)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in &self.members {
                let text = std::fs::read_to_string(member.log()).unwrap_or_default();
                eprintln!("--- {}\n{text}", member.log().display());
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    /// The command that runs this member.
    pub fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.arg("--dir").arg(&self.dir);
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.listen));
        let address = format!("127.0.0.1:{}", self.peer);
        match self.way {
            Way::Alone => {}
            Way::Port => {
                command.arg("--peer-listen").arg(address);
            }
            Way::Handed(node) => {
                command.arg("--peer-handoff").arg(self.handoff_socket());
                command.arg("--peer-advertise").arg(address);
                command.arg("--peer-node").arg(node);
                command.arg("--peer-nodes").arg(self.dir.with_file_name("nodes.json"));
            }
        }
        if !matches!(self.way, Way::Alone) {
            command.arg("--pki").arg(&self.pki);
        }
        if !self.join.is_empty() {
            let join: Vec<String> =
                self.join.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            command.arg("--join").arg(join.join(","));
        }
        if self.has_cluster {
            command.arg("--cluster-listen").arg(self.cluster_socket().to_string());
        }
        if !self.domain.is_empty() {
            command.arg("--failure-domain").arg(&self.domain);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        command.stderr(log).stdout(Stdio::null());
        command
    }

    /// Where it takes connections over.
    pub fn handoff_socket(&self) -> PathBuf {
        self.dir.with_extension("handoff")
    }

    /// Where it serves the database `cluster`.
    pub fn cluster_socket(&self) -> Listen {
        Listen::Unix(self.dir.with_extension("cluster"))
    }

    /// A channel to that; waits until it is served.
    pub async fn cluster_channel(&self) -> Channel {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match skiff_datastore::probe::connect(&self.cluster_socket()).await {
                Ok(channel) => return channel,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where its words go.
    pub fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Joins through these from the next start on.
    pub fn set_join(&mut self, peers: Vec<u16>) {
        self.join = peers;
    }

    /// Shows another identity from the next start on.
    pub fn set_pki(&mut self, pki: &Path) {
        self.pki = pki.to_owned();
    }

    /// Belongs to a failure domain from the next start on.
    pub fn set_domain(&mut self, domain: &str) {
        self.domain = domain.to_owned();
    }

    /// Starts the process.
    pub fn start(&mut self) {
        assert!(self.child.is_none());
        self.child = Some(self.command().spawn().unwrap());
    }

    /// kill -9, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(pid as i32), signal).unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.wait_for_end().await.success());
    }

    /// Waits until it ends by itself.
    pub async fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A channel to its clients' port.
    pub async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let listen = Listen::Tcp(([127, 0, 0, 1], self.listen).into());
        skiff_datastore::probe::connect(&listen).await
    }

    /// A client; waits until the member serves.
    pub async fn kv(&self) -> KvClient<Channel> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.channel().await {
                Ok(channel) => return KvClient::new(channel),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The members as this one sees them.
    pub async fn list(&self) -> Result<ListResponse, Status> {
        let channel =
            self.channel().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let listed = MembersClient::new(channel).list(ListRequest {}).await;
        listed.map(tonic::Response::into_inner)
    }

    /// Asks this member to remove another.
    pub async fn remove(&self, id: u64) -> Result<(), Status> {
        let channel =
            self.channel().await.map_err(|error| Status::unavailable(error.to_string()))?;
        MembersClient::new(channel).remove(RemoveRequest { id }).await.map(drop)
    }
}

/// A put of a value that is its key.
pub fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: key.to_owned().into(), ..Default::default() }
}

/// A linearizable read of one key.
pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..Default::default() }
}
