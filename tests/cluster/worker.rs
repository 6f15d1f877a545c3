//! Workers: they join, their pods and those of others reach each other, they heal, and they go.

use std::time::Duration;

use harness::{Network, TestNode, cannot_run_nodes, eventually};

use crate::place::{
    add_node, control_plane, fetch, join, kill, skiffd, state_of, wait_ready, worker,
};

/// One pod on each node, with a Service and a port on every node.
pub const EACH: &str = r"
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
      - name: main
        image: skiff.local/agnhost:1.36.3
        imagePullPolicy: Never
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  type: NodePort
  selector: {app: each}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
";

const BOUND: Duration = Duration::from_secs(120);

#[test]
fn workers_join_and_pods_of_all_nodes_reach_each_other() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    alpha.skiff(&["enable", "dns", "--wait"]).must();
    let beta = worker(&network, &alpha, "beta");
    let gamma = worker(&network, &alpha, "gamma");
    let nodes = [&alpha, &beta, &gamma];
    for node in nodes {
        assert_eq!(state_of(&alpha, node.name()).as_deref(), Some("ready"));
        node.import_test_image("agnhost");
    }
    let status = beta.skiff(&["status"]).must();
    assert!(status.contains("worker") && status.contains("alpha"), "{status}");
    alpha.apply(EACH);
    alpha.kubectl(&["rollout", "status", "daemonset/each", "--timeout=120s"]).must();
    everybody_reaches_everybody(&alpha, &nodes);

    heals(&alpha, &beta);
    everybody_reaches_everybody(&alpha, &nodes);
    goes(&alpha, &gamma);
}

/// From each pod: each other pod, the Service by address and name, and the port on every node.
pub fn everybody_reaches_everybody(alpha: &TestNode, nodes: &[&TestNode]) {
    let path = "jsonpath={range .items[*]}{.status.podIP} {.spec.nodeName}{'\\n'}{end}";
    let pods = alpha.kubectl(&["get", "pods", "-l", "app=each", "--output", path]).must();
    let pods: Vec<&str> = pods.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(pods.len(), nodes.len());
    let path = "jsonpath={.spec.clusterIP}";
    let service = alpha.kubectl(&["get", "service", "each", "--output", path]).must();
    let mut targets: Vec<(&str, u16)> = pods.iter().map(|pod| (*pod, 8080)).collect();
    targets.extend([(&*service, 80), ("each.default.svc.cluster.local", 80)]);
    targets.extend(nodes.iter().map(|node| (node.address(), 30080)));
    for pod in &pods {
        for (host, port) in &targets {
            // The pod's own web server asks for us, so that the request comes from inside it.
            let url = format!(
                "http://{pod}:8080/dial?host={host}&port={port}&protocol=http&tries=1\
                 &request=echo%3Fmsg%3Dahoy"
            );
            eventually(&format!("{host}:{port} answers {pod}"), Duration::from_secs(60), || {
                let answer = fetch(alpha, &url)?;
                if answer.contains(r#""responses":["ahoy"]"#) { Ok(()) } else { Err(answer) }
            });
        }
    }
}

/// skiffd and the agent of either side are killed, and everything is as before.
fn heals(alpha: &TestNode, beta: &TestNode) {
    for node in [alpha, beta] {
        kill(skiffd(node));
        kill_agent(node);
        node.skiff(&["start", "--timeout", "240"]).must();
        assert!(node.pid("agent") > 0);
    }
    for node in [alpha, beta] {
        wait_ready(alpha, node.name(), BOUND);
    }
    // A certificate that is no good is replaced by the cluster, as one is at half of its life.
    let leaf = beta.root().join("pki/kube-node/kube-proxy.pem");
    std::fs::write(&leaf, "no certificate").unwrap();
    eventually("the cluster renews it", BOUND, || {
        let text = std::fs::read_to_string(&leaf).unwrap_or_default();
        if text.contains("BEGIN CERTIFICATE") { Ok(()) } else { Err(text) }
    });
    // What concerns the cluster is still known, and still asked for by the way of the agents.
    let line = add_node(alpha, &["--name", "delta"]);
    assert_eq!(line[0], "join");
    eventually("a worker asks the cluster", BOUND, || {
        let outcome = beta.skiff(&["nodes"]);
        if outcome.ok() { Ok(()) } else { Err(outcome.stderr) }
    });
}

fn kill_agent(node: &TestNode) {
    let record = harness::run(
        std::process::Command::new("pgrep")
            .args(["--full", &format!("agent --certificate {}", node.root().display())]),
    );
    for pid in record.stdout.lines().filter_map(|line| line.trim().parse().ok()) {
        kill(pid);
    }
}

/// A worker that is away is removed, and refused when it comes back; after a reset it joins again.
fn goes(alpha: &TestNode, gamma: &TestNode) {
    let refused = alpha.skiff(&["remove-node", "gamma"]);
    assert!(refused.stderr.contains("gamma answers"), "{}", refused.stderr);
    gamma.skiff(&["stop"]).must();
    alpha.skiff(&["remove-node", "gamma"]).must();
    assert_eq!(state_of(alpha, "gamma"), None);
    eventually("Kubernetes forgets the node", BOUND, || {
        let names = alpha.kubectl(&["get", "nodes", "--output", "name"]).must();
        if names.contains("gamma") { Err(names) } else { Ok(()) }
    });
    gamma.skiff(&["start", "--no-wait"]).must();
    eventually("the removed node is told", BOUND, || {
        let said = gamma.skiff(&["status"]).stdout;
        if said.contains("was removed") { Ok(()) } else { Err(said) }
    });
    let asked = gamma.skiff(&["nodes"]);
    assert!(asked.stderr.contains("was removed"), "{}", asked.stderr);
    gamma.skiff(&["reset", "--yes"]).must();
    join(gamma, &add_node(alpha, &["--name", "gamma"])).must();
    wait_ready(alpha, "gamma", BOUND);
}
