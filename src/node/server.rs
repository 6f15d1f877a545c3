//! The local API: HTTP/1 and JSON on a Unix socket that root and the group `skiff` may open.

use std::convert::Infallible;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use futures::{Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skiff_api::ErrorBody;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;

use super::routes;
use crate::node::Node;

/// Largest request that is read, in bytes: nearly every request is a handful of options.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Largest request below this path, which brings files: compressed they must fit into one object.
const CONTENT_BYTES_MAX: usize = 16 << 20;
const CONTENT_PATH: &str = "/v1/repositories/";
/// Requests that are served at once; the next ones wait for a place.
const CONNECTIONS_MAX: usize = 128;

pub type Body = BoxBody<Bytes, Infallible>;
pub type Answer = Result<Response<Body>, Refusal>;

/// A request that is answered with an error.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub body: ErrorBody,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { message: message.into(), causes: vec![], hint: None } }
    }

    /// The user can fix it; the whole chain of causes is told.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, body: error_body(error) }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }
}

/// An error and what caused it, outermost first.
pub fn error_body(error: &dyn std::error::Error) -> ErrorBody {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    ErrorBody { message: error.to_string(), causes, hint: None }
}

/// Binds the socket. One that a former skiffd left is replaced; the caller holds the node's lock,
/// so nobody can be listening on it.
pub fn bind(socket: &Path, gid: u32) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    chown(socket, Some(0), Some(gid))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, node: Arc<Node>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::task::spawn(async move {
                    connection(stream, node).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, node: Arc<Node>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(request, node).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the local API ended early");
    }
}

async fn answer(request: Request<Incoming>, node: Arc<Node>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let bound = match parts.uri.path().starts_with(CONTENT_PATH) {
        true => CONTENT_BYTES_MAX,
        false => REQUEST_BYTES_MAX,
    };
    let outcome = match Limited::new(body, bound).collect().await {
        Ok(body) => routes::route(&node, &parts.method, parts.uri.path(), body.to_bytes()).await,
        Err(error) => Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
    };
    outcome.unwrap_or_else(|refusal| {
        let mut response = json(&refusal.body);
        *response.status_mut() = refusal.status;
        response
    })
}

/// A whole answer.
pub fn json<T: Serialize>(value: &T) -> Response<Body> {
    let bytes = serde_json::to_vec(value).expect("API types serialise");
    Response::new(Full::new(Bytes::from(bytes)).boxed())
}

/// An answer that goes on: one JSON object a line.
pub fn json_lines<T: Serialize + Send + Sync + 'static>(
    items: impl Stream<Item = T> + Send + Sync + 'static,
) -> Response<Body> {
    let frames = items.map(|item| {
        let mut line = serde_json::to_vec(&item).expect("API types serialise");
        line.push(b'\n');
        Ok(Frame::data(Bytes::from(line)))
    });
    Response::new(BodyExt::boxed(StreamBody::new(frames)))
}

/// Runs `work` with a sender of progress and answers what it sends. The work goes on when the
/// client goes away: half-done work would be worse.
pub fn json_work<T, F>(work: impl FnOnce(tokio::sync::mpsc::Sender<T>) -> F) -> Response<Body>
where
    T: Serialize + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    /// Lines that wait for a slow reader; beyond this, progress is dropped by the sender.
    const LINES_MAX: usize = 256;
    let (sender, receiver) = tokio::sync::mpsc::channel(LINES_MAX);
    tokio::spawn(work(sender));
    json_lines(ReceiverStream::new(receiver))
}

/// The request's body as a value.
pub fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the request is not valid: {e}"))
    })
}

/// What an unknown path or method gets.
pub fn unknown(method: &Method, path: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no such request: {method} {path}"))
}
