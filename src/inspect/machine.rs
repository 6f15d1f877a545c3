//! What the machine is and how it is used.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::process::Command;

use crate::paths::Paths;

/// Files of the kernel and the system that say how the machine is.
pub const FILES: [(&str, &str); 13] = [
    ("system", "/etc/os-release"),
    ("kernel", "/proc/version"),
    ("memory", "/proc/meminfo"),
    ("load", "/proc/loadavg"),
    ("uptime", "/proc/uptime"),
    ("pressure-memory", "/proc/pressure/memory"),
    ("mounts", "/proc/self/mountinfo"),
    ("cgroups", "/proc/cgroups"),
    ("modules", "/proc/modules"),
    ("routes", "/proc/net/route"),
    ("routes-6", "/proc/net/ipv6_route"),
    ("links", "/proc/net/dev"),
    ("resolver", "/etc/resolv.conf"),
];

/// Programs that say more; where they are not installed, the bundle says so.
pub const COMMANDS: [(&str, &str, &[&str]); 4] = [
    ("addresses", "ip", &["-brief", "address"]),
    ("rules", "nft", &["list", "ruleset"]),
    ("sockets", "ss", &["--listening", "--numeric", "--tcp", "--udp", "--processes"]),
    ("kernel-messages", "dmesg", &["--time-format", "iso"]),
];

/// Bound of a program; its step has the same, this one also ends it.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Most processes that are listed.
const PROCESSES_MAX: usize = 5000;

pub async fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROGRAM_TIMEOUT, command.output())
        .await
        .map_err(|_| format!("{program}: no answer within {} s", PROGRAM_TIMEOUT.as_secs()))?
        .map_err(|e| format!("{program}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", said.trim()))
}

/// Every process by its name, without its arguments: they are not ours to show.
pub fn processes(paths: &Paths) -> Result<String, String> {
    let instance = paths.instance();
    let mut lines = BTreeMap::new();
    for entry in fs::read_dir("/proc").map_err(|e| e.to_string())?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if lines.len() >= PROCESSES_MAX {
            break;
        }
        if let Some(line) = process(&entry.path(), &instance) {
            lines.insert(pid, line);
        }
    }
    let head = "pid parent state memory-KiB threads name [ours]\n".to_owned();
    Ok(lines.into_iter().fold(head, |out, (pid, line)| format!("{out}{pid} {line}\n")))
}

fn process(dir: &Path, instance: &str) -> Option<String> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()
    };
    let cgroup = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    let ours = cgroup.lines().any(|line| line.contains(&format!("/{instance}/")));
    Some(format!(
        "{} {} {} {} {}{}",
        field("PPid").unwrap_or("?"),
        field("State").unwrap_or("?"),
        field("VmRSS").unwrap_or("0"),
        field("Threads").unwrap_or("?"),
        field("Name").unwrap_or("?"),
        if ours { " ours" } else { "" }
    ))
}

/// Space and files that are left where the node writes.
pub fn disks(paths: &Paths) -> Result<String, String> {
    let mut out = String::from("path total-MiB free-MiB files files-free\n");
    for path in [paths.root(), Path::new("/"), Path::new("/var"), Path::new("/tmp")] {
        match statvfs(path) {
            Ok(disk) => {
                let unit = disk.fragment_size();
                out += &format!(
                    "{} {} {} {} {}\n",
                    path.display(),
                    (disk.blocks() * unit) >> 20,
                    (disk.blocks_available() * unit) >> 20,
                    disk.files(),
                    disk.files_available()
                );
            }
            Err(error) => out += &format!("{}: {error}\n", path.display()),
        }
    }
    Ok(out)
}
