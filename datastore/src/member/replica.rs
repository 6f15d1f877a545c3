//! Leads or follows, whichever it is this member's turn to do.
//!
//! ```text
//!             ┌── another leads ──> follow: rows into the index
//!   seeks ────┤                                │ stream or leader gone
//!     ^       └── this one ──> take over: claim, read the tail, lead
//!     └────────────────────────────────────────┘
//! ```
//!
//! Each database has one; both look at the same leader. One task owns all
//! this, so there is never a writer beside a stream. What it keeps from one turn to the next is a copy: the state that readers see,
//! the place of its newest row, and books for the compactor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::MemberId;
use tokio::sync::{mpsc, watch};
use tonic::Code;
use tracing::{Instrument, debug, error, info, warn};

use super::VERSION;
use super::books::Books;
use super::channel::Channels;
use super::follow::{Incoming, load_from};
use super::remote::Remote;
use super::roster::Roster;
use super::run::Seat;
use crate::clock;
use crate::engine::expire_leases;
use crate::identity::Identity;
use crate::index::pack::keep_packed;
use crate::pending::{Ended, Pending};
use crate::proto::peer::follow_response::Part;
use crate::proto::peer::{Begin, FollowRequest};
use crate::record::Revision;
use crate::route::Course;
use crate::shared::{Damage, Integrity, Shared};
use crate::state::{Layout, State, load, row_entries};
use crate::store::node::SqlNode;
use crate::store::sql::SqlStore;
use crate::store::{LogRow, Opened, Sequence, Store, StoreError};
use crate::writer::{QUEUE_MAX, Writer, WriterError};

/// Pause before a leader is asked again, or leadership is taken again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Pause before a leader that does not serve a database is asked again.
const NOT_SERVED_PAUSE: Duration = Duration::from_secs(10);
/// Who waits for an undecided row is told so after this long.
const PENDING_TIMEOUT: Duration = Duration::from_secs(10);
/// Revisions freed between two rows.
const SWEEP_REVISIONS_MAX: usize = 512;

/// See the module's words.
pub struct Replica {
    pub seat: Seat,
    pub node: Arc<dyn SqlNode>,
    pub roster: Arc<Roster>,
    pub channels: Arc<Channels>,
    /// Who leads, as raft says.
    pub leader: watch::Receiver<Option<MemberId>>,
    /// Becomes true when this node is to end.
    pub yielding: watch::Receiver<bool>,
}

/// What is kept from one turn to the next.
#[derive(Default)]
pub struct Copy {
    /// Missing until the first load, and when rows of the leader did not fit.
    sequence: Option<Sequence>,
    books: Books,
    /// Whether revisions wait to be freed.
    sweeping: bool,
    pending: Option<(Pending, Instant)>,
    /// Who led last.
    leader: Option<MemberId>,
}

impl Copy {
    /// What the end of leadership left undecided.
    pub fn take_pending(&mut self) -> Option<(Pending, Instant)> {
        self.pending.take()
    }
}

impl Replica {
    /// Leads and follows until told to stop; then leaves its seat.
    pub async fn run(mut self) -> Seat {
        let packing = tokio::spawn(keep_packed(self.shared().clone()).in_current_span());
        while !*self.yielding.borrow() {
            let leader = *self.leader.borrow_and_update();
            leader.into_iter().for_each(|leader| self.note_leader(leader));
            let turn = match leader {
                Some(id) if id == self.roster.own() => self.lead().await,
                Some(id) => self.follow(id).await,
                None => self.seek().await,
            };
            self.seat.course.send_replace(Course::Seeks);
            self.expire_pending();
            if let Err(error) = turn {
                self.note_damage(leader, &error);
                debug!(error = &error as &dyn std::error::Error, "a turn ended");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        packing.abort();
        self.shared().feed.close();
        self.seat
    }

    fn shared(&self) -> &Arc<Shared> {
        self.seat.engine.shared()
    }

    /// What this member can't read as leader is damaged here.
    fn note_damage(&self, leader: Option<MemberId>, error: &StoreError) {
        if matches!(error, StoreError::Damaged(_)) && leader == Some(self.roster.own()) {
            error!(error = error as &dyn std::error::Error, "this member's database is damaged");
            self.shared().set_integrity(Integrity::Damaged(Damage::Database));
        }
    }

    /// Counts leaders after the first.
    fn note_leader(&mut self, leader: MemberId) {
        let former = self.seat.copy.leader.replace(leader);
        if former.is_some_and(|former| former != leader) {
            self.shared().metrics.leader_changes.inc();
        }
    }

    async fn seek(&mut self) -> Result<(), StoreError> {
        tokio::select! {
            _ = self.leader.changed() => {}
            _ = self.yielding.changed() => {}
            () = tokio::time::sleep(PENDING_TIMEOUT), if self.seat.copy.pending.is_some() => {}
        }
        Ok(())
    }

    async fn lead(&mut self) -> Result<(), StoreError> {
        let began = clock::now();
        let own = self.roster.own();
        let mut store = SqlStore::on(self.node.clone(), self.seat.database);
        let opened = store.open().await?;
        self.set_identity(opened.cluster_id, opened.epoch);
        if self.catch_up(&mut store).await.is_err() {
            self.load(&mut store, &opened).await?;
        }
        // What the log does not hold now it never will: it was claimed.
        if let Some((pending, _)) = self.seat.copy.pending.take() {
            pending.refuse();
            self.shared().set_undecided(false);
        }
        let (rows, chunks) = store.read_layout(&opened.base).await?;
        let touched = self.seat.copy.books.touched(&chunks);
        let layout = Layout { base: opened.base, rows, chunks, touched };
        let shared = self.shared().clone();
        shared.write().leases.renew_all((shared.clock)());
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let writer = Writer::new(store, shared.clone(), commands, layout);
        shared.feed.open(Sequence(shared.sequence()));
        let mut writing = tokio::spawn(writer.lead().in_current_span());
        self.seat.course.send_replace(Course::Leads(queue));
        self.seat.ready.send_replace(true);
        let expiry = tokio::spawn(expire_leases(self.seat.engine.clone()).in_current_span());
        let revision = self.seat.engine.revision().0;
        let after_ms = (clock::now() - began).as_millis() as u64;
        info!(epoch = opened.epoch, revision, after_ms, "this member leads");
        let ended = tokio::select! {
            ended = &mut writing => ended,
            () = self.is_over(own) => {
                // Without its queue the writer ends when it has done what is in it.
                self.seat.course.send_replace(Course::Seeks);
                writing.await
            }
        };
        expiry.abort();
        let ended = ended.expect("the writer does not panic and is not aborted");
        self.take_back(ended);
        Ok(())
    }

    /// Keeps what the writer leaves behind.
    fn take_back(&mut self, ended: Ended) {
        self.shared().feed.close();
        self.shared().set_sole_voter(false);
        let Ended { result, pending, compactor, sequence } = ended;
        self.seat.copy.sequence = Some(sequence);
        let (chunks, dirty) = compactor.into_dirty();
        self.seat.copy.books = Books::new(chunks, &dirty);
        self.seat.copy.sweeping = true;
        self.shared().set_undecided(pending.is_some());
        self.seat.copy.pending = pending.map(|pending| (pending, clock::now()));
        match result {
            Ok(()) => info!("this member leads no more"),
            Err(WriterError::Damaged(error)) => self.note_damage(Some(self.roster.own()), &error),
            Err(error) => info!(error = &error as &dyn std::error::Error, "leadership is lost"),
        }
    }

    /// Reads what was written since the newest row that is known.
    async fn catch_up(&mut self, store: &mut SqlStore) -> Result<(), StoreError> {
        let missing = || StoreError::Failed("nothing was loaded yet".into());
        let mut after = self.seat.copy.sequence.ok_or_else(missing)?;
        loop {
            let rows = store.read_log(after).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.sequence;
            for row in rows {
                self.apply(row)?;
            }
        }
    }

    /// Reads everything.
    async fn load(&mut self, store: &mut SqlStore, opened: &Opened) -> Result<(), StoreError> {
        let (state, layout) = load(store, opened, (self.shared().clock)()).await?;
        self.replace(state, &layout)
    }

    /// Puts a state that was read anew in the place of the one that readers
    /// see. Watchers look through what is new to them.
    fn replace(&mut self, mut state: State, layout: &Layout) -> Result<(), StoreError> {
        let revision = state.index.committed();
        let former = self.seat.engine.revision();
        if revision < former {
            return Err(StoreError::Damaged(format!(
                "the leader's store ends at revision {revision}, this member has seen {former}"
            )));
        }
        let last = layout.rows.last().map_or(layout.base.sequence, |row| row.sequence);
        state.mark(last);
        let shared = self.shared().clone();
        {
            let mut current = shared.write();
            *current = state;
            shared.hub().resume(revision);
        }
        shared.note_applied(revision);
        shared.set_sequence(last.0);
        if shared.heal() {
            shared.metrics.renewals.inc();
            info!(revision = revision.0, "this member is sound again");
        }
        let chunks = layout.chunks.iter().map(|chunk| chunk.first_key.clone());
        self.seat.copy.books = Books::new(chunks, &layout.touched);
        self.seat.copy.sequence = Some(last);
        self.seat.copy.sweeping = true;
        if let Some((pending, _)) = self.seat.copy.pending.take() {
            // Its row may be among those that were merged or folded.
            if pending.row.sequence <= last {
                pending.give_up()
            } else {
                pending.refuse()
            }
            self.shared().set_undecided(false);
        }
        Ok(())
    }

    async fn follow(&mut self, leader: MemberId) -> Result<(), StoreError> {
        let mut client = self.channels.to_database(leader, self.seat.database);
        let request = FollowRequest {
            version: VERSION,
            cluster_id: self.roster.cluster_id().unwrap_or(0),
            from: self.roster.own().0,
            after: self.seat.copy.sequence.map(|sequence| sequence.0),
        };
        let mut incoming = tokio::select! {
            opened = client.follow(request) => match opened {
                Ok(opened) => opened.into_inner(),
                Err(status) if status.code() == Code::Unimplemented => {
                    return self.wait_for_another(leader).await;
                }
                Err(status) => return Err(StoreError::Failed(Box::new(status))),
            },
            () = self.is_over(leader) => return Ok(()),
        };
        let begin = tokio::select! {
            part = next_part(&mut incoming) => match part? {
                Part::Begin(begin) => begin,
                _ => return Err(StoreError::Failed("the leader does not begin".into())),
            },
            () = self.is_over(leader) => return Ok(()),
        };
        if begin.epoch < self.seat.engine.identity().epoch {
            // It leads again and has not noticed that it did not in between.
            return Err(StoreError::Deposed { epoch: begin.epoch });
        }
        if begin.everything {
            let now = (self.shared().clock)();
            let (state, layout, rest) = tokio::select! {
                loaded = load_from(incoming, &begin, now) => loaded?,
                () = self.is_over(leader) => return Ok(()),
            };
            incoming = rest;
            self.replace(state, &layout)?;
        }
        self.settle_in(leader, client, &begin);
        self.take_parts(leader, &mut incoming).await
    }

    /// The leader does not serve this database: it is older, or was told not to.
    async fn wait_for_another(&self, leader: MemberId) -> Result<(), StoreError> {
        warn!(leader = leader.0, "the leader does not serve this database: nobody can write to it");
        tokio::select! {
            () = tokio::time::sleep(NOT_SERVED_PAUSE) => {}
            () = self.is_over(leader) => {}
        }
        Ok(())
    }

    fn settle_in(&mut self, leader: MemberId, client: super::channel::Client, begin: &Begin) {
        self.set_identity(begin.cluster_id, begin.epoch);
        // Whether there is space is the leader's to say.
        self.shared().set_no_space(false);
        let own = self.roster.own();
        self.seat.course.send_replace(Course::Follows(Arc::new(Remote { own, client })));
        self.seat.ready.send_replace(true);
        let revision = self.seat.engine.revision().0;
        let everything = begin.everything;
        info!(leader = leader.0, epoch = begin.epoch, revision, everything, "this member follows");
    }

    async fn take_parts(
        &mut self,
        leader: MemberId,
        incoming: &mut Incoming,
    ) -> Result<(), StoreError> {
        loop {
            let part = tokio::select! {
                biased;
                () = self.is_over(leader) => return Ok(()),
                part = next_part(incoming) => part,
                () = tokio::task::yield_now(), if self.seat.copy.sweeping => {
                    self.sweep();
                    continue;
                }
            };
            match part {
                Ok(Part::Row(row)) => {
                    if let Err(error) = self.apply(row.into()) {
                        // Everything has to be told again.
                        self.seat.copy.sequence = None;
                        return Err(error);
                    }
                }
                Ok(Part::Folded(folded)) => self.seat.copy.books.note(folded.put, &folded.remove),
                Ok(_) => return Err(StoreError::Failed("the leader is in disorder".into())),
                Err(error) => {
                    if is_out_of_range(&error) {
                        self.seat.copy.sequence = None;
                    }
                    return Err(error);
                }
            }
            self.expire_pending();
        }
    }

    /// Returns when `leader` leads no more, or is to be followed no more.
    async fn is_over(&self, leader: MemberId) {
        let (mut leaders, mut yielding) = (self.leader.clone(), self.yielding.clone());
        tokio::select! {
            _ = leaders.wait_for(|now| *now != Some(leader)) => {}
            _ = yielding.wait_for(|yielding| *yielding) => {}
        }
    }

    /// Takes in one row that is committed.
    fn apply(&mut self, row: LogRow) -> Result<(), StoreError> {
        if self.seat.copy.sequence.is_some_and(|known| row.sequence <= known) {
            return Err(StoreError::Failed(format!("row {} again", row.sequence.0).into()));
        }
        let entries = row_entries(&row)?;
        let shared = self.shared().clone();
        let now = (shared.clock)();
        {
            let mut state = shared.write();
            state.replay_entries(&row, entries, now)?;
            state.mark(row.sequence);
            let mut changes = Vec::new();
            for revision in row.first.0..=row.last.0 {
                let of_revision = state.index.changes(Revision(revision));
                changes.extend(of_revision.into_iter().flatten());
            }
            if row.first <= row.last {
                shared.metrics.changed(changes.iter().map(|record| &**record));
                shared.hub().publish(&changes, row.last);
            }
            shared.note_packing(&state.index);
        }
        shared.set_sequence(row.sequence.0);
        shared.note_applied(row.last);
        self.seat.copy.sequence = Some(row.sequence);
        self.seat.copy.sweeping = true;
        self.decide_pending(&row);
        Ok(())
    }

    fn decide_pending(&mut self, row: &LogRow) {
        let is_due = |(pending, _): &mut (Pending, Instant)| pending.row.sequence <= row.sequence;
        let Some((pending, _)) = self.seat.copy.pending.take_if(is_due) else { return };
        if pending.row == *row {
            pending.succeed();
        } else if pending.row.sequence == row.sequence && pending.row.first == row.first {
            pending.refuse();
        } else {
            pending.give_up();
        }
        self.shared().set_undecided(false);
    }

    fn expire_pending(&mut self) {
        let is_old = |(_, since): &mut (Pending, Instant)| clock::now() - *since >= PENDING_TIMEOUT;
        if let Some((pending, _)) = self.seat.copy.pending.take_if(is_old) {
            warn!(sequence = pending.row.sequence.0, "nobody knows what became of a commit");
            pending.give_up();
            self.shared().set_undecided(false);
        }
    }

    fn sweep(&mut self) {
        let (touched, more) = self.shared().write().index.sweep(SWEEP_REVISIONS_MAX);
        self.seat.copy.books.mark_dirty(&touched);
        self.seat.copy.sweeping = more;
    }

    fn set_identity(&self, cluster_id: u64, epoch: u64) {
        let member_id = self.roster.own().0;
        self.shared().set_identity(Identity { cluster_id, member_id, epoch });
    }
}

async fn next_part(incoming: &mut Incoming) -> Result<Part, StoreError> {
    match incoming.message().await {
        Ok(Some(response)) => response
            .part
            .ok_or_else(|| StoreError::Failed("the leader tells something unknown".into())),
        Ok(None) => Err(StoreError::Failed("the leader stopped telling".into())),
        Err(status) => Err(StoreError::Failed(Box::new(status))),
    }
}

fn is_out_of_range(error: &StoreError) -> bool {
    let StoreError::Failed(source) = error else { return false };
    source
        .downcast_ref::<tonic::Status>()
        .is_some_and(|status| status.code() == tonic::Code::OutOfRange)
}
