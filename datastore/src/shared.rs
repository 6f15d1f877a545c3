//! What the writer and the servers of requests share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::compactor::LayoutLimits;
use crate::feed::Feed;
use crate::identity::Identity;
use crate::index::Index;
use crate::index::pack::PackLimits;
use crate::member::operator::Operator;
use crate::metrics::Metrics;
use crate::record::Revision;
use crate::state::State;
use crate::store::Size;
use crate::watch_hub::WatchHub;

/// Whether what this member holds can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    Sound,
    /// Others hold something else, and nobody knows who is right.
    Doubtful,
    /// It is damaged: nothing is answered from it.
    Damaged(Damage),
    /// It was given up, and is being copied from the others.
    Renewed,
}

/// How damage showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// dqlite can't start from its files.
    Files,
    /// What the database holds makes no sense.
    Database,
    /// Most other members hold something else.
    Differs,
}

/// Bounds that the operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request larger than this is refused.
    pub request_bytes_max: usize,
    /// When the index holds more than this, writes are refused until an
    /// operator compacts and clears the alarm.
    pub quota_bytes: u64,
    /// Revisions that can still be read when the writer compacts by itself, as
    /// it does when there are twice as many, or no room. Without this it leaves
    /// that to clients.
    pub revisions_kept: Option<i64>,
    /// When the stored form is rearranged.
    pub layout: LayoutLimits,
    /// What is compressed in memory.
    pub packing: PackLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes_max: 1_572_864,
            quota_bytes: 2 << 30,
            revisions_kept: None,
            layout: LayoutLimits::default(),
            packing: PackLimits::default(),
        }
    }
}

/// Memory behind locks that are never held across an await. Lock order:
/// state, then hub.
pub struct Shared {
    pub limits: Limits,
    /// Tells the time; a test passes its own.
    pub clock: fn() -> Instant,
    identity: Mutex<Identity>,
    state: RwLock<State>,
    hub: Mutex<WatchHub>,
    /// Rung when a lease may end earlier than the one waited for.
    pub leases_changed: Notify,
    /// Rung when versions can be packed.
    pub packing_due: Notify,
    no_space: AtomicBool,
    /// Free where the data is; the largest number while that is unknown.
    free_bytes: AtomicU64,
    size_total: AtomicU64,
    size_used: AtomicU64,
    sequence: AtomicI64,
    /// What followers are told; closed with one member.
    pub feed: Feed,
    /// Whether nobody else's vote is needed, so that the index is always the truth.
    sole_voter: AtomicBool,
    /// Who knows of the other members, if there can be any.
    operator: Mutex<Option<Operator>>,
    is_among_others: AtomicBool,
    /// What is counted for Prometheus.
    pub metrics: Metrics,
    /// Wakes who waits for a revision that this member has yet to hear of.
    applied: watch::Sender<Revision>,
    /// Whether the outcome of the last commit as leader is not known yet.
    undecided: watch::Sender<bool>,
    integrity: watch::Sender<Integrity>,
}

impl Shared {
    /// Shares `state`, which was just loaded.
    pub fn new(state: State, identity: Identity, limits: Limits, clock: fn() -> Instant) -> Shared {
        let hub = WatchHub::new(state.index.committed());
        let (applied, _) = watch::channel(state.index.committed());
        Shared {
            limits,
            clock,
            identity: Mutex::new(identity),
            state: RwLock::new(state),
            hub: Mutex::new(hub),
            leases_changed: Notify::new(),
            packing_due: Notify::new(),
            no_space: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
            size_total: AtomicU64::new(0),
            size_used: AtomicU64::new(0),
            sequence: AtomicI64::new(0),
            feed: Feed::default(),
            sole_voter: AtomicBool::new(false),
            operator: Mutex::new(None),
            is_among_others: AtomicBool::new(false),
            metrics: Metrics::default(),
            applied,
            undecided: watch::channel(false).0,
            integrity: watch::channel(Integrity::Sound).0,
        }
    }

    /// Whether what this member holds can be believed.
    pub fn integrity(&self) -> Integrity {
        *self.integrity.borrow()
    }

    /// Whether requests are answered from what this member holds.
    pub fn is_sound(&self) -> bool {
        matches!(self.integrity(), Integrity::Sound | Integrity::Doubtful)
    }

    /// Whether the alarm CORRUPT is raised.
    pub fn is_corrupt(&self) -> bool {
        self.integrity() != Integrity::Sound
    }

    /// Notes whether what this member holds can be believed.
    pub fn set_integrity(&self, integrity: Integrity) {
        self.integrity.send_if_modified(|known| std::mem::replace(known, integrity) != integrity);
    }

    /// Notes that what was damaged is given up.
    pub fn begin_anew(&self) {
        self.set_integrity(Integrity::Renewed);
    }

    /// Notes that everything was copied; whether it had been given up before.
    pub fn heal(&self) -> bool {
        let was_renewed = |known: &mut Integrity| {
            let renewed = *known == Integrity::Renewed;
            if renewed {
                *known = Integrity::Sound;
            }
            renewed
        };
        self.integrity.send_if_modified(was_renewed)
    }

    /// Waits until nothing is answered from what this member holds.
    pub async fn unsound(&self) {
        let is_unsound =
            |known: &Integrity| matches!(known, Integrity::Damaged(_) | Integrity::Renewed);
        // The sender lives as long as this.
        let _ = self.integrity.subscribe().wait_for(is_unsound).await;
    }

    /// Waits until it is damaged; how that showed.
    pub async fn damaged(&self) -> Damage {
        let mut known = self.integrity.subscribe();
        loop {
            if let Integrity::Damaged(damage) = *known.borrow_and_update() {
                return damage;
            }
            // The sender lives as long as this.
            let _ = known.changed().await;
        }
    }

    /// To look at the state.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change the state; the writer's alone, but for the times of leases.
    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of watchers.
    pub fn hub(&self) -> MutexGuard<'_, WatchHub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who answers.
    pub fn identity(&self) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who answers from now on.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Notes a new claim of the store.
    pub fn set_epoch(&self, epoch: u64) {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).epoch = epoch;
    }

    /// Whether writes are refused for want of space.
    pub fn no_space(&self) -> bool {
        self.no_space.load(Ordering::Relaxed)
    }

    /// Raises or clears the alarm; whether that changed anything.
    pub fn set_no_space(&self, on: bool) -> bool {
        self.no_space.swap(on, Ordering::Relaxed) != on
    }

    /// What is free where the data is, in bytes, as last seen; the largest number
    /// while that is unknown.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// See above.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Space that the store takes, as last seen.
    pub fn size(&self) -> Size {
        Size {
            total_bytes: self.size_total.load(Ordering::Relaxed),
            used_bytes: self.size_used.load(Ordering::Relaxed),
        }
    }

    /// Notes how much space the store takes.
    pub fn set_size(&self, size: Size) {
        self.size_total.store(size.total_bytes, Ordering::Relaxed);
        self.size_used.store(size.used_bytes, Ordering::Relaxed);
    }

    /// The member that leads; nothing during an election.
    pub fn leader(&self) -> Option<u64> {
        match self.operator() {
            Some(operator) => operator.leader().map(|id| id.0),
            // One of several, whose node is starting, knows nobody.
            None if self.is_among_others() => None,
            None => Some(self.identity().member_id),
        }
    }

    /// Says that there can be other members.
    pub fn set_among_others(&self) {
        self.is_among_others.store(true, Ordering::Relaxed);
    }

    /// Whether there can be other members.
    pub fn is_among_others(&self) -> bool {
        self.is_among_others.load(Ordering::Relaxed)
    }

    /// Who knows of the other members, if there can be any.
    pub fn operator(&self) -> Option<Operator> {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says who knows of the other members while this node runs.
    pub fn set_operator(&self, operator: Option<Operator>) {
        *self.operator.lock().unwrap_or_else(PoisonError::into_inner) = operator;
    }

    /// Whether there are other members.
    pub fn has_others(&self) -> bool {
        self.operator().is_some_and(|operator| !operator.keeper.roster.others().is_empty())
    }

    /// Whether this member's own vote is the majority.
    pub fn is_sole_voter(&self) -> bool {
        self.sole_voter.load(Ordering::SeqCst)
    }

    /// Notes that; before a second voter comes and after it has gone.
    pub fn set_sole_voter(&self, sole: bool) {
        self.sole_voter.store(sole, Ordering::SeqCst);
    }

    /// Tells whether the outcome of the last commit as leader is unknown.
    pub fn set_undecided(&self, undecided: bool) {
        self.undecided.send_replace(undecided);
    }

    /// Waits until that outcome is known, or given up.
    pub async fn wait_decided(&self) {
        // The sender lives as long as this.
        let _ = self.undecided.subscribe().wait_for(|undecided| !*undecided).await;
    }

    /// Rings when a step's worth of versions can be packed.
    pub fn note_packing(&self, index: &Index) {
        if index.is_packing_due(&self.limits.packing) {
            self.packing_due.notify_one();
        }
    }

    /// Tells that a follower's index has come to `revision`.
    pub fn note_applied(&self, revision: Revision) {
        self.applied.send_replace(revision);
    }

    /// Waits until the index has come to `revision`.
    pub async fn wait_applied(&self, revision: Revision) {
        if self.read().index.committed() >= revision {
            return;
        }
        // The sender lives as long as this.
        let _ = self.applied.subscribe().wait_for(|applied| *applied >= revision).await;
    }

    /// The place of the newest row of the log.
    pub fn sequence(&self) -> i64 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// Notes the place of the newest row of the log.
    pub fn set_sequence(&self, sequence: i64) {
        self.sequence.store(sequence, Ordering::Relaxed);
    }
}
