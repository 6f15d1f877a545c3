//! A Kubernetes client inside a subject's network namespace.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use nix::sched::{CloneFlags, setns};

use crate::subject::Subject;

/// No start takes as long, on any machine.
const READY_BOUND: Duration = Duration::from_secs(300);
/// Between two tries while nobody listens yet: small beside what is measured.
const RETRY: Duration = Duration::from_millis(20);

/// Runs `work` on a thread of its own that has moved to the subject's namespace.
pub fn inside<T, F>(subject: &dyn Subject, work: impl FnOnce() -> F + Send) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>>,
{
    let namespace = std::fs::File::open(subject.namespace())?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        thread.join().unwrap_or_else(|_| bail!("the thread in the namespace panicked"))
    })
}

/// A client for the administrator's kubeconfig, which may not be there yet.
pub async fn connect(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Returns when the only node is Ready, as a watch tells it, and the API server has created what
/// its clients need.
pub fn wait_node_ready(subject: &dyn Subject) -> Result<()> {
    let kubeconfig = subject.admin_kubeconfig();
    inside(subject, || async move {
        let ready = async {
            loop {
                if let Ok(client) = connect(&kubeconfig).await
                    && watch_node(client.clone()).await.is_ok()
                    && is_complete(&client).await
                {
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::time::timeout(READY_BOUND, ready).await.context("the node does not become ready")
    })
}

/// Everything that /readyz looks at.
pub async fn is_complete(client: &Client) -> bool {
    let Ok(ask) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(ask).await.is_ok_and(|answer| answer == "ok")
}

async fn watch_node(client: Client) -> Result<()> {
    let api: Api<Node> = Api::all(client);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.try_next().await? {
        if let Event::Apply(node) | Event::InitApply(node) = event {
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                return Ok(());
            }
        }
    }
    bail!("the watch ended")
}
