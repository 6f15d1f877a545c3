//! `skiff set`: settings for all nodes, asked for on one of them.
//!
//! They hold on this node when the answer comes, or nothing has changed anywhere. In a cluster its
//! record has them then, and `skiff nodes` says which other node has taken them up.

use std::sync::Arc;

use http::StatusCode;
use microcluster::message::{self, RefusalCode};
use microcluster::protocol::{Outcome, decide_set};
use microcluster::record::{
    ClusterSettings, SHARED_BYTES_MAX, SettingsChange, SettingsRevision, SharedSettings,
};
use skiff_api::{SetOutcome, SetRequest, SettingChange};

use super::take_up::{plan, plan_restarts};
use super::{Kept, TakeUpError, take_up};
use crate::config::{self, Config};
use crate::node::cluster::{Cluster, TrialError, routes, try_and_record};
use crate::node::core::Node;
use crate::node::server::{Answer, Refusal, json};

/// Answers a request. It is carried out also when the client goes away.
pub async fn set(node: &Arc<Node>, request: SetRequest) -> Answer {
    let node = node.clone();
    let work = tokio::spawn(async move { change(&node, request).await });
    let outcome = work.await.map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("it was not carried out: {error}"))
    })?;
    outcome.map(|outcome| json(&outcome))
}

async fn change(node: &Node, request: SetRequest) -> Result<SetOutcome, Refusal> {
    if let Some(cluster) = node.worker_of() {
        return Err(routes::on_worker(&cluster));
    }
    let unknown = request.unset.iter().find(|key| !config::is_cluster_wide(key));
    if let Some(key) = unknown {
        let message = format!("there is no setting {key} that the cluster could have");
        let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message);
        return Err(match config::like(key) {
            Some(like) => refusal.hint(format!("skiff set --unset {like}")),
            None => refusal.hint("skiff get --cluster"),
        });
    }
    // A node becomes one of a cluster before or after this.
    let _still = node.setting.lock().await;
    let change = SettingsChange {
        set: request.set.clone(),
        unset: request.unset.iter().cloned().collect(),
        expected: request.revision.map(SettingsRevision),
    };
    match node.cluster() {
        Some(cluster) => of_cluster(node, &cluster, &change, request.dry_run).await,
        None => alone(node, &change, request.dry_run).await,
    }
}

async fn alone(node: &Node, change: &SettingsChange, dry_run: bool) -> Result<SetOutcome, Refusal> {
    let before = node.kept_settings().set;
    let after = alone_after(&before, change)?;
    let config = plan(node, &after).map_err(|error| invalid(&error))?;
    let changes = differences(&node.config(), &config);
    if !dry_run && after != before {
        take_up(node, &after).await.map_err(|error| {
            let error = TrialError::from(error);
            Refusal::from_error(&error).hint(error.hint())
        })?;
        node.keep_settings(Kept::running(&after)).map_err(|e| Refusal::from_error(&e))?;
    }
    Ok(SetOutcome { revision: after.revision.0, changes, dry_run })
}

/// What a lone node's settings become. Pure.
pub fn alone_after(
    before: &SharedSettings,
    change: &SettingsChange,
) -> Result<SharedSettings, Refusal> {
    let refused = |message: String| Refusal::new(StatusCode::CONFLICT, message);
    if let Some(expected) = change.expected.filter(|expected| *expected != before.revision) {
        let message =
            format!("the settings are of revision {} by now, not {expected}", before.revision);
        return Err(refused(message).hint("skiff get --cluster, which shows what has changed"));
    }
    let after = before.changed(change);
    match after.bytes() {
        bytes if bytes > SHARED_BYTES_MAX => Err(refused(format!(
            "the settings would have {bytes} bytes, and {SHARED_BYTES_MAX} are possible"
        ))),
        _ => Ok(after),
    }
}

async fn of_cluster(
    node: &Node,
    cluster: &Cluster,
    change: &SettingsChange,
    dry_run: bool,
) -> Result<SetOutcome, Refusal> {
    let desk = routes::desk(cluster)?;
    let record = desk.record().await.map_err(routes::declined)?;
    let check = |after: &ClusterSettings| match plan(node, &after.shared) {
        Ok(_) => Ok(()),
        Err(error) => Err(said(&error)),
    };
    let before = record.settings.value.shared.clone();
    let after = before.changed(change);
    let decided = decide_set(&record, change, &check).map_err(routes::declined)?;
    let Outcome::SettingsSet(mut revision) = decided.outcome else {
        let bug = "our bug: nothing was decided";
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, bug));
    };
    let now = plan(node, &before).unwrap_or_else(|_| (*node.config()).clone());
    let then = plan(node, &after).map_err(|error| invalid(&error))?;
    let restarts = plan_restarts(node, &then);
    if dry_run || after == before {
        // Nothing to do.
    } else if restarts.is_empty() {
        revision = desk.set(change, &check).await.map_err(routes::declined)?;
        cluster.wake();
    } else {
        let change = SettingsChange { expected: Some(before.revision), ..change.clone() };
        let record = desk.set(&change, &check);
        let tried = try_and_record(node, (cluster, desk), &after, &restarts, record).await;
        revision = tried.map_err(|error| Refusal::from_error(&error).hint(error.hint()))?;
    }
    Ok(SetOutcome { revision: revision.0, changes: differences(&now, &then), dry_run })
}

/// In one line: the protocol's refusals have no causes.
fn said(error: &TakeUpError) -> message::Refusal {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    message::Refusal::new(RefusalCode::SettingInvalid, text).hint(HINT)
}

const HINT: &str = "skiff get --cluster, which shows what holds; nothing has changed";

fn invalid(error: &TakeUpError) -> Refusal {
    Refusal::from_error(error).hint(HINT)
}

/// Of all settings, those that become others.
fn differences(before: &Config, after: &Config) -> Vec<SettingChange> {
    let pairs = before.settings().into_iter().zip(after.settings());
    let differ = pairs.filter(|(before, after)| before.value != after.value);
    differ
        .map(|(before, after)| SettingChange {
            key: before.key,
            before: before.value,
            after: after.value,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(value: i64, expected: Option<u64>) -> SettingsChange {
        SettingsChange {
            set: [("network.mtu".to_owned(), value.into())].into(),
            unset: Default::default(),
            expected: expected.map(SettingsRevision),
        }
    }

    #[test]
    fn a_lone_nodes_settings_are_counted_as_a_clusters_are() {
        let one = alone_after(&SharedSettings::default(), &change(1400, Some(0))).unwrap();
        assert_eq!(one.revision.0, 1);
        assert_eq!(alone_after(&one, &change(1400, None)).unwrap(), one);
        let refused = alone_after(&one, &change(1300, Some(0))).unwrap_err();
        assert_eq!(refused.body.message, "the settings are of revision 1 by now, not 0");
        let mut large = change(1400, None);
        large.set.insert("kube.proxy-args".into(), "x".repeat(SHARED_BYTES_MAX).into());
        assert!(alone_after(&one, &large).is_err());
    }
}
