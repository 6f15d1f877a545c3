//! The peer: the same kube binary as upstream's five programs, each a process of its own, with etcd
//! and containerd. It has the certificates, flags and configuration files that a Skiff node wrote
//! for itself, less what Skiff sets to be small: a garbage collector's percentage, long polls of
//! the store, no leader election.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Network, NodeOptions, TestNode, distribution, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use skiff_supervisor::cgroup::Cgroups;

use crate::client::{connect, inside, is_complete};
use crate::process;
use crate::subject::Subject;

const BOUND: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(20);
/// What a start leaves and the next one must not find.
const STATE: [&str; 5] = ["peer", "containerd", "kubelet", "cni/data", "run/containerd"];
/// Flags that are Skiff's own choice for a small footprint.
const OURS: [&str; 2] = ["--leader-elect=", "--etcd-count-metric-poll-period="];
const ETCD: &str = "http://127.0.0.1:2379";

/// Stopped, until [`Subject::begin`] starts it anew.
pub struct Peer {
    node: TestNode,
    /// Word that names its control groups.
    instance: String,
    /// Objects of the DNS addon as one list.
    dns: PathBuf,
    network_configuration: Vec<u8>,
    flags: Flags,
    children: Mutex<Vec<Child>>,
}

/// Command lines as the node wrote them.
struct Flags {
    control: Value,
    node: Value,
}

impl Flags {
    fn of(&self, table: &Value, component: &str) -> Vec<String> {
        let all = table[component].as_array().cloned().unwrap_or_default();
        let all = all.iter().filter_map(|flag| flag.as_str().map(str::to_owned));
        all.filter(|flag| !OURS.iter().any(|ours| flag.starts_with(ours)))
            .map(|flag| match flag.starts_with("--etcd-servers=") {
                true => format!("--etcd-servers={ETCD}"),
                false => flag,
            })
            .collect()
    }
}

impl Peer {
    /// Lets a Skiff node write everything once, and stops it.
    pub fn prepare(network: &Network) -> Result<Self> {
        eprintln!("==> preparing the peer");
        let node = TestNode::started(network, "alpha", &NodeOptions::default());
        node.enable_dns()?;
        node.kubectl(&[
            "wait",
            "deployment/coredns",
            "--namespace=kube-system",
            "--for=condition=Available",
            "--timeout=120s",
        ])
        .must();
        let etc = node.root().join("etc");
        let read = |path: &str| -> Result<Value> {
            Ok(serde_json::from_slice(&fs::read(etc.join(path))?)?)
        };
        let flags = Flags {
            control: read("kube-control/kube-control.json")?,
            node: read("kube-node/kube-node.json")?,
        };
        let dns = node.root().join("peer-dns.json");
        fs::write(&dns, exported(&node)?)?;
        let network_configuration = fs::read(conflist(&node))?;
        let instance = node.instance();
        node.skiff(&["stop"]).must();
        let children = Mutex::default();
        Ok(Self { node, instance, dns, network_configuration, flags, children })
    }

    fn spawn(&self, name: &str, program: &Path, arguments: &[String]) -> Result<()> {
        let logs = self.root().join("peer/log");
        fs::create_dir_all(&logs)?;
        let log = File::create(logs.join(format!("{name}.log")))?;
        let child = self
            .node
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.children.lock().expect("nobody panics with it").push(child);
        Ok(())
    }

    fn upstream(&self, name: &str, flags: Vec<String>) -> Result<()> {
        let mut arguments = vec!["upstream".to_owned(), name.to_owned()];
        arguments.extend(flags);
        self.spawn(name, &distribution().join("bin/kube"), &arguments)
    }

    fn start_etcd(&self) -> Result<()> {
        let data = self.root().join("peer/etcd");
        let arguments = [
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            "--log-level=warn".into(),
        ];
        self.spawn("etcd", &distribution().with_file_name("dist-test/bin/etcd"), &arguments)
    }

    fn start_containerd(&self) -> Result<()> {
        let config = self.root().join("etc/containerd/config.toml");
        let arguments = ["--config".to_owned(), config.display().to_string()];
        self.spawn("containerd", &distribution().join("bin/containerd"), &arguments)
    }

    /// The same images as a Skiff node imports at its first start.
    fn import_images(&self) -> Result<()> {
        let socket = self.root().join("run/containerd/containerd.sock");
        let ctr = || {
            let mut command = self.node.command(distribution().join("bin/ctr"));
            command.arg("--address").arg(&socket).args(["--namespace", "k8s.io"]);
            command
        };
        wait("containerd", || run(ctr().arg("version")).ok())?;
        for image in ["pause.tar", "coredns.tar"] {
            let archive = distribution().join("images").join(image);
            let outcome = run(ctr().args(["images", "import"]).arg(archive));
            ensure!(outcome.ok(), "{image}: {}", outcome.stderr);
        }
        Ok(())
    }

    fn wait_api_server(&self) -> Result<()> {
        let kubeconfig = self.admin_kubeconfig();
        inside(self, || async move {
            let client = connect(&kubeconfig).await?;
            let begun = Instant::now();
            while !is_complete(&client).await {
                ensure!(begun.elapsed() < BOUND, "the peer's API server does not become ready");
                tokio::time::sleep(RETRY).await;
            }
            Ok(())
        })
    }

    /// For whoever wants to know why it did not work.
    pub fn keep_logs(&self) {
        let place = distribution().with_file_name("test-logs/peer");
        let _ = fs::create_dir_all(&place);
        for log in fs::read_dir(self.root().join("peer/log")).into_iter().flatten().flatten() {
            let _ = fs::copy(log.path(), place.join(log.file_name()));
        }
        eprintln!("logs of the peer are kept in {}", place.display());
    }

    /// Ends everything and leaves nothing that the next start could find.
    pub fn stop(&self) {
        let mut children = std::mem::take(&mut *self.children.lock().expect("nobody panics"));
        for child in children.iter().rev() {
            signal(child.id(), Signal::SIGTERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10)
            && children.iter_mut().any(|child| matches!(child.try_wait(), Ok(None)))
        {
            std::thread::sleep(RETRY);
        }
        // Shims and containers, and whoever was not quick enough.
        for process in process::beneath(self.root()) {
            signal(process.pid, Signal::SIGKILL);
        }
        for mut child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
        std::thread::sleep(Duration::from_millis(500));
        unmount_below(self.root());
        run(self.node.command("nft").args(["flush", "ruleset"]));
        run(self.node.command("ip").args(["link", "delete", "skiff0"]));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_groups(&hierarchy.path().join(&self.instance));
        }
        for directory in STATE {
            let _ = fs::remove_dir_all(self.root().join(directory));
        }
    }
}

impl Subject for Peer {
    fn root(&self) -> &Path {
        self.node.root()
    }

    fn namespace(&self) -> PathBuf {
        Subject::namespace(&self.node)
    }

    fn begin(&self) -> Result<()> {
        for directory in STATE {
            fs::create_dir_all(self.root().join(directory))?;
        }
        fs::write(conflist(&self.node), &self.network_configuration)?;
        let route = ["route", "replace", "10.152.183.0/24", "dev", "lo"];
        run(self.node.command("ip").args(route)).must();
        for group in ["shim", "kubepods"] {
            Cgroups::detect().ensure(&format!("/{}/{group}", self.instance))?;
        }
        self.start_etcd()?;
        self.start_containerd()?;
        wait("etcd", || inside(self, || async { Ok(etcd_is_healthy()) }).unwrap_or(false))?;
        self.upstream("kube-apiserver", self.flags.of(&self.flags.control, "apiserver"))?;
        self.import_images()?;
        self.wait_api_server()?;
        let control = |name| self.flags.of(&self.flags.control, name);
        self.upstream("kube-controller-manager", control("controllerManager"))?;
        self.upstream("kube-scheduler", control("scheduler"))?;
        let node = |name| self.flags.of(&self.flags.node, name);
        self.upstream("kubelet", node("kubelet"))?;
        self.upstream("kube-proxy", node("proxy"))
    }

    fn enable_dns(&self) -> Result<()> {
        let outcome = run(self
            .node
            .command(distribution().join("bin/kube"))
            .args(["kubectl", "create", "--filename"])
            .arg(&self.dns)
            .arg("--kubeconfig")
            .arg(self.admin_kubeconfig()));
        ensure!(outcome.ok(), "dns of the peer: {}", outcome.stderr);
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn conflist(node: &TestNode) -> PathBuf {
    node.root().join("cni/net.d/10-skiff.conflist")
}

/// What the DNS addon applied, as new objects.
fn exported(node: &TestNode) -> Result<Vec<u8>> {
    let kinds = "serviceaccounts,configmaps,services,deployments";
    let mut items = Vec::new();
    for arguments in [
        vec!["get", kinds, "--namespace", "kube-system"],
        vec!["get", "clusterroles,clusterrolebindings", "skiff:coredns"],
    ] {
        let text = node.kubectl(&[arguments, vec!["--output", "json"]].concat()).must();
        let list: Value = serde_json::from_str(&text)?;
        items.extend(list["items"].as_array().cloned().unwrap_or_default());
    }
    items.retain(|item| {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        name.contains("coredns") || name == "kube-dns"
    });
    ensure!(items.len() >= 7, "the DNS addon has {} objects", items.len());
    for item in &mut items {
        let metadata = item["metadata"].as_object_mut().context("an object without metadata")?;
        for made in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
            metadata.remove(made);
        }
        item.as_object_mut().context("an object")?.remove("status");
    }
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items });
    Ok(serde_json::to_vec(&list)?)
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < BOUND, "{what} of the peer does not answer");
        std::thread::sleep(RETRY);
    }
    Ok(())
}

fn etcd_is_healthy() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:2379")?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // Gone already: that is what was wanted.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn unmount_below(root: &Path) {
    let root = root.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let below: Vec<&str> = places.filter(|place| place.starts_with(root.as_ref())).collect();
    for place in below.iter().rev() {
        run(Command::new("umount").args(["--lazy", place]));
    }
}

/// Groups below first; those that are not there are as wanted.
fn remove_groups(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}
