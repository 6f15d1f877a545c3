//! The tasks that keep the board true: daemons by their supervisor, the Node object by a watch.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config};
use skiff_supervisor::Handle;

use super::observed::NodeView;
use super::status::{Board, service};
use super::{bootstrap, observed};
use crate::daemons::kube_control;

/// Pause before a broken watch is begun again.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// Copies every change of a daemon to the board. Ends with the supervisor.
pub async fn daemons(supervisor: Handle, board: Arc<Board>) {
    let mut changes = supervisor.subscribe();
    loop {
        let snapshot = changes.borrow_and_update().clone();
        board.update(|observed| {
            observed.services = snapshot.daemons.iter().map(service).collect();
        });
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Follows this machine's Node object whenever the API server answers.
pub async fn node(supervisor: Handle, board: Arc<Board>, kubeconfig: PathBuf, name: String) {
    loop {
        if supervisor.wait_ready(&[kube_control::NAME.into()]).await.is_err() {
            return;
        }
        // A new client each time: the certificate behind the old one may have been renewed.
        if let Err(error) = follow(&board, &kubeconfig, &name).await {
            tracing::debug!(%error, "the watch of the node ended");
            board.update(|observed| observed.node.ready = false);
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

async fn follow(board: &Board, kubeconfig: &std::path::Path, name: &str) -> Result<(), FollowError> {
    let client = client(kubeconfig).await?;
    bootstrap::apply(&client).await?;
    let api: Api<KubeNode> = Api::all(client);
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, selection));
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Apply(node) | Event::InitApply(node) => {
                board.update(|observed| observed.node = view(&node));
            }
            Event::Delete(_) => board.update(|observed| observed.node = NodeView::default()),
            Event::Init | Event::InitDone => {}
        }
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("cannot read skiffd's own credentials")]
    Credentials(#[from] kube::config::KubeconfigError),
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error(transparent)]
    Watch(#[from] watcher::Error),
}

/// A client with the credentials in a kubeconfig, as the files behind it are now.
pub async fn client(kubeconfig: &std::path::Path) -> Result<Client, FollowError> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    Ok(Client::try_from(config)?)
}

fn view(node: &KubeNode) -> observed::NodeView {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    NodeView {
        registered: true,
        ready: ready.is_some_and(|condition| condition.status == "True"),
        message: ready.and_then(|condition| condition.message.clone()).unwrap_or_default(),
    }
}
