//! What kills others: each daemon killed in turn, skiffd killed, everything killed at once.

use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::workload::{SLEEPER, container_ids, restart_counts};

#[test]
fn no_death_of_a_daemon_touches_a_container_or_loses_an_object() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    let (ids, counts) = (container_ids(&node), restart_counts(&node));
    for (number, victim) in
        ["datastore", "containerd", "kube-control", "kube-node"].iter().enumerate()
    {
        let name = format!("written-before-{number}");
        node.kubectl(&["create", "configmap", &name]).must();
        let before = node.pid(victim);
        kill_9(before);
        eventually(&format!("{victim} is back"), Duration::from_secs(60), || {
            match service_pid(&node, victim) {
                Some(pid) if pid != before => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        node.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
        node.kubectl(&["get", "configmap", &name]).must();
    }
    unchanged(&node, &ids, &counts, "killing the daemons one by one");

    let daemons: Vec<u32> =
        ["datastore", "containerd", "kube-control", "kube-node"].map(|n| node.pid(n)).into();
    kill_9(skiffd_pid(&node));
    node.start();
    let after: Vec<u32> =
        ["datastore", "containerd", "kube-control", "kube-node"].map(|n| node.pid(n)).into();
    assert_eq!(after, daemons, "a new skiffd must adopt what runs");
    unchanged(&node, &ids, &counts, "killing skiffd");

    node.kubectl(&["create", "configmap", "last-words"]).must();
    kill_9(skiffd_pid(&node));
    daemons.into_iter().for_each(kill_9);
    node.start();
    node.kubectl(&["get", "configmap", "last-words"]).must();
    unchanged(&node, &ids, &counts, "killing everything at once");
}

#[test]
fn a_hard_end_of_everything_followed_by_a_start_leaves_no_stray() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    node.kubectl(&["create", "configmap", "acknowledged"]).must();
    for process in node.inventory().processes {
        let pid = process.split(' ').next().and_then(|pid| pid.parse().ok());
        kill_9(pid.expect("the inventory lists pids"));
    }
    node.start();
    node.kubectl(&["get", "configmap", "acknowledged"]).must();
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    node.skiff(&["stop"]).must();
    let left = node.inventory();
    assert!(left.is_empty(), "a stray was left:\n{left}");
}

fn unchanged(node: &TestNode, ids: &[String], counts: &[String], what: &str) {
    assert_eq!(container_ids(node), ids, "{what} replaced a container");
    assert_eq!(restart_counts(node), counts, "{what} restarted a pod");
}

fn skiffd_pid(node: &TestNode) -> u32 {
    let text = std::fs::read_to_string(node.root().join("run/skiffd.pid")).expect("skiffd's pid");
    text.trim().parse().expect("a pid is a number")
}

fn service_pid(node: &TestNode, name: &str) -> Option<u32> {
    let text = node.skiff(&["services", "--output", "json"]).must();
    let services: Vec<skiff_api::Service> = serde_json::from_str(&text).expect("JSON");
    services.into_iter().find(|service| service.name == name)?.pid
}

/// Processes may be gone already: that is what was wanted.
fn kill_9(pid: u32) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).expect("pids fit")), Signal::SIGKILL);
}
