//! Probes that need more than a socket: is the API server ready, does the runtime hold our images.

use std::sync::Arc;
use std::time::Duration;

use skiff_supervisor::Probe;

use super::once::Once;
use crate::addon::ImageStore;
use crate::daemons::agent;
use crate::distribution::Distribution;
use crate::host;
use crate::kube::ClientSource;
use crate::paths::Paths;

/// The API server's `/readyz`, asked with skiffd's own certificate: nobody else may.
pub fn api_server(clients: ClientSource) -> Probe {
    Probe::custom("the API server's /readyz", move || {
        let clients = clients.clone();
        async move {
            let client = clients.client().await.map_err(|error| error.to_string())?;
            readyz(&client, READYZ_SERVING).await
        }
    })
}

/// All but what a first start creates in the store, which takes it seconds: the kubelet needs none
/// of that to register its node.
const READYZ_SERVING: &str = "/readyz?exclude=poststarthook/rbac/bootstrap-roles\
                              &exclude=poststarthook/scheduling/bootstrap-system-priority-classes";
const READYZ: &str = "/readyz";
const READYZ_PAUSE: Duration = Duration::from_millis(50);

/// Returns when the API server has also created what it creates at its first start: before that
/// nobody but the machinery itself is allowed anything.
pub async fn api_server_complete(client: &kube::Client) {
    while readyz(client, READYZ).await.is_err() {
        tokio::time::sleep(READYZ_PAUSE).await;
    }
}

async fn readyz(client: &kube::Client, path: &str) -> Result<(), String> {
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match client.request_text(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(format!("answers {}", status.code)),
        Err(_) => Err("does not answer yet".into()),
    }
}

/// containerd answers and holds the images of the distribution, without which no pod of ours
/// starts. Importing them takes a slow machine minutes, longer than a probe may take.
pub fn containerd(paths: &Paths, build: &Distribution) -> Probe {
    let socket = paths.containerd_socket();
    let store = ImageStore::new(build.bin("ctr"), &socket);
    let build = Arc::new(build.clone());
    let held = Arc::new(Once::new(move || {
        let (store, build) = (store.clone(), build.clone());
        async move {
            for image in &build.images {
                store.ensure(image, build.dir()).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        }
    }));
    Probe::custom("containerd and its images", move || {
        let (held, socket) = (held.clone(), socket.clone());
        async move {
            connect(&socket).await?;
            held.ask("its images are being imported").await
        }
    })
}

/// The agent listens for this node's clients of the API. Not asked by connecting: each connection
/// would be passed on.
pub fn agent() -> Probe {
    Probe::custom("the agent's port", || async {
        match host::is_listening(agent::API_PORT) {
            true => Ok(()),
            false => Err(format!("nobody listens at 127.0.0.1:{}", agent::API_PORT)),
        }
    })
}

async fn connect(socket: &std::path::Path) -> Result<(), String> {
    tokio::net::UnixStream::connect(socket).await.map(drop).map_err(|e| e.to_string())
}
