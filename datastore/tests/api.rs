//! The API as a client sees it over gRPC, on the store in memory.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod home;

use std::time::Duration;

use home::{Home, watch_all};
use prost::Message;
use skiff_datastore::batch::Entry;
use skiff_datastore::proto::lease_client::LeaseClient;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;
use skiff_datastore::proto::range_request::{SortOrder, SortTarget};
use skiff_datastore::proto::watch_create_request::FilterType;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::*;
use skiff_datastore::range::to_wire;
use skiff_datastore::shared::Limits;
use skiff_datastore::{KeyRange, snapshot};
use tonic::Code;

#[tokio::test]
async fn a_watch_sees_past_and_present_in_order() {
    let home = Home::new().await;
    home.put("a", "1").await;
    home.put("b", "2").await;
    home.delete("a").await;
    let mut watching = home.watch().await;
    let request = WatchCreateRequest { start_revision: 2, prev_kv: true, ..watch_all() };
    let created = watching.create(request).await;
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 4));
    assert_eq!(watching.events(3).await, ["2 put a=1", "3 put b=2", "4 delete a= was 1"]);
    home.put("b", "3").await;
    home.put("a", "4").await;
    assert_eq!(watching.events(2).await, ["5 put b=3 was 2", "6 put a=4"]);
}

#[tokio::test]
async fn filters_and_ranges_choose_events() {
    let home = Home::new().await;
    let mut watching = home.watch().await;
    let no_puts = WatchCreateRequest {
        key: "b".into(),
        range_end: "d".into(),
        filters: vec![FilterType::Noput as i32],
        ..Default::default()
    };
    watching.create(no_puts).await;
    for key in ["a", "b", "c", "d"] {
        home.put(key, "1").await;
        home.delete(key).await;
    }
    assert_eq!(watching.events(2).await, ["5 delete b=", "7 delete c="]);
}

#[tokio::test]
async fn a_watch_may_start_in_the_future() {
    let home = Home::new().await;
    let mut watching = home.watch().await;
    watching.create(WatchCreateRequest { start_revision: 4, ..watch_all() }).await;
    for value in ["1", "2", "3", "4"] {
        home.put("a", value).await;
    }
    assert_eq!(watching.events(2).await, ["4 put a=3", "5 put a=4"]);
}

#[tokio::test]
async fn a_compacted_start_is_cancelled_with_the_revision_to_start_from() {
    let home = Home::new().await;
    for value in ["1", "2", "3", "4"] {
        home.put("a", value).await;
    }
    home.compact(4).await.unwrap();
    let mut watching = home.watch().await;
    watching.create(WatchCreateRequest { start_revision: 3, ..watch_all() }).await;
    let cancelled = watching.next().await;
    assert!(cancelled.canceled);
    assert_eq!(cancelled.compact_revision, 4);
    // The compacted revision itself can still be had.
    watching.create(WatchCreateRequest { start_revision: 4, ..watch_all() }).await;
    assert_eq!(watching.events(2).await, ["4 put a=3", "5 put a=4"]);
}

#[tokio::test]
async fn watchers_are_named_and_cancelled_one_by_one() {
    let home = Home::new().await;
    let mut watching = home.watch().await;
    let named = WatchCreateRequest { watch_id: 7, ..watch_all() };
    assert_eq!(watching.create(named.clone()).await.watch_id, 7);
    assert_eq!(watching.create(watch_all()).await.watch_id, 0);
    let twice = watching.create(named).await;
    assert!(twice.canceled && twice.watch_id == -1);
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = WatchCreateRequest { key: "b".into(), range_end: "a".into(), ..Default::default() };
    assert_eq!(watching.create(empty).await.cancel_reason, "mvcc: watcher range is empty");
    watching.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 }));
    let cancelled = watching.next().await;
    assert!(cancelled.canceled && cancelled.watch_id == 7);
    home.put("a", "1").await;
    assert_eq!(watching.next().await.watch_id, 0);
}

#[tokio::test]
async fn a_range_is_streamed_in_messages_that_make_its_answer() {
    let home = Home::new().await;
    for number in 0..100 {
        home.put(&format!("key{number:03}"), &"x".repeat(3000)).await;
    }
    let (key, range_end) = KeyRange::all_on_wire();
    for (limit, keys_only) in [(0, false), (0, true), (70, false), (1, false)] {
        let (key, range_end) = (key.clone(), range_end.clone());
        let request = RangeRequest { key, range_end, limit, keys_only, ..Default::default() };
        let expected = home.kv().range(request.clone()).await.unwrap().into_inner();
        let mut stream = home.kv().range_stream(request).await.unwrap().into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            messages.push(message.range_response.unwrap());
        }
        let is_long = limit != 1 && !keys_only;
        assert_eq!(messages.len() > 2, is_long, "{limit} {keys_only}");
        assert!(messages.iter().all(|message| message.encoded_len() < 70_000));
        let mut whole = messages.pop().unwrap();
        assert!(messages.iter().all(|message| message.header.is_none() && message.count == 0));
        whole.kvs = messages.into_iter().flat_map(|message| message.kvs).chain(whole.kvs).collect();
        assert_eq!(whole, expected);
    }
}

#[tokio::test]
async fn large_answers_come_in_fragments_when_asked_for() {
    let limits = Limits { request_bytes_max: 4096, ..Limits::default() };
    let home = Home::start(limits, Duration::from_secs(3600)).await;
    let value = "x".repeat(3000);
    for key in ["a", "b", "c"] {
        home.put(key, &value).await;
    }
    let mut watching = home.watch().await;
    let request = WatchCreateRequest { start_revision: 2, fragment: true, ..watch_all() };
    watching.create(request).await;
    for (key, fragment) in [("a", true), ("b", true), ("c", false)] {
        let answer = watching.next().await;
        assert_eq!(answer.fragment, fragment);
        assert_eq!(answer.events.len(), 1);
        assert_eq!(answer.events[0].kv.as_ref().unwrap().key, key);
    }
}

#[tokio::test]
async fn events_of_one_revision_come_together() {
    let home = Home::new().await;
    let put = |key: &'static str| {
        let put =
            PutRequest { key: key.into(), value: vec![b'x'; 300_000].into(), ..Default::default() };
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    };
    let mut watching = home.watch().await;
    watching.create(watch_all()).await;
    let txn = TxnRequest { success: vec![put("a"), put("b"), put("c")], ..Default::default() };
    home.kv().txn(txn).await.unwrap();
    assert_eq!(watching.next().await.events.len(), 3);
}

#[tokio::test]
async fn progress_is_told_after_the_events_it_covers() {
    let home = Home::start(Limits::default(), Duration::from_millis(30)).await;
    let mut watching = home.watch().await;
    let quiet =
        WatchCreateRequest { key: "quiet".into(), progress_notify: true, ..Default::default() };
    watching.create(quiet).await;
    let busy = WatchCreateRequest { progress_notify: true, watch_id: 5, ..watch_all() };
    watching.create(busy).await;
    let (mut told, mut seen, mut progress) = (0, 1, 0);
    let mut last = 0;
    while progress < 20 {
        last = home.put("a", "1").await;
        while seen < last || told < last {
            let answer = watching.next().await;
            let revision = answer.header.as_ref().unwrap().revision;
            if answer.watch_id == 0 {
                assert!(answer.events.is_empty() && revision >= told, "{told} then {revision}");
                told = revision;
                progress += 1;
                continue;
            }
            for event in &answer.events {
                let modified = event.kv.as_ref().unwrap().mod_revision;
                assert_eq!(modified, seen + 1, "each event comes once and in order");
                seen = modified;
            }
            assert!(answer.events.is_empty() || revision >= seen);
            assert!(!answer.events.is_empty() || revision <= seen, "progress before its events");
        }
    }
    watching.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    loop {
        let answer = watching.next().await;
        if answer.watch_id == -1 {
            assert_eq!(answer.header.unwrap().revision, last);
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_nobody() {
    let home = Home::new().await;
    let mut silent = home.watch().await;
    for _ in 0..20 {
        silent.send(RequestUnion::CreateRequest(watch_all()));
    }
    let mut reading = home.watch().await;
    reading.create(watch_all()).await;
    let value = "x".repeat(100_000);
    for _ in 0..100 {
        home.put("a", &value).await;
    }
    assert_eq!(reading.events(100).await.len(), 100);
    // Late, but nothing is lost.
    for _ in 0..20 {
        assert!(silent.next().await.created);
    }
    assert_eq!(silent.events(20 * 100).await.len(), 2000);
}

#[tokio::test]
async fn refusals_have_etcds_words_and_codes() {
    let home = Home::new().await;
    home.put("a", "1").await;
    home.put("a", "2").await;
    home.compact(3).await.unwrap();
    let at = |revision| RangeRequest { key: "a".into(), revision, ..Default::default() };
    let lease = PutRequest { key: "a".into(), lease: 9, ..Default::default() };
    let mut kv = home.kv();
    let refusals = [
        (
            kv.range(at(2)).await.unwrap_err(),
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            kv.range(at(9)).await.unwrap_err(),
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            kv.range(RangeRequest::default()).await.unwrap_err(),
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
        (kv.put(lease).await.unwrap_err(), Code::NotFound, "etcdserver: requested lease not found"),
        (
            home.compact(1).await.unwrap_err(),
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ];
    for (status, code, text) in refusals {
        assert_eq!((status.code(), status.message()), (code, text));
    }
}

#[tokio::test]
async fn ranges_are_limited_sorted_and_filtered() {
    let home = Home::new().await;
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("b", "1")] {
        home.put(key, value).await;
    }
    let all = RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let keys = async |request: RangeRequest| {
        let answer = home.kv().range(request).await.unwrap().into_inner();
        let keys: Vec<_> =
            answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        (keys.concat(), answer.more, answer.count)
    };
    let sorted = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target as i32,
        sort_order: order as i32,
        ..all.clone()
    };
    assert_eq!(keys(RangeRequest { limit: 2, ..all.clone() }).await, ("ab".into(), true, 3));
    assert_eq!(keys(RangeRequest { count_only: true, ..all.clone() }).await, ("".into(), false, 3));
    assert_eq!(keys(sorted(SortTarget::Value, SortOrder::None)).await.0, "bca");
    assert_eq!(keys(sorted(SortTarget::Mod, SortOrder::Descend)).await.0, "bca");
    assert_eq!(keys(sorted(SortTarget::Key, SortOrder::Descend)).await.0, "cba");
    let limited = RangeRequest { limit: 1, ..sorted(SortTarget::Value, SortOrder::Ascend) };
    assert_eq!(keys(limited).await, ("b".into(), true, 3));
    let filtered = RangeRequest { min_mod_revision: 4, ..all.clone() };
    assert_eq!(keys(filtered).await, ("bc".into(), false, 3));
    let filtered = RangeRequest { max_create_revision: 2, ..all };
    assert_eq!(keys(filtered).await, ("a".into(), false, 3));
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_takes_its_keys_along() {
    let home = Home::new().await;
    let mut leases = LeaseClient::new(home.channel.clone());
    let grant = LeaseGrantRequest { ttl: 1, id: 0 };
    let granted = leases.lease_grant(grant).await.unwrap().into_inner();
    assert_eq!(granted.ttl, 2, "raised to the shortest time");
    let request = PutRequest { key: "a".into(), lease: granted.id, ..Default::default() };
    home.kv().put(request).await.unwrap();
    let mut watching = home.watch().await;
    watching.create(watch_all()).await;
    let ask = LeaseTimeToLiveRequest { id: granted.id, keys: true };
    let alive = leases.lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((alive.granted_ttl, alive.keys.len()), (2, 1));
    assert_eq!(watching.events(1).await, ["3 delete a="]);
    let gone = leases.lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!(gone.ttl, -1);
    let requests = futures::stream::iter([LeaseKeepAliveRequest { id: granted.id }]);
    let mut answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0);
}

#[tokio::test]
async fn status_says_what_kubernetes_asks_for() {
    let home = Home::new().await;
    let mut client = MaintenanceClient::new(home.channel.clone());
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.version.starts_with("3.6."));
    assert!(status.leader != 0 && status.errors.is_empty());
    let hash = client.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_eq!(hash.hash_revision, 1);
}

#[tokio::test]
async fn a_snapshot_is_of_one_revision_while_writes_go_on() {
    let home = Home::new().await;
    let mut leases = LeaseClient::new(home.channel.clone());
    leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 7 }).await.unwrap();
    for number in 0..3000 {
        home.put(&format!("key{number:04}"), &"x".repeat(200)).await;
    }
    let mut client = MaintenanceClient::new(home.channel.clone());
    let mut pieces = client.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    let mut number = 0;
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend_from_slice(&piece.blob);
        // Each write moves a key from before to behind what was read.
        for _ in 0..20 {
            home.delete(&format!("key{number:04}")).await;
            home.put(&format!("later{number:04}"), "y").await;
            number += 1;
        }
    }
    let mut kvs = Vec::new();
    let summary = snapshot::read(&bytes[..], |entry| match entry {
        Entry::Changes(records) => kvs.extend(records.iter().map(to_wire)),
        Entry::Grant { lease, ttl_s } => assert_eq!((lease.0, ttl_s), (7, 60)),
        other => panic!("{other:?} is in a snapshot"),
    })
    .unwrap();
    assert_eq!((summary.keys, summary.leases), (3000, 1));
    let (key, range_end) = KeyRange::all_on_wire();
    let revision = summary.revision.0;
    let request = RangeRequest { key, range_end, revision, ..Default::default() };
    assert_eq!(home.kv().range(request).await.unwrap().into_inner().kvs, kvs);
}

#[tokio::test]
async fn a_hash_is_of_one_revision_while_writes_go_on() {
    let home = Home::new().await;
    let mut last = 0;
    for number in 0..3000 {
        last = home.put(&format!("key{number:04}"), "x").await;
    }
    let client = MaintenanceClient::new(home.channel.clone());
    let hash_at = |revision| {
        let mut client = client.clone();
        async move { client.hash_kv(HashKvRequest { revision }).await.map(|one| one.into_inner()) }
    };
    let quiet = hash_at(last).await.unwrap();
    let writes = async {
        for number in 0..100 {
            home.put(&format!("key{:04}", number * 29), "y").await;
        }
    };
    let hashes = async {
        for _ in 0..10 {
            assert_eq!(hash_at(last).await.unwrap().hash, quiet.hash);
        }
    };
    tokio::join!(writes, hashes);
    let newest = hash_at(0).await.unwrap();
    assert_eq!((newest.hash_revision, newest.hash == quiet.hash), (last + 100, false));
    home.compact(last + 1).await.unwrap();
    assert_eq!(hash_at(last).await.unwrap_err().code(), tonic::Code::OutOfRange);
    assert_eq!(hash_at(last + 101).await.unwrap_err().code(), tonic::Code::OutOfRange);
}

#[tokio::test]
async fn a_physical_compaction_is_done_when_it_is_answered() {
    let home = Home::new().await;
    let mut last = 0;
    for _ in 0..3000 {
        last = home.put("a", "1").await;
    }
    home.compact(last).await.unwrap();
    assert!(home.engine.shared().read().index.is_swept());
    let mut client = MaintenanceClient::new(home.channel.clone());
    let hash = client.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_eq!((hash.hash_revision, hash.compact_revision), (last, last));
    let again = client.hash_kv(HashKvRequest { revision: last }).await.unwrap().into_inner();
    assert_eq!(again.hash, hash.hash);
    home.put("a", "2").await;
    let other = client.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_ne!(other.hash, hash.hash);
}
