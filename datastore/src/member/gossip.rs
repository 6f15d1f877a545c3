//! Members tell each other how they are, and which peers they know.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dqlite::{MemberId, Role};
use tracing::{info, warn};

use super::VERSION;
use super::channel::Channels;
use super::nodes::Nodes;
use super::refusals::{Refusals, is_foreign};
use super::roster::Roster;
use crate::clock;
use crate::database::{Database, Databases};
use crate::engine::Engine;
use crate::fingerprint::Mark;
use crate::proto::peer::{self, GossipMessage};
use crate::store::Sequence;

/// How often each member is told.
pub const PERIOD: Duration = Duration::from_millis(500);
/// How often members that are not reachable are looked for elsewhere.
const SEEK_PERIOD: Duration = Duration::from_secs(2);
/// A member that did not answer for so long is not reachable.
pub const REACHABLE_FOR: Duration = Duration::from_millis(2000);
/// Round trips that are kept of each member. The least of them counts: no lost
/// packet does, and no busy moment.
const SAMPLES_MAX: usize = 9;
/// Marks that are kept of each member: it may be ahead when it tells.
const MARKS_MAX: usize = 8;
/// Fewer say nothing.
const SAMPLES_MIN: usize = 3;

/// What is known of another member.
#[derive(Clone, Debug)]
pub struct Health {
    pub heard: Instant,
    /// Since when it has answered without a break.
    pub since: Instant,
    /// What it says of its own round trips.
    reported: Option<Duration>,
    /// How much longer than in a good network it is waited for.
    patience: Duration,
    /// Its setting of libdqlite's timeouts.
    pub latency: Option<Duration>,
    /// How far it is with each database that it serves.
    pub standing: Databases<Standing>,
    pub size_bytes: u64,
    /// Free where its data is; 0 while unknown.
    pub free_bytes: u64,
    /// The epoch in which it leads; 0 when it does not.
    pub leads_epoch: u64,
    /// Members that don't vote, when it leads.
    voteless: Voteless,
}

/// How far a member is with one database.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub revision: i64,
    pub sequence: i64,
    /// What it said last that it holds, the newest at the end.
    marks: VecDeque<Mark>,
}

impl Standing {
    /// As a member says now, with what it said before.
    fn told(now: peer::Standing, former: Option<&Standing>) -> Standing {
        let mut marks = former.map(|former| former.marks.clone()).unwrap_or_default();
        match now.mark {
            // It can't be believed at the moment.
            None => marks.clear(),
            Some(mark) => {
                let mark = Mark { sequence: Sequence(mark.sequence), sum: mark.sum };
                if marks.back() != Some(&mark) {
                    marks.push_back(mark);
                }
                if marks.len() > MARKS_MAX {
                    marks.pop_front();
                }
            }
        }
        Standing { revision: now.revision, sequence: now.sequence, marks }
    }
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
        now.saturating_duration_since(self.heard) < REACHABLE_FOR + self.patience
    }
}

/// What is known of the other members.
#[derive(Default)]
pub struct HealthTable {
    others: Mutex<HashMap<MemberId, Health>>,
    /// The last round trips to each.
    round_trips: Mutex<HashMap<MemberId, VecDeque<Duration>>>,
    /// Members that don't vote, as this member knows when it leads.
    voteless: Mutex<Voteless>,
    /// Who refuses this member as one of another cluster.
    refusals: Mutex<Refusals>,
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

    /// Who refuses this member as one of another cluster, for some seconds
    /// while nobody else answers.
    pub fn last_word(&self, now: Instant) -> Option<MemberId> {
        self.refusals().last_word(now)
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What each member that is reachable said that it holds of a database, the
    /// newest at the end.
    pub fn marks(&self, database: Database, now: Instant) -> Vec<Vec<Mark>> {
        let all = self.others();
        let reachable = all.values().filter(|one| one.is_reachable(now));
        let standing = reachable.filter_map(|one| one.standing.get(database));
        standing.map(|standing| standing.marks.iter().copied().collect()).collect()
    }

    /// The largest round trip from this member to one that is reachable.
    pub fn own_round_trip(&self, now: Instant) -> Option<Duration> {
        let all = self.others();
        let reachable = all.iter().filter(|(_, one)| one.is_reachable(now));
        reachable.filter_map(|(id, _)| self.round_trip(*id)).max()
    }

    /// The least of the last round trips to a member.
    pub fn round_trip(&self, id: MemberId) -> Option<Duration> {
        let all = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = all.get(&id)?;
        samples.iter().copied().min().filter(|_| samples.len() >= SAMPLES_MIN)
    }

    /// Notes what a round trip took.
    pub fn note_round_trip(&self, id: MemberId, took: Duration) {
        let mut all = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = all.entry(id).or_default();
        samples.push_back(took);
        if samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
    }

    /// How many other members are reachable.
    pub fn reachable(&self, now: Instant) -> usize {
        self.others().values().filter(|one| one.is_reachable(now)).count()
    }

    /// The largest round trip between any two members that are reachable.
    pub fn round_trip_max(&self, now: Instant) -> Option<Duration> {
        let all = self.others();
        let reachable = all.iter().filter(|(_, one)| one.is_reachable(now));
        reachable.filter_map(|(id, one)| self.round_trip(*id).max(one.reported)).max()
    }

    fn note(
        &self,
        id: MemberId,
        message: &GossipMessage,
        patience: Duration,
        now: Instant,
    ) -> bool {
        self.refusals().clear();
        let mut all = self.others();
        let former = all.get(&id);
        let former = former.filter(|former| former.is_reachable(now));
        let before = |database| former.and_then(|former| former.standing.get(database));
        let GossipMessage { revision, sequence, mark, .. } = *message;
        let kube = peer::Standing { revision, sequence, mark };
        let told = |now| Standing::told(now, before(Database::Cluster));
        let standing = Databases {
            kube: Standing::told(kube, before(Database::Kube)),
            cluster: message.cluster.map(told),
        };
        let health = Health {
            heard: now,
            since: former.map_or(now, |former| former.since),
            reported: known(message.round_trip_us),
            patience,
            latency: known(message.latency_us),
            standing,
            size_bytes: message.size_bytes,
            free_bytes: message.free_bytes,
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

fn known(us: u64) -> Option<Duration> {
    (us > 0).then(|| Duration::from_micros(us))
}

/// What this member says of itself.
pub fn message(
    engines: &Databases<Engine>,
    roster: &Roster,
    health: &HealthTable,
) -> GossipMessage {
    let shared = engines.kube.shared();
    let leads = engines.kube.leads();
    let Databases { kube, cluster } = engines.as_ref().map(standing_of);
    let Voteless { spares, standbys } =
        if leads { health.voteless().clone() } else { Voteless::default() };
    GossipMessage {
        version: VERSION,
        cluster_id: roster.cluster_id().unwrap_or(0),
        from: roster.own().0,
        peers: roster.entries(),
        revision: kube.revision,
        sequence: kube.sequence,
        size_bytes: shared.size().total_bytes,
        free_bytes: shared.free_bytes(),
        mark: kube.mark,
        cluster,
        leads_epoch: if leads { engines.kube.identity().epoch } else { 0 },
        spares,
        standbys,
        round_trip_us: health
            .own_round_trip(clock::now())
            .map_or(0, |round_trip| round_trip.as_micros() as u64),
        latency_us: roster.latency().as_micros() as u64,
    }
}

fn standing_of(engine: &Engine) -> peer::Standing {
    let shared = engine.shared();
    let newest = shared.read().marks.newest().filter(|_| shared.is_sound());
    let mark = newest.map(|mark| peer::Mark { sequence: mark.sequence.0, sum: mark.sum });
    peer::Standing { revision: engine.revision().0, sequence: shared.sequence(), mark }
}

/// What the gossip of one member needs.
#[derive(Clone)]
pub struct Gossip {
    pub engines: Databases<Engine>,
    pub roster: Arc<Roster>,
    pub channels: Arc<Channels>,
    pub health: Arc<HealthTable>,
    /// Where members may be that are not where they were.
    pub nodes: Nodes,
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

    /// Looks for members that are not reachable, for ever, where others said that some may be. Who
    /// answers there shows a member's certificate and says who it is; after both tables are merged
    /// each of the two knows where the other one is, and whom that has found before.
    pub async fn seek(self) {
        loop {
            self.nodes.until_ways().await;
            tokio::time::sleep(SEEK_PERIOD).await;
            let now = clock::now();
            let is_there = |id: MemberId| {
                id == self.roster.own()
                    || self.health.get(id).is_some_and(|one| one.is_reachable(now))
            };
            let (met, missing): (Vec<_>, Vec<_>) =
                self.roster.living().into_iter().partition(|(id, _)| is_there(*id));
            if missing.is_empty() {
                continue;
            }
            // Whoever is there is told by the way that leads there already.
            let mut ways = self.nodes.ways();
            ways.retain(|way| !met.iter().any(|(_, peer)| peer.address == *way));
            futures::future::join_all(ways.iter().map(|way| self.tell_at(way))).await;
        }
    }

    /// Tells whoever is at an address.
    async fn tell_at(&self, address: &str) {
        let own = message(&self.engines, &self.roster, &self.health);
        let mut client = self.channels.to_address(address);
        let timeout = REACHABLE_FOR + self.roster.patience();
        let told = tokio::time::timeout(timeout, client.gossip(own)).await;
        let Some(answer) = told.ok().and_then(Result::ok).map(tonic::Response::into_inner) else {
            return;
        };
        if answer.from == self.roster.own().0 || Some(answer.cluster_id) != self.roster.cluster_id()
        {
            return;
        }
        if let Err(error) = self.roster.merge(answer.peers) {
            warn!(error = &error as &dyn std::error::Error, "the table of peers is not kept");
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
        let own = message(&self.engines, &self.roster, &self.health);
        let mut client = self.channels.to(id);
        let patience = self.roster.patience();
        let told = tokio::time::timeout(REACHABLE_FOR + patience, client.gossip(own)).await;
        if let Ok(Err(status)) = &told
            && is_foreign(status)
        {
            self.health.refusals().note(id, clock::now());
        }
        let answer = told.ok().and_then(Result::ok).map(tonic::Response::into_inner);
        // Another member may have its address by now.
        let Some(answer) = answer.filter(|answer| answer.from == id.0) else {
            return self.health.get(id).is_some_and(|one| one.is_reachable(clock::now()));
        };
        if self.health.note(id, &answer, patience, clock::now()) {
            info!(member = id.0, "a member is reachable");
        }
        self.engines.iter().for_each(|engine| engine.set_patience(patience));
        if let Err(error) = self.roster.merge(answer.peers) {
            warn!(error = &error as &dyn std::error::Error, "the table of peers is not kept");
        }
        true
    }
}
