//! Members in network namespaces of their own. Clients reach them by unix
//! sockets, which no namespace divides.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_datastore::Listen;
use skiff_datastore::member::pki;
use skiff_datastore::proto::peer::members_client::MembersClient;
use skiff_datastore::proto::peer::{ListRequest, ListResponse};
use tempfile::TempDir;
use tonic::transport::Channel;

use super::cluster::{PATIENCE, is_voter, program};
use super::wire::{self, Wire};

/// Why these tests can't run here, if so.
pub fn missing() -> Option<&'static str> {
    if !nix::unistd::getuid().is_root() {
        return Some("network namespaces need root");
    }
    if std::fs::metadata(wire::DEVICE).is_err() {
        return Some("the kernel has no TUN devices");
    }
    let ip = Command::new("ip").arg("-V").output();
    if ip.is_ok_and(|output| output.status.success()) { None } else { Some("ip is missing") }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {text}");
}

/// Namespaces with a member in each.
pub struct Network {
    /// What is between them.
    pub wire: Wire,
    home: TempDir,
    name: String,
    children: Vec<Option<Child>>,
    /// What members find in their environment, by host.
    environment: Vec<Vec<(&'static str, PathBuf)>>,
}

impl Drop for Network {
    fn drop(&mut self) {
        (0..self.children.len()).for_each(|host| self.kill(host));
        for host in 0..self.children.len() {
            if std::thread::panicking() || std::env::var_os("SKIFF_TEST_LOGS").is_some() {
                let log = std::fs::read_to_string(self.path(host, "log")).unwrap_or_default();
                eprintln!("--- member {host}\n{log}");
            }
            let _ = Command::new("ip").args(["netns", "delete", &self.host(host)]).output();
        }
    }
}

impl Network {
    /// Running members that all follow one leader, with such links between them.
    pub async fn start(count: usize, delay: Duration, loss_percent: u32) -> Network {
        let mut network = Network::new(count);
        network.wire.set_weather(delay, loss_percent);
        (0..count).for_each(|host| network.start_member(host));
        network.settle(count).await;
        network
    }

    /// Places for members; none runs yet.
    pub fn new(count: usize) -> Network {
        let home = TempDir::new().unwrap();
        pki::make(&home.path().join("pki")).unwrap();
        let name = format!("skds{}", std::process::id());
        let devices: Vec<String> = (0..count).map(|host| format!("{name}h{host}")).collect();
        let wire = Wire::new(&devices);
        let (children, environment) = ((0..count).map(|_| None).collect(), vec![vec![]; count]);
        let network = Network { wire, home, name, children, environment };
        (0..count).for_each(|host| network.add_host(host));
        network
    }

    /// Where a member has its data.
    pub fn data(&self, host: usize) -> PathBuf {
        self.path(host, "data")
    }

    /// Where a member listens for clients.
    pub fn socket(&self, host: usize) -> PathBuf {
        self.path(host, "socket")
    }

    /// What a member finds in its environment from its next start on.
    pub fn set_environment(&mut self, host: usize, variables: Vec<(&'static str, PathBuf)>) {
        self.environment[host] = variables;
    }

    /// What a namespace is called, and the device in it.
    fn host(&self, host: usize) -> String {
        format!("{}h{host}", self.name)
    }

    fn path(&self, host: usize, what: &str) -> PathBuf {
        self.home.path().join(format!("{what}-{host}"))
    }

    /// A namespace of its own, with its end of the wire.
    fn add_host(&self, host: usize) {
        let space = self.host(host);
        ip(&["netns", "add", &space]);
        ip(&["-n", &space, "link", "set", "lo", "up"]);
        ip(&["link", "set", &space, "netns", &space]);
        let address = format!("10.78.0.{}/24", host + 1);
        ip(&["-n", &space, "address", "add", &address, "dev", &space]);
        ip(&["-n", &space, "link", "set", &space, "up"]);
    }

    /// Starts a member's process.
    pub fn start_member(&mut self, host: usize) {
        assert!(self.children[host].is_none(), "it runs");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.host(host))).arg("--").arg(program());
        command.arg("--dir").arg(self.data(host));
        command.arg("--listen").arg(format!("unix:{}", self.socket(host).display()));
        command.arg("--peer-listen").arg(format!("10.78.0.{}:7443", host + 1));
        command.arg("--pki").arg(self.home.path().join("pki"));
        if host > 0 {
            command.args(["--join", "10.78.0.1:7443"]);
        }
        command.envs(self.environment[host].iter().map(|(name, path)| (name, path)));
        let log = self.path(host, "log");
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stderr(log).stdout(Stdio::null()).process_group(0);
        self.children[host] = Some(command.spawn().unwrap());
    }

    /// kill -9, if it runs.
    pub fn kill(&mut self, host: usize) {
        if let Some(mut child) = self.children[host].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether a member has a process, dead or alive.
    pub fn has_process(&self, host: usize) -> bool {
        self.children[host].is_some()
    }

    /// How a member ended by itself, if it did.
    pub fn ended(&mut self, host: usize) -> Option<ExitStatus> {
        let status = self.children[host].as_mut()?.try_wait().unwrap()?;
        self.children[host] = None;
        Some(status)
    }

    /// Sends a signal to a member that runs.
    pub fn signal(&self, host: usize, signal: Signal) {
        let child = self.children[host].as_ref().expect("it runs");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// What all members said.
    pub fn logs(&self) -> String {
        (0..self.children.len()).map(|host| self.log(host)).collect()
    }

    /// What a member said.
    pub fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.path(host, "log")).unwrap_or_default()
    }

    /// A channel to a member's clients' socket.
    pub async fn channel(&self, host: usize) -> Result<Channel, tonic::transport::Error> {
        skiff_datastore::probe::connect(&Listen::Unix(self.socket(host))).await
    }

    /// The members as one sees them, if it answers.
    pub async fn list(&self, host: usize) -> Option<ListResponse> {
        let channel = self.channel(host).await.ok()?;
        Some(MembersClient::new(channel).list(ListRequest {}).await.ok()?.into_inner())
    }

    /// Waits until all members know the leader and all vote.
    pub async fn settle(&self, voters: usize) {
        let deadline = Instant::now() + PATIENCE;
        for host in 0..self.children.len() {
            loop {
                let list = self.list(host).await.unwrap_or_default();
                let votes = list.members.iter().filter(|member| is_voter(member)).count();
                if list.leader != 0 && votes == voters {
                    break;
                }
                assert!(Instant::now() < deadline, "member {host} does not settle: {list:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Which of these members says that it leads.
    pub async fn leader(&self, among: &[usize]) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for host in among {
                let list = self.list(*host).await.unwrap_or_default();
                if list.leader != 0 && list.leader == list.answered_by {
                    return *host;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
