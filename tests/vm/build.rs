//! The build under test as a disk, as a user's package would bring it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use harness::{distribution, skiff_binary};

/// Room for the file system itself.
const OVERHEAD_MIB: u64 = 64;

/// Puts the distribution and the `skiff` under test on a read-only disk.
pub fn disk(folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("build");
    copy_tree(&distribution(), &tree)?;
    let skiff = tree.join("bin/skiff");
    let _ = fs::remove_file(&skiff);
    fs::copy(skiff_binary(), &skiff)
        .with_context(|| format!("cannot copy {}", skiff_binary().display()))?;
    let disk = folder.join("build.raw");
    let mib = size(&tree)? / (1024 * 1024) * 11 / 10 + OVERHEAD_MIB;
    let status = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
        .args([&tree, &disk])
        .arg(format!("{mib}M"))
        .stdout(Stdio::null())
        .status()
        .context("cannot run mke2fs")?;
    ensure!(status.success(), "mke2fs failed ({status})");
    fs::remove_dir_all(&tree)?;
    Ok(disk)
}

/// `cp`, since it keeps modes and shares blocks where the file system can.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["--archive", "--dereference", "--reflink=auto"])
        .args([from, to])
        .status()
        .context("cannot run cp")?;
    ensure!(status.success(), "cp of {} failed ({status})", from.display());
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += if data.is_dir() { size(&entry.path())? } else { data.len() };
    }
    Ok(sum)
}
