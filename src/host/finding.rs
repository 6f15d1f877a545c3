//! From facts to findings, each with what to do about it. Pure.

use microcluster::record::NodeRole;
use serde::Serialize;

use super::facts::Facts;
use super::listener::Listener;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Oldest kernel with the nftables features of kube-proxy.
const KERNEL_MIN: (u32, u32) = (5, 13);
/// Below this a node does not come up; below the second it gets tight soon.
const DISK_MIN_BYTES: u64 = 2 * GIB;
const DISK_ENOUGH_BYTES: u64 = 5 * GIB;
/// Below this Kubernetes' processes do not fit; below the second few pods do.
const MEMORY_MIN_BYTES: u64 = 480 * MIB;
const MEMORY_ENOUGH_BYTES: u64 = 960 * MIB;
/// When this was written: a clock before it is wrong, and certificates would not be valid.
pub const CLOCK_MIN_S: u64 = 1_790_000_000;
/// Kernel AIO events that dqlite needs, and the system's default is 65536.
const AIO_EVENTS_MIN: u64 = 4096;
const INOTIFY_INSTANCES_MIN: u64 = 128;
/// Without these the kubelet does not start.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Ok,
    /// Good to know; nothing is wrong.
    Info,
    /// A node runs, and something of it will not work well.
    Warning,
    /// A node does not run.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub name: String,
    pub message: String,
    /// What to type or to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Everything that a person should know before starting a node.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    [kernel(facts), cgroups(facts), programs(facts), resources(facts), network(facts), host(facts)]
        .concat()
}

fn kernel(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    match version(&facts.kernel) {
        Some(version) if version >= KERNEL_MIN => out.push(ok("kernel", &facts.kernel)),
        Some(_) => out.push(error(
            "kernel",
            format!("{} is older than {}.{}", facts.kernel, KERNEL_MIN.0, KERNEL_MIN.1),
            "install a newer kernel",
        )),
        None => out.push(info("kernel", "does not say its version".into())),
    }
    if facts.overlayfs == Some(false) {
        out.push(error(
            "overlayfs",
            "the kernel has no overlay file system".into(),
            "modprobe overlay",
        ));
    }
    if !facts.bridge_netfilter {
        out.push(error(
            "br-netfilter",
            "Services between pods of one node need it and the kernel lacks it".into(),
            "modprobe br_netfilter",
        ));
    }
    out
}

fn cgroups(facts: &Facts) -> Vec<Finding> {
    if facts.cgroup_version == 0 {
        let remedy = "mount -t cgroup2 none /sys/fs/cgroup";
        return vec![error("cgroups", "no hierarchy is mounted on /sys/fs/cgroup".into(), remedy)];
    }
    let has = |name: &&str| facts.cgroup_controllers.iter().any(|c| c == name);
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return vec![ok("cgroups", &format!("version {}", facts.cgroup_version))];
    }
    let remedy = if missing.contains(&"memory") {
        "add cgroup_enable=memory cgroup_memory=1 to the kernel's command line and reboot"
    } else {
        "enable them on the kernel's command line and reboot"
    };
    vec![error("cgroups", format!("no controller {}", missing.join(", ")), remedy)]
}

fn programs(facts: &Facts) -> Vec<Finding> {
    if facts.programs_missing.is_empty() {
        return vec![ok("programs", "nft, ip, mount are there")];
    }
    let message = format!("not on the PATH: {}", facts.programs_missing.join(", "));
    vec![error("programs", message, "apt-get install nftables iproute2 mount")]
}

fn resources(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    if facts.read_only {
        let message = format!("{} is on a read-only file system", facts.root);
        out.push(error("disk", message, "remount it writable, or choose another --root"));
    } else if let Some(free) = facts.disk_free_bytes {
        let message = format!("{} free for {}", amount(free), facts.root);
        let remedy = "free some space, or choose another --root";
        out.push(graded("disk", free, DISK_MIN_BYTES, DISK_ENOUGH_BYTES, message, remedy));
    }
    if facts.no_exec {
        let message = format!("{} is mounted noexec: no daemon can be run there", facts.root);
        out.push(error("exec", message, "remount it with exec, or choose another --root"));
    }
    if !facts.closed_directories.is_empty() {
        let closed = facts.closed_directories.join(" ");
        let message = format!("daemons without privilege cannot pass {closed}");
        out.push(error("permissions", message, &format!("chmod o+x {closed}")));
    }
    if let Some(total) = facts.memory_total_bytes {
        let message = format!("{} in all", amount(total));
        let remedy = "give the machine more memory";
        out.push(graded("memory", total, MEMORY_MIN_BYTES, MEMORY_ENOUGH_BYTES, message, remedy));
    }
    if facts.aio_events_max.is_some_and(|most| most < AIO_EVENTS_MIN) {
        let message = "too few asynchronous I/O events for the datastore".to_owned();
        out.push(error("aio", message, "sysctl fs.aio-max-nr=65536"));
    }
    if facts.inotify_instances_max.is_some_and(|most| most < INOTIFY_INSTANCES_MIN) {
        let message = "few inotify instances: pods that watch files may fail".to_owned();
        out.push(warning("inotify", message, "sysctl fs.inotify.max_user_instances=512"));
    }
    out
}

fn network(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    match &facts.address {
        Some(address) => out.push(ok("address", address)),
        None => out.push(error(
            "address",
            "the machine has no address but loopback".into(),
            "give a link an address, or set node.address in the configuration",
        )),
    }
    if !facts.default_route {
        out.push(info("default-route", "there is none, which is fine: nothing is pulled".into()));
    }
    let taken: Vec<Finding> =
        facts.listeners.iter().filter_map(|listener| port(listener, facts.role)).collect();
    if taken.is_empty() {
        out.push(ok("ports", "all free, or this node's own"));
    }
    out.extend(taken);
    out
}

/// What it means for a node that somebody else has a port of Skiff's; nothing when it needs none
/// such.
fn port(listener: &Listener, role: Option<NodeRole>) -> Option<Finding> {
    let who = listener.process.as_deref().unwrap_or("somebody");
    let message = format!("port {} is taken by {who}", listener.port);
    let stop = "stop it, or change the port in the configuration";
    match (listener.port, role) {
        // Its control plane is elsewhere.
        (6443 | 7443 | 10257 | 10259, Some(NodeRole::Worker)) => None,
        (6444 | 7443, None) => {
            let message = format!("{message}: the node could not be one of several");
            Some(warning("port", message, "stop it before `skiff add-node`"))
        }
        (6444 | 7443, Some(_)) => Some(error("port", message, "stop it")),
        _ => Some(error("port", message, stop)),
    }
}

fn host(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    if !facts.is_root {
        out.push(info("root", "some things can only be seen by root".into()));
    }
    if facts.clock_s < CLOCK_MIN_S {
        let remedy = "set the clock: date --set, or start a time service";
        out.push(error("clock", "the clock is years behind".into(), remedy));
    }
    for rival in &facts.rivals {
        let message = format!("{rival} of another Kubernetes runs here");
        out.push(warning("rival", message, "stop it: two nodes fight over links and tables"));
    }
    if !facts.resource_capability {
        let message = "no CAP_SYS_RESOURCE: pods' OOM scores are not lowered".to_owned();
        out.push(info("capability", message));
    }
    out
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn graded(
    name: &str,
    value: u64,
    least: u64,
    enough: u64,
    message: String,
    remedy: &str,
) -> Finding {
    if value < least {
        error(name, format!("{message}, a node needs {}", amount(least)), remedy)
    } else if value < enough {
        warning(name, format!("{message}, {} is better", amount(enough)), remedy)
    } else {
        ok(name, &message)
    }
}

fn amount(bytes: u64) -> String {
    if bytes >= 10 * GIB { format!("{} GiB", bytes / GIB) } else { format!("{} MiB", bytes / MIB) }
}

fn ok(name: &str, message: &str) -> Finding {
    Finding { level: Level::Ok, name: name.into(), message: message.into(), remedy: None }
}

fn info(name: &str, message: String) -> Finding {
    Finding { level: Level::Info, name: name.into(), message, remedy: None }
}

fn warning(name: &str, message: String, remedy: &str) -> Finding {
    Finding { level: Level::Warning, name: name.into(), message, remedy: Some(remedy.into()) }
}

fn error(name: &str, message: String, remedy: &str) -> Finding {
    Finding { level: Level::Error, name: name.into(), message, remedy: Some(remedy.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            root: "/var/lib/skiff".into(),
            is_root: true,
            kernel: "6.1.0-18-amd64".into(),
            cgroup_version: 2,
            cgroup_controllers: ["cpu", "cpuset", "memory", "pids"].map(str::to_owned).to_vec(),
            overlayfs: Some(true),
            bridge_netfilter: true,
            disk_free_bytes: Some(20 * GIB),
            memory_total_bytes: Some(4 * GIB),
            clock_s: CLOCK_MIN_S + 1,
            aio_events_max: Some(65536),
            inotify_instances_max: Some(512),
            host_name: "laptop".into(),
            address: Some("192.0.2.2".into()),
            default_route: true,
            resource_capability: true,
            systemd: true,
            ..Facts::default()
        }
    }

    fn wrong(facts: &Facts) -> Vec<(Level, String)> {
        let all = findings(facts).into_iter();
        all.filter(|f| f.level > Level::Info).map(|f| (f.level, f.name)).collect()
    }

    #[test]
    fn a_good_machine_has_nothing_wrong() {
        assert_eq!(wrong(&good()), []);
    }

    #[test]
    fn no_default_route_is_fine() {
        let facts = Facts { default_route: false, ..good() };
        assert_eq!(wrong(&facts), []);
    }

    #[test]
    fn each_thing_that_is_wrong_is_found_with_a_remedy() {
        let bad = [
            (Facts { kernel: "4.19.0".into(), ..good() }, "kernel"),
            (Facts { cgroup_controllers: vec!["cpu".into()], ..good() }, "cgroups"),
            (Facts { cgroup_version: 0, ..good() }, "cgroups"),
            (Facts { overlayfs: Some(false), ..good() }, "overlayfs"),
            (Facts { programs_missing: vec!["nft".into()], ..good() }, "programs"),
            (Facts { disk_free_bytes: Some(GIB), ..good() }, "disk"),
            (Facts { read_only: true, ..good() }, "disk"),
            (Facts { no_exec: true, ..good() }, "exec"),
            (Facts { closed_directories: vec!["/srv".into()], ..good() }, "permissions"),
            (Facts { memory_total_bytes: Some(256 * MIB), ..good() }, "memory"),
            (Facts { clock_s: 0, ..good() }, "clock"),
            (Facts { address: None, ..good() }, "address"),
            (Facts { listeners: vec![Listener { port: 6443, process: None }], ..good() }, "port"),
        ];
        for (facts, name) in bad {
            assert_eq!(wrong(&facts), [(Level::Error, name.to_owned())]);
            let finding = findings(&facts).into_iter().find(|f| f.level == Level::Error);
            assert!(finding.unwrap().remedy.is_some(), "{name}");
        }
    }

    #[test]
    fn a_port_matters_to_who_needs_it() {
        use NodeRole::{ControlPlane, Worker};
        let found = |port, role| {
            let listeners = vec![Listener { port, process: Some("x (pid 1)".into()) }];
            let level = wrong(&Facts { listeners, role, ..good() }).pop().map(|(level, _)| level);
            level.unwrap_or(Level::Ok)
        };
        for (port, alone, control_plane, worker) in [
            (6443, Level::Error, Level::Error, Level::Ok),
            (6444, Level::Warning, Level::Error, Level::Error),
            (7443, Level::Warning, Level::Error, Level::Ok),
            (10250, Level::Error, Level::Error, Level::Error),
            (10257, Level::Error, Level::Error, Level::Ok),
        ] {
            let levels = [None, Some(ControlPlane), Some(Worker)].map(|role| found(port, role));
            assert_eq!(levels, [alone, control_plane, worker], "{port}");
        }
    }

    #[test]
    fn a_raspberry_pi_without_memory_control_is_told_the_command_line() {
        let controllers = ["cpu", "cpuset", "pids"].map(str::to_owned).to_vec();
        let facts = Facts { cgroup_controllers: controllers, ..good() };
        let all = findings(&facts);
        let finding = all.iter().find(|f| f.name == "cgroups").unwrap();
        assert!(finding.remedy.as_deref().unwrap().contains("cgroup_enable=memory"));
    }
}
