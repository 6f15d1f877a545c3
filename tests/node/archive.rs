//! What docs/how-to/back-up-a-cluster.md and restore-a-cluster.md say, done: a cluster is backed up
//! by its schedule and by hand, lost, and brought back on another machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use harness::{Network, NodeOptions, Outcome, TestNode, cannot_run_nodes, eventually, run};
use serde_json::Value;

use crate::workload::SLEEPER;

const BOUND: Duration = Duration::from_secs(120);

/// What a restore must bring back.
const OBJECTS: &str = r"
apiVersion: v1
kind: Secret
metadata: {name: kept}
stringData: {password: keel}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
data: {greeting: ahoy}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: robot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: robot, namespace: default}]
";

#[test]
fn a_cluster_comes_back_on_another_machine_with_its_keys_objects_and_pods() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let archives = tempfile::tempdir_in("/var/tmp").expect("a directory for archives");
    let key = age::x25519::Identity::generate();
    let identity = archives.path().join("key.txt");
    fs::write(&identity, key.to_string().expose_secret()).expect("a key file");
    let identity = identity.to_string_lossy().into_owned();
    let public = key.to_public().to_string();
    let config = format!(
        "[backup]\nschedule = \"1h\"\nplace = \"{}\"\nencrypt-to = [\"{public}\"]\n",
        archives.path().display()
    );
    let options = NodeOptions { config, ..NodeOptions::default() };
    let alpha = TestNode::started(&network, "alpha", &options);
    alpha.import_test_image("agnhost");
    alpha.apply(OBJECTS);
    alpha.apply(SLEEPER);
    alpha.wait_for("deployment/sleeper", "condition=Available", BOUND);

    // The first archive is due at once, and the status says that it is there.
    eventually("the schedule takes one", BOUND, || {
        let outcome = alpha.skiff(&["backup", "schedule", "--output", "json"]);
        let part: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
        if outcome.ok() && part["newest"].is_string() {
            Ok(())
        } else {
            Err(format!("{outcome:?}"))
        }
    });
    let status = alpha.skiff(&["status"]).must();
    assert!(status.contains("archives: the newest"), "{status}");
    let old_config = archives.path().join("old.kubeconfig");
    let group = ["kubeconfig", "--user", "jane", "--group", "skiff:cluster-admins"];
    fs::write(&old_config, alpha.skiff(&group).must()).expect("a kubeconfig");
    let token = alpha.kubectl(&["create", "token", "robot", "--duration=2h"]).must();

    let place = archives.path().to_string_lossy().into_owned();
    let created = alpha.skiff(&["backup", "create", &place, "--output", "json"]).must();
    let created: Value = serde_json::from_str(&created).expect("JSON");
    let archive = created["file"].as_str().expect("a path").to_owned();
    let verify = ["backup", "verify", &archive, "--identity-file", &identity];
    alpha.skiff(&verify).must();
    alpha.kubectl(&["create", "configmap", "too-late"]).must();
    alpha.skiff(&["reset", "--yes"]).must();

    let beta = TestNode::new(&network, "beta", &NodeOptions::default());
    let restore = ["backup", "restore", &archive, "--identity-file", &identity];
    // The settings of this machine say that it is another node.
    let refused = beta.skiff(&restore);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("the settings do not go with"), "{}", refused.stderr);
    fs::remove_file(beta.root().join("skiff.toml")).expect("settings of its own");
    beta.skiff(&restore).must();
    beta.start();
    comes_back(&beta, &old_config, token.trim());
    // The schedule is among the settings, and nothing is due.
    let part = beta.skiff(&["backup", "schedule", "--output", "json"]).must();
    let part: Value = serde_json::from_str(&part).expect("JSON");
    assert_eq!(part["everyS"], 3600, "{part}");

    // On the node itself: what it was is kept beside, and a failed schedule is told.
    beta.kubectl(&["delete", "configmap", "kept"]).must();
    let running = beta.skiff(&[&restore[..], &["--replace"]].concat());
    assert!(running.stderr.contains("the node runs"), "{}", running.stderr);
    beta.skiff(&["stop"]).must();
    let replaced = beta.skiff(&[&restore[..], &["--replace", "--output", "json"]].concat()).must();
    let replaced: Value = serde_json::from_str(&replaced).expect("JSON");
    let former = replaced["former"].as_str().expect("the former state is named");
    assert!(Path::new(former).join("pki/ca.key").is_file(), "{former}");
    drop(archives);
    beta.start();
    beta.kubectl(&["get", "configmap", "kept"]).must();
    eventually("a schedule that fails is told", BOUND, || {
        let status = beta.skiff(&["status"]).stdout;
        if status.contains("archives of the cluster fail") { Ok(()) } else { Err(status) }
    });
    assert_eq!(beta.skiff(&["backup", "schedule"]).code, 1);
}

/// Everything of before the archive is there, and nothing of after.
fn comes_back(node: &TestNode, old_config: &Path, token: &str) {
    let secret = ["get", "secret", "kept", "--output", "jsonpath={.data.password}"];
    assert_eq!(node.kubectl(&secret).must(), "a2VlbA==");
    let greeting = ["get", "configmap", "kept", "--output", "jsonpath={.data.greeting}"];
    assert_eq!(node.kubectl(&greeting).must(), "ahoy");
    assert!(!node.kubectl(&["get", "configmap", "too-late"]).ok());
    let nodes = node.kubectl(&["get", "nodes", "--output", "name"]).must();
    assert_eq!(nodes.trim(), "node/alpha");
    node.import_test_image("agnhost");
    // Asked of the pods themselves: what the objects say is of before.
    let service = ["get", "service", "sleeper", "--output", "jsonpath={.spec.clusterIP}"];
    let url = format!("http://{}/echo?msg=ahoy", node.kubectl(&service).must());
    eventually("the pods run again", BOUND, || {
        let answer = run(node.command("curl").args(["-sS", "--max-time", "2", &url]));
        if answer.stdout == "ahoy" { Ok(()) } else { Err(answer.stdout + &answer.stderr) }
    });

    // The credentials of before are good: same authorities, same key of service accounts.
    let server = format!("https://{}:6443", node.address());
    let with = |config: &Path| {
        let config = config.to_string_lossy().into_owned();
        node.kubectl(&["--kubeconfig", &config, "--server", &server, "get", "configmap", "kept"])
    };
    with(old_config).must();
    let robot = node.root().join("robot.kubeconfig");
    let authority = node.root().join("pki/ca.crt");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
         clusters: [{{name: a, cluster: {{server: \"{server}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: a, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n",
        authority.display()
    );
    fs::write(&robot, text).expect("a kubeconfig");
    with(&robot).must();

    // Revisions go on above all that were given out.
    node.kubectl(&["create", "configmap", "new"]).must();
    let version = ["get", "configmap", "new", "--output", "jsonpath={.metadata.resourceVersion}"];
    let version: u64 = node.kubectl(&version).must().parse().expect("a number");
    assert!(version > 1_000_000_000, "{version}");
    let outcome: Outcome = node.skiff(&["status"]);
    assert!(outcome.ok(), "{}{}", outcome.stdout, outcome.stderr);
}
