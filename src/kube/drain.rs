//! Moves the pods of a node away, as kubectl's `drain` does, by the node's own identity: a worker
//! may evict what runs on itself and read little else.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, EvictParams, ListParams};
use kube::{Client, ResourceExt};
use tokio::time::Instant;

use super::{ClientError, ClientSource};

/// Between two looks at what is left: a budget may allow the next eviction by then.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one look, with its evictions, may take until the API server counts as silent.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Pods of files on the machine, which the API server only mirrors.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Pods that a sentence names.
const NAMED_MAX: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error("nobody would make these pods anew: {}", named(.0))]
    Lone(Vec<String>),
    #[error("pods are left after {} s: {}", bound.as_secs(), named(left))]
    Late { bound: Duration, left: Vec<String> },
    #[error("the API server did not do it")]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the API server did not answer within {} s", LOOK_TIMEOUT.as_secs())]
    Silent,
}

/// What becomes of a pod when its node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It belongs to the node, or has ended.
    Stays,
    /// Somebody makes another one elsewhere.
    Moves,
    /// Evicted already, and ends within its grace.
    Ends,
    /// Nobody makes it anew.
    Lone,
}

/// Whether a node gets no new pods.
pub async fn is_cordoned(clients: &ClientSource, node: &str) -> Result<bool, DrainError> {
    let get = |client| async move { Api::<Node>::all(client).get(node).await };
    let node = patiently(clients, get).await?;
    Ok(node.spec.and_then(|spec| spec.unschedulable).unwrap_or_default())
}

/// Takes a node out of service.
pub async fn cordon(clients: &ClientSource, node: &str) -> Result<(), DrainError> {
    let cordon = |client| async move { Api::<Node>::all(client).cordon(node).await };
    patiently(clients, cordon).await.map(drop)
}

/// Puts a node back into service; one that is not there is not.
pub async fn uncordon(clients: &ClientSource, node: &str) -> Result<(), DrainError> {
    let uncordon = |client| async move { Api::<Node>::all(client).uncordon(node).await };
    match patiently(clients, uncordon).await {
        Err(DrainError::Kube(kube::Error::Api(refusal))) if refusal.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Asks again while no API server answers, or the one that did cannot do it now.
async fn patiently<T, F: Future<Output = Result<T, kube::Error>>>(
    clients: &ClientSource,
    ask: impl Fn(Client) -> F,
) -> Result<T, DrainError> {
    let asked = async {
        loop {
            match ask(clients.client().await?).await {
                Err(kube::Error::Api(refusal)) if (400..500).contains(&refusal.code) => {
                    return Err(kube::Error::Api(refusal).into());
                }
                Err(error) => tracing::debug!(%error, "asks the API server again"),
                Ok(answer) => return Ok(answer),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LOOK_TIMEOUT, asked).await.unwrap_or(Err(DrainError::Silent))
}

/// Evicts all pods of a cordoned node that belong elsewhere and returns when they are gone; how many
/// they were. `bound` is how long that may take; without one it takes as long as it takes. Pods that
/// nobody makes anew are named before anything is evicted. `say` is told what is left.
pub async fn drain(
    clients: &ClientSource,
    node: &str,
    bound: Option<Duration>,
    say: impl Fn(&str),
) -> Result<usize, DrainError> {
    let deadline = bound.map(|bound| Instant::now() + bound);
    let mut seen = std::collections::BTreeSet::new();
    let mut told = String::new();
    loop {
        // Anew each time: it may have been given another certificate, or another API server.
        let look = async { look(clients.client().await?, node).await };
        let looked =
            tokio::time::timeout(LOOK_TIMEOUT, look).await.unwrap_or(Err(DrainError::Silent));
        let left = match looked {
            Err(error @ DrainError::Lone(_)) => return Err(error),
            Ok(left) if left.is_empty() => return Ok(seen.len()),
            other => other,
        };
        let sentence = match &left {
            Ok(left) => format!("moving pods away, {} left: {}", left.len(), named(&words(left))),
            Err(error) => format!("moving pods away: {error}"),
        };
        if sentence != told {
            say(&sentence);
            told = sentence;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let bound = bound.unwrap_or_default();
            return Err(left.map_or_else(
                |error| error,
                |left| DrainError::Late { bound, left: words(&left) },
            ));
        }
        seen.extend(left.into_iter().flat_map(BTreeMap::into_keys));
        tokio::time::sleep(PAUSE).await;
    }
}

/// Pods that are left, each with the reason where it is known.
type Left = BTreeMap<String, String>;

/// Asks for the eviction of each pod that may move and was not evicted.
async fn look(client: Client, node: &str) -> Result<Left, DrainError> {
    let of_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = Api::<Pod>::all(client.clone()).list(&of_node).await?.items;
    let is = |fate| pods.iter().filter(move |pod| judge(pod) == fate);
    let lone: Vec<String> = is(Fate::Lone).map(name).collect();
    if !lone.is_empty() {
        return Err(DrainError::Lone(lone));
    }
    let mut left: Left = is(Fate::Ends).map(|pod| (name(pod), "is ending".into())).collect();
    for pod in is(Fate::Moves) {
        let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let reason = match api.evict(&pod.name_any(), &EvictParams::default()).await {
            Ok(_) => "is ending".to_owned(),
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => continue,
            Err(kube::Error::Api(refusal)) => refusal.message,
            Err(error) => error.to_string(),
        };
        left.insert(name(pod), reason);
    }
    Ok(left)
}

fn judge(pod: &Pod) -> Fate {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        _ if pod.annotations().contains_key(MIRROR) => Fate::Stays,
        _ if matches!(phase, Some("Succeeded" | "Failed")) => Fate::Stays,
        Some(owner) if owner.kind == "DaemonSet" => Fate::Stays,
        _ if pod.metadata.deletion_timestamp.is_some() => Fate::Ends,
        Some(_) => Fate::Moves,
        None => Fate::Lone,
    }
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn words(left: &Left) -> Vec<String> {
    left.iter().map(|(pod, reason)| format!("{pod} ({reason})")).collect()
}

fn named(pods: &[String]) -> String {
    let first = pods[..pods.len().min(NAMED_MAX)].join(", ");
    match pods.len().saturating_sub(NAMED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_becomes_of_a_pod_follows_from_who_made_it() {
        let owned = |kind: &str, rest: &str| {
            pod(&format!(
                r#"{{"metadata":{{"name":"a","ownerReferences":[{{"apiVersion":"v1","kind":"{kind}",
                "name":"o","uid":"u","controller":true}}]{rest}}}}}"#
            ))
        };
        let ending = r#","deletionTimestamp":"2026-11-27T12:00:00Z""#;
        for (pod, fate) in [
            (owned("ReplicaSet", ""), Fate::Moves),
            (owned("ReplicaSet", ending), Fate::Ends),
            (owned("DaemonSet", ""), Fate::Stays),
            (owned("DaemonSet", ending), Fate::Stays),
            (pod(r#"{"metadata":{"name":"a"}}"#), Fate::Lone),
            (pod(r#"{"metadata":{"name":"a"},"status":{"phase":"Succeeded"}}"#), Fate::Stays),
            (
                pod(
                    r#"{"metadata":{"name":"a","annotations":{"kubernetes.io/config.mirror":"x"}}}"#,
                ),
                Fate::Stays,
            ),
        ] {
            assert_eq!(judge(&pod), fate, "{pod:?}");
        }
    }

    #[test]
    fn a_sentence_names_a_few_pods_and_counts_the_rest() {
        let pods: Vec<String> = (0..5).map(|number| format!("default/{number}")).collect();
        assert_eq!(named(&pods[..2]), "default/0, default/1");
        assert_eq!(named(&pods), "default/0, default/1, default/2 and 2 more");
    }
}
