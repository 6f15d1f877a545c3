//! Connections as somebody else's programs make them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use microcluster::tls::{Pin, control_plane_name, joiner};
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than anything here may take.
pub const LONG: Duration = Duration::from_secs(20);

/// A client that offers these protocols.
pub fn config(sha256: [u8; 32], protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = (*joiner(Pin::strict(sha256)).unwrap()).clone();
    config.alpn_protocols = protocols.iter().map(|text| text.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// The first bytes of such a client.
pub fn hello(protocols: &[&str]) -> Vec<u8> {
    let name = control_plane_name();
    let mut client = ClientConnection::new(config([0; 32], protocols), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

pub async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(control_plane_name(), stream).await
}

/// Sends bytes and reads to the end; what came before it. A reset is an end too.
pub async fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be closed before all is written.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// The same inside TLS, as a stranger.
pub async fn send_tls(address: SocketAddr, sha256: [u8; 32], bytes: &[u8]) -> String {
    let mut stream = connect(address, config(sha256, &["skiff-cluster/1"])).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    String::from_utf8_lossy(&rest(&mut stream).await).into_owned()
}

pub async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection ends");
    answer
}
