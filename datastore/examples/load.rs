//! Puts load on a datastore (or on etcd) and prints latencies:
//! `load LISTEN CLIENTS SECONDS [create|churn|get|list]`. `churn` writes the same
//! thousand keys again and again and compacts every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use skiff_datastore::Listen;
use skiff_datastore::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::request_op::Request;
use skiff_datastore::proto::{
    CompactionRequest, Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tonic::transport::Channel;

const VALUE_BYTES: usize = 1024;
const CHANNELS_MAX: usize = 8;
const CHURN_KEYS: u64 = 1000;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Create,
    Churn,
    Get,
    List,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listen: Listen = arguments[0].parse().expect("an address");
    let clients: usize = arguments[1].parse().expect("a number of clients");
    let seconds: u64 = arguments[2].parse().expect("a number of seconds");
    let kind = match arguments.get(3).map(String::as_str) {
        None | Some("create") => Kind::Create,
        Some("churn") => Kind::Churn,
        Some("get") => Kind::Get,
        Some("list") => Kind::List,
        Some(other) => panic!("{other} is no kind of load"),
    };
    let mut channels = Vec::new();
    for _ in 0..clients.min(CHANNELS_MAX) {
        channels.push(skiff_datastore::probe::connect(&listen).await.expect("a datastore"));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let names = Arc::new(AtomicU64::new(std::process::id() as u64 * 10_000_000));
    let began = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let channel = channels[client % channels.len()].clone();
            tokio::spawn(work(KvClient::new(channel), kind, names.clone(), until))
        })
        .collect();
    if kind == Kind::Churn {
        tokio::spawn(compact(KvClient::new(channels[0].clone())));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no client panics"));
    }
    let elapsed = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{clients} clients: {:.0}/s p50 {:?} p99 {:?} max {:?} ({} requests)",
        latencies.len() as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(1.0),
        latencies.len()
    );
}

async fn work(
    mut client: KvClient<Channel>,
    kind: Kind,
    names: Arc<AtomicU64>,
    until: Instant,
) -> Vec<Duration> {
    client = client.max_decoding_message_size(usize::MAX);
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let name = names.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        match kind {
            Kind::Create => {
                let answer = client.txn(create(name)).await.expect("a transaction is answered");
                assert!(answer.into_inner().succeeded, "the key is new");
            }
            Kind::Churn => {
                let TxnRequest { mut success, .. } = create(name % CHURN_KEYS);
                if let Some(Some(Request::RequestPut(put))) = success.pop().map(|one| one.request) {
                    client.put(put).await.expect("a put is answered");
                }
            }
            Kind::Get | Kind::List => {
                let prefix = "/registry/pods/";
                let request = RangeRequest {
                    key: prefix.into(),
                    range_end: "/registry/pods0".into(),
                    limit: if kind == Kind::Get { 1 } else { 500 },
                    ..Default::default()
                };
                client.range(request).await.expect("a range is answered");
            }
        }
        latencies.push(began.elapsed());
    }
    latencies
}

/// Forgets everything older than a second, every second.
async fn compact(mut client: KvClient<Channel>) {
    let mut before = 0;
    loop {
        let newest = RangeRequest { key: "none".into(), ..Default::default() };
        let answer = client.range(newest).await.expect("a range is answered");
        let revision = answer.into_inner().header.expect("answers have headers").revision;
        if before > 1 {
            let request = CompactionRequest { revision: before, physical: false };
            // Nothing may have been written meanwhile.
            let _ = client.compact(request).await;
        }
        before = revision;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A creation as the API server words it. The value compresses about as an
/// object of Kubernetes does.
fn create(name: u64) -> TxnRequest {
    let key: bytes::Bytes = format!("/registry/pods/default/pod-{name:012}").into();
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut random = name.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while value.len() < VALUE_BYTES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        value.extend_from_slice(format!("field-{}: {random:x}; ", random % 10).as_bytes());
    }
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..Default::default()
    };
    let put = PutRequest { key: key.clone(), value: value.into(), ..Default::default() };
    let get = RangeRequest { key, ..Default::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
    }
}
