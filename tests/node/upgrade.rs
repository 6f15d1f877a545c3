//! Another build over a running node: it takes over, pods go on, and it goes back when it fails.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, distribution, run, skiff_binary};

use crate::workload::{SLEEPER, container_ids, restart_counts};

/// A copy of the distribution under test that counts as another build.
fn other_build(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir_in("/var/tmp").expect("a place for a distribution");
    run(std::process::Command::new("cp")
        .args(["--recursive", "--link"])
        .arg(format!("{}/.", distribution().display()))
        .arg(copy.path()))
    .must();
    let manifest = fs::read_to_string(distribution().join("components.toml")).expect("a manifest");
    replace(&copy.path().join("components.toml"), &format!("# {name}\n{manifest}"));
    let skiff = copy.path().join("bin/skiff");
    fs::remove_file(&skiff).expect("it was linked");
    fs::copy(skiff_binary(), skiff).expect("the skiff under test");
    copy
}

/// Never written in place: the original shares its blocks.
fn replace(path: &Path, content: &str) {
    fs::remove_file(path).expect("it was linked");
    fs::write(path, content).expect("it is written");
}

fn running_build(node: &TestNode) -> String {
    let text = node.skiff(&["version", "--output", "json"]).must();
    let version: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    version["build"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn another_build_takes_a_running_node_over_and_a_broken_one_gives_it_back() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    node.kubectl(&["create", "configmap", "kept"]).must();
    let (ids, counts) = (container_ids(&node), restart_counts(&node));
    let first = running_build(&node);

    let second = other_build("second");
    node.skiff_of(second.path(), &["start", "--timeout", "240"]).must();
    let now = running_build(&node);
    assert_ne!(now, first, "the node runs the former build still");
    node.kubectl(&["get", "configmap", "kept"]).must();
    assert_eq!(container_ids(&node), ids, "an upgrade replaced a container");
    assert_eq!(restart_counts(&node), counts, "an upgrade restarted a pod");
    let again = node.skiff_of(second.path(), &["start"]);
    assert!(again.ok() && again.stderr.contains("runs already"), "{again:?}");

    let broken = other_build("broken");
    replace(
        &broken.path().join("bin/kube"),
        "#!/bin/sh\necho 'this build is broken' >&2\nexit 3\n",
    );
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(broken.path().join("bin/kube"), executable).expect("it is ours");
    let outcome = node.skiff_of(broken.path(), &["start", "--timeout", "240"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("did not become ready"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("this build is broken"), "{}", outcome.stderr);
    assert_eq!(running_build(&node), now, "the node did not go back");
    node.skiff(&["status", "--wait-ready", "--timeout", "60"]).must();
    node.kubectl(&["get", "configmap", "kept"]).must();
    assert_eq!(container_ids(&node), ids, "going back replaced a container");
    assert_eq!(restart_counts(&node), counts, "going back restarted a pod");
}
