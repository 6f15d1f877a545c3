//! Processor time and memory of a set of processes.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::process;

/// What a daemon uses, all its processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// Each shared page counted in equal parts to all who share it: these add up.
    pub pss_bytes: u64,
    pub rss_bytes: u64,
    /// Of those in RSS: not backed by a file, so that they cannot be dropped.
    pub anonymous_bytes: u64,
    pub processes: u32,
}

impl Usage {
    /// Of everything in a control group.
    pub fn of_cgroup(cgroups: &Cgroups, path: &str) -> Self {
        Self::of(&cgroups.processes(path), cgroups.cpu_time(path))
    }

    /// Of these processes. The group's own count of processor time is better where there is
    /// one: it knows processes that ended.
    pub fn of(pids: &[u32], cpu_time: Option<Duration>) -> Self {
        let mut usage = Self { processes: pids.len() as u32, ..Self::default() };
        let mut ticks = 0;
        for pid in pids {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            usage.add_memory(&rollup.unwrap_or_default());
            ticks += process::stat(*pid).map_or(0, |stat| stat.cpu_ticks);
        }
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        usage.cpu_seconds =
            cpu_time.map_or(ticks as f64 / ticks_per_second, |time| time.as_secs_f64());
        usage
    }

    fn add_memory(&mut self, rollup: &str) {
        let kib = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        };
        self.pss_bytes += kib("Pss:").unwrap_or(0) << 10;
        self.rss_bytes += kib("Rss:").unwrap_or(0) << 10;
        self.anonymous_bytes += kib("Anonymous:").unwrap_or(0) << 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes() {
        let mut usage = Usage::default();
        usage.add_memory(
            "55-7f ---p 0 00:00 0 [rollup]\nRss:  8 kB\nPss:   3 kB\nAnonymous: 2 kB\n",
        );
        usage.add_memory("");
        let Usage { rss_bytes, pss_bytes, anonymous_bytes, .. } = usage;
        assert_eq!((rss_bytes, pss_bytes, anonymous_bytes), (8192, 3072, 2048));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(&[std::process::id()], None);
        assert!(usage.pss_bytes > 0 && usage.rss_bytes >= usage.pss_bytes, "{usage:?}");
    }
}
