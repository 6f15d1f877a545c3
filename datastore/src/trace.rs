//! Traces of requests for OpenTelemetry, off unless etcd's options ask for them.
//!
//! ```text
//!  client ──(traceparent)──> request ─┬─ settle (the leader's word for a read)
//!                                     ├─ write, on the leader
//!                                     └─ forward ──(traceparent)──> Peer/Forward on the leader ── write
//! ```
//!
//! Follows the W3C's Trace Context and OpenTelemetry's conventions for RPC, as
//! etcd does. Spans leave in the background, by OTLP over gRPC; nobody waits
//! for them, and when the collector does not keep up they are dropped.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Frame, SizeHint};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tonic::Code;
use tonic::body::Body;
use tracing::{info, warn};

use crate::options::Options;

/// How long the last spans may take to leave at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Of so many requests the sampling rate counts.
const RATE_OF: f64 = 1e6;

/// Makes spans, once [`start`] was asked to; one for the process.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
#[error("can't send traces to {address}")]
pub struct TraceError {
    address: String,
    #[source]
    source: ExporterBuildError,
}

/// What keeps spans until they are sent.
pub struct Traces(SdkTracerProvider);

/// Begins to trace when the options ask for it. Needs a runtime.
pub fn start(options: &Options) -> Result<Option<Traces>, TraceError> {
    if !options.enable_distributed_tracing {
        return Ok(None);
    }
    let address = &options.distributed_tracing_address;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(format!("http://{address}"))
        .build()
        .map_err(|source| TraceError { address: address.clone(), source })?;
    let rate = f64::from(options.distributed_tracing_sampling_rate) / RATE_OF;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(rate)));
    let mut resource = Resource::builder_empty()
        .with_service_name(options.distributed_tracing_service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if let Some(instance) = &options.distributed_tracing_instance_id {
        resource = resource.with_attribute(KeyValue::new("service.instance.id", instance.clone()));
    }
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource.build())
        .build();
    let _ = TRACER.set(provider.tracer("skiff-datastore"));
    info!(address, per_million = options.distributed_tracing_sampling_rate, "requests are traced");
    Ok(Some(Traces(provider)))
}

impl Traces {
    /// Sends what is left, for a bounded time.
    pub async fn stop(self) {
        let shutdown = move || self.0.shutdown_with_timeout(FLUSH_TIMEOUT);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(shutdown).await {
            warn!(%error, "the last spans are not sent");
        }
    }
}

/// A request that is traced.
pub struct Traced(Context);

/// Begins the span of a request, beneath the caller's.
pub fn begin(headers: &HeaderMap, path: &str) -> Option<Traced> {
    let tracer = TRACER.get()?;
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    let name = path.trim_start_matches('/');
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    let span = tracer
        .span_builder(name.to_owned())
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
        ])
        .start_with_context(tracer, &parent);
    Some(Traced(parent.with_span(span)))
}

impl Traced {
    /// Does the request's work, whose steps are spans beneath this one.
    pub fn within<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.with_context(self.0.clone())
    }

    /// Ends the span.
    pub fn end(self, code: Code) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code as i32)));
        // Whoever lets go of a stream has made no mistake.
        if code != Code::Ok && code != Code::Cancelled {
            span.set_status(Status::error(code.description()));
        }
        span.end();
    }
}

/// The body of an answer that streams: its span ends when it does, in order or not.
pub struct TracedBody {
    inner: Body,
    traced: Option<Traced>,
}

impl TracedBody {
    /// Ends the span of the request with its answer.
    pub fn new(inner: Body, traced: Traced) -> TracedBody {
        TracedBody { inner, traced: Some(traced) }
    }

    fn end(&mut self, code: Code) {
        if let Some(traced) = self.traced.take() {
            traced.end(code);
        }
    }
}

impl hyper::body::Body for TracedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        let polled = {
            // What is done for the next answer is a step of this request.
            let _within = this.traced.as_ref().map(|traced| traced.0.clone().attach());
            Pin::new(&mut this.inner).poll_frame(context)
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let status = tonic::Status::from_header_map(trailers);
                    this.end(status.map_or(Code::Ok, |status| status.code()));
                }
            }
            Poll::Ready(Some(Err(status))) => this.end(status.code()),
            Poll::Ready(None) => this.end(Code::Ok),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for TracedBody {
    /// The client has let go.
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Does one step of a request, as a span of its own if the request is traced.
pub async fn step<T, E: Display>(
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(tracer) = TRACER.get() else { return work.await };
    let parent = Context::current();
    if !parent.span().span_context().is_sampled() {
        return work.await;
    }
    let context = parent.with_span(tracer.start_with_context(name, &parent));
    let result = work.with_context(context.clone()).await;
    if let Err(error) = &result {
        context.span().set_status(Status::error(error.to_string()));
    }
    context.span().end();
    result
}

/// Tells whoever is asked next what this is a step of.
pub fn inject(headers: &mut HeaderMap) {
    if TRACER.get().is_some() {
        TraceContextPropagator::new().inject(&mut Headers(headers));
    }
}

/// As OpenTelemetry reads and writes them.
struct Headers<H>(H);

impl Extractor for Headers<&HeaderMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|key| key.as_str()).collect()
    }
}

impl Injector for Headers<&mut HeaderMap> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}
