//! Control groups: by them a daemon is accounted and ended with all that it started.
//!
//! Version 1 has a tree for each controller and a daemon joins the same path in each; version 2
//! has one tree. A machine with both (version 2 at `unified`) counts as version 1, and the
//! unified tree is left alone: container runtimes do not move containers there, so that ending a
//! daemon by it would end containers.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use crate::process;

/// Which kind of control groups can be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    V1,
    V2,
    /// None may be written: daemons are known by a marker in their environment alone.
    Unavailable,
}

/// The trees of control groups that can be written.
#[derive(Clone, Debug)]
pub struct Cgroups {
    mode: Mode,
    /// The first decides who belongs to a group.
    trees: Arc<Vec<Tree>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tree {
    mount: PathBuf,
    controllers: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("{0:?} is not a path of a control group: absolute, without .. and not the root")]
    Path(String),
    #[error("cannot make the control group {}", path.display())]
    Create { path: PathBuf, source: io::Error },
}

/// Every process is in exactly one group of each of these, and container runtimes move
/// containers in all of them.
const DECIDING: [&str; 4] = ["pids", "memory", "freezer", "cpu"];
/// Between two looks at a group whose processes were killed.
const KILL_INTERVAL: Duration = Duration::from_millis(5);

impl Cgroups {
    /// Looks at what is mounted and may be written.
    pub fn detect() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        Self::from_mounts(&mounts, writable)
    }

    /// As if nothing could be written.
    #[cfg(test)]
    pub(crate) fn unavailable() -> Self {
        Self::from_mounts("", |_| false)
    }

    fn from_mounts(mounts: &str, writable: impl Fn(&Path) -> bool) -> Self {
        let mut first: Vec<Tree> = Vec::new();
        let mut second: Vec<Tree> = Vec::new();
        let mut devices: Vec<&str> = Vec::new();
        for (device, kind, tree) in mounts.lines().filter_map(parse_mount) {
            if devices.contains(&device) || !writable(&tree.mount) {
                continue;
            }
            devices.push(device);
            if kind == "cgroup" { first.push(tree) } else { second.push(tree) }
        }
        let rank = |tree: &Tree| {
            let known = |name: &&str| tree.controllers.iter().any(|c| c == name);
            DECIDING.iter().position(known).unwrap_or(DECIDING.len())
        };
        first.sort_by_key(rank);
        // A tree without controllers (systemd's own) decides nothing.
        let decided = first.first().is_some_and(|tree| rank(tree) < DECIDING.len());
        let (mode, trees) = match (decided, second.is_empty()) {
            (true, _) => (Mode::V1, first),
            (false, false) => (Mode::V2, second),
            (false, true) => (Mode::Unavailable, vec![]),
        };
        Self { mode, trees: Arc::new(trees) }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What does not work here, as a sentence.
    pub fn notice(&self) -> Option<&'static str> {
        (self.mode == Mode::Unavailable).then_some(
            "control groups may not be written: processes of daemons are known by their \
             environment alone, and their processor time by their processes",
        )
    }

    /// Makes the group in every tree; answers the files through which one joins it.
    pub fn ensure(&self, path: &str) -> Result<Vec<PathBuf>, CgroupError> {
        let relative = relative(path)?;
        let mut procs = Vec::new();
        for (index, tree) in self.trees.iter().enumerate() {
            match tree.ensure(&relative, self.mode) {
                Ok(directory) => procs.push(directory.join("cgroup.procs")),
                // Without the tree that decides, the group is of no use; without another it is.
                Err(error) if index == 0 => return Err(error),
                Err(error) => tracing::debug!(%error, "a control group is missing in one tree"),
            }
        }
        Ok(procs)
    }

    /// Living processes of the group and of the groups below it.
    pub fn processes(&self, path: &str) -> Vec<u32> {
        let (Ok(relative), Some(tree)) = (relative(path), self.trees.first()) else {
            return vec![];
        };
        let mut found = Vec::new();
        for directory in descendants(&tree.mount.join(relative)) {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        found.retain(|pid| *pid != 0 && process::is_alive(*pid));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Names of the groups directly below a path.
    pub fn children(&self, path: &str) -> Vec<String> {
        let (Ok(relative), Some(tree)) = (relative(path), self.trees.first()) else {
            return vec![];
        };
        let Ok(entries) = fs::read_dir(tree.mount.join(relative)) else { return vec![] };
        entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Kills everything in the group and below; false when something is left after `within`.
    pub async fn kill(&self, path: &str, within: Duration) -> bool {
        let end = tokio::time::Instant::now() + within;
        loop {
            let alive = self.processes(path);
            if alive.is_empty() {
                return true;
            }
            if tokio::time::Instant::now() >= end {
                return false;
            }
            self.kill_once(path, &alive);
            tokio::time::sleep(KILL_INTERVAL).await;
        }
    }

    /// On version 2 the kernel kills all at once, so that no fork slips through.
    fn kill_once(&self, path: &str, alive: &[u32]) {
        if self.mode == Mode::V2
            && let (Ok(relative), Some(tree)) = (relative(path), self.trees.first())
            && fs::write(tree.mount.join(relative).join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in alive {
            process::kill(*pid);
        }
    }

    /// Removes the group and those below it from every tree. Groups that are in use stay, and
    /// the first reason is answered; groups that are not there are no reason.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let Ok(relative) = relative(path) else { return Ok(()) };
        let mut result = Ok(());
        for tree in self.trees.iter() {
            for directory in descendants(&tree.mount.join(&relative)).iter().rev() {
                match fs::remove_dir(directory) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => result = result.and(Err(error)),
                }
            }
        }
        result
    }

    /// Processor time of all processes that were ever in the group, where the kernel counts it.
    pub fn cpu_time(&self, path: &str) -> Option<Duration> {
        let relative = relative(path).ok()?;
        if self.mode == Mode::V2 {
            let stat = self.trees.first()?.mount.join(relative).join("cpu.stat");
            let text = fs::read_to_string(stat).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            return line.parse().ok().map(Duration::from_micros);
        }
        let has = |tree: &&Tree| tree.controllers.iter().any(|name| name == "cpuacct");
        let file = self.trees.iter().find(has)?.mount.join(relative).join("cpuacct.usage");
        fs::read_to_string(file).ok()?.trim().parse().ok().map(Duration::from_nanos)
    }
}

impl Tree {
    fn ensure(&self, relative: &Path, mode: Mode) -> Result<PathBuf, CgroupError> {
        let mut directory = self.mount.clone();
        for part in relative.components() {
            if mode == Mode::V2 {
                offer_controllers(&directory);
            }
            directory.push(part);
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(CgroupError::Create { path: directory, source }),
            }
            if mode == Mode::V1 && self.controllers.iter().any(|name| name == "cpuset") {
                inherit_cpuset(&directory);
            }
        }
        Ok(directory)
    }
}

/// Offers to the groups below every controller that a group of version 2 has itself: the kubelet
/// refuses to work in a group that lacks one of the root's (hugetlb, for example).
fn offer_controllers(directory: &Path) {
    let has = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in has.split_whitespace() {
        // One at a time: one that cannot be had must not cost the others, and it is best effort,
        // since what is missing is not accounted by the kernel.
        let control = directory.join("cgroup.subtree_control");
        let _ = fs::write(control, format!("+{controller}"));
    }
}

/// No process can join a cpuset of version 1 before it has processors and memory nodes.
fn inherit_cpuset(directory: &Path) {
    let Some(parent) = directory.parent() else { return };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let is_empty = |text: &String| text.trim().is_empty();
        if fs::read_to_string(directory.join(file)).as_ref().is_ok_and(is_empty)
            && let Ok(inherited) = fs::read_to_string(parent.join(file))
        {
            // A failure shows when the first process cannot join.
            let _ = fs::write(directory.join(file), inherited.trim());
        }
    }
}

/// The directory and all below it, parents first.
fn descendants(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.extend(entries.filter(is_directory).map(|entry| entry.path()));
        next += 1;
    }
    found
}

/// `/skiff/daemon` as `skiff/daemon`.
fn relative(path: &str) -> Result<PathBuf, CgroupError> {
    let bad = || CgroupError::Path(path.to_owned());
    let relative = PathBuf::from(path.strip_prefix('/').ok_or_else(bad)?);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && relative.components().next().is_some() { Ok(relative) } else { Err(bad()) }
}

/// Device, file system and tree of a line of mountinfo (proc(5)) that is about control groups.
fn parse_mount(line: &str) -> Option<(&str, &str, Tree)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (device, _root, mount) = (left.next()?, left.next()?, left.next()?);
    let mut right = right.split(' ');
    let kind = right.next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
    let options = right.nth(1)?;
    let controllers = options.split(',').map(str::to_owned).collect();
    Some((device, kind, Tree { mount: mount.into(), controllers }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
33 30 0:29 / /sys/fs/cgroup/pids rw,relatime shared:4 - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 30 0:29 / /mnt/pids rw - cgroup cgroup rw,pids";

    fn mounts(cgroups: &Cgroups) -> Vec<&str> {
        cgroups.trees.iter().filter_map(|tree| tree.mount.to_str()).collect()
    }

    #[test]
    fn both_versions_together_are_the_first() {
        let cgroups = Cgroups::from_mounts(V1, |_| true);
        assert_eq!(cgroups.mode(), Mode::V1);
        let expected = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/cpuset"];
        assert_eq!(mounts(&cgroups), expected);
    }

    #[test]
    fn the_second_version_alone_is_one_tree() {
        let line = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let cgroups = Cgroups::from_mounts(line, |_| true);
        assert_eq!((cgroups.mode(), mounts(&cgroups)), (Mode::V2, vec!["/sys/fs/cgroup"]));
    }

    #[test]
    fn trees_that_may_not_be_written_do_not_count() {
        let cgroups = Cgroups::from_mounts(V1, |_| false);
        assert_eq!(cgroups.mode(), Mode::Unavailable);
        assert!(cgroups.notice().is_some());
        assert_eq!(cgroups.ensure("/a").expect("nothing to make"), Vec::<PathBuf>::new());
        assert_eq!(cgroups.processes("/a"), Vec::<u32>::new());
    }

    #[test]
    fn the_root_and_ways_out_are_no_groups() {
        for path in ["", "/", "a", "/a/../..", "//"] {
            assert!(relative(path).is_err(), "{path:?}");
        }
        assert_eq!(relative("/a/b").expect("a group"), PathBuf::from("a/b"));
    }
}
