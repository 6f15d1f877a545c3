//! The typed client of the local API: one connection a request, over the Unix socket.

use std::io;
use std::path::{Path, PathBuf};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::ErrorBody;

/// Largest answer that is read into memory, in bytes; anything longer is streamed.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a request to skiffd gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the node is stopped (or was never started).
    #[error("the node is not running ({})", .0.display())]
    NotRunning(PathBuf),
    /// The socket is there and may not be opened by this user.
    #[error("permission denied on {}", .0.display())]
    Denied(PathBuf),
    #[error("cannot talk to skiffd on {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the connection to skiffd broke")]
    Broken(#[source] hyper::Error),
    /// skiffd answered with an error of its own.
    #[error("{}", .body.message)]
    Refused { status: StatusCode, body: ErrorBody },
    #[error("skiffd sent an answer that this version cannot read")]
    Answer(#[source] serde_json::Error),
    #[error("skiffd's answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the request cannot be built")]
    Request(#[source] http::Error),
}

/// Talks to the skiffd whose socket lies at a path.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`, the answer read as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.send(Method::GET, path, Bytes::new()).await?;
        parse(&collect(body).await?)
    }

    /// `POST path` with a JSON body, the answer read as JSON.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(ClientError::Answer)?;
        let body = self.send(Method::POST, path, bytes.into()).await?;
        parse(&collect(body).await?)
    }

    /// `POST path`, the answer read as lines of JSON while they arrive. `each` returning false
    /// ends the reading.
    pub async fn post_lines<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        each: impl FnMut(T) -> bool,
    ) -> Result<(), ClientError> {
        let bytes = serde_json::to_vec(body).map_err(ClientError::Answer)?;
        lines(self.send(Method::POST, path, bytes.into()).await?, each).await
    }

    /// `GET path`, the answer read as lines of JSON while they arrive: `/v1/watch` streams the
    /// status at each change.
    pub async fn get_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        each: impl FnMut(T) -> bool,
    ) -> Result<(), ClientError> {
        lines(self.send(Method::GET, path, Bytes::new()).await?, each).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.connect_error(e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Broken)?;
        // Ends with the connection, which ends when `sender` and the body are dropped.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "skiffd")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(ClientError::Request)?;
        let response = sender.send_request(request).await.map_err(ClientError::Broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let bytes = collect(response.into_body()).await?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
            message: format!("skiffd answered {status}"),
            causes: Vec::new(),
            hint: None,
        });
        Err(ClientError::Refused { status, body })
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let path = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(path)
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied(path),
            _ => ClientError::Connect { path, source },
        }
    }
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
            if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

async fn lines<T: DeserializeOwned>(
    mut body: Incoming,
    mut each: impl FnMut(T) -> bool,
) -> Result<(), ClientError> {
    let mut pending: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() else { continue };
        if pending.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::TooLarge);
        }
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if !each(parse(&line)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(ClientError::Answer)
}
