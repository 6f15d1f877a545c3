//! Start, restart, stop, reset.

use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes};

use crate::workload::{SLEEPER, container_ids, restart_counts};

/// A stop grants pods 30 s; what is around it must not take longer than this.
const STOP_BOUND: Duration = Duration::from_secs(90);
/// `reset` is a matter of seconds.
const RESET_BOUND: Duration = Duration::from_secs(60);

#[test]
fn restart_leaves_pods_running_and_stop_leaves_nothing() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    let (ids, counts) = (container_ids(&node), restart_counts(&node));

    node.skiff(&["restart"]).must();
    node.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    assert_eq!(container_ids(&node), ids, "restart replaced a container");
    assert_eq!(restart_counts(&node), counts, "restart counted as a restart of a pod");

    let address = service_address(&node);
    let begun = Instant::now();
    node.skiff(&["stop"]).must();
    assert!(begun.elapsed() < STOP_BOUND, "stop took {:?}", begun.elapsed());
    assert_eq!(node.skiff(&["status"]).code, 1, "a stopped node is not a success");
    let left = node.inventory();
    assert!(left.is_empty(), "stop left something:\n{left}");

    node.start();
    assert_eq!(service_address(&node), address, "a Service lost its address");
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));

    let begun = Instant::now();
    node.skiff(&["reset", "--yes"]).must();
    assert!(begun.elapsed() < RESET_BOUND, "reset took {:?}", begun.elapsed());
    let left = node.inventory();
    assert!(left.is_empty(), "reset left something:\n{left}");
    assert!(!node.root().join("pki").exists(), "reset kept the keys");
}

#[test]
fn reset_without_a_terminal_needs_yes() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::new(&network, "alpha", &NodeOptions::default());
    let outcome = node.skiff(&["reset"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("--yes"), "{}", outcome.stderr);
}

fn service_address(node: &TestNode) -> String {
    let path = "jsonpath={.spec.clusterIP}";
    node.kubectl(&["get", "service", "sleeper", "--output", path]).must()
}
