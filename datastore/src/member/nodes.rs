//! Whose members may be peers, and which of them may vote: a file that whoever runs the nodes
//! keeps, and that is followed while this runs.
//!
//! A member's certificate names its node. One whose node is not in the file is refused, and its
//! connections end when it goes from the file; one that is *joining* takes part and never votes, so
//! that a join which is given up takes no majority along. Without a file any member's certificate
//! will do.
//!
//! The file may also say where members are perhaps to be found, should they not be where they were.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::tls::is_node;

/// How often the file is looked at for news.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The file's largest size: a thousand times what a cluster needs is a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Places that are tried: each costs a connection every few seconds.
const WAYS_MAX: usize = 24;

/// What the file says: ids of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeList {
    pub members: BTreeSet<String>,
    /// May be peers, and do not vote yet.
    #[serde(default)]
    pub joining: BTreeSet<String>,
    /// `HOST:PORT` each, of whichever member.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ways: BTreeSet<String>,
}

/// Why the file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    #[error("can't read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a list of nodes")]
    Format {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("can't write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl NodeList {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<NodeList, NodesError> {
        let failed = |source| NodesError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| NodesError::Format { path: path.to_owned(), source })
    }

    /// Writes the file: after a crash there is the old one or the new one.
    pub fn store(&self, path: &Path) -> Result<(), NodesError> {
        let failed = |source| NodesError::Write { path: path.to_owned(), source };
        let bytes = serde_json::to_vec_pretty(self).expect("texts can be written");
        let dir = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut new = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
        new.write_all(&bytes).map_err(failed)?;
        // The datastore that reads it is another user.
        let mode = std::fs::Permissions::from_mode(0o644);
        new.as_file().set_permissions(mode).map_err(failed)?;
        new.as_file().sync_all().map_err(failed)?;
        new.persist(path).map_err(|error| failed(error.error))?;
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    fn ids(&self) -> impl Iterator<Item = &String> {
        self.members.iter().chain(&self.joining)
    }

    fn holds(&self, id: &str) -> bool {
        self.members.contains(id) || self.joining.contains(id)
    }
}

/// Whose members may be peers, as of now. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    list: watch::Receiver<Option<NodeList>>,
}

/// Follows the file.
pub struct Follower {
    path: Option<PathBuf>,
    list: watch::Sender<Option<NodeList>>,
}

/// Whose certificate was shown; nothing where nobody asks for nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visitor {
    pub node: Option<Arc<str>>,
}

impl Nodes {
    /// Reads the file, if there is one. It is followed by [`Follower::run`].
    pub fn open(path: Option<&Path>) -> Result<(Nodes, Follower), NodesError> {
        let found = path.map(NodeList::load).transpose()?;
        let (sender, list) = watch::channel(found);
        Ok((Nodes { list }, Follower { path: path.map(Path::to_owned), list: sender }))
    }

    /// Any node's member will do.
    pub fn any() -> Nodes {
        Nodes { list: watch::channel(None).1 }
    }

    /// Whose certificate that is, which is a member's; nothing when it may not be a peer.
    pub fn identify(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<Visitor> {
        let list = self.list.borrow();
        let Some(list) = list.as_ref() else { return Some(Visitor::default()) };
        let node = list.ids().find(|id| is_node(certificates, id))?;
        Some(Visitor { node: Some(node.as_str().into()) })
    }

    /// Whether a member of this node may vote. One that names no node is asked nothing.
    pub fn may_vote(&self, node: &str) -> bool {
        let list = self.list.borrow();
        node.is_empty() || list.as_ref().is_none_or(|list| !list.joining.contains(node))
    }

    /// Where members are perhaps to be found.
    pub fn ways(&self) -> Vec<String> {
        let list = self.list.borrow();
        list.iter().flat_map(|list| &list.ways).take(WAYS_MAX).cloned().collect()
    }

    /// Returns when there is such a place; never where nobody could name one.
    pub async fn until_ways(&self) {
        let named =
            |list: &Option<NodeList>| list.as_ref().is_some_and(|list| !list.ways.is_empty());
        if self.list.clone().wait_for(named).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when the visitor may not be a peer any more.
    pub fn until_refused(&self, visitor: &Visitor) -> impl Future<Output = ()> + Send + use<> {
        let (mut list, node) = (self.list.clone(), visitor.node.clone());
        async move {
            let Some(node) = node else { return std::future::pending().await };
            let refused =
                |list: &Option<NodeList>| list.as_ref().is_some_and(|list| !list.holds(&node));
            // Whoever follows the file ends with all connections.
            let _ = list.wait_for(refused).await;
        }
    }
}

impl Follower {
    /// Tells what the file says, at each change. What can't be read changes nothing.
    pub async fn run(self) {
        let Some(path) = self.path else { return self.list.closed().await };
        let (mut seen, mut told) = (None, None);
        loop {
            let stamp = stamp(&path);
            if stamp != seen {
                match NodeList::load(&path) {
                    Ok(list) => {
                        seen = stamp;
                        let is_news = |current: &mut Option<NodeList>| {
                            let is_news = current.as_ref() != Some(&list);
                            *current = Some(list);
                            is_news
                        };
                        if self.list.send_if_modified(is_news) {
                            info!(path = %path.display(), "other nodes may be peers now");
                        }
                    }
                    Err(_) if told == Some(stamp) => {}
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        warn!(error, "going on with the nodes that are known");
                        told = Some(stamp);
                    }
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

fn stamp(path: &Path) -> Option<(u64, i64, i64, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(members: &[&str], joining: &[&str]) -> NodeList {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        NodeList { members: set(members), joining: set(joining), ..NodeList::default() }
    }

    #[test]
    fn the_list_comes_back_as_it_was_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.json");
        assert!(matches!(Nodes::open(Some(&path)), Err(NodesError::Read { .. })));
        list(&["a"], &["b"]).store(&path).unwrap();
        assert_eq!(NodeList::load(&path).unwrap(), list(&["a"], &["b"]));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(Nodes::open(Some(&path)), Err(NodesError::Format { .. })));
    }

    #[tokio::test]
    async fn whoever_goes_from_the_list_is_cut_off_and_who_joins_does_not_vote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.json");
        list(&["a", "c"], &["b"]).store(&path).unwrap();
        let (nodes, follower) = Nodes::open(Some(&path)).unwrap();
        assert!(nodes.may_vote("a") && !nodes.may_vote("b") && nodes.may_vote(""));
        let visitor = |id: &str| Visitor { node: Some(id.into()) };
        let (mut a, mut c) = (
            Box::pin(nodes.until_refused(&visitor("a"))),
            Box::pin(nodes.until_refused(&visitor("c"))),
        );
        let changing = async {
            list(&["a", "b"], &[]).store(&path).unwrap();
            (&mut c).await;
            assert!(nodes.may_vote("b"));
            // What can't be read cuts off nobody.
            std::fs::write(&path, "{").unwrap();
            let waited = tokio::time::timeout(3 * LOOK_INTERVAL, &mut a).await;
            assert!(waited.is_err());
        };
        tokio::select! {
            () = follower.run() => panic!("it follows for ever"),
            () = changing => {}
        }
    }

    #[tokio::test]
    async fn places_to_look_at_are_waited_for_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.json");
        list(&["a"], &[]).store(&path).unwrap();
        let (nodes, follower) = Nodes::open(Some(&path)).unwrap();
        assert!(nodes.ways().is_empty());
        let naming = async {
            let ways = (0..=WAYS_MAX).map(|n| format!("192.0.2.{n}:7443")).collect();
            NodeList { ways, ..list(&["a"], &[]) }.store(&path).unwrap();
            nodes.until_ways().await;
            assert_eq!(nodes.ways().len(), WAYS_MAX);
        };
        tokio::select! {
            () = follower.run() => panic!("it follows for ever"),
            () = naming => {}
        }
    }

    #[tokio::test]
    async fn without_a_file_anybody_stays() {
        let nodes = Nodes::any();
        let visitor = nodes.identify(None).unwrap();
        assert_eq!(visitor, Visitor::default());
        let stays = nodes.until_refused(&visitor);
        assert!(tokio::time::timeout(Duration::from_millis(20), stays).await.is_err());
    }
}
