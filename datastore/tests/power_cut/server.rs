//! A server of etcd's API whose data is on a lossy disk: ours, or etcd itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lossy_disk::Disk;
use skiff_datastore::Listen;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::cluster;
use crate::peer;

/// What is tested, and what tests the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Etcd,
}

/// A place with a disk, and a process while it runs.
pub struct Server {
    kind: Kind,
    pub disk: Disk,
    home: TempDir,
    port: u16,
    child: Option<Child>,
}

/// Room enough for every test: etcd prepares 64 MiB of log at once.
const CAPACITY: u64 = 512 << 20;

impl Server {
    /// Nothing where etcd was not built.
    pub fn new(kind: Kind) -> Option<Server> {
        if kind == Kind::Etcd && peer::program("etcd").is_none() {
            println!("skipped: etcd is not built: cargo xtask components --test");
            return None;
        }
        let home = TempDir::new().unwrap();
        let at = home.path().join("disk");
        std::fs::create_dir(&at).unwrap();
        let disk = Disk::mount(&at, CAPACITY).unwrap();
        Some(Server { kind, disk, home, port: cluster::free_port(), child: None })
    }

    /// Starts the process; a channel to it once it serves.
    pub async fn start(&mut self) -> Channel {
        assert!(self.child.is_none());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let data = self.disk.path().join("data");
        let mut command = match self.kind {
            Kind::Ours => ours(&data, self.port),
            Kind::Etcd => etcd(&data, self.port),
        };
        command.current_dir(self.home.path()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + cluster::PATIENCE;
        let listen = Listen::Tcp(([127, 0, 0, 1], self.port).into());
        loop {
            if skiff_datastore::probe_at(&listen).await.is_ok() {
                return skiff_datastore::probe::connect(&listen).await.unwrap();
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.said());
            assert!(Instant::now() < deadline, "it does not serve\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> std::path::PathBuf {
        self.home.path().join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {:?}\n{}", self.kind, self.said());
        }
    }
}

fn ours(data: &Path, port: u16) -> Command {
    let mut command = Command::new(cluster::program());
    command.arg("--dir").arg(data).arg("--listen").arg(format!("127.0.0.1:{port}"));
    command
}

/// With its default fsync.
fn etcd(data: &Path, port: u16) -> Command {
    let client = format!("http://127.0.0.1:{port}");
    let peers = format!("http://127.0.0.1:{}", cluster::free_port());
    let mut command = Command::new(peer::program("etcd").expect("the caller looked"));
    command
        .arg("--data-dir")
        .arg(data)
        .args(["--name=peer", "--log-level=error"])
        .args(["--heartbeat-interval=20", "--election-timeout=200"])
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peers}"))
        .arg(format!("--initial-advertise-peer-urls={peers}"))
        .arg(format!("--initial-cluster=peer={peers}"));
    command
}
