//! A control-plane node and workers of it, each in a namespace of its own.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::{Inventory, Network, NodeOptions, Outcome, TestNode, eventually, run, skiff_binary};

/// A node may take so long on a busy build machine, in seconds.
pub const READY_TIMEOUT: &str = "240";

/// A node that has founded a cluster, for the others.
pub fn control_plane(network: &Network, name: &str) -> TestNode {
    TestNode::started(network, name, &NodeOptions::default())
}

/// What is to be typed on a machine that will be a worker, without `sudo skiff`.
#[track_caller]
pub fn add_node(first: &TestNode, options: &[&str]) -> Vec<String> {
    add(first, &[&["--worker"], options].concat())
}

/// The same for a machine that will run the control plane.
#[track_caller]
pub fn add_control_plane(first: &TestNode) -> Vec<String> {
    add(first, &[])
}

#[track_caller]
fn add(first: &TestNode, options: &[&str]) -> Vec<String> {
    let args = [&["add-node", "--output", "short"], options].concat();
    let line = first.skiff(&args).must();
    let line = line.trim().strip_prefix("sudo skiff ").expect("it is typed by root");
    line.split(' ').map(str::to_owned).collect()
}

/// Types it there.
#[track_caller]
pub fn join(node: &TestNode, line: &[String]) -> Outcome {
    let mut args: Vec<&str> = line.iter().map(String::as_str).collect();
    args.extend(["--timeout", READY_TIMEOUT]);
    node.skiff(&args)
}

/// Types it there and does not wait.
#[track_caller]
pub fn begin_join(node: &TestNode, line: &[String]) -> Child {
    let mut command = node.command(skiff_binary());
    command.args(line).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("the command is started")
}

/// A worker that has joined; prints how long it took from the command to Ready.
#[track_caller]
pub fn worker(network: &Network, first: &TestNode, name: &str) -> TestNode {
    joined(network, name, &add_node(first, &[]))
}

/// The same with a node that runs the control plane.
#[track_caller]
pub fn member(network: &Network, first: &TestNode, name: &str) -> TestNode {
    joined(network, name, &add_control_plane(first))
}

#[track_caller]
fn joined(network: &Network, name: &str, line: &[String]) -> TestNode {
    let node = TestNode::new(network, name, &NodeOptions::default());
    let begun = Instant::now();
    join(&node, line).must();
    println!("{name}: {:.1} s from join to Ready", begun.elapsed().as_secs_f64());
    node
}

/// `skiff nodes` on that node; none when it does not answer.
pub fn nodes(on: &TestNode) -> Result<Vec<skiff_api::ClusterNode>, String> {
    let outcome = on.skiff(&["nodes", "--output", "json"]);
    match outcome.ok() {
        true => serde_json::from_str(&outcome.stdout).map_err(|error| error.to_string()),
        false => Err(outcome.stderr),
    }
}

/// A line of `skiff nodes` on that node, in words.
#[track_caller]
pub fn state_of(on: &TestNode, name: &str) -> Option<String> {
    let nodes = nodes(on).expect("it lists the nodes");
    let found = nodes.into_iter().find(|node| node.name == name);
    found.map(|node| serde_json::to_value(node.state).unwrap().as_str().unwrap().to_owned())
}

/// Nothing is left of a join but the configuration that was there before.
#[track_caller]
pub fn assert_untouched(node: &TestNode) {
    let left = node.inventory();
    assert_eq!(left, Inventory::default(), "something is left:\n{left}");
    let mut files: Vec<String> = std::fs::read_dir(node.root())
        .expect("the root is there")
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, ["skiff.toml"]);
}

/// Asks from the node's own network.
pub fn fetch(node: &TestNode, url: &str) -> Result<String, String> {
    let outcome = run(node.command("curl").args(["-sS", "--max-time", "5", url]));
    if outcome.ok() { Ok(outcome.stdout) } else { Err(outcome.stderr) }
}

/// Ends a process that this test's node started, without a word.
#[track_caller]
pub fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it can be killed");
}

/// The pid of a node's skiffd.
#[track_caller]
pub fn skiffd(node: &TestNode) -> u32 {
    let text = std::fs::read_to_string(node.root().join("run/skiffd.pid")).expect("it runs");
    text.trim().parse().expect("a pid")
}

/// Waits for a file to appear.
#[track_caller]
pub fn wait_for_file(path: &Path, bound: Duration) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < bound, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a node is ready in the eyes of another.
#[track_caller]
pub fn wait_ready(on: &TestNode, name: &str, bound: Duration) {
    eventually(&format!("{name} is ready"), bound, || match state_of(on, name).as_deref() {
        Some("ready") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
