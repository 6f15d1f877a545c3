//! Makes a datastore's directory from a backup, and looks at what it became.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::batch::{Encoder, Entry};
use crate::database::Database;
use crate::digest::{Digest, Digester};
use crate::key_range::KeyRange;
use crate::record::Revision;
use crate::snapshot::{self, SnapshotError, Summary};
use crate::state::load;
use crate::store::sole::OpenError;
use crate::store::sql::SqlStore;
use crate::store::{Base, Chunk, Fold, Sequence, Store, StoreError};

/// Bytes of a chunk's keys and values before it is compressed; as the
/// compactor lays them out.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks written in one transaction.
const CHUNKS_PER_WRITE: usize = 4;
/// Writes that may wait while the file is read on.
const WRITES_MAX: usize = 4;

/// Why a directory could not be made from a backup.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("can't make a datastore")]
    Open(#[from] OpenError),
    #[error("can't write the datastore")]
    Write(#[source] StoreError),
    #[error("can't read the datastore back that was just written")]
    ReadBack(#[source] StoreError),
    #[error("what was read back is not what the backup holds: {what} differ")]
    Differs { what: &'static str },
    #[error("can't make the files of {dir} durable")]
    Sync {
        dir: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Fills an empty database of `dir` with what the backup in `source` holds,
/// with a new cluster id and a newest revision that is `bump` higher.
/// Older revisions count as compacted: nobody can take up a watch or a list
/// from before. Unless this is `Ok`, the directory is of no use.
pub async fn build(
    dir: &Path,
    database: Database,
    source: impl Read + Send + 'static,
    bump: i64,
) -> Result<Summary, BuildError> {
    let mut store = SqlStore::open_database(dir, database).await?;
    let result = fill(&mut store, source, bump).await;
    store.close().await;
    let summary = result?;
    sync_all(dir).map_err(|source| BuildError::Sync { dir: dir.to_owned(), source })?;
    Ok(summary)
}

async fn fill(
    store: &mut SqlStore,
    source: impl Read + Send + 'static,
    bump: i64,
) -> Result<Summary, BuildError> {
    store.open().await.map_err(BuildError::Write)?;
    let (sender, mut writes) = mpsc::channel(WRITES_MAX);
    let reader = tokio::task::spawn_blocking(move || lay_out(source, sender));
    while let Some(put) = writes.recv().await {
        let fold = Fold::Chunks { put, remove: Vec::new() };
        store.fold(&fold).await.map_err(BuildError::Write)?;
    }
    let (summary, mut base) = reader.await.expect("reading a backup does not panic")?;
    let revision = Revision(summary.revision.0.saturating_add(bump));
    base.compact(revision);
    let base = Base { sequence: Sequence(0), revision, data: base.finish() };
    store.fold(&Fold::Advance(base)).await.map_err(BuildError::Write)?;
    Ok(summary)
}

/// Reads the backup and hands over its keys as chunks; gives the leases.
fn lay_out(
    source: impl Read,
    sender: mpsc::Sender<Vec<Chunk>>,
) -> Result<(Summary, Encoder), SnapshotError> {
    let mut leases = Encoder::default();
    let mut layout = Layout::default();
    let summary = snapshot::read(source, |entry| match entry {
        Entry::Grant { lease, ttl_s } => leases.grant(lease, ttl_s),
        Entry::Changes(records) => {
            for record in &records {
                layout.add(record);
            }
            if layout.chunks.len() >= CHUNKS_PER_WRITE {
                // When nobody takes them, the writer has failed and says why.
                let _ = sender.blocking_send(std::mem::take(&mut layout.chunks));
            }
        }
        Entry::Revoke { .. } | Entry::Compact { .. } => {
            unreachable!("a snapshot with other entries is refused while it is read")
        }
    })?;
    layout.close();
    let _ = sender.blocking_send(layout.chunks);
    Ok((summary, leases))
}

/// Chunks of keys that come in order; the first one begins at the empty key.
#[derive(Default)]
struct Layout {
    chunks: Vec<Chunk>,
    first_key: Bytes,
    open: Encoder,
    bytes: usize,
}

impl Layout {
    fn add(&mut self, record: &crate::record::Record) {
        let length = record.key.len() + record.value.len();
        if self.bytes > 0 && self.bytes + length > CHUNK_BYTES {
            self.close();
            self.first_key = record.key.clone();
        }
        self.open.version(record);
        self.bytes += length;
    }

    fn close(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let data = std::mem::take(&mut self.open).finish();
        self.chunks.push(Chunk { first_key: self.first_key.clone(), data });
        self.bytes = 0;
    }
}

/// What a datastore's directory holds in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    pub cluster_id: u64,
    pub revision: Revision,
    pub digest: Digest,
}

/// Loads `kube` as a start does and takes the digest of it.
pub async fn look(dir: &Path) -> Result<Contents, BuildError> {
    look_at(dir, Database::Kube).await
}

/// The same with one of the databases.
pub async fn look_at(dir: &Path, database: Database) -> Result<Contents, BuildError> {
    let mut store = SqlStore::open_database(dir, database).await?;
    let result = look_into(&mut store).await;
    store.close().await;
    result.map_err(BuildError::ReadBack)
}

async fn look_into(store: &mut SqlStore) -> Result<Contents, StoreError> {
    let opened = store.open().await?;
    // No lease ends here: nobody asks which ones are over.
    let (state, _) = load(store, &opened, Instant::now()).await?;
    let revision = state.index.committed();
    let mut digester = Digester::default();
    for (lease, ttl_s) in state.leases.all() {
        digester.lease(lease, ttl_s);
    }
    for record in state.index.range(&KeyRange::all(), revision) {
        digester.key(&record);
    }
    Ok(Contents { cluster_id: opened.cluster_id, revision, digest: digester.finish() })
}

/// Builds, loads what was built, and compares it with what the source said.
pub async fn build_and_compare(
    dir: &Path,
    database: Database,
    source: impl Read + Send + 'static,
    bump: i64,
) -> Result<(Summary, Contents), BuildError> {
    let summary = build(dir, database, source, bump).await?;
    let contents = look_at(dir, database).await?;
    let differs = |what| Err(BuildError::Differs { what });
    if contents.digest.keys != summary.digest.keys {
        return differs("keys");
    }
    if contents.digest.leases != summary.digest.leases {
        return differs("leases");
    }
    if contents.revision.0 != summary.revision.0.saturating_add(bump) {
        return differs("revisions");
    }
    Ok((summary, contents))
}

/// Syncs every file of `dir`, and the directory itself.
pub fn sync_all(dir: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        if file.file_type()?.is_file() {
            File::open(file.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}
