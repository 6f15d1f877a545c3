//! What the machine may have wrong: a port that is taken, permissions, a directory that is closed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, run};

/// Ended with the test.
pub struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The static build, since it is there for the test images.
pub fn listen(node: &TestNode, port: u16) -> Listener {
    let mut command = node.command("busybox");
    command.args(["nc", "-l", "-p", &port.to_string()]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let listener = Listener(child.expect("busybox is there"));
    let filter = format!("sport = :{port}");
    harness::eventually("somebody listens", std::time::Duration::from_secs(10), || {
        let seen = run(node.command("ss").args(["--listening", "--no-header", "--tcp", &filter]));
        if seen.stdout.is_empty() { Err(seen.stderr) } else { Ok(()) }
    });
    listener
}

#[test]
fn a_port_in_use_is_named_with_who_has_it_and_nothing_is_started() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::new(&network, "alpha", &NodeOptions::default());
    for port in [6443, 10250] {
        let listener = listen(&node, port);
        let outcome = node.skiff(&["start", "--timeout", "60"]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        let expected = format!("port {port} is taken by busybox");
        assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("hint: stop it"), "{}", outcome.stderr);
        drop(listener);
    }
    let left = node.inventory();
    assert!(left.is_empty(), "something was started:\n{left}");
    node.start();
}

#[test]
fn wrong_permissions_are_mended_or_named_and_lose_no_object() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.kubectl(&["create", "configmap", "kept"]).must();
    node.skiff(&["stop"]).must();

    let root = node.root();
    run(Command::new("chown").args(["-R", "root:root"]).arg(root.join("datastore"))).must();
    run(Command::new("chmod").args(["-R", "u=r,go="]).arg(root.join("datastore"))).must();
    let secret = root.join("pki/kube-control/apiserver.pem");
    chown(&secret, Some(0), Some(0)).expect("root may");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).expect("root may");
    fs::set_permissions(root.join("log"), fs::Permissions::from_mode(0o000)).expect("root may");
    node.start();
    node.kubectl(&["get", "configmap", "kept"]).must();
    let mode = fs::metadata(&secret).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "a private key stayed open to everybody");
    node.skiff(&["stop"]).must();

    // Below a directory that nobody but root may pass, daemons without privilege cannot live.
    let closed = tempfile::tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    let inside = closed.path().join("root");
    let outcome = run(node
        .command(harness::skiff_binary())
        .args(["start", "--timeout", "60"])
        .env("SKIFF_ROOT", &inside));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let hint = format!("hint: chmod o+x {}", closed.path().display());
    assert!(outcome.stderr.contains(&hint), "{}", outcome.stderr);
}
