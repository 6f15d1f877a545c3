//! A bound on the memory of everything that a node runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The node's own control group where the kernel counts memory, made before the node is and
/// bounded: daemons, shims and pods are below it, whatever is started in `inner` as well.
pub struct MemoryGroup {
    directory: PathBuf,
    /// Where processes may be that have no group of the node's own: skiffd, commands.
    inner: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// What the kernel counted so far.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    pub used_bytes: u64,
    pub used_bytes_max: u64,
    /// What cannot be given back to the kernel under pressure.
    pub anonymous_bytes: u64,
    pub oom_kills: u64,
    pub major_faults: u64,
    /// How often the bound was reached and something had to be given back. Version 1 does not say:
    /// its `failcnt` stays 0 here even when a process is killed at the bound.
    pub reclaims: Option<u64>,
}

impl MemoryGroup {
    pub fn new(instance: &str, limit_bytes: u64) -> Result<Self> {
        let first = Path::new("/sys/fs/cgroup/memory");
        let second = Path::new("/sys/fs/cgroup");
        let (top, version) = match first.join("memory.limit_in_bytes").is_file() {
            true => (first, Version::V1),
            false => (second, Version::V2),
        };
        ensure!(
            version == Version::V1 || second.join("cgroup.controllers").is_file(),
            "the kernel counts no memory by control group here"
        );
        let directory = top.join(instance);
        let group = Self { inner: directory.join("outside-daemons"), directory, version };
        if version == Version::V2 {
            fs::write(top.join("cgroup.subtree_control"), "+memory")
                .context("memory cannot be counted by control group")?;
        }
        fs::create_dir_all(&group.directory)
            .with_context(|| format!("cannot make {}", group.directory.display()))?;
        let (limit, swap) = match version {
            Version::V1 => ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", limit_bytes)),
            Version::V2 => {
                fs::write(group.directory.join("cgroup.subtree_control"), "+memory")?;
                ("memory.max", ("memory.swap.max", 0))
            }
        };
        fs::write(group.directory.join(limit), limit_bytes.to_string())
            .with_context(|| format!("cannot bound {}", group.directory.display()))?;
        // Where the kernel does not count swap there is nothing to bound.
        let _ = fs::write(group.directory.join(swap.0), swap.1.to_string());
        fs::create_dir_all(&group.inner)?;
        Ok(group)
    }

    /// Where a process writes its id to be counted.
    pub fn procs(&self) -> PathBuf {
        self.inner.join("cgroup.procs")
    }

    /// Pids of all processes in the group and below.
    pub fn processes(&self) -> Vec<u32> {
        let read = |dir: PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let texts: Vec<String> = descendants(&self.directory).into_iter().map(read).collect();
        texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect()
    }

    pub fn counts(&self) -> Counts {
        let number = |file: &str| self.read(file).trim().parse().unwrap_or(0);
        let of = |file: &str, key: &str| keyed(&self.read(file), key);
        match self.version {
            Version::V1 => Counts {
                used_bytes: number("memory.usage_in_bytes"),
                used_bytes_max: number("memory.max_usage_in_bytes"),
                anonymous_bytes: of("memory.stat", "total_rss"),
                // Counted where the killed process was, not upwards: the group itself says 0.
                oom_kills: descendants(&self.directory)
                    .iter()
                    .map(|dir| fs::read_to_string(dir.join("memory.oom_control")))
                    .map(|text| keyed(&text.unwrap_or_default(), "oom_kill"))
                    .sum(),
                major_faults: of("memory.stat", "total_pgmajfault"),
                reclaims: None,
            },
            Version::V2 => Counts {
                used_bytes: number("memory.current"),
                used_bytes_max: number("memory.peak"),
                anonymous_bytes: of("memory.stat", "anon"),
                oom_kills: of("memory.events", "oom_kill"),
                major_faults: of("memory.stat", "pgmajfault"),
                reclaims: Some(of("memory.events", "max")),
            },
        }
    }

    /// Lets skiffd out, so that a reset by group does not end the one that carries it out.
    pub fn release(&self) {
        let top = self.directory.parent().unwrap_or(Path::new("/sys/fs/cgroup"));
        for pid in fs::read_to_string(self.procs()).unwrap_or_default().lines() {
            // One that ended meanwhile needs no letting out.
            let _ = fs::write(top.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.inner);
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory.join(file)).unwrap_or_default()
    }
}

impl Drop for MemoryGroup {
    /// After the node, which removes the group with everything below; this is for a node that
    /// was never made.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.inner);
        let _ = fs::remove_dir(&self.directory);
    }
}

fn keyed(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

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
