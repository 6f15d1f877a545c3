//! Settings of the cluster reach every node, those that were off included; what does no good is
//! refused or taken back, and nothing is lost.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run, skiff_binary};
use skiff_api::{NodeSettings, Service, ServiceState, SetOutcome, Setting};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::place::{
    add_control_plane, add_node, control_plane, join, kill, nodes, skiffd, wait_ready,
};

const BOUND: Duration = Duration::from_secs(120);

/// The long form: `SKIFF_TEST_SETTINGS` is set, as `make soak` does.
#[test]
fn settings_reach_every_node_and_what_does_no_good_loses_nothing() {
    if cannot_run_nodes() {
        return;
    }
    let is_long = std::env::var_os("SKIFF_TEST_SETTINGS").is_some();
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    timed("a lone node", || alone(&alpha));
    if is_long {
        timed("no good alone", || is_refused_alone(&alpha));
    }
    let own = "[kube]\nkubelet-args = [\"--v=1\"]\n[network]\nmtu = 1200\n";
    let options = NodeOptions { config: own.into(), ..NodeOptions::default() };
    let beta = TestNode::new(&network, "beta", &options);
    join(&beta, &add_node(&alpha, &[])).must();
    wait_ready(&alpha, "beta", BOUND);
    // It came with what had been set before there was a cluster.
    assert!(kubelet(&beta).contains("--max-pods=60"), "{}", kubelet(&beta));

    timed("two nodes", || reaches_both(&alpha, &beta));
    timed("refused", || is_refused(&alpha, &beta));
    timed("one was off", || catches_up(&alpha, &beta));
    timed("no good anywhere", || is_taken_back(&alpha, &beta));
    if is_long {
        timed("no good on one", || is_too_much_for_one(&alpha, &beta));
        timed("cut off", || is_cut_off(&alpha));
    }
    timed("by turns", || goes_by_turns(&network, &alpha));
}

fn timed(what: &str, step: impl FnOnce()) {
    let begun = Instant::now();
    step();
    println!("{what}: {:.0} s", begun.elapsed().as_secs_f64());
}

/// A node that was never in a cluster has a record of its own, which becomes the cluster's.
fn alone(alpha: &TestNode) {
    let kube_control = alpha.pid("kube-control");
    let flags = "kube.kubelet-args=[\"--max-pods=60\"]";
    let set = alpha.skiff(&["set", flags, "--output", "json"]).must();
    let outcome: SetOutcome = serde_json::from_str(&set).unwrap();
    assert_eq!((outcome.revision, outcome.changes.len()), (1, 1), "{set}");
    assert!(kubelet(alpha).contains("--max-pods=60"));
    assert_eq!(alpha.pid("kube-control"), kube_control, "it does not read them");

    kill(skiffd(alpha));
    alpha.start();
    let setting = get(alpha, "kube.kubelet-args");
    assert_eq!((&*setting.value, &*setting.origin), ("[\"--max-pods=60\"]", "set (revision 1)"));
}

/// What the kubelet does not know: the node goes on as it was.
fn is_refused_alone(alpha: &TestNode) {
    let refused = alpha.skiff(&["set", "kube.kubelet-args=--no-such-flag"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for part in ["kube-node does not run with them", "no-such-flag", "as before", "\nhint: "] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!(get(alpha, "kube.kubelet-args").value, "[\"--max-pods=60\"]");
    alpha.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
}

/// Only what reads a setting starts anew, and each node says where a value comes from.
fn reaches_both(alpha: &TestNode, beta: &TestNode) {
    let pids = [alpha.pid("kube-control"), alpha.pid("containerd"), beta.pid("containerd")];
    let before = beta.pid("kube-node");
    let flags = "kube.kubelet-args=[\"--max-pods=50\"]";
    let said = alpha.skiff(&["set", flags, "pki.leaf-ttl-minutes=600", "network.mtu=1300"]);
    assert!(said.ok(), "{said:?}");
    for name in ["alpha", "beta"] {
        assert!(said.stderr.contains(&format!("{name} has taken it up")), "{}", said.stderr);
    }
    for node in [alpha, beta] {
        assert!(kubelet(node).contains("--max-pods=50"), "{}", kubelet(node));
        assert_eq!(get(node, "pki.leaf-ttl-minutes").value, "600");
    }
    assert_ne!(beta.pid("kube-node"), before);
    let after = [alpha.pid("kube-control"), alpha.pid("containerd"), beta.pid("containerd")];
    assert_eq!(after, pids, "others do not start anew");
    // Its own flag counts after the cluster's.
    let text = kubelet(beta);
    assert!(text.find("--max-pods=50").unwrap() < text.find("--v=1").unwrap(), "{text}");
    wait_ready(alpha, "beta", BOUND);

    // Of its own line and the cluster's value, the latter holds, and that is said.
    let setting = get(beta, "network.mtu");
    assert_eq!((&*setting.value, &*setting.origin), ("1300", "set (revision 2)"));
    for verb in ["status", "check", "get"] {
        let said = words(&beta.skiff(&[verb]).stdout);
        assert!(said.contains("network.mtu = 1200 does not count"), "{verb}: {said}");
    }
    eventually("pods of beta get that MTU", BOUND, || {
        let conflist = beta.root().join("cni/net.d/10-skiff.conflist");
        let conflist = fs::read_to_string(conflist).unwrap_or_default();
        if conflist.contains("1300") { Ok(()) } else { Err(conflist) }
    });
}

/// What cannot be is refused before it is accepted, wherever it is asked for.
fn is_refused(alpha: &TestNode, beta: &TestNode) {
    let revision = settings_of(alpha, "alpha").newest;
    for (args, reason) in [
        (&["network.mut=1"][..], "there is no setting network.mut; did you mean network.mtu?"),
        (&["network.mtu=7"], "7 is neither 0 nor from 576 to 65535"),
        (&["network.mtu=9000"], "and this machine's link carries"),
        (&["network.pod-cidr=10.9.0.0/16"], "is decided: pods have addresses of it"),
        (&["node.name=other"], "is each node's own"),
        (&["api.extra-sans=beta"], "which is that of the node beta"),
        (&["kube.scheduler-args=v=2"], "which is no flag"),
        (&["--unset", "no.such"], "there is no setting no.such"),
        (&["--revision", "1", "network.mtu=1200"], "by now, not 1"),
    ] {
        let refused = alpha.skiff(&[&["set"][..], args].concat());
        assert_eq!(refused.code, 1, "{args:?} {refused:?}");
        let said = words(&refused.stderr);
        assert!(said.contains(reason), "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("\nhint: "), "{}", refused.stderr);
    }
    let refused = beta.skiff(&["set", "network.mtu=1400"]);
    assert!(refused.stderr.contains("type it on alpha"), "{}", refused.stderr);
    let tried = alpha.skiff(&["set", "network.mtu=1350", "--dry-run"]).must();
    assert!(tried.contains("1350") && tried.contains("would be revision"), "{tried}");
    assert_eq!(settings_of(alpha, "alpha").newest, revision, "nothing has changed");
    // Two at once: both are there.
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| alpha.skiff(&["set", "backup.keep-last=9", "--no-wait"]));
        let other = scope.spawn(|| alpha.skiff(&["set", "backup.keep-daily=9", "--no-wait"]));
        (one.join().unwrap(), other.join().unwrap())
    });
    assert!(one.ok() && other.ok(), "{one:?} {other:?}");
    assert_eq!(settings_of(alpha, "alpha").newest, revision + 2);
    for key in ["backup.keep-last", "backup.keep-daily"] {
        eventually(key, BOUND, || {
            let value = get(alpha, key).value;
            if value == "9" { Ok(()) } else { Err(value) }
        });
    }
}

/// A node that was off has them when it is back, and so has one that starts anew.
fn catches_up(alpha: &TestNode, beta: &TestNode) {
    beta.skiff(&["stop"]).must();
    alpha.skiff(&["set", "kube.kubelet-args=[\"--max-pods=40\"]", "--no-wait"]).must();
    let behind = settings_of(alpha, "beta");
    assert!(behind.revision < behind.newest && !behind.failed, "{behind:?}");
    let said = words(&alpha.skiff(&["nodes"]).must());
    assert!(said.contains("beta has the settings of revision"), "{said}");
    beta.start();
    eventually("beta has caught up", BOUND, || {
        let settings = settings_of(alpha, "beta");
        if settings.revision == settings.newest { Ok(()) } else { Err(format!("{settings:?}")) }
    });
    assert!(kubelet(beta).contains("--max-pods=40"), "{}", kubelet(beta));
    wait_ready(alpha, "beta", BOUND);
}

/// A value that is right by itself and that the API server does not take is tried where it is typed:
/// the record never has it.
fn is_taken_back(alpha: &TestNode, beta: &TestNode) {
    alpha.kubectl(&["create", "configmap", "kept"]).must();
    let before = settings_of(alpha, "alpha");
    let failed = alpha.skiff(&["set", "kube.api-server-args=--no-such-flag"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let said = words(&failed.stderr);
    for part in ["kube-control does not run with them", "no-such-flag", "nothing has changed"] {
        assert!(said.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(settings_of(alpha, "alpha"), before);
    assert_eq!(get(alpha, "kube.api-server-args").value, "[]");
    alpha.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    alpha.kubectl(&["get", "configmap", "kept"]).must();
    // A name of the API server's is in what it shows, without a restart.
    let pid = alpha.pid("kube-control");
    alpha.skiff(&["set", "api.extra-sans=kube.example.org"]).must();
    let shown = format!(
        "echo | openssl s_client -connect {}:6443 2>/dev/null | openssl x509 -noout -text",
        alpha.address()
    );
    eventually("the certificate holds the name", BOUND, || {
        let text = run(alpha.command("sh").args(["-c", &shown])).stdout;
        if text.contains("DNS:kube.example.org") { Ok(()) } else { Err(text) }
    });
    assert_eq!(alpha.pid("kube-control"), pid);
    assert!(beta.skiff(&["status"]).ok());
}

/// What only the link of one machine is too small for: that one goes on as it was and says so, also
/// to whoever waits; the others have it.
fn is_too_much_for_one(alpha: &TestNode, beta: &TestNode) {
    let outcome = run(beta.command("ip").args(["link", "set", "dev", "eth0", "mtu", "1400"]));
    assert!(outcome.ok(), "{outcome:?}");
    let failed = alpha.skiff(&["set", "network.mtu=1420"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let said = words(&failed.stderr);
    for part in ["beta could not take it up", "this machine's link carries 1350", "--unset"] {
        assert!(said.contains(part), "{part}: {}", failed.stderr);
    }
    assert_eq!(get(alpha, "network.mtu").value, "1420");
    assert_eq!(get(beta, "network.mtu").value, "1300");
    let status = words(&beta.skiff(&["status"]).stdout);
    assert!(status.contains("could not take up: network.mtu is 1420"), "{status}");
    let shown = words(&alpha.skiff(&["get", "--cluster"]).must());
    assert!(shown.contains("runs on alpha beta has the settings of revision"), "{shown}");
    alpha.skiff(&["set", "network.mtu=1300"]).must();
    let settings = settings_of(alpha, "beta");
    assert_eq!((settings.revision, settings.failed), (settings.newest, false));
}

/// A node that dies while it tries settings begins with what it had, and nobody else has heard of
/// them.
fn is_cut_off(alpha: &TestNode) {
    let before = settings_of(alpha, "alpha");
    let mut set = alpha.command(skiff_binary());
    set.args(["set", "kube.api-server-args=--v=3"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut set = set.spawn().expect("the command is started");
    eventually("alpha tries them", BOUND, || match control(alpha).contains("--v=3") {
        true => Ok(()),
        false => Err(control(alpha)),
    });
    kill(skiffd(alpha));
    assert!(!set.wait().expect("the command ends").success());
    alpha.start();
    alpha.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    assert!(!control(alpha).contains("--v=3"), "{}", control(alpha));
    assert_eq!(settings_of(alpha, "alpha"), before);
    alpha.kubectl(&["get", "configmap", "kept"]).must();
}

fn control(node: &TestNode) -> String {
    let file = node.root().join("etc/kube-control/kube-control.json");
    fs::read_to_string(file).unwrap_or_default()
}

/// Of several API servers one at a time starts anew.
fn goes_by_turns(network: &Network, alpha: &TestNode) {
    let gamma = TestNode::new(network, "gamma", &NodeOptions::default());
    join(&gamma, &add_control_plane(alpha)).must();
    wait_ready(alpha, "gamma", BOUND);
    assert_eq!(get(&gamma, "network.mtu").value, "1300", "it came with them");
    let before = [alpha.pid("kube-control"), gamma.pid("kube-control")];
    let is_over = AtomicBool::new(false);
    let left = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&gamma, &is_over));
        let said = alpha.skiff(&["set", "kube.api-server-args=--v=1"]);
        is_over.store(true, Ordering::Relaxed);
        assert!(said.ok(), "{said:?}");
        watch.join().unwrap()
    });
    let after = [alpha.pid("kube-control"), gamma.pid("kube-control")];
    assert!(before[0] != after[0] && before[1] != after[1], "both started anew");
    let (_, back) = kube_control(alpha).expect("it runs");
    let left = left.expect("gamma's was away");
    println!("alpha's API server was back {} before gamma's went", left - back);
    assert!(back < left, "never both at once: {back} {left}");
    alpha.kubectl(&["get", "configmap", "kept"]).must();
}

/// When the API server went, looked at until it is over.
fn watch(node: &TestNode, is_over: &AtomicBool) -> Option<OffsetDateTime> {
    let mut left = None;
    while !is_over.load(Ordering::Relaxed) {
        if let Some((state, since)) = kube_control(node)
            && state != ServiceState::Ready
        {
            left.get_or_insert(since);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    left
}

/// How the daemon with the API server is, and since when.
fn kube_control(node: &TestNode) -> Option<(ServiceState, OffsetDateTime)> {
    let text = node.skiff(&["services", "--output", "json"]).stdout;
    let services: Vec<Service> = serde_json::from_str(&text).ok()?;
    let control = services.into_iter().find(|service| service.name == "kube-control")?;
    Some((control.state, OffsetDateTime::parse(&control.since, &Rfc3339).ok()?))
}

fn kubelet(node: &TestNode) -> String {
    fs::read_to_string(node.root().join("etc/kube-node/kube-node.json")).unwrap_or_default()
}

#[track_caller]
fn get(node: &TestNode, key: &str) -> Setting {
    let text = node.skiff(&["get", key, "--output", "json"]).must();
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn settings_of(on: &TestNode, name: &str) -> NodeSettings {
    let all = nodes(on).expect("it lists the nodes");
    let node = all.into_iter().find(|node| node.name == name).expect("it is one");
    node.settings.expect("every node has them")
}

/// Lines are folded: compared as one.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
