//! Why pods do not run, in their own words.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};

use super::check::one_line;
use super::object::OWNER_LABEL;

/// Longest time to look for a cause: it is a help, never what is waited for.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);
/// Most pods that are looked at: the first that is in trouble tells enough.
const PODS_MAX: u32 = 50;
/// Most events of one pod that are looked at.
const EVENTS_MAX: u32 = 20;

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub sentence: String,
    /// It does not pass by waiting alone.
    pub failing: bool,
    pub pod: String,
    pub namespace: String,
    /// The container that crashed: its last words say why.
    crashed: Option<String>,
}

/// Asks the cluster what is wrong with the pods of an addon. No answer in time is no cause.
pub async fn find(client: &Client, addon: &str) -> Option<Cause> {
    tokio::time::timeout(FIND_TIMEOUT, ask(client, addon)).await.ok().flatten()
}

async fn ask(client: &Client, addon: &str) -> Option<Cause> {
    let params = ListParams::default().labels(&format!("{OWNER_LABEL}={addon}")).limit(PODS_MAX);
    let pods = Api::<Pod>::all(client.clone()).list(&params).await.ok()?;
    let mut cause = worst(&pods.items)?;
    let extra = match &cause.crashed {
        Some(container) => last_words(client, &cause, container).await,
        None if !cause.failing => last_warning(client, &cause).await,
        None => None,
    };
    if let Some(extra) = extra {
        cause.failing |= cause.crashed.is_none();
        cause.sentence = format!("{}: {extra}", cause.sentence);
    }
    Some(cause)
}

/// The most telling trouble among pods: one that fails before one that only waits.
fn worst(pods: &[Pod]) -> Option<Cause> {
    let living = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let mut causes: Vec<Cause> = living.filter_map(trouble).collect();
    causes.sort_by_key(|cause| !cause.failing);
    causes.into_iter().next()
}

fn trouble(pod: &Pod) -> Option<Cause> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    let cause = |sentence: String, failing, crashed| Cause {
        sentence: format!("pod {name}: {}", one_line(&sentence)),
        failing,
        pod: name.clone(),
        namespace: pod.namespace().unwrap_or_default(),
        crashed,
    };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let untrue = |kind: &str| conditions.iter().find(|c| c.type_ == kind && c.status == "False");
    if let Some(unscheduled) = untrue("PodScheduled") {
        let said = unscheduled.message.clone().unwrap_or_else(|| "no node takes it".into());
        return Some(cause(said, true, None));
    }
    let init = status.init_container_statuses.iter().flatten();
    let containers = status.container_statuses.iter().flatten();
    for container in init.chain(containers) {
        if let Some((sentence, failing, crashed)) = container_trouble(container) {
            return Some(cause(sentence, failing, crashed.then(|| container.name.clone())));
        }
    }
    match status.phase.as_deref() {
        Some("Failed") => {
            let said = status.message.clone().or(status.reason.clone());
            Some(cause(said.unwrap_or_else(|| "it failed".into()), true, None))
        }
        Some("Pending") => Some(cause("it is being started".into(), false, None)),
        _ => untrue("Ready").map(|_| cause("it is not ready yet".into(), false, None)),
    }
}

/// Sentence, whether it fails, whether the container crashed.
fn container_trouble(container: &ContainerStatus) -> Option<(String, bool, bool)> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        // These two are the ordinary way to a running container.
        if matches!(reason, "ContainerCreating" | "PodInitializing" | "") {
            return None;
        }
        let message = waiting.message.as_deref().unwrap_or_default();
        return Some((join(reason, message), true, reason == "CrashLoopBackOff"));
    }
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let reason = ended.reason.as_deref().unwrap_or("ended");
    let message = ended.message.as_deref().unwrap_or_default();
    Some((join(&format!("{reason} with exit code {}", ended.exit_code), message), true, true))
}

fn join(reason: &str, message: &str) -> String {
    if message.is_empty() { reason.into() } else { format!("{reason}: {message}") }
}

/// The last line that a crashed container wrote.
async fn last_words(client: &Client, cause: &Cause, container: &str) -> Option<String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &cause.namespace);
    for previous in [true, false] {
        let params = LogParams {
            container: Some(container.into()),
            previous,
            tail_lines: Some(1),
            limit_bytes: Some(4096),
            ..LogParams::default()
        };
        let log = api.logs(&cause.pod, &params).await.unwrap_or_default();
        if !log.trim().is_empty() {
            return Some(format!("its last words: {}", one_line(&log)));
        }
    }
    None
}

/// The newest warning about a pod, while its containers have not begun.
async fn last_warning(client: &Client, cause: &Cause) -> Option<String> {
    let api: Api<Event> = Api::namespaced(client.clone(), &cause.namespace);
    let fields = format!("involvedObject.name={},type=Warning", cause.pod);
    let params = ListParams::default().fields(&fields).limit(EVENTS_MAX);
    let events = api.list(&params).await.ok()?;
    let stamp = |event: &Event| {
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.clone());
        let newest = series.map(|t| t.0).or(event.last_timestamp.clone().map(|t| t.0));
        newest.or(event.metadata.creation_timestamp.clone().map(|t| t.0))
    };
    let newest = events.items.into_iter().max_by_key(stamp)?;
    // A probe that fails at first is part of every start.
    if newest.reason.as_deref() == Some("Unhealthy") {
        return None;
    }
    newest.message.as_deref().map(one_line)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, status: Value) -> Pod {
        let metadata = json!({ "name": name, "namespace": "kube-system" });
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({
            "phase": "Pending",
            "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason, "message": message } },
            }],
        })
    }

    #[test]
    fn a_failing_pod_is_told_before_one_that_starts() {
        let pods = [
            pod("a", waiting("ContainerCreating", "")),
            pod("b", waiting("ErrImageNeverPull", "Container image \"x\" is not present")),
        ];
        let cause = worst(&pods).unwrap();
        let expected = "pod b: ErrImageNeverPull: Container image \"x\" is not present";
        assert_eq!((cause.sentence.as_str(), cause.failing), (expected, true));
        let cause = worst(&pods[..1]).unwrap();
        assert_eq!((cause.sentence.as_str(), cause.failing), ("pod a: it is being started", false));
    }

    #[test]
    fn a_crash_remembers_its_container() {
        let cause = worst(&[pod("a", waiting("CrashLoopBackOff", "back-off"))]).unwrap();
        assert_eq!(cause.crashed.as_deref(), Some("c"));
    }

    #[test]
    fn a_pod_that_no_node_takes_says_so() {
        let conditions =
            json!([{ "type": "PodScheduled", "status": "False", "message": "0/1 nodes" }]);
        let cause = worst(&[pod("a", json!({ "conditions": conditions }))]).unwrap();
        assert_eq!(cause.sentence, "pod a: 0/1 nodes");
    }

    #[test]
    fn healthy_pods_have_no_trouble() {
        let running = json!({ "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True" } ] });
        assert_eq!(worst(&[pod("a", running)]), None);
    }
}
