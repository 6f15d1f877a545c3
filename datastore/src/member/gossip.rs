//! Members tell each other how they are, and which peers they know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dqlite::{MemberId, Role};
use tracing::{info, warn};

use super::VERSION;
use super::channel::Channels;
use super::roster::Roster;
use crate::engine::Engine;
use crate::proto::peer::GossipMessage;

/// How often each member is told.
pub const PERIOD: Duration = Duration::from_millis(500);
/// A member that did not answer for so long is not reachable.
pub const REACHABLE_FOR: Duration = Duration::from_millis(2000);
/// How much a new round trip counts against those before.
const SMOOTHING: u32 = 8;

/// What is known of another member.
#[derive(Clone, Debug)]
pub struct Health {
    pub heard: Instant,
    /// Since when it has answered without a break.
    pub since: Instant,
    pub round_trip: Duration,
    pub revision: i64,
    pub sequence: i64,
    pub size_bytes: u64,
    /// The epoch in which it leads; 0 when it does not.
    pub leads_epoch: u64,
    /// Members that don't vote, when it leads.
    voteless: Voteless,
}

/// Members that don't vote, as their leader says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voteless {
    /// Raft tells them nothing.
    pub spares: Vec<u64>,
    /// Raft gives them the log, and not always the leader's name.
    pub standbys: Vec<u64>,
}

/// Who says that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub leader: MemberId,
    /// What it says this member is.
    pub role: Role,
}

impl Health {
    /// Whether it answered lately.
    pub fn is_reachable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) < REACHABLE_FOR
    }
}

/// What is known of the other members.
#[derive(Default)]
pub struct HealthTable {
    others: Mutex<HashMap<MemberId, Health>>,
    /// Members that don't vote, as this member knows when it leads.
    voteless: Mutex<Voteless>,
}

impl HealthTable {
    /// What is known of one member.
    pub fn get(&self, id: MemberId) -> Option<Health> {
        self.others().get(&id).cloned()
    }

    /// Who says that it leads, in the newest epoch.
    pub fn claim(&self, own: MemberId, now: Instant) -> Option<Claim> {
        let all = self.others();
        let claims = all.iter().filter(|(_, one)| one.leads_epoch > 0 && one.is_reachable(now));
        let (leader, newest) = claims.max_by_key(|(_, one)| one.leads_epoch)?;
        let Voteless { spares, standbys } = &newest.voteless;
        let role = if spares.contains(&own.0) {
            Role::Spare
        } else if standbys.contains(&own.0) {
            Role::Standby
        } else {
            Role::Voter
        };
        Some(Claim { leader: *leader, role })
    }

    /// Notes which members don't vote.
    pub fn set_voteless(&self, voteless: Voteless) {
        *self.voteless() = voteless;
    }

    fn voteless(&self) -> MutexGuard<'_, Voteless> {
        self.voteless.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, HashMap<MemberId, Health>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest smoothed round trip to a member that is reachable.
    pub fn round_trip_max(&self, now: Instant) -> Option<Duration> {
        let all = self.others();
        all.values().filter(|one| one.is_reachable(now)).map(|one| one.round_trip).max()
    }

    fn note(&self, id: MemberId, message: &GossipMessage, took: Duration, now: Instant) -> bool {
        let mut all = self.others();
        let former = all.get(&id).filter(|former| former.is_reachable(now));
        let round_trip =
            former.map_or(took, |former| (former.round_trip * (SMOOTHING - 1) + took) / SMOOTHING);
        let health = Health {
            heard: now,
            since: former.map_or(now, |former| former.since),
            round_trip,
            revision: message.revision,
            sequence: message.sequence,
            size_bytes: message.size_bytes,
            leads_epoch: message.leads_epoch,
            voteless: Voteless {
                spares: message.spares.clone(),
                standbys: message.standbys.clone(),
            },
        };
        let is_news = former.is_none();
        all.insert(id, health);
        is_news
    }
}

/// What this member says of itself.
pub fn message(engine: &Engine, roster: &Roster, health: &HealthTable) -> GossipMessage {
    let shared = engine.shared();
    let leads = engine.leads();
    let Voteless { spares, standbys } =
        if leads { health.voteless().clone() } else { Voteless::default() };
    GossipMessage {
        version: VERSION,
        cluster_id: roster.cluster_id().unwrap_or(0),
        from: roster.own().0,
        peers: roster.entries(),
        revision: engine.revision().0,
        sequence: shared.sequence(),
        size_bytes: shared.size().total_bytes,
        leads_epoch: if leads { engine.identity().epoch } else { 0 },
        spares,
        standbys,
    }
}

/// What the gossip of one member needs.
#[derive(Clone)]
pub struct Gossip {
    pub engine: Engine,
    pub roster: Arc<Roster>,
    pub channels: Arc<Channels>,
    pub health: Arc<HealthTable>,
}

impl Gossip {
    /// Tells everybody, for ever. Each member has a task of its own, so that
    /// one which does not answer keeps no other waiting.
    pub async fn run(self) {
        let mut talking: HashMap<MemberId, tokio::task::JoinHandle<()>> = HashMap::new();
        let mut changed = self.roster.subscribe();
        loop {
            changed.borrow_and_update();
            talking.retain(|_, task| !task.is_finished());
            for (id, _) in self.roster.others() {
                let gossip = self.clone();
                talking.entry(id).or_insert_with(|| tokio::spawn(gossip.talk_to(id)));
            }
            // The table is as long-lived as this.
            let _ = changed.changed().await;
        }
    }

    async fn talk_to(self, id: MemberId) {
        let mut was_reachable = true;
        while self.roster.peer(id).is_some_and(|peer| !peer.removed) {
            let reachable = self.tell(id).await;
            if !reachable && was_reachable {
                warn!(member = id.0, "a member is not reachable");
            }
            was_reachable = reachable;
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Tells one member; whether it is reachable.
    async fn tell(&self, id: MemberId) -> bool {
        let own = message(&self.engine, &self.roster, &self.health);
        let mut client = self.channels.to(id);
        let began = Instant::now();
        let told = tokio::time::timeout(REACHABLE_FOR, client.gossip(own)).await;
        let answer = told.ok().and_then(Result::ok).map(tonic::Response::into_inner);
        // Another member may have its address by now.
        let Some(answer) = answer.filter(|answer| answer.from == id.0) else {
            return self.health.get(id).is_some_and(|one| one.is_reachable(Instant::now()));
        };
        if self.health.note(id, &answer, began.elapsed(), Instant::now()) {
            info!(member = id.0, "a member is reachable");
        }
        if let Err(error) = self.roster.merge(answer.peers) {
            warn!(error = &error as &dyn std::error::Error, "the table of peers is not kept");
        }
        true
    }
}
