//! A node's way to the API, with API servers that fail in all ways.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use microcluster::balancer::{Backend, Balancer, Checker, Timing};
use microcluster::tls::{Identity, api_server_name};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::AbortOnDropHandle;

use crate::pki::{Leaf, Pki};
use crate::wire::LONG;

/// How an API server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Well,
    Unready,
    /// As a stopped process: the kernel accepts, and nothing answers any more.
    Hanging,
}

/// An API server that answers everything but `/readyz` with its name.
struct ApiServer {
    name: &'static str,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    mode: watch::Sender<Mode>,
    serving: Option<AbortOnDropHandle<()>>,
}

impl ApiServer {
    async fn start(name: &'static str, pki: &Pki) -> ApiServer {
        let pem = pki.pem(&Leaf::api_server());
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (mode, _) = watch::channel(Mode::Well);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = ApiServer { name, address, acceptor, mode, serving: None };
        server.serve(listener);
        server
    }

    fn serve(&mut self, listener: TcpListener) {
        let (name, acceptor, mode) = (self.name, self.acceptor.clone(), self.mode.subscribe());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, name, acceptor.clone(), mode.clone()));
            }
        });
        self.serving = Some(AbortOnDropHandle::new(serving));
    }

    /// All its connections are reset, and nobody listens.
    async fn die(&mut self) {
        self.serving = None;
        // The task ends when the runtime comes to it.
        while TcpStream::connect(self.address).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn rise(&mut self) {
        self.serve(TcpListener::bind(self.address).await.unwrap());
    }

    fn backend(&self, local: bool) -> Backend {
        Backend { node: self.name.to_owned(), address: self.address, local }
    }
}

async fn serve(
    stream: TcpStream,
    name: &'static str,
    acceptor: TlsAcceptor,
    mut mode: watch::Receiver<Mode>,
) {
    let running = |mode: &Mode| *mode != Mode::Hanging;
    if mode.wait_for(running).await.is_err() {
        return;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let mut mode = mode.clone();
        async move {
            let now = mode.wait_for(running).await.map(|mode| *mode);
            let mut response = Response::new(Full::new(Bytes::from_static(name.as_bytes())));
            *response.status_mut() = match now {
                Ok(Mode::Unready) => StatusCode::INTERNAL_SERVER_ERROR,
                // Anonymous requests are off.
                _ if request.uri().path() == "/readyz" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::OK,
            };
            Ok::<_, Infallible>(response)
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// A balancer and who it may believe.
struct Node {
    address: SocketAddr,
    list: watch::Sender<Vec<Backend>>,
    identity: Arc<Identity>,
    _running: AbortOnDropHandle<()>,
}

impl Node {
    async fn start(pki: &Pki, backends: Vec<Backend>) -> Node {
        Node::start_with(pki, backends, Timing::default()).await
    }

    async fn start_with(pki: &Pki, backends: Vec<Backend>, timing: Timing) -> Node {
        let identity = pki.identity("node", &Leaf::kubelet());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let balancer = Balancer::new(listener, Checker::new(identity.clone(), timing));
        let (list, receiver) = watch::channel(backends);
        let running = AbortOnDropHandle::new(tokio::spawn(balancer.run(receiver)));
        Node { address, list, identity, _running: running }
    }

    /// A client with a connection of its own, and the name of who serves it.
    async fn client(&self) -> Result<(ApiClient, String), ()> {
        let connected = async {
            let stream = TcpStream::connect(self.address).await?;
            let config = self.identity.now().api_server;
            TlsConnector::from(config).connect(api_server_name(), stream).await
        };
        let stream = timeout(LONG, connected).await.map_err(drop)?.map_err(drop)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(drop)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let mut client = ApiClient { sender, connection };
        let name = client.ask().await?;
        Ok((client, name))
    }

    async fn served_by(&self) -> Result<String, ()> {
        self.client().await.map(|(_, name)| name)
    }

    /// As a client does that wants to be served: again and again. How long it took.
    async fn until_served_by(&self, names: &[&str]) -> Duration {
        let started = Instant::now();
        loop {
            let served = timeout(Duration::from_millis(200), self.served_by()).await;
            if matches!(&served, Ok(Ok(name)) if names.contains(&name.as_str())) {
                return started.elapsed();
            }
            assert!(started.elapsed() < LONG, "nobody of {names:?} serves: {served:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

struct ApiClient {
    sender: SendRequest<Empty<Bytes>>,
    connection: AbortOnDropHandle<()>,
}

impl ApiClient {
    async fn ask(&mut self) -> Result<String, ()> {
        let request = Request::builder().uri("/who").body(Empty::new()).unwrap();
        let response = self.sender.send_request(request).await.map_err(drop)?;
        let body = response.into_body().collect().await.map_err(drop)?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    /// Waits until its connection ends.
    async fn closed(self) -> Duration {
        let started = Instant::now();
        let _ = timeout(LONG, self.connection).await.expect("its connection is closed");
        started.elapsed()
    }
}

/// Whether this process may have so many files open; makes use of what it may.
fn has_files(wanted: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let hard = getrlimit(Resource::Nofile).maximum;
    let new = Rlimit { current: hard, maximum: hard };
    hard.is_none_or(|hard| hard >= wanted) && setrlimit(Resource::Nofile, new).is_ok()
}

async fn three(pki: &Pki) -> [ApiServer; 3] {
    [
        ApiServer::start("a", pki).await,
        ApiServer::start("b", pki).await,
        ApiServer::start("c", pki).await,
    ]
}

/// Waits until all were asked for the first time.
async fn settle() {
    sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn clients_are_spread_and_the_local_one_is_preferred() {
    let pki = Pki::new();
    let servers = three(&pki).await;
    let remote: Vec<Backend> = servers.iter().map(|server| server.backend(false)).collect();
    let node = Node::start(&pki, remote.clone()).await;
    settle().await;
    let mut kept = Vec::new();
    for _ in 0..9 {
        kept.push(node.client().await.unwrap());
    }
    for name in ["a", "b", "c"] {
        assert_eq!(kept.iter().filter(|(_, by)| by == name).count(), 3, "{name}");
    }
    let with_local = vec![remote[0].clone(), servers[1].backend(true), remote[2].clone()];
    node.list.send(with_local).unwrap();
    settle().await;
    for _ in 0..9 {
        kept.push(node.client().await.unwrap());
        assert_eq!(kept.last().unwrap().1, "b");
    }
}

#[tokio::test]
async fn when_one_dies_its_clients_find_another_at_once() {
    let pki = Pki::new();
    let mut servers = three(&pki).await;
    let backends = servers.iter().map(|server| server.backend(server.name == "a")).collect();
    let node = Node::start(&pki, backends).await;
    settle().await;
    let (client, by) = node.client().await.unwrap();
    assert_eq!(by, "a");
    servers[0].die().await;
    client.closed().await;
    let took = node.until_served_by(&["b", "c"]).await;
    println!("its process died: served again after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Two of three are gone: the last one serves.
    servers[1].die().await;
    let took = node.until_served_by(&["c"]).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    servers[0].rise().await;
    let took = node.until_served_by(&["a"]).await;
    println!("it came back: preferred again after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn when_one_hangs_its_clients_are_sent_elsewhere() {
    let pki = Pki::new();
    let servers = three(&pki).await;
    let backends = servers.iter().map(|server| server.backend(server.name == "a")).collect();
    let node = Node::start(&pki, backends).await;
    settle().await;
    let (client, by) = node.client().await.unwrap();
    assert_eq!(by, "a");
    servers[0].mode.send(Mode::Hanging).unwrap();
    let took = client.closed().await;
    println!("it hung: its connections were closed after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_ne!(node.served_by().await.unwrap(), "a");
    servers[0].mode.send(Mode::Well).unwrap();
    let took = node.until_served_by(&["a"]).await;
    println!("it goes on: preferred again after {took:?}");
}

#[tokio::test]
async fn when_one_is_not_ready_its_clients_go_unless_none_is() {
    let pki = Pki::new();
    let servers = three(&pki).await;
    let backends = servers.iter().map(|server| server.backend(server.name == "a")).collect();
    let interval = Duration::from_millis(250);
    let pause = Duration::from_millis(50);
    let timing = Timing { interval, pause, ..Timing::default() };
    let node = Node::start_with(&pki, backends, timing).await;
    settle().await;
    let (client, _) = node.client().await.unwrap();
    servers[0].mode.send(Mode::Unready).unwrap();
    let took = client.closed().await;
    println!("it was not ready: its connections were closed after {took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    let (mut client, by) = node.client().await.unwrap();
    assert_ne!(by, "a");
    for server in &servers {
        server.mode.send_replace(Mode::Unready);
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(client.ask().await.unwrap(), by, "the datastore is away for all: they stay");
    node.served_by().await.unwrap();
}

#[tokio::test]
async fn whoever_is_removed_serves_nobody_any_more() {
    let pki = Pki::new();
    let servers = three(&pki).await;
    let backends: Vec<Backend> =
        servers.iter().map(|server| server.backend(server.name == "a")).collect();
    let node = Node::start(&pki, backends.clone()).await;
    settle().await;
    let (client, by) = node.client().await.unwrap();
    assert_eq!(by, "a");
    node.list.send(backends[1..].to_vec()).unwrap();
    let took = client.closed().await;
    println!("it was removed: its connections were closed after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    for _ in 0..20 {
        assert_ne!(node.served_by().await.unwrap(), "a");
    }
}

#[tokio::test]
async fn when_all_are_gone_clients_are_refused_at_once_and_the_first_back_serves() {
    let pki = Pki::new();
    let mut servers = three(&pki).await;
    let backends = servers.iter().map(|server| server.backend(false)).collect();
    // Clients who come have them asked, however seldom that is done by itself.
    let timing = Timing { interval: LONG, ..Timing::default() };
    let node = Node::start_with(&pki, backends, timing).await;
    settle().await;
    node.served_by().await.unwrap();
    for server in &mut servers {
        server.die().await;
    }
    // Until the questions that this has caused were asked.
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    assert_eq!(node.served_by().await, Err(()));
    println!("all are gone: refused after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    servers[2].rise().await;
    let took = node.until_served_by(&["c"]).await;
    println!("one is back: served after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn without_any_api_server_clients_are_refused() {
    let node = Node::start(&Pki::new(), vec![]).await;
    assert_eq!(node.served_by().await, Err(()));
}

#[tokio::test]
async fn an_api_server_of_another_cluster_at_the_same_address_is_not_served() {
    let (pki, other) = (Pki::new(), Pki::new());
    let ours = ApiServer::start("ours", &pki).await;
    let foreign = ApiServer::start("foreign", &other).await;
    let node = Node::start(&pki, vec![foreign.backend(true), ours.backend(false)]).await;
    sleep(Duration::from_secs(1)).await;
    for _ in 0..10 {
        assert_eq!(node.served_by().await.unwrap(), "ours");
    }
}

#[tokio::test]
async fn one_that_swallows_everything_costs_a_third_of_a_second() {
    let pki = Pki::new();
    let ours = ApiServer::start("ours", &pki).await;
    // The kernel drops what comes to a full queue, as if the machine had lost its power.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
        filling.push(stream.unwrap());
    }
    let dark = Backend { node: "dark".to_owned(), address, local: true };
    let node = Node::start(&pki, vec![dark, ours.backend(false)]).await;
    let started = Instant::now();
    assert_eq!(node.served_by().await.unwrap(), "ours");
    println!(
        "the first one swallowed everything: served by the next after {:?}",
        started.elapsed()
    );
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_thousand_connections_carry_their_bytes() {
    if !has_files(8192) {
        println!("skipped: a process may not have enough files open");
        return;
    }
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Not an API server: bytes are what is looked at here.
    let echoing = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut all = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            all.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    }));
    let backend = Backend { node: "a".to_owned(), address, local: false };
    let node = Node::start(&pki, vec![backend]).await;
    let started = Instant::now();
    let mut streams = Vec::new();
    for number in 0_u32..1000 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(&number.to_be_bytes()).await.unwrap();
        streams.push(stream);
    }
    let mut seen = HashSet::new();
    for stream in &mut streams {
        seen.insert(timeout(LONG, stream.read_u32()).await.unwrap().unwrap());
    }
    println!("1000 connections at once within {:?}", started.elapsed());
    assert_eq!(seen.len(), 1000);
    drop(streams);
    drop(echoing);
}
