//! A lone node gets new authorities while everything runs, goes back, and forgets the old ones.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{
    Network, NodeOptions, Outcome, Person, TestNode, cannot_run_nodes, eventually, issuers,
    rotation, run,
};
use skiff_api::{Service, ServiceState};

use crate::page::blocks_of;

const BOUND: Duration = Duration::from_secs(120);
const PAGE: &str = "docs/how-to/rotate-authorities.md";

/// Calls the API all the time, by what every pod has for that.
const CALLER: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.local/agnhost:1.36.3
    imagePullPolicy: Never
    args: [inclusterclient, --poll-interval=1]
";

#[test]
fn a_lone_node_gets_new_authorities_goes_back_and_forgets_the_old_ones() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.import_test_image("agnhost");
    node.apply(CALLER);
    node.wait_for("pod/caller", "condition=Ready", BOUND);
    let before = Person::new(&node, "before");

    assert!(rotation(&node).is_none());
    let said = types(&node, "Begin", 0, &[]);
    assert!(said.ok() && said.stderr.contains("skiff is believed until"), "{said:?}");
    let shown = rotation(&node).expect("it is held");
    assert_eq!((&*shown.position, &*shown.new, shown.step), ("both-new", "skiff 2", 2));
    assert!(shown.held_until.is_some());
    types(&node, "Begin", 1, &[]).must();
    let meanwhile = Person::new(&node, "meanwhile");
    for person in [&before, &meanwhile] {
        must_reach(person, &node);
    }
    assert_eq!(issuers(&node), ["skiff 2", "skiff front proxy 2"]);
    let again = node.skiff(&["certs", "rotate", "--authorities"]);
    assert!(again.stderr.contains("are being replaced already: step 2"), "{}", again.stderr);

    // Back: at once to where both are believed and the old one signs, held for the tokens' sake.
    types(&node, "Turn round", 0, &[]).must();
    let shown = rotation(&node).expect("it is held");
    assert_eq!((&*shown.position, shown.back, shown.step), ("both-old", true, 3));
    assert_eq!(issuers(&node), ["skiff", "skiff front proxy"]);
    for person in [&before, &meanwhile] {
        must_reach(person, &node);
    }
    let early = types(&node, "End it", 0, &[]);
    assert!(early.stderr.contains("and nobody is here"), "{}", early.stderr);
    types(&node, "End it", 0, &["--yes"]).must();
    assert!(rotation(&node).is_none());
    must_reach(&before, &node);
    meanwhile.must_be_refused(&node, BOUND);
    assert!(!node.root().join("pki/next").exists(), "keys that nobody needs are kept");

    // On to the end, under a name that nobody has had.
    let distrust = node.skiff(&["certs", "rotate", "--authorities", "--distrust"]);
    assert!(distrust.stderr.contains("and nobody is here"), "{}", distrust.stderr);
    let args = ["certs", "rotate", "--authorities", "--no-wait", "--distrust", "--yes"];
    node.skiff(&args).must();
    dies_in_the_middle_of_a_step(&node);
    eventually("it is held", BOUND, || match rotation(&node) {
        Some(shown) if shown.held_until.is_some() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(issuers(&node), ["skiff 6", "skiff front proxy 6"]);
    let pods = calls(&node);
    eventually("the pod that began with the old one goes on", BOUND, || match calls(&node) {
        now if now > pods + 2 => Ok(()),
        now => Err(format!("{now} calls")),
    });
    node.skiff(&["certs", "rotate", "--authorities", "--finish", "--yes"]).must();
    assert!(rotation(&node).is_none());
    before.must_be_refused(&node, BOUND);
    must_reach(&Person::new(&node, "after"), &node);
    node.skiff(&["certs", "status"]).must();
    node.skiff(&["status", "--wait-ready", "--timeout", "60"]).must();
    extensions_believe_the_new_one_alone(&node);
    nothing_leads_from_the_old_one(&node);
    // Another start finds the same.
    dies(&node);
    assert_eq!(issuers(&node), ["skiff 6", "skiff front proxy 6"]);
    must_reach(&Person::new(&node, "later"), &node);
}

/// What the page prints below a heading.
#[track_caller]
fn types(node: &TestNode, heading: &str, block: usize, more: &[&str]) -> Outcome {
    let line = blocks_of(PAGE, heading)[block].join("\n");
    let words = line.trim_start_matches("sudo ").strip_prefix("skiff ").expect("it is ours");
    let words: Vec<&str> = words.split(' ').chain(more.iter().copied()).collect();
    node.skiff(&words)
}

/// While the API server starts anew for a step.
fn dies_in_the_middle_of_a_step(node: &TestNode) {
    eventually("the API server is away", BOUND, || {
        let text = node.skiff(&["services", "--output", "json"]).stdout;
        let services: Vec<Service> = serde_json::from_str(&text).unwrap_or_default();
        let control = services.into_iter().find(|service| service.name == "kube-control");
        match control.map(|control| control.state) {
            Some(ServiceState::Ready) | None => Err(text),
            Some(_) => Ok(()),
        }
    });
    dies(node);
}

fn dies(node: &TestNode) {
    let pid = read(&node.root().join("run/skiffd.pid"));
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it can be killed");
    node.start();
}

/// The only API server may be starting anew.
#[track_caller]
fn must_reach(person: &Person, node: &TestNode) {
    eventually("the API is reached", BOUND, || {
        let asked = person.ask(node);
        if asked.ok() { Ok(()) } else { Err(asked.stderr) }
    });
}

/// How often the pod has reached the API.
#[track_caller]
fn calls(node: &TestNode) -> usize {
    let logs = node.kubectl(&["logs", "caller", "--tail=-1"]);
    logs.stdout.lines().filter(|line| line.contains("calling /healthz")).count()
}

/// As is said with `--distrust`.
fn nothing_leads_from_the_old_one(node: &TestNode) {
    let line = format!("echo | openssl s_client -showcerts -connect {}:6443", node.address());
    eventually("the API server shows its own certificate alone", BOUND, || {
        let shown = run(node.command("sh").args(["-c", &line]));
        match shown.stdout.matches("BEGIN CERTIFICATE").count() {
            1 => Ok(()),
            other => Err(format!("{other} certificates")),
        }
    });
    assert_eq!(read(&node.root().join("pki/former.pem")), "");
}

fn extensions_believe_the_new_one_alone(node: &TestNode) {
    let path = "jsonpath={.data.client-ca-file}";
    let name = "extension-apiserver-authentication";
    let args = ["get", "configmap", name, "--namespace", "kube-system", "--output", path];
    let believed = read(&node.root().join("pki/ca.crt"));
    eventually("extensions believe the new one alone", BOUND, || {
        let told = node.kubectl(&args);
        match told.stdout.trim() == believed.trim() {
            true => Ok(()),
            false => Err(format!("{} certificates", told.stdout.matches("BEGIN").count())),
        }
    });
    let signed = run(Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-in"])
        .arg(node.root().join("pki/ca.crt")));
    assert!(signed.stdout.contains("skiff 6"), "{}", signed.stdout);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
