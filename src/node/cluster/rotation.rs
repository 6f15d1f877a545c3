//! New authorities of the cluster on this node: takes each step that the record has, by turns where an
//! API server restarts, tells the cluster how far it is, and where the record is, goes on to the next
//! one when all are there.
//!
//! ```text
//!   record: step above its own? ─> keys ─> its turn ─> begin ─> leaves of the cluster ─> end ─> told
//!           over?               ─> one set of keys
//!           all there, held?    ─> the next step
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microcluster::message::{Answer, Refusal, Renew, Request};
use microcluster::protocol::TurnAnswer;
use microcluster::record::{
    AuthorityCertificates, DoneSteps, Fingerprint, Position, Rotation, RotationRecord,
    RotationStep, Side, Way,
};
use time::OffsetDateTime;

use super::ask::AskError;
use super::renewal::{Asks, renew_by};
use super::seal::{Opener, SealError};
use super::upkeep::{chain, look};
use super::{Cluster, Stage, UpkeepError, former, keys, renew};
use crate::node::authorities::step::{self, StepError};
use crate::node::authorities::{
    AuthoritiesError, NEXT, Pair, Standing, StandingError, extension, forget_next, is_of_another,
    store_next,
};
use crate::node::core::Node;

/// What failed for want of the cluster is tried again, and a turn is asked for again.
const PAUSE: Duration = Duration::from_secs(3);
/// While a step is under way, the record is looked at so often.
const INTERVAL: Duration = Duration::from_secs(15);
/// What the cluster seems not to know is told again, for its record may be an older one by now.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the cluster's record cannot be used: {0}")]
    Record(Refusal),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Upkeep(#[from] UpkeepError),
    #[error("no other control-plane node has the new keys yet")]
    NoKeys,
    #[error("the cluster has not signed new certificates for this node yet")]
    Unsigned,
    #[error("this node has no authority")]
    NoAuthority,
}

/// Never ends. What fails is tried again, and told when it is news.
pub async fn run(node: Arc<Node>, cluster: Arc<Cluster>) {
    let mut told = None;
    let mut life = Life::default();
    loop {
        let outcome = turn(&node, &cluster, &mut life).await;
        let failure = outcome.as_ref().err().map(|error| chain(error));
        if let Some(reason) = failure.as_ref().filter(|_| failure != told) {
            tracing::warn!(reason, "the cluster's authorities are not taken up yet");
        }
        told = failure;
        let pause = match outcome {
            Ok(Progress::Again) => continue,
            Ok(Progress::Done) => None,
            Ok(Progress::Watches) => Some(INTERVAL),
            Ok(Progress::Waits) | Err(_) => Some(PAUSE),
        };
        let woken = node.rotation_wake.notified();
        match pause {
            None => woken.await,
            Some(pause) => drop(tokio::time::timeout(pause, woken).await),
        }
    }
}

/// What is remembered from one turn to the next.
#[derive(Default)]
struct Life {
    reported: Option<(DoneSteps, Instant)>,
    /// Extensions believe nobody any more who was dropped.
    forgot: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// There is nothing to do.
    Done,
    /// A rotation is under way, and this node has done its part.
    Watches,
    /// For somebody else's turn, or for somebody with keys.
    Waits,
    /// The record has changed.
    Again,
}

async fn turn(node: &Node, cluster: &Cluster, life: &mut Life) -> Result<Progress, RotationError> {
    // Settings restart the same daemons.
    let _turn = node.setting.lock().await;
    let membership = cluster.membership();
    // Who joins began with what there was, and is waited for.
    if membership.stage == Stage::Joining {
        return Ok(Progress::Waits);
    }
    let record = membership.settings.rotation.clone();
    let standing = Standing::read(&cluster.paths.pki())?;
    let mut progress = Progress::Done;
    if is_left_behind(node, cluster) {
        come_back(node, cluster, &record).await?;
        return Ok(Progress::Again);
    }
    if let Some(rotation) = &record.current {
        progress = Progress::Watches;
        let has_failed = standing.said().failure(record.step).is_some();
        if record.work(standing.step).is_some() && !has_failed {
            progress = reach(node, cluster, &record, rotation).await?;
        }
    } else if record.step >= standing.step && standing.two.is_some() {
        settle(node, cluster, &record, &standing).await?;
        life.forgot = false;
    }
    former::keep(node, &record)?;
    if record.current.is_none() {
        forget_orphans(cluster).await?;
        life.forgot = life.forgot || extension::forget(node).await;
        if !life.forgot {
            progress = Progress::Watches;
        }
    }
    if progress != Progress::Waits {
        report(cluster, &mut life.reported).await?;
    }
    let is_under_way = record.current.is_some() && progress == Progress::Watches;
    if let (Some(desk), true) = (&cluster.desk, is_under_way) {
        let step = desk.advance_rotation().await.map_err(RotationError::Record)?;
        look(node, cluster, desk).await?;
        let now = cluster.membership().settings.rotation;
        if step != record.step || now.current.is_none() {
            return Ok(Progress::Again);
        }
    }
    Ok(progress)
}

/// Takes a step: the one that all nodes go to.
async fn reach(
    node: &Node,
    cluster: &Cluster,
    record: &RotationRecord,
    rotation: &Rotation,
) -> Result<Progress, RotationError> {
    let own = own_authority(node, cluster)?;
    let pki = cluster.paths.pki();
    // Of a former rotation whose end it has not seen.
    let standing = Standing::read(&pki)?;
    let meant = rotation.old.fingerprint();
    let is_other = standing.two.as_deref().is_some_and(|two| two.old.fingerprint() != meant);
    if is_other {
        let left = meant.and_then(|old| standing.two.as_deref()?.side_of(&old));
        let left = left.ok_or(StepError::Unknown)?;
        conclude(node, cluster, left, standing.step).await?;
        return Ok(Progress::Again);
    }
    let Some(desk) = &cluster.desk else {
        step::begin(node, &own, rotation).await?;
        show_new(node, cluster, rotation).await?;
        step::end(node, record.step).await?;
        return Ok(Progress::Watches);
    };
    for side in [&rotation.old, &rotation.new] {
        if Pair::find(&pki, side).is_none() {
            fetch_keys(cluster, rotation).await?;
        }
    }
    let id = cluster.membership().id;
    let others = desk.record().await.map_err(RotationError::Record)?;
    let failed = |step: RotationStep| {
        let others = others.control_plane().filter(|member| member.id != id);
        others.into_iter().any(|member| member.rotation.failure(step).is_some())
    };
    // It may be able to some day, and another step may be chosen.
    if failed(record.step) {
        return Ok(Progress::Waits);
    }
    if let TurnAnswer::Wait(name) = desk.take_trial_turn(id).await.map_err(RotationError::Record)? {
        tracing::debug!(%name, "its turn comes first");
        return Ok(Progress::Waits);
    }
    let taken = take(node, cluster, &own, rotation, record.step).await;
    if let Err(RotationError::Step(StepError::Unwell(reason))) = &taken {
        step::give_up(node, record.step, reason.clone()).await?;
    }
    if let Err(refusal) = desk.end_turn(id).await {
        // The node's part in the cluster's settings ends it later.
        tracing::warn!(%refusal, "the turn is not given back yet");
    }
    match taken {
        Err(RotationError::Step(StepError::Unwell(_))) => Ok(Progress::Watches),
        taken => taken.map(|()| Progress::Watches),
    }
}

async fn take(
    node: &Node,
    cluster: &Cluster,
    own: &Fingerprint,
    rotation: &Rotation,
    step: RotationStep,
) -> Result<(), RotationError> {
    step::begin(node, own, rotation).await?;
    show_new(node, cluster, rotation).await?;
    Ok(step::end(node, step).await?)
}

/// Has what the cluster signs for this node end in what signs now.
async fn show_new(
    node: &Node,
    cluster: &Cluster,
    rotation: &Rotation,
) -> Result<(), RotationError> {
    if shows(cluster, rotation) {
        return Ok(());
    }
    renew(node, cluster, true).await?;
    if shows(cluster, rotation) { Ok(()) } else { Err(RotationError::Unsigned) }
}

/// Whether nothing ends in what does not sign any more. It may have been signed later, in another
/// rotation.
fn shows(cluster: &Cluster, rotation: &Rotation) -> bool {
    let over = match rotation.target.signs() {
        Side::Old => &rotation.new.cluster,
        Side::New => &rotation.old.cluster,
    };
    let purposes = keys::of(cluster.membership().role).iter();
    let mut leaves = purposes.map(|purpose| keys::place(&cluster.paths, *purpose));
    let is_alone = rotation.distrust && rotation.target == Position::New;
    leaves.all(|leaf| {
        is_of_another(&leaf, over) && (!is_alone || crate::pki::shows_behind(&leaf, ""))
    })
}

/// Gets the keys of both sets from whoever has them.
async fn fetch_keys(cluster: &Cluster, rotation: &Rotation) -> Result<(), RotationError> {
    let opener = Opener::generate();
    let request = Request::Keys { recipient: opener.recipient() };
    let answer = cluster.ask_others(request).await;
    let Answer::Keys { sealed, settings, .. } = answer? else {
        return Err(AskError::Answer.into());
    };
    let current = settings.rotation.current.as_deref();
    let current = current.filter(|current| current.new == rotation.new);
    let bundle = microcluster::trust::AuthorityBundle {
        cluster: rotation.old.cluster.clone(),
        front_proxy: rotation.old.front_proxy.clone(),
    };
    let current = current.ok_or(RotationError::NoKeys)?;
    let opened = opener.open(Some(&sealed), &bundle, Some(current))?;
    let next = opened.next.as_ref().ok_or(RotationError::NoKeys)?;
    Ok(store_next(&cluster.paths.pki(), next)?)
}

/// Whether the authority that lies here is none of the cluster's any more. A worker is given another
/// with its certificates.
fn is_left_behind(node: &Node, cluster: &Cluster) -> bool {
    let Some(authorities) = node.authorities() else { return false };
    let settled = cluster.membership().settings.authorities;
    !settled.is_empty() && settled.iter().all(|authority| authorities.find(authority).is_none())
}

/// It was replaced while this node was off, and nobody waited: gets the keys of what took its place.
async fn come_back(
    node: &Node,
    cluster: &Cluster,
    record: &RotationRecord,
) -> Result<(), RotationError> {
    let standing = Standing::read(&cluster.paths.pki())?;
    // Of an earlier rotation, which was not the last.
    if let Some(two) = standing.two.as_deref() {
        step::settle(node, two.at.signs(), standing.step)?;
    }
    let own = own_authority(node, cluster)?;
    let old = node.authorities().and_then(|all| all.find(&own).cloned());
    let old = old.ok_or(RotationError::NoAuthority)?;
    // Its servers are believed by those that it has behind them.
    former::keep(node, record)?;
    let opener = Opener::generate();
    let request = Request::Keys { recipient: opener.recipient() };
    let Answer::Keys { sealed, bundle, settings } = cluster.ask_others(request).await? else {
        return Err(AskError::Answer.into());
    };
    // While the next one is under way, it comes to where that began, and goes on from there.
    let current = settings.rotation.current.as_deref();
    let new = opener.open(Some(&sealed), &bundle, current)?.side;
    if !new.fingerprint().is_some_and(|new| settings.authorities.contains(&new)) {
        return Err(StepError::Unknown.into());
    }
    let pki = cluster.paths.pki();
    store_next(&pki, &new)?;
    let rotation = last_step(&old.certificates, &new.certificates, Position::New);
    if !shows(cluster, &rotation) {
        renew_by(node, cluster, true, Asks::Others).await?;
    }
    tracing::info!("the cluster's authorities were replaced while this node was off");
    let done = if current.is_some() { standing.step } else { settings.rotation.step };
    take(node, cluster, &own, &rotation, done).await?;
    Ok(step::settle(node, Side::New, done)?)
}

/// To an end of the way, without anybody who waits.
fn last_step(
    old: &AuthorityCertificates,
    new: &AuthorityCertificates,
    target: Position,
) -> Rotation {
    Rotation {
        target,
        way: if target == Position::New { Way::On } else { Way::Back },
        old: old.clone(),
        new: new.clone(),
        since: OffsetDateTime::now_utc(),
        complete: None,
        hold_s: 0,
        finished: false,
        without: BTreeSet::new(),
        distrust: false,
    }
}

/// The record knows one set of authorities.
async fn settle(
    node: &Node,
    cluster: &Cluster,
    record: &RotationRecord,
    standing: &Standing,
) -> Result<(), RotationError> {
    let authority = cluster.membership().settings.authorities.first().copied();
    let left = authority.and_then(|one| standing.two.as_deref()?.side_of(&one));
    conclude(node, cluster, left.ok_or(StepError::Unknown)?, record.step).await
}

/// Goes to the end of the way, if it is not there, and forgets the other set.
async fn conclude(
    node: &Node,
    cluster: &Cluster,
    left: Side,
    step: RotationStep,
) -> Result<(), RotationError> {
    let standing = Standing::read(&cluster.paths.pki())?;
    let Some(two) = standing.two.as_deref() else { return Ok(()) };
    let target = match left {
        Side::Old => Position::Old,
        Side::New => Position::New,
    };
    if two.at != target || two.doing.is_some() {
        // It was off, and nobody waited for it.
        let rotation = last_step(&two.old, &two.new, target);
        let own = own_authority(node, cluster)?;
        take(node, cluster, &own, &rotation, step).await?;
    }
    step::settle(node, left, step)?;
    Ok(())
}

fn own_authority(node: &Node, cluster: &Cluster) -> Result<Fingerprint, RotationError> {
    let standing = Standing::read(&cluster.paths.pki())?;
    if let Some(two) = standing.two.as_deref() {
        return two.side(two.at.signs()).fingerprint().ok_or(RotationError::NoAuthority);
    }
    let own = match node.authorities() {
        Some(authorities) => authorities.believed().fingerprint(),
        None => former::believed(&cluster.paths).into_iter().next(),
    };
    own.ok_or(RotationError::NoAuthority)
}

/// Tells the cluster how far this node is, when it does not know.
async fn report(
    cluster: &Cluster,
    reported: &mut Option<(DoneSteps, Instant)>,
) -> Result<(), RotationError> {
    let said = Standing::read(&cluster.paths.pki())?.said();
    let membership = cluster.membership();
    let known = membership.own().map(|own| own.rotation.clone()).unwrap_or_default();
    let is_told = |(told, at): &(_, Instant)| *told == said && at.elapsed() < REPORT_PAUSE;
    if known == said || reported.as_ref().is_some_and(is_told) {
        return Ok(());
    }
    let renew = Renew { rotation: Some(said.clone()), ..Renew::default() };
    cluster.ask(Request::Renew(renew)).await?;
    *reported = Some((said, Instant::now()));
    cluster.wake();
    Ok(())
}

/// Takes keys away that belong to no rotation: of one that was not begun after all.
async fn forget_orphans(cluster: &Cluster) -> Result<(), RotationError> {
    let pki = cluster.paths.pki();
    let Some(desk) = &cluster.desk else { return Ok(()) };
    if !pki.join(NEXT).exists() || Standing::read(&pki)?.two.is_some() {
        return Ok(());
    }
    // What this node has heard may be older than what it has begun.
    let record = desk.record().await.map_err(RotationError::Record)?;
    if record.settings.value.rotation.current.is_none() {
        forget_next(&pki).map_err(StepError::Forget)?;
    }
    Ok(())
}
