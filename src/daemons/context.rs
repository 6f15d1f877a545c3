//! What every daemon's description is made from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use microcluster::record::{NodeId, NodeRole};
use skiff_confine::Profile;
use skiff_supervisor::{DaemonSpec, DaemonSpecBuilder, LogPolicy, Probe};

use super::agent;
use super::external::{External, Kept};
use crate::config::Config;
use crate::node::account::{Account, Accounts};
use crate::paths::Paths;

/// A daemon that runs and is not ready by then is restarted. Three seconds are usual; an emulated
/// processor was seen to need two minutes, and a restart would only begin that anew.
const START_TIMEOUT: Duration = Duration::from_secs(900);

/// All that the daemons of one node have in common, decided before anything is written.
#[derive(Clone, Debug)]
pub struct Context {
    pub paths: Paths,
    /// The staged build whose programs run.
    pub build: PathBuf,
    pub node_name: String,
    pub address: IpAddr,
    /// Control group of this node, from the hierarchy's root: `/skiff`.
    pub cgroup: String,
    /// Bridge of the pods.
    pub bridge: String,
    /// Largest packet of a pod, in bytes; 0 lets the plugin choose.
    pub mtu: u32,
    pub pod_cidr: String,
    pub service_cidr: String,
    pub dns_address: IpAddr,
    pub domain: String,
    pub api_port: u16,
    pub kubelet_port: u16,
    pub kubelet_health_port: u16,
    /// Resolver configuration that pods with `dnsPolicy: Default` get.
    pub resolver: PathBuf,
    /// This process may not lower an OOM score (no CAP_SYS_RESOURCE), so nobody below it may.
    pub restrict_oom_score: bool,
    pub pause_image: String,
    pub accounts: Accounts,
    /// Largest size of one log file, in bytes, and how many are kept.
    pub log_bytes_max: u64,
    pub log_files_max: u32,
    pub api_server_args: Vec<String>,
    pub controller_manager_args: Vec<String>,
    pub scheduler_args: Vec<String>,
    pub kubelet_args: Vec<String>,
    pub proxy_args: Vec<String>,
    /// Absent on a node that is alone.
    pub cluster: Option<Cluster>,
    /// Who keeps Kubernetes' objects, when that is not Skiff's own datastore.
    pub external: Option<External>,
    /// Tells one set of authorities and keys from another, for those who read them at their start
    /// only; empty until they are there.
    pub authorities: String,
}

/// What a node has besides when it belongs to a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub role: NodeRole,
    pub id: NodeId,
    /// Who runs the agent.
    pub agent: Account,
    /// The Node object begins with these.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<String>,
    /// Through whom the datastore of a control-plane node becomes a member; none on the node that
    /// founded the cluster.
    pub join: Vec<String>,
    /// Several nodes run the controllers, and one of them leads.
    pub elects: bool,
}

/// Probes that need a client of the cluster or of the runtime; skiffd brings them.
#[derive(Clone, Debug)]
pub struct Probes {
    /// The runtime answers and holds the images without which no pod starts.
    pub containerd: Probe,
    /// The API server's `/readyz`.
    pub api_server: Probe,
    /// The agent listens.
    pub agent: Probe,
}

impl From<Account> for skiff_confine::User {
    fn from(account: Account) -> Self {
        Self { uid: account.uid, gid: account.gid, groups: Vec::new() }
    }
}

/// A file that is made from the configuration, world-readable: secrets are not written this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    pub content: String,
}

impl File {
    pub fn new(path: PathBuf, content: String) -> Self {
        Self { path, content }
    }
}

impl Context {
    /// Those that may become others while the daemons run.
    pub fn take_settings(&mut self, config: &Config) {
        let kube = config.kube.clone();
        self.mtu = config.network.mtu;
        self.api_server_args = kube.api_server_args;
        self.controller_manager_args = kube.controller_manager_args;
        self.scheduler_args = kube.scheduler_args;
        self.kubelet_args = kube.kubelet_args;
        self.proxy_args = kube.proxy_args;
    }

    pub fn role(&self) -> Option<NodeRole> {
        self.cluster.as_ref().map(|cluster| cluster.role)
    }

    /// Whether the control plane is elsewhere.
    pub fn is_worker(&self) -> bool {
        self.role() == Some(NodeRole::Worker)
    }

    /// Who keeps Kubernetes' objects.
    pub fn kept(&self) -> Kept {
        self.external.as_ref().map(External::kept).unwrap_or_default()
    }

    /// Where what belongs to a control plane finds its own API server.
    pub fn own_api_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// Where everybody else on this node finds the API: in a cluster any server that is well.
    pub fn api_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client_port())
    }

    /// The port of that.
    pub fn client_port(&self) -> u16 {
        if self.cluster.is_some() { agent::API_PORT } else { self.api_port }
    }

    /// Whether one of several nodes' controllers must be chosen.
    pub fn elects(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.elects)
    }

    /// A program of the build that runs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.build.join("bin").join(name)
    }

    /// The build by its stable link: for paths that are remembered by what outlives a change of
    /// build, such as a running container's shim.
    pub fn stable_build(&self) -> PathBuf {
        self.paths.builds().join("current")
    }

    /// Where daemons look for the programs that they start: ours first, then the system's.
    pub fn path_variable(&self) -> String {
        format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.stable_build().join("bin").display()
        )
    }

    /// What every daemon's specification begins with: its profile, its log, its place.
    pub fn daemon(&self, name: &str, program: &str) -> DaemonSpecBuilder {
        let path = self.paths.daemon_log(name);
        let log = LogPolicy {
            path: path.clone(),
            bytes_max: self.log_bytes_max,
            files_max: self.log_files_max,
            gid: Some(self.accounts.skiff_gid),
        };
        DaemonSpec::builder(name, self.program(program), path)
            .profile(Profile::named(name).expect("every daemon of ours has a profile"))
            .env("PATH", self.path_variable())
            .log_policy(log)
            .start_timeout(START_TIMEOUT)
            .cgroup(format!("{}/daemon/{name}", self.cgroup))
    }
}
