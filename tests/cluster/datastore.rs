//! Members of the datastore as processes, with the database `cluster`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff::node::cluster::store::RecordStore;
use skiff_datastore::Listen;
use skiff_datastore::member::{pki, report};
use skiff_datastore::probe;
use tempfile::TempDir;

/// Everything that should happen has happened after this, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Member {
    child: Option<Child>,
    peer: u16,
}

/// Some members, of which the others join the first.
pub struct Datastores {
    home: TempDir,
    pub members: Vec<Member>,
}

impl Drop for Datastores {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|number| self.kill(number));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Datastores {
    /// Members that serve; a sole one has no port for others.
    pub async fn start(count: usize) -> Datastores {
        let home = TempDir::new().unwrap();
        pki::make(&home.path().join("pki")).unwrap();
        let members = (0..count).map(|_| Member { child: None, peer: free_port() }).collect();
        let mut datastores = Datastores { home, members };
        (0..count).for_each(|number| datastores.run(number));
        for number in 0..count {
            datastores.wait_for(number).await;
        }
        datastores
    }

    fn path(&self, number: usize, what: &str) -> PathBuf {
        self.home.path().join(format!("{what}-{number}"))
    }

    fn listen(&self, number: usize) -> Listen {
        Listen::Unix(self.path(number, "kube"))
    }

    /// The record as a member serves it.
    pub fn record(&self, number: usize) -> RecordStore {
        RecordStore::at(&self.path(number, "cluster")).unwrap()
    }

    pub fn run(&mut self, number: usize) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skiff"));
        command.arg("datastore").arg("--dir").arg(self.path(number, "data"));
        command.arg("--listen").arg(self.listen(number).to_string());
        let socket = Listen::Unix(self.path(number, "cluster"));
        command.arg("--cluster-listen").arg(socket.to_string());
        if self.members.len() > 1 {
            let address = |member: &Member| format!("127.0.0.1:{}", member.peer);
            command.arg("--peer-listen").arg(address(&self.members[number]));
            command.arg("--pki").arg(self.home.path().join("pki"));
            if number > 0 {
                command.arg("--join").arg(address(&self.members[0]));
            }
        }
        let log = self.path(number, "log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        self.members[number].child =
            Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// kill -9, if it runs.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until a member serves the record.
    pub async fn wait_for(&self, number: usize) {
        let deadline = Instant::now() + PATIENCE;
        while probe(self.path(number, "cluster")).await.is_err() {
            let log = std::fs::read_to_string(self.path(number, "log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "member {number} does not serve: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all members vote.
    pub async fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = report::report(&[self.listen(0)]).await;
            let voters = report.members.iter().filter(|member| member.role == "voter").count();
            if voters == self.members.len() {
                return;
            }
            assert!(Instant::now() < deadline, "not all come to vote: {report:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Who leads, as the members that run say.
    pub async fn leader(&self) -> usize {
        if self.members.len() == 1 {
            return 0;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            for number in (0..self.members.len()).filter(|n| self.members[*n].child.is_some()) {
                let report = report::report(&[self.listen(number)]).await;
                let endpoint = &report.endpoints[0];
                if endpoint.member.is_some() && endpoint.member == endpoint.leader {
                    return number;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
