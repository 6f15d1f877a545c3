//! A node with DNS and a small pod in little memory, while somebody uses kubectl.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use harness::{Network, NodeOptions, Series, TestNode, distribution, target, test_image};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde::Serialize;
use serde_json::json;
use skiff::kube::ClientSource;
use skiff::paths::Paths;
use tokio::time::{sleep, timeout};

use crate::group::{Counts, MemoryGroup};
use crate::namespace::{inside, is_interrupted};
use crate::report::{machine, mib};

const START_TIMEOUT_S: u64 = 600;
/// Between two uses of kubectl.
const USE_PAUSE: Duration = Duration::from_secs(3);
/// One use that takes longer counts as failed.
const USE_BOUND: Duration = Duration::from_secs(60);
/// How often the state is said while it runs.
const SAY_EVERY: Duration = Duration::from_secs(60);

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// How long the node lives
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// What everything that Skiff runs may take together
    #[arg(long, default_value_t = 512)]
    memory_mib: u64,
    /// Also write everything that was measured to target/bench/soak.json
    #[arg(long)]
    output: Option<crate::Output>,
}

/// What the life of the node amounted to.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    machine: String,
    minutes: u64,
    memory_mib: u64,
    start_s: f64,
    /// When the node and its pods were up, and at the end.
    before: Counts,
    after: Counts,
    daemon_restarts: u64,
    container_restarts: i64,
    /// Milliseconds of each request of a client that stands outside.
    requests: Series,
    requests_failed: Vec<String>,
    /// Milliseconds of each kubectl, which runs within the bound.
    kubectl: Series,
    kubectl_failed: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let bound = arguments.memory_mib;
    eprintln!("==> a node in {bound} MiB for {} min", arguments.minutes);
    let soak = Soak::new(bound << 20)?;
    let mut report = Report {
        machine: machine(),
        minutes: arguments.minutes,
        memory_mib: bound,
        ..Report::default()
    };
    let life = Duration::from_secs(arguments.minutes * 60);
    let outcome = inside(soak.node.namespace(), || soak.live(life, &mut report));
    if outcome.is_err() && !is_interrupted() {
        soak.node.keep_logs();
    }
    print!("{}", report.text());
    if arguments.output.is_some() {
        let folder = target().join("bench");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("soak.json"), serde_json::to_vec_pretty(&report)?)?;
        eprintln!("{} is written", folder.join("soak.json").display());
    }
    outcome
}

/// A node, all of whose processes are in a bounded group.
struct Soak {
    node: TestNode,
    /// After the node, which removes what is below it.
    group: MemoryGroup,
    /// The node's own copy of everything: files that others have read already are in memory at
    /// their expense.
    dist: PathBuf,
    _network: Network,
}

impl Drop for Soak {
    fn drop(&mut self) {
        self.group.release();
    }
}

impl Soak {
    fn new(limit_bytes: u64) -> Result<Self> {
        let network = Network::new();
        let node = TestNode::new(&network, "soak", &NodeOptions::default());
        let group = MemoryGroup::new(&Paths::new(node.root()).instance(), limit_bytes)?;
        let dist = node.root().join("own-dist");
        Ok(Self { node, group, dist, _network: network })
    }

    async fn live(&self, life: Duration, report: &mut Report) -> Result<()> {
        self.bring_up(report).await?;
        let clients = ClientSource::new(self.node.root().join("node/admin.kubeconfig"));
        report.before = self.group.counts();
        let outcome = self.use_it(&clients, life, report).await;
        report.after = self.counts(&report.after);
        outcome?;
        self.require_bounded()?;
        report.daemon_restarts = self.daemon_restarts().await?;
        report.container_restarts = container_restarts(clients.client().await?).await?;
        Ok(())
    }

    async fn bring_up(&self, report: &mut Report) -> Result<()> {
        let (from, to) = (distribution(), self.dist.to_string_lossy().into_owned());
        self.run("cp", &["-rL", &from.to_string_lossy(), &to]).await?;
        eprintln!("    starting");
        let begun = Instant::now();
        self.skiff(&["start", "--timeout", &START_TIMEOUT_S.to_string()]).await?;
        report.start_s = begun.elapsed().as_secs_f64();
        self.skiff(&["enable", "dns", "--wait"]).await?;
        let archive = test_image("agnhost");
        ensure!(archive.is_file(), "agnhost is not built: cargo xtask components --test");
        self.skiff(&["ctr", "images", "import", &archive.to_string_lossy()]).await?;
        let small = ["--image=skiff.local/agnhost:1.36.3", "--image-pull-policy=Never"];
        self.kubectl(&[&["run", "small"], &small[..]].concat()).await?;
        let ready = ["wait", "pod/small", "--for=condition=Ready", "--timeout=300s"];
        self.kubectl(&ready).await?;
        eprintln!("    the node and its pods are up after {:.0} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn use_it(
        &self,
        clients: &ClientSource,
        life: Duration,
        report: &mut Report,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut said = begun;
        for number in 0_usize.. {
            if begun.elapsed() >= life {
                return Ok(());
            }
            ask(&clients.client().await?, number, report).await;
            let name = format!("soak-{}", number / 4);
            let words: &[&str] = match number % 4 {
                0 => &["create", "configmap", &name, "--from-literal=a=b"],
                1 => &["get", "configmap", &name, "--output=yaml"],
                2 => &["get", "pods", "--all-namespaces"],
                _ => &["delete", "configmap", &name],
            };
            let one = Instant::now();
            match timeout(USE_BOUND, self.kubectl(words)).await {
                Ok(Ok(())) => report.kubectl.push(one.elapsed().as_secs_f64() * 1000.0),
                Ok(Err(error)) => report.kubectl_failed.push(format!("{error:#}")),
                Err(_) => report.kubectl_failed.push(format!("{words:?}: no end")),
            }
            report.after = self.counts(&report.after);
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                eprintln!("    {} s: {}", begun.elapsed().as_secs(), line(&report.after));
            }
            sleep(USE_PAUSE).await;
        }
        Ok(())
    }

    /// Kills that happened in a group which is gone stay counted.
    fn counts(&self, former: &Counts) -> Counts {
        let now = self.group.counts();
        Counts { oom_kills: now.oom_kills.max(former.oom_kills), ..now }
    }

    /// A bound that something is not in says nothing.
    fn require_bounded(&self) -> Result<()> {
        let bounded = self.group.processes();
        let all = harness::processes_beneath(&self.node.instance(), self.node.root());
        let outside: Vec<_> = all.into_iter().filter(|pid| !bounded.contains(pid)).collect();
        let names: Vec<_> = harness::memory_of(&outside).into_iter().map(|p| p.name).collect();
        ensure!(names.is_empty(), "outside the bound: {}", names.join(", "));
        Ok(())
    }

    async fn daemon_restarts(&self) -> Result<u64> {
        let text = self.skiff(&["services", "--output", "json"]).await?;
        let services: Vec<skiff_api::Service> = serde_json::from_str(&text)?;
        Ok(services.iter().map(|service| u64::from(service.restarts)).sum())
    }

    async fn kubectl(&self, words: &[&str]) -> Result<()> {
        self.skiff(&[&["kubectl"], words].concat()).await.map(drop)
    }

    async fn skiff(&self, words: &[&str]) -> Result<String> {
        self.run(&self.dist.join("bin/skiff").to_string_lossy(), words).await
    }

    /// Runs within the bound.
    async fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = self.node.command("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.group.procs());
        command.arg(program).args(words).env("SKIFF_DIST", &self.dist);
        let mut command = tokio::process::Command::from(command);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("{program} {} failed ({}): {said}", words.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// One request of each kind, timed one by one.
async fn ask(client: &Client, number: usize, report: &mut Report) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let name = format!("request-{number}");
    let object: ConfigMap = match serde_json::from_value(json!({ "metadata": { "name": name } })) {
        Ok(object) => object,
        Err(error) => return report.requests_failed.push(error.to_string()),
    };
    let mut timed = async |request: BoxFuture<'_, Result<(), kube::Error>>| {
        let begun = Instant::now();
        match timeout(USE_BOUND, request).await {
            Ok(Ok(())) => report.requests.push(begun.elapsed().as_secs_f64() * 1000.0),
            Ok(Err(error)) => report.requests_failed.push(error.to_string()),
            Err(_) => report.requests_failed.push("no answer".into()),
        }
    };
    let (post, delete, list) =
        (PostParams::default(), DeleteParams::default(), ListParams::default());
    timed(Box::pin(async { api.create(&post, &object).await.map(drop) })).await;
    timed(Box::pin(async { api.get(&name).await.map(drop) })).await;
    timed(Box::pin(async { api.list(&list).await.map(drop) })).await;
    timed(Box::pin(async { api.delete(&name, &delete).await.map(drop) })).await;
}

async fn container_restarts(client: Client) -> Result<i64> {
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await.context("no pods")?;
    let statuses = pods.items.into_iter().filter_map(|pod| pod.status?.container_statuses);
    Ok(statuses.flatten().map(|status| i64::from(status.restart_count)).sum())
}

fn line(counts: &Counts) -> String {
    let reclaims = counts.reclaims.map_or(String::new(), |count| format!(", {count} reclaims"));
    format!(
        "{:.0} MiB ({:.0} anonymous), {} major faults{reclaims}, {} OOM kills",
        mib(counts.used_bytes),
        mib(counts.anonymous_bytes),
        counts.major_faults,
        counts.oom_kills
    )
}

impl Report {
    fn text(&self) -> String {
        let Self { before, after, .. } = self;
        let of = |series: &Series| {
            let ms = |value: Option<f64>| value.map_or("-".into(), |ms| format!("{ms:.0} ms"));
            format!(
                "{} done, p50 {}, p99 {}, longest {}",
                series.len(),
                ms(series.median()),
                ms(series.percentile(99)),
                ms(series.max())
            )
        };
        let failed = |of: &[String]| match of.first() {
            None => "none failed".to_owned(),
            Some(first) => format!("{} failed, the first: {first}", of.len()),
        };
        format!(
            "{}\n{} MiB for {} min, started in {:.1} s\n\
             up         {}\n\
             end        {}\n\
             between    {} major faults, {} OOM kills (aim: none)\n\
             restarts   {} of daemons, {} of containers (aim: none)\n\
             requests   {} (aim: p99 < 1000 ms)\n\
             \x20          {}\n\
             kubectl    {}\n\
             \x20          {}\n",
            self.machine,
            self.memory_mib,
            self.minutes,
            self.start_s,
            line(before),
            line(after),
            after.major_faults.saturating_sub(before.major_faults),
            after.oom_kills.saturating_sub(before.oom_kills),
            self.daemon_restarts,
            self.container_restarts,
            of(&self.requests),
            failed(&self.requests_failed),
            of(&self.kubectl),
            failed(&self.kubectl_failed),
        )
    }
}
