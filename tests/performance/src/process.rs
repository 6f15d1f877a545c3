//! Every process beneath a node, and what it costs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::figure::{Report, Side};

/// A process and what is known of it by its number.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub name: String,
}

/// Those that name the root in their arguments or environment, and all that these started: shims
/// name it, and containers are children of shims.
pub fn beneath(root: &Path) -> Vec<Process> {
    let root = root.to_string_lossy();
    let own = std::process::id();
    let mut parents = HashMap::new();
    let mut found = HashSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(parent) = parent(pid) else { continue };
        parents.insert(pid, parent);
        let names = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(root.as_ref())
        };
        if pid != own && (names("cmdline") || names("environ")) {
            found.insert(pid);
        }
    }
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    let mut all: Vec<u32> = found.into_iter().collect();
    all.sort_unstable();
    all.into_iter().map(|pid| Process { pid, name: name(pid) }).collect()
}

/// The fourth field of stat(5); the second may hold spaces and brackets.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(')')?.1;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The program and its first argument: `kube control`.
fn name(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut words = text.split('\0').filter(|word| !word.is_empty());
    let program = words.next().unwrap_or("?").rsplit('/').next().unwrap_or("?").to_owned();
    let rest: Vec<&str> =
        words.take(2).take_while(|word| !word.starts_with('-') && !word.contains('/')).collect();
    [vec![program.as_str()], rest].concat().join(" ")
}

/// PSS of smaps_rollup (proc(5)), in KiB; 0 for a process that is gone.
fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

pub fn report_memory(side: Side, all: &[Process], report: &mut Report) {
    let mut sum = 0;
    let mut by_name: BTreeMap<&str, (u64, u32)> = BTreeMap::new();
    for process in all {
        let kib = pss_kib(process.pid);
        sum += kib;
        let entry = by_name.entry(&process.name).or_default();
        *entry = (entry.0 + kib, entry.1 + 1);
    }
    for (name, (kib, count)) in by_name {
        report.note(format!("{side:?}: {:7.1} MiB PSS  {name} ({count})", kib as f64 / 1024.0));
    }
    report.add("idle memory with DNS, MiB PSS", side, sum as f64 / 1024.0);
}

/// Processor time in ticks and bytes written so far.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    ticks: u64,
    written: u64,
}

fn spent(pid: u32) -> Spent {
    let stat = stat(pid).unwrap_or_default();
    let field = |number: usize| stat.get(number - 3).and_then(|f| f.parse().ok()).unwrap_or(0);
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Spent {
        ticks: field(14) + field(15),
        written: written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
    }
}

/// Counts over a span in which nobody asks anything of the node. A process that came or went in
/// between counts with what it spent while it was seen.
pub fn report_idle(side: Side, root: &Path, span: Duration, report: &mut Report) {
    /// USER_HZ is 100 on every architecture that we build for (proc(5)).
    const TICKS_PER_SECOND: f64 = 100.0;
    let before: HashMap<u32, Spent> =
        beneath(root).into_iter().map(|process| (process.pid, spent(process.pid))).collect();
    std::thread::sleep(span);
    let (mut ticks, mut written) = (0, 0);
    for process in beneath(root) {
        let now = spent(process.pid);
        let then = before.get(&process.pid).copied().unwrap_or_default();
        let share = (now.ticks - then.ticks.min(now.ticks)) as f64 / TICKS_PER_SECOND;
        ticks += now.ticks - then.ticks.min(now.ticks);
        written += now.written - then.written.min(now.written);
        let percent = share / span.as_secs_f64() * 100.0;
        if percent >= 0.05 {
            report.note(format!("{side:?}: {percent:7.2} % of a core  {}", process.name));
        }
    }
    let seconds = span.as_secs_f64();
    report.add("idle, % of a core", side, ticks as f64 / TICKS_PER_SECOND / seconds * 100.0);
    let mib_per_hour = written as f64 / seconds * 3600.0 / f64::from(1 << 20);
    report.add("idle, MiB written an hour", side, mib_per_hour);
}
