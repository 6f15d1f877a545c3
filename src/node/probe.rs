//! Probes that need more than a socket: is the API server ready, does the runtime hold our images.

use std::path::PathBuf;
use std::sync::Arc;

use skiff_supervisor::Probe;
use tokio::sync::Mutex;

use crate::addon::ImageStore;
use crate::distribution::Distribution;
use crate::kube::ClientSource;
use crate::paths::Paths;

/// The API server's `/readyz`, asked with skiffd's own certificate: nobody else may.
pub fn api_server(clients: ClientSource) -> Probe {
    Probe::custom("the API server's /readyz", move || {
        let clients = clients.clone();
        async move {
            let client = clients.client().await.map_err(|error| error.to_string())?;
            let request = http::Request::get("/readyz").body(Vec::new());
            let request = request.map_err(|error| error.to_string())?;
            match client.request_text(request).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) => Err(format!("answers {}", status.code)),
                Err(_) => Err("does not answer yet".into()),
            }
        }
    })
}

/// containerd answers and holds the images of the distribution, without which no pod of ours
/// starts.
pub fn containerd(paths: &Paths, build: &Distribution) -> Probe {
    let socket = paths.containerd_socket();
    let store = Arc::new(ImageStore::new(build.bin("ctr"), &socket));
    let images: Arc<Vec<(String, PathBuf)>> = Arc::new(
        build.images.iter().map(|i| (i.reference.clone(), build.dir().join(&i.file))).collect(),
    );
    let held = Arc::new(Mutex::new(false));
    Probe::custom("containerd and its images", move || {
        let (store, images, held) = (store.clone(), images.clone(), held.clone());
        let socket = socket.clone();
        async move {
            connect(&socket).await?;
            let mut held = held.lock().await;
            if !*held {
                for (reference, archive) in images.iter() {
                    store.ensure(reference, archive).await.map_err(|error| error.to_string())?;
                }
                *held = true;
            }
            Ok(())
        }
    })
}

async fn connect(socket: &std::path::Path) -> Result<(), String> {
    tokio::net::UnixStream::connect(socket).await.map(drop).map_err(|e| e.to_string())
}
