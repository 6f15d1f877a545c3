//! What the processes beneath a node take: memory, processor time, bytes written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The unit of times in /proc: fixed by the kernel's interface on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// One process and its memory.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Process {
    pub pid: u32,
    /// Program and, where it has one, its verb: `kube control`.
    pub name: String,
    /// Proportional set size: shared pages count in parts.
    pub pss_kib: u64,
    /// The part of it that no file backs.
    pub anonymous_kib: u64,
}

/// What processes have used since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_s: f64,
    pub written_bytes: u64,
}

/// Every process beneath a node: in its control groups (shims, pods), or naming its root in
/// command line or environment (skiffd, daemons), and all children of these.
pub fn processes_beneath(instance: &str, root: &Path) -> Vec<u32> {
    let root = root.to_string_lossy();
    let own = std::process::id();
    let mut parents = Vec::new();
    let mut found = BTreeSet::new();
    for pid in pids().filter(|pid| *pid != own) {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let text = |file: &str| String::from_utf8_lossy(&read(file)).into_owned();
        if let Some(parent) = parse_stat(&text("stat")).map(|stat| stat.parent) {
            parents.push((pid, parent));
        }
        if is_in_group(&text("cgroup"), instance)
            || text("cmdline").contains(&*root)
            || text("environ").contains(&*root)
        {
            found.insert(pid);
        }
    }
    loop {
        let before = found.len();
        for (pid, parent) in &parents {
            if found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

/// The memory of each; one that ended meanwhile is left out.
pub fn memory_of(pids: &[u32]) -> Vec<Process> {
    let measured = pids.iter().filter_map(|pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Process {
            pid: *pid,
            name: name(&command),
            pss_kib: kib(&rollup, "Pss:")?,
            anonymous_kib: kib(&rollup, "Pss_Anon:").unwrap_or(0),
        })
    });
    let mut all: Vec<Process> = measured.collect();
    all.sort_by_key(|process| std::cmp::Reverse(process.pss_kib));
    all
}

/// What they and their ended children used so far. A child that ends between two looks moves to
/// its parent's account, so the difference of two looks misses only what nobody waited for.
pub fn usage_of(pids: &[u32]) -> Usage {
    let read = |pid: &u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let ticks: u64 = pids
        .iter()
        .filter_map(|pid| parse_stat(&read(pid, "stat").ok()?).map(|stat| stat.ticks))
        .sum();
    let written_bytes =
        pids.iter().filter_map(|pid| parse_written(&read(pid, "io").ok()?)).sum::<u64>();
    Usage { cpu_s: ticks as f64 / TICKS_PER_SECOND, written_bytes }
}

/// Processes outside `pids` that run the same program files: they share pages with those inside,
/// whose proportional size is then too small.
pub fn sharers(pids: &[u32]) -> usize {
    let file = |pid: &u32| {
        let data = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        use std::os::unix::fs::MetadataExt;
        Some((data.dev(), data.ino()))
    };
    let ours: BTreeSet<(u64, u64)> = pids.iter().filter_map(file).collect();
    self::pids()
        .filter(|pid| !pids.contains(pid))
        .filter(|pid| file(pid).is_some_and(|file| ours.contains(&file)))
        .count()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_in_group(cgroup: &str, instance: &str) -> bool {
    !instance.is_empty()
        && cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
            path.trim_start_matches('/').split('/').next().is_some_and(|first| first == instance)
        })
}

struct Stat {
    parent: u32,
    /// User and system, own and of children that ended.
    ticks: u64,
}

/// proc(5); the name in parentheses may contain anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

fn parse_written(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

fn kib(rollup: &str, key: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Program without its folder, and its first argument unless that is an option.
fn name(command: &[u8]) -> String {
    let text = String::from_utf8_lossy(command).into_owned();
    let mut words = text.split('\0');
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    match words.next() {
        Some(verb)
            if !verb.is_empty()
                && verb.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                && !verb.starts_with('-') =>
        {
            format!("{program} {verb}")
        }
        _ => program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields_of_stat() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 5 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 110));
        assert!(parse_stat("42 (gone").is_none());
    }

    #[test]
    fn groups_of_another_instance_are_not_ours() {
        let ours = "4:memory:/skiff-1a/shim\n0::/\n";
        assert!(is_in_group(ours, "skiff-1a"));
        assert!(!is_in_group("4:memory:/skiff-1ab/shim\n0::/\n", "skiff-1a"));
        assert!(!is_in_group(ours, ""));
    }

    #[test]
    fn a_process_is_called_by_program_and_verb() {
        assert_eq!(name(b"/a/bin/kube\0control\0--config\0x\0"), "kube control");
        assert_eq!(name(b"/coredns\0-conf\0/etc\0"), "coredns");
        assert_eq!(name(b"etcd\0"), "etcd");
    }

    #[test]
    fn this_process_writes_and_takes_memory() {
        let me = [std::process::id()];
        let memory = memory_of(&me);
        assert!(memory[0].pss_kib >= memory[0].anonymous_kib && memory[0].anonymous_kib > 0);
        assert_eq!(
            parse_written("wchar: 9\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n"),
            Some(4096)
        );
    }
}
