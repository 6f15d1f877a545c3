//! What is told by plain HTTP: figures for Prometheus, health, version.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod home;

use std::time::Duration;

use home::{Home, watch_all};
use skiff_datastore::proto::lease_client::LeaseClient;
use skiff_datastore::proto::*;
use skiff_datastore::shared::Limits;
use tonic::Code;

/// The value of a figure by its name and labels as they stand in the text.
fn figure(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn what_was_done_is_counted_under_etcds_names() {
    let home = Home::new().await;
    let mut watching = home.watch().await;
    watching.create(watch_all()).await;
    home.put("a", "1").await;
    home.put("b", "2").await;
    home.delete("a").await;
    watching.events(3).await;
    let mut leases = LeaseClient::new(home.channel.clone());
    let grant = LeaseGrantRequest { ttl: 600, id: 7 };
    leases.lease_grant(grant).await.unwrap();
    leases.lease_revoke(LeaseRevokeRequest { id: 7 }).await.unwrap();
    let future = RangeRequest { key: "a".into(), revision: 99, ..Default::default() };
    assert_eq!(home.kv().range(future).await.unwrap_err().code(), Code::OutOfRange);

    let text = home.get("/metrics").await;
    let head = text.split("\r\n\r\n").next().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    for (name, value) in [
        ("etcd_mvcc_put_total", 2.0),
        ("etcd_mvcc_delete_total", 1.0),
        // A deleted key counts until its history is compacted, as with etcd.
        ("etcd_debugging_mvcc_keys_total", 2.0),
        ("etcd_debugging_mvcc_current_revision", 4.0),
        ("etcd_debugging_mvcc_events_total", 3.0),
        ("etcd_debugging_mvcc_watcher_total", 1.0),
        ("etcd_debugging_mvcc_slow_watcher_total", 0.0),
        ("etcd_debugging_lease_granted_total", 1.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_is_leader", 1.0),
        ("skiff_datastore_leases", 0.0),
        ("skiff_datastore_no_space", 0.0),
        ("skiff_datastore_commit_duration_seconds_count", 5.0),
        ("grpc_server_started_total{grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"}", 2.0),
        (
            "grpc_server_handled_total{grpc_service=\"etcdserverpb.KV\",grpc_method=\"Range\",\
             grpc_code=\"OutOfRange\"}",
            1.0,
        ),
    ] {
        assert_eq!(figure(&text, name), value, "{name}");
    }
    assert!(figure(&text, "process_resident_memory_bytes") > 1e6);
    assert!(text.ends_with("# EOF\n"), "the text is whole");
}

#[tokio::test]
async fn names_that_nobody_has_do_not_fill_the_memory() {
    let home = Home::new().await;
    for number in 0..3 {
        let path = format!("/etcdserverpb.KV/Mad{number}").parse().unwrap();
        let mut client = tonic::client::Grpc::new(home.channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
        let refused = client.unary(tonic::Request::new(PutRequest::default()), path, codec).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    }
    let text = home.get("/metrics").await;
    let name = "grpc_server_started_total{grpc_service=\"unknown\",grpc_method=\"unknown\"}";
    assert_eq!(figure(&text, name), 3.0);
    assert!(!text.contains("Mad"), "{text}");
}

#[tokio::test]
async fn a_service_that_nobody_has_is_refused_in_the_words_of_who_asks() {
    let home = Home::new().await;
    let mut client = tonic::client::Grpc::new(home.channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
    let path = "/etcdserverpb.Auth/AuthEnable".parse().unwrap();
    let refused = client.unary(tonic::Request::new(PutRequest::default()), path, codec).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    assert!(home.get("/nothing").await.starts_with("HTTP/1.1 404"));
    assert!(home.get("/version").await.contains("\"etcdserver\":\"3."));
}

#[tokio::test]
async fn a_datastore_without_room_says_that_it_is_ill() {
    let limits = Limits { quota_bytes: 10_000, ..Limits::default() };
    let home = Home::start(limits, Duration::from_secs(3600)).await;
    assert!(home.get("/health").await.contains("{\"health\":\"true\",\"reason\":\"\"}"));
    home.put("large", &"x".repeat(20_000)).await;
    assert_eq!(home.put_refused("more").await.code(), Code::ResourceExhausted);
    let answer = home.get("/health").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}"), "{answer}");
    let text = home.get("/metrics").await;
    assert_eq!(figure(&text, "skiff_datastore_no_space"), 1.0);
}
