//! An addon's life on a real cluster.

use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually};

#[test]
fn an_addon_is_repaired_by_its_repetition_and_leaves_nothing_but_what_the_user_made() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    let before = settled(&node);
    node.skiff(&["enable", "dns"]).must();
    let system = "--namespace=kube-system";
    let available = "--for=condition=Available";
    node.kubectl(&["wait", "deployment/coredns", system, available, "--timeout=120s"]).must();
    eventually("the addon is healthy", Duration::from_secs(30), || {
        let screen = node.skiff(&["addons"]).must();
        if screen.contains("healthy") || screen.contains("enabled") { Ok(()) } else { Err(screen) }
    });

    let again = node.skiff(&["enable", "dns"]);
    assert!(again.ok(), "{again:?}");
    let said = again.stdout + &again.stderr;
    assert!(!said.contains("is created") && !said.contains("is changed"), "{said}");

    // Names of other distributions, and options from a file.
    let screen = node.skiff(&["enable", "coredns"]);
    assert!(screen.ok() && screen.stderr.contains("dns is enabled already"), "{screen:?}");
    let screen = node.skiff(&["enable", "rbac", "ha-cluster"]);
    assert!(screen.ok() && screen.stderr.contains("rbac is always on"), "{screen:?}");
    let screen = node.skiff(&["disable", "rbac"]);
    assert!(!screen.ok() && screen.stderr.contains("rbac is always on"), "{screen:?}");
    let shown = node.skiff(&["addons", "show", "coredns", "--output=json"]).must();
    assert!(shown.contains("\"name\": \"dns\""), "{shown}");
    let values = node.root().join("values.yaml");
    std::fs::write(&values, "replicas: 0\n").expect("a file beside the node");
    let line = ["enable", "dns", "--values", values.to_str().expect("UTF-8")];
    let screen = node.skiff(&line);
    assert!(!screen.ok() && screen.stderr.contains("0 is less than 1"), "{screen:?}");
    std::fs::write(&values, "replicas: 1\n").expect("a file beside the node");
    node.skiff(&line).must();

    // Somebody scales it away and removes a part.
    node.kubectl(&["delete", "service", "kube-dns", system]).must();
    node.kubectl(&["scale", "deployment/coredns", system, "--replicas=0"]).must();
    node.skiff(&["enable", "dns"]).must();
    node.kubectl(&["get", "service", "kube-dns", system]).must();
    node.kubectl(&["wait", "deployment/coredns", system, available, "--timeout=60s"]).must();
    let replicas = ["get", "deployment/coredns", system, "--output=jsonpath={.spec.replicas}"];
    assert_eq!(node.kubectl(&replicas).must(), "1");

    // What the user made in the same place stays.
    node.kubectl(&["create", "configmap", "mine", system]).must();
    node.skiff(&["disable", "dns"]).must();
    eventually("nothing of the addon is left", Duration::from_secs(60), || {
        let mut left = objects(&node);
        left.retain(|object| !before.contains(object) && !object.ends_with("/mine"));
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });
    node.kubectl(&["get", "configmap", "mine", system]).must();
    let again = node.skiff(&["disable", "dns"]);
    assert!(again.ok(), "disabling it again is no error: {again:?}");
}

/// A new cluster makes objects of its own for some seconds.
fn settled(node: &TestNode) -> Vec<String> {
    let mut last = Vec::new();
    eventually("the cluster's own objects are there", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_secs(5));
        let now = objects(node);
        let same = now == last;
        last = now;
        if same { Ok(last.clone()) } else { Err(format!("{} objects", last.len())) }
    })
}

/// Everything that an addon could leave; events and leases come and go by themselves.
fn objects(node: &TestNode) -> Vec<String> {
    let kinds = "serviceaccounts,configmaps,services,deployments,replicasets,pods,secrets,\
                 endpointslices,roles,rolebindings,networkpolicies,poddisruptionbudgets";
    let namespaced = ["get", kinds, "--all-namespaces", "--output=name"];
    let cluster = ["get", "clusterroles,clusterrolebindings,priorityclasses", "--output=name"];
    let text = node.kubectl(&namespaced).must() + &node.kubectl(&cluster).must();
    text.lines().map(str::to_owned).collect()
}
