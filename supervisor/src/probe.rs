//! How one sees that a daemon does its work.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A question that a daemon which is well answers.
#[derive(Clone, Debug)]
pub enum Probe {
    /// It is well as long as it runs.
    None,
    /// Somebody accepts connections on a socket.
    UnixConnect(PathBuf),
    Tcp(SocketAddr),
    /// `GET path` over HTTP/1 without TLS answers 2xx.
    HttpGet {
        address: SocketAddr,
        path: String,
    },
    HttpGetUnix {
        socket: PathBuf,
        path: String,
    },
    /// Whatever the caller can ask: this crate has no TLS of its own.
    Custom(CustomProbe),
}

/// When to ask, and how often in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTiming {
    /// Between two questions until it is ready for the first time.
    pub start_interval: Duration,
    /// Between two questions from then on.
    pub interval: Duration,
    /// No answer after this long is a bad one.
    pub timeout: Duration,
    /// This many bad answers in a row make a ready daemon unready.
    pub failures_max: u32,
}

impl Default for ProbeTiming {
    fn default() -> Self {
        Self {
            start_interval: Duration::from_millis(50),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            failures_max: 3,
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A question that the caller asks. The error is a lower-case sentence for the user.
#[derive(Clone)]
pub struct CustomProbe {
    what: String,
    ask: Arc<dyn Fn() -> Answer + Send + Sync>,
}

impl fmt::Debug for CustomProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomProbe").field(&self.what).finish()
    }
}

/// Bytes of an answer that are looked at: the status line fits many times.
const STATUS_LINE_BYTES_MAX: usize = 512;

impl Probe {
    /// `what` completes "waiting for …": "the API server's /readyz".
    pub fn custom<F, Fut>(what: impl Into<String>, probe: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self::Custom(CustomProbe { what: what.into(), ask: Arc::new(move || Box::pin(probe())) })
    }

    /// Completes "waiting for …".
    pub fn describe(&self) -> String {
        match self {
            Self::None => "its process".into(),
            Self::UnixConnect(path) => format!("the socket {}", path.display()),
            Self::Tcp(address) => format!("a listener on {address}"),
            Self::HttpGet { address, path } => format!("http://{address}{path}"),
            Self::HttpGetUnix { socket, path } => format!("{path} on {}", socket.display()),
            Self::Custom(custom) => custom.what.clone(),
        }
    }

    /// Asks once. The error is a lower-case sentence.
    pub async fn ask(&self, timeout: Duration) -> Result<(), String> {
        tokio::time::timeout(timeout, self.ask_unbounded())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
    }

    async fn ask_unbounded(&self) -> Result<(), String> {
        match self {
            Self::None => Ok(()),
            Self::UnixConnect(path) => connect_unix(path).await.map(drop),
            Self::Tcp(address) => connect_tcp(*address).await.map(drop),
            Self::HttpGet { address, path } => get(connect_tcp(*address).await?, path).await,
            Self::HttpGetUnix { socket, path } => get(connect_unix(socket).await?, path).await,
            Self::Custom(custom) => (custom.ask)().await,
        }
    }
}

async fn connect_unix(path: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(path).await.map_err(|error| error_kind(&error))
}

async fn connect_tcp(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| error_kind(&error))
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> Result<(), String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error_kind(&error))?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE_BYTES_MAX {
        match stream.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(error_kind(&error)),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line.split(' ').nth(1).and_then(|code| code.get(..3)?.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(code) => Err(format!("answered {code}")),
        None => Err("answered something that is not HTTP".into()),
    }
}

/// What the user needs of an error: `connection refused`, `entity not found` …
fn error_kind(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "not there yet".into(),
        kind => kind.to_string(),
    }
}
