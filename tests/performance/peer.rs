//! The peer: the same kube program as five processes, with etcd and containerd, ordered by
//! readiness.
//!
//! It stands on the very files that our own node would have (identities, configuration of
//! containerd, kubelet and proxy, add-on manifests), and on our flags without those that are our
//! own choice: `CHOICES` lists them, and [`DIFFERENCES`] says in words what is left.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use harness::{Network, NodeOptions, TestNode, distribution, run, target};
use skiff::addon::{Addons, Facts, ImageStore, Settings};
use skiff::config::Config;
use skiff::daemons::Context;
use skiff::distribution::{Distribution, select, stage};
use skiff::host::resolver;
use skiff::kube::ClientSource;
use skiff::node::prepare;
use skiff::paths::Paths;
use skiff_api::EnableRequest;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::processes::Processes;
use crate::start::{self, ASK_PAUSE, START_BOUND, StartTimes};

/// Flags of ours that the peer runs without: upstream's default is what we are measured against.
const CHOICES: &[&str] = &[
    "etcd-servers",
    "etcd-count-metric-poll-period",
    "leader-elect",
    "kube-api-qps",
    "kube-api-burst",
    "controllers",
    "runtime-config",
    "feature-gates",
    "watch-cache",
    "watch-cache-sizes",
    "default-watch-cache-size",
    "goaway-chance",
];

/// What differs, for whoever reads the figures.
pub const DIFFERENCES: &[&str] = &[
    "five processes of the same kube program by upstream's own commands, as root",
    "etcd with its default settings on 127.0.0.1, without TLS",
    "Go's default garbage collection, no supervisor",
    "before the start: components staged, certificates signed, pod network configured",
    "flags: ours, without those that are our own choice (listed below)",
    "the same: files of containerd, kubelet and proxy, certificates, audit policy, add-on dns",
];

const ETCD: &str = "http://127.0.0.1:2379";

pub struct Peer {
    /// First, since it is to end before its place goes.
    processes: Processes,
    pub node: TestNode,
    context: Context,
    build: Distribution,
    etcd: PathBuf,
    _network: Network,
}

impl Peer {
    /// Everything on disk, nothing started.
    pub fn new() -> Result<Self> {
        let etcd = target().join("dist-test/bin/etcd");
        ensure!(etcd.is_file(), "etcd is not built: cargo xtask components --test");
        let network = Network::new();
        let node = TestNode::new(&network, "figures", &NodeOptions::default());
        let paths = Paths::new(node.root());
        let accounts = prepare::ground(&paths)?;
        let (id, build) = stage(&Distribution::open(&distribution())?, &paths.builds())?;
        select(&paths.builds(), &id)?;
        let build = Distribution::open(&build)?;
        let mut config = Config::default();
        config.node.name = Some(node.name().into());
        config.node.address = Some(node.address().parse()?);
        let context = prepare::context(&paths, &config, &build, accounts, None)?;
        let now = OffsetDateTime::now_utc();
        let authorities = prepare::secrets(&context, now)?;
        prepare::leaves(&context, &[], &authorities, now, time::Duration::days(1))?;
        prepare::files(&context)?;
        write_network(&context)?;
        let route = ["route", "replace", &context.service_cidr, "dev", "lo", "src", node.address()];
        let outcome = run(node.command("ip").args(route));
        ensure!(outcome.ok(), "no route to the Services: {}", outcome.stderr);
        let processes = Processes::new(&context);
        Ok(Self { processes, node, context, build, etcd, _network: network })
    }

    pub fn clients(&self) -> ClientSource {
        ClientSource::new(self.context.paths.node().join("admin.kubeconfig"))
    }

    /// Flags of ours that the peer runs without, as they are now.
    pub fn flags_left_out(&self) -> Result<Vec<String>> {
        let mut all = self.flags("kube-control.json")?;
        all.extend(self.flags("kube-node.json")?);
        Ok(all.into_values().flatten().filter(|flag| is_choice(flag)).collect())
    }

    /// Starts each process as soon as what it needs is ready. To be called inside the node's
    /// network namespace, which the processes inherit.
    pub async fn start(&self) -> Result<StartTimes> {
        let control = self.flags("kube-control.json")?;
        let node = self.flags("kube-node.json")?;
        let clients = self.clients();
        let (announce, announced) = oneshot::channel();

        let begun = Instant::now();
        let plane = async {
            self.start_etcd()?;
            etcd_ready().await?;
            self.start_kube("kube-apiserver", &control["apiserver"])?;
            let client = start::api_ready(&clients).await?;
            // Fails only when the other half has failed, which says so itself.
            let _ = announce.send((client, begun.elapsed()));
            self.start_kube("kube-controller-manager", &control["controllerManager"])?;
            self.start_kube("kube-scheduler", &control["scheduler"])?;
            self.enable_dns(&clients).await?;
            start::dns_answers(self.context.dns_address).await?;
            anyhow::Ok(begun.elapsed())
        };
        let machine = async {
            self.start_containerd()?;
            self.runtime_ready().await?;
            let (client, api) = announced.await.context("the control plane failed")?;
            self.start_kube("kubelet", &node["kubelet"])?;
            self.start_kube("kube-proxy", &node["proxy"])?;
            start::node_ready(client).await?;
            anyhow::Ok((api, begun.elapsed()))
        };
        let (dns, (api, ready)) = tokio::select! {
            outcome = async { tokio::try_join!(plane, machine) } => outcome?,
            error = self.processes.first_end() => return Err(error),
        };
        Ok(StartTimes {
            api_s: api.as_secs_f64(),
            ready_s: ready.as_secs_f64(),
            dns_s: dns.as_secs_f64(),
            returned_s: None,
        })
    }

    fn flags(&self, file: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let daemon = file.strip_suffix(".json").context("a file of flags")?;
        let path = self.context.paths.daemon_etc(daemon).join(file);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let all: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text)?;
        let lists = all.into_iter().filter(|(_, value)| value.is_array());
        Ok(lists
            .map(|(name, list)| Ok((name, serde_json::from_value(list)?)))
            .collect::<Result<_, serde_json::Error>>()?)
    }

    fn start_etcd(&self) -> Result<()> {
        let mut command = Command::new(&self.etcd);
        command.arg("--data-dir").arg(self.context.paths.root().join("etcd")).args([
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
        ]);
        self.processes.start("etcd", command)
    }

    fn start_containerd(&self) -> Result<()> {
        let config = self.context.paths.daemon_etc("containerd").join("config.toml");
        let mut command = Command::new(self.build.bin("containerd"));
        command.arg("--config").arg(config);
        self.processes.start("containerd", command)
    }

    fn start_kube(&self, component: &'static str, flags: &[String]) -> Result<()> {
        let mut command = Command::new(self.build.bin("kube"));
        command.arg(component).args(flags.iter().filter(|flag| !is_choice(flag)));
        if component == "kube-apiserver" {
            command.arg(format!("--etcd-servers={ETCD}"));
        }
        self.processes.start(component, command)
    }

    /// containerd answers and holds the images: what our own node waits for.
    async fn runtime_ready(&self) -> Result<()> {
        let socket = self.context.paths.containerd_socket();
        within("containerd", async || Ok(UnixStream::connect(&socket).await.map(drop)?)).await?;
        let store = ImageStore::new(self.build.bin("ctr"), &socket);
        for image in &self.build.images {
            store.ensure(image, self.build.dir()).await?;
        }
        Ok(())
    }

    async fn enable_dns(&self, clients: &ClientSource) -> Result<()> {
        let addons = Addons::new(Settings {
            distribution: self.build.clone(),
            clients: clients.clone(),
            containerd_socket: self.context.paths.containerd_socket(),
        });
        let resolvers = fs::read_to_string(&self.context.resolver).unwrap_or_default();
        let facts = Facts {
            dns_address: self.context.dns_address,
            domain: self.context.domain.clone(),
            pod_cidr: self.context.pod_cidr.clone(),
            service_cidr: self.context.service_cidr.clone(),
            resolvers: resolver::usable(&resolvers),
        };
        addons.enable("dns", &EnableRequest::default(), &facts, &|_| {}).await?;
        Ok(())
    }

    /// Ends everything in order: kubelet, pods, then the others from the top down.
    fn stop(&self) {
        self.processes.stop("kubelet");
        let endpoint = format!("unix://{}", self.context.paths.containerd_socket().display());
        let kube = self.build.bin("kube");
        // Out of reach of another Ctrl-C, as the reset of the node that follows.
        let stop = ["pods", "stop", "--endpoint", &endpoint, "--grace-max", "5s"];
        run(Command::new(kube).args(stop).process_group(0));
        self.processes.stop_all();
    }
}

impl Drop for Peer {
    /// What this leaves (mounts, control groups) goes with the node, which resets its root.
    fn drop(&mut self) {
        if !self.processes.is_empty() {
            self.stop();
        }
    }
}

fn is_choice(flag: &str) -> bool {
    let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
    CHOICES.contains(&name)
}

/// The first network of the pods' range is what the controller manager gives to the first node.
fn write_network(context: &Context) -> Result<()> {
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "skiff",
        "plugins": [
            {
                "type": "bridge", "bridge": context.bridge, "isGateway": true,
                "hairpinMode": true, "ipMasq": true, "ipMasqBackend": "nftables",
                "ipam": {
                    "type": "host-local",
                    "dataDir": context.paths.cni_data(),
                    "ranges": [[{ "subnet": "10.1.0.0/24" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            {
                "type": "portmap", "backend": "nftables", "snat": true,
                "capabilities": { "portMappings": true },
            },
        ],
    });
    let path = context.paths.cni_config().join("10-skiff.conflist");
    fs::write(&path, list.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

async fn etcd_ready() -> Result<()> {
    within("etcd", async || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 2379)).await?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.0 200"), "answers {:?}", answer.lines().next());
        Ok(())
    })
    .await
}

async fn within(what: &str, ask: impl AsyncFn() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > START_BOUND => {
                return Err(error.context(format!("{what} is not ready")));
            }
            Err(_) => sleep(ASK_PAUSE).await,
        }
    }
}
