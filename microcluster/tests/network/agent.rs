//! Everything together, as `skiff agent` runs it.

use std::path::Path;
use std::time::Duration;

use microcluster::agent::{Agent, AgentError, Options};
use microcluster::balancer::{Backend, backends};
use microcluster::client::Client;
use microcluster::tls::Pin;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::pki::{Leaf, Pki};
use crate::server::Skiffd;
use crate::wire::LONG;

fn options(pki: &Pki, dir: &Path) -> Options {
    let files = pki.files("agent", &Leaf::control_plane());
    Options {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        certificate: files.certificate,
        key: files.key,
        authority: files.authority,
        former: None,
        skiffd: dir.join("skiffd.sock"),
        datastore: dir.join("datastore.sock"),
        balancer_listen: "127.0.0.1:0".parse().unwrap(),
        backends: dir.join("backends.json"),
    }
}

/// Says this to whoever comes.
async fn saying(word: &'static [u8]) -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(word).await;
        }
    });
    Backend { node: "a".to_owned(), address, local: false }
}

async fn word(address: std::net::SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut word = vec![0; 3];
    match tokio::time::timeout(LONG, stream.read_exact(&mut word)).await.unwrap() {
        Ok(_) => word,
        Err(_) => Vec::new(),
    }
}

#[tokio::test]
async fn an_agent_serves_both_ports_follows_its_file_and_ends_when_told() {
    let pki = Pki::new();
    let dir = tempfile::tempdir().unwrap();
    let options = options(&pki, dir.path());
    backends::store(&options.backends, &[saying(b"one").await]).unwrap();
    let skiffd = Skiffd::start(&options.skiffd);
    let agent = Agent::bind(options.clone()).await.unwrap();
    let (door, api) = (agent.addresses()[0], agent.api_address());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(agent.run(async { drop(stopped.await) }));

    let pin = Pin::strict(pki.sha256());
    let client = Client::joiner(vec![door.to_string()], pin).unwrap();
    client.get::<Value>("/cluster/v1/look").await.unwrap();
    assert_eq!(skiffd.seen().len(), 1);
    assert_eq!(word(api).await, b"one", "known from its file at the start");
    backends::store(&options.backends, &[saying(b"two").await]).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(word(api).await, b"two");

    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(1), running).await.unwrap().unwrap();
    assert!(TcpStream::connect(door).await.is_err());
    assert!(TcpStream::connect(api).await.is_err());
}

#[tokio::test]
async fn an_agent_says_what_it_can_not_use() {
    let pki = Pki::new();
    let dir = tempfile::tempdir().unwrap();
    let good = options(&pki, dir.path());
    let refused = |options| async { Agent::bind(options).await.map(drop).unwrap_err() };
    let open = "0.0.0.0:0".parse().unwrap();
    let error = refused(Options { balancer_listen: open, ..good.clone() }).await;
    assert!(matches!(error, AgentError::NotLoopback(_)));
    let error = refused(Options { key: dir.path().join("none"), ..good.clone() }).await;
    assert!(matches!(error, AgentError::Tls(_)));
    std::fs::write(&good.backends, "[").unwrap();
    assert!(matches!(refused(good).await, AgentError::Backends(_)));
}
