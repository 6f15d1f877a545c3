//! agent: faces other nodes at 7443 and is this node's own way to the API at 127.0.0.1:6444.
//! Unprivileged: it has a certificate for a day, and no authority's key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use skiff_supervisor::DaemonSpec;

use super::context::{Cluster, Context, Probes};
use crate::node::authorities::FORMER_CERTIFICATES;
use crate::paths::Paths;

pub const NAME: &str = "agent";
/// Where nodes of a cluster meet.
pub const PORT: u16 = 7443;
/// Where a node's own clients find the API.
pub const API_PORT: u16 = 6444;

/// The certificate that it shows, with its key.
pub fn identity(paths: &Paths) -> PathBuf {
    paths.daemon_pki(NAME).join("node.pem")
}

/// The API servers that there are.
pub fn backends(paths: &Paths) -> PathBuf {
    paths.daemon_etc(NAME).join("backends.json")
}

pub fn spec(context: &Context, cluster: &Cluster, probes: &Probes) -> DaemonSpec {
    let paths = &context.paths;
    let identity = identity(paths);
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, API_PORT));
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut builder = context
        .daemon(NAME, "skiff")
        .args(["agent", "--certificate", &path(identity.clone()), "--key", &path(identity)])
        .args(["--authority", &path(paths.pki().join("ca.crt"))])
        .args(["--skiffd", &path(paths.skiffd_cluster_socket())])
        .args(["--datastore", &path(paths.datastore_handoff_socket())])
        .args(["--backends", &path(backends(paths)), "--balancer-listen", &api.to_string()])
        .user(cluster.agent)
        .readiness(probes.agent.clone());
    if !context.is_worker() {
        let any = match context.address {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        builder = builder
            .args(["--listen", &SocketAddr::from((any, PORT)).to_string()])
            .args(["--former", &path(paths.pki().join(FORMER_CERTIFICATES))]);
    }
    builder.build()
}
