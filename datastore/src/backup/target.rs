//! Where backups are kept.

use std::io;
use std::path::{Path, PathBuf};

use super::name::{BackupName, Kind};
use super::partial::sync_parent;
use super::retention::{Keep, choose_removed};
use super::s3::{S3, S3Error};

/// A place for many backups of one datastore.
#[derive(Clone, Debug)]
pub enum Target {
    Directory(PathBuf),
    S3(Box<S3>),
}

/// Why a place could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error("can't read the directory {dir}")]
    List {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't remove {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Target {
    /// The backups of that kind that are there, oldest first. Whatever has no
    /// name of ours is not seen, and so never removed.
    pub async fn list(&self, kind: Kind) -> Result<Vec<BackupName>, TargetError> {
        let mut all = match self {
            Target::Directory(dir) => list_directory(dir)
                .map_err(|source| TargetError::List { dir: dir.clone(), source })?,
            Target::S3(place) => place.list().await?,
        };
        all.retain(|name| name.kind == kind);
        Ok(all)
    }

    /// Removes what of that kind need not be kept, and says which ones. On a
    /// failure those that were removed before are gone.
    pub async fn remove_old(
        &self,
        kind: Kind,
        keep: &Keep,
    ) -> Result<Vec<BackupName>, (Vec<BackupName>, TargetError)> {
        let mut removed = Vec::new();
        if keep.is_everything() {
            return Ok(removed);
        }
        let all = match self.list(kind).await {
            Ok(all) => all,
            Err(error) => return Err((removed, error)),
        };
        for name in choose_removed(&all, keep) {
            if let Err(error) = self.remove(&name).await {
                return Err((removed, error));
            }
            removed.push(name);
        }
        Ok(removed)
    }

    /// Removes a backup; one that is gone already is fine.
    pub async fn remove(&self, name: &BackupName) -> Result<(), TargetError> {
        match self {
            Target::S3(place) => Ok(place.remove(&name.to_string()).await?),
            Target::Directory(dir) => {
                let path = dir.join(name.to_string());
                match std::fs::remove_file(&path).and_then(|()| sync_parent(&path)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(TargetError::Remove { path, source: error })
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

fn list_directory(dir: &Path) -> io::Result<Vec<BackupName>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        found.extend(entry.file_name().to_str().and_then(|name| name.parse::<BackupName>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}
