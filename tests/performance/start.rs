//! From the first process to a node that is Ready and a DNS that answers, seen from outside in
//! the same way for both.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde::Serialize;
use skiff::kube::ClientSource;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// Beyond this a start has failed.
pub const START_BOUND: Duration = Duration::from_secs(300);
/// Between two questions whether something is ready: small against what is measured, and the
/// same for both.
pub const ASK_PAUSE: Duration = Duration::from_millis(25);
/// A DNS that is there answers within a millisecond.
const DNS_ANSWER_BOUND: Duration = Duration::from_millis(100);
const DNS_NAME: &str = "kubernetes.default.svc.cluster.local";

/// Seconds since the first process was started.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StartTimes {
    /// The API server's /readyz answers 200.
    pub api_s: f64,
    /// The Node object's condition Ready is True.
    pub ready_s: f64,
    /// The cluster's DNS answers a query to its Service address.
    pub dns_s: f64,
    /// `skiff start` has returned; the peer has no such thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned_s: Option<f64>,
}

/// Waits until the API server is ready; answers a client of it.
pub async fn api_ready(clients: &ClientSource) -> Result<Client> {
    let begun = Instant::now();
    loop {
        let last = match clients.client().await {
            Ok(client) => {
                let request = http::Request::get("/readyz").body(Vec::new())?;
                match client.request_text(request).await {
                    Ok(_) => return Ok(client),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > START_BOUND {
            bail!("the API server is not ready: {last}");
        }
        sleep(ASK_PAUSE).await;
    }
}

/// Waits until the only node of the cluster is Ready.
pub async fn node_ready(client: Client) -> Result<()> {
    let api: Api<Node> = Api::all(client);
    let events = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
    let mut events = std::pin::pin!(events);
    let wait = async {
        loop {
            match events.try_next().await {
                Ok(Some(node)) if is_ready(&node) => return,
                Ok(Some(_)) => {}
                // The watch begins anew by itself.
                Ok(None) | Err(_) => sleep(ASK_PAUSE).await,
            }
        }
    };
    timeout(START_BOUND, wait).await.context("the node does not become Ready")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Waits until the DNS at `server` knows the API server's Service.
pub async fn dns_answers(server: IpAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        // A new socket each time: the kernel remembers for a socket's port that there was nobody.
        match ask(server).await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > START_BOUND => {
                return Err(error).context("DNS does not answer");
            }
            Err(_) => sleep(ASK_PAUSE).await,
        }
    }
}

async fn ask(server: IpAddr) -> Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
    socket.connect((server, 53)).await?;
    socket.send(&query()).await?;
    let mut answer = [0; 512];
    let length = timeout(DNS_ANSWER_BOUND, socket.recv(&mut answer)).await??;
    let answer = &answer[..length];
    // RFC 1035, 4.1.1: response code and number of answers.
    match (answer.get(3).map(|flags| flags & 15), answer.get(6..8)) {
        (Some(0), Some([0, count])) if *count > 0 => Ok(()),
        (code, _) => bail!("answers with code {code:?} and no address"),
    }
}

fn query() -> Vec<u8> {
    let mut bytes = vec![0x5b, 0x5b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in DNS_NAME.split('.') {
        bytes.push(u8::try_from(label.len()).expect("labels of a constant are short"));
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
