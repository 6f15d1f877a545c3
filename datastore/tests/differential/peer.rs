//! A real etcd in a directory of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff_datastore::Listen;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// One of the programs that `cargo xtask components --test` builds.
pub fn program(name: &str) -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let target = tests.ancestors().nth(3).unwrap();
    let program = target.join("dist-test/bin").join(name);
    program.is_file().then_some(program)
}

/// etcd, running until this is dropped.
pub struct Peer {
    child: Child,
    address: String,
    dir: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts etcd with these limits; what it says goes to a file.
    pub async fn start(request_bytes_max: usize) -> Peer {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let mut peer = Peer::spawn(request_bytes_max);
            // Another process may have taken a port meanwhile: then etcd ends.
            while peer.child.try_wait().unwrap().is_none() {
                if skiff_datastore::probe_at(&peer.listen()).await.is_ok() {
                    return peer;
                }
                assert!(Instant::now() < deadline, "etcd does not serve: {}", peer.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(Instant::now() < deadline, "etcd ended: {}", peer.log());
        }
    }

    fn spawn(request_bytes_max: usize) -> Peer {
        let dir = TempDir::new().unwrap();
        let client = format!("127.0.0.1:{}", free_port());
        let peers = format!("http://127.0.0.1:{}", free_port());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program("etcd").expect("the caller looked"))
            .current_dir(dir.path())
            .args(["--name=peer", "--data-dir=data", "--unsafe-no-fsync"])
            .args(["--watch-progress-notify-interval=1s", "--log-level=error"])
            // Alone it need not wait long to lead.
            .args(["--heartbeat-interval=20", "--election-timeout=200"])
            .arg(format!("--max-request-bytes={request_bytes_max}"))
            .arg(format!("--listen-client-urls=http://{client}"))
            .arg(format!("--advertise-client-urls=http://{client}"))
            .arg(format!("--listen-peer-urls={peers}"))
            .arg(format!("--initial-advertise-peer-urls={peers}"))
            .arg(format!("--initial-cluster=peer={peers}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Peer { child, address: client, dir }
    }

    /// Where it listens.
    pub fn listen(&self) -> Listen {
        self.address.parse().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
