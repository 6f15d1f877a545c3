//! The datastores as processes on loopback, each with a directory of its own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;
use skiff_datastore::proto::{RangeRequest, StatusRequest, StatusResponse};
use skiff_datastore::{Listen, probe};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::object::{PREFIX, PREFIX_END};

/// How long a start may take.
const START_BOUND: Duration = Duration::from_secs(120);
/// How long an orderly end may take.
const STOP_BOUND: Duration = Duration::from_secs(30);
/// Between two looks at whether it serves.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Room for what is not compacted yet; the same for both that know a limit.
const QUOTA_BYTES: u64 = 8 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Skiff,
    Etcd,
    Kine,
}

/// Where the programs are, and where their files may be.
pub struct Programs {
    pub skiff: PathBuf,
    pub etcd: PathBuf,
    pub kine: Option<PathBuf>,
    pub scratch: PathBuf,
}

/// Members of one cluster that run. Ended when dropped.
pub struct Store {
    pub kind: Kind,
    pub members: Vec<Member>,
    _home: TempDir,
}

pub struct Member {
    program: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
    pub port: u16,
    child: Option<Child>,
}

impl Store {
    /// Starts an empty one and waits until every member serves.
    pub async fn start(kind: Kind, programs: &Programs, count: usize) -> Result<Store> {
        let home = TempDir::new_in(&programs.scratch).context("no directory for its files")?;
        let ports: Vec<_> =
            (0..count).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<_>>()?;
        let place = Place { home: home.path(), ports: &ports };
        if kind == Kind::Skiff && count > 1 {
            place.make_identities(&programs.skiff)?;
        }
        let mut members = Vec::new();
        for (number, (port, _)) in ports.iter().copied().enumerate() {
            let dir = place.dir(number);
            fs::create_dir_all(&dir)?;
            let (program, arguments) = match kind {
                Kind::Skiff => (programs.skiff.clone(), place.skiff(number)),
                Kind::Etcd => (programs.etcd.clone(), place.etcd(number)),
                Kind::Kine => match &programs.kine {
                    Some(program) => (program.clone(), place.kine(number)),
                    None => bail!("kine's program was not named"),
                },
            };
            members.push(Member { program, arguments, dir, port, child: None });
        }
        let mut store = Store { kind, members, _home: home };
        for member in &mut store.members {
            member.spawn()?;
        }
        for member in &store.members {
            member.serves().await?;
        }
        Ok(store)
    }

    /// `count` connections, dealt out over the members that run.
    pub async fn channels(&self, count: usize) -> Result<Vec<Channel>> {
        let running: Vec<_> = self.members.iter().filter(|one| one.child.is_some()).collect();
        let mut channels = Vec::new();
        for number in 0..count {
            channels.push(running[number % running.len()].channel().await?);
        }
        Ok(channels)
    }

    /// The position of the leader.
    pub async fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        loop {
            for (position, member) in self.members.iter().enumerate() {
                if let Ok(status) = member.status().await
                    && status.leader != 0
                    && status.header.is_some_and(|header| header.member_id == status.leader)
                {
                    return Ok(position);
                }
            }
            if begun.elapsed() > START_BOUND {
                bail!("nobody leads");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Of all members: what [`Member::usage`] says.
    pub fn usage(&self) -> Usage {
        self.members.iter().map(Member::usage).fold(Usage::default(), |sum, one| Usage {
            resident_bytes: sum.resident_bytes + one.resident_bytes,
            disk_bytes: sum.disk_bytes + one.disk_bytes,
            written_bytes: sum.written_bytes + one.written_bytes,
            cpu_s: sum.cpu_s + one.cpu_s,
        })
    }
}

/// What a process takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub resident_bytes: u64,
    pub disk_bytes: u64,
    /// Since it was started.
    pub written_bytes: u64,
    /// Since it was started.
    pub cpu_s: f64,
}

impl Member {
    /// Starts the process. It may not serve yet.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.with_extension("log"))?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers a linearizable read.
    pub async fn serves(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Ok(channel) = self.channel().await {
                let all = RangeRequest {
                    key: PREFIX.into(),
                    range_end: PREFIX_END.into(),
                    count_only: true,
                    ..Default::default()
                };
                if KvClient::new(channel).range(all).await.is_ok() {
                    return Ok(());
                }
            }
            if begun.elapsed() > START_BOUND {
                let log = fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default();
                bail!("{} does not serve\n{log}", self.program.display());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    pub async fn channel(&self) -> Result<Channel> {
        Ok(probe::connect(&Listen::Tcp(([127, 0, 0, 1], self.port).into())).await?)
    }

    async fn status(&self) -> Result<StatusResponse> {
        let mut client = MaintenanceClient::new(self.channel().await?);
        Ok(client.status(StatusRequest {}).await?.into_inner())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > STOP_BOUND {
                bail!("{} does not end", self.program.display());
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        self.child = None;
        Ok(())
    }

    /// Memory and counters by /proc, disk by the blocks of its files.
    pub fn usage(&self) -> Usage {
        let pid = self.child.as_ref().map_or(0, Child::id);
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let number = |text: &str, name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
        };
        let stat = read("stat");
        let times = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = times.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
        Usage {
            resident_bytes: number(&read("status"), "VmRSS:") * 1024,
            disk_bytes: disk_bytes(&self.dir),
            written_bytes: number(&read("io"), "write_bytes:"),
            cpu_s: ticks as f64 / 100.0,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the members of one cluster are.
struct Place<'a> {
    home: &'a Path,
    /// For clients and for members.
    ports: &'a [(u16, u16)],
}

impl Place<'_> {
    fn dir(&self, number: usize) -> PathBuf {
        self.home.join(format!("member-{number}"))
    }

    fn make_identities(&self, skiff: &Path) -> Result<()> {
        let mut command = Command::new(skiff);
        command.args(["datastore", "pki"]).arg(self.home.join("pki")).stdout(Stdio::null());
        let status = command.status().context("cannot start skiff")?;
        anyhow::ensure!(status.success(), "skiff datastore pki failed");
        Ok(())
    }

    fn skiff(&self, number: usize) -> Vec<String> {
        let (port, peer) = self.ports[number];
        let mut words = vec![
            "datastore".into(),
            format!("--dir={}", self.dir(number).join("data").display()),
            format!("--listen=127.0.0.1:{port}"),
            format!("--quota-backend-bytes={QUOTA_BYTES}"),
        ];
        if self.ports.len() > 1 {
            words.push(format!("--peer-listen=127.0.0.1:{peer}"));
            words.push(format!("--pki={}", self.home.join("pki").display()));
        }
        if number > 0 {
            words.push(format!("--join=127.0.0.1:{}", self.ports[0].1));
        }
        words
    }

    /// Its own defaults, fsync included. Members speak TLS with each other, as ours do, by certificates
    /// that they make themselves.
    fn etcd(&self, number: usize) -> Vec<String> {
        let (port, peer) = self.ports[number];
        let scheme = if self.ports.len() > 1 { "https" } else { "http" };
        let all: Vec<_> = self
            .ports
            .iter()
            .enumerate()
            .map(|(other, (_, peer))| format!("m{other}={scheme}://127.0.0.1:{peer}"))
            .collect();
        vec![
            format!("--name=m{number}"),
            format!("--data-dir={}", self.dir(number).join("data").display()),
            format!("--listen-client-urls=http://127.0.0.1:{port}"),
            format!("--advertise-client-urls=http://127.0.0.1:{port}"),
            format!("--listen-peer-urls={scheme}://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls={scheme}://127.0.0.1:{peer}"),
            "--peer-auto-tls".into(),
            format!("--initial-cluster={}", all.join(",")),
            format!("--quota-backend-bytes={QUOTA_BYTES}"),
        ]
    }

    /// SQLite as kine takes it when it is told nothing else, below the current directory.
    fn kine(&self, number: usize) -> Vec<String> {
        vec![
            format!("--listen-address=tcp://127.0.0.1:{}", self.ports[number].0),
            "--endpoint=sqlite://".into(),
            "--metrics-bind-address=0".into(),
        ]
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
