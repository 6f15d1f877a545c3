//! Where requests are answered: reads the record, decides, signs, applies, answers.
//!
//! ```text
//!   read ─> decide ─> sign ─> apply ─┬─ done ─────────> answer
//!    ^                               ├─ collided ──┐
//!    └───────────────────────────────┴─ unknown ───┘  again, COLLISIONS_MAX times
//! ```
//!
//! It signs before it applies, because the record knows every certificate, and answers after, so
//! what was signed for a node that was removed in between is thrown away. Deciding again after an
//! unknown outcome is safe: see [`crate::protocol`].

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::message::{Answer, Asked, Entered, Message, Refusal, RefusalCode, Renewed};
use crate::protocol::{
    Caller, Decision, Founder, Outcome, RemoveRequest, RotationRequest, TokenSpec, TurnAnswer,
    decide, decide_add_token, decide_api_port, decide_expire, decide_found, decide_remove,
    decide_revoke_token, decide_rotation_advance, decide_rotation_begin, decide_rotation_finish,
    decide_rotation_turn, decide_rotation_without, decide_set, decide_trial_turn, decide_turn,
    decide_turn_end,
};
use crate::record::{
    ClusterRecord, ClusterSettings, MemberRecord, MemberView, NodeId, NodeName, Revision,
    RotationStep, SettingsChange, SettingsRevision, Way,
};
use crate::store::{Change, Store, StoreError};
use crate::token::{Secret, TokenId};
use crate::trust::{IssuedLeaf, SignError, Signer};
use crate::version::Version;

/// Attempts until a request is refused as "busy". Requests of one desk wait for each other, so a
/// collision is one with another control-plane member, of which there are a few.
pub const COLLISIONS_MAX: usize = 16;
/// Rounds of the keeper at once; what is left waits for the next time.
const EXPIRE_ROUNDS_MAX: usize = 64;

/// What time it is.
pub trait Clock: Send + Sync {
    fn now(&self) -> OffsetDateTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// See the module's words.
pub struct Desk<S, G, C> {
    store: S,
    signer: G,
    clock: C,
    /// Of Skiff, here.
    release: Version,
    /// One change at a time: without it, many joiners at once would collide with each other.
    turn: Mutex<()>,
    /// The store did not answer when it was asked last.
    is_away: AtomicBool,
}

/// What was decided and done, with what it was decided on.
struct Done {
    decision: Decision,
    record: ClusterRecord,
    issued: Vec<IssuedLeaf>,
    now: OffsetDateTime,
}

impl<S: Store, G: Signer, C: Clock> Desk<S, G, C> {
    pub fn new(store: S, signer: G, clock: C, release: Version) -> Self {
        let (turn, is_away) = (Mutex::new(()), AtomicBool::new(false));
        Self { store, signer, clock, release, turn, is_away }
    }

    /// Answers what came on port 7443. Never fails: a refusal is an answer.
    pub async fn answer(&self, bytes: &[u8], caller: &Caller) -> Answer {
        let answered = match Message::parse(bytes) {
            Ok(message) => self.handle(&message, caller).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|refusal| {
            let who = match caller {
                Caller::Stranger => "a stranger".to_owned(),
                Caller::Node(identity) | Caller::Former(identity) => {
                    format!("{} ({})", identity.name, identity.id)
                }
            };
            let (code, reason) = (refusal.code, refusal.message.as_str());
            tracing::warn!(%who, ?code, reason, "refused");
            Answer::Refused(refusal)
        })
    }

    /// Begins a cluster of one.
    pub async fn found(
        &self,
        settings: &ClusterSettings,
        founder: &Founder,
    ) -> Result<(), Refusal> {
        let decision = decide_found(settings, founder, self.clock.now())?;
        match self.store.apply(&decision.changes).await {
            Ok(_) => Ok(()),
            Err(StoreError::Collided { .. }) => {
                let message = "there is a cluster already";
                Err(Refusal::new(RefusalCode::AlreadyFounded, message))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Makes a token around a secret that is random.
    pub async fn add_token(&self, spec: &TokenSpec, secret: &Secret) -> Result<TokenId, Refusal> {
        // Said again after an unknown outcome: the token with this secret is there already.
        let id = secret.token_id();
        let add = |record: &ClusterRecord, now| match record.tokens.contains_key(&id) {
            true => Ok(Decision::of(Outcome::TokenAdded(id))),
            false => decide_add_token(record, spec, secret, now),
        };
        self.act(add).await.map(|_| id)
    }

    /// Takes a token back.
    pub async fn revoke_token(&self, id: TokenId) -> Result<(), Refusal> {
        self.act(|record, _| decide_revoke_token(record, id)).await.map(drop)
    }

    /// Removes a node; the outcome says whether it had the authorities' keys.
    pub async fn remove(&self, request: &RemoveRequest) -> Result<Outcome, Refusal> {
        // After an unknown outcome another machine may have come under this name: it is not meant.
        let meant = OnceLock::new();
        let remove = |record: &ClusterRecord, now| {
            let there = record.members.get(&request.name).map(|member| member.value.id);
            match *meant.get_or_init(|| there) {
                Some(meant) if there != Some(meant) => {
                    let mut without = record.clone();
                    without.members.remove(&request.name);
                    without.removed.retain(|id, _| *id == meant);
                    decide_remove(&without, request, now)
                }
                _ => decide_remove(record, request, now),
            }
        };
        let done = self.act(remove).await?;
        tracing::info!(node = %request.name, "removed");
        Ok(done.decision.outcome)
    }

    /// Writes down where the API server here listens, if it is the only one.
    pub async fn set_api_port(&self, port: u16) -> Result<(), Refusal> {
        self.act(|record, _| decide_api_port(record, port)).await.map(drop)
    }

    /// Changes settings that hold for all nodes; `check` is asked whether the new ones can be.
    /// Answers which ones hold from now on.
    pub async fn set(
        &self,
        change: &SettingsChange,
        check: &(dyn Fn(&ClusterSettings) -> Result<(), Refusal> + Sync),
    ) -> Result<SettingsRevision, Refusal> {
        let done = self.act(|record, _| decide_set(record, change, check)).await?;
        match done.decision.outcome {
            Outcome::SettingsSet(revision) => Ok(revision),
            _ => Err(inconsistent()),
        }
    }

    /// Whether this node may restart its control plane for settings of that revision. It says so
    /// when it is done, by [`Self::end_turn`].
    pub async fn take_turn(
        &self,
        node: NodeId,
        revision: SettingsRevision,
    ) -> Result<TurnAnswer, Refusal> {
        let done = self.act(|record, now| decide_turn(record, node, revision, now)).await?;
        match done.decision.outcome {
            Outcome::Turn(answer) => Ok(answer),
            _ => Err(inconsistent()),
        }
    }

    /// The same to try settings before they are set.
    pub async fn take_trial_turn(&self, node: NodeId) -> Result<TurnAnswer, Refusal> {
        let done = self.act(|record, now| Ok(decide_trial_turn(record, node, now))).await?;
        match done.decision.outcome {
            Outcome::Turn(answer) => Ok(answer),
            _ => Err(inconsistent()),
        }
    }

    /// Lets the next one go on.
    pub async fn end_turn(&self, node: NodeId) -> Result<(), Refusal> {
        self.act(|record, _| Ok(decide_turn_end(record, node))).await.map(drop)
    }

    /// Begins to replace the cluster's authorities.
    pub async fn begin_rotation(&self, request: &RotationRequest) -> Result<RotationStep, Refusal> {
        self.rotate(|record, now| decide_rotation_begin(record, request, now)).await
    }

    /// Turns round on the way; see [`decide_rotation_turn`].
    pub async fn turn_rotation(&self, way: Way, crossed: &str) -> Result<RotationStep, Refusal> {
        self.rotate(|record, now| decide_rotation_turn(record, way, crossed, now)).await
    }

    /// Goes on when all nodes are where they should be.
    pub async fn advance_rotation(&self) -> Result<RotationStep, Refusal> {
        self.rotate(|record, now| Ok(decide_rotation_advance(record, now))).await
    }

    /// Ends the present hold.
    pub async fn finish_rotation(&self) -> Result<RotationStep, Refusal> {
        self.rotate(|record, _| decide_rotation_finish(record)).await
    }

    /// Waits for these nodes no more.
    pub async fn rotate_without(
        &self,
        names: &BTreeSet<NodeName>,
    ) -> Result<RotationStep, Refusal> {
        self.rotate(|record, _| decide_rotation_without(record, names)).await
    }

    async fn rotate(
        &self,
        decide: impl Fn(&ClusterRecord, OffsetDateTime) -> Result<Decision, Refusal>,
    ) -> Result<RotationStep, Refusal> {
        match self.act(decide).await?.decision.outcome {
            Outcome::Rotation(step) => Ok(step),
            _ => Err(inconsistent()),
        }
    }

    /// Takes away what is over; how many lines that were.
    pub async fn expire(&self) -> Result<usize, Refusal> {
        let mut total = 0;
        for _ in 0..EXPIRE_ROUNDS_MAX {
            let done = self.act(|record, now| Ok(decide_expire(record, now))).await?;
            let Outcome::Expired { count, has_more } = done.decision.outcome else { break };
            total += count;
            if !has_more {
                break;
            }
        }
        Ok(total)
    }

    /// The record as it is.
    pub async fn record(&self) -> Result<ClusterRecord, Refusal> {
        let record = self.store.read().await.map_err(|error| self.failed(&error))?;
        if self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the cluster's record can be reached again");
        }
        Ok(record)
    }

    /// A store that cannot be reached comes back: its daemon is restarted, or its members choose a
    /// leader. That is told once, and again when it is over; all else must be looked at.
    fn failed(&self, error: &StoreError) -> Refusal {
        let StoreError::Unavailable(reason) = error else { return unavailable(error) };
        match self.is_away.swap(true, Ordering::Relaxed) {
            true => tracing::debug!(reason, "the cluster's record cannot be reached yet"),
            false => tracing::warn!(reason, "the cluster's record cannot be reached"),
        }
        refusal(error)
    }

    /// The record, once it is later than `seen`.
    pub async fn record_later_than(&self, seen: Revision) -> Result<ClusterRecord, StoreError> {
        self.store.later_than(seen).await?;
        self.store.read().await
    }

    /// Waits until the record is another one than that of this revision.
    pub async fn later_than(&self, seen: Revision) -> Result<Revision, StoreError> {
        self.store.later_than(seen).await
    }

    async fn handle(&self, message: &Message, caller: &Caller) -> Result<Answer, Refusal> {
        let done =
            self.act(|record, now| decide(record, message, caller, self.release, now)).await?;
        self.say(done)
    }

    /// The loop of the drawing above.
    async fn act(
        &self,
        decide: impl Fn(&ClusterRecord, OffsetDateTime) -> Result<Decision, Refusal>,
    ) -> Result<Done, Refusal> {
        let _turn = self.turn.lock().await;
        for _ in 0..COLLISIONS_MAX {
            let record = self.record().await?;
            let now = self.clock.now();
            let mut decision = decide(&record, now)?;
            debug_assert!(decision.is_guarded(), "{decision:?}");
            let issued = self.sign(&mut decision, &record.settings.value)?;
            if decision.changes.is_empty() {
                return Ok(Done { decision, record, issued, now });
            }
            match self.store.apply(&decision.changes).await {
                Ok(_) => return Ok(Done { decision, record, issued, now }),
                Err(error @ (StoreError::Collided { .. } | StoreError::Unknown(_))) => {
                    tracing::debug!(%error, "decides again");
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
        let message = "too many changes of the cluster at once";
        Err(Refusal::new(RefusalCode::Busy, message).hint("try again in a moment"))
    }

    fn sign(
        &self,
        decision: &mut Decision,
        settings: &ClusterSettings,
    ) -> Result<Vec<IssuedLeaf>, Refusal> {
        let issued: Result<Vec<_>, _> =
            decision.orders.iter().map(|order| self.signer.sign(order, settings)).collect();
        let issued = issued.map_err(|error| unsigned(&error))?;
        decision.note_issued(&issued);
        Ok(issued)
    }

    fn say(&self, done: Done) -> Result<Answer, Refusal> {
        let Done { decision, record, issued: leaves, now } = done;
        let members = || views(&record, &decision.changes);
        let settings = || record.settings.value.clone();
        Ok(match &decision.outcome {
            Outcome::Asked => Answer::Asked(Asked {
                settings: settings(),
                release: self.release,
                kubernetes: record.api_servers().into_iter().max().unwrap_or(self.release),
                members: members(),
                now,
            }),
            Outcome::Entered { until, recipient, .. } => {
                let sealed = recipient.as_deref();
                let sealed = sealed.map(|to| self.signer.seal(to, &record.settings.value));
                let sealed = sealed.transpose().map_err(|error| unavailable(&error))?;
                let node = put_member(&decision.changes).ok_or_else(inconsistent)?;
                tracing::info!(node = %node.name, id = %node.id, role = %node.role, "joins");
                Answer::Entered(Box::new(Entered {
                    name: node.name.clone(),
                    id: node.id,
                    role: node.role,
                    leaves,
                    bundle: self.signer.bundle(&record.settings.value),
                    settings: settings(),
                    members: members(),
                    labels: node.labels.clone(),
                    taints: node.taints.clone(),
                    sealed,
                    until: *until,
                }))
            }
            Outcome::Confirmed => Answer::Confirmed {},
            Outcome::Undone => Answer::Undone {},
            Outcome::Renewed => Answer::Renewed(Renewed {
                leaves,
                bundle: self.signer.bundle(&record.settings.value),
                settings: settings(),
                members: members(),
            }),
            Outcome::Members => Answer::Members { members: members(), settings: Some(settings()) },
            Outcome::Leaving(step) => Answer::Leaving(*step),
            Outcome::Keys { recipient } => {
                let sealed = self.signer.seal(recipient, &record.settings.value);
                let sealed = sealed.map_err(|error| unsigned(&error))?;
                let bundle = self.signer.bundle(&record.settings.value);
                Answer::Keys { sealed, bundle, settings: settings() }
            }
            Outcome::Founded
            | Outcome::Removed { .. }
            | Outcome::Expired { .. }
            | Outcome::SettingsChanged
            | Outcome::SettingsSet(_)
            | Outcome::Turn(_)
            | Outcome::Recovered
            | Outcome::TokenAdded(_)
            | Outcome::Rotation(_)
            | Outcome::TokenRevoked(_) => return Err(inconsistent()),
        })
    }
}

fn put_member(changes: &[Change]) -> Option<&MemberRecord> {
    changes.iter().find_map(|change| match change {
        Change::PutMember { member, .. } => Some(member.as_ref()),
        _ => None,
    })
}

/// The members as they are after the change.
fn views(record: &ClusterRecord, changes: &[Change]) -> Vec<MemberView> {
    let put = put_member(changes);
    let others = record.living().filter(|member| put.is_none_or(|put| put.id != member.id));
    let mut views: Vec<MemberView> = others.chain(put).map(MemberRecord::view).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// What is missing here only for now, others may have.
fn unsigned(error: &SignError) -> Refusal {
    match error {
        SignError::NotYet => refusal(error),
        error => unavailable(error),
    }
}

fn unavailable(error: &dyn std::error::Error) -> Refusal {
    let refusal = refusal(error);
    let error = refusal.message.as_str();
    tracing::error!(error, "the cluster's record or its authority cannot be used");
    refusal
}

/// The whole chain of causes: the other side cannot look it up here.
fn refusal(error: &dyn std::error::Error) -> Refusal {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    Refusal::new(RefusalCode::Unavailable, causes.join(": "))
        .hint("try again in a moment; `skiff status` on that member says how it is")
}

fn inconsistent() -> Refusal {
    Refusal::new(RefusalCode::Unavailable, "our bug: a decision does not fit its request")
}

#[cfg(test)]
#[path = "desk_test.rs"]
mod tests;
