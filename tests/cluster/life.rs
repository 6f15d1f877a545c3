//! What happens in the life of a cluster: a node is taken out of service and put back, certificates
//! are replaced, one comes back after a long time, the API server moves to another port.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run};
use skiff_api::{CertificateState, Certificates};

use crate::place::{control_plane, state_of, wait_ready, worker};

const BOUND: Duration = Duration::from_secs(120);

/// Two pods that somebody makes anew, with a volume that dies with them; one of the node's own.
pub const PODS: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: movable}
spec:
  replicas: 2
  selector: {matchLabels: {app: movable}}
  template:
    metadata: {labels: {app: movable}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: skiff.local/agnhost:1.36.3
        imagePullPolicy: Never
        args: [netexec, --http-port=8080]
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes: [{name: scratch, emptyDir: {}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: 'skiff.local/agnhost:1.36.3', imagePullPolicy: Never, args: [pause]}
";

/// A pod that nobody makes anew, and a budget that lets none of the others go.
pub const STUBBORN: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: lone}
spec:
  nodeName: beta
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: 'skiff.local/agnhost:1.36.3', imagePullPolicy: Never, args: [pause]}
";
pub const BUDGET: &str = r"
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: movable}
spec: {minAvailable: 2, selector: {matchLabels: {app: movable}}}
";

#[test]
fn a_node_is_drained_and_put_back_and_certificates_are_replaced_under_running_pods() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = worker(&network, &alpha, "beta");
    for node in [&alpha, &beta] {
        node.import_test_image("agnhost");
    }
    drained_and_put_back(&alpha, &beta);
    certificates_are_replaced(&alpha, &beta);
    an_outage_of_the_record_is_told_once(&alpha);
}

fn drained_and_put_back(alpha: &TestNode, beta: &TestNode) {
    let unknown = alpha.skiff(&["cordon", "nobody"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("error: there is no node nobody"), "{}", unknown.stderr);
    let elsewhere = beta.skiff(&["drain", "beta"]);
    assert!(elsewhere.stderr.contains("hint: type it on alpha"), "{}", elsewhere.stderr);

    for _ in 0..2 {
        alpha.skiff(&["cordon", "alpha"]).must();
    }
    alpha.apply(PODS);
    alpha.kubectl(&["rollout", "status", "deployment/movable", "--timeout=120s"]).must();
    assert_eq!(places(alpha, "movable"), ["beta", "beta"], "a cordoned node got a pod");
    alpha.skiff(&["uncordon", "alpha"]).must();

    alpha.apply(BUDGET);
    let held = alpha.skiff(&["drain", "beta", "--timeout", "5s"]);
    assert_eq!(held.code, 1, "{}", held.stderr);
    for words in ["error: beta was not drained", "stays cordoned", "spec.nodeName=beta"] {
        assert!(held.stderr.contains(words), "{words}: {}", held.stderr);
    }
    alpha.kubectl(&["delete", "poddisruptionbudget", "movable"]).must();
    alpha.apply(STUBBORN);
    alpha.wait_for("pod/lone", "condition=Ready", BOUND);
    let lone = alpha.skiff(&["drain", "beta"]);
    assert_eq!(lone.code, 1, "{}", lone.stderr);
    assert!(lone.stderr.contains("hint: skiff drain beta --force"), "{}", lone.stderr);
    let volumes = alpha.skiff(&["drain", "beta", "--force", "--keep-emptydir"]);
    assert_eq!(volumes.code, 1, "{}", volumes.stderr);
    assert!(volumes.stderr.contains("emptyDir volumes"), "{}", volumes.stderr);
    assert_eq!(places(alpha, "movable"), ["beta", "beta"], "a refused drain moved a pod");

    alpha.skiff(&["drain", "beta", "--force"]).must();
    let gone = alpha.kubectl(&["get", "pod", "lone"]);
    assert!(gone.stderr.contains("NotFound"), "{}", gone.stderr);
    alpha.kubectl(&["rollout", "status", "deployment/movable", "--timeout=120s"]).must();
    assert_eq!(places(alpha, "movable"), ["alpha", "alpha"]);
    assert_eq!(places(alpha, "each"), ["alpha", "beta"], "a pod of the node's own was moved");
    let spec = "jsonpath={.spec.unschedulable}";
    let closed = |name| alpha.kubectl(&["get", "node", name, "--output", spec]).must();
    assert_eq!((&*closed("beta"), &*closed("alpha")), ("true", ""));
    alpha.skiff(&["uncordon", "beta"]).must();
    assert_eq!(closed("beta"), "");
}

/// The nodes on which pods are that run and are not about to end, sorted.
pub fn places(alpha: &TestNode, app: &str) -> Vec<String> {
    let selector = format!("app={app}");
    let path =
        "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.deletionTimestamp}{'\\n'}{end}";
    let text = alpha.kubectl(&["get", "pods", "-l", &selector, "--output", path]).must();
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut places: Vec<String> =
        words.filter(|words| words.len() == 1).map(|words| words[0].to_owned()).collect();
    places.sort();
    places
}

fn certificates_are_replaced(alpha: &TestNode, beta: &TestNode) {
    alpha.kubectl(&["scale", "deployment/movable", "--replicas=4"]).must();
    alpha.kubectl(&["rollout", "status", "deployment/movable", "--timeout=120s"]).must();
    let daemons = |node: &TestNode, names: &[&str]| -> Vec<u32> {
        names.iter().map(|name| node.pid(name)).collect()
    };
    let all = ["datastore", "containerd", "agent", "kube-control", "kube-node"];
    let of_worker = ["containerd", "agent", "kube-node"];
    let before = (containers(alpha), daemons(alpha, &all), daemons(beta, &of_worker));
    for (node, count) in [(alpha, 15), (beta, 6)] {
        let shown = certificates(node);
        assert_eq!(shown.clock, None);
        assert!(shown.certificates.len() >= count, "{shown:?}");
        let known = shown.certificates.iter().all(|one| {
            one.state == CertificateState::Valid && one.purpose != "not known to this version"
        });
        assert!(known, "{shown:?}");
    }
    for node in [alpha, beta, beta] {
        let old = leaves(node);
        node.skiff(&["certs", "rotate"]).must();
        let new = leaves(node);
        assert_eq!(new.len(), old.len());
        for (file, text) in &new {
            assert_ne!(Some(text), old.get(file), "{} is the old one", file.display());
        }
    }
    // Whoever listens shows the new one, and does so to whoever connects.
    for (node, port, file) in [
        (alpha, 6443, "pki/kube-control/apiserver.pem"),
        (alpha, 10257, "pki/kube-control/controller-manager-serving.pem"),
        (alpha, 10250, "pki/kube-node/kubelet-serving.pem"),
        (alpha, 7443, "pki/agent/node.pem"),
        (beta, 10250, "pki/kube-node/kubelet-serving.pem"),
    ] {
        let wanted =
            serial(node, &format!("openssl x509 -in {}", node.root().join(file).display()));
        let place = if port == 10257 { "127.0.0.1" } else { node.address() };
        let protocol = if port == 7443 { "skiff-cluster/1" } else { "http/1.1" };
        let ask = format!(
            "openssl s_client -connect {place}:{port} -alpn {protocol} </dev/null 2>/dev/null \
             | openssl x509"
        );
        eventually(&format!("{}:{port} shows its new certificate", node.name()), BOUND, || {
            let shown = serial(node, &ask);
            if shown == wanted { Ok(()) } else { Err(format!("{shown} instead of {wanted}")) }
        });
    }
    // Both are heard of, the kubelets are reached, and nobody noticed.
    let renewed = lease(alpha, "beta");
    eventually("beta's kubelet goes on", BOUND, || {
        if lease(alpha, "beta") == renewed { Err(renewed.clone()) } else { Ok(()) }
    });
    for pod in alpha.kubectl(&["get", "pods", "--output", "name"]).must().lines() {
        // Connections to kubelets that were made with the former certificate are closed at some
        // moment, and who asks right then is told so.
        eventually("the kubelets are reached", BOUND, || {
            let logs = alpha.kubectl(&["logs", pod]);
            if logs.ok() { Ok(()) } else { Err(logs.stderr) }
        });
    }
    beta.skiff(&["nodes"]).must();
    let after = (containers(alpha), daemons(alpha, &all), daemons(beta, &of_worker));
    assert_eq!(after, before, "a container or a daemon was restarted");
}

/// The datastore is away for a while: a warning, and a word when it is back.
fn an_outage_of_the_record_is_told_once(alpha: &TestNode) {
    let log = || read(&alpha.root().join("log/skiffd.log"));
    let before = log().len();
    alpha.skiff(&["services", "stop", "datastore"]).must();
    for _ in 0..3 {
        let asked = alpha.skiff(&["tokens"]);
        assert_eq!(asked.code, 1, "{}", asked.stdout);
    }
    alpha.skiff(&["services", "start", "datastore"]).must();
    eventually("tokens are listed again", BOUND, || {
        let asked = alpha.skiff(&["tokens"]);
        if asked.ok() { Ok(()) } else { Err(asked.stderr) }
    });
    let told = log().split_off(before);
    let count = |words: &str| told.lines().filter(|line| line.contains(words)).count();
    assert_eq!(count("the cluster's record cannot be reached\""), 1, "{told}");
    assert_eq!(count("the cluster's record can be reached again"), 1, "{told}");
    assert_eq!(count("\"level\":\"ERROR\""), 0, "{told}");
}

/// Every container with how often it was restarted.
fn containers(alpha: &TestNode) -> Vec<String> {
    let path = "jsonpath={range .items[*].status.containerStatuses[*]}{.containerID} \
                {.restartCount}{'\\n'}{end}";
    let text = alpha.kubectl(&["get", "pods", "--all-namespaces", "--output", path]).must();
    let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
    all.sort();
    all
}

/// The text of every leaf of a node.
fn leaves(node: &TestNode) -> BTreeMap<PathBuf, String> {
    let shown = certificates(node).certificates;
    let files = shown.iter().map(|one| PathBuf::from(&one.file));
    let leaves = files.filter(|file| file.extension().is_some_and(|end| end == "pem"));
    leaves.map(|file| (file.clone(), fs::read_to_string(file).expect("a leaf"))).collect()
}

/// Also of a node that is not well.
#[track_caller]
fn certificates(node: &TestNode) -> Certificates {
    let shown = node.skiff(&["certs", "status", "--output", "json"]);
    serde_json::from_str(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"))
}

fn serial(node: &TestNode, what: &str) -> String {
    run(node.command("sh").args(["-c", &format!("{what} -noout -serial")])).stdout
}

/// When the node's kubelet was last heard of.
fn lease(alpha: &TestNode, name: &str) -> String {
    let args = ["get", "lease", name, "--namespace", "kube-node-lease", "--output"];
    alpha.kubectl(&[&args[..], &["jsonpath={.spec.renewTime}"]].concat()).stdout
}

/// The shortest life that certificates may have stands for a day, and two minutes for a month.
#[test]
fn a_worker_that_was_off_until_its_certificates_ended_gets_new_ones_when_it_is_back() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let short = "[pki]\nleaf-ttl-minutes = 1\n";
    let options = NodeOptions { config: short.into(), ..NodeOptions::default() };
    let alpha = TestNode::started(&network, "alpha", &options);
    let beta = worker(&network, &alpha, "beta");
    wait_ready(&alpha, "beta", BOUND);
    beta.skiff(&["stop"]).must();

    let begun = Instant::now();
    eventually("all its certificates have ended", BOUND, || {
        let ended = certificates(&beta).certificates.into_iter();
        let ended = ended.filter(|one| one.renews.is_some());
        let valid = ended.filter(|one| one.state != CertificateState::Expired).count();
        if valid == 0 { Ok(()) } else { Err(format!("{valid} are good still")) }
    });
    let shown = beta.skiff(&["certs", "status"]);
    assert_eq!(shown.code, 1, "{}", shown.stdout);
    std::thread::sleep(Duration::from_secs(120).saturating_sub(begun.elapsed()));
    beta.start();
    wait_ready(&alpha, "beta", BOUND);
    beta.skiff(&["certs", "status"]).must();
    assert_eq!(state_of(&alpha, "beta").as_deref(), Some("ready"));
    another_port(&alpha, &beta, short);
}

/// The API server moves to another port: the cluster's record and its workers follow.
fn another_port(alpha: &TestNode, beta: &TestNode, config: &str) {
    let config = format!("[node]\nname = \"alpha\"\n{config}[api]\nport = 16443\n");
    fs::write(alpha.root().join("skiff.toml"), config).expect("the configuration is written");
    alpha.skiff(&["stop"]).must();
    alpha.start();
    eventually("the worker looks for the API at the new port", BOUND, || {
        let text = read(&beta.root().join("etc/agent/backends.json"));
        if text.contains("16443") { Ok(()) } else { Err(text) }
    });
    let renewed = lease(alpha, "beta");
    eventually("beta's kubelet has found it", BOUND, || {
        let now = lease(alpha, "beta");
        if now != renewed && !now.is_empty() { Ok(()) } else { Err(renewed.clone()) }
    });
    wait_ready(alpha, "beta", BOUND);
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
