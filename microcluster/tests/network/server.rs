//! The agent's half of a control-plane member, and a skiffd that tells what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use microcluster::caller::Caller;
use microcluster::client::Client;
use microcluster::door::Door;
use microcluster::relay::Relay;
use microcluster::tls::{Identity, Pin};
use serde_json::{Value, json};
use skiff_doorway::handoff::Handoff;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;

/// What skiffd saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: http::HeaderMap,
    pub caller: Caller,
    pub body: Bytes,
}

/// Answers every request with its path; ends when dropped.
pub struct Skiffd {
    pub seen: Arc<Mutex<Vec<Seen>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Skiffd {
    pub fn start(socket: &Path) -> Skiffd {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = seen.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let all = all.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let all = all.clone();
                    async move { Ok::<_, Infallible>(answer(request, &all).await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        Skiffd { seen, _serving: AbortOnDropHandle::new(serving) }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(request: Request<Incoming>, all: &Mutex<Vec<Seen>>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let caller = Caller::read(&parts.headers).unwrap();
    let body = body.collect().await.unwrap().to_bytes();
    let line = format!("{} {}", parts.method, parts.uri);
    let told = json!({ "line": line, "bytes": body.len() }).to_string();
    all.lock().unwrap().push(Seen { line, headers: parts.headers, caller, body });
    Response::new(Full::new(told.into()))
}

/// A door with its relay.
pub struct Member {
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Member {
    pub async fn start(identity: Arc<Identity>) -> Member {
        Member::start_at("127.0.0.1:0", identity).await
    }

    pub async fn start_at(address: &str, identity: Arc<Identity>) -> Member {
        let dir = tempfile::tempdir().unwrap();
        let (handoff, courier) = Handoff::new(dir.path().join("datastore.sock"));
        let relay = Arc::new(Relay::new(identity, dir.path().join("skiffd.sock")));
        let door = Door::bind(&[address.parse().unwrap()], handoff, relay).await.unwrap();
        let address = door.addresses()[0];
        let tasks = [tokio::spawn(door.run()), tokio::spawn(courier.run())];
        Member { address, dir, _tasks: tasks.map(AbortOnDropHandle::new) }
    }

    pub fn skiffd_socket(&self) -> PathBuf {
        self.dir.path().join("skiffd.sock")
    }

    pub fn skiffd(&self) -> Skiffd {
        Skiffd::start(&self.skiffd_socket())
    }

    pub fn datastore_socket(&self) -> PathBuf {
        self.dir.path().join("datastore.sock")
    }

    /// A joiner's client, whose token has this sha256.
    pub fn joiner(&self, sha256: [u8; 32]) -> Client {
        Client::joiner(vec![self.address.to_string()], Pin::strict(sha256)).unwrap()
    }

    pub async fn is_served(&self, sha256: [u8; 32]) -> bool {
        let answer = self.joiner(sha256).get::<Value>("/cluster/v1/look").await;
        answer.is_ok_and(|answer| answer["line"] == "GET /cluster/v1/look")
    }
}
