//! Images that cannot be had: said within seconds, and nobody else is held up.

use std::time::{Duration, Instant};

use harness::{Host, Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run};

use crate::workload::SLEEPER;

/// "Within seconds", on a build machine that is busy.
const SAID_BOUND: Duration = Duration::from_secs(30);

fn pod(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: \
         main, image: \"{image}\"}}\n"
    )
}

fn waiting_reason(node: &TestNode, name: &str) -> String {
    let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}: \
                {.status.containerStatuses[0].state.waiting.message}";
    node.kubectl(&["get", "pod", name, "--output", path]).must()
}

#[test]
fn a_missing_image_is_said_within_seconds_and_a_hanging_pull_holds_up_nobody() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");

    // No route and no resolver: the registry's name cannot even be looked up.
    let begun = Instant::now();
    node.apply(&pod("nowhere", "registry.example/nothing:1"));
    let reason = eventually("the pod says why", SAID_BOUND, || said(&node, "nowhere"));
    println!("after {:.1} s: {reason}", begun.elapsed().as_secs_f64());

    // A registry that swallows every packet: six pulls hang, more than are made at once.
    let silent = Host::new(&network);
    run(silent.command("nft").args(["add", "table", "ip", "silence"])).must();
    let chain = "{ type filter hook input priority 0; policy drop; }";
    run(silent.command("nft").args(["add", "chain", "ip", "silence", "input", chain])).must();
    // The neighbour is known, so that packets leave and are lost.
    let hanging: Vec<String> = (0..6).map(|number| format!("hanging-{number}")).collect();
    let begun = Instant::now();
    for name in &hanging {
        node.apply(&pod(name, &format!("{}:5000/{name}:1", silent.address())));
    }
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(60));
    println!("others ran after {:.1} s", begun.elapsed().as_secs_f64());
    for name in &hanging {
        let reason = eventually("the pod says why", 2 * SAID_BOUND, || said(&node, name));
        assert!(reason.contains("timeout"), "{reason}");
    }
    println!("all six said why after {:.1} s", begun.elapsed().as_secs_f64());
}

fn said(node: &TestNode, pod: &str) -> Result<String, String> {
    let reason = waiting_reason(node, pod);
    if reason.starts_with("ErrImagePull") || reason.starts_with("ImagePullBackOff") {
        Ok(reason)
    } else {
        Err(reason)
    }
}
