//! A lone node gets new authorities while everything runs, goes back, and forgets the old ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Network, NodeOptions, Outcome, TestNode, cannot_run_nodes, eventually, run};
use skiff_api::{AuthorityRotation, Certificates};

const BOUND: Duration = Duration::from_secs(120);

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
    let said = node.skiff(&["certs", "rotate", "--authorities"]);
    assert!(said.ok() && said.stderr.contains("skiff is believed until"), "{said:?}");
    let shown = rotation(&node).expect("it is held");
    assert_eq!((&*shown.position, &*shown.new, shown.step), ("both-new", "skiff 2", 2));
    assert!(shown.held_until.is_some());
    node.skiff(&["certs", "status"]).must();
    let meanwhile = Person::new(&node, "meanwhile");
    for person in [&before, &meanwhile] {
        person.must_reach(&node);
    }
    assert_eq!(issuers(&node), ["skiff 2", "skiff front proxy 2"]);
    let again = node.skiff(&["certs", "rotate", "--authorities"]);
    assert!(again.stderr.contains("are being replaced already: step 2"), "{}", again.stderr);

    // Back: at once to where both are believed and the old one signs, held for the tokens' sake.
    node.skiff(&["certs", "rotate", "--back"]).must();
    let shown = rotation(&node).expect("it is held");
    assert_eq!((&*shown.position, shown.back, shown.step), ("both-old", true, 3));
    assert_eq!(issuers(&node), ["skiff", "skiff front proxy"]);
    for person in [&before, &meanwhile] {
        person.must_reach(&node);
    }
    let early = node.skiff(&["certs", "rotate", "--authorities", "--finish"]);
    assert!(early.stderr.contains("and nobody is here"), "{}", early.stderr);
    node.skiff(&["certs", "rotate", "--authorities", "--finish", "--yes"]).must();
    assert!(rotation(&node).is_none());
    before.must_reach(&node);
    meanwhile.must_be_refused(&node);
    assert!(!node.root().join("pki/next").exists(), "keys that nobody needs are kept");

    // On to the end, under a name that nobody has had.
    node.skiff(&["certs", "rotate", "--authorities"]).must();
    assert_eq!(issuers(&node), ["skiff 6", "skiff front proxy 6"]);
    let pods = calls(&node);
    eventually("the pod that began with the old one goes on", BOUND, || match calls(&node) {
        now if now > pods + 2 => Ok(()),
        now => Err(format!("{now} calls")),
    });
    node.skiff(&["certs", "rotate", "--authorities", "--finish", "--yes"]).must();
    assert!(rotation(&node).is_none());
    before.must_be_refused(&node);
    Person::new(&node, "after").must_reach(&node);
    node.skiff(&["certs", "status"]).must();
    node.skiff(&["status", "--wait-ready", "--timeout", "60"]).must();
    extensions_believe_the_new_one_alone(&node);
    // Another start finds the same.
    node.skiff(&["stop"]).must();
    node.start();
    assert_eq!(issuers(&node), ["skiff 6", "skiff front proxy 6"]);
    Person::new(&node, "later").must_reach(&node);
}

/// Somebody with a kubeconfig that was given out at some moment.
struct Person {
    file: PathBuf,
}

impl Person {
    fn new(node: &TestNode, name: &str) -> Self {
        let file = node.root().join(format!("{name}.kubeconfig"));
        let args = ["kubeconfig", "--user", name, "--group", "skiff:cluster-admins"];
        fs::write(&file, node.skiff(&args).must()).expect("it is written");
        Self { file }
    }

    fn ask(&self, node: &TestNode) -> Outcome {
        let file = self.file.to_string_lossy();
        node.kubectl(&["--kubeconfig", &file, "get", "namespaces"])
    }

    #[track_caller]
    fn must_reach(&self, node: &TestNode) {
        eventually(&format!("{} reaches the API", self.file.display()), BOUND, || {
            let asked = self.ask(node);
            if asked.ok() { Ok(()) } else { Err(asked.stderr) }
        });
    }

    #[track_caller]
    fn must_be_refused(&self, node: &TestNode) {
        eventually(&format!("{} is refused", self.file.display()), BOUND, || {
            let asked = self.ask(node);
            let is_refused = ["Unauthorized", "provide credentials", "unknown authority"];
            match is_refused.iter().any(|words| asked.stderr.contains(words)) {
                true => Ok(()),
                false => Err(format!("{asked:?}")),
            }
        });
    }
}

#[track_caller]
fn certificates(node: &TestNode) -> Certificates {
    let shown = node.skiff(&["certs", "status", "--output", "json"]);
    serde_json::from_str(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"))
}

#[track_caller]
fn rotation(node: &TestNode) -> Option<AuthorityRotation> {
    certificates(node).rotation
}

/// Who has signed the leaves that are there.
#[track_caller]
fn issuers(node: &TestNode) -> Vec<String> {
    let leaves = certificates(node).certificates.into_iter().filter(|one| one.renews.is_some());
    let mut issuers: Vec<String> = leaves.map(|one| one.issuer).collect();
    issuers.sort();
    issuers.dedup();
    issuers
}

/// How often the pod has reached the API.
#[track_caller]
fn calls(node: &TestNode) -> usize {
    let logs = node.kubectl(&["logs", "caller", "--tail=-1"]);
    logs.stdout.lines().filter(|line| line.contains("calling /healthz")).count()
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
    let signed = run(Command::new("openssl").args(["x509", "-noout", "-subject", "-in"]).arg(
        node.root().join("pki/ca.crt"),
    ));
    assert!(signed.stdout.contains("skiff 6"), "{}", signed.stdout);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
