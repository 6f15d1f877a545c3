//! One node of a test: its namespace, its root, and the commands run in it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::disk::Disk;
use crate::inventory::{Inventory, pids};
use crate::network::{Network, enter, ip};
use crate::run::{Outcome, distribution, run, skiff_binary, target, test_image};

/// How long a node may take to become ready on a busy build machine, in seconds.
const READY_TIMEOUT_S: u64 = 240;

/// How long killed processes may take to be gone.
const KILL_BOUND: Duration = Duration::from_secs(20);

/// What makes a test node different from the default.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Lines of skiff.toml.
    pub config: String,
    /// A disk of that many MiB for the node's root; without it the root is a directory of the
    /// machine.
    pub disk_mib: Option<u64>,
}

/// A node with a root and a namespace of its own.
#[derive(Debug)]
pub struct TestNode {
    name: String,
    // Before the root: it is unmounted before the directory goes.
    disk: Option<Disk>,
    root: tempfile::TempDir,
    namespace: String,
    address: String,
}

impl TestNode {
    /// Makes the place for a node; nothing is started.
    #[track_caller]
    pub fn new(network: &Network, name: &str, options: &NodeOptions) -> Self {
        let (namespace, address) = network.add_host();
        // Short, since socket paths are bounded by 108 bytes; in the open, since daemons without
        // privilege must reach their own directories.
        let root = tempfile::Builder::new()
            .prefix("sk-")
            .tempdir_in("/var/tmp")
            .expect("a directory for the node's root");
        let disk = options.disk_mib.map(|mib| Disk::mounted(root.path(), mib));
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.path(), open).expect("the root can be opened to daemons");
        let config = format!("[node]\nname = \"{name}\"\n{}", options.config);
        fs::write(root.path().join("skiff.toml"), config).expect("the configuration is written");
        Self { name: name.into(), disk, root, namespace, address }
    }

    /// A node that is up and ready.
    #[track_caller]
    pub fn started(network: &Network, name: &str, options: &NodeOptions) -> Self {
        let node = Self::new(network, name, options);
        node.start();
        node
    }

    #[track_caller]
    pub fn start(&self) {
        self.skiff(&["start", "--timeout", &READY_TIMEOUT_S.to_string()]).must();
    }

    /// The disk of a node that has its own.
    #[track_caller]
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the node was made with disk_mib")
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Word that names this node's cgroups and marks its processes.
    pub fn instance(&self) -> String {
        let status = fs::read_to_string(self.root().join("node/instance"));
        status.map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    /// A program in this node's namespace; paths and control groups are the machine's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = enter(&self.namespace, program);
        command.env("SKIFF_ROOT", self.root()).env("SKIFF_DIST", distribution());
        command
    }

    #[track_caller]
    pub fn skiff(&self, args: &[&str]) -> Outcome {
        run(self.command(skiff_binary()).args(args))
    }

    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> Outcome {
        run(self.command(skiff_binary()).arg("kubectl").args(args))
    }

    /// Applies a manifest from text.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        let file = self.root().join("test-manifest.yaml");
        fs::write(&file, manifest).expect("the manifest is written");
        self.kubectl(&["apply", "--filename", &file.to_string_lossy()]).must();
    }

    /// Makes an image that only tests use known to the node.
    #[track_caller]
    pub fn import_test_image(&self, name: &str) {
        let archive = test_image(name);
        assert!(archive.is_file(), "{} is missing: run `make test`", archive.display());
        self.skiff(&["ctr", "images", "import", &archive.to_string_lossy()]).must();
    }

    /// Waits on the condition that `kubectl wait` understands.
    #[track_caller]
    pub fn wait_for(&self, object: &str, condition: &str, bound: Duration) {
        let timeout = format!("--timeout={}s", bound.as_secs());
        self.kubectl(&["wait", object, &format!("--for={condition}"), &timeout]).must();
    }

    /// What this node has in the kernel and the process table now.
    pub fn inventory(&self) -> Inventory {
        Inventory::take(self)
    }

    /// Pids of a daemon's main process, from `skiff services`.
    #[track_caller]
    pub fn pid(&self, service: &str) -> u32 {
        let text = self.skiff(&["services", "--output", "json"]).must();
        let services: Vec<skiff_api::Service> =
            serde_json::from_str(&text).expect("services are JSON");
        let found = services.into_iter().find(|s| s.name == service);
        found.and_then(|s| s.pid).unwrap_or_else(|| panic!("{service} has no process: {text}"))
    }

    /// Everything that runs of this node ends without a word, and nobody reaches it any more.
    #[track_caller]
    pub fn power_off(&self) {
        self.set_link("down");
        let (root, instance) = (self.root().to_string_lossy(), self.instance());
        let begun = Instant::now();
        loop {
            let pids = pids(&root, &instance);
            if pids.is_empty() {
                return;
            }
            assert!(begun.elapsed() < KILL_BOUND, "{} goes on: {pids:?}", self.name);
            for pid in pids {
                // It may have gone by itself.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// The node's link to the others: `up` or `down`.
    #[track_caller]
    pub fn set_link(&self, state: &str) {
        ip(&["-n", &self.namespace, "link", "set", "eth0", state]);
    }

    /// The machine has another address from now on, of a network with 254 of them.
    #[track_caller]
    pub fn move_to(&mut self, address: &str) {
        for (change, address) in [("delete", self.address.as_str()), ("add", address)] {
            let address = format!("{address}/24");
            ip(&["-n", &self.namespace, "address", change, &address, "dev", "eth0"]);
        }
        self.address = address.into();
    }

    /// Copies the daemons' logs to where they outlive the node.
    pub fn keep_logs(&self) {
        let place: PathBuf =
            target().join("test-logs").join(format!("{}-{}", self.name, std::process::id()));
        let _ = fs::create_dir_all(&place);
        let logs = fs::read_dir(self.root().join("log")).into_iter().flatten().flatten();
        for log in logs.filter(|entry| entry.path().is_file()) {
            let _ = fs::copy(log.path(), place.join(log.file_name()));
        }
        eprintln!("logs of {} are kept in {}", self.name, place.display());
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
        if env::var_os("SKIFF_TEST_KEEP").is_some() {
            eprintln!("{} is kept: root {}", self.name, self.root().display());
            return;
        }
        // What stands still would not end.
        self.thaw();
        // A node that a test broke on purpose may refuse; the namespace goes in any case.
        // Out of reach of a Ctrl-C on the terminal, which would leave the node half ended.
        let mut reset = self.command(skiff_binary());
        let outcome = run(reset.args(["reset", "--yes"]).process_group(0));
        if !outcome.ok() {
            eprintln!("reset of {} failed: {}", self.name, outcome.stderr);
        }
        run(Command::new("ip").args(["netns", "delete", &self.namespace]));
    }
}
