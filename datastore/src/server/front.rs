//! What stands before each generated service.
//!
//! Lists leave in pieces, which the generated code does not know of; a
//! message that is too large is refused with etcd's code and words; and every
//! request is counted and timed.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tracing::warn;

use super::Server;
use super::range_body::RangeBody;
use crate::error::RequestError;
use crate::proto::{RangeRequest, RangeResponse};
use crate::trace::{self, Traced, TracedBody};

const RANGE: &str = "/etcdserverpb.KV/Range";
/// What is not answered while the data is damaged.
const DATA: [&str; 6] = [
    "/etcdserverpb.KV/",
    "/etcdserverpb.Watch/",
    "/etcdserverpb.Lease/",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/Defragment",
];
/// What is answered by a stream.
const STREAMS: [&str; 4] = [
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Maintenance/Snapshot",
];

/// A generated service and what it shares with all others.
#[derive(Clone)]
pub struct Front<S> {
    inner: S,
    server: Server,
    message_bytes_max: usize,
}

impl<S> Front<S> {
    /// Stands before `inner`, which refuses messages above this size as well.
    pub fn new(inner: S, server: Server, message_bytes_max: usize) -> Front<S> {
        Front { inner, server, message_bytes_max }
    }
}

impl<S: NamedService> NamedService for Front<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let bytes_max = self.message_bytes_max;
        let server = self.server.clone();
        let call = Call::begin(&server, &request);
        if call.wants_data() && !server.engine.shared().is_sound() {
            let refused = as_refused(RequestError::Corrupt.into());
            return Box::pin(async move { Ok(call.end(&server, refused)) });
        }
        if call.path == RANGE {
            return Box::pin(async move {
                let answer = call.within(range(&server, request, bytes_max)).await;
                Ok(call.end(&server, answer.unwrap_or_else(as_refused)))
            });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = call.within(answer).await?;
            // A refusal before anything was sent is found here, and nowhere else.
            let answer = match answer.extensions().get::<Status>() {
                Some(status) if status.code() == Code::OutOfRange => as_refused(status.clone()),
                _ => answer,
            };
            Ok(call.end(&server, answer))
        })
    }
}

/// A request that is counted, timed, and traced when somebody asked for it.
struct Call {
    path: String,
    began: Instant,
    traced: Option<Traced>,
}

impl Call {
    fn begin(server: &Server, request: &Request<Body>) -> Call {
        let path = request.uri().path().to_owned();
        server.engine.shared().metrics.begin(&path);
        let traced = trace::begin(request.headers(), &path);
        Call { path, began: Instant::now(), traced }
    }

    async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.traced {
            Some(traced) => traced.within(work).await,
            None => work.await,
        }
    }

    /// Whether it is answered from what is stored.
    fn wants_data(&self) -> bool {
        DATA.iter().any(|prefix| self.path.starts_with(prefix))
    }

    /// Counts the answer. What streams has only begun, and its time says nothing.
    fn end(self, server: &Server, answer: Response<Body>) -> Response<Body> {
        let metrics = &server.engine.shared().metrics;
        let code = answer.extensions().get::<Status>().map_or(Code::Ok, Status::code);
        let streams = code == Code::Ok && STREAMS.contains(&self.path.as_str());
        if !streams {
            metrics.end(&self.path, code);
        }
        let answer = match self.traced {
            Some(traced) if streams => answer.map(|body| Body::new(TracedBody::new(body, traced))),
            Some(traced) => {
                traced.end(code);
                answer
            }
            None => answer,
        };
        let took = self.began.elapsed();
        if took >= server.slow_after {
            metrics.slow_requests.inc();
            let took_ms = took.as_millis() as u64;
            warn!(method = self.path, took_ms, ?code, "a request took long");
        }
        answer
    }
}

fn as_refused(status: Status) -> Response<Body> {
    let status = as_etcd_says(status);
    let mut answer = status.clone().into_http();
    answer.extensions_mut().insert(status);
    answer
}

async fn range(
    server: &Server,
    request: Request<Body>,
    bytes_max: usize,
) -> Result<Response<Body>, Status> {
    let decoder = ProstCodec::<RangeResponse, RangeRequest>::default().decoder();
    let mut messages = Streaming::new_request(decoder, request.into_body(), None, Some(bytes_max));
    let request =
        messages.message().await?.ok_or_else(|| Status::internal("missing request message"))?;
    let found = super::range::range(server, &request).await?;
    let body = RangeBody::new(found, &server.engine.identity())?;
    let mut answer = Response::new(Body::new(body));
    let content_type = http::HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    Ok(answer)
}

/// A message over the limit in etcd's code, and nearly in its words.
pub fn as_etcd_says(status: Status) -> Status {
    if status.code() != Code::OutOfRange || !status.message().starts_with("Error, decoded") {
        return status;
    }
    let mut numbers = status
        .message()
        .split(|letter: char| !letter.is_ascii_digit())
        .filter(|number| !number.is_empty());
    let (found, limit) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    ))
}
