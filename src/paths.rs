//! Every path that a node reads or writes, derived from its root.

use std::path::{Path, PathBuf};

/// Where a node keeps its state when nobody says otherwise.
pub const ROOT_DEFAULT: &str = "/var/lib/skiff";
/// Where the default node's configuration lies; another root has its own inside.
pub const CONFIG_DEFAULT: &str = "/etc/skiff/skiff.toml";

/// The tree below one node's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// `root` must be absolute: daemons run in other directories.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration file that shapes this node.
    pub fn config(&self) -> PathBuf {
        if self.is_default() { CONFIG_DEFAULT.into() } else { self.root.join("skiff.toml") }
    }

    pub fn is_default(&self) -> bool {
        self.root == Path::new(ROOT_DEFAULT)
    }

    /// A short word that is this node's own on its machine: `skiff`, or `skiff-` and eight hex
    /// digits for a node with another root. Names cgroups and marks processes.
    pub fn instance(&self) -> String {
        use sha2::{Digest, Sha256};
        if self.is_default() {
            return "skiff".into();
        }
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        format!("skiff-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
    }

    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn skiffd_socket(&self) -> PathBuf {
        self.run().join("skiffd.sock")
    }

    /// Why the last skiffd could not begin, as the API would have said it; absent when it could.
    pub fn start_failure(&self) -> PathBuf {
        self.run().join("start-failure.json")
    }

    /// Port of the API server, for commands of users who may not read the configuration.
    pub fn api_port_file(&self) -> PathBuf {
        self.run().join("api-port")
    }

    /// Records of running daemons, for adoption by the next skiffd.
    pub fn daemon_records(&self) -> PathBuf {
        self.run().join("daemon")
    }

    pub fn datastore_socket(&self) -> PathBuf {
        self.run().join("datastore").join("datastore.sock")
    }

    /// Where the datastore serves what nodes know of their cluster; skiffd's alone.
    pub fn cluster_database_socket(&self) -> PathBuf {
        self.run().join("datastore").join("cluster.sock")
    }

    /// Where the datastore takes connections of other members over from the agent.
    pub fn datastore_handoff_socket(&self) -> PathBuf {
        self.handoff_run().join("datastore.sock")
    }

    /// Sockets at which the agent hands over what came in.
    pub fn handoff_run(&self) -> PathBuf {
        self.run().join("handoff")
    }

    /// Whose members may be peers of this node's datastore.
    pub fn datastore_nodes(&self) -> PathBuf {
        self.daemon_etc("datastore").join("nodes.json")
    }

    /// Where kine answers for a database of somebody else's.
    pub fn kine_socket(&self) -> PathBuf {
        self.run().join("kine").join("kine.sock")
    }

    /// Sockets of the agent.
    pub fn agent_run(&self) -> PathBuf {
        self.run().join("agent")
    }

    /// Where skiffd takes from the agent what other nodes ask.
    pub fn skiffd_cluster_socket(&self) -> PathBuf {
        self.agent_run().join("skiffd.sock")
    }

    pub fn containerd_run(&self) -> PathBuf {
        self.run().join("containerd")
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.containerd_run().join("containerd.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn daemon_log(&self, daemon: &str) -> PathBuf {
        self.log().join(format!("{daemon}.log"))
    }

    pub fn pod_logs(&self) -> PathBuf {
        self.log().join("pods")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.log().join("audit").join("audit.log")
    }

    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Leaves of one daemon, readable by that daemon's user alone.
    pub fn daemon_pki(&self, daemon: &str) -> PathBuf {
        self.pki().join(daemon)
    }

    /// Generated configuration of one daemon.
    pub fn daemon_etc(&self, daemon: &str) -> PathBuf {
        self.root.join("etc").join(daemon)
    }

    pub fn datastore(&self) -> PathBuf {
        self.root.join("datastore")
    }

    pub fn containerd(&self) -> PathBuf {
        self.root.join("containerd")
    }

    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    pub fn cni_config(&self) -> PathBuf {
        self.root.join("cni").join("net.d")
    }

    pub fn cni_data(&self) -> PathBuf {
        self.root.join("cni").join("data")
    }

    /// skiffd's own state: what it decided once and must remember.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Builds that were staged on this node; `current` names the one that runs.
    pub fn builds(&self) -> PathBuf {
        self.root.join("build")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_root_is_called_skiff_and_others_get_names_of_their_own() {
        assert_eq!(Paths::new(ROOT_DEFAULT).instance(), "skiff");
        let a = Paths::new("/tmp/a").instance();
        assert_ne!(a, Paths::new("/tmp/b").instance());
        assert_eq!(a.len(), "skiff-".len() + 8);
    }

    #[test]
    fn another_root_has_its_configuration_inside() {
        assert_eq!(Paths::new(ROOT_DEFAULT).config(), Path::new(CONFIG_DEFAULT));
        assert_eq!(Paths::new("/tmp/a").config(), Path::new("/tmp/a/skiff.toml"));
    }
}
