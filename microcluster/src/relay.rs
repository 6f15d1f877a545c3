//! Ends TLS for `skiff-cluster/1` and passes one request on to skiffd.
//!
//! Strangers get as far as this process, which has no privilege: it reads one bounded HTTP/1
//! request, writes it anew with nothing of its headers but the content type, says who asks, and
//! sends it to a socket of skiffd that serves nothing else. One connection is one request, so that
//! nothing can be smuggled into the next.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::UnixTime;
use skiff_api::ErrorBody;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::caller::{Caller, ShownCertificate};
use crate::forward::{self, ANSWER_TIMEOUT};
use crate::rate::{Rate, Rates};
use crate::tls::{Identity, Visitors};
use skiff_doorway::places::Place;

/// The largest request: signing requests for all identities of a node have a tenth of it, and each
/// stranger who sends one may cost as much memory.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 32;
/// How long somebody may take to shake hands and to say what is wanted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long somebody may take to read the answer.
const READING_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests of strangers at the same time,
const STRANGERS_MAX: usize = 16;
/// and of members: strangers take nothing from them.
const MEMBERS_MAX: usize = 64;
/// A join is a handful of requests; several machines behind one address may join together.
const STRANGER_RATE: Rate = Rate { burst: 40, interval: Duration::from_millis(500) };
const STRANGERS_RATE: Rate = Rate { burst: 200, interval: Duration::from_millis(20) };
/// Handshakes, members' included: each costs us a signature, half a millisecond at most.
const HANDSHAKE_RATE: Rate = Rate { burst: 200, interval: Duration::from_millis(10) };
const HANDSHAKES_RATE: Rate = Rate { burst: 1000, interval: Duration::from_millis(2) };
/// What is passed on begins so: should the socket ever be another one of skiffd's, nothing there
/// does.
pub const PATH_PREFIX: &str = "/cluster/";

/// What all connections of this kind meet.
pub struct Relay {
    identity: Arc<Identity>,
    skiffd: PathBuf,
    handshakes: Rates,
    strangers: Rates,
    strangers_places: Arc<Semaphore>,
    members_places: Arc<Semaphore>,
}

/// One connection after its handshake.
struct Visit {
    caller: Caller,
    /// Told when the whole request was read.
    read: Mutex<Option<oneshot::Sender<()>>>,
    /// Kept until the answer was read.
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Relay {
    /// Passes on to skiffd's socket for this.
    pub fn new(identity: Arc<Identity>, skiffd: PathBuf) -> Relay {
        let now = Instant::now();
        Relay {
            identity,
            skiffd,
            handshakes: Rates::new(HANDSHAKE_RATE, HANDSHAKES_RATE, now),
            strangers: Rates::new(STRANGER_RATE, STRANGERS_RATE, now),
            strangers_places: Arc::new(Semaphore::new(STRANGERS_MAX)),
            members_places: Arc::new(Semaphore::new(MEMBERS_MAX)),
        }
    }

    /// Serves a connection. Until its request was read it may lose its place.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, from: SocketAddr, mut place: Place) {
        if !self.handshakes.take(from.ip().into(), Instant::now()) {
            debug!(%from, "shakes hands too often");
            return;
        }
        let until = tokio::time::Instant::now() + REQUEST_TIMEOUT;
        let made = self.identity.now();
        let accept = TlsAcceptor::from(made.server).accept(stream);
        let stream = tokio::select! {
            accepted = tokio::time::timeout_at(until, accept) => match accepted {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug!(%from, %error, "the handshake failed"),
                Err(_) => return debug!(%from, "the handshake took too long"),
            },
            () = place.lost() => return debug!(%from, "stalled in the handshake"),
        };
        let (told, read) = oneshot::channel();
        let caller = caller(&stream, from, &made.visitors);
        let (told, none) = (Mutex::new(Some(told)), Mutex::default());
        let visit = Arc::new(Visit { caller, read: told, place: none });
        let serving = self.converse(stream, visit);
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => return,
            _ = read => {}
            () = place.lost() => return debug!(%from, "stalled in its request"),
            () = tokio::time::sleep_until(until) => return debug!(%from, "its request took too long"),
        }
        drop(place);
        if tokio::time::timeout(ANSWER_TIMEOUT + READING_TIMEOUT, serving).await.is_err() {
            debug!(%from, "did not read its answer");
        }
    }

    async fn converse(&self, stream: TlsStream<TcpStream>, visit: Arc<Visit>) {
        let service = service_fn(|request| {
            let visit = visit.clone();
            async move { Ok::<_, Infallible>(self.answer(request, &visit).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(2 * HEAD_BYTES_MAX)
            .header_read_timeout(REQUEST_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            debug!(from = %visit.caller.address, %error, "a request ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>, visit: &Visit) -> Response<Full<Bytes>> {
        let from = visit.caller.address;
        match self.pass_on(request, visit).await {
            Ok(response) => response,
            Err((status, body)) => {
                debug!(%from, %status, reason = body.message, "refused a request");
                refusal(status, &body)
            }
        }
    }

    async fn pass_on(
        &self,
        request: Request<Incoming>,
        visit: &Visit,
    ) -> Result<Response<Full<Bytes>>, (StatusCode, ErrorBody)> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::GET && parts.method != Method::POST {
            return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are served"));
        }
        // Only paths: a whole address of another host, say, is nobody's business here.
        let path = parts.uri.path_and_query().filter(|_| parts.uri.authority().is_none());
        let Some(path) = path.filter(|path| path.as_str().starts_with(PATH_PREFIX)) else {
            return Err(refused(StatusCode::NOT_FOUND, "there is nothing at this path"));
        };
        if !self.is_seldom_enough(visit) {
            return Err(too_many());
        }
        let body = match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
            // Trailers are not looked at.
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = format!("the request is longer than {REQUEST_BYTES_MAX} bytes");
                return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, message));
            }
            Err(_) => return Err(refused(StatusCode::BAD_REQUEST, "the request has no end")),
        };
        // Not before: whoever trickles a request would keep a place here from others.
        if !self.admit(visit) {
            return Err(too_many());
        }
        visit.was_read();
        let mut passed = Request::builder().method(parts.method).uri(path.as_str());
        if let Some(headers) = passed.headers_mut() {
            if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
                headers.insert(CONTENT_TYPE, kind.clone());
            }
            visit.caller.write(headers);
        }
        let passed = passed.body(Full::new(body)).map_err(|error| {
            refused(StatusCode::BAD_REQUEST, format!("the request can't be passed on: {error}"))
        })?;
        forward::send(&self.skiffd, passed).await.map_err(|error| {
            warn!(from = %visit.caller.address, %error, "skiffd gave no answer");
            error.body()
        })
    }

    fn is_seldom_enough(&self, visit: &Visit) -> bool {
        let source = visit.caller.address.ip().into();
        visit.caller.is_known() || self.strangers.take(source, Instant::now())
    }

    /// Finds the request a place among its equals.
    fn admit(&self, visit: &Visit) -> bool {
        let known = visit.caller.is_known();
        let places = if known { &self.members_places } else { &self.strangers_places };
        let Ok(place) = places.clone().try_acquire_owned() else { return false };
        *visit.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        true
    }
}

impl Visit {
    fn was_read(&self) {
        let told = self.read.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nobody waits when the connection is being left.
        told.map(|told| told.send(()));
    }
}

fn caller(stream: &TlsStream<TcpStream>, address: SocketAddr, visitors: &Visitors) -> Caller {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let standing = visitors.standing(chain, UnixTime::now());
    let certificate = standing
        .zip(chain.first())
        .map(|(standing, leaf)| ShownCertificate { der: leaf.to_vec(), standing });
    Caller { address: SocketAddr::new(address.ip().to_canonical(), address.port()), certificate }
}

fn refused(status: StatusCode, message: impl Into<String>) -> (StatusCode, ErrorBody) {
    (status, ErrorBody { message: message.into(), causes: vec![], hint: None })
}

fn too_many() -> (StatusCode, ErrorBody) {
    let hint = Some("try again in a few seconds".to_owned());
    let message = "this member has too many requests".to_owned();
    (StatusCode::TOO_MANY_REQUESTS, ErrorBody { message, causes: vec![], hint })
}

fn refusal(status: StatusCode, body: &ErrorBody) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(body).expect("an error body is plain text");
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(forward::NOT_ASKED, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}
