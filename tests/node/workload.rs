//! Real work: what the tutorial does, as a test.

use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually};

/// A Deployment with a Service that does nothing but run.
pub const SLEEPER: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper}
spec:
  replicas: 2
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata: {labels: {app: sleeper}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: skiff.local/agnhost:1.36.3
        imagePullPolicy: Never
        args: [netexec, --http-port=8080]
---
apiVersion: v1
kind: Service
metadata: {name: sleeper}
spec:
  selector: {app: sleeper}
  ports: [{port: 80, targetPort: 8080}]
";

/// Deployment with Service, ConfigMap, Secret and an init container, and a pod that asks.
const SHOP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}
data: {greeting: ahoy}
---
apiVersion: v1
kind: Secret
metadata: {name: shop}
stringData: {password: keel}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 2
      initContainers:
      - name: prepare
        image: skiff.local/agnhost:1.36.3
        imagePullPolicy: Never
        command: [sh, -c, "cat /config/greeting /secret/password > /made/page"]
        volumeMounts:
        - {name: config, mountPath: /config}
        - {name: secret, mountPath: /secret}
        - {name: work, mountPath: /made}
      containers:
      - name: main
        image: skiff.local/agnhost:1.36.3
        imagePullPolicy: Never
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        volumeMounts:
        - {name: work, mountPath: /made}
      volumes:
      - {name: config, configMap: {name: shop}}
      - {name: secret, secret: {secretName: shop}}
      - {name: work, emptyDir: {}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  type: NodePort
  selector: {app: shop}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.local/agnhost:1.36.3
    imagePullPolicy: Never
    args: [netexec, --http-port=8080]
"#;

const JOBS: &str = r"
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: skiff.local/agnhost:1.36.3
        imagePullPolicy: Never
        command: [sh, -c, 'echo done']
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: often}
spec:
  schedule: '* * * * *'
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - name: main
            image: skiff.local/agnhost:1.36.3
            imagePullPolicy: Never
            command: [sh, -c, 'echo tick']
";

const POD_BOUND: Duration = Duration::from_secs(120);

#[test]
fn a_new_node_runs_what_the_tutorial_says() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let node = TestNode::started(&network, "alpha", &NodeOptions::default());
    node.skiff(&["enable", "dns", "--wait"]).must();
    node.import_test_image("agnhost");
    node.apply(SHOP);
    node.apply(JOBS);
    node.wait_for("deployment/shop", "condition=Available", POD_BOUND);
    node.wait_for("pod/client", "condition=Ready", POD_BOUND);

    serves(&node);
    kubectl_verbs(&node);
    describes(&node);
    node.wait_for("job/once", "condition=Complete", POD_BOUND);
    eventually("the CronJob runs", Duration::from_secs(100), || {
        let path = "jsonpath={.status.lastSuccessfulTime}";
        let last = node.kubectl(&["get", "cronjob", "often", "--output", path]).must();
        if last.is_empty() { Err("not yet".into()) } else { Ok(()) }
    });
}

/// Through ClusterIP, DNS name and NodePort, from a pod and from the host.
fn serves(node: &TestNode) {
    let path = "jsonpath={.spec.clusterIP}";
    let cluster_ip = node.kubectl(&["get", "service", "shop", "--output", path]).must();
    let path = "jsonpath={.status.podIP}";
    let client = node.kubectl(&["get", "pod", "client", "--output", path]).must();
    for (host, port) in [
        (cluster_ip.as_str(), 80),
        ("shop.default.svc.cluster.local", 80),
        ("shop", 80),
        (node.address(), 30080),
    ] {
        // The client's own web server asks for us, so that the request comes from inside a pod.
        let url = format!(
            "http://{client}:8080/dial?host={host}&port={port}&protocol=http&tries=1\
             &request=echo%3Fmsg%3Dhello"
        );
        eventually(&format!("{host}:{port} answers a pod"), Duration::from_secs(30), || {
            let answer = fetch(node, &url)?;
            if answer.contains(r#""responses":["hello"]"#) { Ok(()) } else { Err(answer) }
        });
    }
    let url = format!("http://{cluster_ip}/echo?msg=host");
    let said =
        eventually("the Service answers the host", Duration::from_secs(30), || fetch(node, &url));
    assert_eq!(said.trim(), "host");
    hairpin(node, &cluster_ip);
}

/// A pod reaches itself through its own Service.
fn hairpin(node: &TestNode, cluster_ip: &str) {
    node.kubectl(&["scale", "deployment/shop", "--replicas=1"]).must();
    node.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]).must();
    let path = "jsonpath={.items[0].status.podIP}";
    eventually("a pod reaches itself", Duration::from_secs(60), || {
        let pod = node.kubectl(&["get", "pods", "-l", "app=shop", "--output", path]).must();
        let url = format!(
            "http://{pod}:8080/dial?host={cluster_ip}&port=80&protocol=http&tries=1\
             &request=echo%3Fmsg%3Dself"
        );
        let answer = fetch(node, &url)?;
        if answer.contains(r#""responses":["self"]"#) { Ok(()) } else { Err(answer) }
    });
    node.kubectl(&["scale", "deployment/shop", "--replicas=2"]).must();
    node.kubectl(&["rollout", "status", "deployment/shop", "--timeout=60s"]).must();
}

/// Asks from the host's own network.
fn fetch(node: &TestNode, url: &str) -> Result<String, String> {
    let outcome = harness::run(node.command("curl").args(["-sS", "--max-time", "5", url]));
    if outcome.ok() { Ok(outcome.stdout) } else { Err(outcome.stderr) }
}

fn kubectl_verbs(node: &TestNode) {
    let page = node.kubectl(&["exec", "deployment/shop", "--", "cat", "/made/page"]).must();
    assert_eq!(page, "ahoykeel");
    node.kubectl(&["logs", "deployment/shop"]).must();
    let file = node.root().join("copied");
    let pod = node
        .kubectl(&["get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[0].metadata.name}"])
        .must();
    let from = format!("{pod}:/made/page");
    node.kubectl(&["cp", &from, &file.to_string_lossy()]).must();
    assert_eq!(std::fs::read_to_string(&file).expect("the copy"), "ahoykeel");

    let forward = node
        .command(harness::skiff_binary())
        .args(["kubectl", "port-forward", "service/shop", "18080:80"])
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut forward = forward.expect("port-forward starts");
    let said = eventually("port-forward answers", Duration::from_secs(30), || {
        fetch(node, "http://127.0.0.1:18080/echo?msg=forward")
    });
    forward.kill().expect("port-forward can be ended");
    forward.wait().expect("port-forward ends");
    assert_eq!(said.trim(), "forward");

    node.kubectl(&["scale", "deployment/shop", "--replicas=3"]).must();
    node.kubectl(&["rollout", "restart", "deployment/shop"]).must();
    node.kubectl(&["rollout", "status", "deployment/shop", "--timeout=120s"]).must();
    let path = "jsonpath={.status.readyReplicas}";
    let ready = node.kubectl(&["get", "deployment", "shop", "--output", path]).must();
    assert_eq!(ready, "3");
}

const FRUITS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fruits.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: fruits, singular: fruit, kind: Fruit}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          colour: {type: string, description: How it looks when it is ripe}
";

/// What the API says of itself: made when it is asked for, for our own kinds and for upstream's.
fn describes(node: &TestNode) {
    let said = node.kubectl(&["explain", "deployment.spec.replicas"]).must();
    assert!(said.contains("Number of desired pods"), "{said}");
    node.apply(FRUITS);
    node.wait_for("crd/fruits.example.org", "condition=Established", POD_BOUND);
    eventually("a new kind is explained", Duration::from_secs(60), || {
        let said = node.kubectl(&["explain", "fruit.colour"]);
        if said.stdout.contains("when it is ripe") { Ok(()) } else { Err(said.stderr) }
    });
    eventually("the older form has both", Duration::from_secs(60), || {
        let all = node.kubectl(&["get", "--raw", "/openapi/v2"]).must();
        let has = |name: &str| all.contains(&format!("\"{name}\":"));
        match has("io.k8s.api.apps.v1.Deployment") && has("org.example.v1.Fruit") {
            true => Ok(()),
            false => Err(format!("{} bytes", all.len())),
        }
    });
    let pod =
        r#"{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": {"colour": 1}}"#;
    let file = node.root().join("unknown-field.json");
    std::fs::write(&file, pod).expect("the pod's file");
    let refused = node.kubectl(&["apply", "--validate=strict", "-f", &file.to_string_lossy()]);
    assert!(refused.stderr.contains("unknown field \"spec.colour\""), "{}", refused.stderr);
}

/// Ids of all containers, sorted.
pub fn container_ids(node: &TestNode) -> Vec<String> {
    sorted(node, "jsonpath={range .items[*].status.containerStatuses[*]}{.containerID}{'\\n'}{end}")
}

/// How often each container was restarted, sorted.
pub fn restart_counts(node: &TestNode) -> Vec<String> {
    sorted(
        node,
        "jsonpath={range .items[*].status.containerStatuses[*]}{.name}={.restartCount}{'\\n'}{end}",
    )
}

fn sorted(node: &TestNode, path: &str) -> Vec<String> {
    let text = node.kubectl(&["get", "pods", "--all-namespaces", "--output", path]).must();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
