//! A new cluster looks before it writes: an external datastore may hold the objects of another one.
//!
//! What answers at once is seen before the start decides anything. What does not, or needs kine
//! first, is seen later, and until then the daemons that write do not run.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::{fs, io};

use skiff_datastore::proto::RangeRequest;
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::{Listen, probe};
use skiff_supervisor::DaemonSpec;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::{ANSWER_TIMEOUT, KEY, chain, connect, innermost, silence};
use crate::config::Endpoint;
use crate::daemons::{External, Kept, kube_control, kube_node};
use crate::durable;
use crate::node::core::Node;
use crate::paths::Paths;

/// Where it is remembered, from before the first start of a new cluster on, that nobody has seen yet
/// whether the datastore holds somebody's objects.
const UNSEEN_FILE: &str = "datastore-unseen";
/// Below it are Kubernetes' objects.
const OBJECTS: &str = "/registry/";
/// The first key behind them: `0` is the byte after `/`.
const OBJECTS_END: &str = "/registry0";

/// The objects of another cluster.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} holds objects already ({example} is one), and this node would begin a new cluster: two \
     in one datastore destroy each other's"
)]
pub struct Occupied {
    what: String,
    example: String,
}

/// What to do about [`Occupied`].
pub const OCCUPIED_HINT: &str = "name an empty database, or an etcd without keys below /registry; or \
                                 set datastore.adopt = true if the objects are meant to be this node's";

/// Whether a new cluster has to look before anything writes into the datastore. What can be seen at
/// once is; otherwise it is remembered until [`end_doubt`] has seen it.
pub async fn doubt(
    paths: &Paths,
    external: &External,
    is_new: bool,
    adopts: bool,
) -> Result<bool, DoubtError> {
    let file = paths.node().join(UNSEEN_FILE);
    if adopts || !(is_new || file.exists()) {
        return forget(&file).map(|()| false);
    }
    durable::replace(&file, b"", 0o600).map_err(DoubtError::Remember)?;
    let seen = match external.kept() {
        // kine does not run yet.
        Kept::Database => None,
        Kept::Etcd | Kept::Here => look(paths, external).await.ok(),
    };
    match seen {
        None => Ok(true),
        Some(None) => forget(&file).map(|()| false),
        Some(Some(occupied)) => {
            forget(&file)?;
            Err(DoubtError::Occupied(occupied))
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DoubtError {
    #[error(transparent)]
    Occupied(Occupied),
    #[error("cannot remember that the external datastore was not looked at")]
    Remember(#[source] io::Error),
}

fn forget(file: &Path) -> Result<(), DoubtError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DoubtError::Remember(error)),
        _ => Ok(()),
    }
}

/// The daemons that write nothing into it.
pub fn held_back(mut specs: Vec<DaemonSpec>) -> Vec<DaemonSpec> {
    specs.retain(|spec| ![kube_control::NAME, kube_node::NAME].contains(&spec.name.as_str()));
    specs
}

/// Looks for objects; why not, when it does not answer.
async fn look(paths: &Paths, external: &External) -> Result<Option<Occupied>, String> {
    let mut reasons = Vec::new();
    let found = match &external.endpoint {
        Endpoint::Etcd(servers) => {
            let mut found = None;
            for server in servers {
                match connect(server, &external.files(paths)).await {
                    Ok(channel) => {
                        found = Some(first_object(channel).await?);
                        break;
                    }
                    Err(reason) => reasons.push(format!("{server}: {reason}")),
                }
            }
            found.ok_or_else(|| reasons.join("; "))?
        }
        Endpoint::Database(_) => {
            let channel = probe::connect(&Listen::Unix(paths.kine_socket())).await;
            first_object(channel.map_err(|error| innermost(&error))?).await?
        }
    };
    Ok(found.map(|example| Occupied { what: external.sentence(), example }))
}

/// kine has a key of its own there.
async fn first_object(channel: Channel) -> Result<Option<String>, String> {
    let request = RangeRequest {
        key: OBJECTS.into(),
        range_end: OBJECTS_END.into(),
        limit: 2,
        keys_only: true,
        ..RangeRequest::default()
    };
    let answer = match timeout(ANSWER_TIMEOUT, KvClient::new(channel).range(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(status.message().to_owned()),
        Err(_) => return Err(silence()),
    };
    let keys = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
    Ok(keys.into_iter().find(|key| key != KEY))
}

/// Whether nobody has seen yet that the datastore holds nobody's objects.
pub fn is_in_doubt(node: &Node) -> bool {
    node.unseen.load(Ordering::Relaxed)
}

/// Lets everything run when nobody's objects are there; says so otherwise.
pub async fn end_doubt(node: &Node, external: &External) -> Result<(), String> {
    if let Some(occupied) = look(&node.paths(), external).await? {
        return Err(format!("it must not be written to: {occupied}; {OCCUPIED_HINT}"));
    }
    forget(&node.paths().node().join(UNSEEN_FILE)).map_err(|error| chain(&error))?;
    node.unseen.store(false, Ordering::Relaxed);
    let specs = node.specs(&node.context());
    node.supervisor.reconfigure(specs).await.map_err(|error| error.to_string())
}
