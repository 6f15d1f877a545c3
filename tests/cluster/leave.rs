//! Nodes that leave: in order, or they stay as they were; whatever is killed at whatever step, it is
//! done or undone in the end.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{
    Inventory, Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run, skiff_binary,
};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::control_plane::{curl, settle, write};
use crate::life::{BUDGET, PODS, STUBBORN, places};
use crate::place::{
    add_node, assert_untouched, control_plane, kill, member, nodes, skiffd, state_of,
    wait_for_file, worker,
};

const BOUND: Duration = Duration::from_secs(120);
/// Within this, writes go on while the datastore's leader leaves.
const RESUME_BOUND: Duration = Duration::from_secs(5);
/// Within this, a join ends whose node was removed meanwhile.
const TOLD_BOUND: Duration = Duration::from_secs(60);

#[test]
fn a_worker_leaves_in_order_or_stays_and_a_dead_cluster_is_left_by_force() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = worker(&network, &alpha, "beta");
    let gamma = worker(&network, &alpha, "gamma");
    let all = [&alpha, &beta, &gamma];
    pods_on(&alpha, &beta, &all);

    alpha.apply(STUBBORN);
    alpha.wait_for("pod/lone", "condition=Ready", BOUND);
    let lone = beta.skiff(&["leave", "--yes"]);
    assert_eq!(lone.code, 1, "{}", lone.stderr);
    for words in ["make these pods anew: default/lone", "stays a member", "--skip-drain"] {
        assert!(lone.stderr.contains(words), "{words}: {}", lone.stderr);
    }
    assert_eq!(places(&alpha, "movable"), ["beta", "beta"], "a refused leave moved a pod");
    alpha.kubectl(&["delete", "pod", "lone"]).must();
    alpha.apply(BUDGET);
    let held = beta.skiff(&["leave", "--yes", "--timeout", "3s"]);
    assert_eq!(held.code, 1, "{}", held.stderr);
    for words in ["cannot be moved away", "stays a member", "hint: sudo skiff leave --timeout 30m"]
    {
        assert!(held.stderr.contains(words), "{words}: {}", held.stderr);
    }
    assert_eq!(stays(&alpha, &beta), Ok(()));
    is_taken_back_whoever_dies(&alpha, &beta);
    goes_on_from_where_there_is_no_way_back(&alpha, &beta);
    assert_eq!(places(&alpha, "movable").iter().filter(|place| *place == "beta").count(), 0);

    a_join_whose_node_was_removed_ends_at_once(&network, &alpha);

    alpha.power_off();
    // Its machine answers that nobody listens.
    alpha.set_link("up");
    let dead = gamma.skiff(&["leave", "--yes"]);
    assert_eq!(dead.code, 1, "{}", dead.stderr);
    for words in ["the cluster was not told", "stays a member", "hint: sudo skiff leave --force"] {
        assert!(dead.stderr.contains(words), "{words}: {}", dead.stderr);
    }
    assert!(!line(&gamma).exists());
    let forced = gamma.skiff(&["leave", "--yes", "--force", "--output", "json"]);
    assert!(forced.ok(), "{}", forced.stderr);
    let left: serde_json::Value = serde_json::from_str(&forced.stdout).unwrap();
    assert_eq!((&left["node"], &left["cluster_told"]), (&"gamma".into(), &false.into()));
    assert!(forced.stderr.contains("skiff remove-node gamma"), "{}", forced.stderr);
    assert_untouched(&gamma);
}

/// While its pods cannot go: whatever ends, the node stays, in service as before.
fn is_taken_back_whoever_dies(alpha: &TestNode, beta: &TestNode) {
    let mut child = begin_held(alpha, beta);
    send(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(stays(alpha, beta), Ok(()), "after Ctrl-C");

    let mut child = begin_held(alpha, beta);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("skiffd takes back what a killed command had begun", BOUND, || stays(alpha, beta));

    let mut child = begin_held(alpha, beta);
    kill(skiffd(beta));
    child.kill().unwrap();
    child.wait().unwrap();
    let started = beta.skiff(&["start"]);
    assert!(started.ok() && started.stderr.contains("it is taken back"), "{started:?}");
    eventually("the next skiffd takes it back", BOUND, || stays(alpha, beta));
}

/// The cluster is being asked, and nobody knows what it has done: both sides die.
fn goes_on_from_where_there_is_no_way_back(alpha: &TestNode, beta: &TestNode) {
    let mut child = begin_held(alpha, beta);
    let decider = Pid::from_raw(i32::try_from(skiffd(alpha)).unwrap());
    send(decider, Signal::SIGSTOP).unwrap();
    let budgets = "https://127.0.0.1:6444/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let pem = alpha.root().join("node/admin.pem");
    let mut delete = curl(alpha, &pem);
    run(delete.args(["--fail", "--request", "DELETE"]).arg(format!("{budgets}/movable"))).must();
    eventually("there is no way back", BOUND, || step(beta, "going"));
    child.kill().unwrap();
    child.wait().unwrap();
    kill(skiffd(alpha));
    alpha.start();
    eventually("skiffd ends what a killed command had begun", BOUND, || is_empty(beta));
    assert_untouched(beta);
    assert_eq!(state_of(alpha, "beta"), None);
}

fn a_join_whose_node_was_removed_ends_at_once(network: &Network, alpha: &TestNode) {
    let delta = TestNode::new(network, "delta", &NodeOptions::default());
    let mut command = delta.command(skiff_binary());
    let child = command.args(add_node(alpha, &[])).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = child.process_group(0).spawn().unwrap();
    wait_for_file(&delta.root().join("node/membership.json"), BOUND);
    alpha.skiff(&["remove-node", "delta", "--force"]).must();
    let removed = Instant::now();
    let ended = child.wait_with_output().unwrap();
    let (took, said) = (removed.elapsed(), String::from_utf8_lossy(&ended.stderr));
    println!("a join whose node was removed ended after {:.1} s", took.as_secs_f64());
    assert!(took < TOLD_BOUND, "{took:?}: {said}");
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("was removed from the cluster"), "{said}");
    // What a join that failed leaves for whoever wants to know why.
    fs::remove_dir_all(delta.root().join("failed-join")).unwrap();
    assert_untouched(&delta);
}

#[test]
fn the_leader_leaves_in_order_and_the_others_go_on_down_to_one() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = member(&network, &alpha, "beta");
    let gamma = member(&network, &alpha, "gamma");
    let all = [&alpha, &beta, &gamma];
    settle(&alpha, &["alpha", "beta", "gamma"]);
    let (leader, rest) = leader_of(&all);
    pods_on(rest[0], leader, &all);

    let begun = Instant::now();
    let (left, longest) =
        while_writing(rest[0], || leader.skiff(&["leave", "--yes", "--output", "json"]));
    assert!(left.ok(), "{}", left.stderr);
    println!(
        "the leader left in {:.1} s; the longest time without a write was {:.1} s",
        begun.elapsed().as_secs_f64(),
        longest.as_secs_f64()
    );
    let told: serde_json::Value = serde_json::from_str(&left.stdout).unwrap();
    let wanted = serde_json::json!({
        "node": leader.name(), "role": "control-plane", "pods_moved": 2, "cluster_told": true
    });
    assert_eq!(told, wanted);
    assert_untouched(leader);
    assert!(longest < RESUME_BOUND, "{longest:?}");
    assert!(places(rest[0], "movable").iter().all(|place| place != leader.name()));
    eventually("one of two votes", BOUND, || datastore(rest[0], &[1, 0]));
    rest[1].kubectl(&["rollout", "status", "deployment/movable", "--timeout=120s"]).must();

    // The command is killed when there is no way back.
    let (leader, rest) = leader_of(&rest);
    let last = rest[0];
    let mut child = begin(leader);
    eventually("there is no way back", BOUND, || step(leader, "go"));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("skiffd ends what a killed command had begun", BOUND, || is_empty(leader));
    assert_untouched(leader);
    eventually("the last one leads alone", BOUND, || datastore(last, &[1, 0]));
    assert_eq!(nodes(last).unwrap().len(), 1);
    eventually("it is written to", BOUND, || write(last, "alone"));
    let sole = last.skiff(&["leave", "--yes"]);
    assert!(sole.stderr.contains("the only one of its cluster"), "{}", sole.stderr);
    eventually("its pods run", BOUND, || match places(last, "movable") {
        found if found == [last.name(), last.name()] => Ok(()),
        found => Err(format!("{found:?}")),
    });
}

/// The two pods that somebody makes anew are on one node, and may be on all.
fn pods_on(by: &TestNode, place: &TestNode, all: &[&TestNode]) {
    all.iter().for_each(|node| node.import_test_image("agnhost"));
    let others = || all.iter().filter(|node| node.name() != place.name());
    others().for_each(|node| drop(by.skiff(&["cordon", node.name()]).must()));
    by.apply(PODS);
    by.kubectl(&["rollout", "status", "deployment/movable", "--timeout=120s"]).must();
    assert_eq!(places(by, "movable"), [place.name(), place.name()]);
    others().for_each(|node| drop(by.skiff(&["uncordon", node.name()]).must()));
}

/// Who leads the datastore, and the others.
fn leader_of<'a>(all: &[&'a TestNode]) -> (&'a TestNode, Vec<&'a TestNode>) {
    let leads = |node: &skiff_api::ClusterNode| node.datastore.as_deref() == Some("leader");
    let leader = nodes(all[0]).unwrap().into_iter().find(leads).expect("somebody leads").name;
    let (lead, rest): (Vec<&TestNode>, Vec<&TestNode>) =
        all.iter().copied().partition(|node| node.name() == leader);
    (lead[0], rest)
}

/// What it answers, and the longest time in which nothing could be written there meanwhile.
fn while_writing<T>(writer: &TestNode, work: impl FnOnce() -> T) -> (T, Duration) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let gaps = scope.spawn(|| {
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                if write(writer, "meanwhile").is_ok() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
            }
            longest.max(last.elapsed())
        });
        let outcome = work();
        over.store(true, Ordering::Relaxed);
        (outcome, gaps.join().unwrap())
    })
}

/// So many lead, and so many vote besides.
fn datastore(on: &TestNode, wanted: &[usize; 2]) -> Result<(), String> {
    let found = nodes(on)?;
    let count = |role| found.iter().filter(|node| node.datastore.as_deref() == Some(role)).count();
    if [count("leader"), count("voter")] == *wanted { Ok(()) } else { Err(format!("{found:?}")) }
}

pub fn begin(node: &TestNode) -> Child {
    let mut command = node.command(skiff_binary());
    command.args(["leave", "--yes", "--timeout", "0"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

/// A leave that has cordoned the node, and whose pods a budget holds.
fn begin_held(alpha: &TestNode, beta: &TestNode) -> Child {
    let child = begin(beta);
    eventually("the node is leaving, out of service", BOUND, || {
        match (state_of(alpha, "beta").as_deref(), closed(alpha, beta)) {
            (Some("leaving"), true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    child
}

fn closed(alpha: &TestNode, node: &TestNode) -> bool {
    let spec = "jsonpath={.spec.unschedulable}";
    alpha.kubectl(&["get", "node", node.name(), "--output", spec]).must() == "true"
}

/// The node is a member, in service, and nothing says otherwise.
pub fn stays(alpha: &TestNode, node: &TestNode) -> Result<(), String> {
    let all = nodes(alpha)?;
    let is_ready = |found: &&skiff_api::ClusterNode| {
        found.name == node.name() && found.state == skiff_api::NodeState::Ready
    };
    let spec = ["get", "node", node.name(), "--output", "jsonpath={.spec.unschedulable}"];
    let closed = alpha.kubectl(&spec);
    let is_open = closed.ok() && closed.stdout.is_empty();
    match (all.iter().any(|found| is_ready(&found)), is_open, line(node).exists()) {
        (true, true, false) => Ok(()),
        found => Err(format!("{found:?}: {all:?} {closed:?}")),
    }
}

fn line(node: &TestNode) -> std::path::PathBuf {
    node.root().join("node/leave.json")
}

/// Whether the line on the disk says this word, or is gone with all else.
fn step(node: &TestNode, word: &str) -> Result<(), String> {
    let text = fs::read_to_string(line(node)).unwrap_or_default();
    if text.contains(&format!("\"{word}")) { Ok(()) } else { Err(text) }
}

/// Nothing of the node is left, skiffd neither, which goes last.
pub fn is_empty(node: &TestNode) -> Result<(), String> {
    let left = node.inventory();
    if left != Inventory::default() {
        return Err(left.to_string());
    }
    let names = fs::read_dir(node.root()).unwrap().flatten().map(|entry| entry.file_name());
    let names: Vec<_> = names.filter(|name| *name != "skiff.toml").collect();
    if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
}
