//! The suite on dqlite.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::sync::Arc;

use skiff_datastore::record::Revision;
use skiff_datastore::store::sql::SqlStore;
use skiff_datastore::store::{Base, Fold, LogRow, Sequence, Store};
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

/// Most of the database becomes free and is given back in steps; what is left is as it was, also
/// after a restart.
#[tokio::test]
async fn pages_that_hold_nothing_are_given_back_and_rows_stay() {
    let directory = Directory(Arc::new(TempDir::new().expect("a directory can be made")));
    let mut store = directory.open().await;
    store.open().await.unwrap();
    let row = |number: i64| LogRow {
        sequence: Sequence(number),
        first: Revision(number + 1),
        last: Revision(number + 1),
        data: (0..200_000_i64).map(|at| (at * at * (number + 7) >> 5) as u8).collect(),
    };
    for number in 1..=200 {
        store.append(&row(number)).await.unwrap();
    }
    assert!(!store.vacuum(100).await.unwrap(), "nothing is free");
    let full = store.space().await.unwrap();
    let base = Base { sequence: Sequence(180), revision: Revision(181), data: Vec::new() };
    store.fold(&Fold::Advance(base.clone())).await.unwrap();
    while store.fold(&Fold::Trim { rows_max: 16 }).await.unwrap() {}
    let mut steps = 0;
    while store.vacuum(100).await.unwrap() {
        steps += 1;
    }
    let left = store.space().await.unwrap();
    assert!(steps > 50, "{steps} steps");
    assert!(left.pages < full.pages / 5, "{left:?} after {full:?}");
    store.close().await;

    let mut store = directory.open().await;
    let opened = store.open().await.unwrap();
    assert_eq!(opened.base, base);
    assert_eq!(store.space().await.unwrap(), left);
    let mut rows = Vec::new();
    while let Some(last) = rows.last().map_or(Some(base.sequence), |row: &LogRow| {
        (row.sequence < Sequence(200)).then_some(row.sequence)
    }) {
        rows.extend(store.read_log(last).await.unwrap());
    }
    assert_eq!(rows, (181..=200).map(row).collect::<Vec<_>>());
    store.append(&row(201)).await.unwrap();
    store.close().await;
}
