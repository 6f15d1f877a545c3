//! What must hold before something long begins, each with what to do about it.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use crate::command::output_of;

const GIB: u64 = 1 << 30;
/// A first build: the caches of Go and cargo included. 12 GiB of Go caches were measured, the rest is cargo's.
pub const FIRST_BUILD_BYTES: u64 = 18 * GIB;
/// A build with everything in the caches.
pub const NEXT_BUILD_BYTES: u64 = 3 * GIB;
/// nftables as kube-proxy uses it, and idmapped mounts.
const OLDEST_KERNEL: (u32, u32) = (5, 13);

/// Whether there is room for a build, asked before it starts.
pub fn require_space(folder: &Path, bytes: u64) -> Result<()> {
    let existing = folder.ancestors().find(|f| f.exists()).context("no such file system")?;
    let free = free_bytes(existing)?;
    if free < bytes {
        bail!(
            "not enough disk space below {}: this needs about {}, {} are free",
            existing.display(),
            gib(bytes),
            gib(free)
        );
    }
    Ok(())
}

pub fn require_root(to: &str) -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    bail!("only root can {to}; run this with sudo");
}

pub fn require_kernel() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("the kernel does not say its version")?;
    let release = release.trim();
    match parse_kernel(release) {
        Some(version) if version >= OLDEST_KERNEL => Ok(()),
        _ => bail!(
            "kernel {release} is too old: {}.{} or newer runs a node",
            OLDEST_KERNEL.0,
            OLDEST_KERNEL.1
        ),
    }
}

/// Whether somebody else has the port; our own node is asked for first by the caller.
pub fn require_free_port(port: u16) -> Result<()> {
    match TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let holder =
                output_of(Command::new("ss").args(["-Hltnp", &format!("sport = :{port}")]))
                    .filter(|text| !text.is_empty())
                    .map(|text| format!("\n{text}"))
                    .unwrap_or_default();
            bail!("port {port} is taken by another program, and the API server needs it{holder}")
        }
        Err(error) => Err(error).with_context(|| format!("cannot try port {port}")),
    }
}

pub fn free_bytes(folder: &Path) -> Result<u64> {
    let stat = statvfs(folder)
        .with_context(|| format!("cannot see how much is free below {}", folder.display()))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / GIB as f64)
}

fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_whatever_follows() {
        assert_eq!(parse_kernel("6.1.0-28-cloud-amd64"), Some((6, 1)));
        assert_eq!(parse_kernel("5.4+"), Some((5, 4)));
        assert_eq!(parse_kernel("unknown"), None);
    }

    #[test]
    fn missing_space_names_what_is_needed_and_what_is_there() {
        let error =
            require_space(Path::new("/nonexistent/below"), u64::MAX).unwrap_err().to_string();
        assert!(error.starts_with("not enough disk space below /: this needs about"), "{error}");
        assert!(error.ends_with("are free"), "{error}");
    }
}
