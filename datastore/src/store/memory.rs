//! A store without a disk: the model that real ones are compared with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Base, Chunk, Fold, LogRow, Opened, Sequence, Size, Store, StoreError};
use crate::record::Revision;
use crate::state::{ChunkInfo, RowInfo};

#[derive(Clone, Debug)]
struct Tables {
    epoch: u64,
    base: Base,
    chunks: BTreeMap<Bytes, Vec<u8>>,
    log: BTreeMap<Sequence, LogRow>,
}

/// Handles of one memory; each `open` deposes the handle before it, as
/// processes do that share a database.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    epoch: u64,
    /// What the next writes meet, in order; for tests of bad days.
    faults: Arc<Mutex<Vec<Fault>>>,
}

/// A bad day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write fails and was not done.
    NoSpace,
    /// The write was done, and its outcome stays unknown.
    UnknownDone,
    /// The write was not done, and its outcome stays unknown.
    UnknownNotDone,
    /// The store finds that it is damaged.
    Damaged,
}

impl Default for MemoryStore {
    fn default() -> Self {
        let base =
            Base { sequence: Sequence(0), revision: Revision::EMPTY_STORE, data: Vec::new() };
        let tables = Tables { epoch: 0, base, chunks: BTreeMap::new(), log: BTreeMap::new() };
        MemoryStore { tables: Arc::new(Mutex::new(tables)), epoch: 0, faults: Arc::default() }
    }
}

impl MemoryStore {
    /// Makes the next write meet `fault`; a barrier meets damage too.
    pub fn plan_fault(&self, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// What a crash at this moment would leave behind.
    pub fn copy(&self) -> MemoryStore {
        let tables = self.tables().clone();
        MemoryStore { tables: Arc::new(Mutex::new(tables)), epoch: 0, faults: Arc::default() }
    }

    /// How many rows the log has.
    pub fn log_rows(&self) -> usize {
        self.tables().log.len()
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        self.tables().chunks.len()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was planned for now, if it is such a fault.
    fn next_fault(&self, is_such: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let is_next = faults.first().is_some_and(|fault| is_such(*fault));
        is_next.then(|| faults.remove(0))
    }

    fn check_epoch(&self) -> Result<(), StoreError> {
        if self.tables().epoch == self.epoch {
            Ok(())
        } else {
            Err(StoreError::Deposed { epoch: self.epoch })
        }
    }
}

impl Store for MemoryStore {
    async fn open(&mut self) -> Result<Opened, StoreError> {
        let mut tables = self.tables();
        tables.epoch += 1;
        let epoch = tables.epoch;
        let base = tables.base.clone();
        drop(tables);
        self.epoch = epoch;
        Ok(Opened { cluster_id: 1, member_id: 1, epoch, base })
    }

    async fn read_chunks(&mut self, after: Option<&Bytes>) -> Result<Vec<Chunk>, StoreError> {
        let tables = self.tables();
        let behind = |key: &Bytes| after.is_none_or(|after| key > after);
        let next = tables.chunks.iter().find(|(key, _)| behind(key));
        Ok(next
            .map(|(key, data)| Chunk { first_key: key.clone(), data: data.clone() })
            .into_iter()
            .collect())
    }

    async fn read_log(&mut self, after: Sequence) -> Result<Vec<LogRow>, StoreError> {
        Ok(self.tables().log.range(after.next()..).take(3).map(|(_, row)| row.clone()).collect())
    }

    async fn append(&mut self, row: &LogRow) -> Result<(), StoreError> {
        self.check_epoch()?;
        let fault = self.next_fault(|_| true);
        match fault {
            Some(Fault::NoSpace) => {
                return Err(StoreError::NoSpace { available_bytes: 0, needed_bytes: 1 });
            }
            Some(Fault::Damaged) => return Err(StoreError::Damaged("planned".into())),
            Some(Fault::UnknownNotDone) => return Err(StoreError::Unknown("planned".into())),
            Some(Fault::UnknownDone) | None => {}
        }
        let mut tables = self.tables();
        let newest = tables.log.keys().next_back().copied().unwrap_or(tables.base.sequence);
        if newest.next() != row.sequence {
            return Err(StoreError::Deposed { epoch: self.epoch });
        }
        tables.log.insert(row.sequence, row.clone());
        if fault == Some(Fault::UnknownDone) {
            return Err(StoreError::Unknown("planned".into()));
        }
        Ok(())
    }

    async fn barrier(&mut self) -> Result<(), StoreError> {
        if self.next_fault(|fault| fault == Fault::Damaged).is_some() {
            return Err(StoreError::Damaged("planned".into()));
        }
        self.check_epoch()
    }

    async fn read_layout(
        &mut self,
        base: &Base,
    ) -> Result<(Vec<RowInfo>, Vec<ChunkInfo>), StoreError> {
        let tables = self.tables();
        let rows = tables.log.range(base.sequence.next()..).map(|(_, row)| RowInfo::from(row));
        let chunks = tables.chunks.iter();
        let chunks = chunks
            .map(|(key, data)| ChunkInfo { first_key: key.clone(), bytes: data.len() })
            .collect();
        Ok((rows.collect(), chunks))
    }

    async fn fold(&mut self, fold: &Fold) -> Result<bool, StoreError> {
        self.check_epoch()?;
        let mut tables = self.tables();
        match fold {
            Fold::Merge { from, row } => {
                tables.log.retain(|sequence, _| sequence < from || *sequence > row.sequence);
                tables.log.insert(row.sequence, row.clone());
            }
            Fold::Chunks { put, remove } => {
                for key in remove {
                    tables.chunks.remove(key);
                }
                for chunk in put {
                    tables.chunks.insert(chunk.first_key.clone(), chunk.data.clone());
                }
            }
            Fold::Advance(base) => tables.base = base.clone(),
            Fold::Trim { rows_max } => {
                let base = tables.base.sequence;
                let doomed: Vec<_> =
                    tables.log.range(..=base).map(|row| *row.0).take(*rows_max as usize).collect();
                for sequence in &doomed {
                    tables.log.remove(sequence);
                }
                return Ok(doomed.len() == *rows_max as usize);
            }
        }
        Ok(false)
    }

    async fn size(&mut self) -> Result<Size, StoreError> {
        let tables = self.tables();
        let log: usize = tables.log.values().map(|row| row.data.len()).sum();
        let chunks: usize = tables.chunks.values().map(Vec::len).sum();
        let bytes = (log + chunks) as u64;
        Ok(Size { total_bytes: bytes, used_bytes: bytes })
    }

    async fn close(&mut self) {}
}
