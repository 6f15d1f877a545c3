//! The record in memory, for tests and simulations. It keeps bytes as a real one does, so what
//! cannot be written and read again is found here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{CHANGES_MAX, Change, Entry, Store, StoreError, assemble};
use crate::record::{ClusterRecord, Revision};

/// See the module's words.
#[derive(Debug)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
    latest: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct Kept {
    revision: Revision,
    entries: BTreeMap<String, (Vec<u8>, Revision)>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { kept: Mutex::default(), latest: watch::channel(Revision(0)).0 }
    }
}

impl MemoryStore {
    /// What [`Store::read`] answers, for tests without a runtime.
    pub fn read_now(&self) -> Result<ClusterRecord, StoreError> {
        let kept = self.kept();
        let entry = |(key, (value, revision)): (&String, &(Vec<u8>, Revision))| Entry {
            key: key.clone(),
            value: value.clone(),
            revision: *revision,
        };
        assemble(kept.revision, kept.entries.iter().map(entry).collect())
    }

    /// What [`Store::apply`] does, for tests without a runtime.
    pub fn apply_now(&self, changes: &[Change]) -> Result<Revision, StoreError> {
        assert!(changes.len() <= CHANGES_MAX, "a decision has {} changes", changes.len());
        let mut kept = self.kept();
        if changes.is_empty() {
            return Ok(kept.revision);
        }
        for change in changes {
            let found = kept.entries.get(&change.key().to_string());
            if found.map(|(_, revision)| *revision) != change.was() {
                return Err(StoreError::Collided { key: change.key() });
            }
        }
        let revision = Revision(kept.revision.0 + 1);
        kept.revision = revision;
        for change in changes {
            let write = change.to_write();
            match write.value {
                Some(value) => drop(kept.entries.insert(write.key, (value, revision))),
                None => drop(kept.entries.remove(&write.key)),
            }
        }
        drop(kept);
        self.latest.send_modify(|latest| *latest = revision.max(*latest));
        Ok(revision)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    async fn read(&self) -> Result<ClusterRecord, StoreError> {
        self.read_now()
    }

    async fn apply(&self, changes: &[Change]) -> Result<Revision, StoreError> {
        self.apply_now(changes)
    }

    async fn later_than(&self, seen: Revision) -> Result<Revision, StoreError> {
        let mut latest = self.latest.subscribe();
        let found = latest.wait_for(|latest| *latest > seen).await;
        found.map(|revision| *revision).map_err(|e| StoreError::Unavailable(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_a_store() {
        crate::suite::run_all(|| async { MemoryStore::default() }).await;
    }
}
