//! The suite on the store in memory, and the bad days that only it can plan.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::time::Instant;

use skiff_datastore::error::RequestError;
use skiff_datastore::proto::compare::{CompareTarget, TargetUnion};
use skiff_datastore::proto::request_op::Request;
use skiff_datastore::proto::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use skiff_datastore::shared::{Integrity, Limits};
use skiff_datastore::store::Store;
use skiff_datastore::store::memory::{Fault, MemoryStore};
use skiff_datastore::suite::{self, Place};
use skiff_datastore::{Engine, Revision};

/// A memory that outlives its handles.
#[derive(Default)]
struct Memory(MemoryStore);

impl Place for Memory {
    type Store = MemoryStore;

    async fn open(&self) -> MemoryStore {
        self.0.clone()
    }
}

#[tokio::test]
async fn memory_passes_the_suite() {
    suite::run_all(Memory::default).await;
    let store = MemoryStore::default();
    suite::a_writer_that_was_replaced_changes_nothing([store.clone(), store]).await;
}

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "value".into(), ..Default::default() }
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_by_reading_the_log_again() {
    let store = MemoryStore::default();
    let running = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    let engine = &running.engine;
    engine.put(put("before")).await.unwrap();
    store.plan_fault(Fault::UnknownDone);
    let answer = engine.put(put("done")).await.unwrap();
    assert_eq!(answer.header.unwrap().revision, 3);
    store.plan_fault(Fault::UnknownNotDone);
    assert_eq!(engine.put(put("not done")).await, Err(RequestError::LeaderChanged));
    let answer = engine.put(put("after")).await.unwrap();
    assert_eq!(answer.header.unwrap().revision, 4);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn without_space_reads_go_on_and_writes_come_back() {
    let store = MemoryStore::default();
    let running = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    let engine = &running.engine;
    engine.put(put("before")).await.unwrap();
    store.plan_fault(Fault::NoSpace);
    assert_eq!(engine.put(put("refused")).await, Err(RequestError::NoSpace));
    assert!(engine.shared().no_space(), "the alarm is raised");
    assert_eq!(engine.revision(), Revision(2));
    engine.put(put("after")).await.unwrap();
    assert!(!engine.shared().no_space(), "the alarm is cleared");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn over_quota_only_what_frees_space_is_taken() {
    let limits = Limits { quota_bytes: 2000, ..Limits::default() };
    let running = Engine::start(MemoryStore::default(), limits, Instant::now).await.unwrap();
    let engine = &running.engine;
    while engine.put(put("a")).await.is_ok() {}
    assert!(engine.shared().no_space());
    engine.compact(engine.revision()).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    engine.put(put("a")).await.expect("there is room again");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_writer_that_was_replaced_ends() {
    let store = MemoryStore::default();
    let first = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    first.engine.put(put("a")).await.unwrap();
    let second = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    assert_eq!(first.engine.put(put("b")).await, Err(RequestError::LeaderChanged));
    assert!(first.stop().await.is_err());
    assert_eq!(second.engine.revision(), Revision(2));
    second.engine.put(put("c")).await.unwrap();
    second.stop().await.unwrap();
}

/// A transaction whose comparison is false: it writes nothing.
fn losing() -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            key: "a".into(),
            target: CompareTarget::Version as i32,
            target_union: Some(TargetUnion::Version(7)),
            ..Default::default()
        }],
        success: vec![RequestOp { request: Some(Request::RequestPut(put("b"))) }],
        failure: Vec::new(),
    }
}

#[tokio::test]
async fn a_txn_that_loses_at_a_leader_that_was_replaced_is_not_answered() {
    let lost = losing();
    let store = MemoryStore::default();
    let running = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    running.engine.shared().set_among_others();
    running.engine.put(put("a")).await.unwrap();
    assert!(!running.engine.txn(lost.clone()).await.unwrap().succeeded);
    store.clone().open().await.unwrap();
    // By now the other leader may have made the comparison true.
    assert_eq!(running.engine.txn(lost).await, Err(RequestError::LeaderChanged));
    assert!(running.stop().await.is_err());
}

#[tokio::test]
async fn a_log_that_nobody_compacts_is_merged_and_reads_back_the_same() {
    let store = MemoryStore::default();
    let running = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    for _ in 0..3000 {
        running.engine.put(put("a")).await.unwrap();
    }
    running.stop().await.unwrap();
    assert!(store.log_rows() < 520, "{} rows", store.log_rows());
    let running = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    for revision in [2, 1500, 3001] {
        let request = RangeRequest { key: "a".into(), revision, ..Default::default() };
        assert_eq!(running.engine.range(&request).unwrap().kvs[0].mod_revision, revision);
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_sole_member_that_finds_its_database_damaged_raises_the_alarm_and_goes_on() {
    let store = MemoryStore::default();
    let running = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    let engine = &running.engine;
    engine.put(put("before")).await.unwrap();
    assert_eq!(engine.shared().integrity(), Integrity::Sound);
    store.plan_fault(Fault::Damaged);
    assert_eq!(engine.put(put("refused")).await, Err(RequestError::LeaderChanged));
    assert_eq!(engine.shared().integrity(), Integrity::Doubtful);
    // It can be backed up, and more than that.
    let text = engine.shared().metrics.text(engine.shared());
    assert!(text.contains("skiff_datastore_corrupt 1"), "{text}");
    let found = engine.range(&RangeRequest { key: "before".into(), ..Default::default() });
    assert_eq!(found.unwrap().count, 1);
    engine.put(put("after")).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn damage_that_only_a_barrier_meets_is_noticed_too() {
    let store = MemoryStore::default();
    let running = Engine::start(store.clone(), Limits::default(), Instant::now).await.unwrap();
    running.engine.shared().set_among_others();
    running.engine.put(put("a")).await.unwrap();
    assert!(!running.engine.txn(losing()).await.unwrap().succeeded);
    store.plan_fault(Fault::Damaged);
    assert_eq!(running.engine.txn(losing()).await, Err(RequestError::LeaderChanged));
    assert_eq!(running.engine.shared().integrity(), Integrity::Doubtful);
    running.stop().await.unwrap();
}
