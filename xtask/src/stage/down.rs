//! `down`: the node and everything that `up` left on the machine, except for caches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::up::{LINK, state_root};
use crate::command::{announce, output_of, run_shown};
use crate::preflight::require_root;
use crate::project::Project;

const CONFIGURATION: &str = "/etc/skiff";
const UNIT: &str = "/etc/systemd/system/skiff.service";
const USERS: &[&str] = &["skiff-datastore", "skiff-control"];
const GROUPS: &[&str] = &["skiff-datastore", "skiff-control", "skiff"];

pub fn run(project: &Project) -> Result<()> {
    require_root("remove a node")?;
    let root = state_root();
    if root.exists() {
        let Some(program) = find_program(project) else {
            bail!(
                "{} holds a node, but the program that can end it is not built; run `make up` \
                 first, then repeat",
                root.display()
            );
        };
        announce("stopping the node", 10);
        run_shown(Command::new(&program).arg("stop"))?;
        announce("removing its state", 5);
        run_shown(Command::new(&program).args(["reset", "--yes"]))?;
    }
    remove_unit()?;
    remove_link(project)?;
    remove_accounts()?;
    for folder in [root.as_path(), Path::new(CONFIGURATION)] {
        remove_folder(folder)?;
    }
    eprintln!(
        "==> the node is gone; what was built stays in {} and {}",
        project.cache.display(),
        project.target.display()
    );
    Ok(())
}

fn find_program(project: &Project) -> Option<PathBuf> {
    [project.program(), project.dist().join("bin/skiff"), PathBuf::from(LINK)]
        .into_iter()
        .find(|program| program.is_file())
}

fn remove_unit() -> Result<()> {
    if !Path::new(UNIT).exists() {
        return Ok(());
    }
    // Where systemd is not running there is nothing to tell it.
    let _ = output_of(Command::new("systemctl").args(["disable", "skiff.service"]));
    fs::remove_file(UNIT).with_context(|| format!("cannot remove {UNIT}"))?;
    let _ = output_of(Command::new("systemctl").arg("daemon-reload"));
    Ok(())
}

fn remove_link(project: &Project) -> Result<()> {
    match fs::read_link(LINK) {
        Ok(target) if target == project.program() || !target.exists() => {
            fs::remove_file(LINK).with_context(|| format!("cannot remove {LINK}"))
        }
        _ => Ok(()),
    }
}

fn remove_accounts() -> Result<()> {
    for name in USERS.iter().filter(|name| is_known("passwd", name)) {
        run_shown(Command::new("userdel").arg(name))?;
    }
    // A user's own group goes with the user on most machines.
    for name in GROUPS.iter().filter(|name| is_known("group", name)) {
        run_shown(Command::new("groupdel").arg(name))?;
    }
    Ok(())
}

fn is_known(database: &str, name: &str) -> bool {
    output_of(Command::new("getent").args([database, name])).is_some()
}

/// Removes a folder, but never across a mount that something may still use.
fn remove_folder(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("mounts cannot be read")?;
    if let Some(mount) = find_mount_below(&mounts, folder) {
        bail!("{mount} is still mounted; unmount it, then repeat");
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn find_mount_below<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .find(|point| Path::new(point).starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_below_the_folder_is_found_and_a_neighbour_is_not() {
        let mounts = "30 1 0:27 / /var/lib/skiff-other rw - tmpfs tmpfs rw\n\
                      31 1 0:28 / /var/lib/skiff/kubelet/pods/a rw - tmpfs tmpfs rw\n";
        let folder = Path::new("/var/lib/skiff");
        assert_eq!(find_mount_below(mounts, folder), Some("/var/lib/skiff/kubelet/pods/a"));
        assert_eq!(find_mount_below(mounts, Path::new("/etc/skiff")), None);
    }
}
