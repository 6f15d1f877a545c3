//! Bad input and bad days: one clear message with the remedy, and nothing lost.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, distribution, run, skiff_binary};

#[test]
fn a_broken_configuration_is_named_and_nothing_is_started() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::new(&network, "alpha", &NodeOptions::default());
    fs::write(node.root().join("skiff.toml"), "[node]\nnmae = \"alpha\"\n").expect("written");
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("skiff.toml"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("nmae"), "{}", outcome.stderr);
    let left = node.inventory();
    assert!(left.processes.is_empty(), "something was started:\n{left}");
}

#[test]
fn a_missing_component_is_named() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::new(&network, "alpha", &NodeOptions::default());
    let broken = tempfile::tempdir_in("/var/tmp").expect("a place for a distribution");
    run(std::process::Command::new("cp")
        .args(["--recursive", "--link"])
        .arg(format!("{}/.", distribution().display()))
        .arg(broken.path()))
    .must();
    fs::remove_file(broken.path().join("bin/runc")).expect("runc was there");
    let outcome = run(node.command(skiff_binary()).arg("start").env("SKIFF_DIST", broken.path()));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("component runc is missing"), "{}", outcome.stderr);
}

#[test]
fn damaged_identities_heal_or_say_what_to_do_and_lose_no_object() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.kubectl(&["create", "configmap", "kept"]).must();
    node.skiff(&["stop"]).must();

    let pki = node.root().join("pki");
    fs::write(pki.join("kube-control/apiserver.pem"), "rubbish").expect("a leaf is damaged");
    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();
    node.skiff(&["stop"]).must();

    let authority = fs::read(pki.join("ca.crt")).expect("the authority");
    fs::write(pki.join("ca.crt"), "rubbish").expect("the authority is damaged");
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("ca.crt is damaged"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("backup"), "{}", outcome.stderr);
    fs::write(pki.join("ca.crt"), authority).expect("the authority is restored");
    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();
}

/// The short form: leaves of one minute, renewed every half minute, three times. The long form
/// has ten minutes (`make soak`).
#[test]
fn leaves_are_renewed_under_load_without_a_failed_request_or_a_restart() {
    if cannot_run_nodes() {
        return;
    }
    const DAEMONS: [&str; 4] = ["datastore", "containerd", "kube-control", "kube-node"];
    let network = Network::new();
    let minutes = std::env::var("SKIFF_TEST_LEAF_MINUTES").unwrap_or_else(|_| "1".into());
    let minutes: u64 = minutes.parse().expect("SKIFF_TEST_LEAF_MINUTES is a number");
    let config = format!("[pki]\nleaf-ttl-minutes = {minutes}\n");
    let bound = Duration::from_secs(minutes * 60 * 4);
    let node =
        TestNode::started(&network, "alpha", &NodeOptions { config, ..NodeOptions::default() });
    let leaf = node.root().join("pki/kube-control/apiserver.pem");
    let daemons = DAEMONS.map(|name| node.pid(name));
    let begun = Instant::now();
    let mut last = fs::read(&leaf).expect("the leaf");
    let mut renewals = 0;
    let mut requests = 0;
    while renewals < 3 {
        assert!(begun.elapsed() < bound, "{renewals} renewals in {bound:?}");
        node.kubectl(&["get", "nodes"]).must();
        node.kubectl(&["create", "configmap", &format!("c{requests}")]).must();
        requests += 2;
        let now = fs::read(&leaf).expect("the leaf");
        if now != last {
            renewals += 1;
            last = now;
        }
    }
    // The kubelet, the controllers and the scheduler go on with their renewed certificates, well
    // after the first ones have expired.
    node.skiff(&["status", "--wait-ready", "--timeout", "5"]).must();
    let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    assert_eq!(node.kubectl(&["get", "node", "alpha", "--output", path]).must(), "True");
    assert_eq!(DAEMONS.map(|name| node.pid(name)), daemons, "a daemon was restarted");
    println!("{requests} requests through {renewals} renewals");
}
