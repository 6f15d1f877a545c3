//! One file per daemon: what it needs, waits for, writes, its arguments, user and health.
//!
//! Everything here is a function of a [`Context`]: the files a daemon reads and the specification
//! that the supervisor gets. Nothing is written and nothing is started here.

pub mod agent;
pub mod containerd;
mod context;
pub mod datastore;
pub mod external;
pub mod kine;
pub mod kube_control;
pub mod kube_node;
mod yaml;

pub use context::{Cluster, Context, File, Probes};
pub use external::{External, Kept};

use microcluster::record::NodeRole;
use skiff_supervisor::{DaemonSpec, DaemonSpecBuilder};

/// The daemons of a node with that role in its cluster, in the order in which they come up; a lone
/// node has none.
pub fn names(role: Option<NodeRole>, kept: Kept) -> Vec<&'static str> {
    let controls = role != Some(NodeRole::Worker);
    let all = [
        // Who belongs to a cluster is kept here, wherever Kubernetes' objects are.
        (datastore::NAME, controls && (kept == Kept::Here || role.is_some())),
        (kine::NAME, controls && kept == Kept::Database),
        (containerd::NAME, true),
        (agent::NAME, role.is_some()),
        (kube_control::NAME, controls),
        (kube_node::NAME, true),
    ];
    all.into_iter().filter(|(_, runs)| *runs).map(|(name, _)| name).collect()
}

/// Every daemon of this node, in no particular order: `needs` orders them.
pub fn specs(context: &Context, probes: &Probes) -> Vec<DaemonSpec> {
    let mut specs = vec![containerd::spec(context, probes), kube_node::spec(context, probes)];
    if !context.is_worker() {
        specs.push(kube_control::spec(context, probes));
        if context.kept() == Kept::Here || context.cluster.is_some() {
            specs.push(datastore::spec(context));
        }
        let database = context.external.as_ref().filter(|it| it.kept() == Kept::Database);
        specs.extend(database.map(|external| kine::spec(context, external)));
    }
    specs.extend(context.cluster.as_ref().map(|cluster| agent::spec(context, cluster, probes)));
    specs
}

/// Every file that the daemons read and that is made from the configuration.
pub fn files(context: &Context) -> Vec<File> {
    let control = if context.is_worker() { vec![] } else { kube_control::files(context) };
    [containerd::files(context), control, kube_node::files(context)].concat()
}

/// Adds a daemon's files to its specification, so that it restarts when one of them changes.
fn reading(builder: DaemonSpecBuilder, files: &[File]) -> DaemonSpecBuilder {
    files
        .iter()
        .fold(builder, |builder, file| builder.input(file.path.to_string_lossy(), &file.content))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::node::account::{Account, Accounts};
    use crate::paths::Paths;

    fn context(role: Option<NodeRole>) -> Context {
        kept_at(role, None)
    }

    fn kept_at(role: Option<NodeRole>, endpoint: Option<&str>) -> Context {
        let account = Account { uid: 1, gid: 1 };
        Context {
            paths: Paths::new("/r"),
            build: "/r/build/a".into(),
            node_name: "alpha".into(),
            address: IpAddr::from([192, 0, 2, 1]),
            cgroup: "/skiff".into(),
            bridge: "skiff0".into(),
            mtu: 0,
            pod_cidr: "10.1.0.0/16".into(),
            service_cidr: "10.152.183.0/24".into(),
            dns_address: IpAddr::from([10, 152, 183, 10]),
            domain: "cluster.local".into(),
            api_port: 6443,
            kubelet_port: 10250,
            kubelet_health_port: 10248,
            resolver: "/etc/resolv.conf".into(),
            restrict_oom_score: false,
            pause_image: "pause".into(),
            accounts: Accounts { datastore: account, control: account, skiff_gid: 1 },
            log_bytes_max: 1,
            log_files_max: 1,
            api_server_args: vec![],
            controller_manager_args: vec![],
            scheduler_args: vec![],
            kubelet_args: vec![],
            proxy_args: vec![],
            cluster: role.map(|role| Cluster {
                role,
                id: microcluster::record::NodeId::of_key(b"alpha"),
                agent: account,
                labels: [("gpu".to_owned(), "yes".to_owned())].into(),
                taints: vec!["gpu=yes:NoSchedule".into()],
                join: vec![],
                elects: false,
            }),
            external: endpoint.map(|endpoint| External {
                endpoint: endpoint.parse().unwrap(),
                has_authority: true,
                has_certificate: false,
                digest: "1".into(),
            }),
            authorities: String::new(),
        }
    }

    fn probes() -> Probes {
        use skiff_supervisor::Probe;
        Probes { containerd: Probe::None, api_server: Probe::None, agent: Probe::None }
    }

    fn kube_node_file(role: Option<NodeRole>) -> String {
        let file = files(&context(role)).into_iter().find(|f| f.path.ends_with("kube-node.json"));
        file.expect("every node has one").content
    }

    #[test]
    fn each_role_has_its_daemons_and_no_other() {
        for role in [None, Some(NodeRole::ControlPlane), Some(NodeRole::Worker)] {
            for endpoint in [None, Some("https://a"), Some("postgres://a@b/c")] {
                let endpoint = endpoint.filter(|_| role != Some(NodeRole::Worker));
                let context = kept_at(role, endpoint);
                let specs = specs(&context, &probes());
                let mut made: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                let mut named = names(role, context.kept());
                made.sort_unstable();
                named.sort_unstable();
                assert_eq!(made, named, "{role:?} {endpoint:?}");
                for spec in &specs {
                    let known = |name: &str| made.contains(&name);
                    assert!(spec.needs.iter().all(|name| known(name.as_str())), "{}", spec.name);
                }
            }
        }
    }

    #[test]
    fn a_lone_node_with_an_external_datastore_runs_none_of_its_own() {
        assert_eq!(names(None, Kept::Etcd), ["containerd", "kube-control", "kube-node"]);
        let all = ["kine", "containerd", "kube-control", "kube-node"];
        assert_eq!(names(None, Kept::Database), all);
        let cluster = Some(NodeRole::ControlPlane);
        assert!(names(cluster, Kept::Etcd).contains(&datastore::NAME), "for who belongs to it");
    }

    #[test]
    fn the_api_server_is_told_who_keeps_its_objects_and_nobody_the_password() {
        let text = |endpoint| {
            let context = kept_at(None, endpoint);
            let file = files(&context).into_iter().find(|f| f.path.ends_with("kube-control.json"));
            file.expect("it is the control plane's").content
        };
        assert!(text(None).contains("--etcd-servers=unix:///r/run/datastore/datastore.sock"));
        let etcd = text(Some("https://a,https://b"));
        assert!(etcd.contains("--etcd-servers=https://a:2379,https://b:2379"), "{etcd}");
        assert!(etcd.contains("--etcd-cafile=/r/pki/kube-control/datastore-ca.crt"), "{etcd}");
        let sql = text(Some("postgres://a@b/c"));
        assert!(sql.contains("--etcd-servers=unix:///r/run/kine/kine.sock"), "{sql}");
        assert!(!sql.contains("etcd-cafile") && !sql.contains("postgres"), "{sql}");
    }

    #[test]
    fn a_lone_node_is_as_it_was_before_there_were_clusters() {
        let text = kube_node_file(None);
        assert!(!text.contains("backend") && !text.contains("node-labels"), "{text}");
        let specs = specs(&context(None), &probes());
        assert!(specs.iter().all(|spec| spec.args.iter().all(|arg| !arg.contains("cluster"))));
    }

    #[test]
    fn a_worker_joins_the_pod_network_with_its_labels_and_taints() {
        let text = kube_node_file(Some(NodeRole::Worker));
        for words in ["vxlan", "network.kubeconfig", "--node-labels=gpu=yes", "gpu=yes:NoSchedule"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert_eq!(context(Some(NodeRole::Worker)).api_url(), "https://127.0.0.1:6444");
    }

    #[test]
    fn a_control_plane_node_has_its_own_api_server_and_a_way_to_all() {
        let context = context(Some(NodeRole::ControlPlane));
        assert_eq!(context.own_api_url(), "https://127.0.0.1:6443");
        assert_eq!(context.api_url(), "https://127.0.0.1:6444");
        let lone = super::tests::context(None);
        assert_eq!(lone.own_api_url(), lone.api_url());
    }

    #[test]
    fn controllers_are_elected_where_several_nodes_run_them() {
        let mut context = context(Some(NodeRole::ControlPlane));
        let commands = |context: &Context| kube_control::files(context).remove(0).content;
        let alone = commands(&context);
        assert!(alone.contains("leader-elect=false") && !alone.contains("lease-duration"));
        context.cluster.as_mut().unwrap().elects = true;
        let several = commands(&context);
        assert_eq!(several.matches("leader-elect=true").count(), 2, "{several}");
        assert_eq!(several.matches("leader-elect-lease-duration=12s").count(), 2, "{several}");
    }

    #[test]
    fn the_datastore_of_a_member_joins_and_that_of_a_founder_does_not() {
        let mut context = context(Some(NodeRole::ControlPlane));
        let args = |context: &Context| datastore::spec(context).args.join(" ");
        let founder = args(&context);
        for words in ["--peer-handoff /r/run/handoff", "--peer-advertise 192.0.2.1:7443"] {
            assert!(founder.contains(words), "{founder}");
        }
        assert!(!founder.contains("--join"), "{founder}");
        context.cluster.as_mut().unwrap().join = vec!["192.0.2.7:7443".into()];
        assert!(args(&context).ends_with("--join 192.0.2.7:7443"));
    }

    #[test]
    fn only_the_control_plane_lets_other_nodes_in() {
        for (role, listens) in [(NodeRole::ControlPlane, true), (NodeRole::Worker, false)] {
            let specs = specs(&context(Some(role)), &probes());
            let agent = specs.iter().find(|spec| spec.name.as_str() == agent::NAME).unwrap();
            assert_eq!(agent.args.iter().any(|arg| arg == "--listen"), listens, "{role}");
        }
    }
}
