//! The suite on dqlite.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::sync::Arc;

use skiff_datastore::Database;
use skiff_datastore::store::node::SqlNode;
use skiff_datastore::store::sole;
use skiff_datastore::store::sql::SqlStore;
use skiff_datastore::suite::{self, Place};
use tempfile::TempDir;

/// A directory with a member of dqlite.
#[derive(Clone)]
struct Directory(Arc<TempDir>);

impl Place for Directory {
    type Store = SqlStore;

    async fn open(&self) -> SqlStore {
        SqlStore::open_dir(&self.0.path().join("datastore")).await.expect("dqlite can start here")
    }
}

#[tokio::test]
async fn a_writer_on_dqlite_that_was_replaced_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let node = sole::start(&dir.path().join("datastore")).await.unwrap();
    let rivals = [(); 2].map(|()| SqlStore::alone(node.clone(), Database::Kube));
    suite::a_writer_that_was_replaced_changes_nothing(rivals).await;
    SqlNode::end(node).await.unwrap();
}

#[tokio::test]
async fn dqlite_passes_the_suite() {
    suite::run_all(|| Directory(Arc::new(TempDir::new().expect("a directory can be made")))).await;
}
