//! What every daemon's description is made from.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use skiff_confine::Profile;
use skiff_supervisor::{DaemonSpec, DaemonSpecBuilder, LogPolicy, Probe};

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
}

/// Probes that need a client of the cluster or of the runtime; skiffd brings them.
#[derive(Clone, Debug)]
pub struct Probes {
    /// The runtime answers and holds the images without which no pod starts.
    pub containerd: Probe,
    /// The API server's `/readyz`.
    pub api_server: Probe,
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
