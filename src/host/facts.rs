//! What a preflight looks at, gathered without changing anything. What cannot be seen is absent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use microcluster::record::NodeRole;
use nix::sys::statvfs::statvfs;
use serde::Serialize;

use super::listener::{self, Listener};
use crate::paths::Paths;

/// Ports of a node: API server, its balancer, other nodes, kubelet, and the health of the components
/// on loopback.
const PORTS: [u16; 9] = [6443, 6444, 7443, 10248, 10249, 10250, 10256, 10257, 10259];
/// Programs that the daemons start.
const PROGRAMS: [&str; 4] = ["nft", "ip", "mount", "umount"];
/// Processes of other distributions, which want the same ports, links and tables.
const RIVALS: [&str; 6] = ["k3s", "k0s", "kubelite", "microk8s", "kubelet", "kube-apiserver"];

/// The machine as a node would find it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    pub root: String,
    /// What the machine is in a cluster, or is to be; none on a node that is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<NodeRole>,
    pub is_root: bool,
    /// `6.1.0-18-amd64`
    pub kernel: String,
    /// 1 or 2; 0 when no hierarchy is mounted.
    pub cgroup_version: u8,
    pub cgroup_controllers: Vec<String>,
    /// File systems and namespaces that the kernel knows.
    pub overlayfs: Option<bool>,
    pub bridge_netfilter: bool,
    pub programs_missing: Vec<String>,
    pub disk_free_bytes: Option<u64>,
    pub read_only: bool,
    /// Mounted so that nothing on it can be run.
    pub no_exec: bool,
    /// Directories on the way to the root that unprivileged daemons cannot pass.
    pub closed_directories: Vec<String>,
    pub memory_total_bytes: Option<u64>,
    /// Seconds since 1970.
    pub clock_s: u64,
    pub aio_events_max: Option<u64>,
    pub inotify_instances_max: Option<u64>,
    pub host_name: String,
    pub address: Option<String>,
    pub default_route: bool,
    /// Who has the ports that a node needs, other than this node itself.
    pub listeners: Vec<Listener>,
    pub rivals: Vec<String>,
    pub systemd: bool,
    /// May lower OOM scores.
    pub resource_capability: bool,
}

impl Facts {
    /// Looks at this machine for a node with that root and that part in a cluster.
    pub fn gather(paths: &Paths, role: Option<NodeRole>) -> Self {
        let existing = paths.root().ancestors().find(|path| path.exists());
        let disk = existing.and_then(|path| statvfs(path).ok());
        let root = paths.root().to_string_lossy().into_owned();
        Self {
            role,
            is_root: nix::unistd::Uid::effective().is_root(),
            kernel: read("/proc/sys/kernel/osrelease"),
            cgroup_version: cgroup_version(),
            cgroup_controllers: cgroup_controllers(),
            overlayfs: filesystems("overlay"),
            bridge_netfilter: Path::new("/proc/sys/net/bridge").is_dir()
                || module_available("br_netfilter"),
            programs_missing: PROGRAMS
                .iter()
                .filter(|p| !on_path(p))
                .map(|p| (*p).into())
                .collect(),
            disk_free_bytes: disk.as_ref().map(|d| d.blocks_available() * d.fragment_size()),
            read_only: disk
                .is_some_and(|d| d.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY)),
            no_exec: disk
                .is_some_and(|d| d.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC)),
            closed_directories: closed_directories(paths.root()),
            memory_total_bytes: memory_total(&read("/proc/meminfo")),
            clock_s: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            aio_events_max: read("/proc/sys/fs/aio-max-nr").parse().ok(),
            inotify_instances_max: read("/proc/sys/fs/inotify/max_user_instances").parse().ok(),
            host_name: read("/proc/sys/kernel/hostname"),
            address: super::address::choose().map(|address| address.to_string()),
            default_route: super::address::has_default_route(),
            listeners: listener::on_ports(&PORTS, &root),
            rivals: rivals(&root),
            systemd: Path::new("/run/systemd/system").is_dir(),
            resource_capability: resource_capability(&read("/proc/self/status")),
            root,
        }
    }
}

/// The parents of a root that not everybody may pass; the root itself is the node's to open.
fn closed_directories(root: &Path) -> Vec<String> {
    let closed =
        |path: &&Path| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o001 == 0);
    root.ancestors().skip(1).filter(closed).map(|path| path.display().to_string()).collect()
}

/// Whether this process, and so its children, may lower an OOM score.
pub fn may_lower_oom_scores() -> bool {
    resource_capability(&read("/proc/self/status"))
}

/// CAP_SYS_RESOURCE is bit 24 of the effective set (capabilities(7)).
fn resource_capability(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << 24) != 0)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn cgroup_version() -> u8 {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").is_file() {
        2
    } else if Path::new("/sys/fs/cgroup/memory").is_dir()
        || Path::new("/sys/fs/cgroup/cpu").is_dir()
    {
        1
    } else {
        0
    }
}

/// On version 2 what the root group offers, on version 1 what is enabled (cgroups(7)).
fn cgroup_controllers() -> Vec<String> {
    let unified = read("/sys/fs/cgroup/cgroup.controllers");
    if !unified.is_empty() {
        return unified.split_whitespace().map(str::to_owned).collect();
    }
    let mounted = |name: &str| Path::new("/sys/fs/cgroup").join(name).is_dir();
    read("/proc/cgroups")
        .lines()
        .filter(|line| !line.starts_with('#') && line.ends_with('1'))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| mounted(name))
        .map(str::to_owned)
        .collect()
}

/// Whether the kernel has a file system; one that is a module is loaded when it is mounted.
fn filesystems(name: &str) -> Option<bool> {
    let known = fs::read_to_string("/proc/filesystems").ok()?;
    Some(
        known.lines().any(|line| line.split_whitespace().last() == Some(name))
            || module_available(name),
    )
}

fn module_available(name: &str) -> bool {
    let order = format!("/lib/modules/{}/modules.dep", read("/proc/sys/kernel/osrelease"));
    fs::read_to_string(order).is_ok_and(|text| text.contains(&format!("/{name}.ko")))
}

fn on_path(program: &str) -> bool {
    let mut probe = Command::new(program);
    probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok()
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Names of running processes of other distributions; ours carry the root in their arguments.
fn rivals(root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let name = name.trim().to_owned();
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let ours = String::from_utf8_lossy(&arguments).contains(root);
        if RIVALS.contains(&name.as_str()) && !ours && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes_and_nonsense_is_not_memory() {
        assert_eq!(memory_total("MemTotal:  1024 kB\n"), Some(1 << 20));
        assert_eq!(memory_total("MemTotal: much kB\n"), None);
        assert_eq!(memory_total(""), None);
    }

    #[test]
    fn the_capability_is_one_bit_of_the_effective_set() {
        assert!(resource_capability("CapEff:\t0000000001000000\n"));
        assert!(!resource_capability("CapEff:\t000001fffeffffff\n"));
        assert!(!resource_capability("CapEff: all\n"));
    }
}
