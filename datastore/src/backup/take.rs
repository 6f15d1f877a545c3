//! Taking a backup: online, of one revision, and good only when proven so.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::info;

use super::build::{BuildError, build_and_compare};
use super::partial::{Partial, parent_of};
use super::seal::{Opening, Seal, SealError, Sealing};
use super::source::{Source, SourceError};
use crate::database::Database;
use crate::listen::Listen;
use crate::record::Revision;
use crate::snapshot::Summary;

/// Pieces that wait for the disk.
const PIECES_MAX: usize = 8;

/// What to back up, and where to.
pub struct TakeOptions {
    pub from: Listen,
    /// An older revision than the newest.
    pub revision: Option<Revision>,
    pub sealing: Sealing,
    /// Where the backup is restored to prove it; it needs the room of the
    /// datastore's own directory.
    pub scratch: PathBuf,
}

/// A backup that was proven good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub path: PathBuf,
    pub bytes: u64,
    pub summary: Summary,
    pub is_sealed: bool,
    /// Whether the keys were also read from the source as any client reads
    /// them and found to be the same; not possible when the revision is
    /// compacted meanwhile.
    pub compared_with_source: bool,
    pub took: Duration,
}

/// Why there is no backup. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("can't write to {dir}")]
    Write {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't make a scratch directory in {dir}")]
    Scratch {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't read back what was written to {dir}")]
    ReadBack {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the new backup can't be opened again")]
    Seal(#[from] SealError),
    #[error("the new backup could not be restored for a test, so it is no good")]
    Proof(#[source] BuildError),
    #[error(
        "the backup is of revision {found}, but {floor} was acknowledged before: \
         the source lags behind"
    )]
    Stale { found: Revision, floor: Revision },
    #[error("the backup is of revision {found} and not of {wanted}")]
    OtherRevision { found: Revision, wanted: Revision },
    #[error("the backup does not hold the keys that {from} serves at revision {revision}")]
    Differs { from: Listen, revision: Revision },
}

/// Takes a backup. It gets its name, which `name` chooses, after it was
/// restored into a scratch directory and found to be what the source holds;
/// until then whatever has that name stays.
pub async fn take(
    options: &TakeOptions,
    dir: &Path,
    name: impl FnOnce(&Summary) -> PathBuf,
) -> Result<Backup, BackupError> {
    let began = SystemTime::now();
    let failed = |source| BackupError::Write { dir: dir.to_owned(), source };
    let source = Source::connect(&options.from).await?;
    let newest = source.revision().await?;
    if let Some(wanted) = options.revision.filter(|wanted| *wanted > newest) {
        return Err(SourceError::Future { wanted, newest }.into());
    }
    let partial = Partial::begin(dir).map_err(failed)?;
    let (seal, own) = options.sealing.begin();
    let file = partial.handle().map_err(failed)?;
    let bytes = copy(&source, options.revision, seal, file).await?.map_err(failed)?;
    let (summary, compared_with_source) = prove(options, &source, &partial, &own, newest).await?;
    let path = dir.join(name(&summary));
    partial.keep(&path).map_err(failed)?;
    let took = began.elapsed().unwrap_or_default();
    info!(path = %path.display(), revision = summary.revision.0, "backup is good");
    let is_sealed = options.sealing.is_sealed();
    Ok(Backup { path, bytes, summary, is_sealed, compared_with_source, took })
}

/// Copies the stream to the file and syncs it; the inner error is the disk's.
async fn copy(
    source: &Source,
    revision: Option<Revision>,
    seal: Seal,
    file: File,
) -> Result<io::Result<u64>, SourceError> {
    let mut pieces = source.snapshot(revision).await?;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES_MAX);
    let writer = tokio::task::spawn_blocking(move || {
        let mut sealed = seal.write(file)?;
        while let Some(piece) = receiver.blocking_recv() {
            sealed.write_all(&piece)?;
        }
        let file = sealed.finish()?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    });
    while let Some(piece) = source.piece(&mut pieces).await? {
        if sender.send(piece).await.is_err() {
            // The writer has failed and says why.
            break;
        }
    }
    drop(sender);
    Ok(writer.await.expect("writing a backup does not panic"))
}

/// Restores what the disk has, and compares it with what the source says:
/// with the digest at the end of the stream, and with an ordinary read.
async fn prove(
    options: &TakeOptions,
    source: &Source,
    partial: &Partial,
    own: &Opening,
    floor: Revision,
) -> Result<(Summary, bool), BackupError> {
    let dir = parent_of(partial.path());
    let scratch = tempfile::Builder::new()
        .prefix("skiff-proof-")
        .tempdir_in(&options.scratch)
        .map_err(|source| BackupError::Scratch { dir: options.scratch.clone(), source })?;
    let unreadable = |source| BackupError::ReadBack { dir: dir.to_owned(), source };
    let file = File::open(partial.path()).map_err(unreadable)?;
    let own = own.clone();
    let opened = tokio::task::spawn_blocking(move || own.open(file));
    let opened = opened.await.expect("opening a backup does not panic")?;
    let proof = build_and_compare(scratch.path(), Database::Kube, opened, 0).await;
    let (summary, _) = proof.map_err(BackupError::Proof)?;
    let found = summary.revision;
    match options.revision {
        Some(wanted) if wanted != found => {
            return Err(BackupError::OtherRevision { found, wanted });
        }
        None if found < floor => return Err(BackupError::Stale { found, floor }),
        _ => {}
    }
    match source.keys_digest(found).await? {
        Some(keys) if keys == summary.digest.keys => Ok((summary, true)),
        Some(_) => Err(BackupError::Differs { from: options.from.clone(), revision: found }),
        None => Ok((summary, false)),
    }
}
