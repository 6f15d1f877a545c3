//! datastore: keeps the cluster's objects. Unprivileged: it reads and writes its own directory,
//! and answers on a socket that only the control plane's user may open. In a cluster it is one of
//! several members, whom the agent hands over to it.

use std::net::SocketAddr;
use std::time::Duration;

use skiff_supervisor::{DaemonSpec, Probe};

use super::agent;
use super::context::{Cluster, Context};

pub const NAME: &str = "datastore";
/// A clean stop writes nothing large; beyond this it hangs.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

pub fn spec(context: &Context) -> DaemonSpec {
    let socket = context.paths.datastore_socket();
    let builder = context
        .daemon(NAME, "skiff")
        .args(["datastore", "--dir", &context.paths.datastore().to_string_lossy()])
        .args(["--listen", &format!("unix:{}", socket.display())])
        .user(context.accounts.datastore)
        .readiness(Probe::UnixConnect(socket))
        .stop_timeout(STOP_TIMEOUT);
    match &context.cluster {
        None => builder.build(),
        Some(cluster) => builder.args(member(context, cluster)).build(),
    }
}

/// Options, each with its value.
fn member(context: &Context, cluster: &Cluster) -> Vec<String> {
    let paths = &context.paths;
    // What nodes know of their cluster is kept here too, out of reach of the control plane.
    let record = format!("unix:{}", paths.cluster_database_socket().display());
    let address = SocketAddr::new(context.address, agent::PORT);
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut options = vec![
        ("--cluster-listen", record),
        ("--peer-handoff", path(paths.datastore_handoff_socket())),
        ("--peer-advertise", address.to_string()),
        ("--peer-node", cluster.id.to_string()),
        ("--peer-nodes", path(paths.datastore_nodes())),
        ("--pki", path(paths.daemon_pki(NAME))),
    ];
    if !cluster.join.is_empty() {
        options.push(("--join", cluster.join.join(",")));
    }
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}
