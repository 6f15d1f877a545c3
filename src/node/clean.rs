//! What a node leaves in the kernel, and its removal when the node stops: mounts, packet-filter
//! tables, links and control groups.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use nix::mount::{MntFlags, umount2};

use crate::paths::Paths;

/// Tables that kube-proxy, the CNI plugins and the network between nodes make; nobody else uses
/// these names.
const TABLES: [(&str, &str); 6] = [
    ("ip", "kube-proxy"),
    ("ip6", "kube-proxy"),
    ("ip", "flannel-ipv4"),
    ("ip6", "flannel-ipv6"),
    ("inet", "cni_hostport"),
    ("inet", "cni_plugins_masquerade"),
];

/// The link towards the pods of other nodes, with the number that `kube node` chooses when the
/// configuration names none. Others' networks begin with other numbers.
const BETWEEN_NODES: &str = "flannel.7443";

#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    #[error("cannot read the mount table")]
    MountTable(#[source] io::Error),
    #[error("cannot unmount {}", path.display())]
    Unmount { path: PathBuf, source: nix::Error },
}

/// Unmounts everything below `root`, deepest first.
pub fn unmount_below(root: &Path) -> Result<(), CleanError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(CleanError::MountTable)?;
    for path in mounts_below(&table, root) {
        match umount2(&path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            // Still in use by a process that is about to end: detach now, free when it has ended.
            Err(nix::Error::EBUSY) => umount2(&path, MntFlags::MNT_DETACH)
                .map_err(|source| CleanError::Unmount { path, source })?,
            Err(source) => return Err(CleanError::Unmount { path, source }),
        }
    }
    Ok(())
}

/// Mount points strictly below `root`, in the order in which they can be unmounted.
fn mounts_below(mountinfo: &str, root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|path| path.starts_with(root) && path != root)
        .collect();
    found.reverse();
    found
}

/// The kernel writes space, tab, newline and backslash as three octal digits (proc(5)).
fn unescape(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(out).into()
}

/// Removes the tables of the packet filter, the bridge of the pods and the link to other nodes,
/// with which its routes go. Best effort: a tool that is missing made nothing either; what remains
/// is logged.
pub fn remove_network(bridge: &str) {
    for (family, table) in TABLES {
        // Added first, so that deleting one that is not there is no error (nft before 1.0.7 has
        // no `destroy`).
        let script = format!("add table {family} {table}; delete table {family} {table}");
        quietly("nft", &[&script]);
    }
    for link in [bridge, BETWEEN_NODES] {
        // Not by /sys/class/net: that shows the network namespace which mounted it.
        let there = Command::new("ip").args(["link", "show", link]).output();
        if there.is_ok_and(|output| output.status.success()) {
            quietly("ip", &["link", "delete", link]);
        }
    }
}

/// Removes the node's control groups from every hierarchy that is mounted. Upstream components
/// make them in hierarchies that nobody else uses, too.
pub fn remove_cgroups(cgroup: &str) {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in std::iter::once(top.to_path_buf()).chain(hierarchies) {
        remove_group(&hierarchy.join(cgroup.trim_start_matches('/')));
    }
}

/// Children first; a group with processes stays.
fn remove_group(group: &Path) {
    for child in fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&child.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Directories that containerd makes in fixed places; others may use them, so only empty ones go.
pub fn remove_empty_shared() {
    for dir in ["/var/lib/cni/results", "/var/lib/cni", "/run/containerd/s", "/run/containerd"] {
        let _ = fs::remove_dir(dir);
    }
}

/// The kubelet links container logs into a directory that all nodes of a machine share; links to
/// our pods that lead nowhere go.
pub fn remove_dangling_logs(paths: &Paths) {
    let pods = paths.pod_logs();
    let Ok(links) = fs::read_dir("/var/log/containers") else { return };
    for link in links.flatten().map(|entry| entry.path()) {
        let ours = fs::read_link(&link).is_ok_and(|target| target.starts_with(&pods));
        if ours && !link.exists() {
            let _ = fs::remove_file(&link);
        }
    }
}

fn quietly(program: &str, args: &[&str]) {
    match Command::new(program).args(args).output() {
        Ok(output) if !output.status.success() => {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            tracing::warn!(program, ?args, reason, "clean-up command failed");
        }
        Err(error) => tracing::warn!(program, %error, "clean-up command cannot run"),
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_listed_deepest_first_and_only_below_the_root() {
        let table = "22 1 0:1 / / rw - ext4 /dev/vda rw\n\
                     30 22 0:2 / /var/lib/skiff/kubelet/a\\040b rw - tmpfs tmpfs rw\n\
                     31 30 0:3 / /var/lib/skiff/kubelet/a\\040b/c rw - tmpfs tmpfs rw\n\
                     32 22 0:4 / /var/lib/skiffold rw - tmpfs tmpfs rw\n\
                     33 22 0:5 / /var/lib/skiff rw - tmpfs tmpfs rw\n";
        assert_eq!(
            mounts_below(table, Path::new("/var/lib/skiff")),
            [Path::new("/var/lib/skiff/kubelet/a b/c"), Path::new("/var/lib/skiff/kubelet/a b")]
        );
    }

    #[test]
    fn a_mount_table_of_nonsense_is_read_without_harm() {
        assert!(mounts_below("a b\n\\\\ \\9 x y \\77\n", Path::new("/r")).is_empty());
    }
}
