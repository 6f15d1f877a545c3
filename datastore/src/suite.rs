//! What every store must do, as functions that a test calls with its own.
//!
//! Each case brings its own engine on a fresh store. A store that passes may
//! stand below a Kubernetes API server.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Running};
use crate::error::RequestError;
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    request_op,
};
use crate::record::{LeaseId, Revision};
use crate::shared::Limits;
use crate::store::{Base, Chunk, Fold, LogRow, Sequence, Store, StoreError};

/// Where one store lives: opens it again and again, as a process does that
/// restarts.
pub trait Place {
    /// The store under test.
    type Store: Store;

    /// Opens what is there; the former handle was closed.
    fn open(&self) -> impl Future<Output = Self::Store>;
}

/// Runs every case, each in an empty place from `fresh`.
pub async fn run_all<P: Place>(fresh: impl Fn() -> P) {
    an_empty_store_is_at_revision_one(fresh()).await;
    revisions_are_dense_under_concurrency(fresh()).await;
    acknowledged_writes_survive_a_restart(fresh()).await;
    compaction_hides_the_past_and_keeps_the_present(fresh()).await;
    folded_logs_read_back_the_same(fresh()).await;
    leases_survive_a_restart_with_their_keys(fresh()).await;
    a_deposed_writer_changes_nothing(fresh()).await;
    requests_without_sense_are_refused(fresh()).await;
    a_transaction_that_deletes_what_it_keeps_is_undone(fresh()).await;
}

async fn start(place: &impl Place) -> Running {
    Engine::start(place.open().await, Limits::default(), Instant::now)
        .await
        .expect("a store of the suite can be loaded")
}

async fn restart(running: Running, place: &impl Place) -> Running {
    running.stop().await.expect("the writer ends orderly");
    start(place).await
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn everything(engine: &Engine, revision: i64) -> Result<RangeResponse, RequestError> {
    engine.range(&RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        revision,
        ..Default::default()
    })
}

/// A store that was never written to answers revision 1.
pub async fn an_empty_store_is_at_revision_one(place: impl Place) {
    let running = start(&place).await;
    assert_eq!(running.engine.revision(), Revision(1));
    let running = restart(running, &place).await;
    assert_eq!(running.engine.revision(), Revision(1));
    let answer = running.engine.put(put("a", "1")).await.expect("an empty store takes writes");
    assert_eq!(answer.header.map(|header| header.revision), Some(2));
    running.stop().await.expect("the writer ends orderly");
}

/// Concurrent writers get every revision once, none is skipped, and writes
/// that compare on the same revision succeed once.
pub async fn revisions_are_dense_under_concurrency(place: impl Place) {
    let running = start(&place).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let wins = Arc::new(Mutex::new(0));
    let writers = (0..8).map(|writer| {
        let (engine, seen, wins) = (running.engine.clone(), seen.clone(), wins.clone());
        async move {
            for round in 0..25 {
                let key = format!("key-{writer}-{round}");
                let answer = engine.put(put(&key, "value")).await.expect("the put is in order");
                let revision = answer.header.expect("answers have headers").revision;
                seen.lock().expect("nobody panics holding it").push(revision);
            }
            let create = create_txn("contended", "value");
            let answer = engine.txn(create).await.expect("the transaction is in order");
            *wins.lock().expect("nobody panics holding it") += i32::from(answer.succeeded);
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(*wins.lock().expect("nobody panics holding it"), 1);
    let mut seen = seen.lock().expect("nobody panics holding it").clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 200, "every put has a revision of its own");
    assert_eq!(running.engine.revision(), Revision(202), "no revision was skipped");
    running.stop().await.expect("the writer ends orderly");
}

fn create_txn(key: &str, value: &str) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..Default::default()
    };
    let operation = RequestOp { request: Some(request_op::Request::RequestPut(put(key, value))) };
    TxnRequest { compare: vec![compare], success: vec![operation], failure: Vec::new() }
}

/// What was acknowledged is there after a restart, with the same numbers.
pub async fn acknowledged_writes_survive_a_restart(place: impl Place) {
    let running = start(&place).await;
    for round in 0..50 {
        let key = format!("key-{}", round % 7);
        running.engine.put(put(&key, &round.to_string())).await.expect("the put is in order");
    }
    let delete = DeleteRangeRequest { key: "key-3".into(), ..Default::default() };
    let deleted = running.engine.delete_range(delete).await.expect("the deletion is in order");
    assert_eq!(deleted.deleted, 1);
    let before: Vec<_> = (2..=52).map(|at| everything(&running.engine, at)).collect();
    let running = restart(running, &place).await;
    let after: Vec<_> = (2..=52).map(|at| everything(&running.engine, at)).collect();
    for (before, after) in before.into_iter().zip(after) {
        let before = before.expect("the revision is readable");
        let after = after.expect("the revision is readable");
        assert_eq!((before.kvs, before.count), (after.kvs, after.count));
    }
    running.stop().await.expect("the writer ends orderly");
}

/// Compacted revisions can't be read, later ones can, after a restart too.
pub async fn compaction_hides_the_past_and_keeps_the_present(place: impl Place) {
    let running = start(&place).await;
    for round in 0..10 {
        running.engine.put(put("a", &round.to_string())).await.expect("the put is in order");
    }
    let engine = &running.engine;
    assert_eq!(engine.compact(Revision(12)).await, Err(RequestError::FutureRevision));
    assert_eq!(engine.compact(Revision(6)).await, Ok(Revision(11)));
    assert_eq!(engine.compact(Revision(6)).await, Err(RequestError::Compacted));
    assert_eq!(everything(engine, 5).map(|_| ()), Err(RequestError::Compacted));
    let running = restart(running, &place).await;
    let engine = &running.engine;
    assert_eq!(everything(engine, 5).map(|_| ()), Err(RequestError::Compacted));
    for at in 6..=11 {
        let answer = everything(engine, at).expect("the revision is readable");
        assert_eq!(answer.kvs[0].mod_revision, at);
    }
    assert_eq!(engine.compact(Revision(5)).await, Err(RequestError::Compacted));
    running.stop().await.expect("the writer ends orderly");
}

/// Folding the log into chunks changes no answer and shortens the log.
pub async fn folded_logs_read_back_the_same(place: impl Place) {
    let running = start(&place).await;
    // It does not shrink, so that there is something to fold.
    let noise = |round: u32| {
        (1..80_u32).map(move |at| format!("{:x}", (round * 80 + at).wrapping_mul(0x9e37_79b9)))
    };
    for round in 0..2000_u32 {
        // Many are overwritten, some are deleted, some stay alone.
        let key = format!("key-{:05}", round.wrapping_mul(7919) % 900);
        if round % 11 == 0 {
            let request = DeleteRangeRequest { key: key.into(), ..Default::default() };
            running.engine.delete_range(request).await.expect("the deletion is in order");
        } else {
            let value = format!("{round}-{}", noise(round).collect::<String>());
            running.engine.put(put(&key, &value)).await.expect("the put is in order");
        }
        if round % 600 == 599 {
            let revision = Revision(running.engine.revision().0 - 20);
            running.engine.compact(revision).await.expect("the compaction is in order");
        }
    }
    // Some more, which stay behind the base.
    for round in 0..50 {
        running.engine.put(put("late", &round.to_string())).await.expect("the put is in order");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let head = running.engine.revision().0;
    let before = everything(&running.engine, 0).expect("the newest revision is readable");
    let older = everything(&running.engine, head - 30).expect("the revision is readable");
    running.stop().await.expect("the writer ends orderly");

    let mut store = place.open().await;
    let opened = store.open().await.expect("the store can be claimed");
    assert!(opened.base.sequence > Sequence(0), "the base was advanced");
    let chunks = store.read_chunks(None).await.expect("chunks can be read");
    assert!(!chunks.is_empty(), "chunks were written");
    store.close().await;
    drop(store);

    let running = start(&place).await;
    let after = everything(&running.engine, 0).expect("the newest revision is readable");
    assert_eq!(before.kvs, after.kvs);
    assert_eq!(older.kvs, everything(&running.engine, head - 30).expect("readable").kvs);
    running.stop().await.expect("the writer ends orderly");
}

/// A lease is there after a restart; ending it deletes exactly its keys.
pub async fn leases_survive_a_restart_with_their_keys(place: impl Place) {
    let running = start(&place).await;
    let engine = &running.engine;
    assert_eq!(engine.grant(LeaseId(7), 1000).await, Ok((1000, Revision(1))));
    assert_eq!(engine.grant(LeaseId(7), 1000).await, Err(RequestError::LeaseExists));
    for key in ["a", "b", "c"] {
        let request = PutRequest { lease: 7, ..put(key, "leased") };
        engine.put(request).await.expect("the lease exists");
    }
    engine.put(put("b", "free again")).await.expect("the put is in order");
    let unknown = PutRequest { lease: 8, ..put("d", "leased") };
    assert_eq!(engine.put(unknown).await, Err(RequestError::LeaseNotFound));
    let running = restart(running, &place).await;
    let engine = &running.engine;
    assert_eq!(engine.renew(LeaseId(7)).await, Ok(Some(1000)));
    let before = engine.revision();
    assert_eq!(engine.revoke(LeaseId(7)).await, Ok(before.next()));
    let left = everything(engine, 0).expect("the newest revision is readable").kvs;
    assert_eq!(left.iter().map(|kv| kv.key.as_ref()).collect::<Vec<_>>(), [b"b"]);
    assert_eq!(engine.revoke(LeaseId(7)).await, Err(RequestError::LeaseNotFound));
    running.stop().await.expect("the writer ends orderly");
}

/// A writer whose store was claimed by another one can do no harm.
pub async fn a_deposed_writer_changes_nothing(place: impl Place) {
    let mut store = place.open().await;
    store.open().await.expect("the store can be claimed");
    let row = LogRow {
        sequence: Sequence(5),
        first: Revision(2),
        last: Revision(1),
        data: crate::batch::Encoder::default().finish(),
    };
    let gap = store.append(&row).await;
    assert!(matches!(gap, Err(StoreError::Deposed { .. })), "a gap in the log: {gap:?}");
    let row = LogRow { sequence: Sequence(1), ..row };
    store.append(&row).await.expect("the row follows");
    let again = store.append(&row).await;
    assert!(matches!(again, Err(StoreError::Deposed { .. })), "a row twice: {again:?}");
    let found = store.read_log(Sequence(0)).await.expect("the log can be read");
    assert_eq!(found, [row]);
    store.fold(&Fold::Trim { rows_max: 10 }).await.expect("trimming is in order");
    assert_eq!(store.read_log(Sequence(0)).await.expect("the log can be read").len(), 1);
    store.close().await;
}

/// Of two writers of one store the one that claimed it last writes. The other one
/// can do nothing, even where its row would fit, nor prove that it is the newest.
pub async fn a_writer_that_was_replaced_changes_nothing<S: Store>([mut former, mut next]: [S; 2]) {
    let row = |sequence| LogRow {
        sequence: Sequence(sequence),
        first: Revision(2),
        last: Revision(1),
        data: crate::batch::Encoder::default().finish(),
    };
    former.open().await.expect("the store can be claimed");
    former.append(&row(1)).await.expect("the row follows");
    former.barrier().await.expect("it is the newest");
    next.open().await.expect("the store can be claimed again");
    let fits = former.append(&row(2)).await;
    let refused = matches!(fits, Err(StoreError::Deposed { .. }));
    assert!(refused, "a row of a writer that was replaced: {fits:?}");
    let proof = former.barrier().await;
    assert!(matches!(proof, Err(StoreError::Deposed { .. })), "a barrier of it: {proof:?}");
    let base = Base { sequence: Sequence(1), revision: Revision(1), data: Vec::new() };
    let chunk = Chunk { first_key: "a".into(), data: b"chunk".to_vec() };
    for fold in [
        Fold::Merge { from: Sequence(1), row: LogRow { data: b"other".to_vec(), ..row(1) } },
        Fold::Chunks { put: vec![chunk], remove: Vec::new() },
        Fold::Advance(base),
        Fold::Trim { rows_max: 10 },
    ] {
        // Whether it is told so or not.
        let _ = former.fold(&fold).await;
        assert_eq!(next.read_log(Sequence(0)).await.expect("the log can be read"), [row(1)]);
        assert!(next.read_chunks(None).await.expect("chunks can be read").is_empty(), "{fold:?}");
    }
    next.append(&row(2)).await.expect("the row follows");
    former.close().await;
    next.close().await;
}

/// Requests that make no sense are refused with the error that names why.
pub async fn requests_without_sense_are_refused(place: impl Place) {
    let running = start(&place).await;
    let engine = &running.engine;
    let refused = |result: Result<RangeResponse, RequestError>| result.expect_err("it is refused");
    assert_eq!(refused(everything(engine, 99)), RequestError::FutureRevision);
    assert_eq!(refused(engine.range(&RangeRequest::default())), RequestError::EmptyKey);
    assert_eq!(engine.put(put("", "x")).await, Err(RequestError::EmptyKey));
    let large = put("a", &"x".repeat(2 << 20));
    assert_eq!(engine.put(large).await, Err(RequestError::TooLarge));
    let ignore = PutRequest { key: "a".into(), ignore_value: true, ..Default::default() };
    assert_eq!(engine.put(ignore).await, Err(RequestError::KeyNotFound));
    assert_eq!(engine.grant(LeaseId(1), i64::MAX).await, Err(RequestError::LeaseTtlTooLarge));
    assert_eq!(engine.revision(), Revision(1), "nothing was written");
    running.stop().await.expect("the writer ends orderly");
}

/// A put can't keep the value of what the same transaction deletes; nothing of
/// the transaction stays.
pub async fn a_transaction_that_deletes_what_it_keeps_is_undone(place: impl Place) {
    let running = start(&place).await;
    running.engine.put(put("c", "kept")).await.expect("the put is in order");
    let rest = DeleteRangeRequest { key: "a".into(), range_end: "\0".into(), ..Default::default() };
    for (ignore_value, ignore_lease) in [(true, false), (false, true)] {
        let keep = PutRequest { key: "c".into(), ignore_value, ignore_lease, ..Default::default() };
        let operations = [
            request_op::Request::RequestDeleteRange(rest.clone()),
            request_op::Request::RequestPut(keep),
        ];
        let success = operations.map(|request| RequestOp { request: Some(request) }).into();
        let transaction = TxnRequest { success, ..Default::default() };
        assert_eq!(running.engine.txn(transaction).await, Err(RequestError::KeyNotFound));
    }
    assert_eq!(running.engine.revision(), Revision(2), "no revision was left behind");
    let found = everything(&running.engine, 0).expect("the store answers");
    assert_eq!(found.kvs[0].value, "kept");
    let running = restart(running, &place).await;
    assert_eq!(everything(&running.engine, 0).expect("the store answers").kvs, found.kvs);
    running.stop().await.expect("the writer ends orderly");
}
