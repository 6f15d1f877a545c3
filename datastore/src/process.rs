//! What this process takes, by /proc.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// See the fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUsage {
    /// User and system time.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: usize,
    /// How many files may be open.
    pub files_max: u64,
    /// Seconds since 1970.
    pub started_at: f64,
}

/// What /proc does not tell is zero.
pub fn usage() -> ProcessUsage {
    let number = |name| sysconf(name).ok().flatten().unwrap_or(0);
    let ticks = number(SysconfVar::CLK_TCK).max(1) as f64;
    let page = number(SysconfVar::PAGE_SIZE) as u64;
    // Behind the name, which may hold anything, the third field comes first.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let field = |number: usize| -> f64 {
        fields.get(number - 2).and_then(|field| field.parse().ok()).unwrap_or(0.0)
    };
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    ProcessUsage {
        cpu_seconds: (field(14) + field(15)) / ticks,
        resident_bytes: field(24) as u64 * page,
        open_files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        files_max: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        started_at: boot.unwrap_or(0.0) + field(22) / ticks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let usage = usage();
        assert!(usage.resident_bytes > 1 << 20, "{usage:?}");
        assert!(usage.open_files > 2 && usage.files_max > 2, "{usage:?}");
        assert!(usage.started_at > 1.6e9, "{usage:?}");
    }
}
