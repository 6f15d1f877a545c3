//! Keeps raft's configuration as the roles want it, while this member leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::{MemberId, MemberInfo, Role};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::channel::Channels;
use super::gossip::{HealthTable, Standing, Voteless, message};
use super::nodes::Nodes;
use super::peers::raft_address;
use super::roles::{Observed, RoleChange, choose_change, keeps_majority};
use super::roster::{Roster, RosterError};
use super::tuner::Tuner;
use crate::clock;
use crate::database::{Database, Databases};
use crate::engine::Engine;
use crate::proto::peer::PeerEntry;
use crate::store::disk::SPACE_NEEDED_BYTES;
use crate::store::node::SqlNode;

/// How often the members are looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// A member that has answered for so long is counted on.
const STEADY_AFTER: Duration = Duration::from_millis(500);
/// A member that has not answered for so long is counted out.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);
/// How long a member may take to say that it is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of roles may take: a new voter receives the log first.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a member was not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    #[error("this member was removed: empty its directory and join as a new one")]
    Removed,
    #[error("the cluster's configuration can't be changed: {0}")]
    Refused(#[from] dqlite::Error),
    #[error("the table of peers is not kept: {0}")]
    Roster(#[from] RosterError),
}

/// Lets a member in, as a spare. Safe to repeat.
pub async fn admit(
    node: &dyn SqlNode,
    roster: &Roster,
    entry: PeerEntry,
) -> Result<(), AdmitError> {
    let id = MemberId(entry.id);
    if roster.is_removed(id) {
        return Err(AdmitError::Removed);
    }
    let mut connection = node.connect().await?;
    let members = connection.members().await?;
    if !members.iter().any(|member| member.id == id) {
        connection.add(id, &raft_address(id)).await?;
        info!(member = id.0, "a member joined");
    }
    // After that: whoever stands in the table and is none of raft's members
    // was removed.
    Ok(roster.merge(vec![entry])?)
}

/// Why a member was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("there is no member {0}")]
    Unknown(MemberId),
    #[error("without member {0} there would be no majority of living voters")]
    Majority(MemberId),
    #[error("the leader can't remove itself before another one leads")]
    Leader,
    #[error("the cluster's configuration can't be changed: {0}")]
    Refused(#[from] dqlite::Error),
    #[error("the table of peers is not kept: {0}")]
    Roster(#[from] RosterError),
}

/// What the keeper of one member needs.
#[derive(Clone)]
pub struct Keeper {
    pub engines: Databases<Engine>,
    pub node: Arc<dyn SqlNode>,
    pub roster: Arc<Roster>,
    pub channels: Arc<Channels>,
    pub health: Arc<HealthTable>,
    /// Which of the members' nodes may vote.
    pub nodes: Nodes,
    pub leader: watch::Receiver<Option<MemberId>>,
    /// Rung when the own node has to start again.
    pub restart: Arc<Notify>,
}

impl Keeper {
    /// Looks after the roles, for ever.
    pub async fn run(self) {
        let mut leads_since = None;
        let mut tuner = Tuner::default();
        loop {
            tokio::time::sleep(PERIOD).await;
            if !self.engines.kube.leads() {
                leads_since = None;
                tuner = Tuner::default();
                continue;
            }
            let since = *leads_since.get_or_insert_with(clock::now);
            if let Err(error) = self.look(since, &mut tuner).await {
                debug!(%error, "the members' roles wait");
            }
        }
    }

    async fn look(&self, leads_since: Instant, tuner: &mut Tuner) -> Result<(), dqlite::Error> {
        let members = self.members().await?;
        let observed = self.observe(&members, leads_since);
        let of_role = |role| {
            let of_role = members.iter().filter(|member| member.role == role);
            of_role.map(|member| member.id.0).collect()
        };
        let (spares, standbys) = (of_role(Role::Spare), of_role(Role::Standby));
        self.health.set_voteless(Voteless { spares, standbys });
        self.remove_forgotten(&members).await;
        let own = self.roster.own();
        let voters = members.iter().filter(|member| member.role == Role::Voter);
        if self.should_give_room(&observed) {
            warn!("the disk of this member is full: another one is to lead");
            self.hand_over(&members).await?;
            return Ok(());
        }
        let is_sole = voters.map(|voter| voter.id).collect::<Vec<_>>() == [own];
        if !tuner.look(self, &members, &observed).await? {
            return Ok(());
        }
        match choose_change(&self.settled(observed)) {
            Some(change) => {
                self.set_sole_voter(false);
                self.apply(change).await
            }
            None => {
                self.set_sole_voter(is_sole);
                Ok(())
            }
        }
    }

    /// Those that count for the roles. One whose node is still joining may be gone in a moment, and
    /// must not take a majority along.
    fn settled(&self, mut observed: Vec<Observed>) -> Vec<Observed> {
        observed.retain(|one| {
            let node = || self.roster.peer(one.id).unwrap_or_default().node;
            one.role == Role::Voter || self.nodes.may_vote(&node())
        });
        observed
    }

    /// Whether a voter has room for what this one would have to refuse.
    fn should_give_room(&self, observed: &[Observed]) -> bool {
        let voters = observed.iter().filter(|one| one.role == Role::Voter && one.is_steady);
        self.engines.kube.shared().free_bytes() < SPACE_NEEDED_BYTES
            && voters.filter(|one| !one.is_leader).any(|one| self.has_room(one.id))
    }

    /// Room enough for some time of leading, lest leadership comes back at once.
    fn has_room(&self, id: MemberId) -> bool {
        self.health.get(id).is_some_and(|one| one.free_bytes >= 2 * SPACE_NEEDED_BYTES)
    }

    /// Finishes what a leader began that died before it had told anybody.
    async fn remove_forgotten(&self, members: &[MemberInfo]) {
        let missing =
            |members: &[MemberInfo], id: MemberId| !members.iter().any(|one| one.id == id);
        let mut forgotten: Vec<MemberId> = self.roster.living().iter().map(|(id, _)| *id).collect();
        forgotten.retain(|id| missing(members, *id));
        if forgotten.is_empty() {
            return;
        }
        // Members that were known before this barrier had joined before it, so
        // that a leader which passes it knows of them.
        let proven = self.engines.kube.settle(false).await.is_ok() && self.engines.kube.leads();
        let Ok(members) = self.members().await else { return };
        for id in forgotten.into_iter().filter(|id| proven && missing(&members, *id)) {
            info!(member = id.0, "a member had been removed");
            if let Err(error) = self.roster.remove(id) {
                warn!(error = &error as &dyn std::error::Error, "the table of peers is not kept");
            }
        }
    }

    /// The configuration as this member knows it.
    pub async fn members(&self) -> Result<Vec<MemberInfo>, dqlite::Error> {
        self.node.connect().await?.members().await
    }

    /// The members as the roles see them. A new leader has heard of nobody
    /// yet and counts nobody out for a while.
    pub fn observe(&self, members: &[MemberInfo], leads_since: Instant) -> Vec<Observed> {
        let now = clock::now();
        let own = self.roster.own();
        let patience = self.roster.patience();
        let observe = |member: &MemberInfo| {
            let peer = self.roster.peer(member.id).unwrap_or_default();
            let health = self.health.get(member.id);
            let is_own = member.id == own;
            let steady = health.as_ref().is_some_and(|health| {
                health.is_reachable(now) && now - health.since >= STEADY_AFTER
            });
            let silent_since =
                health.as_ref().map_or(leads_since, |one| one.heard.max(leads_since));
            let lag = self.lag_of(health.as_ref().map(|one| &one.standing));
            Observed {
                id: member.id,
                role: member.role,
                is_steady: is_own || steady,
                is_dead: !is_own && now - silent_since >= DEAD_AFTER + patience,
                is_leader: is_own,
                failure_domain: peer.failure_domain,
                lag: if is_own { 0 } else { lag },
            }
        };
        members.iter().map(observe).collect()
    }

    /// Rows, of all databases, that a member lacks. One that does not serve a
    /// database has its rows from raft all the same.
    fn lag_of(&self, standing: Option<&Databases<Standing>>) -> u64 {
        let lag = |database| {
            let newest = self.engines.get(database).map_or(0, |one| one.shared().sequence());
            let known = match standing {
                Some(standing) => standing.get(database).map_or(newest, |one| one.sequence),
                None => 0,
            };
            (newest - known).max(0) as u64
        };
        lag(Database::Kube) + lag(Database::Cluster)
    }

    fn set_sole_voter(&self, sole: bool) {
        self.engines.iter().for_each(|engine| engine.shared().set_sole_voter(sole));
    }

    /// Whether a member serves every database that this one does.
    fn serves_all(&self, id: MemberId) -> bool {
        self.engines.cluster.is_none()
            || self.health.get(id).is_some_and(|one| one.standing.cluster.is_some())
    }

    async fn apply(&self, change: RoleChange) -> Result<(), dqlite::Error> {
        let RoleChange { member, role } = change;
        let mut connection = self.node.connect().await?;
        let assigned = tokio::time::timeout(CHANGE_TIMEOUT, connection.assign(member, role));
        match assigned.await {
            Ok(Ok(())) => {
                info!(member = member.0, ?role, "a member has a new role");
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                warn!(member = member.0, ?role, "a change of roles takes long");
                Ok(())
            }
        }
    }

    /// Removes a member for good; this member leads. Its number is refused
    /// from then on.
    pub async fn remove(&self, id: MemberId) -> Result<(), RemoveError> {
        let members = self.members().await?;
        if id == self.roster.own() {
            self.give_way(&members).await?;
            return Err(RemoveError::Leader);
        }
        if !members.iter().any(|member| member.id == id) {
            // Perhaps somebody else finished it; the table must say so too.
            let known = self.roster.peer(id).ok_or(RemoveError::Unknown(id))?;
            return if known.removed { Ok(()) } else { Ok(self.roster.remove(id)?) };
        }
        let is_voter = members.iter().any(|one| one.id == id && one.role == Role::Voter);
        let observed = self.ask_around(&members).await;
        if is_voter && !keeps_majority(&observed, RoleChange { member: id, role: Role::Spare }) {
            return Err(RemoveError::Majority(id));
        }
        self.node.connect().await?.remove(id).await?;
        info!(member = id.0, "a member was removed");
        Ok(self.roster.remove(id)?)
    }

    /// Gives leadership away for good. A sole voter lets another one vote
    /// first; the next leader makes the number of voters odd again.
    pub async fn give_way(&self, members: &[MemberInfo]) -> Result<bool, dqlite::Error> {
        let observed = self.observe(members, clock::now());
        let others = observed.iter().filter(|one| !one.is_leader && one.is_steady);
        let heir = others.min_by_key(|one| (one.role != Role::Voter, one.lag, one.id));
        if let Some(heir) = heir.filter(|heir| heir.role != Role::Voter) {
            self.set_sole_voter(false);
            self.apply(RoleChange { member: heir.id, role: Role::Voter }).await?;
            return self.hand_over(&self.members().await?).await;
        }
        self.hand_over(members).await
    }

    /// The members as they are at this moment: whoever does not answer counts
    /// as dead, for the others must be able to commit a removal without it,
    /// and what is refused can be asked again.
    async fn ask_around(&self, members: &[MemberInfo]) -> Vec<Observed> {
        let mut observed = self.observe(members, clock::now());
        let asked = observed.iter().map(|one| async {
            let message = message(&self.engines, &self.roster, &self.health);
            let mut client = self.channels.to(one.id);
            let timeout = ANSWER_TIMEOUT + self.roster.patience();
            let answer = tokio::time::timeout(timeout, client.gossip(message)).await;
            let from = answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().from);
            !one.is_leader && from != Some(one.id.0)
        });
        let silent = futures::future::join_all(asked).await;
        observed.iter_mut().zip(silent).for_each(|(one, silent)| one.is_dead = silent);
        observed
    }

    /// Gives leadership to the voter that lags least, of those with room first, and of those first
    /// that serve what this one does. Returns when another member leads, or when nobody can;
    /// whether it was given.
    pub async fn hand_over(&self, members: &[MemberInfo]) -> Result<bool, dqlite::Error> {
        let own = self.roster.own();
        let mut voters = self.observe(members, clock::now());
        voters.retain(|one| one.role == Role::Voter && one.is_steady && one.id != own);
        voters
            .sort_by_key(|voter| (!self.has_room(voter.id), !self.serves_all(voter.id), voter.lag));
        for voter in voters {
            match self.node.connect().await?.transfer(Some(voter.id)).await {
                Ok(()) => {
                    info!(to = voter.id.0, "leadership is handed over");
                    let mut leader = self.leader.clone();
                    let other = leader.wait_for(|leader| leader.is_some_and(|id| id != own));
                    let _ = tokio::time::timeout(Duration::from_secs(2), other).await;
                    return Ok(true);
                }
                Err(error) => debug!(%error, to = voter.id.0, "not handed over"),
            }
        }
        Ok(false)
    }
}
