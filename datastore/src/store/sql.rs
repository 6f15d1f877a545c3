//! The store on dqlite: three tables, and a guard in every write.
//!
//! ```sql
//! meta (id = 1, format, cluster_id, member_id, epoch, base_*)
//! log  (sequence, first, last, data)       one row per commit
//! chunk(first_key, data)                   living keys of the compacted past
//! ```
//!
//! A commit is one statement, so one round trip and one transaction. It
//! inserts nothing unless the epoch is still ours and the log ends where we
//! think it does, and it dirties as few pages as possible: every page is 4 KiB
//! of log on every member.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dqlite::{Connection, Statement, Value, params};

use super::disk;
use super::node::SqlNode;
use super::schema::{self, META};
use super::sole::{self, OpenError};
use super::{Base, Chunk, Fold, LogRow, Opened, Sequence, Size, Store, StoreError};
use crate::database::Database;
use crate::record::Revision;
use crate::state::{ChunkInfo, RowInfo};

/// How long a single member may take to become leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts to reach the database again after the connection was lost.
const RECONNECTS_MAX: u32 = 5;
/// Attempts to claim while others do; each loser sees a leader change soon.
const CLAIMS_MAX: u32 = 16;
/// Commits after which freed memory is given back.
const APPENDS_PER_TRIM: u32 = 1024;
/// Rows read at once at start.
const ROWS_PER_PAGE: i64 = 64;
/// Chunks read at once at start.
const CHUNKS_PER_PAGE: i64 = 8;

const APPEND: &str = "INSERT INTO log (sequence, first, last, data) SELECT ?, ?, ?, ? \
     WHERE EXISTS (SELECT 1 FROM meta WHERE id = 1 AND epoch = ?) \
     AND ? = coalesce((SELECT max(sequence) FROM log), \
                      (SELECT base_sequence FROM meta WHERE id = 1)) + 1";

/// SQLite's CORRUPT and NOTADB: the database's pages make no sense.
const CODES_OF_DAMAGE: [u64; 2] = [11, 26];

/// One database of a member of dqlite, and the connection of its writer.
pub struct SqlStore {
    dir: PathBuf,
    database: Database,
    node: Option<Arc<dyn SqlNode>>,
    /// Whether the node ends when this is closed.
    ends_node: bool,
    /// How long to wait for leadership: with other members, not at all.
    leader_timeout: Duration,
    link: Option<Link>,
    epoch: u64,
    /// A start on a full disk can't claim; the first write does so then.
    claimed: bool,
    appends: u32,
}

struct Link {
    connection: Connection,
    append: Statement,
}

impl SqlStore {
    /// Starts dqlite on `dir`, which is made when it is missing.
    pub async fn open_dir(dir: &Path) -> Result<SqlStore, OpenError> {
        SqlStore::open_database(dir, Database::Kube).await
    }

    /// The same with one of the databases.
    pub async fn open_database(dir: &Path, database: Database) -> Result<SqlStore, OpenError> {
        Ok(SqlStore::alone(sole::start(dir).await?, database).ending_node())
    }

    /// The store on a node without other members: it waits until the node
    /// leads.
    pub fn alone(node: Arc<dyn SqlNode>, database: Database) -> SqlStore {
        SqlStore { leader_timeout: LEADER_TIMEOUT, ..SqlStore::on(node, database) }
    }

    /// The same, and the node ends when the store is closed: nobody else is
    /// on it.
    pub fn ending_node(self) -> SqlStore {
        SqlStore { ends_node: true, ..self }
    }

    /// The store on a node that has other members beside it: whoever does
    /// not lead is told so at once.
    pub fn on(node: Arc<dyn SqlNode>, database: Database) -> SqlStore {
        SqlStore {
            dir: node.data_dir().to_owned(),
            database,
            node: Some(node),
            ends_node: false,
            leader_timeout: Duration::ZERO,
            link: None,
            epoch: 0,
            claimed: false,
            appends: 0,
        }
    }

    /// What was stored, to be read only: nothing is claimed.
    pub async fn peek(&mut self) -> Result<Opened, StoreError> {
        let rows = self.query(META, &[]).await?;
        let row = rows.rows.first().ok_or_else(|| damaged("meta has no row"))?;
        opened(row)
    }

    fn is_alone(&self) -> bool {
        !self.leader_timeout.is_zero()
    }

    async fn link(&mut self) -> Result<&mut Link, dqlite::Error> {
        if self.link.as_ref().is_none_or(|link| !link.connection.is_usable()) {
            self.link = None;
            let node = self.node.as_ref().expect("a store is not used after it was closed");
            let name = self.database.name();
            let mut connection = node.open_when_leader(&name, self.leader_timeout).await?;
            // Debian's SQLite overwrites what it deletes with zeros, each page of which would be logged. What
            // compaction removes is no secret that the snapshots before it don't have.
            connection.query("PRAGMA secure_delete = OFF", &[]).await?;
            schema::ensure(&mut connection).await?;
            let append = connection.prepare(APPEND).await?;
            self.link = Some(Link { connection, append });
        }
        Ok(self.link.as_mut().expect("the link was just made"))
    }

    /// Runs a query, again on a new connection if the old one is lost: a
    /// query changes nothing.
    async fn query(&mut self, sql: &str, values: &[Value]) -> Result<dqlite::Rows, StoreError> {
        let mut attempt = 0;
        loop {
            let result = match self.link().await {
                Ok(link) => link.connection.query(sql, values).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(rows) => return Ok(rows),
                Err(error) if attempt < RECONNECTS_MAX && is_link_lost(&error) => {
                    attempt += 1;
                    self.link = None;
                }
                Err(error) => return Err(self.refused(error)),
            }
        }
    }

    /// Nothing was written; with other members, perhaps because one of them leads.
    fn refused(&self, error: dqlite::Error) -> StoreError {
        if is_damage(&error) {
            return damaged(&error.to_string());
        }
        let lost =
            matches!(error, dqlite::Error::NotLeader { .. } | dqlite::Error::DatabaseClosed { .. });
        if lost && !self.is_alone() {
            StoreError::NotLeader(Box::new(error))
        } else {
            StoreError::Failed(Box::new(error))
        }
    }

    fn write_failed(&mut self, error: dqlite::Error) -> StoreError {
        let not_executed = error.not_executed();
        if is_link_lost(&error) || !not_executed {
            self.link = None;
        }
        // SQLite stops at damage before anything is replicated.
        if is_damage(&error) {
            return self.refused(error);
        }
        if let Err(full) = disk::check(&self.dir)
            && not_executed
        {
            return full;
        }
        if not_executed { self.refused(error) } else { StoreError::Unknown(Box::new(error)) }
    }

    /// Claims what a start on a full disk could not.
    async fn claim_late(&mut self) -> Result<(), StoreError> {
        if !self.claimed {
            self.claim().await?;
        }
        Ok(())
    }

    /// Takes the next epoch for this writer alone: compare and set, so that
    /// two who claim at the same time never share one. After an unknown
    /// outcome the epoch that was tried is nobody's.
    async fn claim(&mut self) -> Result<(), StoreError> {
        for _ in 0..CLAIMS_MAX {
            let seen = self.peek().await?.epoch;
            let link = match self.link().await {
                Ok(link) => link,
                Err(error) => return Err(self.refused(error)),
            };
            let claim = "UPDATE meta SET epoch = ? WHERE id = 1 AND epoch = ?";
            let values = params![seen as i64 + 1, seen as i64];
            match link.connection.exec(claim, &values).await {
                Ok(result) if result.rows_affected == 1 => {
                    self.epoch = seen + 1;
                    self.claimed = true;
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => return Err(self.write_failed(error)),
            }
        }
        Err(StoreError::Failed("others claim the store all the time".into()))
    }
}

/// Whether the connection or the leadership behind it is gone.
fn is_link_lost(error: &dqlite::Error) -> bool {
    !matches!(error, dqlite::Error::Sql { .. } | dqlite::Error::Busy { .. })
}

/// Whether SQLite says that the database's pages make no sense.
fn is_damage(error: &dqlite::Error) -> bool {
    error.sqlite_primary().is_some_and(|code| CODES_OF_DAMAGE.contains(&code))
}

impl Store for SqlStore {
    async fn open(&mut self) -> Result<Opened, StoreError> {
        self.claimed = false;
        match disk::check(&self.dir) {
            Ok(()) => self.claim().await?,
            // Reads can be served all the same.
            Err(full) => tracing::error!(error = %full, "starting without space"),
        }
        let opened = self.peek().await?;
        if self.claimed && opened.epoch != self.epoch {
            return Err(StoreError::Deposed { epoch: self.epoch });
        }
        self.epoch = opened.epoch;
        Ok(opened)
    }

    async fn read_chunks(&mut self, after: Option<&Bytes>) -> Result<Vec<Chunk>, StoreError> {
        let (sql, values): (_, Vec<Value>) = match after {
            None => (
                "SELECT first_key, data FROM chunk ORDER BY first_key LIMIT ?",
                vec![CHUNKS_PER_PAGE.into()],
            ),
            Some(after) => (
                "SELECT first_key, data FROM chunk WHERE first_key > ? ORDER BY first_key LIMIT ?",
                vec![after.clone().into(), CHUNKS_PER_PAGE.into()],
            ),
        };
        let rows = self.query(sql, &values).await?;
        rows.rows
            .iter()
            .map(|row| {
                let blob = |column| row.blob(column).map_err(|error| damaged(&error.to_string()));
                let first_key = Bytes::copy_from_slice(blob(0)?);
                Ok(Chunk { first_key, data: blob(1)?.to_vec() })
            })
            .collect()
    }

    async fn read_log(&mut self, after: Sequence) -> Result<Vec<LogRow>, StoreError> {
        let sql = "SELECT sequence, first, last, data FROM log WHERE sequence > ? \
                   ORDER BY sequence LIMIT ?";
        let rows = self.query(sql, &params![after.0, ROWS_PER_PAGE]).await?;
        rows.rows
            .iter()
            .map(|row| {
                let number =
                    |column| row.integer(column).map_err(|error| damaged(&error.to_string()));
                Ok(LogRow {
                    sequence: Sequence(number(0)?),
                    first: Revision(number(1)?),
                    last: Revision(number(2)?),
                    data: row.blob(3).map_err(|error| damaged(&error.to_string()))?.to_vec(),
                })
            })
            .collect()
    }

    async fn append(&mut self, row: &LogRow) -> Result<(), StoreError> {
        disk::check(&self.dir)?;
        self.claim_late().await?;
        let epoch = self.epoch;
        let place = row.sequence.0;
        let data = Bytes::copy_from_slice(&row.data);
        let values = params![place, row.first.0, row.last.0, data, epoch as i64, place];
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.refused(error)),
        };
        match link.connection.exec_prepared(&link.append, &values).await {
            Ok(result) if result.rows_affected == 1 => {
                self.appends = self.appends.wrapping_add(1);
                if self.appends.is_multiple_of(APPENDS_PER_TRIM) {
                    trim_memory();
                }
                Ok(())
            }
            Ok(_) => Err(StoreError::Deposed { epoch }),
            Err(error) => Err(self.write_failed(error)),
        }
    }

    async fn barrier(&mut self) -> Result<(), StoreError> {
        self.claim_late().await?;
        let epoch = self.epoch;
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.refused(error)),
        };
        match link.connection.exec(schema::BARRIER, &params![epoch as i64]).await {
            Ok(result) if result.rows_affected == 1 => Ok(()),
            Ok(_) => Err(StoreError::Deposed { epoch }),
            Err(error) => Err(self.write_failed(error)),
        }
    }

    async fn read_layout(
        &mut self,
        base: &Base,
    ) -> Result<(Vec<RowInfo>, Vec<ChunkInfo>), StoreError> {
        let sql = "SELECT sequence, first, last, length(data) FROM log WHERE sequence > ? \
                   ORDER BY sequence";
        let rows = self.query(sql, &params![base.sequence.0]).await?;
        let rows = rows.rows.iter().map(row_info).collect::<Result<_, _>>();
        let sql = "SELECT first_key, length(data) FROM chunk ORDER BY first_key";
        let chunks = self.query(sql, &[]).await?;
        let chunks = chunks.rows.iter().map(chunk_info).collect::<Result<_, _>>();
        let unreadable = |error: dqlite::Error| damaged(&error.to_string());
        Ok((rows.map_err(unreadable)?, chunks.map_err(unreadable)?))
    }

    async fn fold(&mut self, fold: &Fold) -> Result<bool, StoreError> {
        disk::check(&self.dir)?;
        self.claim_late().await?;
        let (sql, values) = schema::fold(fold, self.epoch);
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.refused(error)),
        };
        match link.connection.exec(&sql, &values).await {
            Ok(result) => {
                let Fold::Trim { rows_max } = fold else { return Ok(false) };
                let more = result.rows_affected >= u64::from(*rows_max);
                if !more {
                    trim_memory();
                }
                Ok(more)
            }
            Err(error) => {
                // The transaction may still be open on this connection.
                self.link = None;
                Err(self.write_failed(error))
            }
        }
    }

    async fn size(&mut self) -> Result<Size, StoreError> {
        Ok(disk::size(&self.dir))
    }

    async fn close(&mut self) {
        self.link = None;
        let node = self.node.take().filter(|_| self.ends_node);
        let Some(node) = node else { return };
        if let Err(error) = node.end().await {
            tracing::warn!(%error, "dqlite did not stop orderly");
        }
    }
}

fn opened(row: &dqlite::Row) -> Result<Opened, StoreError> {
    let number = |column| row.integer(column).map_err(|error| damaged(&error.to_string()));
    let format = number(0)?;
    if format > schema::FORMAT {
        return Err(StoreError::Newer(format!(
            "its tables are in form {format}, this version knows {}",
            schema::FORMAT
        )));
    }
    let data = row.blob(6).map_err(|error| damaged(&error.to_string()))?.to_vec();
    Ok(Opened {
        cluster_id: number(1)? as u64,
        member_id: number(2)? as u64,
        epoch: number(3)? as u64,
        base: Base { sequence: Sequence(number(4)?), revision: Revision(number(5)?), data },
    })
}

fn row_info(row: &dqlite::Row) -> Result<RowInfo, dqlite::Error> {
    Ok(RowInfo {
        sequence: Sequence(row.integer(0)?),
        first: Revision(row.integer(1)?),
        last: Revision(row.integer(2)?),
        bytes: usize::try_from(row.integer(3)?).unwrap_or(0),
    })
}

fn chunk_info(row: &dqlite::Row) -> Result<ChunkInfo, dqlite::Error> {
    let first_key = Bytes::copy_from_slice(row.blob(0)?);
    Ok(ChunkInfo { first_key, bytes: usize::try_from(row.integer(1)?).unwrap_or(0) })
}

/// Gives memory back that dqlite's log and snapshots, and our batches, have
/// used and freed; the C library would keep it.
fn trim_memory() {
    drop(tokio::task::spawn_blocking(dqlite::memory::trim));
}

fn damaged(reason: &str) -> StoreError {
    StoreError::Damaged(reason.to_owned())
}
