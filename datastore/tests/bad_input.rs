//! Bad input, each with the answer that `docs/reference/datastore.md` names.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod home;

use std::time::Duration;

use home::{Home, watch_all};
use skiff_datastore::KeyRange;
use skiff_datastore::proto::lease_client::LeaseClient;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;
use skiff_datastore::proto::request_op::Request;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::*;
use skiff_datastore::shared::Limits;
use tonic::{Code, Status};

fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() }
}

fn puts(keys: impl Iterator<Item = String>) -> Vec<RequestOp> {
    keys.map(|key| RequestOp { request: Some(Request::RequestPut(put(&key, vec![]))) }).collect()
}

fn assert_refused<T>(answer: Result<tonic::Response<T>, Status>, code: Code, words: &str) {
    // An answer may be too long to be shown.
    let status = answer.map(drop).expect_err(words);
    assert_eq!((status.code(), status.message()), (code, words));
}

/// A store that took its first writes, with revisions 2 to 5, compacted at 4.
async fn written() -> Home {
    let home = Home::new().await;
    for value in ["1", "2", "3", "4"] {
        home.put("a", value).await;
    }
    home.compact(4).await.unwrap();
    home
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused() {
    let home = written().await;
    let words = "etcdserver: request is too large";
    let large = vec![b'x'; 1_600_000];
    assert_refused(home.kv().put(put("a", large.clone())).await, Code::InvalidArgument, words);
    let half = |key| put(key, vec![b'x'; 800_000]);
    let operations =
        [half("a"), half("b")].map(|put| RequestOp { request: Some(Request::RequestPut(put)) });
    let txn = TxnRequest { success: operations.to_vec(), ..Default::default() };
    assert_refused(home.kv().txn(txn).await, Code::InvalidArgument, words);
    let delete = DeleteRangeRequest { key: large.into(), ..Default::default() };
    assert_refused(home.kv().delete_range(delete).await, Code::InvalidArgument, words);
    // Beyond this not even the message is read; the connection lives on.
    let message = put("a", vec![b'x'; 3 << 20]);
    let status = home.kv().put(message).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "grpc: received message larger than max (3145736 vs. 2097152)");
    let range = RangeRequest { key: vec![b'x'; 3 << 20].into(), ..Default::default() };
    let status = home.kv().range(range).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(home.put("a", "5").await, 6, "nothing was written");
}

#[tokio::test]
async fn a_transaction_with_too_long_an_answer_is_not_done() {
    let home = Home::new().await;
    for number in 0..12 {
        home.kv().put(put(&format!("k{number}"), vec![b'x'; 1_500_000])).await.unwrap();
    }
    let (key, range_end) = KeyRange::all_on_wire();
    let everything = RangeRequest { key, range_end, ..Default::default() };
    let everything = RequestOp { request: Some(Request::RequestRange(everything)) };
    let words = "etcdserver: request is too large";
    let reads = TxnRequest { success: vec![everything.clone(); 128], ..Default::default() };
    assert_refused(home.kv().txn(reads).await, Code::InvalidArgument, words);
    let mut writes = puts(["other".to_owned()].into_iter());
    writes.extend(vec![everything; 127]);
    let writes = TxnRequest { success: writes, ..Default::default() };
    assert_refused(home.kv().txn(writes).await, Code::InvalidArgument, words);
    assert_eq!(home.put("k1", "").await, 14, "nothing was written");
    let former =
        home.kv().put(PutRequest { prev_kv: true, ..put("k0", Vec::new()) }).await.unwrap();
    assert_eq!(former.into_inner().prev_kv.unwrap().version, 1);
}

#[tokio::test]
async fn transactions_without_sense_are_refused() {
    let home = written().await;
    let refused = async |txn: TxnRequest, words: &str| {
        assert_refused(home.kv().txn(txn).await, Code::InvalidArgument, words);
    };
    let many = puts((0..129).map(|number| format!("k{number}")));
    let too_many = "etcdserver: too many operations in txn request";
    refused(TxnRequest { success: many.clone(), ..Default::default() }, too_many).await;
    refused(TxnRequest { failure: many, ..Default::default() }, too_many).await;
    let mut nested = TxnRequest::default();
    for _ in 0..90 {
        let inner = RequestOp { request: Some(Request::RequestTxn(nested)) };
        nested = TxnRequest { success: vec![inner], ..Default::default() };
    }
    // As deep as a message may be; deeper ones don't decode.
    let deep = home.kv().txn(nested).await;
    assert!(deep.is_ok() || deep.is_err_and(|status| status.code() == Code::Internal));
    let twice = puts(["k", "k"].map(str::to_owned).into_iter());
    let words = "etcdserver: duplicate key given in txn request";
    refused(TxnRequest { success: twice, ..Default::default() }, words).await;
    let empty = puts([String::new()].into_iter());
    let words = "etcdserver: key is not provided";
    refused(TxnRequest { success: empty, ..Default::default() }, words).await;
    let compare = vec![Compare::default()];
    refused(TxnRequest { compare, ..Default::default() }, words).await;
    let nothing = vec![RequestOp { request: None }];
    let words = "etcdserver: key not found";
    refused(TxnRequest { success: nothing, ..Default::default() }, words).await;
}

#[tokio::test]
async fn empty_keys_are_refused_everywhere() {
    let home = written().await;
    let words = "etcdserver: key is not provided";
    let code = Code::InvalidArgument;
    assert_refused(home.kv().put(PutRequest::default()).await, code, words);
    assert_refused(home.kv().range(RangeRequest::default()).await, code, words);
    assert_refused(home.kv().delete_range(DeleteRangeRequest::default()).await, code, words);
}

#[tokio::test]
async fn revisions_that_are_gone_or_not_yet_there_are_refused() {
    let home = written().await;
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    for (revision, words) in [(3, compacted), (6, future), (i64::MAX, future)] {
        let range = RangeRequest { key: "a".into(), revision, ..Default::default() };
        assert_refused(home.kv().range(range.clone()).await, Code::OutOfRange, words);
        let operation = RequestOp { request: Some(Request::RequestRange(range)) };
        let txn = TxnRequest { success: vec![operation], ..Default::default() };
        assert_refused(home.kv().txn(txn).await, Code::OutOfRange, words);
        let request = CompactionRequest { revision, physical: false };
        assert_refused(home.kv().compact(request).await, Code::OutOfRange, words);
    }
    let mut watching = home.watch().await;
    watching.create(WatchCreateRequest { start_revision: 3, ..watch_all() }).await;
    let cancelled = watching.next().await;
    assert!(cancelled.canceled);
    assert_eq!(cancelled.compact_revision, 4);
}

#[tokio::test]
async fn unknown_leases_are_refused() {
    let home = written().await;
    let words = "etcdserver: requested lease not found";
    let request = PutRequest { lease: 7, ..put("a", vec![]) };
    assert_refused(home.kv().put(request).await, Code::NotFound, words);
    let mut leases = LeaseClient::new(home.channel.clone());
    let revoke = LeaseRevokeRequest { id: 7 };
    assert_refused(leases.lease_revoke(revoke).await, Code::NotFound, words);
    let requests = futures::stream::iter([LeaseKeepAliveRequest { id: 7 }]);
    let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0);
    let grant = LeaseGrantRequest { ttl: 60, id: 7 };
    leases.lease_grant(grant).await.unwrap();
    let words = "etcdserver: lease already exists";
    assert_refused(leases.lease_grant(grant).await, Code::FailedPrecondition, words);
    let grant = LeaseGrantRequest { ttl: i64::MAX, id: 8 };
    let words = "etcdserver: too large lease TTL";
    assert_refused(leases.lease_grant(grant).await, Code::OutOfRange, words);
}

#[tokio::test]
async fn a_watcher_that_never_reads_learns_that_it_was_too_slow() {
    let home = Home::new().await;
    let mut silent = home.watch().await;
    silent.create(watch_all()).await;
    let mut reading = home.watch().await;
    reading.create(watch_all()).await;
    let value = "x".repeat(200_000);
    let mut last = 0;
    for _ in 0..100 {
        last = home.put("a", &value).await;
        assert_eq!(reading.events(1).await.len(), 1);
    }
    home.compact(last).await.unwrap();
    // What was on its way still comes, in order; then why there is no more.
    let mut seen = 1;
    loop {
        let answer = silent.next().await;
        if answer.canceled {
            assert_eq!(answer.compact_revision, last);
            break;
        }
        for event in answer.events {
            seen += 1;
            assert_eq!(event.kv.unwrap().mod_revision, seen);
        }
    }
    assert!(seen < last, "it was not slow at all");
    // The stream itself goes on.
    silent.create(WatchCreateRequest { start_revision: last, ..watch_all() }).await;
    assert_eq!(silent.next().await.events.len(), 1);
}

#[tokio::test]
async fn one_connection_carries_many_streams() {
    const STREAMS: usize = 600;
    let home = Home::new().await;
    let mut all = Vec::new();
    for _ in 0..STREAMS {
        let mut watching = home.watch().await;
        watching.create(watch_all()).await;
        all.push(watching);
    }
    home.put("a", "1").await;
    for watching in &mut all {
        assert_eq!(watching.events(1).await, ["2 put a=1"]);
    }
}

#[tokio::test]
async fn a_list_that_is_never_read_holds_up_nobody() {
    let limits = Limits { request_bytes_max: 2 << 20, ..Limits::default() };
    let home = Home::start(limits, Duration::from_secs(3600)).await;
    let value = "x".repeat(1 << 20);
    for number in 0..64 {
        home.put(&format!("key{number}"), &value).await;
    }
    let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    // Lists on connections of their own, given up before they are read.
    let mut abandoned = Vec::new();
    for _ in 0..8 {
        let mut client = home.other_connection().await;
        let request = all.clone();
        abandoned.push(tokio::spawn(async move { client.range(request).await.map(drop) }));
    }
    let began = std::time::Instant::now();
    let whole = home.kv().range(all).await.unwrap().into_inner();
    assert_eq!((whole.kvs.len(), whole.count), (64, 64));
    assert_eq!(home.put("a", "1").await, 66);
    assert!(began.elapsed() < Duration::from_secs(20));
    for task in abandoned {
        task.abort();
    }
}

#[tokio::test]
async fn an_unknown_request_in_a_watch_is_passed_over() {
    let home = Home::new().await;
    let mut watching = home.watch().await;
    watching.requests.unbounded_send(WatchRequest { request_union: None }).unwrap();
    watching.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 99 }));
    watching.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let below = WatchCreateRequest { start_revision: -1, ..watch_all() };
    assert!(watching.create(below).await.canceled);
    assert!(!watching.create(watch_all()).await.canceled);
}

#[tokio::test]
async fn a_full_datastore_refuses_writes_and_recovers() {
    let limits = Limits { quota_bytes: 100_000, ..Limits::default() };
    let home = Home::start(limits, Duration::from_secs(3600)).await;
    let mut maintenance = MaintenanceClient::new(home.channel.clone());
    let mut alarms = async || {
        let list = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner();
        list.alarms.iter().map(|member| member.alarm()).collect::<Vec<_>>()
    };
    assert!(alarms().await.is_empty());
    let mut last = 0;
    let refused = loop {
        match home.kv().put(put("a", vec![b'x'; 20_000])).await {
            Ok(answer) => last = answer.into_inner().header.unwrap().revision,
            Err(status) => break status,
        }
        assert!(last < 100, "the quota does not hold");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    assert_eq!(alarms().await, [AlarmType::Nospace]);
    // Reading and making room go on.
    let range = RangeRequest { key: "a".into(), ..Default::default() };
    assert_eq!(home.kv().range(range).await.unwrap().into_inner().count, 1);
    home.put_refused("b").await;
    assert_eq!(home.delete("a").await, 1);
    home.compact(last + 1).await.unwrap();
    assert_eq!(home.put("b", "1").await, last + 2);
    assert!(alarms().await.is_empty());
}
