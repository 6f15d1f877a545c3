//! How long a pod takes from its creation to Ready, with its image on the node, one after another.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};

use crate::client::{connect, inside};
use crate::figure::{Report, Side, quantile};
use crate::subject::Subject;

/// The image of sandboxes: always there, and nothing in it takes time.
const IMAGE: &str = "skiff.local/pause:1.0.0";
const BOUND: Duration = Duration::from_secs(60);

pub fn measure(side: Side, subject: &dyn Subject, count: usize, report: &mut Report) -> Result<()> {
    let kubeconfig = subject.admin_kubeconfig();
    let taken = inside(subject, || async move {
        let api: Api<Pod> = Api::default_namespaced(connect(&kubeconfig).await?);
        let mut taken = Vec::new();
        for number in 0..count {
            let name = format!("measured-{number}");
            let start = one(&api, &name);
            let start = tokio::time::timeout(BOUND, start).await;
            taken.push(start.with_context(|| format!("{name} does not start"))??);
            api.delete(&name, &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(taken)
    })?;
    report.add("pod start, p50, ms", side, quantile(&taken, 0.5));
    report.add("pod start, p99, ms", side, quantile(&taken, 0.99));
    Ok(())
}

/// Milliseconds, by the clock of this process.
async fn one(api: &Api<Pod>, name: &str) -> Result<f64> {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{ "name": "main", "image": IMAGE, "imagePullPolicy": "Never" }],
        },
    }))?;
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api.clone(), selection));
    // The watch is there before the pod is.
    while !matches!(events.try_next().await?, Some(Event::InitDone) | None) {}
    let begun = Instant::now();
    api.create(&PostParams::default(), &pod).await?;
    while let Some(event) = events.try_next().await? {
        if let Event::Apply(pod) | Event::InitApply(pod) = event {
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                break;
            }
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
