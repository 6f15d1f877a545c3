//! Another build on a running node: taken over while pods go on, or gone back from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, distribution, run, skiff_binary};

use crate::workload::{SLEEPER, container_ids, restart_counts};

#[test]
fn a_build_that_does_not_become_ready_is_given_up_for_the_former_one() {
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
    let former = build(&node);

    let broken = another("broken");
    let kube = broken.path().join("bin/kube");
    // A link of the one that works: it must be replaced, not written.
    fs::remove_file(&kube).expect("kube was there");
    fs::write(&kube, "#!/bin/sh\necho this build is broken >&2\nexit 1\n").expect("written");
    fs::set_permissions(&kube, PermissionsExt::from_mode(0o755)).expect("executable");
    let outcome = start(&node, &broken);
    println!("{}", outcome.stderr);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    for words in ["did not become ready", "kube-control keeps failing", "this build is broken"] {
        assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
    }
    let back = format!("runs build {former} again and is ready");
    assert!(outcome.stderr.replace("\n           ", " ").contains(&back), "{}", outcome.stderr);
    assert_eq!(build(&node), former);
    node.skiff(&["status", "--wait-ready", "--timeout", "10"]).must();
    node.kubectl(&["get", "configmap", "kept"]).must();
    assert_eq!(container_ids(&node), ids, "going back replaced a container");
    assert_eq!(restart_counts(&node), counts, "going back restarted a pod");

    let good = another("good");
    let outcome = start(&node, &good);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_ne!(build(&node), former);
    node.kubectl(&["get", "configmap", "kept"]).must();
    assert_eq!(container_ids(&node), ids, "the hand-over replaced a container");
    assert_eq!(restart_counts(&node), counts, "the hand-over restarted a pod");
    let again = start(&node, &good);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.stderr.contains("the node runs already"), "{}", again.stderr);
    power_is_cut_while_a_build_is_on_trial(&node, &former);
}

/// As a boot would find it: the new build selected, and its trial begun before this boot.
fn power_is_cut_while_a_build_is_on_trial(node: &TestNode, former: &str) {
    let selected = build(node);
    node.skiff(&["stop"]).must();
    let builds = node.root().join("build");
    let trial = format!(r#"{{"former":"{former}","boot":"an earlier one"}}"#);
    fs::write(builds.join("trial.json"), trial).expect("written");
    let mut boot = node.command(builds.join("current/bin/skiff"));
    let mut skiffd = boot.arg("daemon").stderr(Stdio::null()).spawn().expect("skiffd runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !node.skiff(&["status"]).stdout.contains("alpha") {
        assert!(Instant::now() < deadline, "skiffd does not answer");
        std::thread::sleep(Duration::from_millis(200));
    }
    node.skiff(&["status", "--wait-ready", "--timeout", "240"]).must();
    assert_eq!(build(node), former, "{selected} was not proven");
    assert!(!builds.join("trial.json").exists());
    node.kubectl(&["get", "configmap", "kept"]).must();
    node.skiff(&["stop"]).must();
    skiffd.wait().expect("skiffd has ended");
}

/// A distribution that is the one of the tests but for its name.
pub fn another(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a place for a distribution");
    run(Command::new("cp")
        .args(["--recursive", "--link"])
        .arg(format!("{}/.", distribution().display()))
        .arg(dir.path()))
    .must();
    let table = dir.path().join("components.toml");
    let text = fs::read_to_string(&table).expect("the table of contents");
    fs::remove_file(&table).expect("a link is removed");
    fs::write(&table, format!("{text}\n# {name}\n")).expect("written");
    dir
}

pub fn start(node: &TestNode, distribution: &tempfile::TempDir) -> harness::Outcome {
    let mut command = node.command(skiff_binary());
    run(command.args(["start", "--timeout", "240"]).env("SKIFF_DIST", distribution.path()))
}

#[track_caller]
pub fn build(node: &TestNode) -> String {
    let text = node.skiff(&["version", "--output", "json"]).must();
    let version: skiff_api::Version = serde_json::from_str(&text).expect("JSON");
    version.build
}
