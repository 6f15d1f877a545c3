//! Certificates of a lone node, and the ports that it would need to be one of several.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes};
use skiff_api::Certificates;

use crate::machine::listen;
use crate::workload::{SLEEPER, container_ids, restart_counts};

#[test]
fn certificates_of_a_lone_node_are_shown_and_replaced_and_no_pod_notices() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    let daemons = ["datastore", "containerd", "kube-control", "kube-node"];
    let pids = daemons.map(|name| node.pid(name));
    let (ids, counts) = (container_ids(&node), restart_counts(&node));

    let old = leaves(&node);
    assert_eq!(old.len(), 11, "{old:?}");
    for _ in 0..2 {
        node.skiff(&["certs", "rotate"]).must();
    }
    let new = leaves(&node);
    assert!(new.iter().zip(&old).all(|(new, old)| new.0 == old.0 && new.1 != old.1));
    node.skiff(&["certs", "status"]).must();
    node.skiff(&["status", "--wait-ready", "--timeout", "30"]).must();
    // Longer than the daemons take to look for new ones.
    std::thread::sleep(Duration::from_secs(15));
    let pod = node.kubectl(&["get", "pods", "--output", "name"]).must();
    node.kubectl(&["logs", pod.lines().next().expect("there are pods")]).must();
    assert_eq!(daemons.map(|name| node.pid(name)), pids, "a daemon was restarted");
    assert_eq!((container_ids(&node), restart_counts(&node)), (ids, counts));

    // Somebody else has the port between nodes: this node goes on, and cannot found a cluster.
    let listener = listen(&node, 7443);
    let checked = node.skiff(&["check"]);
    assert!(checked.stdout.contains("port 7443 is taken by busybox"), "{}", checked.stdout);
    let refused = node.skiff(&["add-node", "--worker"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("port 7443, which"), "{}", refused.stderr);
    drop(listener);
    assert_eq!(daemons.map(|name| node.pid(name)), pids, "a refused founding changed something");
}

/// Name and text of each leaf.
fn leaves(node: &TestNode) -> Vec<(String, String)> {
    let text = node.skiff(&["certs", "status", "--output", "json"]).must();
    let shown: Certificates = serde_json::from_str(&text).expect("certificates are JSON");
    let leaves = shown.certificates.into_iter().filter(|one| one.renews.is_some());
    let read = |file: String| fs::read_to_string(PathBuf::from(file)).expect("a leaf");
    leaves.map(|one| (one.name, read(one.file))).collect()
}
