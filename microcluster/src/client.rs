//! Asks control-plane members: the first of several addresses that works.
//!
//! Addresses are tried in order, the next one when the last one failed or has been silent for a
//! while. When none works, each is told with its own reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skiff_api::ErrorBody;
use tokio_util::task::AbortOnDropHandle;

use crate::dial::{Connection, DialFailure, dial};
use crate::forward::NOT_ASKED;
use crate::race::race;
use crate::tls::{CONTROL_PLANE_NAME, Identity, Pin, joiner};

/// An address that is silent for so long gets the next one beside it.
const STAGGER: Duration = Duration::from_millis(300);
/// How long an answer may take: longer than skiffd is given by whoever asks it for us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);
/// The largest answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no address of a control-plane member is known")]
    NoAddress,
    /// Nobody was asked.
    #[error("no control-plane member could be asked: {}", list(.0))]
    Unreached(Vec<(String, DialFailure)>),
    /// Whether it did anything is not known.
    #[error("the connection to {address} broke while it was asked")]
    Broken {
        address: String,
        #[source]
        source: hyper::Error,
    },
    /// Whether it did anything is not known.
    #[error("{address} did not answer within {ANSWER_TIMEOUT:?}")]
    Slow { address: String },
    /// It answered with an error of its own.
    #[error("{}", .body.message)]
    Refused { address: String, status: StatusCode, body: ErrorBody },
    #[error("the answer of {address} is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong { address: String },
    #[error("the answer of {address} can't be read by this version")]
    Answer {
        address: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the request can't be built")]
    Request(#[source] http::Error),
    #[error("the request can't be written")]
    Body(#[source] serde_json::Error),
}

fn list(failures: &[(String, DialFailure)]) -> String {
    let each = failures.iter().map(|(address, failure)| format!("{address}: {failure}"));
    each.collect::<Vec<_>>().join("; ")
}

/// Asks whoever of some members answers.
pub struct Client {
    addresses: Vec<String>,
    /// As whom, at the moment.
    config: Box<dyn Fn() -> Arc<ClientConfig> + Send + Sync>,
    /// The address that worked last is the first to be tried: what belongs together goes to one
    /// member as long as it is there.
    first: AtomicUsize,
}

/// An address at which nobody was asked; perhaps the next one is better.
type Attempt = (usize, DialFailure);

impl Client {
    /// As a joiner, who believes the authority of its token only. `addresses` are `HOST:PORT`
    /// each, by address or name.
    pub fn joiner(addresses: Vec<String>, pin: Arc<Pin>) -> Result<Client, rustls::Error> {
        let config = joiner(pin)?;
        Ok(Client::new(addresses, move || config.clone()))
    }

    /// As the member that has this identity, also when it is renewed in the meantime.
    pub fn member(addresses: Vec<String>, identity: Arc<Identity>) -> Client {
        Client::new(addresses, move || identity.now().member)
    }

    fn new(
        addresses: Vec<String>,
        config: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static,
    ) -> Client {
        Client { addresses, config: Box::new(config), first: AtomicUsize::new(0) }
    }

    /// `GET path`, the answer read as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new(), |_| false).await
    }

    /// `POST path` with a JSON body, the answer read as JSON.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.post_on(path, body, |_| false).await
    }

    /// The same, and the next member is asked while `cannot` says of an answer that its member
    /// could not do it now. The first such answer counts when nobody can. Only for what may be said
    /// twice: the member that could not may have begun.
    pub async fn post_on<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        cannot: impl Fn(&T) -> bool,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Body)?;
        self.ask(Method::POST, path, body.into(), cannot).await
    }

    /// The address that worked last.
    pub fn address(&self) -> Option<&str> {
        self.addresses.get(self.first.load(Ordering::Relaxed)).map(String::as_str)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        cannot: impl Fn(&T) -> bool,
    ) -> Result<T, ClientError> {
        if self.addresses.is_empty() {
            return Err(ClientError::NoAddress);
        }
        let mut left: Vec<usize> = (0..self.addresses.len()).collect();
        left.rotate_left(self.first.load(Ordering::Relaxed));
        let mut failures: Vec<Attempt> = Vec::new();
        let mut unable: Option<T> = None;
        loop {
            let (place, connection) = match self.reach(&left).await {
                Ok(reached) => reached,
                Err(more) => return unable.ok_or_else(|| self.unreached(failures, more)),
            };
            let address = &self.addresses[place];
            let request = request(&method, path, body.clone())?;
            match exchange(connection, request, address).await {
                // A listener refuses a certificate only after the client has sent its request.
                Err(ClientError::Broken { source, .. }) if alert(&source).is_some() => {
                    let failure = alert(&source).map_or(DialFailure::Closed, DialFailure::Alert);
                    failures.push((place, failure));
                    left.retain(|other| *other != place);
                }
                Err(error) => return Err(error),
                Ok((parts, _)) if parts.headers.contains_key(NOT_ASKED) => {
                    failures.push((place, DialFailure::Away));
                    left.retain(|other| *other != place);
                }
                Ok((parts, bytes)) => {
                    let answer: T = read(parts.status, &bytes, address)?;
                    if !cannot(&answer) {
                        self.first.store(place, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    left.retain(|other| *other != place);
                    unable.get_or_insert(answer);
                }
            }
        }
    }

    async fn reach(&self, left: &[usize]) -> Result<(usize, Connection), Vec<Attempt>> {
        let config = &(self.config)();
        let attempts = left.iter().copied().map(|place| async move {
            let dialled = dial(&self.addresses[place], config.clone()).await;
            dialled.map(|stream| (place, stream)).map_err(|failure| (place, failure))
        });
        // Each of them has bounds of its own.
        race(attempts, STAGGER).await
    }

    fn unreached(&self, failures: Vec<Attempt>, more: Vec<Attempt>) -> ClientError {
        let mut all: Vec<Attempt> = failures.into_iter().chain(more).collect();
        all.sort_by_key(|(place, _)| *place);
        let named = |(place, failure): Attempt| (self.addresses[place].clone(), failure);
        ClientError::Unreached(all.into_iter().map(named).collect())
    }
}

fn request(method: &Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ClientError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, CONTROL_PLANE_NAME)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Full::new(body))
        .map_err(ClientError::Request)
}

async fn exchange(
    connection: Connection,
    request: Request<Full<Bytes>>,
    address: &str,
) -> Result<(http::response::Parts, Bytes), ClientError> {
    let broken = |source| ClientError::Broken { address: address.to_owned(), source };
    let exchange = async {
        let handshake = http1::handshake(TokioIo::new(connection)).await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(broken)?;
        collect(response, address).await
    };
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
    answered.unwrap_or_else(|_| Err(ClientError::Slow { address: address.to_owned() }))
}

async fn collect(
    response: Response<Incoming>,
    address: &str,
) -> Result<(http::response::Parts, Bytes), ClientError> {
    let (parts, body) = response.into_parts();
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok((parts, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ClientError::TooLong { address: address.to_owned() })
        }
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(source) => ClientError::Broken { address: address.to_owned(), source: *source },
            Err(_) => ClientError::TooLong { address: address.to_owned() },
        }),
    }
}

/// The alert with which a handshake was refused, if that is what broke a connection.
fn alert(error: &hyper::Error) -> Option<rustls::AlertDescription> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) =
            inner.and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Some(*alert);
        }
        next = cause.source();
    }
    None
}

fn read<T: DeserializeOwned>(
    status: StatusCode,
    bytes: &[u8],
    address: &str,
) -> Result<T, ClientError> {
    let address = address.to_owned();
    if status.is_success() {
        return serde_json::from_slice(bytes)
            .map_err(|source| ClientError::Answer { address, source });
    }
    let body = serde_json::from_slice(bytes).unwrap_or_else(|_| ErrorBody {
        message: format!("{address} answered {status}"),
        causes: Vec::new(),
        hint: None,
    });
    Err(ClientError::Refused { address, status, body })
}
