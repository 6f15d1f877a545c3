//! Taking other settings up while the node runs, and going back when they do no good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use microcluster::record::SharedSettings;
use skiff_supervisor::{DaemonName, DaemonSpec, DaemonStatus, HandleError, Snapshot, State};
use time::OffsetDateTime;

use crate::config::{Config, ConfigError, Problem, Shared};
use crate::daemons::Context;
use crate::host;
use crate::node::core::{Node, RenewError};
use crate::node::prepare::{self, PrepareError};

/// What daemons that restart may take until all are ready: a slow machine's API server.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// A daemon that ends soon after it was ready for the first time was not well: components of one
/// process begin one after the other.
const STAYS: Duration = Duration::from_secs(5);
/// Ends of one daemon in a row; once may be an accident.
const FAILURES_MAX: u32 = 2;
/// Of a daemon's last words.
const LAST_LINES: usize = 2;
/// What the network between nodes puts around a packet.
const OVERLAY_BYTES: u32 = 50;

#[derive(Debug, thiserror::Error)]
pub enum TakeUpError {
    #[error("these settings cannot be")]
    Invalid(#[source] Problem),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("network.mtu is {mtu}, and this machine's link carries {carries}")]
    Mtu { mtu: u32, carries: u32 },
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Renew(#[from] RenewError),
    #[error("the daemons were not told")]
    Supervisor(#[from] HandleError),
    #[error("{daemon} does not run with them: {reason}; it runs as before again")]
    Unwell { daemon: String, reason: String },
}

/// What the node would be with these settings. Pure but for a look at the machine's link.
pub fn plan(node: &Node, set: &SharedSettings) -> Result<Config, TakeUpError> {
    Shared::check(set).map_err(TakeUpError::Invalid)?;
    let shared = match node.cluster() {
        Some(cluster) => cluster.membership().shared(set.clone()),
        None => Shared::set(set.clone()),
    };
    let config = node.config().with_shared(&shared)?;
    check_mtu(&config, &node.context())?;
    Ok(config)
}

fn check_mtu(config: &Config, context: &Context) -> Result<(), TakeUpError> {
    let mtu = config.network.mtu;
    if mtu == context.mtu {
        return Ok(());
    }
    let around = if context.cluster.is_some() { OVERLAY_BYTES } else { 0 };
    match host::mtu_at(context.address).map(|link| link.saturating_sub(around)) {
        Some(carries) if mtu > carries => Err(TakeUpError::Mtu { mtu, carries }),
        _ => Ok(()),
    }
}

/// The daemons that would restart.
pub fn plan_restarts(node: &Node, config: &Config) -> Vec<String> {
    let before = node.context();
    let mut after = before.clone();
    after.take_settings(config);
    changed(&node.specs(&before), &node.specs(&after))
}

fn changed(before: &[DaemonSpec], after: &[DaemonSpec]) -> Vec<String> {
    let digests: BTreeMap<&DaemonName, String> =
        before.iter().map(|spec| (&spec.name, spec.digest())).collect();
    let is_other = |spec: &&DaemonSpec| digests.get(&spec.name) != Some(&spec.digest());
    after.iter().filter(is_other).map(|spec| spec.name.to_string()).collect()
}

/// Has the node run with these settings, or as it did before.
pub async fn take_up(node: &Node, set: &SharedSettings) -> Result<(), TakeUpError> {
    let config = Arc::new(plan(node, set)?);
    let before = node.config();
    let restarts = plan_restarts(node, &config);
    if let Err(error) = tell(node, config, &restarts).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "goes back to former settings");
        if let Err(error) = tell(node, before, &restarts).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the node does not run with its former settings either");
        }
        return Err(error);
    }
    tracing::info!(revision = %set.revision, ?restarts, "other settings hold");
    Ok(())
}

/// Safe to repeat.
async fn tell(node: &Node, config: Arc<Config>, restarts: &[String]) -> Result<(), TakeUpError> {
    node.set_config(config.clone());
    node.renew_leaves(OffsetDateTime::now_utc())?;
    if restarts.is_empty() {
        return Ok(());
    }
    let context = node.update_context(|context| context.take_settings(&config));
    prepare::files(&context)?;
    let before = node.supervisor.snapshot();
    node.supervisor.reconfigure(node.specs(&context)).await?;
    wait_until_well(node, restarts, &before).await
}

/// Returns when daemons that were told something else have been ready for a while.
pub async fn wait_until_well(
    node: &Node,
    names: &[String],
    before: &Snapshot,
) -> Result<(), TakeUpError> {
    let mut changes = node.supervisor.subscribe();
    let mut found = Found::Pending(String::new());
    let settle = async {
        loop {
            found = judge(&changes.borrow_and_update(), names, before);
            match &found {
                Found::Pending(_) => {}
                Found::Failed { .. } => return Ok(()),
                Found::Well => {
                    // A change within that time is looked at; none means that all is well.
                    match tokio::time::timeout(STAYS, changes.changed()).await {
                        Err(_) => return Ok(()),
                        Ok(changed) => changed.map_err(|_| HandleError::Ended)?,
                    }
                    continue;
                }
            }
            changes.changed().await.map_err(|_| HandleError::Ended)?;
        }
    };
    let late = tokio::time::timeout(READY_TIMEOUT, settle).await;
    let is_late = late.is_err();
    if let Ok(ended) = late {
        ended.map_err(TakeUpError::Supervisor)?;
    }
    match found {
        Found::Well => Ok(()),
        Found::Failed { daemon, reason } => Err(TakeUpError::Unwell { daemon, reason }),
        Found::Pending(daemon) => {
            debug_assert!(is_late, "nothing else ends the waiting");
            let reason = format!("it is not ready within {} s", READY_TIMEOUT.as_secs());
            Err(TakeUpError::Unwell { daemon, reason })
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Well,
    /// The first that is not ready yet.
    Pending(String),
    Failed {
        daemon: String,
        reason: String,
    },
}

/// How daemons with other settings are. Pure.
fn judge(now: &Snapshot, names: &[String], before: &Snapshot) -> Found {
    let mut pending = None;
    for name in names {
        let Some(daemon) = now.get(name) else { continue };
        let restarts = before.get(name).map_or(0, |before| before.restarts);
        let has_ended = daemon.restarts.saturating_sub(restarts) >= FAILURES_MAX;
        if daemon.state == State::CrashLoop || has_ended {
            return Found::Failed { daemon: name.clone(), reason: reason(daemon) };
        }
        // Somebody wants it so.
        if daemon.state == State::Stopped {
            continue;
        }
        if !daemon.is_settled() {
            pending.get_or_insert_with(|| name.clone());
        }
    }
    pending.map_or(Found::Well, Found::Pending)
}

fn reason(daemon: &DaemonStatus) -> String {
    let Some(failure) = &daemon.failure else { return daemon.message.clone() };
    let lines = failure.last_log.iter().filter(|line| !line.trim().is_empty());
    let lines: Vec<&str> = lines.map(|line| line.trim()).collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    match last {
        [] => failure.reason.clone(),
        last => format!("{}: {}", failure.reason, last.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use skiff_supervisor::Failure;

    use super::*;

    fn daemon(name: &str, state: State, restarts: u32) -> DaemonStatus {
        DaemonStatus {
            name: name.into(),
            state,
            message: String::new(),
            pid: None,
            since: OffsetDateTime::UNIX_EPOCH,
            restarts,
            last_exit: None,
            failure: Some(Failure {
                reason: "exit code 1".into(),
                last_log: vec!["a".into(), "unknown flag".into(), String::new()],
                count: 1,
            }),
            needs: vec![],
            adopted: false,
            outdated: false,
            usage: None,
            events: vec![],
        }
    }

    #[test]
    fn a_daemon_that_keeps_ending_is_told_with_its_last_words_and_one_end_is_an_accident() {
        let names = ["one".to_owned(), "two".to_owned()];
        let snapshot = |state, restarts| Snapshot {
            daemons: vec![daemon("one", State::Ready, 0), daemon("two", state, restarts)],
        };
        let before = snapshot(State::Ready, 3);
        let pending = Found::Pending("two".into());
        let reason = "exit code 1: a; unknown flag".to_owned();
        let failed = Found::Failed { daemon: "two".into(), reason };
        for (state, restarts, found) in [
            (State::Ready, 3, &Found::Well),
            (State::Starting, 3, &pending),
            (State::Backoff, 4, &pending),
            (State::Backoff, 5, &failed),
            (State::Ready, 5, &failed),
            (State::CrashLoop, 4, &failed),
        ] {
            assert_eq!(judge(&snapshot(state, restarts), &names, &before), *found, "{state:?}");
        }
        let mut outdated = snapshot(State::Ready, 3);
        outdated.daemons[0].outdated = true;
        assert_eq!(judge(&outdated, &names, &before), Found::Pending("one".into()));
        assert_eq!(judge(&outdated, &names[1..], &before), Found::Well, "others do not count");
    }
}
