//! Bringing a backup back as a datastore's directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::build::{BuildError, Contents, build_and_compare};
use super::extract::{Extract, ExtractError, Scratch, extract};
use super::place::{Place, PlaceError};
use super::seal::{Opening, SealError};
use crate::database::Database;
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
    /// What the new directory has of the former one.
    pub carried: Carried,
    /// Where the former directory is.
    pub former: Option<PathBuf>,
}

/// What became of the database `cluster`, which no backup of `kube` holds: the
/// new directory has it from the former one, so that members that were removed
/// or came since are so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// There was none.
    Nothing,
    Keys(u64),
    /// The former directory can't be read, which is why some restore. It is kept.
    Lost {
        reason: String,
    },
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
    if !place.has_former() {
        return restore_at(place, path, Ok(None), options).await;
    }
    let dir = &options.dir;
    let cluster = async {
        let scratch = Scratch::make(dir, place.scratch())?;
        let copied = scratch.copy(dir)?;
        let cluster = extract(dir, &copied).await?.cluster;
        Ok(cluster.map(|cluster| (scratch, cluster)))
    };
    // The copy goes when all is done.
    let (_scratch, cluster) = match cluster.await {
        Ok(Some((scratch, cluster))) => (Some(scratch), Ok(Some(cluster))),
        Ok(None) => (None, Ok(None)),
        Err(error) => (None, Err(error)),
    };
    restore_at(place, path, cluster, options).await
}

/// Brings a backup that was verified back to a place that was claimed, and
/// beside it what was got out of the former database `cluster`.
pub async fn restore_at(
    place: Place,
    path: &Path,
    cluster: Result<Option<Extract>, ExtractError>,
    options: &RestoreOptions,
) -> Result<Restored, RestoreError> {
    let building = place.begin()?;
    let built = async {
        let (summary, contents) = build_into(path, options, &building).await?;
        let carried = match cluster {
            Ok(None) => Carried::Nothing,
            Ok(Some(cluster)) => carry(&cluster, options.bump_revision, &building).await?,
            Err(error) => Carried::Lost { reason: chain(&error) },
        };
        Ok((summary, contents, carried))
    };
    let (summary, contents, carried) = match built.await {
        Ok(built) => built,
        Err(error) => {
            place.give_up();
            return Err(error);
        }
    };
    let placed = place.finish()?;
    Ok(Restored { summary, contents, carried, former: placed.former })
}

/// Builds `cluster` in the new directory.
async fn carry(cluster: &Extract, bump: i64, building: &Path) -> Result<Carried, RestoreError> {
    let path = &cluster.file;
    let opened = open(path, &Opening::Plain)?;
    let built = build_and_compare(building, Database::Cluster, opened, bump).await;
    let failed = |source| RestoreError::Build { path: path.clone(), source };
    Ok(Carried::Keys(built.map_err(failed)?.0.keys))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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
    build_and_compare(building, Database::Kube, opened, options.bump_revision).await.map_err(failed)
}
