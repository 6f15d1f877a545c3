//! Stands in for the store on dqlite until its crate is there.

use std::path::Path;

pub use super::memory::MemoryStore as SqlStore;

/// Why a directory could not be opened as a datastore.
#[derive(Debug, thiserror::Error)]
#[error("can't open")]
pub struct OpenError;

impl SqlStore {
    /// Opens an empty store in memory.
    pub async fn open_dir(_dir: &Path) -> Result<SqlStore, OpenError> {
        Ok(SqlStore::default())
    }
}
