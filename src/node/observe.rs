//! The tasks that keep the board true: daemons by their supervisor, the Node object by a watch.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use skiff_supervisor::Handle;

use super::core::Node;
use super::observed::NodeView;
use super::status::{Board, service};
use super::{bootstrap, observed, pod_network, probe};
use crate::daemons::{agent, kube_control};
use crate::kube::{ClientError, ClientSource};

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

/// Copies every change of an addon to the board. When the API server is there for the first time,
/// brings the enabled addons in step with this build.
pub async fn addons(node: Arc<Node>) {
    let reconcile = async {
        if node.supervisor.wait_ready(&[kube_control::NAME.into()]).await.is_err() {
            return;
        }
        node.reconcile_addons().await;
    };
    let follow = node.addons.follow(|addons| node.board.update(|seen| seen.addons = addons));
    tokio::join!(reconcile, follow);
}

/// Follows this machine's Node object whenever the API server answers.
pub async fn node(
    supervisor: Handle,
    board: Arc<Board>,
    clients: ClientSource,
    name: String,
    // Where this node runs the control plane: the network of which it takes the first share.
    pod_cidr: Option<String>,
) {
    let way = if pod_cidr.is_some() { kube_control::NAME } else { agent::NAME };
    loop {
        if supervisor.wait_ready(&[way.into()]).await.is_err() {
            return;
        }
        // A new client each time: the certificate behind the old one may have been renewed.
        if let Err(error) = follow(&board, &clients, &name, pod_cidr.as_deref()).await {
            tracing::debug!(%error, "the watch of the node ended");
            board.update(|observed| observed.node.ready = false);
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

async fn follow(
    board: &Board,
    clients: &ClientSource,
    name: &str,
    pod_cidr: Option<&str>,
) -> Result<(), FollowError> {
    let client = clients.client().await?;
    if pod_cidr.is_some() {
        bootstrap::apply(&client).await?;
    }
    let api: Api<KubeNode> = Api::all(client.clone());
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, selection));
    let mut complete = std::pin::pin!(probe::api_server_complete(&client));
    let mut is_complete = false;
    loop {
        let event = tokio::select! {
            event = events.try_next() => event?,
            () = &mut complete, if !is_complete => {
                is_complete = true;
                board.update(|observed| observed.node.api_complete = true);
                continue;
            }
        };
        match event {
            Some(Event::Apply(node) | Event::InitApply(node)) => {
                board.update(|observed| observed.node = view(&node, is_complete));
                if let Some(pod_cidr) = pod_cidr {
                    pod_network::assign_first_share(&client, &node, pod_cidr).await?;
                }
            }
            Some(Event::Delete(_)) => {
                board.update(|observed| observed.node = NodeView::default());
            }
            Some(Event::Init | Event::InitDone) => {}
            None => return Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Credentials(#[from] ClientError),
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error(transparent)]
    Watch(#[from] watcher::Error),
}

fn view(node: &KubeNode, api_complete: bool) -> observed::NodeView {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    NodeView {
        registered: true,
        api_complete,
        ready: ready.is_some_and(|condition| condition.status == "True"),
        message: ready.and_then(|condition| condition.message.clone()).unwrap_or_default(),
    }
}
