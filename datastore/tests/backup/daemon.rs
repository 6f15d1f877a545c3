//! A datastore as a process, and what is done with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::lease_client::LeaseClient;
use skiff_datastore::proto::*;
use skiff_datastore::{KeyRange, Listen, probe};
use tonic::transport::Channel;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running datastore; killed when it is dropped.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    pub channel: Channel,
}

impl Daemon {
    /// Starts one on `dir`; its socket is beside it.
    pub async fn start(dir: &Path) -> Daemon {
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().parent().unwrap().join("examples/standalone");
        let socket = dir.with_extension("socket");
        let child = Command::new(program)
            .arg("--dir")
            .arg(dir)
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Starting { child: Some(child) };
        let deadline = Instant::now() + START_TIMEOUT;
        while probe(&socket).await.is_err() {
            assert!(Instant::now() < deadline, "the datastore does not serve");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let listen = Listen::Unix(socket.clone());
        let channel = skiff_datastore::probe::connect(&listen).await.unwrap();
        Daemon { child: daemon.child.take().unwrap(), socket, channel }
    }

    pub fn listen(&self) -> Listen {
        Listen::Unix(self.socket.clone())
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub async fn put(&self, key: &str, value: &str) -> i64 {
        self.put_leased(key, value, 0).await
    }

    pub async fn put_leased(&self, key: &str, value: &str, lease: i64) -> i64 {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = PutRequest { key, value, lease, ..Default::default() };
        self.kv().put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    pub async fn delete(&self, key: &str) {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv().delete_range(request).await.unwrap();
    }

    pub async fn compact(&self, revision: i64) {
        self.kv().compact(CompactionRequest { revision, physical: true }).await.unwrap();
    }

    pub async fn grant(&self, id: i64, ttl: i64) {
        let mut client = LeaseClient::new(self.channel.clone());
        client.lease_grant(LeaseGrantRequest { id, ttl }).await.unwrap();
    }

    /// The time to live of every lease.
    pub async fn leases(&self) -> Vec<(i64, i64)> {
        let mut client = LeaseClient::new(self.channel.clone());
        let answer = client.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
        let mut leases = Vec::new();
        for LeaseStatus { id } in answer.leases {
            let request = LeaseTimeToLiveRequest { id, keys: false };
            let ttl = client.lease_time_to_live(request).await.unwrap().into_inner().granted_ttl;
            leases.push((id, ttl));
        }
        leases.sort_unstable();
        leases
    }

    /// Every key at `revision`; 0 means the newest.
    pub async fn all(&self, revision: i64) -> RangeResponse {
        let (key, range_end) = KeyRange::all_on_wire();
        let request = RangeRequest { key, range_end, revision, ..Default::default() };
        self.kv().range(request).await.unwrap().into_inner()
    }

    /// Keys that were overwritten, deleted and made again, with leases.
    pub async fn fill(&self, keys: usize) {
        self.grant(7, 600).await;
        self.grant(8, 1200).await;
        for number in 0..keys {
            let key = format!("/registry/key{number:05}");
            let value = format!("{number}").repeat(1 + number % 400);
            let lease = [0, 0, 7, 8][number % 4];
            self.put_leased(&key, &value, lease).await;
            if number % 3 == 0 {
                self.put(&key, &value).await;
            }
            if number % 5 == 0 {
                self.delete(&key).await;
            }
            if number % 10 == 0 {
                self.put(&key, "again").await;
            }
        }
    }
}

struct Starting {
    child: Option<Child>,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
