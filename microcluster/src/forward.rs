//! One request to skiffd over its socket, and the answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use skiff_api::ErrorBody;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// The largest answer: the settings of a cluster and its authorities.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long skiffd may take: it asks the datastore, which may be electing a leader.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long its socket may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Marks answers to what skiffd never saw: another member can be asked.
pub const NOT_ASKED: HeaderName = HeaderName::from_static("skiff-not-asked");

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Nothing was asked.
    #[error("skiffd does not listen on {}", path.display())]
    Away {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Whether it did anything is not known.
    #[error("the connection to skiffd broke")]
    Broken(#[source] hyper::Error),
    #[error("skiffd did not answer within {ANSWER_TIMEOUT:?}")]
    Slow,
    #[error("skiffd's answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

impl ForwardError {
    /// What the caller is told.
    pub fn body(&self) -> (StatusCode, ErrorBody) {
        let (status, message, hint) = match self {
            ForwardError::Away { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the node daemon of this member is not running",
                "start it there with `skiff start`, or ask another member",
            ),
            ForwardError::Broken(_) => (
                StatusCode::BAD_GATEWAY,
                "the node daemon of this member went away while it was asked",
                "ask again: what was done already is not done twice",
            ),
            ForwardError::Slow => (
                StatusCode::GATEWAY_TIMEOUT,
                "the node daemon of this member did not answer in time",
                "look at `skiff status` there, or ask another member",
            ),
            ForwardError::TooLong => (
                StatusCode::BAD_GATEWAY,
                "the node daemon of this member answered more than is passed on",
                "look at `skiff logs agent` there",
            ),
        };
        let message = message.to_owned();
        (status, ErrorBody { message, causes: vec![], hint: Some(hint.to_owned()) })
    }
}

/// Sends a request that was bounded before.
pub async fn send(
    socket: &Path,
    request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, ForwardError> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await;
    let stream = connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| ForwardError::Away { path: socket.to_owned(), source })?;
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, exchange(stream, request)).await;
    answered.unwrap_or(Err(ForwardError::Slow))
}

async fn exchange(
    stream: UnixStream,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, ForwardError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(ForwardError::Broken)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let length = request.body().size_hint().lower();
    request.headers_mut().insert(CONTENT_LENGTH, length.into());
    request.headers_mut().insert(HOST, HeaderValue::from_static("skiffd"));
    let response = sender.send_request(request).await.map_err(ForwardError::Broken)?;
    let (parts, body) = response.into_parts();
    let body = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(ForwardError::TooLong),
        Err(error) => {
            return match error.downcast::<hyper::Error>() {
                Ok(error) => Err(ForwardError::Broken(*error)),
                Err(_) => Err(ForwardError::TooLong),
            };
        }
    };
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    Ok(answer)
}
