//! Settings of the cluster on this node: takes up those that the record has, by turns where an API
//! server restarts, and tells the cluster how far it has got.
//!
//! A worker hears of them when it asks who belongs to the cluster, a control-plane node follows the
//! record; so does a node that was off, when it is back.

use std::sync::Arc;
use std::time::Duration;

use microcluster::message::{Refusal, Renew, Request};
use microcluster::protocol::TurnAnswer;
use microcluster::record::{
    AppliedSettings, FailedSettings, MemberView, NodeId, NodeRole, SettingsRevision, SharedSettings,
};

use super::ask::AskError;
use super::upkeep::chain;
use super::{Cluster, ClusterDesk, Stage};
use crate::daemons::kube_control;
use crate::node::core::Node;
use crate::node::settings::{Kept, plan_restarts, plan_take_up, take_up};
use crate::pki::StoreError;

/// What failed for want of the cluster is tried again, and a turn is asked for again.
const PAUSE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum SettingsError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the cluster's record cannot be used: {0}")]
    Record(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be done about the settings that the cluster has.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// Taking them up; whether it needs a turn is found when it is known what restarts.
    TakeUp,
}

/// Never ends. What fails is tried again, and told when it is news.
pub async fn run(node: Arc<Node>, cluster: Arc<Cluster>) {
    let mut told = None;
    let mut reported = None;
    loop {
        let outcome = turn(&node, &cluster, &mut reported).await;
        let failure = outcome.as_ref().err().map(|error| chain(error));
        if let Some(reason) = failure.as_ref().filter(|_| failure != told) {
            tracing::warn!(reason, "settings of the cluster are not taken up yet");
        }
        told = failure;
        match outcome {
            Ok(Progress::Done) => cluster.settings_wake.notified().await,
            Ok(Progress::Waits) | Err(_) => tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = cluster.settings_wake.notified() => {}
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// For somebody else's turn, or for newer settings.
    Waits,
}

async fn turn(
    node: &Node,
    cluster: &Cluster,
    reported: &mut Option<AppliedSettings>,
) -> Result<Progress, SettingsError> {
    let membership = cluster.membership();
    // Who joins began with them, and its join fails if they do no good.
    if membership.stage == Stage::Joining {
        return Ok(Progress::Waits);
    }
    let wanted = &membership.settings.shared;
    let mut progress = Progress::Done;
    if plan(wanted, &node.kept_settings().applied()) == Step::TakeUp {
        progress = reconcile(node, cluster, wanted).await?;
    }
    let said = node.kept_settings().applied();
    let known = membership.own().map(|own| own.settings.clone()).unwrap_or_default();
    if known != said && reported.as_ref() != Some(&said) {
        report(cluster, &said).await?;
        *reported = Some(said);
    }
    Ok(progress)
}

/// An older revision than this node's own is a member's that has not heard of the newest; one that a
/// restore has brought back is as good as any other.
fn plan(wanted: &SharedSettings, applied: &AppliedSettings) -> Step {
    match applied.has_dealt_with(wanted.revision) {
        true => Step::Nothing,
        false => Step::TakeUp,
    }
}

async fn reconcile(
    node: &Node,
    cluster: &Cluster,
    wanted: &SharedSettings,
) -> Result<Progress, SettingsError> {
    let restarts = match plan_take_up(node, wanted) {
        Ok(config) => plan_restarts(node, &config),
        // Said again, with the reason, below.
        Err(_) => vec![],
    };
    let id = cluster.membership().id;
    let needs_turn = restarts.iter().any(|name| name == kube_control::NAME);
    let desk = cluster.desk.as_ref().filter(|_| needs_turn);
    if let Some(desk) = desk {
        match desk.take_turn(id, wanted.revision).await.map_err(SettingsError::Record)? {
            TurnAnswer::Granted => {}
            TurnAnswer::Wait(name) => {
                tracing::debug!(%name, "its turn comes first");
                return Ok(Progress::Waits);
            }
            TurnAnswer::Outdated => return Ok(Progress::Waits),
            TurnAnswer::Stopped { name, reason } => {
                note_failure(node, wanted, format!("held back, since {name} said: {reason}"))?;
                return Ok(Progress::Done);
            }
        }
    }
    match take_up(node, wanted).await {
        Ok(()) => node.keep_settings(Kept::running(wanted))?,
        Err(error) => note_failure(node, wanted, chain(&error))?,
    }
    if let Some(desk) = desk {
        // First: nobody else may try what has failed here.
        let said = node.kept_settings().applied();
        report(cluster, &said).await?;
        end_turn(desk, id).await?;
    }
    Ok(Progress::Done)
}

fn note_failure(node: &Node, wanted: &SharedSettings, reason: String) -> Result<(), StoreError> {
    tracing::error!(revision = %wanted.revision, reason, "settings were not taken up");
    let failed = Some(FailedSettings { revision: wanted.revision, reason });
    node.keep_settings(Kept { failed, ..node.kept_settings() })
}

async fn report(cluster: &Cluster, said: &AppliedSettings) -> Result<(), SettingsError> {
    let renew = Renew { settings: Some(said.clone()), ..Renew::default() };
    cluster.ask(Request::Renew(renew)).await?;
    cluster.wake();
    Ok(())
}

async fn end_turn(desk: &ClusterDesk, id: NodeId) -> Result<(), SettingsError> {
    desk.end_turn(id).await.map_err(SettingsError::Record)
}

/// How far a node has got, in words; nothing when it has taken up the newest.
pub fn behind(member: &MemberView, newest: SettingsRevision) -> Option<String> {
    if member.settings.revision == newest {
        return None;
    }
    Some(match (member.settings.failure(newest), member.role) {
        (Some(reason), _) => reason.to_owned(),
        (None, NodeRole::ControlPlane) => "not yet: one after the other".to_owned(),
        (None, NodeRole::Worker) => "not yet".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_up_what_it_has_not_tried_yet() {
        let wanted = |n| SharedSettings { revision: SettingsRevision(n), ..Default::default() };
        let failed = |n| FailedSettings { revision: SettingsRevision(n), reason: "no".into() };
        let runs = |n, failed| AppliedSettings { revision: SettingsRevision(n), failed };
        for (newest, applied, step) in [
            (0, runs(0, None), Step::Nothing),
            (1, runs(0, None), Step::TakeUp),
            (3, runs(1, Some(failed(2))), Step::TakeUp),
            (2, runs(1, Some(failed(2))), Step::Nothing),
            // The value that failed was taken back.
            (3, runs(2, Some(failed(2))), Step::TakeUp),
            // A restored record.
            (1, runs(2, None), Step::TakeUp),
        ] {
            assert_eq!(plan(&wanted(newest), &applied), step, "{newest} {applied:?}");
        }
    }
}
