//! A laptop moves: its address goes, for a while there is none, then there is another.

use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run};

use crate::workload::{SLEEPER, container_ids, restart_counts};

/// Longer than skiffd takes to notice.
const WITHOUT_ADDRESS: Duration = Duration::from_secs(12);

#[test]
fn a_node_follows_its_address_and_keeps_its_pods() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    let (ids, counts) = (container_ids(&node), restart_counts(&node));

    let old = format!("{}/24", node.address());
    ip(&node, &["address", "delete", &old, "dev", "eth0"]);
    std::thread::sleep(WITHOUT_ADDRESS);
    node.kubectl(&["create", "configmap", "on-the-train"]).must();

    let new = "10.77.0.150";
    ip(&node, &["address", "add", &format!("{new}/24"), "dev", "eth0"]);
    eventually("the node object has the new address", Duration::from_secs(120), || {
        let seen = addresses(&node);
        if seen.contains(new) { Ok(()) } else { Err(seen) }
    });
    node.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    assert!(node.skiff(&["status"]).must().contains(new), "status shows the old address");
    assert_eq!(container_ids(&node), ids, "a change of address replaced a container");
    assert_eq!(restart_counts(&node), counts, "a change of address restarted a pod");

    // The API server reaches the kubelet at its new address, by a certificate that names it.
    let pod = node.kubectl(&["get", "pods", "--output", "name"]).must();
    let pod = pod.lines().next().expect("there are pods");
    eventually("logs come from the kubelet", Duration::from_secs(30), || {
        let outcome = node.kubectl(&["logs", pod]);
        if outcome.ok() { Ok(()) } else { Err(outcome.stderr) }
    });
    // So does a client elsewhere with a kubeconfig made now, and a pod through the Service.
    let config = node.skiff(&["kubeconfig", "--user", "jane"]).must();
    assert!(config.contains(&format!("https://{new}:6443")), "{config}");
    let endpoints = ["get", "endpointslices", "kubernetes", "--output", "yaml"];
    eventually("the API's Service leads to the new address", Duration::from_secs(60), || {
        let seen = node.kubectl(&endpoints).must();
        if seen.contains(new) { Ok(()) } else { Err(seen) }
    });

    // A second address beside it is no reason to move again.
    let pid = node.pid("kube-node");
    ip(&node, &["address", "add", "10.77.0.151/24", "dev", "eth0"]);
    std::thread::sleep(WITHOUT_ADDRESS);
    assert_eq!(node.pid("kube-node"), pid, "another address restarted the kubelet");
}

fn addresses(node: &TestNode) -> String {
    let outcome = node.kubectl(&[
        "get",
        "node",
        "alpha",
        "--output",
        "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}",
    ]);
    outcome.stdout + &outcome.stderr
}

#[track_caller]
fn ip(node: &TestNode, args: &[&str]) {
    run(node.command("ip").args(args)).must();
}
