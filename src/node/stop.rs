//! Ending a node: pods within their grace, daemons in reverse order, and nothing left behind.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use skiff_supervisor::Handle;
use skiff_supervisor::cgroup::Cgroups;
use tokio::process::Command;

use super::clean;
use crate::daemons::{containerd, kube_node};
use crate::paths::Paths;

/// Longest grace period that a stop grants to a pod, in seconds.
pub const POD_GRACE_MAX_S: u64 = 30;
/// What ending the pods may take beyond their grace.
const PODS_MARGIN: Duration = Duration::from_secs(30);
/// How long killed processes may take to be gone.
const KILL_BOUND: Duration = Duration::from_secs(5);

/// What a stop needs to know.
pub struct Stop<'a> {
    pub paths: &'a Paths,
    /// `kube` of the build that runs.
    pub kube: &'a Path,
    pub cgroup: &'a str,
    pub bridge: &'a str,
}

impl Stop<'_> {
    /// Ends pods, daemons and whatever they leave in the kernel, saying each step. Goes on after
    /// a failure: what can be ended is ended.
    pub async fn run(&self, supervisor: Handle, say: impl Fn(String)) {
        say("stopping the kubelet".into());
        if let Err(error) = supervisor.stop(&kube_node::NAME.into()).await {
            tracing::warn!(%error, "the kubelet could not be stopped in order");
        }
        let runtime_ready =
            supervisor.snapshot().get(containerd::NAME).is_some_and(|daemon| daemon.pid.is_some());
        if runtime_ready {
            say(format!("stopping pods, each within its grace, at most {POD_GRACE_MAX_S} s"));
            if let Err(reason) = self.stop_pods().await {
                say(format!("some pods did not end in order and are killed: {reason}"));
            }
        }
        say("stopping the daemons".into());
        if let Err(error) = supervisor.shutdown().await {
            tracing::warn!(%error, "the daemons are ended by their control group");
        }
        self.remove_leftovers().await;
    }

    async fn stop_pods(&self) -> Result<(), String> {
        let endpoint = format!("unix://{}", self.paths.containerd_socket().display());
        let child = Command::new(self.kube)
            .args(["pods", "stop", "--endpoint", &endpoint])
            .args(["--grace-max", &format!("{POD_GRACE_MAX_S}s")])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let bound = Duration::from_secs(POD_GRACE_MAX_S) + PODS_MARGIN;
        match tokio::time::timeout(bound, child).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no end within {} s", bound.as_secs())),
        }
    }

    /// Everything that no daemon is left to remove. Also right after a crash of everything.
    pub async fn remove_leftovers(&self) {
        let cgroups = Cgroups::detect();
        if !cgroups.kill(self.cgroup, KILL_BOUND).await {
            tracing::warn!(cgroup = self.cgroup, "processes are left in the control group");
        }
        if let Err(error) = clean::unmount_below(self.paths.root()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "a mount is left");
        }
        clean::remove_network(self.bridge);
        clean::remove_cgroups(self.cgroup);
        clean::remove_empty_shared();
        let sockets = [
            self.paths.datastore_socket(),
            self.paths.cluster_database_socket(),
            self.paths.datastore_handoff_socket(),
            self.paths.kine_socket(),
            self.paths.skiffd_cluster_socket(),
        ];
        for path in sockets.into_iter().chain([self.paths.containerd_run()]) {
            if let Err(error) = remove(&path) {
                tracing::warn!(%error, path = %path.display(), "run-time files are left");
            }
        }
        clean::remove_dangling_logs(self.paths);
    }
}

/// Returns a stopped node to factory: everything below the root goes, except the configuration
/// that the user wrote.
pub fn remove_state(paths: &Paths) -> io::Result<()> {
    let entries = match fs::read_dir(paths.root()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let kept = ["skiff.toml", "skiff.toml.d"];
    for entry in entries {
        let entry = entry?;
        if !kept.iter().any(|name| entry.file_name() == *name) {
            remove(&entry.path())?;
        }
    }
    clean::remove_dangling_logs(paths);
    if paths.is_default() { remove_if_empty(paths.root()) } else { Ok(()) }
}

fn remove(path: &Path) -> io::Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn remove_if_empty(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        outcome => outcome,
    }
}
