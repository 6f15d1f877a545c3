//! The one writer: groups what is queued into one commit.
//!
//! ```text
//!   queue ──> evaluate in order ──> one row ──> store ──> commit in the
//!             against the index,    of the      (fsync)   index, publish
//!             staging versions      log                   to watchers,
//!                                                         answer
//! ```
//!
//! While a commit is under way new wishes queue up and make the next one, so
//! that a commit's cost is shared by everyone who waits. Between commits the
//! writer does one small step of compaction at a time. It is the only one
//! that changes the index or writes to the store.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::batch::Encoder;
use crate::command::{Change, Command};
use crate::compactor::{Compactor, Step};
use crate::error::RequestError;
use crate::group::{Group, PendingEntry};
use crate::index::Index;
use crate::pending::{Ended, Pending, Reply};
use crate::record::Revision;
use crate::shared::{Integrity, Limits, Shared};
use crate::state::Layout;
use crate::store::{Base, Fold, LogRow, Sequence, Store, StoreError};

/// Wishes that may wait; beyond this clients are told to come back.
pub const QUEUE_MAX: usize = 4096;
/// Wishes in one commit.
const GROUP_CHANGES_MAX: usize = 512;
/// Bytes, as staged, after which a commit takes no further wish.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Revisions freed between two commits.
const SWEEP_REVISIONS_MAX: usize = 512;
/// Commits after which a step of compaction is due, however busy it is.
const COMMITS_PER_STEP: u32 = 16;
/// Commits after which the size of the store is asked for again.
const COMMITS_PER_SIZE: u32 = 256;

/// Why the writer ended.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("another writer took over")]
    Deposed(#[source] StoreError),
    #[error("the log could not be read again after a write of unknown outcome")]
    Recovery(#[source] StoreError),
    #[error("the database is damaged")]
    Damaged(#[source] StoreError),
}

/// Owns the store. See the module's words.
pub struct Writer<S> {
    store: S,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    compactor: Compactor,
    sequence: Sequence,
    /// Whether freeing or rearranging may have something to do.
    sweeping: bool,
    commits: u32,
    /// Whether someone in the group asked for a commit that proves leadership.
    wants_barrier: bool,
    /// What the end of leadership left undecided.
    pending: Option<Pending>,
}

impl<S: Store> Writer<S> {
    /// A writer for a store that was just loaded into `shared`.
    pub fn new(
        store: S,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        layout: Layout,
    ) -> Writer<S> {
        let sequence = layout.rows.last().map_or(layout.base.sequence, |row| row.sequence);
        shared.set_sequence(sequence.0);
        let compactor = Compactor::new(layout, shared.limits.layout);
        Writer {
            store,
            shared,
            commands,
            compactor,
            sequence,
            sweeping: true,
            commits: 0,
            pending: None,
            wants_barrier: false,
        }
    }

    /// Writes until every sender of wishes is gone; then closes the store.
    pub async fn run(self) -> Result<(), WriterError> {
        self.lead().await.result
    }

    /// The same, and hands over what the next leader's follower needs.
    pub async fn lead(mut self) -> Ended {
        self.note_size().await;
        let result = self.serve().await;
        self.store.close().await;
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            let _ = command.reply.send(Err(RequestError::LeaderChanged));
        }
        let Writer { compactor, sequence, pending, .. } = self;
        Ended { result, pending, compactor, sequence }
    }

    async fn serve(&mut self) -> Result<(), WriterError> {
        loop {
            let first = match self.commands.try_recv() {
                Ok(command) => command,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
                Err(mpsc::error::TryRecvError::Empty) => {
                    if self.tidy().await? {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    match self.commands.recv().await {
                        Some(command) => command,
                        None => return Ok(()),
                    }
                }
            };
            self.write_group(first).await?;
            if self.commits.is_multiple_of(COMMITS_PER_STEP) {
                self.tidy().await?;
            }
            if self.commits.is_multiple_of(COMMITS_PER_SIZE) {
                self.note_size().await;
            }
        }
    }

    async fn write_group(&mut self, first: Command) -> Result<(), WriterError> {
        let (group, replies) = self.evaluate(first);
        let Some(row) = self.encode(&group) else {
            return self.answer_unwritten(replies).await;
        };
        let began = Instant::now();
        let written = self.store.append(&row).await;
        self.commits = self.commits.wrapping_add(1);
        match written {
            Ok(()) => {
                self.shared.metrics.committed(began.elapsed(), replies.len());
                if self.shared.set_no_space(self.is_over_quota()) {
                    info!(no_space = self.shared.no_space(), "alarm changed");
                    self.sweeping = true;
                }
                self.commit(&group, &row);
                answer(replies);
                Ok(())
            }
            Err(error) => self.fail(error, group, &row, replies).await,
        }
    }

    /// Answers a group that staged nothing. What it was evaluated against is
    /// the truth only while this member leads, so among others that is proven
    /// first; with anything to write, the commit of that is the barrier.
    async fn answer_unwritten(&mut self, replies: Vec<Reply>) -> Result<(), WriterError> {
        let is_truth = !self.shared.is_among_others() || self.shared.is_sole_voter();
        if !self.wants_barrier && is_truth {
            answer(replies);
            return Ok(());
        }
        match self.store.barrier().await {
            Ok(()) => {
                answer(replies);
                Ok(())
            }
            Err(error) => {
                refuse(replies, RequestError::LeaderChanged);
                match error {
                    StoreError::NotLeader(_) | StoreError::Deposed { .. } => {
                        Err(WriterError::Deposed(error))
                    }
                    StoreError::Damaged(_) => self.found_damaged(error),
                    error => {
                        warn!(error = &error as &dyn std::error::Error, "no barrier");
                        Ok(())
                    }
                }
            }
        }
    }

    /// Evaluates what is queued, in order, until the group is full.
    fn evaluate(&mut self, first: Command) -> (Group, Vec<Reply>) {
        let identity = self.shared.identity();
        let refuse = self.shared.no_space() && self.is_over_quota();
        let now = (self.shared.clock)();
        let mut state = self.shared.write();
        let mut group = Group::default();
        let mut replies = Vec::new();
        let mut next = Some(first);
        self.wants_barrier = false;
        while let Some(command) = next {
            self.wants_barrier |= matches!(command.change, Change::Barrier);
            let result = if refuse && command.change.takes_space() {
                Err(RequestError::NoSpace)
            } else {
                group.evaluate(&mut state, &identity, now, &command.change)
            };
            replies.push((command.reply, result));
            let full = replies.len() >= GROUP_CHANGES_MAX || group.bytes() >= GROUP_BYTES_MAX;
            next = if full { None } else { self.commands.try_recv().ok() };
        }
        if let Some(revision) = outgrown(&self.shared.limits, &state.index, refuse) {
            // A client that asked for more in this very group is as welcome.
            let _ = group.evaluate(&mut state, &identity, now, &Change::Compact(revision));
        }
        (group, replies)
    }

    fn is_over_quota(&self) -> bool {
        self.shared.read().index.size() > self.shared.limits.quota_bytes
    }

    /// The row for what a group staged; nothing when it staged nothing.
    fn encode(&self, group: &Group) -> Option<LogRow> {
        if group.entries().is_empty() {
            return None;
        }
        let state = self.shared.read();
        let mut encoder = Encoder::default();
        encoder.epoch(self.shared.identity().epoch);
        for entry in group.entries() {
            match entry {
                PendingEntry::Changes(position) => {
                    encoder.changes(&state.index.staged()[*position]);
                }
                PendingEntry::Grant { lease, ttl_s } => encoder.grant(*lease, *ttl_s),
                PendingEntry::Revoke { lease } => encoder.revoke(*lease),
                PendingEntry::Compact { revision } => encoder.compact(*revision),
            }
        }
        Some(LogRow {
            sequence: self.sequence.next(),
            first: state.index.committed().next(),
            last: state.index.head(),
            data: encoder.finish(),
        })
    }

    /// Makes a group that is durable visible.
    fn commit(&mut self, group: &Group, row: &LogRow) {
        let now = (self.shared.clock)();
        let mut state = self.shared.write();
        let state = &mut *state;
        let changes = state.index.commit();
        let mut changed = changes.iter();
        for entry in group.entries() {
            match entry {
                PendingEntry::Changes(position) => {
                    let revision = Revision(row.first.0 + *position as i64);
                    let of_revision = changed.as_slice().iter();
                    let count =
                        of_revision.take_while(|record| record.modified == revision).count();
                    changed.by_ref().take(count).for_each(|record| state.leases.note(record));
                }
                PendingEntry::Grant { lease, ttl_s } => {
                    self.shared.metrics.leases_granted.inc();
                    state.leases.grant(*lease, *ttl_s, now);
                    self.shared.leases_changed.notify_one();
                }
                PendingEntry::Revoke { lease } => {
                    self.shared.metrics.leases_revoked.inc();
                    state.leases.revoke(*lease);
                }
                PendingEntry::Compact { revision } => {
                    state.index.compact(*revision);
                    self.sweeping = true;
                }
            }
        }
        assert_eq!(state.index.committed(), row.last, "the row says where its changes end");
        state.mark(row.sequence);
        self.sequence = row.sequence;
        self.shared.set_sequence(row.sequence.0);
        self.shared.feed.push_row(row);
        self.compactor.appended(row);
        self.sweeping |= self.compactor.wants_merge();
        if !changes.is_empty() {
            self.shared.metrics.changed(changes.iter().map(|record| &**record));
            self.shared.hub().publish(&changes, row.last);
        }
        self.shared.note_packing(&state.index);
    }

    async fn fail(
        &mut self,
        error: StoreError,
        group: Group,
        row: &LogRow,
        replies: Vec<Reply>,
    ) -> Result<(), WriterError> {
        self.shared.metrics.commits_failed.inc();
        match error {
            StoreError::Unknown(source) => {
                warn!(sequence = row.sequence.0, error = %source, "outcome of a commit is unknown");
                match self.was_written(row).await {
                    Ok(true) => {
                        self.commit(&group, row);
                        answer(replies);
                    }
                    Ok(false) => {
                        self.shared.write().index.roll_back();
                        refuse(replies, RequestError::LeaderChanged);
                    }
                    Err(error) => {
                        self.shared.write().index.roll_back();
                        self.pending = Some(Pending { row: row.clone(), replies });
                        return Err(error);
                    }
                }
                Ok(())
            }
            StoreError::NoSpace { .. } => {
                self.shared.write().index.roll_back();
                if self.shared.set_no_space(true) {
                    error!(%error, "writes are refused until space returns");
                }
                refuse(replies, RequestError::NoSpace);
                Ok(())
            }
            StoreError::Deposed { .. } | StoreError::NotLeader(_) => {
                self.shared.write().index.roll_back();
                refuse(replies, RequestError::LeaderChanged);
                Err(WriterError::Deposed(error))
            }
            StoreError::Damaged(_) => {
                self.shared.write().index.roll_back();
                refuse(replies, RequestError::LeaderChanged);
                self.found_damaged(error)
            }
            StoreError::Failed(_) | StoreError::Newer(_) => {
                self.shared.write().index.roll_back();
                error!(error = &error as &dyn std::error::Error, "a commit was refused");
                refuse(replies, RequestError::TimedOut);
                Ok(())
            }
        }
    }

    /// Reads the tail of the log through a new claim of the store, which no
    /// delayed write of the former claim can pass.
    async fn was_written(&mut self, row: &LogRow) -> Result<bool, WriterError> {
        let opened = self.store.open().await.map_err(WriterError::Recovery)?;
        self.shared.set_epoch(opened.epoch);
        let tail = self.store.read_log(self.sequence).await.map_err(WriterError::Recovery)?;
        match tail.as_slice() {
            [] => Ok(false),
            [found] if found == row => Ok(true),
            _ => Err(WriterError::Deposed(StoreError::Deposed { epoch: opened.epoch })),
        }
    }

    /// One small step of freeing or rearranging; whether there may be more.
    async fn tidy(&mut self) -> Result<bool, WriterError> {
        if !self.sweeping || self.shared.feed.is_being_read() {
            return Ok(false);
        }
        let (touched, more) = self.shared.write().index.sweep(SWEEP_REVISIONS_MAX);
        self.compactor.mark_dirty(&touched);
        if more {
            return Ok(true);
        }
        let step = self.compactor.next_step(&self.shared.read().index);
        let Some(step) = step else {
            self.sweeping = false;
            return Ok(false);
        };
        match self.take_step(&step).await {
            Ok(more) => {
                self.compactor.done(&step, more);
                Ok(true)
            }
            Err(error @ (StoreError::Deposed { .. } | StoreError::NotLeader(_))) => {
                Err(WriterError::Deposed(error))
            }
            Err(error @ StoreError::Damaged(_)) => {
                self.sweeping = false;
                self.found_damaged(error).map(|()| false)
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "compaction waits");
                self.sweeping = false;
                Ok(false)
            }
        }
    }

    /// With other members this one gives way and begins anew. A sole one goes
    /// on: what it has in memory is the only whole copy, and can be backed up.
    fn found_damaged(&self, error: StoreError) -> Result<(), WriterError> {
        if self.shared.has_others() {
            return Err(WriterError::Damaged(error));
        }
        if self.shared.integrity() == Integrity::Sound {
            let error = &error as &dyn std::error::Error;
            error!(error, "the database is damaged, memory is not: take a backup while this runs");
            self.shared.set_integrity(Integrity::Doubtful);
        }
        Ok(())
    }

    /// Whether the same step is to follow.
    async fn take_step(&mut self, step: &Step) -> Result<bool, StoreError> {
        let fold = match step {
            Step::Write(fold) => fold.clone(),
            Step::Advance { sequence, revision } => {
                let data = self.shared.read().base_data();
                Fold::Advance(Base { sequence: *sequence, revision: *revision, data })
            }
            Step::Trim { rows_max } => Fold::Trim { rows_max: *rows_max },
        };
        let more = self.store.fold(&fold).await?;
        self.shared.feed.push_fold(&fold);
        Ok(more)
    }

    async fn note_size(&mut self) {
        match self.store.size().await {
            Ok(size) => self.shared.set_size(size),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "size is unknown"),
        }
    }
}

/// What a writer that compacts by itself compacts to now, in the same commit.
fn outgrown(limits: &Limits, index: &Index, is_full: bool) -> Option<Revision> {
    let kept = limits.revisions_kept?;
    let (newest, compacted) = (index.committed(), index.compacted());
    if is_full {
        return (newest > compacted).then_some(newest);
    }
    (newest.0 - compacted.0 >= 2 * kept).then_some(Revision(newest.0 - kept))
}

pub(crate) fn answer(replies: Vec<Reply>) {
    for (reply, result) in replies {
        // Whoever asked may have gone; the change stands all the same.
        let _ = reply.send(result);
    }
}

/// Refuses everyone: what a group's wishes saw of each other is void.
pub(crate) fn refuse(replies: Vec<Reply>, error: RequestError) {
    for (reply, _) in replies {
        let _ = reply.send(Err(error));
    }
}

impl Change {
    /// A rough idea of what the change stages.
    pub fn staged_bytes(&self) -> usize {
        use prost::Message;
        match self {
            Change::Put(put) => put.value.len() + put.key.len(),
            Change::Txn(txn) => txn.encoded_len(),
            _ => 64,
        }
    }
}
