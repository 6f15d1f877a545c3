//! The datastore without the network: what requests are made of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{Instrument, info};

use crate::admission::{Admission, Waiting};
use crate::check::{check_delete_range, check_put, check_range, check_txn};
use crate::command::{Change, Outcome};
use crate::error::RequestError;
use crate::identity::Identity;
use crate::index::pack::keep_packed;
use crate::lease::{LEASE_TTL_MIN_S, LeaseView};
use crate::proto::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse,
};
use crate::range::{Found, Search, answer_range};
use crate::record::{LeaseId, Revision};
use crate::route::{Heading, LEADER_TIMEOUT, Lost, Route};
use crate::shared::{Limits, Shared};
use crate::state::load;
use crate::store::{Store, StoreError};
use crate::trace;
use crate::txn::{answer_read_only, is_read_only, is_serializable};
use crate::writer::{QUEUE_MAX, Writer, WriterError};

/// Expired leases that are revoked in one go.
const EXPIRED_MAX: usize = 256;
/// Records sorted without leaving the thread: about a millisecond.
const SORT_RECORDS_MAX: usize = 4096;
/// Begins anew when a compaction overtakes a search.
const SEARCH_RESTARTS_MAX: u32 = 3;
/// When a revoke of an expired lease is tried again.
const EXPIRE_RETRY: Duration = Duration::from_secs(1);

/// A handle on the running datastore; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    route: Route,
    admission: Admission,
}

/// The tasks behind an [`Engine`].
pub struct Running {
    pub engine: Engine,
    /// Ends when every handle is gone, or when it may write no more.
    pub writer: JoinHandle<Result<(), WriterError>>,
    /// Revokes leases whose time is over, and packs history; to be aborted first.
    pub upkeep: JoinHandle<((), ())>,
}

impl Running {
    /// Ends orderly: what is queued is still written. The caller has dropped
    /// its own handles.
    pub async fn stop(self) -> Result<(), WriterError> {
        self.upkeep.abort();
        let _ = self.upkeep.await;
        drop(self.engine);
        self.writer.await.expect("the writer does not panic and is not aborted")
    }
}

impl Engine {
    /// Loads the store and starts the writer and the upkeep.
    pub async fn start<S: Store>(
        mut store: S,
        limits: Limits,
        clock: fn() -> Instant,
    ) -> Result<Running, StoreError> {
        let opened = store.open().await?;
        let (state, layout) = load(&mut store, &opened, clock()).await?;
        info!(
            revision = state.index.committed().0,
            keys = state.index.keys(),
            chunks = layout.chunks.len(),
            rows = layout.rows.len(),
            epoch = opened.epoch,
            "datastore is loaded"
        );
        let identity = Identity {
            cluster_id: opened.cluster_id,
            member_id: opened.member_id,
            epoch: opened.epoch,
        };
        let shared = Arc::new(Shared::new(state, identity, limits, clock));
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer::new(store, shared.clone(), receiver, layout);
        let engine = Engine {
            shared: shared.clone(),
            route: Route::alone(sender),
            admission: Admission::default(),
        };
        Ok(Running {
            engine: engine.clone(),
            writer: tokio::spawn(writer.run().in_current_span()),
            upkeep: tokio::spawn(
                join(expire_leases(engine), keep_packed(shared)).in_current_span(),
            ),
        })
    }

    /// A handle on what a replica keeps, which says on `route` who leads.
    pub fn among(shared: Arc<Shared>, route: Route) -> Engine {
        Engine { shared, route, admission: Admission::default() }
    }

    /// What the writer and this handle share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Who answers.
    pub fn identity(&self) -> Identity {
        self.shared.identity()
    }

    /// The newest revision that readers see.
    pub fn revision(&self) -> Revision {
        self.shared.read().index.committed()
    }

    /// Returns when what is read next holds everything that was answered
    /// before this was called. A serializable read does without.
    pub async fn settle(&self, serializable: bool) -> Result<(), RequestError> {
        if serializable || self.route.is_alone() {
            return Ok(());
        }
        if self.shared.is_sole_voter() && matches!(self.route.heading(), Heading::Here) {
            return Ok(());
        }
        trace::step("settle", async {
            let revision = self.route.barrier().await?;
            let applied = tokio::time::timeout(LEADER_TIMEOUT, self.shared.wait_applied(revision));
            applied.await.map_err(|_| RequestError::TimedOut)
        })
        .await
    }

    /// Reads keys, as far as this member knows: see [`Engine::settle`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, RequestError> {
        check_range(request)?;
        let state = self.shared.read();
        let found = answer_range(&state.index, request, state.index.committed())?;
        Ok(found.into_response(&self.identity()))
    }

    /// Reads keys, and lets others have their turn while it does.
    pub async fn search(&self, request: &RangeRequest) -> Result<Found, RequestError> {
        check_range(request)?;
        let mut restarts = 0;
        loop {
            match self.search_at_once(request).await {
                // What was being read was compacted meanwhile; the newest
                // revision can be read again.
                Err(RequestError::Compacted)
                    if request.revision <= 0 && restarts < SEARCH_RESTARTS_MAX =>
                {
                    restarts += 1;
                }
                result => return result,
            }
        }
    }

    async fn search_at_once(&self, request: &RangeRequest) -> Result<Found, RequestError> {
        let mut search = {
            let state = self.shared.read();
            Search::new(&state.index, request, state.index.committed())?
        };
        while search.step(&self.shared.read().index)? {
            tokio::task::yield_now().await;
        }
        if search.to_sort() <= SORT_RECORDS_MAX {
            return Ok(search.finish());
        }
        let sorted = tokio::task::spawn_blocking(|| search.finish()).await;
        Ok(sorted.expect("sorting does not panic"))
    }

    /// Writes one key.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, RequestError> {
        check_put(&request)?;
        let _waiting = self.admit(&request)?;
        match self.change(Change::Put(request)).await? {
            Outcome::Put(response) => Ok(response),
            _ => unreachable!("a put is answered as a put"),
        }
    }

    /// Deletes keys.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, RequestError> {
        check_delete_range(&request)?;
        let _waiting = self.admit(&request)?;
        match self.change(Change::DeleteRange(request)).await? {
            Outcome::DeleteRange(response) => Ok(response),
            _ => unreachable!("a deletion is answered as a deletion"),
        }
    }

    /// Compares, then reads and writes, all at one revision.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, RequestError> {
        check_txn(&request)?;
        if is_read_only(&request) {
            self.settle(is_serializable(&request)).await?;
            let state = self.shared.read();
            let newest = state.index.committed();
            return answer_read_only(&state.index, &request, newest, &self.identity());
        }
        let _waiting = self.admit(&request)?;
        match self.change(Change::Txn(request)).await? {
            Outcome::Txn(response) => Ok(response),
            _ => unreachable!("a transaction is answered as a transaction"),
        }
    }

    /// Lets revisions before `revision` be forgotten.
    pub async fn compact(&self, revision: Revision) -> Result<Revision, RequestError> {
        self.done(Change::Compact(revision)).await
    }

    /// Begins a lease; gives its real time to live and the revision.
    pub async fn grant(&self, lease: LeaseId, ttl_s: i64) -> Result<(i64, Revision), RequestError> {
        let ttl_s = ttl_s.max(LEASE_TTL_MIN_S);
        let revision = self.done(Change::Grant { lease, ttl_s }).await?;
        Ok((ttl_s, revision))
    }

    /// Ends a lease and deletes its keys.
    pub async fn revoke(&self, lease: LeaseId) -> Result<Revision, RequestError> {
        self.done(Change::Revoke { lease }).await
    }

    /// Gives a lease its full time again; its time to live, when it exists.
    pub async fn renew(&self, lease: LeaseId) -> Result<Option<i64>, RequestError> {
        if self.route.is_alone() {
            return Ok(self.renew_here(lease));
        }
        let ask = |heading| async move {
            match heading {
                Heading::There(leader) => leader.renew(lease).await,
                _ => Ok(self.renew_here(lease)),
            }
        };
        self.route.ask(Lost::Repeatable, ask).await
    }

    /// The same by this member's own books.
    pub fn renew_here(&self, lease: LeaseId) -> Option<i64> {
        let now = (self.shared.clock)();
        let left = self.shared.write().leases.renew(lease, now);
        if left.is_some() {
            self.shared.metrics.leases_renewed.inc();
        }
        left
    }

    /// The times of a lease, which the leader keeps.
    pub async fn lease(&self, lease: LeaseId) -> Result<Option<LeaseView>, RequestError> {
        if self.route.is_alone() {
            return Ok(self.lease_here(lease));
        }
        let ask = |heading| async move {
            match heading {
                Heading::There(leader) => leader.view(lease).await,
                _ => Ok(self.lease_here(lease)),
            }
        };
        self.route.ask(Lost::Repeatable, ask).await
    }

    /// The same by this member's own books.
    pub fn lease_here(&self, lease: LeaseId) -> Option<LeaseView> {
        let now = (self.shared.clock)();
        self.shared.read().leases.view(lease, now)
    }

    /// Waits so much longer for the leader than in a good network.
    pub fn set_patience(&self, patience: Duration) {
        self.route.set_patience(patience);
    }

    /// Returns when this member follows another one, and has told everybody
    /// what became of the last commit that it began as leader.
    pub async fn wait_until_following(&self) {
        self.route.wait_until_following().await;
        self.shared.wait_decided().await;
    }

    /// Whether there can be no other members.
    pub fn is_alone(&self) -> bool {
        self.route.is_alone()
    }

    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        matches!(self.route.heading(), Heading::Here)
    }

    /// Makes a change if this member leads.
    pub async fn change_here(&self, change: Change) -> Result<Outcome, RequestError> {
        trace::step("write", self.route.change_here(change)).await
    }

    async fn done(&self, change: Change) -> Result<Revision, RequestError> {
        match self.change(change).await? {
            Outcome::Done(revision) => Ok(revision),
            _ => unreachable!("leases and compactions are answered by a revision"),
        }
    }

    async fn change(&self, change: Change) -> Result<Outcome, RequestError> {
        if self.route.is_alone() {
            return self.change_here(change).await;
        }
        let ask = |heading| {
            let change = change.clone();
            async move {
                match heading {
                    Heading::There(leader) => trace::step("forward", leader.change(change)).await,
                    _ => self.change_here(change).await,
                }
            }
        };
        self.route.ask(Lost::Unknown, ask).await
    }

    /// Counts the bytes of a request until what is returned is dropped.
    fn admit(&self, request: &impl Message) -> Result<Waiting, RequestError> {
        let bytes = request.encoded_len();
        if bytes > self.shared.limits.request_bytes_max {
            return Err(RequestError::TooLarge);
        }
        self.admission.admit(bytes).ok_or(RequestError::TooManyRequests)
    }
}

/// Revokes leases whose time is over. Sleeps until the next one ends; a new
/// lease that ends earlier wakes it.
pub async fn expire_leases(engine: Engine) {
    loop {
        let now = (engine.shared.clock)();
        let expired = engine.shared.write().leases.expired(now, EXPIRED_MAX, EXPIRE_RETRY);
        if !expired.is_empty() {
            engine.shared.metrics.leases_expired.inc_by(expired.len() as u64);
            let expire = |lease| engine.change_here(Change::Expire { lease });
            let revokes = expired.into_iter().map(expire);
            // A failed revoke comes up again.
            futures::future::join_all(revokes).await;
            continue;
        }
        let next = engine.shared.read().leases.next_end();
        let changed = engine.shared.leases_changed.notified();
        match next {
            Some(end) => {
                let wait = end.saturating_duration_since(now);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
    }
}
