//! Ctrl-C with a real node behind the command: the command ends, the work does not.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, skiff_binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn an_interrupted_start_and_an_interrupted_enable_go_on_by_themselves() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::new(&network, "alpha", &NodeOptions::default());
    // The step at which the node is being started, and no component is in doubt any more.
    let said = interrupted(&node, &["start"], " of 6: ");
    assert!(said.contains("error: interrupted; the node goes on starting by itself"), "{said}");
    node.skiff(&["status", "--wait-ready", "--timeout", "240"]).must();

    let said = interrupted(&node, &["enable", "dns", "--wait"], "dns");
    assert!(said.contains("error: interrupted; skiffd goes on enabling dns"), "{said}");
    eventually("dns is enabled", Duration::from_secs(120), || {
        let text = node.skiff(&["addons", "show", "dns", "--output", "json"]).must();
        let addon: skiff_api::Addon = serde_json::from_str(&text).expect("JSON");
        match addon.state {
            skiff_api::AddonState::Enabled => Ok(()),
            other => Err(format!("{other:?}: {}", addon.message)),
        }
    });
}

/// What a command says when it is interrupted after it has said `step`.
#[track_caller]
fn interrupted(node: &TestNode, args: &[&str], step: &str) -> String {
    let mut child = node
        .command(skiff_binary())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("skiff runs");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut said = String::new();
    while !said.contains(step) {
        let read = lines.read_line(&mut said).expect("lines");
        assert!(read > 0, "{args:?} ended before {step:?}: {said}");
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("the signal is sent");
    lines.read_to_string(&mut said).expect("the rest");
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{said}");
    println!("{args:?}:\n{said}");
    said
}
