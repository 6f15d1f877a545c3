//! A node with DNS and one small pod inside a memory control group, used all the time.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use harness::{Network, NodeOptions, TestNode, skiff_binary};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use skiff::paths::Paths;
use skiff_supervisor::cgroup::Cgroups;

use crate::client::{connect, inside, wait_node_ready};
use crate::figure::{Report, Side, quantile};
use crate::subject::Subject;
use crate::{dns, process};

/// Between two rounds of requests.
const PAUSE: Duration = Duration::from_secs(2);
/// kubectl itself, every so many rounds.
const KUBECTL_EVERY: usize = 5;

#[derive(Args, Debug)]
pub struct Arguments {
    /// How long the node is used
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// What everything of the node may take together, MiB
    #[arg(long, default_value_t = 512)]
    limit: u64,
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: small}\nspec:\n  containers:\n  \
                   - {name: main, image: skiff.local/pause:1.0.0, imagePullPolicy: Never}\n";

pub fn run_soak(arguments: &Arguments) -> Result<Report> {
    let network = Network::new();
    let node = TestNode::new(&network, "alpha", &NodeOptions::default());
    let group = Group::make(node.root(), arguments.limit)?;
    start_inside(&node, &group)?;
    wait_node_ready(&node)?;
    node.enable_dns()?;
    dns::wait_answer(&node)?;
    node.apply(POD);
    node.wait_for("pod/small", "condition=Ready", Duration::from_secs(120));
    let before = group.read();
    eprintln!("==> using it for {} min; {before:?}", arguments.minutes);
    let taken = use_it(&node, Duration::from_secs(arguments.minutes * 60))?;
    let after = group.read();
    let mut report = Report::default();
    process::report_memory(Side::Skiff, &process::beneath(node.root()), &mut report);
    let side = Side::Skiff;
    report.add("API requests", side, taken.len() as f64);
    report.add("API request, p50, ms", side, quantile(&taken, 0.5));
    report.add("API request, p99, ms", side, quantile(&taken, 0.99));
    report.add("OOM kills", side, after.oom_kills as f64);
    report.add("major faults, at start", side, before.major_faults as f64);
    let faults = after.major_faults.saturating_sub(before.major_faults);
    report.add("major faults, in use", side, faults as f64);
    report.add("restarts of daemons and pods", side, restarts(&node)? as f64);
    Ok(report)
}

pub fn run(arguments: &Arguments) -> Result<()> {
    run_soak(arguments)?.print();
    Ok(())
}

/// The control group in which skiffd puts everything of a node, limited before it is used.
struct Group {
    directory: PathBuf,
    unified: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    oom_kills: u64,
    major_faults: u64,
}

impl Group {
    fn make(root: &Path, limit_mib: u64) -> Result<Self> {
        let instance = Paths::new(root).instance();
        Cgroups::detect().ensure(&format!("/{instance}"))?;
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").is_file();
        let (place, file) = match unified {
            true => ("/sys/fs/cgroup", "memory.max"),
            false => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        };
        let directory = Path::new(place).join(instance);
        fs::write(directory.join(file), (limit_mib << 20).to_string())
            .with_context(|| format!("cannot limit {}", directory.display()))?;
        Ok(Self { directory, unified })
    }

    /// Where skiffd itself goes: in version 2 no process may live beside groups.
    fn entrance(&self) -> Result<PathBuf> {
        if !self.unified {
            return Ok(self.directory.join("cgroup.procs"));
        }
        let own = self.directory.join("skiffd");
        fs::create_dir_all(&own)?;
        Ok(own.join("cgroup.procs"))
    }

    fn read(&self) -> Counts {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        match self.unified {
            true => Counts {
                oom_kills: field("memory.events", "oom_kill"),
                major_faults: field("memory.stat", "pgmajfault"),
            },
            false => Counts {
                oom_kills: field("memory.oom_control", "oom_kill"),
                major_faults: field("memory.stat", "total_pgmajfault"),
            },
        }
    }
}

/// The command moves into the group first, and with it the skiffd that it starts.
fn start_inside(node: &TestNode, group: &Group) -> Result<()> {
    let entrance = group.entrance()?;
    let script = format!("echo $$ > {} && exec \"$@\"", entrance.display());
    let mut command: Command = node.command("sh");
    command.args(["-c", &script, "sh"]).arg(skiff_binary()).args(["start", "--timeout", "280"]);
    command.process_group(0);
    let outcome = harness::run(&mut command);
    ensure!(outcome.ok(), "skiff start inside the limit: {}", outcome.stderr);
    Ok(())
}

/// Milliseconds of each request.
fn use_it(node: &TestNode, span: Duration) -> Result<Vec<f64>> {
    let kubeconfig = node.admin_kubeconfig();
    let begun = Instant::now();
    let mut taken = Vec::new();
    let mut round = 0;
    while begun.elapsed() < span {
        let kubeconfig = kubeconfig.clone();
        taken.extend(inside(node, || requests(kubeconfig, round))?);
        if round % KUBECTL_EVERY == 0 {
            node.kubectl(&["get", "pods", "--all-namespaces"]).must();
        }
        round += 1;
        std::thread::sleep(PAUSE);
    }
    Ok(taken)
}

async fn requests(kubeconfig: PathBuf, round: usize) -> Result<Vec<f64>> {
    let api: Api<ConfigMap> = Api::default_namespaced(connect(&kubeconfig).await?);
    let name = format!("soak-{round}");
    let object: ConfigMap = serde_json::from_value(serde_json::json!({
        "metadata": { "name": name }, "data": { "text": "x".repeat(1000) },
    }))?;
    let mut taken = Vec::new();
    let mut clock = Instant::now();
    let mut lap = || {
        taken.push(clock.elapsed().as_secs_f64() * 1000.0);
        clock = Instant::now();
    };
    api.create(&PostParams::default(), &object).await?;
    lap();
    api.get(&name).await?;
    lap();
    api.list(&ListParams::default()).await?;
    lap();
    api.delete(&name, &DeleteParams::default()).await?;
    lap();
    Ok(taken)
}

fn restarts(node: &TestNode) -> Result<u64> {
    let text = node.skiff(&["services", "--output", "json"]).must();
    let services: serde_json::Value = serde_json::from_str(&text)?;
    let of_daemons = services.as_array().into_iter().flatten();
    let of_daemons: u64 = of_daemons.filter_map(|service| service["restarts"].as_u64()).sum();
    let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let text = node.kubectl(&["get", "pods", "--all-namespaces", "--output", path]).must();
    let of_pods: u64 = text.split_whitespace().filter_map(|count| count.parse::<u64>().ok()).sum();
    Ok(of_daemons + of_pods)
}
