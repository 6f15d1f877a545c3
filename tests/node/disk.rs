//! A disk that is full, read-only, or may not run programs.

use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually};

use crate::workload::{SLEEPER, container_ids};

/// Room for the components, their images and what a start demands; a sparse file.
const DISK_MIB: u64 = 4096;

fn on_own_disk() -> NodeOptions {
    NodeOptions { disk_mib: Some(DISK_MIB), ..NodeOptions::default() }
}

#[test]
fn a_full_disk_is_named_with_the_remedy_and_loses_nothing() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &on_own_disk());
    let mut acknowledged = vec!["before".to_owned()];
    node.kubectl(&["create", "configmap", "before"]).must();
    let filler = node.disk().fill();

    eventually("status names the full disk", Duration::from_secs(60), || {
        let screen = node.skiff(&["status"]).stdout;
        let said = screen.contains("nothing can be written any more")
            && screen.contains("remedy: free some space");
        if said { Ok(()) } else { Err(screen) }
    });
    // Writes go on until the room that the log has reserved is used up, then they are refused.
    let big = "x".repeat(100_000);
    let refused = (0..1000).find_map(|number| {
        let name = format!("full-{number}");
        let outcome =
            node.kubectl(&["create", "configmap", &name, &format!("--from-literal=big={big}")]);
        if outcome.ok() {
            acknowledged.push(name);
            return None;
        }
        Some(outcome.stderr)
    });
    let refused = refused.expect("a full disk takes no writes in the end");
    println!("{} writes acknowledged, then: {refused}", acknowledged.len());
    drop(filler);

    node.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    // Controllers that could not renew their lease for ten seconds begin again, a little later too.
    eventually("a write succeeds again", Duration::from_secs(60), || {
        let outcome = node.kubectl(&["create", "configmap", "after"]);
        if outcome.ok() { Ok(()) } else { Err(outcome.stderr) }
    });
    for name in &acknowledged {
        eventually("what was acknowledged is there", Duration::from_secs(60), || {
            let outcome = node.kubectl(&["get", "configmap", name]);
            if outcome.ok() { Ok(()) } else { Err(outcome.stderr) }
        });
    }
    eventually("the notice goes", Duration::from_secs(60), || {
        let screen = node.skiff(&["status"]).stdout;
        let is_gone = screen.contains("addons:") && !screen.contains("can be written any more");
        if is_gone { Ok(()) } else { Err(screen) }
    });
}

#[test]
fn a_full_disk_at_the_start_is_refused_and_the_node_starts_when_there_is_room() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &on_own_disk());
    node.kubectl(&["create", "configmap", "kept"]).must();
    node.skiff(&["stop"]).must();
    let filler = node.disk().fill();
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("disk: 0 MiB free"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: free some space"), "{}", outcome.stderr);
    drop(filler);

    node.disk().remount("ro");
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("read-only"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: remount it writable"), "{}", outcome.stderr);
    node.disk().remount("rw");

    node.disk().remount("noexec");
    let outcome = node.skiff(&["start", "--timeout", "60"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("mounted noexec"), "{}", outcome.stderr);
    node.disk().remount("exec");

    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();
}

#[test]
fn a_disk_that_is_nearly_full_keeps_its_pods() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &on_own_disk());
    node.import_test_image("agnhost");
    node.apply(SLEEPER);
    node.wait_for("deployment/sleeper", "condition=Available", Duration::from_secs(120));
    let ids = container_ids(&node);
    // A share of a small disk that would be an amount on a large one: more than half is in use,
    // and more than 512 MiB are free.
    let size = format!("{}M", DISK_MIB / 2);
    let filler = node.root().join("half");
    harness::run(std::process::Command::new("fallocate").args(["-l", &size]).arg(&filler)).must();
    std::thread::sleep(Duration::from_secs(25));
    assert_eq!(container_ids(&node), ids, "a pod was ended on a disk with room");
}
