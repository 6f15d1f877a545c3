//! What the datastore knows in memory, and how it is read back at start.

use std::time::Instant;

use bytes::Bytes;
use futures::future::join;
use tokio::task::yield_now;

use crate::batch::{DecodeError, Encoder, Entry, decode};
use crate::fingerprint::{Mark, Marks};
use crate::index::Index;
use crate::lease::LeaseTable;
use crate::record::Revision;
use crate::store::{Base, Chunk, LogRow, Opened, Sequence, Store, StoreError};

/// Keys, history and leases; the same on every member at the same revision.
#[derive(Debug, Default)]
pub struct State {
    pub index: Index,
    pub leases: LeaseTable,
    /// By which members compare what they hold.
    pub marks: Marks,
}

/// Where the stored rows are, for the compactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub base: Base,
    /// The rows of the log behind the base, without their data.
    pub rows: Vec<RowInfo>,
    pub chunks: Vec<ChunkInfo>,
    /// Keys that the rows changed before the compacted revision.
    pub touched: Vec<Bytes>,
}

/// A row of the log without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowInfo {
    pub sequence: Sequence,
    pub first: Revision,
    pub last: Revision,
    pub bytes: usize,
}

impl From<&LogRow> for RowInfo {
    fn from(row: &LogRow) -> RowInfo {
        RowInfo { sequence: row.sequence, first: row.first, last: row.last, bytes: row.data.len() }
    }
}

/// A chunk without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    pub first_key: Bytes,
    pub bytes: usize,
}

/// Reads a store that was just opened into memory.
pub async fn load<S: Store>(
    store: &mut S,
    opened: &Opened,
    now: Instant,
) -> Result<(State, Layout), StoreError> {
    let base = opened.base.clone();
    let mut state = State { index: Index::new(base.revision), ..State::default() };
    if !base.data.is_empty() {
        let entries = decode(&base.data, Revision(0)).map_err(|error| error.of("the base"))?;
        state.apply_all(entries, now);
    }
    let (chunks, stale) = load_chunks(store, &mut state).await?;
    let rows = load_log(store, &mut state, &base, now).await?;
    let (mut touched, _) = state.index.sweep(usize::MAX);
    touched.extend(stale);
    Ok((state, Layout { base, rows, chunks, touched }))
}

/// Restores every chunk, each page while the next one is read. Gives the
/// chunks, and the first keys of those to be written anew.
async fn load_chunks<S: Store>(
    store: &mut S,
    state: &mut State,
) -> Result<(Vec<ChunkInfo>, Vec<Bytes>), StoreError> {
    let mut restoring = Restoring { state, chunks: Vec::new(), stale: Vec::new(), waiting: None };
    let mut page = store.read_chunks(None).await?;
    while let Some(last) = page.last() {
        let after = last.first_key.clone();
        let (next, taken) = join(store.read_chunks(Some(&after)), restoring.take(page)).await;
        taken?;
        page = next?;
    }
    restoring.advance(None)?;
    Ok((restoring.chunks, restoring.stale))
}

/// Replays every row, each page while the next one is read.
async fn load_log<S: Store>(
    store: &mut S,
    state: &mut State,
    base: &Base,
    now: Instant,
) -> Result<Vec<RowInfo>, StoreError> {
    let mut rows: Vec<RowInfo> = Vec::new();
    let mut page = store.read_log(base.sequence).await?;
    while let Some(last) = page.last() {
        let after = last.sequence;
        let replaying = async {
            for row in page {
                state.replay(&row, now)?;
                rows.push(RowInfo::from(&row));
                yield_now().await;
            }
            Ok(())
        };
        let (next, replayed) = join(store.read_log(after), replaying).await;
        replayed?;
        page = next?;
    }
    Ok(rows)
}

/// Chunks on their way into memory.
struct Restoring<'a> {
    state: &'a mut State,
    chunks: Vec<ChunkInfo>,
    stale: Vec<Bytes>,
    /// Where it ends is known with the next one.
    waiting: Option<Chunk>,
}

impl Restoring<'_> {
    async fn take(&mut self, page: Vec<Chunk>) -> Result<(), StoreError> {
        for chunk in page {
            self.advance(Some(chunk))?;
            yield_now().await;
        }
        Ok(())
    }

    /// Restores the chunk that waits. What it holds behind the next one's first
    /// key is stale: it was being divided when the writer died.
    fn advance(&mut self, next: Option<Chunk>) -> Result<(), StoreError> {
        if let Some(next) = &next {
            let bytes = next.data.len();
            self.chunks.push(ChunkInfo { first_key: next.first_key.clone(), bytes });
        }
        let Some(chunk) = std::mem::replace(&mut self.waiting, next) else { return Ok(()) };
        let end = self.waiting.as_ref().map(|next| &next.first_key);
        if !self.state.restore(&chunk, end)? {
            self.stale.push(chunk.first_key);
        }
        Ok(())
    }
}

/// What a row says, checked.
pub fn row_entries(row: &LogRow) -> Result<Vec<Entry>, StoreError> {
    let of_row = |error: DecodeError| error.of(format!("row {} of the log", row.sequence.0));
    decode(&row.data, row.first).map_err(of_row)
}

impl State {
    /// Notes what is held after a row; nothing is staged.
    pub fn mark(&mut self, sequence: Sequence) {
        let sum = self.index.sum().wrapping_add(self.leases.sum());
        self.marks.note(Mark { sequence, sum });
    }

    /// Puts a chunk's keys back up to `end`; whether those were all it has.
    fn restore(&mut self, chunk: &Chunk, end: Option<&Bytes>) -> Result<bool, StoreError> {
        let name = String::from_utf8_lossy(&chunk.first_key).into_owned();
        let entries = decode(&chunk.data, Revision(0))
            .map_err(|error| error.of(format!("the chunk from {name:?} on")))?;
        for entry in entries {
            let Entry::Changes(records) = entry else { continue };
            for record in records {
                if end.is_some_and(|end| record.key >= *end) {
                    return Ok(false);
                }
                self.leases.note(&record);
                self.index.restore(record);
            }
        }
        Ok(true)
    }

    /// Takes in one row of the log behind what is known.
    pub fn replay(&mut self, row: &LogRow, now: Instant) -> Result<(), StoreError> {
        self.replay_entries(row, row_entries(row)?, now)
    }

    /// The same with a row that was read before, without a lock.
    pub fn replay_entries(
        &mut self,
        row: &LogRow,
        entries: Vec<Entry>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let place = row.sequence.0;
        if row.first != self.index.committed().next() {
            return Err(StoreError::Damaged(format!(
                "row {place} of the log begins at revision {}, but the row before ends at {}",
                row.first,
                self.index.committed()
            )));
        }
        self.apply_all(entries, now);
        if self.index.committed() != row.last {
            return Err(StoreError::Damaged(format!(
                "row {place} of the log should end at revision {}, but ends at {}",
                row.last,
                self.index.committed()
            )));
        }
        Ok(())
    }

    fn apply_all(&mut self, entries: Vec<Entry>, now: Instant) {
        for entry in entries {
            match entry {
                Entry::Changes(records) => {
                    for record in &records {
                        self.leases.note(record);
                    }
                    self.index.replay(records);
                }
                Entry::Grant { lease, ttl_s } => self.leases.grant(lease, ttl_s, now),
                Entry::Revoke { lease } => self.leases.revoke(lease),
                Entry::Compact { revision } => self.index.compact(revision),
            }
        }
    }

    /// Leases and compacted revision as a base keeps them.
    pub fn base_data(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for (lease, ttl_s) in self.leases.all() {
            encoder.grant(lease, ttl_s);
        }
        encoder.compact(self.index.compacted());
        encoder.finish()
    }
}
