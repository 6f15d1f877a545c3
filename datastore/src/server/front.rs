//! What stands before each generated service.
//!
//! Lists leave in pieces, which the generated code does not know of; and a
//! message that is too large is refused with etcd's code and words.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::Server;
use super::range_body::RangeBody;
use crate::proto::{RangeRequest, RangeResponse};

const RANGE: &str = "/etcdserverpb.KV/Range";

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
        if request.uri().path() == RANGE {
            let server = self.server.clone();
            return Box::pin(async move {
                let answer = range(&server, request, bytes_max).await;
                Ok(answer.unwrap_or_else(|status| as_etcd_says(status).into_http()))
            });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // A refusal before anything was sent is found here, and nowhere else.
            match answer.extensions().get::<Status>() {
                Some(status) if status.code() == Code::OutOfRange => {
                    Ok(as_etcd_says(status.clone()).into_http())
                }
                _ => Ok(answer),
            }
        })
    }
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
