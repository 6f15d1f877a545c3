//! A node leaves its cluster: pods move, the cluster lets it go, and what is left is on its disk.
//!
//! Whoever is at work holds a lock; the line of [`Departure`] says how far it is. When nobody holds
//! the lock any more, skiffd ends what was begun: before the cluster was asked to let the node go it
//! is taken back, from then on it goes on, since the datastore may have lost its member already.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use microcluster::client::ClientError as AskClientError;
use microcluster::message::{LeaveStep, RefusalCode, Request};
use microcluster::record::{MemberState, NodeRole};
use skiff_api::Notice;
use tokio::sync::mpsc;

use super::ask::AskError;
use super::{Cluster, Departure, Membership, MembershipError, Stage, Step};
use crate::daemons::kube_node;
use crate::kube::ClientSource;
use crate::kube::drain::{self, DrainError};
use crate::node::core::{Node, Order};
use crate::node::{Lock, LockError};
use crate::paths::Paths;

/// A step whose outcome is not known, or that nobody can do now, is said again so often.
const TRIES_MAX: u32 = 5;
const TRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the cluster may take to hear that a node leaves, or stays.
const TELL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to let the node go: its member of the datastore may have to give leadership
/// away first.
const GO_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a command waits for another one, or for skiffd, which may be ending something: longer
/// than the cluster may take.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// How often skiffd looks whether something was cut off.
const INTERVAL: Duration = Duration::from_secs(5);
/// The notice of a node that cannot end what was begun.
const NOTICE: &str = "leaving-cluster";

#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    #[error("this node does not belong to a cluster")]
    Alone,
    #[error("this node has not finished joining")]
    Joining,
    #[error("this node is the only one of its cluster")]
    Sole,
    #[error("somebody else is at work on leaving the cluster")]
    Busy,
    #[error("the cluster was not told")]
    Unanswered(#[source] AskError),
    #[error("the cluster does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the cluster does not let this node go")]
    Refused(#[source] AskError),
    #[error("the pods of this node cannot be moved away")]
    Drain(#[source] DrainError),
    #[error("the node cannot be put back into service")]
    Uncordon(#[source] DrainError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("cannot lock the node")]
    Lock(#[source] LockError),
    #[error("cannot remove the line that says how far the node has left")]
    Forget(#[source] io::Error),
}

impl LeaveError {
    /// Whether the cluster refuses to do without this node.
    pub fn is_needed(&self) -> bool {
        let Self::Refused(AskError::Refused(refusal)) = self else { return false };
        refusal.code == RefusalCode::StillNeeded
    }

    /// Whether the cluster may be dead.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::Silent(_))
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Alone | Self::Sole => Some("sudo skiff reset, which loses everything".into()),
            Self::Joining => Some("sudo skiff reset gives the join up".into()),
            Self::Unanswered(_) | Self::Silent(_) => {
                Some("sudo skiff leave --force, when the cluster is gone for ever".into())
            }
            Self::Refused(error) => error.hint(),
            Self::Drain(DrainError::Lone(_)) => {
                Some("delete them, or sudo skiff leave --skip-drain, which ends them".into())
            }
            Self::Drain(DrainError::Late { .. }) => {
                Some("sudo skiff leave --timeout 30m, or --skip-drain, which ends them".into())
            }
            Self::Drain(_) => Some("skiff status".into()),
            _ => None,
        }
    }

    fn of(error: AskError) -> Self {
        match &error {
            AskError::Refused(refusal) if !refusal.is_passing() => Self::Refused(error),
            AskError::NoIdentity(_) | AskError::Identity(_) => Self::Refused(error),
            _ => Self::Unanswered(error),
        }
    }
}

/// One that is at work on leaving; there is one at a time.
pub struct Leaver {
    paths: Paths,
    cluster: Cluster,
    clients: ClientSource,
    /// Whether a cluster that nobody reaches is tried again.
    waits: bool,
    _lock: Lock,
}

impl Leaver {
    /// Waits for another one that is at work.
    pub async fn of(paths: &Paths) -> Result<Self, LeaveError> {
        let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
        loop {
            match Self::take(paths) {
                Err(LeaveError::Busy) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn take(paths: &Paths) -> Result<Self, LeaveError> {
        let membership = Membership::read(&paths.node())?.ok_or(LeaveError::Alone)?;
        if membership.stage == Stage::Joining {
            return Err(LeaveError::Joining);
        }
        // Whoever is told must be one who stays.
        if membership.is_sole() {
            return Err(LeaveError::Sole);
        }
        let lock = Lock::take(&paths.run().join("leave.pid")).map_err(|error| match error {
            LockError::Held(_) => LeaveError::Busy,
            error => LeaveError::Lock(error),
        })?;
        let clients = ClientSource::impatient(match membership.role {
            NodeRole::Worker => paths.daemon_pki(kube_node::NAME).join("kubelet.kubeconfig"),
            NodeRole::ControlPlane => paths.node().join("admin.kubeconfig"),
        });
        let cluster = Cluster::of_disk(paths, membership);
        Ok(Self { paths: paths.clone(), cluster, clients, waits: true, _lock: lock })
    }

    /// One that does not wait for a cluster which nobody reaches.
    pub fn hurried(self) -> Self {
        Self { waits: false, ..self }
    }

    pub fn name(&self) -> String {
        self.cluster.membership().name.to_string()
    }

    pub fn role(&self) -> NodeRole {
        self.cluster.membership().role
    }

    /// How far the node is, by its disk.
    pub fn step(&self) -> Result<Option<Step>, LeaveError> {
        Ok(self.found()?.map(|departure| departure.step))
    }

    /// Tells the cluster that the node is about to leave. What was begun before goes on: the step
    /// that the node is at comes back. A failure is followed by [`Self::take_back`].
    pub async fn begin(&self) -> Result<Step, LeaveError> {
        let found = self.found()?;
        if let Some(Departure { step: step @ (Step::Going | Step::Gone), .. }) = found {
            return Ok(step);
        }
        self.write(Step::Moving)?;
        match self.tell(LeaveStep::Begin, TELL_TIMEOUT).await {
            Ok(()) => Ok(Step::Moving),
            Err(error) if is_gone(&error) => self.give_up().map(|()| Step::Gone),
            Err(error) => {
                if found.is_none() && asked_nobody(&error) {
                    Departure::remove(&self.paths.node()).map_err(LeaveError::Forget)?;
                }
                Err(error)
            }
        }
    }

    /// Moves the pods away, all of them within `bound`; how many they were.
    pub async fn drain(
        &self,
        bound: Option<Duration>,
        say: impl Fn(&str),
    ) -> Result<usize, LeaveError> {
        let name = self.name();
        if !drain::is_cordoned(&self.clients, &name).await.map_err(LeaveError::Drain)? {
            // First: whoever takes it back must know.
            let id = self.cluster.membership().id;
            let departure = Departure { id, step: Step::Moving, cordoned: true };
            departure.write(&self.paths.node())?;
            drain::cordon(&self.clients, &name).await.map_err(LeaveError::Drain)?;
        }
        drain::drain(&self.clients, &name, bound, say).await.map_err(LeaveError::Drain)
    }

    /// Has the cluster let the node go: the datastore first, then the record. There is no way back
    /// from here on, but when the datastore keeps the node: it stays as it is then, and
    /// [`Self::take_back`] must follow.
    pub async fn finish(&self) -> Result<(), LeaveError> {
        self.write(Step::Going)?;
        let mut tries_left = TRIES_MAX;
        loop {
            tries_left -= 1;
            let error = match self.tell(LeaveStep::Finish, GO_TIMEOUT).await {
                Ok(()) => return self.give_up(),
                Err(error) if is_gone(&error) => return self.give_up(),
                Err(error) => error,
            };
            if error.is_needed() {
                self.write(Step::Moving)?;
                return Err(error);
            }
            if tries_left == 0 {
                return Err(error);
            }
            match code(&error) {
                // It stays by the record: somebody took back what a former try had begun, late.
                Some(RefusalCode::NotAllowed) => self.tell(LeaveStep::Begin, TELL_TIMEOUT).await?,
                _ => return Err(error),
            }
        }
    }

    /// The node is out of the cluster, or the cluster is given up.
    pub fn give_up(&self) -> Result<(), LeaveError> {
        self.write(Step::Gone)
    }

    /// The node stays a member, as it was.
    pub async fn take_back(&self) -> Result<(), LeaveError> {
        let found = self.found()?;
        match self.tell(LeaveStep::Cancel, TELL_TIMEOUT).await {
            Ok(()) if found.is_some_and(|departure| departure.cordoned) => {
                let back = drain::uncordon(&self.clients, &self.name()).await;
                back.map_err(LeaveError::Uncordon)?;
            }
            Ok(()) => {}
            // It is no member any more, and its status says so.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        Departure::remove(&self.paths.node()).map_err(LeaveError::Forget)
    }

    fn found(&self) -> Result<Option<Departure>, LeaveError> {
        Ok(Departure::read(&self.paths.node(), &self.cluster.membership())?)
    }

    /// Whether the node was put out of service stays as it was written.
    fn write(&self, step: Step) -> Result<(), LeaveError> {
        let found = self.found()?;
        let cordoned = found.is_some_and(|departure| departure.cordoned);
        let id = self.cluster.membership().id;
        Ok(Departure { id, step, cordoned }.write(&self.paths.node())?)
    }

    /// Says a step to one of the others, again while nobody knows what became of it.
    async fn tell(&self, step: LeaveStep, bound: Duration) -> Result<(), LeaveError> {
        let telling = async {
            let mut tries_left = TRIES_MAX;
            loop {
                tries_left -= 1;
                match self.cluster.ask_others(Request::Leave(step)).await {
                    Ok(_) => return Ok(()),
                    Err(error) if tries_left > 0 && is_passing(&error, self.waits) => {
                        tracing::debug!(%error, ?step, "says it again");
                    }
                    Err(error) => return Err(LeaveError::of(error)),
                }
                tokio::time::sleep(TRY_PAUSE).await;
            }
        };
        tokio::time::timeout(bound, telling).await.unwrap_or(Err(LeaveError::Silent(bound)))
    }
}

/// What may be otherwise in a moment.
fn is_passing(error: &AskError, waits: bool) -> bool {
    match error {
        AskError::Client(AskClientError::Unreached(_)) => waits,
        AskError::Client(
            AskClientError::Broken { .. }
            | AskClientError::Slow { .. }
            | AskClientError::Refused { .. },
        ) => true,
        AskError::Refused(refusal) => refusal.is_passing(),
        _ => false,
    }
}

fn code(error: &LeaveError) -> Option<RefusalCode> {
    match error {
        LeaveError::Refused(AskError::Refused(refusal)) => Some(refusal.code),
        _ => None,
    }
}

/// Whether the cluster does not know the node any more.
fn is_gone(error: &LeaveError) -> bool {
    matches!(code(error), Some(RefusalCode::Removed | RefusalCode::NotMember))
}

/// Whether nothing can have changed at the cluster.
fn asked_nobody(error: &LeaveError) -> bool {
    match error {
        LeaveError::Refused(_) => true,
        LeaveError::Unanswered(AskError::Client(error)) => {
            matches!(error, AskClientError::Unreached(_) | AskClientError::NoAddress)
        }
        _ => false,
    }
}

/// Ends what was cut off, on a node whose skiffd runs. Never ends before skiffd.
pub async fn run(node: Arc<Node>, cluster: Arc<Cluster>) {
    let mut told = String::new();
    loop {
        let failure = match tend(&node, &cluster).await {
            Ok(Some(at_work)) => {
                // Held until skiffd ends: no command begins it once more.
                std::future::pending::<()>().await;
                drop(at_work);
                return;
            }
            Ok(None) => String::new(),
            Err(error) => super::upkeep::chain(&error),
        };
        if failure != told {
            notice(&node, &failure);
            if !failure.is_empty() {
                tracing::warn!(reason = failure, "what was begun of leaving cannot be ended yet");
            }
            told = failure;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Who is at work when the node goes.
async fn tend(node: &Node, cluster: &Cluster) -> Result<Option<Leaver>, LeaveError> {
    let paths = node.paths();
    let membership = cluster.membership();
    let leaves = membership.own().is_some_and(|own| own.state == MemberState::Leaving);
    if Departure::read(&paths.node(), &membership)?.is_none() && !leaves {
        return Ok(None);
    }
    let leaver = match Leaver::take(&paths) {
        Err(LeaveError::Busy) => return Ok(None),
        leaver => leaver?,
    };
    // Looked at again: it may just have been ended.
    match leaver.step()? {
        None | Some(Step::Moving) => {
            leaver.take_back().await?;
            tracing::info!("leaving the cluster was cut off and is taken back");
            cluster.wake();
            return Ok(None);
        }
        Some(Step::Going) => match leaver.finish().await {
            Err(error) if error.is_needed() => {
                leaver.take_back().await?;
                return Ok(None);
            }
            outcome => outcome?,
        },
        Some(Step::Gone) => {}
    }
    tracing::info!("the node has left its cluster: everything of it goes");
    // Nobody reads what becomes of it.
    let (reply, _) = mpsc::channel(1);
    let is_ordered = node.orders.try_send(Order::Reset { reply }).is_ok();
    Ok(is_ordered.then_some(leaver))
}

fn notice(node: &Node, failure: &str) {
    let notice = (!failure.is_empty()).then(|| Notice {
        name: NOTICE.into(),
        message: format!("leaving the cluster was cut off and cannot be ended yet: {failure}"),
        remedy: Some("`sudo skiff leave` goes on; with --force when the cluster is gone".into()),
    });
    node.board.update(|observed| {
        observed.notices.retain(|notice| notice.name != NOTICE);
        observed.notices.extend(notice);
    });
}
