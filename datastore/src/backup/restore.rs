//! Bringing a backup back as a datastore's directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::build::{BuildError, Contents, build_and_compare};
use super::place::{Place, PlaceError};
use super::seal::{Opening, SealError};
use crate::snapshot::{self, SnapshotError, Summary};

/// By how much the newest revision rises, unless told otherwise: higher than
/// anything that the lost datastore can have given out since the backup.
pub const BUMP_REVISION: i64 = 1_000_000_000;

/// Where to restore to, and how.
pub struct RestoreOptions {
    pub dir: PathBuf,
    /// Whether `dir` may hold something; that is kept beside it.
    pub replace: bool,
    /// By how much the newest revision rises.
    pub bump_revision: i64,
    pub opening: Opening,
    /// A word that makes new names unique.
    pub stamp: String,
}

/// A backup that was brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub summary: Summary,
    /// What the directory now holds.
    pub contents: Contents,
    /// Where the former directory is.
    pub former: Option<PathBuf>,
}

/// Why nothing was restored. The directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("can't read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't open {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: SealError,
    },
    #[error("{path} is no good backup")]
    Backup {
        path: PathBuf,
        #[source]
        source: SnapshotError,
    },
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("can't make a datastore of {path}")]
    Build {
        path: PathBuf,
        #[source]
        source: BuildError,
    },
}

/// Reads a backup to its end and says what it holds; touches nothing.
pub async fn verify(path: &Path, opening: &Opening) -> Result<Summary, RestoreError> {
    let (path, opening) = (path.to_owned(), opening.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let opened = open(&path, &opening)?;
        let harmed = |source| RestoreError::Backup { path: path.clone(), source };
        snapshot::verify(opened).map_err(harmed)
    });
    reading.await.expect("reading a backup does not panic")
}

fn open(path: &Path, opening: &Opening) -> Result<Box<dyn io::Read + Send>, RestoreError> {
    let file =
        File::open(path).map_err(|source| RestoreError::Read { path: path.to_owned(), source })?;
    opening.open(file).map_err(|source| RestoreError::Open { path: path.to_owned(), source })
}

/// Brings the backup at `path` back. The file is read to its end before
/// anything is touched, the new directory is built beside the old one, loaded
/// and compared with the file, and only then put in its place.
pub async fn restore(path: &Path, options: &RestoreOptions) -> Result<Restored, RestoreError> {
    verify(path, &options.opening).await?;
    let place = Place::claim(&options.dir, options.replace, &options.stamp)?;
    let building = place.begin()?;
    let built = build_into(path, options, &building).await;
    let (summary, contents) = match built {
        Ok(built) => built,
        Err(error) => {
            place.give_up();
            return Err(error);
        }
    };
    let placed = place.finish()?;
    Ok(Restored { summary, contents, former: placed.former })
}

async fn build_into(
    path: &Path,
    options: &RestoreOptions,
    building: &Path,
) -> Result<(Summary, Contents), RestoreError> {
    let (from, opening) = (path.to_owned(), options.opening.clone());
    let opened = tokio::task::spawn_blocking(move || open(&from, &opening));
    let opened = opened.await.expect("opening a backup does not panic")?;
    let failed = |source| RestoreError::Build { path: path.to_owned(), source };
    build_and_compare(building, opened, options.bump_revision).await.map_err(failed)
}
