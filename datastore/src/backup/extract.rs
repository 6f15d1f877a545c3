//! Gets everything that a stopped member holds out of its directory, each
//! database as a snapshot.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use dqlite::recover::reconfigure;
use dqlite::{MemberId, MemberInfo, NodeError, Role};

use super::build::BuildError;
use crate::database::{Database, Databases};
use crate::key_range::KeyRange;
use crate::lease::LEASE_TTL_MIN_S;
use crate::member::roster;
use crate::record::Revision;
use crate::snapshot::{Summary, Writer, milliseconds};
use crate::state::load;
use crate::store::node::SqlNode;
use crate::store::sole::{self, MEMBER_ADDRESS};
use crate::store::sql::SqlStore;
use crate::store::{Store, StoreError};

/// The lock of a datastore that runs; ours is held on the original.
const LOCK: &str = "dqlite-lock";

/// Why nothing was got out of a directory. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("can't copy {dir}")]
    Copy {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("dqlite can't read {dir}")]
    Log {
        dir: PathBuf,
        #[source]
        source: NodeError,
    },
    #[error("can't load what {dir} holds")]
    Load {
        dir: PathBuf,
        #[source]
        source: BuildError,
    },
}

/// What was got out of one database.
#[derive(Debug)]
pub struct Extract {
    /// The snapshot.
    pub file: PathBuf,
    pub summary: Summary,
}

/// A place for copies of members' directories, gone with this value. dqlite
/// changes what it only reads: it closes the segments of its log.
pub struct Scratch {
    path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next restore.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Scratch {
    /// Makes the place, for what is beside `dir`.
    pub fn make(dir: &Path, path: PathBuf) -> Result<Scratch, ExtractError> {
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| ExtractError::Copy { dir: dir.to_owned(), source })?;
        Ok(Scratch { path })
    }

    /// Copies dqlite's files of the stopped member in `dir`; where to.
    pub fn copy(&self, dir: &Path) -> Result<PathBuf, ExtractError> {
        let copy = || {
            let number = fs::read_dir(&self.path)?.count();
            let path = self.path.join(format!("copy-{number}"));
            DirBuilder::new().mode(0o700).create(&path)?;
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                let is_ours = name == LOCK || name == roster::FILE;
                if entry.file_type()?.is_file() && !is_ours {
                    fs::copy(entry.path(), path.join(&name))?;
                }
            }
            Ok(path)
        };
        copy().map_err(|source| ExtractError::Copy { dir: dir.to_owned(), source })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Forces the copy of `dir` in `copied` to be the only member, loads it, and
/// writes all keys and leases of each database to a file of its own beside the
/// copy. A database `cluster` in which nothing was ever written is none.
pub async fn extract(dir: &Path, copied: &Path) -> Result<Databases<Extract>, ExtractError> {
    let sole =
        MemberInfo { id: MemberId::FIRST, address: MEMBER_ADDRESS.into(), role: Role::Voter };
    reconfigure(copied, sole.id, &sole.address, std::slice::from_ref(&sole))
        .map_err(|source| ExtractError::Log { dir: dir.to_owned(), source })?;
    let load = |source: BuildError| ExtractError::Load { dir: dir.to_owned(), source };
    let node = sole::start(copied).await.map_err(|error| load(BuildError::Open(error)))?;
    let write = async |database: Database| {
        let mut store = SqlStore::alone(node.clone(), database);
        let file = copied.with_extension(format!("{database:?}"));
        let written = write(&mut store, &file).await;
        store.close().await;
        Ok(Extract { file, summary: written.map_err(load)? })
    };
    let extracted = async {
        let kube = write(Database::Kube).await?;
        let cluster = write(Database::Cluster).await?;
        let is_there = cluster.summary.revision > Revision::EMPTY_STORE;
        Ok(Databases { kube, cluster: is_there.then_some(cluster) })
    };
    let extracted = extracted.await;
    if let Err(error) = SqlNode::end(node.clone()).await {
        tracing::warn!(%error, "dqlite did not stop orderly");
    }
    extracted
}

async fn write(store: &mut SqlStore, file: &Path) -> Result<Summary, BuildError> {
    let read: fn(StoreError) -> BuildError = BuildError::ReadBack;
    let opened = store.open().await.map_err(read)?;
    // No lease ends here: nobody asks which ones are over.
    let (state, _) = load(store, &opened, Instant::now()).await.map_err(read)?;
    let revision = state.index.committed();
    let mut leases: std::collections::BTreeMap<_, _> = state.leases.all().collect();
    let all = KeyRange::all();
    let mut keys = 0;
    for record in state.index.range(&all, revision) {
        keys += 1;
        if record.lease.is_some() {
            leases.entry(record.lease).or_insert(LEASE_TTL_MIN_S);
        }
    }
    let summary = Summary {
        revision,
        cluster_id: opened.cluster_id,
        taken_ms: milliseconds(SystemTime::now()),
        leases: leases.len() as u64,
        keys,
        ..Summary::default()
    };
    let put = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        let mut writer = Writer::new(&summary);
        for (lease, ttl_s) in leases {
            writer.lease(lease, ttl_s);
        }
        for record in state.index.range(&all, revision) {
            writer.key(&record);
            out.write_all(&writer.take())?;
        }
        out.write_all(&writer.finish())?;
        out.flush()
    };
    put().map_err(|source| BuildError::Sync { dir: file.to_owned(), source })?;
    Ok(summary)
}
