//! What the first start decides, and what it does not.

use std::fs;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes};

use crate::hand_over;

const OTHER: &str = "[node]\nname = \"alpha\"\n[network]\npod-cidr = \"10.2.0.0/16\"\n";

/// Lines are folded: compared as one.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Its pid.
#[track_caller]
fn skiffd(node: &TestNode) -> String {
    fs::read_to_string(node.root().join("run/skiffd.pid")).expect("skiffd runs")
}

#[track_caller]
fn refused(node: &TestNode, expected: &[&str]) {
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for expected in expected {
        assert!(words(&outcome.stderr).contains(expected), "{}", outcome.stderr);
    }
    let left = node.inventory();
    assert!(left.processes.is_empty(), "something was started:\n{left}");
}

#[test]
fn what_the_first_start_decided_is_held_to_until_a_reset() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    let file = node.root().join("skiff.toml");
    let shown = node.skiff(&["get", "node.name", "--output", "json"]).must();
    let setting: skiff_api::Setting = serde_json::from_str(&shown).expect("a setting");
    assert_eq!(setting.value, "\"alpha\"");
    assert_eq!(setting.origin, format!("{}:2", file.display()));
    node.kubectl(&["create", "configmap", "kept"]).must();

    // A node that runs is not handed over to a skiffd that would refuse to start.
    let (build, skiffd) = (hand_over::build(&node), skiffd(&node));
    let good = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, "[node]\nnmae = \"alpha\"\n").expect("the configuration is written");
    let outcome = hand_over::start(&node, &hand_over::another("next"));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(words(&outcome.stderr).contains("there is no setting node.nmae"), "{outcome:?}");
    node.skiff(&["status", "--wait-ready", "--timeout", "10"]).must();
    assert_eq!(hand_over::build(&node), build);
    assert_eq!(self::skiffd(&node), skiffd, "skiffd was given up");
    fs::write(&file, good).expect("the configuration is written");
    node.skiff(&["stop"]).must();

    let place = format!("{}:4: network.pod-cidr is \"10.2.0.0/16\", but", file.display());
    let way_back = "hint: set it back, or begin anew with `sudo skiff reset`";
    fs::write(&file, OTHER).expect("the configuration is written");
    refused(&node, &[&place, "the node began with \"10.1.0.0/16\"", way_back]);
    fs::write(&file, "").expect("the configuration is written");
    let remedy = "hint: `name = \"alpha\"` below [node]";
    refused(&node, &["the machine is called", "began with \"alpha\"", remedy]);

    fs::write(&file, "node.name = \"alpha\"\n").expect("the configuration is written");
    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();

    fs::write(&file, OTHER).expect("the configuration is written");
    node.skiff(&["reset", "--yes"]).must();
    let snap = node.root().join("snap.json");
    fs::write(&snap, r#"{"network": {"mtu": 1400}}"#).expect("settings are written");
    let mut start = node.command(harness::skiff_binary());
    start.args(["start", "--timeout", "240"]).env("SKIFF_SNAP_SETTINGS", &snap);
    harness::run(&mut start).must();
    // Asked of skiffd: this command does not know of the snap.
    let shown = node.skiff(&["get", "network.mtu", "--output", "json"]).must();
    let setting: skiff_api::Setting = serde_json::from_str(&shown).expect("a setting");
    assert_eq!((setting.value.as_str(), setting.origin.as_str()), ("1400", "snap"));
    let shares = node.kubectl(&["get", "node", "alpha", "--output", "jsonpath={.spec.podCIDR}"]);
    assert_eq!(shares.must(), "10.2.0.0/24");
}

#[test]
fn a_first_start_that_failed_has_decided_nothing() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::new(&network, "alpha", &NodeOptions::default());
    let authority = node.root().join("pki/ca.crt");
    fs::create_dir_all(node.root().join("pki")).expect("a directory");
    fs::write(&authority, "rubbish").expect("an authority without its key");
    refused(&node, &["restore it from a backup"]);
    fs::write(node.root().join("skiff.toml"), OTHER).expect("the configuration is written");
    refused(&node, &["restore it from a backup"]);
}
