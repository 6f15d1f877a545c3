//! Settings are tried on the node where they are typed before the cluster records them: what no
//! daemon runs with reaches nobody.
//!
//! ```text
//!   its turn ─> files, daemons ─> ready, and stays so ─> recorded ─> the others
//!                                    │ no                   │ no: somebody was faster
//!                                    └── everything as it was, and the reason
//! ```
//!
//! Whoever dies in between begins with what it had: its own file is written last.

use std::future::Future;

use microcluster::message::Refusal;
use microcluster::protocol::TurnAnswer;
use microcluster::record::{NodeName, SettingsRevision, SharedSettings};

use super::upkeep::{chain, look};
use super::{Cluster, ClusterDesk};
use crate::daemons::kube_control;
use crate::node::core::Node;
use crate::node::settings::{Kept, TakeUpError, take_up};
use crate::pki::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error(transparent)]
    TakeUp(#[from] TakeUpError),
    #[error("{0} restarts its API server for other settings now; one does at a time")]
    Busy(NodeName),
    #[error("{0}")]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TrialError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::TakeUp(_) => "skiff logs, which says more; nothing has changed".into(),
            Self::Busy(_) => "the same again when skiff nodes shows that it has them".into(),
            Self::Refused(refusal) => refusal.hint.clone(),
            Self::Store(_) => "skiff check".into(),
        }
    }
}

/// Runs with these settings and has them recorded, or changes nothing. The caller holds
/// `Node::setting`, and `restarts` says which daemons start anew.
pub async fn try_and_record(
    node: &Node,
    (cluster, desk): (&Cluster, &ClusterDesk),
    settings: &SharedSettings,
    restarts: &[String],
    record: impl Future<Output = Result<SettingsRevision, Refusal>>,
) -> Result<SettingsRevision, TrialError> {
    let id = cluster.membership().id;
    let needs_turn = restarts.iter().any(|name| name == kube_control::NAME);
    if needs_turn
        && let TurnAnswer::Wait(name) =
            desk.take_trial_turn(id).await.map_err(TrialError::Refused)?
    {
        return Err(TrialError::Busy(name));
    }
    let done = run_and_record(node, settings, record).await;
    if needs_turn && let Err(refusal) = desk.end_turn(id).await {
        // The node's part in the cluster's settings ends it later.
        tracing::warn!(%refusal, "the turn is not given back yet");
    }
    // Before anybody compares what the node runs with to what it last heard.
    if let Err(error) = look(node, cluster, desk).await {
        tracing::debug!(reason = chain(&error), "the record is looked at later");
    }
    done
}

async fn run_and_record(
    node: &Node,
    settings: &SharedSettings,
    record: impl Future<Output = Result<SettingsRevision, Refusal>>,
) -> Result<SettingsRevision, TrialError> {
    take_up(node, settings).await?;
    match record.await {
        Ok(revision) => {
            node.keep_settings(Kept::running(&SharedSettings { revision, ..settings.clone() }))?;
            Ok(revision)
        }
        Err(refusal) => {
            let former = node.kept_settings().set;
            if let Err(error) = take_up(node, &former).await {
                tracing::error!(reason = chain(&error), "the node does not run as it did before");
            }
            Err(TrialError::Refused(refusal))
        }
    }
}
