//! kube-node: kubelet and kube-proxy in one process. Root: it mounts volumes, sets up cgroups and
//! writes the packet filter's rules.

use serde_json::json;
use skiff_supervisor::{DaemonSpec, Probe};

use super::context::{Context, File, Probes};
use super::{agent, containerd, kube_control, reading, yaml};

pub const NAME: &str = "kube-node";

pub fn spec(context: &Context, _probes: &Probes) -> DaemonSpec {
    let config = context.paths.daemon_etc(NAME).join("kube-node.json");
    let mut builder = reading(context.daemon(NAME, "kube"), &files(context));
    if context.cluster.is_some() {
        builder = builder.needs(agent::NAME);
    }
    // It could begin without its own API server, and would ask others ever more rarely.
    if !context.is_worker() {
        builder = builder.needs(kube_control::NAME);
    }
    builder
        .args(["node", "--config", &config.to_string_lossy()])
        .env("GOGC", "50")
        .needs(containerd::NAME)
        .readiness(Probe::HttpGet {
            address: ([127, 0, 0, 1], context.kubelet_health_port).into(),
            path: "/healthz".into(),
        })
        .build()
}

pub fn files(context: &Context) -> Vec<File> {
    let etc = context.paths.daemon_etc(NAME);
    let own = context.paths.daemon_pki(NAME);
    let mut kubelet_args = vec![
        format!("--config={}", etc.join("kubelet.yaml").display()),
        format!("--kubeconfig={}", own.join("kubelet.kubeconfig").display()),
        format!("--root-dir={}", context.paths.kubelet().display()),
        format!("--hostname-override={}", context.node_name),
        format!("--node-ip={}", context.address),
    ];
    kubelet_args.extend(registration(context));
    kubelet_args.extend(context.kubelet_args.iter().cloned());
    let mut proxy_args = vec![format!("--config={}", etc.join("proxy.yaml").display())];
    proxy_args.extend(context.proxy_args.iter().cloned());
    let commands = json!({
        "kubelet": kubelet_args,
        "proxy": proxy_args,
        "network": network(context),
    });
    vec![
        File::new(etc.join("kube-node.json"), yaml::text(&commands)),
        File::new(etc.join("kubelet.yaml"), yaml::text(&kubelet(context))),
        File::new(etc.join("proxy.yaml"), yaml::text(&proxy(context))),
    ]
}

/// What the Node object begins with.
fn registration(context: &Context) -> Vec<String> {
    let Some(cluster) = &context.cluster else { return vec![] };
    let labels: Vec<String> =
        cluster.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let flag = |name: &str, values: &[String]| {
        (!values.is_empty()).then(|| format!("--{name}={}", values.join(",")))
    };
    let flags = [flag("node-labels", &labels), flag("register-with-taints", &cluster.taints)];
    flags.into_iter().flatten().collect()
}

/// In a cluster the pods of all nodes are joined, and whoever does that sees all nodes by an
/// identity of its own.
fn network(context: &Context) -> serde_json::Value {
    let mut network = json!({
        "confPath": context.paths.cni_config().join("10-skiff.conflist"),
        "dataDir": context.paths.cni_data(),
        "bridge": context.bridge,
        "mtu": context.mtu,
    });
    if context.cluster.is_some() {
        network["backend"] = json!({
            "type": "vxlan",
            "clusterCIDR": context.pod_cidr,
            "kubeconfig": context.paths.daemon_pki(NAME).join("network.kubeconfig"),
        });
    }
    network
}

fn kubelet(context: &Context) -> serde_json::Value {
    let own = context.paths.daemon_pki(NAME);
    let serving = own.join("kubelet-serving.pem");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": if context.address.is_ipv4() { "0.0.0.0" } else { "::" },
        "port": context.kubelet_port,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": context.kubelet_health_port,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": context.paths.pki().join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": serving,
        "tlsPrivateKeyFile": serving,
        "containerRuntimeEndpoint": format!("unix://{}", context.paths.containerd_socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": context.cgroup,
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": if context.restrict_oom_score { 0 } else { -999 },
        "clusterDNS": [context.dns_address],
        "clusterDomain": context.domain,
        "resolvConf": context.resolver,
        "podLogsDir": context.paths.pod_logs(),
        "volumePluginDir": context.paths.kubelet().join("volume-plugins"),
        "seccompDefault": true,
        "makeIPTablesUtilChains": false,
        // One pull that hangs must not hold up the others.
        "serializeImagePulls": false,
        "maxParallelImagePulls": 4,
        "enableDebuggingHandlers": true,
        "enableProfilingHandler": false,
        "enableDebugFlagsHandler": false,
        "eventRecordQPS": 20,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        "evictionHard": {
            "memory.available": "50Mi",
            // Amounts: a few per cent of a large disk are no shortage.
            "nodefs.available": "512Mi",
            "nodefs.inodesFree": "3%",
            "imagefs.available": "512Mi",
        },
        "imageGCHighThresholdPercent": 95,
        "imageGCLowThresholdPercent": 90,
    })
}

fn proxy(context: &Context) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": context.node_name,
        // Where ports of nodes are served. It would take what the Node says at this moment, which is
        // the former address when the machine has another one now, and keep to it.
        "bindAddress": context.address,
        "clusterCIDR": context.pod_cidr,
        "clientConnection": {
            "kubeconfig": context.paths.daemon_pki(NAME).join("kube-proxy.kubeconfig"),
        },
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // The host's own limits stay as the host set them.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}
