//! What a node has outside its files: the list that must be empty after a stop.

use std::fs;

use crate::node::TestNode;
use crate::run::run;

/// Everything found, one readable line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub processes: Vec<String>,
    pub mounts: Vec<String>,
    pub cgroups: Vec<String>,
    pub namespaces: Vec<String>,
    pub links: Vec<String>,
    pub routes: Vec<String>,
    pub tables: Vec<String>,
    pub sockets: Vec<String>,
}

impl Inventory {
    pub(crate) fn take(node: &TestNode) -> Self {
        let root = node.root().to_string_lossy().into_owned();
        Self {
            processes: processes(&root),
            mounts: lines_of("/proc/self/mountinfo", |line| {
                line.split(' ').nth(4).filter(|path| path.starts_with(&root)).map(str::to_owned)
            }),
            cgroups: cgroups(&node.instance()),
            namespaces: files_below(&node.root().join("run"), "netns"),
            links: words(node, &["ip", "-o", "link"], |line| {
                let name = line.split(": ").nth(1)?.split('@').next()?;
                (name != "lo" && name != "eth0").then(|| name.to_owned())
            }),
            routes: words(node, &["ip", "route"], |line| {
                (!line.contains(" dev eth0 ")).then(|| line.to_owned())
            }),
            tables: words(node, &["nft", "list", "tables"], |line| Some(line.to_owned())),
            sockets: lines_of("/proc/net/unix", |line| {
                line.split_whitespace().nth(7).filter(|p| p.starts_with(&root)).map(str::to_owned)
            }),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everybody who belongs to a node: by the root that he names, or by the control group.
pub(crate) fn pids(root: &str, instance: &str) -> Vec<i32> {
    let first = |line: &String| line.split(' ').next().and_then(|pid| pid.parse().ok());
    let mut all: Vec<i32> = processes(root).iter().filter_map(first).collect();
    for group in cgroups(instance) {
        for list in files_below(std::path::Path::new(&group), "cgroup.procs") {
            let text = fs::read_to_string(list).unwrap_or_default();
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    all
}

/// Processes that name the root in their command line or environment.
fn processes(root: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) || pid == own {
            continue;
        }
        let read = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        if command.contains(root) || read("environ").contains(root) {
            found.push(format!("{pid} {}", command.trim()));
        }
    }
    found
}

/// Control groups called by the node's instance, in any hierarchy.
fn cgroups(instance: &str) -> Vec<String> {
    if instance.is_empty() {
        return Vec::new();
    }
    let mut places = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    places.extend(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path()));
    let found = places.into_iter().map(|place| place.join(instance)).filter(|path| path.is_dir());
    found.map(|path| path.display().to_string()).collect()
}

fn files_below(dir: &std::path::Path, part: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path, part));
        } else if path.to_string_lossy().contains(part) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn lines_of(path: &str, pick: impl Fn(&str) -> Option<String>) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().filter_map(pick).collect()
}

fn words(node: &TestNode, words: &[&str], pick: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let outcome = run(node.command(words[0]).args(&words[1..]));
    outcome.stdout.lines().filter_map(pick).collect::<Vec<_>>()
}

/// Removes nothing and changes nothing: for the message of a failed assertion.
impl std::fmt::Display for Inventory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            ("process", &self.processes),
            ("mount", &self.mounts),
            ("cgroup", &self.cgroups),
            ("network namespace", &self.namespaces),
            ("link", &self.links),
            ("route", &self.routes),
            ("nftables table", &self.tables),
            ("socket", &self.sockets),
        ];
        for (kind, items) in kinds {
            for item in items {
                writeln!(f, "{kind}: {item}")?;
            }
        }
        Ok(())
    }
}
