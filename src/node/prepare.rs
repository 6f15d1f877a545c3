//! Everything that must be on disk before a daemon starts: directories, keys, leaves, files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use microcluster::record::NodeRole;
use time::{Duration, OffsetDateTime};

use super::account::{self, AccountError, Accounts};
use super::authorities::{Authorities, AuthoritiesError};
use super::bootstrap;
use super::external::{self, ExternalError};
use super::layout::{self, LayoutError};
use crate::config::{Choices, Config, ConfigError, is_dns_name};
use crate::daemons::{self, Cluster, Context, File, kube_control, kube_node};
use crate::distribution::{Distribution, DistributionError};
use crate::durable;
use crate::host::{self, address, resolver};
use crate::paths::Paths;
use crate::pki::{
    self, AuthorityError, Issuer, LeafSpec, Plan, StoreError, Usage, ensure_private, write_private,
};

/// Bridge of the pods.
pub const BRIDGE: &str = "skiff0";

#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    #[error("the external datastore cannot be used")]
    External(#[from] ExternalError),
    #[error("cannot sign {}", .0.display())]
    Sign(PathBuf, #[source] rcgen::Error),
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("this machine has no address but loopback: give it one, or set node.address")]
    NoAddress,
    #[error("the host name {0:?} cannot name a node: set node.name in the configuration")]
    NodeName(String),
}

/// Decides what this node is, from its configuration and its machine. Writes nothing but copies of
/// what an external datastore is reached with.
pub fn context(
    paths: &Paths,
    config: &Config,
    build: &Distribution,
    accounts: Accounts,
    cluster: Option<Cluster>,
) -> Result<Context, PrepareError> {
    let address = match config.node.address {
        Some(address) => address,
        None => address::choose().ok_or(PrepareError::NoAddress)?,
    };
    let network = &config.network;
    // A worker has no objects.
    let is_worker = cluster.as_ref().is_some_and(|cluster| cluster.role == NodeRole::Worker);
    let external = match is_worker {
        true => None,
        false => external::prepare(paths, config, &accounts)?,
    };
    Ok(Context {
        paths: paths.clone(),
        build: build.dir().to_path_buf(),
        node_name: node_name(config)?,
        address,
        cgroup: format!("/{}", paths.instance()),
        bridge: BRIDGE.into(),
        mtu: network.mtu,
        pod_cidr: network.pod_cidr.clone(),
        service_cidr: network.service_cidr.clone(),
        dns_address: network.dns_address,
        domain: network.dns_domain.clone(),
        api_port: config.api.port,
        kubelet_port: 10250,
        kubelet_health_port: 10248,
        resolver: resolver::choose(),
        restrict_oom_score: !host::may_lower_oom_scores(),
        pause_image: build.image("pause")?.reference.clone(),
        accounts,
        log_bytes_max: 10 << 20,
        log_files_max: 3,
        api_server_args: config.kube.api_server_args.clone(),
        controller_manager_args: config.kube.controller_manager_args.clone(),
        scheduler_args: config.kube.scheduler_args.clone(),
        kubelet_args: config.kube.kubelet_args.clone(),
        proxy_args: config.kube.proxy_args.clone(),
        cluster,
        external,
        authorities: String::new(),
    })
}

/// What of it cannot change later.
pub fn choices(config: &Config) -> Result<Choices, PrepareError> {
    Ok(Choices {
        node_name: node_name(config)?,
        pod_cidr: config.network.pod_cidr.clone(),
        service_cidr: config.network.service_cidr.clone(),
        dns_domain: config.network.dns_domain.clone(),
        datastore: config.datastore.endpoint().map(|endpoint| endpoint.to_string()),
    })
}

fn node_name(config: &Config) -> Result<String, PrepareError> {
    if let Some(name) = &config.node.name {
        return Ok(name.clone());
    }
    let host = host_name();
    if is_dns_name(&host) { Ok(host) } else { Err(PrepareError::NodeName(host)) }
}

/// What the machine is called now.
pub fn host_name() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Makes directories and accounts.
pub fn ground(paths: &Paths) -> Result<Accounts, PrepareError> {
    let accounts = account::ensure()?;
    layout::ensure(paths, &accounts)?;
    let instance = paths.node().join("instance");
    fs::write(&instance, paths.instance()).map_err(|e| PrepareError::Write(instance, e))?;
    Ok(accounts)
}

/// Writes what daemons read. Safe to repeat; files that are right are left alone.
pub fn files(context: &Context) -> Result<(), PrepareError> {
    for File { path, content } in daemons::files(context) {
        write_public(&path, &content).map_err(|e| PrepareError::Write(path, e))?;
    }
    Ok(())
}

fn write_public(path: &Path, content: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(dir)?;
    durable::replace(path, content.as_bytes(), 0o644)
}

/// Makes what is made once and hands each daemon its share.
pub fn secrets(context: &Context, now: OffsetDateTime) -> Result<Authorities, PrepareError> {
    let pki = context.paths.pki();
    let authorities = Authorities::ensure(&pki, now)?;
    show(context, &authorities)?;
    let control = context.paths.daemon_pki(kube_control::NAME);
    let owner = (context.accounts.control.uid, context.accounts.control.gid);
    let encryption = pki::encryption_config(&pki)?;
    write_private(&control.join("encryption.yaml"), encryption.as_bytes(), 0o600, owner)?;
    kubeconfigs(context)?;
    Ok(authorities)
}

/// Writes whom this node believes and what signs tokens to where daemons read it.
pub fn show(context: &Context, authorities: &Authorities) -> Result<(), PrepareError> {
    authorities.store(&context.paths.pki())?;
    let owner = (context.accounts.control.uid, context.accounts.control.gid);
    let key = context.paths.daemon_pki(kube_control::NAME).join("service-account.key");
    Ok(write_private(&key, authorities.service_account().as_bytes(), 0o600, owner)?)
}

/// Renews what is due; answers when to look again.
pub fn leaves(
    context: &Context,
    sans: &[String],
    authorities: &Authorities,
    now: OffsetDateTime,
    ttl: Duration,
) -> Result<OffsetDateTime, PrepareError> {
    let mut next = now + ttl;
    for spec in leaf_specs(context, sans) {
        let authority = authorities.of(spec.issuer);
        let current = pki::inspect(&spec.path);
        let behind = behind(&spec, authorities);
        match pki::plan_renewal(&spec, current.as_ref(), &authority.subject_der(), now) {
            Plan::Keep { .. } if !pki::shows_behind(&spec.path, behind) => {
                issue(&spec, authorities, now, ttl, "another certificate stands behind it")?;
                next = next.min(now + ttl / 2);
            }
            Plan::Keep { until } => {
                ensure_private(&spec.path, 0o600, spec.owner)?;
                next = next.min(until);
            }
            Plan::Issue { reason } => {
                issue(&spec, authorities, now, ttl, reason)?;
                next = next.min(now + ttl / 2);
            }
        }
    }
    Ok(next)
}

/// Puts a new leaf in the place of each, whatever is left of its life; answers how many.
pub fn all_leaves(
    context: &Context,
    sans: &[String],
    authorities: &Authorities,
    now: OffsetDateTime,
    ttl: Duration,
) -> Result<usize, PrepareError> {
    let specs = leaf_specs(context, sans);
    for spec in &specs {
        issue(spec, authorities, now, ttl, "it was asked for")?;
    }
    Ok(specs.len())
}

fn issue(
    spec: &LeafSpec,
    authorities: &Authorities,
    now: OffsetDateTime,
    ttl: Duration,
    reason: &'static str,
) -> Result<(), PrepareError> {
    let signed = authorities.of(spec.issuer).issue(spec, now, ttl);
    let (certificate, key) = signed.map_err(|e| PrepareError::Sign(spec.path.clone(), e))?;
    let pem = format!("{certificate}{}{key}", behind(spec, authorities));
    write_private(&spec.path, pem.as_bytes(), 0o600, spec.owner)?;
    tracing::info!(leaf = %spec.path.display(), reason, "issued");
    Ok(())
}

/// Clients are believed by whoever believes the authority itself.
fn behind<'a>(spec: &LeafSpec, authorities: &'a Authorities) -> &'a str {
    let is_server = spec.usage == Usage::Server && spec.issuer == Issuer::Cluster;
    if is_server { authorities.crossed() } else { "" }
}

fn leaf_specs(context: &Context, sans: &[String]) -> Vec<LeafSpec> {
    let control_dir = context.paths.daemon_pki(kube_control::NAME);
    let node_dir = context.paths.daemon_pki(kube_node::NAME);
    let control = (context.accounts.control.uid, context.accounts.control.gid);
    let id = context.cluster.as_ref().map(|cluster| cluster.id);
    let client = |path: PathBuf, name: &str, groups: &[&str], owner| LeafSpec {
        path,
        issuer: Issuer::Cluster,
        common_name: name.into(),
        organisations: groups.iter().map(|g| (*g).to_owned()).collect(),
        id,
        dns_names: vec![],
        addresses: vec![],
        usage: Usage::Client,
        owner,
    };
    let server = |path: PathBuf, name: &str, dns: Vec<String>, addresses, owner| LeafSpec {
        path,
        issuer: Issuer::Cluster,
        common_name: name.into(),
        organisations: vec![],
        id,
        dns_names: dns,
        addresses,
        usage: Usage::Server,
        owner,
    };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let node_user = format!("system:node:{}", context.node_name);
    let local = vec!["localhost".to_owned()];
    let (api_names, api_addresses) = api_names(context, sans);
    let network = context.cluster.is_some().then(|| {
        let name = format!("skiff:network:{}", context.node_name);
        client(node_dir.join("network.pem"), &name, &[bootstrap::NETWORK_GROUP], (0, 0))
    });
    let mut specs = vec![
        server(
            control_dir.join("apiserver.pem"),
            "kube-apiserver",
            api_names,
            api_addresses,
            control,
        ),
        client(
            control_dir.join("apiserver-kubelet-client.pem"),
            "kube-apiserver-kubelet-client",
            &[],
            control,
        ),
        LeafSpec {
            issuer: Issuer::FrontProxy,
            ..client(control_dir.join("front-proxy-client.pem"), "front-proxy-client", &[], control)
        },
        client(
            control_dir.join("controller-manager.pem"),
            "system:kube-controller-manager",
            &[],
            control,
        ),
        client(control_dir.join("scheduler.pem"), "system:kube-scheduler", &[], control),
        server(
            control_dir.join("controller-manager-serving.pem"),
            "kube-controller-manager",
            local.clone(),
            vec![loopback],
            control,
        ),
        server(
            control_dir.join("scheduler-serving.pem"),
            "kube-scheduler",
            local,
            vec![loopback],
            control,
        ),
        client(node_dir.join("kubelet.pem"), &node_user, &["system:nodes"], (0, 0)),
        client(node_dir.join("kube-proxy.pem"), "system:kube-proxy", &[], (0, 0)),
        server(
            node_dir.join("kubelet-serving.pem"),
            &node_user,
            vec![context.node_name.clone()],
            vec![context.address, loopback],
            (0, 0),
        ),
        client(context.paths.node().join("admin.pem"), "skiffd", &["system:masters"], (0, 0)),
    ];
    specs.extend(network);
    specs
}

fn api_names(context: &Context, sans: &[String]) -> (Vec<String>, Vec<IpAddr>) {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into();
    names.push(format!("kubernetes.default.svc.{}", context.domain));
    names.push("localhost".into());
    names.push(context.node_name.clone());
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), context.address];
    addresses.extend(first_address(&context.service_cidr));
    for san in sans {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    (names, addresses)
}

/// The first address of the service network is the API server's own.
fn first_address(cidr: &str) -> Option<IpAddr> {
    match cidr.split('/').next()?.parse().ok()? {
        IpAddr::V4(v4) => Some(std::net::Ipv4Addr::from(u32::from(v4).checked_add(1)?).into()),
        IpAddr::V6(v6) => Some(std::net::Ipv6Addr::from(u128::from(v6).checked_add(1)?).into()),
    }
}

/// Tells every client of the API on this node where that is.
pub fn kubeconfigs(context: &Context) -> Result<(), PrepareError> {
    let (own, any) = (context.own_api_url(), context.api_url());
    let authority = context.paths.pki().join("ca.crt");
    let control_dir = context.paths.daemon_pki(kube_control::NAME);
    let node_dir = context.paths.daemon_pki(kube_node::NAME);
    let control = (context.accounts.control.uid, context.accounts.control.gid);
    let mut clients =
        vec![(&node_dir, "kubelet", (0, 0), &any), (&node_dir, "kube-proxy", (0, 0), &any)];
    let admin_dir = context.paths.node();
    if !context.is_worker() {
        clients.extend([
            (&control_dir, "controller-manager", control, &own),
            (&control_dir, "scheduler", control, &own),
            (&admin_dir, "admin", (0, 0), &own),
        ]);
    }
    if context.cluster.is_some() {
        clients.push((&node_dir, "network", (0, 0), &any));
    }
    for (dir, name, owner, server) in clients {
        let leaf = dir.join(format!("{name}.pem"));
        let text = pki::naming_files(server, &authority, &leaf);
        write_private(&dir.join(format!("{name}.kubeconfig")), text.as_bytes(), 0o600, owner)?;
    }
    let port = context.paths.api_port_file();
    fs::write(&port, context.client_port().to_string()).map_err(|e| PrepareError::Write(port, e))
}
