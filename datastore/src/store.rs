//! Where batches are kept: the contract between the writer and durability.
//!
//! A store holds three things. The *log* has one row per commit. *Chunks*
//! hold the living keys of the compacted past, a key range each. The *base*
//! says up to which row the log is contained in the chunks, so that a start
//! reads chunks and the rest of the log.
//!
//! ```text
//!   chunks (by key)         log (by sequence)
//!   [a..f][f..p][p..]       41 42 43 | 44 45 46 47
//!          contains  ------------^     read at start
//! ```
//!
//! Every write is guarded by the epoch that [`Store::open`] claims: a writer
//! that another one has replaced can change nothing any more.

pub(crate) mod disk;
pub mod memory;
pub mod node;
mod schema;
pub mod sole;
pub mod sql;

use std::future::Future;

use bytes::Bytes;

use crate::record::Revision;
use crate::state::{ChunkInfo, RowInfo};

/// The place of a row in the log: dense, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub i64);

impl Sequence {
    /// The place after this one.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// One row of the log: a batch, or several merged into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Its place; for merged rows that of the last of them.
    pub sequence: Sequence,
    /// The revision of its first changes. With no changes this is one more
    /// than `last`.
    pub first: Revision,
    /// The newest revision when it was committed.
    pub last: Revision,
    /// See [`crate::batch`].
    pub data: Vec<u8>,
}

/// The living keys of a range, as they were at some compacted revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The range begins here and ends where the next chunk begins.
    pub first_key: Bytes,
    pub data: Vec<u8>,
}

/// Up to where the log is contained in the chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub sequence: Sequence,
    pub revision: Revision,
    /// Leases and the compacted revision, as a batch.
    pub data: Vec<u8>,
}

/// What a store says when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub cluster_id: u64,
    pub member_id: u64,
    /// The claim of this writer; older ones are refused from now on.
    pub epoch: u64,
    pub base: Base,
}

/// A rearrangement that changes no answer, each small and whole by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Replaces the rows from `from` to `row.sequence` by `row`.
    Merge { from: Sequence, row: LogRow },
    /// Writes chunks by their first keys and removes others.
    Chunks { put: Vec<Chunk>, remove: Vec<Bytes> },
    /// Says that the chunks now contain the log up to the new base.
    Advance(Base),
    /// Removes rows that the base contains, at most `rows_max`.
    Trim { rows_max: u32 },
}

/// Space that a store takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub total_bytes: u64,
    pub used_bytes: u64,
}

/// Why a store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer took over; this one must write no more.
    #[error("another writer took over from epoch {epoch}")]
    Deposed { epoch: u64 },
    /// Another member leads; nothing was written.
    #[error("this member does not lead")]
    NotLeader(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Whether it was written can only be told by reading the log again.
    #[error("the outcome of a write is unknown")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing was written.
    #[error("no space left: {available_bytes} bytes are free, {needed_bytes} are needed")]
    NoSpace { available_bytes: u64, needed_bytes: u64 },
    /// Nothing was written.
    #[error("the database refused")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is stored makes no sense.
    #[error("the stored data is damaged: {0}")]
    Damaged(String),
    /// What is stored is in a form that is not known yet; it is left as it is.
    #[error("{0}: a newer Skiff wrote it")]
    Newer(String),
}

/// Keeps batches. One writer at a time owns it.
pub trait Store: Send + 'static {
    /// Claims the store for this writer.
    fn open(&mut self) -> impl Future<Output = Result<Opened, StoreError>> + Send;

    /// Chunks in key order behind `after`, at least one unless there is none.
    fn read_chunks(
        &mut self,
        after: Option<&Bytes>,
    ) -> impl Future<Output = Result<Vec<Chunk>, StoreError>> + Send;

    /// Rows in order behind `after`, at least one unless there is none.
    fn read_log(
        &mut self,
        after: Sequence,
    ) -> impl Future<Output = Result<Vec<LogRow>, StoreError>> + Send;

    /// Makes a row durable if the log ends just before it and the epoch is
    /// still ours.
    fn append(&mut self, row: &LogRow) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Commits something that changes no answer, if the epoch is still ours:
    /// a proof that nobody else has written since this was called.
    fn barrier(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Where the stored rows and chunks are, without their data.
    fn read_layout(
        &mut self,
        base: &Base,
    ) -> impl Future<Output = Result<(Vec<RowInfo>, Vec<ChunkInfo>), StoreError>> + Send;

    /// Rearranges; whether there is more of the same to do ([`Fold::Trim`]).
    fn fold(&mut self, fold: &Fold) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// How much space is taken.
    fn size(&mut self) -> impl Future<Output = Result<Size, StoreError>> + Send;

    /// Ends orderly; what was acknowledged is safe with or without this.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}
