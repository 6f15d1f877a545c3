//! The node of a member that has no others beside it, for whatever databases.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dqlite::{MemberId, Node, NodeError, SnapshotParams};

use super::disk;

/// The name this member has among its peers; nobody else needs it yet.
pub const MEMBER_ADDRESS: &str = "skiff-1";

/// Why a directory could not be opened as a datastore.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't make the directory {dir}")]
    Directory {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("another datastore runs on {dir}")]
    InUse { dir: PathBuf },
    #[error(
        "dqlite can't start from its files in {dir}; if they are damaged, keep a copy, \
         move the directory away and restore a backup"
    )]
    Start {
        dir: PathBuf,
        #[source]
        source: dqlite::NodeError,
    },
}

/// Starts dqlite on `dir`, which is made when it is missing.
pub async fn start(dir: &Path) -> Result<Arc<Node>, OpenError> {
    disk::ensure_dir(dir).map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
    let dir = dir.to_owned();
    let of_node = dir.clone();
    let start = move || {
        Node::builder(MemberId::FIRST, MEMBER_ADDRESS, of_node)
            .snapshot(SnapshotParams::every(disk::SNAPSHOT_ENTRIES))
            .write_on_loop(true)
            .start()
    };
    let started = tokio::task::spawn_blocking(start).await;
    let node = started.expect("starting a node does not panic").map_err(|source| match source {
        NodeError::Locked { .. } => OpenError::InUse { dir: dir.clone() },
        source => OpenError::Start { dir: dir.clone(), source },
    })?;
    Ok(Arc::new(node))
}
