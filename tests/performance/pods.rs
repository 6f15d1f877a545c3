//! How long a pod takes from its creation to Ready, with its image on the node already.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use harness::Series;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::time::timeout;

/// One pod takes a second or two; beyond this it has failed.
const POD_BOUND: Duration = Duration::from_secs(60);

/// Starts pods one after the other, each after the one before is gone; answers milliseconds.
///
/// Measured on the client, from before the request to the watch event that says Ready: the times
/// in objects have whole seconds.
pub async fn start_one_by_one(client: Client, image: &str, count: usize) -> Result<Series> {
    let api: Api<Pod> = Api::namespaced(client, "default");
    let mut series = Series::default();
    for number in 0..count {
        let name = format!("figure-{number}");
        let one = timeout(POD_BOUND, start_one(&api, &name, image)).await;
        series.push(one.with_context(|| format!("pod {name}: no end"))??.as_secs_f64() * 1000.0);
    }
    Ok(series)
}

async fn start_one(api: &Api<Pod>, name: &str, image: &str) -> Result<Duration> {
    let fields = format!("metadata.name={name}");
    let now = api.list(&ListParams::default().fields(&fields)).await?.metadata.resource_version;
    let params = WatchParams::default().fields(&fields);
    let mut events =
        std::pin::pin!(api.watch(&params, &now.context("a list has a version")?).await?);
    let pod = pod(name, image)?;

    let begun = Instant::now();
    api.create(&PostParams::default(), &pod).await?;
    let mut took = None;
    while let Some(event) = events.try_next().await? {
        match (event, took) {
            (WatchEvent::Modified(pod), None) if is_ready(&pod) => {
                took = Some(begun.elapsed());
                api.delete(name, &DeleteParams::default().grace_period(0)).await?;
            }
            (WatchEvent::Deleted(_), Some(took)) => return Ok(took),
            (WatchEvent::Error(status), _) => bail!("the watch ended: {}", status.message),
            _ => {}
        }
    }
    bail!("the watch ended")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

pub fn pod(name: &str, image: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "main", "image": image, "imagePullPolicy": "Never" }],
        },
    }))?)
}
