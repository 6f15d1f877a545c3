//! Backups of real datastores, and the way back from them.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod bad_days;
mod bucket;
mod child;
mod daemon;
mod job;
mod round_trip;

use std::path::{Path, PathBuf};

use skiff_datastore::Listen;
use skiff_datastore::backup::restore::{BUMP_REVISION, RestoreOptions};
use skiff_datastore::backup::take::TakeOptions;
use skiff_datastore::backup::{Backup, BackupError, Opening, Sealing, take};

fn take_options(from: Listen, scratch: &Path) -> TakeOptions {
    TakeOptions { from, revision: None, sealing: Sealing::Plain, scratch: scratch.to_owned() }
}

fn restore_options(dir: PathBuf) -> RestoreOptions {
    let (opening, stamp) = (Opening::Plain, "now".to_owned());
    RestoreOptions { dir, replace: false, bump_revision: BUMP_REVISION, opening, stamp }
}

/// Takes a plain backup of the newest revision, as `dir`/backup.
async fn backup(from: Listen, dir: &Path) -> Result<Backup, BackupError> {
    take(&take_options(from, dir), dir, |_| "backup".into()).await
}

/// The names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
