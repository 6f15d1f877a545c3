//! Sockets in other processes.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microcluster::tls::IdentityFiles;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skiff_doorway::handoff::Handed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::pki::{Leaf, Pki};
use crate::server::Member;
use crate::wire::{LONG, config, connect, hello, rest};

const SOCKET: &str = "SKIFF_TEST_SOCKET";
const IDENTITY: &str = "SKIFF_TEST_IDENTITY";

/// TLS as the datastore speaks it.
fn acceptor(files: &IdentityFiles) -> TlsAcceptor {
    let chain = [&files.certificate, &files.authority]
        .map(|path| CertificateDer::from_pem_file(path).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.to_vec(), PrivateKeyDer::from_pem_file(&files.key).unwrap())
        .unwrap();
    config.alpn_protocols = microcluster::tls::ALPN_DATASTORE.map(<[u8]>::to_vec).to_vec();
    TlsAcceptor::from(Arc::new(config))
}

/// Sends back what it gets.
async fn echo(acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

fn receiver(socket: &Path, files: &IdentityFiles) -> AbortOnDropHandle<()> {
    let mut handed = Handed::bind(socket, 0o660).unwrap();
    let acceptor = acceptor(files);
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(stream) = handed.accept().await {
            tokio::spawn(echo(acceptor.clone(), stream));
        }
    }))
}

/// Not a test of its own: a receiver in a process of its own, for those below.
#[tokio::test]
async fn receiver_process() {
    let (Some(socket), Some(identity)) = (std::env::var_os(SOCKET), std::env::var_os(IDENTITY))
    else {
        return;
    };
    let dir = Path::new(&identity);
    let leaf = dir.join("a");
    let authority = dir.join("ca.crt");
    let files = IdentityFiles { certificate: leaf.clone(), key: leaf, authority, former: None };
    let _receiver = receiver(Path::new(&socket), &files);
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// A process that is killed at the end, also of a test that fails.
struct Receiver(Child);

impl Receiver {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_process(socket: &Path, pki: &Pki) -> Receiver {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "handoff::receiver_process", "--nocapture"])
        .env(SOCKET, socket)
        .env(IDENTITY, pki.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Receiver(child)
}

/// Sends bytes there and back by way of the receiver.
async fn echoed(member: &Member, pki: &Pki, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let config = config(pki.sha256(), &["skiff-raft/1"]);
    let mut stream = connect(member.address, config).await?;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let mut back = vec![0; bytes.len()];
    tokio::time::timeout(LONG, stream.read_exact(&mut back)).await??;
    Ok(back)
}

#[tokio::test]
async fn a_handed_over_connection_carries_every_byte_from_its_greeting_on() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let _process = start_process(&member.datastore_socket(), &pki);
    wait_for(&member.datastore_socket()).await;
    let bytes: Vec<u8> =
        (0..1_000_000_u32).map(|number| (number >> 3) as u8 ^ number as u8).collect();
    let started = Instant::now();
    let (a, b) = (echoed(&member, &pki, &bytes), echoed(&member, &pki, &bytes[..10]));
    let (a, b) = tokio::join!(a, b);
    assert!(a.unwrap() == bytes && b.unwrap() == bytes[..10]);
    println!("1 MB there and back by another process within {:?}", started.elapsed());
}

#[tokio::test]
async fn connections_wait_for_a_receiver_that_was_killed_and_comes_back() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let mut process = start_process(&member.datastore_socket(), &pki);
    wait_for(&member.datastore_socket()).await;
    echoed(&member, &pki, b"before").await.unwrap();
    process.kill();
    let started = Instant::now();
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        start_process(&member.datastore_socket(), &pki)
    };
    let (echo, _process) = tokio::join!(echoed(&member, &pki, b"meanwhile"), back);
    assert_eq!(echo.unwrap(), b"meanwhile");
    println!("a connection came over {:?} after its receiver was killed", started.elapsed());
}

#[tokio::test]
async fn without_a_receiver_connections_end_after_a_while_and_requests_are_served() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let _skiffd = member.skiffd();
    let started = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(member.address).await.unwrap();
        stream.write_all(&hello(&["skiff-peer/1"])).await.unwrap();
        streams.push(stream);
    }
    assert!(member.is_served(pki.sha256()).await);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for mut stream in streams {
        rest(&mut stream).await;
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let _receiver = receiver(&member.datastore_socket(), &pki.files("a", &Leaf::control_plane()));
    assert_eq!(echoed(&member, &pki, b"later").await.unwrap(), b"later");
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_its_own_connections_only() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let _skiffd = member.skiffd();
    // It accepts and never answers, as a stopped process does.
    let hanging = tokio::net::UnixListener::bind(member.datastore_socket()).unwrap();
    let mut stream = TcpStream::connect(member.address).await.unwrap();
    stream.write_all(&hello(&["skiff-ping/1"])).await.unwrap();
    assert!(member.is_served(pki.sha256()).await);
    let started = Instant::now();
    // The copy in the hanging socket's queue keeps it open; ours is given up.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    drop(hanging);
    rest(&mut stream).await;
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn only_connections_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut handed = Handed::bind(&path, 0o600).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    for other in [file.as_fd(), pair.as_fd()] {
        let mut link = tokio::net::UnixStream::connect(&path).await.unwrap();
        let fds = [other];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let bytes = [std::io::IoSlice::new(&[1])];
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(&link, &bytes, &mut control, flags).unwrap();
        assert_eq!(rest(&mut link).await, b"", "it is not confirmed");
    }
    let nothing = tokio::time::timeout(Duration::from_millis(100), handed.accept()).await;
    assert!(nothing.is_err());
}

#[tokio::test]
async fn a_socket_that_somebody_listens_on_is_not_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let first = Handed::bind(&path, 0o600).unwrap();
    let second = Handed::bind(&path, 0o600).map(drop);
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(first);
    // The task that listens ends a little later.
    let deadline = Instant::now() + Duration::from_secs(2);
    while Handed::bind(&path, 0o600).is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(Handed::bind(&path, 0o600).is_err(), "it is no socket");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

async fn wait_for(socket: &Path) {
    let deadline = Instant::now() + LONG;
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        assert!(Instant::now() < deadline, "the receiver does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
