//! Traces as a collector of OpenTelemetry receives them.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // what members that come and go need
#[path = "members/cluster.rs"]
mod cluster;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster::{Cluster, PATIENCE, free_port, put};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{SnapshotRequest, WatchCreateRequest, WatchRequest};
use tonic::{Request, Response, Status};

const TRACE: [u8; 16] = [0xab; 16];
const CALLER: [u8; 8] = [0xcd; 8];

/// Keeps what it is sent, with the name of the member that sent it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for sent in request.into_inner().resource_spans {
            let member = text(&sent.resource.unwrap().attributes, "service.instance.id");
            let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (member.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|one| one.key == key)?.value.clone()?.value
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

impl Collector {
    /// Listens on a port of the loopback interface.
    async fn start(&self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        port
    }

    /// The span that is there once, as soon as it is.
    async fn wait_for(&self, name: &str, parent: &[u8]) -> (String, Span) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = self.0.lock().unwrap().clone();
            let is_it = |span: &Span| span.name == name && span.parent_span_id == parent;
            if let Some(found) = all.iter().find(|(_, span)| is_it(span)) {
                return found.clone();
            }
            assert!(Instant::now() < deadline, "no {name} beneath {parent:02x?} in {all:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// As a caller sends it that traces.
fn traced<T>(request: T) -> Request<T> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parent = format!("00-{}-{}-01", hex(&TRACE), hex(&CALLER));
    let mut request = Request::new(request);
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request
}

/// Starts all members with traces to `collector`.
fn start_all(cluster: &mut Cluster, collector: u16) {
    for (position, member) in cluster.members.iter_mut().enumerate() {
        let mut command = member.command();
        command.arg("--enable-distributed-tracing");
        command.arg(format!("--distributed-tracing-address=127.0.0.1:{collector}"));
        command.arg(format!("--distributed-tracing-instance-id=member-{position}"));
        member.child = Some(command.env("OTEL_BSP_SCHEDULE_DELAY", "50").spawn().unwrap());
    }
}

#[tokio::test]
async fn a_write_through_a_follower_is_one_trace_over_both_members() {
    let collector = Collector::default();
    let port = collector.start().await;
    let mut cluster = Cluster::new(3);
    start_all(&mut cluster, port);
    cluster.settle(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut client = cluster.members[follower].kv().await;
    client.put(put("not traced")).await.unwrap();
    client.put(traced(put("traced"))).await.unwrap();
    let (member, request) = collector.wait_for("etcdserverpb.KV/Put", &CALLER).await;
    assert_eq!(member, format!("member-{follower}"));
    assert_eq!(text(&request.attributes, "rpc.method"), "Put");
    let (member, forward) = collector.wait_for("forward", &request.span_id).await;
    assert_eq!(member, format!("member-{follower}"));
    let served = collector.wait_for("skiff.datastore.Peer/Forward", &forward.span_id).await;
    assert_eq!(served.0, format!("member-{leader}"));
    let (member, write) = collector.wait_for("write", &served.1.span_id).await;
    assert_eq!(member, format!("member-{leader}"));
    assert!(write.end_time_unix_nano > write.start_time_unix_nano);
    let all = collector.0.lock().unwrap().clone();
    assert!(all.iter().all(|(_, span)| span.trace_id == TRACE), "{all:#?}");
    assert_eq!(all.len(), 4, "{all:#?}");
}

#[tokio::test]
async fn a_refused_request_is_marked_in_its_trace() {
    let collector = Collector::default();
    let port = collector.start().await;
    let mut cluster = Cluster::new(1);
    start_all(&mut cluster, port);
    let mut client = cluster.members[0].kv().await;
    client.put(traced(put(""))).await.unwrap_err();
    let (_, request) = collector.wait_for("etcdserverpb.KV/Put", &CALLER).await;
    assert_eq!(request.status.unwrap().code(), StatusCode::Error);
    let code = value(&request.attributes, "rpc.grpc.status_code");
    assert_eq!(code, Some(Value::IntValue(tonic::Code::InvalidArgument as i64)));
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_up_nobody() {
    let mut cluster = Cluster::new(1);
    start_all(&mut cluster, free_port());
    let mut client = cluster.members[0].kv().await;
    let began = Instant::now();
    for number in 0..100 {
        client.put(traced(put(&format!("key-{number}")))).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let began = Instant::now();
    cluster.members[0].stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_span_of_a_stream_ends_with_the_stream() {
    let collector = Collector::default();
    let port = collector.start().await;
    let mut cluster = Cluster::new(1);
    start_all(&mut cluster, port);
    cluster.members[0].kv().await.put(put("key")).await.unwrap();
    let channel = cluster.members[0].channel().await.unwrap();
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let mut pieces = maintenance.snapshot(traced(SnapshotRequest {})).await.unwrap().into_inner();
    while pieces.message().await.unwrap().is_some() {}
    let (_, span) = collector.wait_for("etcdserverpb.Maintenance/Snapshot", &CALLER).await;
    let code = value(&span.attributes, "rpc.grpc.status_code");
    assert_eq!(code, Some(Value::IntValue(tonic::Code::Ok as i64)));

    let create = WatchCreateRequest { key: "key".into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (asks, requests) = tokio::sync::mpsc::channel(1);
    asks.send(create).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut watch = WatchClient::new(channel).watch(traced(requests)).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let is_watch = |(_, span): &(String, Span)| span.name == "etcdserverpb.Watch/Watch";
    assert!(!collector.0.lock().unwrap().iter().any(is_watch), "it goes on");
    drop(watch);
    // Only now nothing holds the stream any more, and it is reset.
    drop(asks);
    let (_, span) = collector.wait_for("etcdserverpb.Watch/Watch", &CALLER).await;
    assert!(span.end_time_unix_nano - span.start_time_unix_nano >= 300_000_000);
    let code = value(&span.attributes, "rpc.grpc.status_code");
    assert_eq!(code, Some(Value::IntValue(tonic::Code::Cancelled as i64)));
    assert_ne!(span.status.map(|status| status.code()), Some(StatusCode::Error));
}
