//! kube-control: API server, controller manager and scheduler in one unprivileged process.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use skiff_supervisor::DaemonSpec;

use super::context::{Context, File, Probes};
use super::external::Kept;
use super::{datastore, kine, reading, yaml};
use crate::config::Endpoint;
use crate::paths::Paths;

pub const NAME: &str = "kube-control";
/// How long a node may be silent before it is not ready, in seconds (upstream: 50), and how often is
/// looked (upstream: 5). A node that lost its power with the controllers' leader on it is not ready
/// within 40 s: a lease, the next one's try and start, then these.
const NODE_GRACE_S: u32 = 20;
const NODE_LOOK_S: u32 = 2;
/// How long pods stay on a node that is not ready, in seconds (upstream: 300). They are replaced
/// within 60 s, of which their new start takes some.
const TOLERATION_S: u32 = 30;
/// Who leads the controllers, where several nodes run them. All well above what the datastore
/// takes to have another leader, some 2 s in a good network: whoever can't renew in time ends.
const LEASE_S: u32 = 12;
const LEASE_RENEW_S: u32 = 9;
const LEASE_RETRY_S: u32 = 2;
/// The API server waits for its watchers to leave, who do not; it keeps no state of its own.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How a start collects garbage: not before its memory is this much, which takes a third of the
/// processor time of a start otherwise; later would leave what stays scattered, 10 to 20 MiB more.
/// kube-control takes over ten seconds later, or earlier when so much lives.
const START_GARBAGE_PERCENT: &str = "off";
const START_MEMORY: &str = "130MiB";

pub fn spec(context: &Context, probes: &Probes) -> DaemonSpec {
    let config = context.paths.daemon_etc(NAME).join("kube-control.json");
    let builder = reading(context.daemon(NAME, "kube"), &files(context))
        .input(context.paths.pki().to_string_lossy(), &context.authorities)
        .args(["control", "--config", &config.to_string_lossy()])
        .env("GOGC", START_GARBAGE_PERCENT)
        .env("GOMEMLIMIT", START_MEMORY)
        .user(context.accounts.control)
        .stop_timeout(STOP_TIMEOUT)
        .readiness(probes.api_server.clone());
    match context.kept() {
        Kept::Here => builder.needs(datastore::NAME).build(),
        Kept::Database => builder.needs(kine::NAME).build(),
        Kept::Etcd => builder.build(),
    }
}

pub fn files(context: &Context) -> Vec<File> {
    let etc = context.paths.daemon_etc(NAME);
    let commands = json!({
        "apiserver": api_server(context),
        "controllerManager": controller_manager(context),
        "scheduler": scheduler(context),
        "refused": refused(&context.paths),
    });
    vec![
        File::new(etc.join("kube-control.json"), yaml::text(&commands)),
        File::new(etc.join("audit-policy.yaml"), yaml::text(&audit_policy())),
    ]
}

/// Who was removed from the cluster, as `node/cluster/refused.rs` writes it. A lone node has none.
pub fn refused(paths: &Paths) -> PathBuf {
    paths.daemon_etc(NAME).join("refused.json")
}

fn api_server(context: &Context) -> Vec<String> {
    let own = context.paths.daemon_pki(NAME);
    let etc = context.paths.daemon_etc(NAME);
    let pki = context.paths.pki();
    let leaf = own.join("apiserver.pem");
    let kubelet_client = own.join("apiserver-kubelet-client.pem");
    let front_proxy = own.join("front-proxy-client.pem");
    let mut flags = Flags::default();
    flags
        .set("advertise-address", context.address)
        .set("bind-address", if context.address.is_ipv4() { "0.0.0.0" } else { "::" })
        .set("secure-port", context.api_port)
        .set("service-cluster-ip-range", &context.service_cidr)
        .path("tls-cert-file", &leaf)
        .path("tls-private-key-file", &leaf)
        .path("client-ca-file", &pki.join("ca.crt"))
        .path("kubelet-certificate-authority", &pki.join("ca.crt"))
        .path("kubelet-client-certificate", &kubelet_client)
        .path("kubelet-client-key", &kubelet_client)
        .set("kubelet-preferred-address-types", "InternalIP")
        .path("proxy-client-cert-file", &front_proxy)
        .path("proxy-client-key-file", &front_proxy)
        .path("requestheader-client-ca-file", &pki.join("front-proxy-ca.crt"))
        .set("requestheader-allowed-names", "front-proxy-client")
        .set("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .set("requestheader-group-headers", "X-Remote-Group")
        .set("requestheader-username-headers", "X-Remote-User")
        .set("service-account-issuer", format!("https://kubernetes.default.svc.{}", context.domain))
        .path("service-account-key-file", &pki.join("service-account.pub"))
        .path("service-account-signing-key-file", &own.join("service-account.key"))
        .path("encryption-provider-config", &own.join("encryption.yaml"))
        .set("authorization-mode", "Node,RBAC")
        .set("anonymous-auth", false)
        .set("enable-admission-plugins", "NodeRestriction")
        .set("allow-privileged", true)
        .set("profiling", false)
        .path("audit-policy-file", &etc.join("audit-policy.yaml"))
        .path("audit-log-path", &context.paths.audit_log())
        .set("audit-log-maxsize", 20)
        .set("audit-log-maxbackup", 2)
        .set("default-not-ready-toleration-seconds", TOLERATION_S)
        .set("default-unreachable-toleration-seconds", TOLERATION_S)
        // The store answers from memory over a local socket: long health intervals save wake-ups.
        .set("etcd-count-metric-poll-period", "5m")
        .set("endpoint-reconciler-type", "lease");
    datastore_flags(&mut flags, context);
    flags.extend(&context.api_server_args)
}

/// Who keeps the objects.
fn datastore_flags(flags: &mut Flags, context: &Context) {
    let socket = |path: PathBuf| format!("unix://{}", path.display());
    let Some(external) = &context.external else {
        flags.set("etcd-servers", socket(context.paths.datastore_socket()));
        return;
    };
    let Endpoint::Etcd(_) = &external.endpoint else {
        flags.set("etcd-servers", socket(context.paths.kine_socket()));
        return;
    };
    let files = external.files(&context.paths);
    flags.set("etcd-servers", &external.endpoint);
    if external.has_authority {
        flags.path("etcd-cafile", &files.authority);
    }
    if external.has_certificate {
        flags.path("etcd-certfile", &files.certificate).path("etcd-keyfile", &files.key);
    }
}

fn controller_manager(context: &Context) -> Vec<String> {
    let own = context.paths.daemon_pki(NAME);
    let mut flags = Flags::default();
    let kubeconfig = own.join("controller-manager.kubeconfig");
    flags
        .loopback(10257, &own.join("controller-manager-serving.pem"), &kubeconfig)
        .election(context)
        // Each controller asks for an account and a token before it begins: with upstream's 20 a
        // second this alone takes four seconds of every start. The API server is next door and
        // has fair queues of its own.
        .set("kube-api-qps", 100)
        .set("kube-api-burst", 200)
        .set("use-service-account-credentials", true)
        .path("service-account-private-key-file", &own.join("service-account.key"))
        .path("root-ca-file", &context.paths.pki().join("ca.crt"))
        .set("cluster-name", "skiff")
        .set("cluster-cidr", &context.pod_cidr)
        .set("allocate-node-cidrs", true)
        .set("service-cluster-ip-range", &context.service_cidr)
        .set("node-monitor-grace-period", format!("{NODE_GRACE_S}s"))
        .set("node-monitor-period", format!("{NODE_LOOK_S}s"))
        .set("profiling", false);
    flags.extend(&context.controller_manager_args)
}

fn scheduler(context: &Context) -> Vec<String> {
    let own = context.paths.daemon_pki(NAME);
    let mut flags = Flags::default();
    flags
        .loopback(10259, &own.join("scheduler-serving.pem"), &own.join("scheduler.kubeconfig"))
        .election(context)
        .set("profiling", false);
    flags.extend(&context.scheduler_args)
}

/// Who changed what, and who read secrets; not their content, and not the machinery's own noise.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "users": [
                "system:kube-controller-manager", "system:kube-scheduler", "system:apiserver",
                "system:kube-proxy" ] },
            { "level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"] },
            { "level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*"] },
            { "level": "None", "resources": [
                { "group": "", "resources": ["events"] },
                { "group": "coordination.k8s.io", "resources": ["leases"] } ] },
            { "level": "Metadata", "resources": [{ "group": "", "resources": ["secrets", "configmaps"] }] },
            { "level": "None", "verbs": ["get", "list", "watch"] },
            { "level": "Metadata" }
        ]
    })
}

/// A command line made of `--name=value`.
#[derive(Default)]
struct Flags(Vec<String>);

impl Flags {
    fn set(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.0.push(format!("--{name}={value}"));
        self
    }

    fn path(&mut self, name: &str, value: &std::path::Path) -> &mut Self {
        self.set(name, value.display())
    }

    /// What the two clients of the API server share: they listen on loopback alone.
    fn loopback(
        &mut self,
        port: u16,
        leaf: &std::path::Path,
        kubeconfig: &std::path::Path,
    ) -> &mut Self {
        self.set("bind-address", "127.0.0.1")
            .set("secure-port", port)
            .path("tls-cert-file", leaf)
            .path("tls-private-key-file", leaf)
            .path("kubeconfig", kubeconfig)
            .path("authentication-kubeconfig", kubeconfig)
            .path("authorization-kubeconfig", kubeconfig)
    }

    /// Alone there is nobody to agree with: no lease is written, and none is waited for.
    fn election(&mut self, context: &Context) -> &mut Self {
        self.set("leader-elect", context.elects());
        if context.elects() {
            self.set("leader-elect-lease-duration", format!("{LEASE_S}s"))
                .set("leader-elect-renew-deadline", format!("{LEASE_RENEW_S}s"))
                .set("leader-elect-retry-period", format!("{LEASE_RETRY_S}s"));
        }
        self
    }

    /// The user's own flags come last, so that they win.
    fn extend(&mut self, more: &[String]) -> Vec<String> {
        self.0.extend(more.iter().cloned());
        std::mem::take(&mut self.0)
    }
}
