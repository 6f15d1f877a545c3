//! Settings of the cluster on this node: takes up those that the record has, by turns where an API
//! server restarts, and tells the cluster how far it has got.
//!
//! A worker hears of them when it asks who belongs to the cluster, a control-plane node follows the
//! record; so does a node that was off, when it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use microcluster::message::{Refusal, Renew, Request};
use microcluster::protocol::TurnAnswer;
use microcluster::record::{
    AppliedSettings, FailedSettings, MemberView, NodeRole, SettingsRevision, SharedSettings,
};

use super::ask::AskError;
use super::upkeep::chain;
use super::{Cluster, Stage};
use crate::daemons::kube_control;
use crate::node::core::Node;
use crate::node::settings::{Kept, plan_restarts, plan_take_up, take_up};
use crate::pki::StoreError;

/// What failed for want of the cluster is tried again, and a turn is asked for again.
const PAUSE: Duration = Duration::from_secs(3);
/// What the cluster seems not to know is told again, for its record may be an older one by now.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum SettingsError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the cluster's record cannot be used: {0}")]
    Record(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
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
    reported: &mut Option<(AppliedSettings, Instant)>,
) -> Result<Progress, SettingsError> {
    // Somebody may be trying others.
    let _turn = node.setting.lock().await;
    let membership = cluster.membership();
    // Who joins began with them, and its join fails if they do no good.
    if membership.stage == Stage::Joining {
        return Ok(Progress::Waits);
    }
    let wanted = &membership.settings.shared;
    let mut progress = Progress::Done;
    if !node.kept_settings().applied().has_dealt_with(wanted.revision) {
        progress = reconcile(node, cluster, wanted).await?;
    }
    // Of a skiffd that died while it tried others.
    if let Some(desk) = &cluster.desk
        && progress == Progress::Done
        && wanted.turn.as_ref().is_some_and(|turn| turn.node == membership.id)
    {
        desk.end_turn(membership.id).await.map_err(SettingsError::Record)?;
    }
    let said = node.kept_settings().applied();
    let known = membership.own().map(|own| own.settings.clone()).unwrap_or_default();
    let is_told = |(told, at): &(_, Instant)| *told == said && at.elapsed() < REPORT_PAUSE;
    if known != said && !reported.as_ref().is_some_and(is_told) {
        report(cluster, &said).await?;
        *reported = Some((said, Instant::now()));
    }
    Ok(progress)
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
            // It may be able to some day, and others may be set.
            TurnAnswer::Stopped { name, reason } => {
                tracing::debug!(%name, reason, "it could not take them up");
                return Ok(Progress::Waits);
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
        desk.end_turn(id).await.map_err(SettingsError::Record)?;
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

/// How far a node has got, in words; nothing when it has taken up the newest.
pub fn behind(member: &MemberView, newest: SettingsRevision) -> Option<String> {
    behind_of(&member.settings, member.role, newest)
}

fn behind_of(
    settings: &AppliedSettings,
    role: NodeRole,
    newest: SettingsRevision,
) -> Option<String> {
    if settings.revision == newest {
        return None;
    }
    Some(match (settings.failure(newest), role) {
        (Some(reason), _) => reason.to_owned(),
        (None, NodeRole::ControlPlane) => "not yet: one after the other".to_owned(),
        (None, NodeRole::Worker) => "not yet".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_behind_is_told_with_its_reason() {
        let member = |role, failed: Option<u64>| {
            let failed = failed.map(|revision| FailedSettings {
                revision: SettingsRevision(revision),
                reason: "no".into(),
            });
            let settings = AppliedSettings { revision: SettingsRevision(1), failed };
            behind_of(&settings, role, SettingsRevision(3))
        };
        assert_eq!(member(NodeRole::Worker, Some(3)).as_deref(), Some("no"));
        assert_eq!(member(NodeRole::Worker, Some(2)).as_deref(), Some("not yet"));
        let waits = Some("not yet: one after the other");
        assert_eq!(member(NodeRole::ControlPlane, None).as_deref(), waits);
        let newest = AppliedSettings { revision: SettingsRevision(3), failed: None };
        assert_eq!(behind_of(&newest, NodeRole::Worker, SettingsRevision(3)), None);
    }
}
