//! The tables in dqlite and the statements that rearrange them.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use dqlite::{Connection, Value};

use super::Fold;
use crate::record::Revision;

/// The form of the tables; a later one is refused.
pub const FORMAT: i64 = 1;

/// Reads the one row of `meta`.
pub const META: &str = "SELECT format, cluster_id, member_id, epoch, base_sequence, \
     base_revision, base_data FROM meta WHERE id = 1";

/// Changes a page that no answer depends on, if the epoch is still ours.
pub const BARRIER: &str = "UPDATE barrier SET count = count + 1 WHERE id = 1 \
     AND EXISTS (SELECT 1 FROM meta WHERE id = 1 AND epoch = ?)";

/// Makes the tables if they are missing; safe to repeat.
pub async fn ensure(connection: &mut Connection) -> Result<(), dqlite::Error> {
    let found = connection
        .query("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'barrier'", &[])
        .await?;
    let is_there = found.rows.first().and_then(|row| row.integer(0).ok()).unwrap_or(0) > 0;
    if is_there {
        return Ok(());
    }
    let random = |salt: u64| (RandomState::new().hash_one(salt) >> 1) as i64;
    let sql = "BEGIN IMMEDIATE; \
        CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY, format INTEGER NOT NULL, \
            cluster_id INTEGER NOT NULL, member_id INTEGER NOT NULL, epoch INTEGER NOT NULL, \
            base_sequence INTEGER NOT NULL, base_revision INTEGER NOT NULL, \
            base_data BLOB NOT NULL); \
        CREATE TABLE IF NOT EXISTS log (sequence INTEGER PRIMARY KEY, first INTEGER NOT NULL, \
            last INTEGER NOT NULL, data BLOB NOT NULL); \
        CREATE TABLE IF NOT EXISTS chunk (id INTEGER PRIMARY KEY, first_key BLOB NOT NULL UNIQUE, \
            data BLOB NOT NULL); \
        CREATE TABLE IF NOT EXISTS barrier (id INTEGER PRIMARY KEY, count INTEGER NOT NULL); \
        INSERT OR IGNORE INTO barrier VALUES (1, 0); \
        INSERT OR IGNORE INTO meta VALUES (1, ?, ?, ?, 0, 0, ?, x''); \
        COMMIT";
    let values: [Value; 4] =
        [FORMAT.into(), random(1).into(), random(2).into(), Revision::EMPTY_STORE.0.into()];
    connection.exec(sql, &values).await.map(drop)
}

/// The statements of a rearrangement. Each does nothing when the epoch is not
/// ours any more; together they are one transaction.
pub fn fold(fold: &Fold, epoch: u64) -> (String, Vec<Value>) {
    let epoch = epoch as i64;
    let guard = "EXISTS (SELECT 1 FROM meta WHERE id = 1 AND epoch = ?)";
    match fold {
        Fold::Merge { from, row } => {
            let sql = format!(
                "BEGIN IMMEDIATE; \
                 DELETE FROM log WHERE sequence BETWEEN ? AND ? AND {guard}; \
                 INSERT INTO log (sequence, first, last, data) SELECT ?, ?, ?, ? WHERE {guard}; \
                 COMMIT"
            );
            let place = row.sequence.0;
            let data = Bytes::copy_from_slice(&row.data);
            let values = vec![
                from.0.into(),
                place.into(),
                epoch.into(),
                place.into(),
                row.first.0.into(),
                row.last.0.into(),
                data.into(),
                epoch.into(),
            ];
            (sql, values)
        }
        Fold::Chunks { put, remove } => {
            let mut sql = "BEGIN IMMEDIATE; ".to_owned();
            let mut values: Vec<Value> = Vec::new();
            for key in remove {
                sql += &format!("DELETE FROM chunk WHERE first_key = ? AND {guard}; ");
                values.extend([key.clone().into(), epoch.into()]);
            }
            for chunk in put {
                sql += &format!(
                    "INSERT INTO chunk (first_key, data) SELECT ?, ? WHERE {guard} \
                     ON CONFLICT (first_key) DO UPDATE SET data = excluded.data; "
                );
                let data = Bytes::copy_from_slice(&chunk.data);
                values.extend([chunk.first_key.clone().into(), data.into(), epoch.into()]);
            }
            (sql + "COMMIT", values)
        }
        Fold::Advance(base) => {
            let sql = "UPDATE meta SET base_sequence = ?, base_revision = ?, base_data = ? \
                       WHERE id = 1 AND epoch = ?";
            let data = Bytes::copy_from_slice(&base.data);
            let values =
                vec![base.sequence.0.into(), base.revision.0.into(), data.into(), epoch.into()];
            (sql.to_owned(), values)
        }
        Fold::Trim { rows_max } => {
            let sql = format!(
                "DELETE FROM log WHERE {guard} AND sequence IN (SELECT sequence FROM log \
                 WHERE sequence <= (SELECT base_sequence FROM meta WHERE id = 1) \
                 ORDER BY sequence LIMIT ?)"
            );
            (sql, vec![epoch.into(), i64::from(*rows_max).into()])
        }
    }
}
