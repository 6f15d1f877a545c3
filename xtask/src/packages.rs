//! What is taken from the machine's own distribution, by package name.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::command::{announce, output_of, run_logged};

/// What builds Skiff, its datastore library and its components.
pub const BUILD: &[&str] = &[
    "autoconf",
    "automake",
    "build-essential",
    "dpkg-dev",
    "liblz4-dev",
    "libseccomp-dev",
    "libsqlite3-dev",
    "libtool",
    "libuv1-dev",
    "pkg-config",
];

/// What a running node calls or loads.
pub const RUN: &[&str] = &["iproute2", "kmod", "mount", "nftables", "passwd", "util-linux"];

/// What only tests need.
pub const TEST: &[&str] = &[
    "busybox-static",
    "curl",
    "debootstrap",
    "e2fsprogs",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "postgresql",
    "qemu-user-static",
    "qemu-system-x86",
    "qemu-utils",
    "tar",
];

/// What only measurements need: one file of an image, and the compression of a snap.
pub const MEASURE: &[&str] = &["busybox-static", "squashfs-tools"];

/// Installs those of `wanted` that are missing. Nothing is asked of the network when all is there.
pub fn ensure(wanted: &[&str], purpose: &str, logs: &Path) -> Result<()> {
    let Some(installed) = installed(wanted) else {
        bail!(
            "dpkg-query is not there, so this is no Debian-like machine; install what stands for \
             these packages yourself: {}",
            wanted.join(" ")
        );
    };
    let missing = choose_missing(wanted, &installed);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Uid::effective().is_root() {
        bail!(
            "packages to {purpose} are missing and only root can install them; as root run: apt-get install {list}"
        );
    }
    announce(&format!("installing packages to {purpose}: {list}"), 30 + 5 * missing.len() as u64);
    run_logged(&mut apt(&["update"]), &logs.join("apt-update.log"))
        .context("the package lists cannot be read")?;
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    run_logged(install.args(&missing), &logs.join("apt-install.log"))
        .with_context(|| format!("cannot install {list}"))?;
    Ok(())
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The installed ones of `wanted`; none if there is nothing to ask.
fn installed(wanted: &[&str]) -> Option<BTreeSet<String>> {
    output_of(Command::new("dpkg-query").arg("--version"))?;
    // It fails when one package is unknown, and says about the others all the same.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .ok()?;
    Some(parse_installed(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_installed(listing: &str) -> BTreeSet<String> {
    listing.lines().filter_map(|line| line.strip_suffix(" installed")).map(str::to_owned).collect()
}

fn choose_missing<'a>(wanted: &[&'a str], installed: &BTreeSet<String>) -> Vec<&'a str> {
    wanted.iter().copied().filter(|name| !installed.contains(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_was_removed_counts_as_missing() {
        let installed =
            parse_installed("kmod installed\nmount config-files\nlibuv1-dev installed\n");
        assert_eq!(
            choose_missing(&["kmod", "mount", "nftables"], &installed),
            ["mount", "nftables"]
        );
    }
}
