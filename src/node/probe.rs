//! Probes that need more than a socket: is the API server ready, does the runtime hold our images.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use skiff_supervisor::Probe;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::observe;
use crate::distribution::{Distribution, Image};
use crate::paths::Paths;

/// Importing one image takes a second on a fast disk; an SD card is given more.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// The API server's `/readyz`, asked with skiffd's own certificate: nobody else may.
pub fn api_server(kubeconfig: PathBuf) -> Probe {
    let kept: Arc<Mutex<Option<kube::Client>>> = Arc::default();
    Probe::custom("the API server's /readyz", move || {
        let (kubeconfig, kept) = (kubeconfig.clone(), kept.clone());
        async move {
            let mut kept = kept.lock().await;
            let client = match kept.take() {
                Some(client) => client,
                None => observe::client(&kubeconfig).await.map_err(|e| e.to_string())?,
            };
            let request = http::Request::get("/readyz").body(Vec::new()).map_err(|e| e.to_string())?;
            match client.request_text(request).await {
                Ok(_) => {
                    *kept = Some(client);
                    Ok(())
                }
                // The next try gets a new client: this one's certificate may have been renewed.
                Err(kube::Error::Api(status)) => Err(format!("answers {}", status.code)),
                Err(_) => Err("does not answer yet".into()),
            }
        }
    })
}

/// containerd answers and holds the images of the distribution that pods need before any other.
pub fn containerd(paths: &Paths, build: &Distribution, images: Vec<Image>) -> Probe {
    let ctr = Ctr { program: build.bin("ctr"), socket: paths.containerd_socket() };
    let images: Arc<Vec<(Image, PathBuf)>> = Arc::new(
        images.into_iter().map(|i| (i.clone(), build.dir().join(&i.file))).collect(),
    );
    let held = Arc::new(Mutex::new(false));
    Probe::custom("containerd and its images", move || {
        let (ctr, images, held) = (ctr.clone(), images.clone(), held.clone());
        async move {
            let mut held = held.lock().await;
            if *held {
                return connect(&ctr.socket).await;
            }
            connect(&ctr.socket).await?;
            for (image, archive) in images.iter() {
                ctr.ensure(image, archive).await?;
            }
            *held = true;
            Ok(())
        }
    })
}

async fn connect(socket: &std::path::Path) -> Result<(), String> {
    tokio::net::UnixStream::connect(socket).await.map(drop).map_err(|e| e.to_string())
}

/// containerd's own client, in the namespace of Kubernetes.
#[derive(Clone, Debug)]
struct Ctr {
    program: PathBuf,
    socket: PathBuf,
}

impl Ctr {
    async fn ensure(&self, image: &Image, archive: &std::path::Path) -> Result<(), String> {
        let filter = format!("name=={}", image.reference);
        if !self.run(&["images", "ls", "--quiet", &filter]).await?.trim().is_empty() {
            return Ok(());
        }
        self.run(&["images", "import", "--local", &archive.to_string_lossy()]).await?;
        // The kubelet's garbage collection leaves pinned images alone.
        self.run(&["images", "label", &image.reference, "io.cri-containerd.pinned=pinned"]).await?;
        tracing::info!(image = image.reference, "imported");
        Ok(())
    }

    async fn run(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io"]).args(args);
        command.stdin(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(IMPORT_TIMEOUT, command.output()).await {
            Ok(Ok(output)) if output.status.success() => {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", IMPORT_TIMEOUT.as_secs())),
        }
    }
}
