//! The suite on dqlite.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::sync::Arc;

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
async fn dqlite_passes_the_suite() {
    suite::run_all(|| Directory(Arc::new(TempDir::new().expect("a directory can be made")))).await;
}
