//! What is asked of both: random requests over few keys, so that they meet.
//!
//! Revisions in requests are stand-ins until they are sent, for a case does
//! not know at which revision it will run: see [`Moment`].

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use skiff_datastore::proto::compare::TargetUnion;
use skiff_datastore::proto::request_op::Request;
use skiff_datastore::proto::*;

/// One step of a case.
#[derive(Clone, Debug)]
pub enum Action {
    Range(RangeRequest),
    /// Put together, the messages are what is compared.
    RangeStream(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    KeepAlive(LeaseKeepAliveRequest),
    Leases,
    Alarm(AlarmRequest),
    /// On one of two streams.
    Watch(usize, WatchCreateRequest),
    CancelWatch(usize, WatchCancelRequest),
    /// Asks for progress, and waits for it where etcd answers.
    Progress(usize),
    /// Ours ends and starts again; etcd goes on.
    Restart,
    /// Nothing is asked until this key is gone.
    AwaitEnd(Bytes),
}

/// A stand-in for a revision: what it means when the newest is known.
pub struct Moment;

impl Moment {
    const BACK: i64 = 1 << 40;
    const AHEAD: i64 = 1 << 41;

    fn any() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => Just(0),
            6 => (0..12_i64).prop_map(|back| Moment::BACK + back),
            1 => (1..4_i64).prop_map(|ahead| Moment::AHEAD + ahead),
            1 => -3..0_i64,
            1 => 1..30_i64,
        ]
    }

    /// The revision that is meant.
    pub fn resolve(moment: &mut i64, newest: i64) {
        if *moment >= Moment::AHEAD {
            *moment = newest + (*moment - Moment::AHEAD);
        } else if *moment >= Moment::BACK {
            *moment = newest - (*moment - Moment::BACK);
        }
    }
}

/// A case.
pub fn history() -> impl Strategy<Value = Vec<Action>> {
    vec(action(), 1..60)
}

fn action() -> impl Strategy<Value = Action> {
    let alarm = (0..3_i32, 0..3_i32);
    prop_oneof![
        12 => range().prop_map(Action::Range),
        3 => range().prop_map(stream_of),
        16 => put().prop_map(Action::Put),
        5 => delete().prop_map(Action::Delete),
        16 => txn(3).prop_map(|txn| Action::Txn(harmless(txn))),
        2 => (Moment::any(), any::<bool>()).prop_map(|(revision, physical)| {
            Action::Compact(CompactionRequest { revision, physical })
        }),
        3 => (ttl(), lease()).prop_map(|(ttl, id)| Action::Grant(LeaseGrantRequest { ttl, id })),
        2 => lease().prop_map(|id| Action::Revoke(LeaseRevokeRequest { id })),
        2 => (lease(), any::<bool>()).prop_map(|(id, keys)| {
            Action::TimeToLive(LeaseTimeToLiveRequest { id, keys })
        }),
        1 => lease().prop_map(|id| Action::KeepAlive(LeaseKeepAliveRequest { id })),
        1 => Just(Action::Leases),
        1 => alarm.prop_map(|(alarm, action)| {
            // Never raised: with an alarm raised nothing else would be tried.
            let action = if action == 1 { 0 } else { action };
            Action::Alarm(AlarmRequest { action, member_id: 0, alarm })
        }),
        5 => (0..2_usize, watch()).prop_map(|(stream, watch)| Action::Watch(stream, watch)),
        1 => (0..2_usize, 0..4_i64).prop_map(|(stream, watch_id)| {
            Action::CancelWatch(stream, WatchCancelRequest { watch_id })
        }),
        1 => (0..2_usize).prop_map(Action::Progress),
        1 => Just(Action::Restart),
    ]
}

/// Few keys: prefixes of each other, the smallest of all, and none.
fn key() -> impl Strategy<Value = Bytes> {
    let keys: [&'static [u8]; 9] =
        [b"a", b"aa", b"ab", b"b", b"b\0", b"c", b"\0", b"\xff\xff", b""];
    (0..200_usize).prop_map(move |number| Bytes::from_static(keys[number % 25 % keys.len()]))
}

/// A key that is there, mostly.
fn some_key() -> impl Strategy<Value = Bytes> {
    key().prop_map(|key| if key.is_empty() { Bytes::from_static(b"a") } else { key })
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        2 => Just(Bytes::from_static(b"\0")),
        3 => key(),
        1 => Just(Bytes::from_static(b"zz")),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        6 => (0..4_usize).prop_map(|number| Bytes::from(["", "x", "y", "xy"][number])),
        // Some events, and some requests, are as large as limits allow.
        1 => (0..4_usize).prop_map(|number| Bytes::from(vec![b'v'; [100, 2000, 5000, 9000][number]])),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![Just(1_i64), Just(2), Just(-3)]
}

fn ttl() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(1000_i64), 2 => Just(2000), 1 => Just(3000), 1 => Just(9_000_000_001)]
}

fn sometimes_lease() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0_i64), 2 => lease(), 1 => Just(99)]
}

/// True now and then.
fn seldom() -> impl Strategy<Value = bool> {
    (0..6_u8).prop_map(|number| number == 5)
}

prop_compose! {
    fn range()(
        key in key(),
        range_end in range_end(),
        limit in prop_oneof![3 => Just(0_i64), 3 => 1..5_i64, 1 => -2..0_i64],
        revision in Moment::any(),
        sort_order in prop_oneof![12 => 0..3_i32, 1 => Just(7)],
        sort_target in prop_oneof![12 => 0..5_i32, 1 => Just(7)],
        flags in (any::<bool>(), seldom(), seldom()),
        filters in prop_oneof![
            3 => Just([0_i64; 4]),
            1 => [bound(), bound(), bound(), bound()],
        ],
    ) -> RangeRequest {
        let (serializable, keys_only, count_only) = flags;
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = filters;
        RangeRequest {
            key, range_end, limit, revision, sort_order, sort_target,
            serializable, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

/// Without a target alone, by which etcd sorts within each message.
fn stream_of(mut range: RangeRequest) -> Action {
    if range.sort_order == 0 && range.sort_target < 5 {
        range.sort_target = 0;
    }
    Action::RangeStream(range)
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0_i64), Moment::any()]
}

prop_compose! {
    fn put()(
        key in key(),
        value in value(),
        lease in sometimes_lease(),
        flags in (any::<bool>(), seldom(), seldom()),
        is_consistent in (0..8_u8),
    ) -> PutRequest {
        let (prev_kv, ignore_value, ignore_lease) = flags;
        // Contradictions are refused at once: a few of them will do.
        let consistent = is_consistent > 0;
        PutRequest {
            value: if ignore_value && consistent { Bytes::new() } else { value },
            lease: if ignore_lease && consistent { 0 } else { lease },
            key, prev_kv, ignore_value, ignore_lease,
        }
    }
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target_union = prop_oneof![
        3 => (0..4_i64).prop_map(TargetUnion::Version),
        3 => bound().prop_map(TargetUnion::CreateRevision),
        3 => bound().prop_map(TargetUnion::ModRevision),
        3 => value().prop_map(TargetUnion::Value),
        2 => sometimes_lease().prop_map(TargetUnion::Lease),
    ];
    (some_key(), range_end(), prop_oneof![12 => 0..4_i32, 1 => Just(9)], target_union, 0..16_i32)
        .prop_map(|(key, range_end, result, target_union, other)| {
            let fitting = match &target_union {
                TargetUnion::Version(_) => 0,
                TargetUnion::CreateRevision(_) => 1,
                TargetUnion::ModRevision(_) => 2,
                TargetUnion::Value(_) => 3,
                TargetUnion::Lease(_) => 4,
            };
            // Now and then target and value do not fit each other.
            let target = if other < 6 { other } else { fitting };
            Compare { result, target, key, range_end, target_union: Some(target_union) }
        })
}

fn txn(depth: u32) -> BoxedStrategy<TxnRequest> {
    let operations = || vec(operation(depth), 0..4);
    (vec(compare(), 0..3), operations(), operations())
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
        .boxed()
}

/// Without what ends a real etcd: a deletion of everything from a key on, and a
/// put of one of these keys, in one transaction. Any other deletion that covers
/// the key is refused as a duplicate. This one is done, and then etcd misses
/// what the put is to keep, or after a compaction the record itself.
fn harmless(mut txn: TxnRequest) -> TxnRequest {
    let mut puts = false;
    visit(&mut txn, &mut |request| puts |= matches!(request, Request::RequestPut(_)));
    visit(&mut txn, &mut |request| match request {
        Request::RequestDeleteRange(delete) if puts && delete.range_end == b"\0"[..] => {
            delete.range_end = Bytes::new();
        }
        _ => {}
    });
    txn
}

/// Shows each operation but the nested transactions, theirs in their place.
fn visit(txn: &mut TxnRequest, see: &mut dyn FnMut(&mut Request)) {
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut operation.request {
            Some(Request::RequestTxn(nested)) => visit(nested, see),
            Some(request) => see(request),
            None => {}
        }
    }
}

fn operation(depth: u32) -> BoxedStrategy<RequestOp> {
    let flat = prop_oneof![
        6 => range().prop_map(Request::RequestRange),
        8 => put().prop_map(Request::RequestPut),
        4 => delete().prop_map(Request::RequestDeleteRange),
    ];
    let request = if depth == 0 {
        flat.boxed()
    } else {
        prop_oneof![6 => flat, 1 => txn(depth - 1).prop_map(Request::RequestTxn)].boxed()
    };
    (request, 0..60_u8)
        .prop_map(|(request, none)| RequestOp { request: (none > 0).then_some(request) })
        .boxed()
}

prop_compose! {
    fn watch()(
        key in key(),
        range_end in range_end(),
        start_revision in Moment::any(),
        filters in vec(0..3_i32, 0..2),
        prev_kv in any::<bool>(),
        fragment in any::<bool>(),
        watch_id in prop_oneof![3 => Just(0_i64), 1 => 0..4_i64],
    ) -> WatchCreateRequest {
        WatchCreateRequest {
            key, range_end, start_revision, progress_notify: false, filters, prev_kv, watch_id,
            fragment,
        }
    }
}

/// Puts real revisions where the stand-ins are.
pub fn resolve(action: &mut Action, newest: i64) {
    match action {
        Action::Range(range) | Action::RangeStream(range) => resolve_range(range, newest),
        Action::Txn(txn) => resolve_txn(txn, newest),
        Action::Compact(compact) => Moment::resolve(&mut compact.revision, newest),
        Action::Watch(_, watch) => Moment::resolve(&mut watch.start_revision, newest),
        _ => {}
    }
}

fn resolve_range(range: &mut RangeRequest, newest: i64) {
    Moment::resolve(&mut range.revision, newest);
    Moment::resolve(&mut range.min_mod_revision, newest);
    Moment::resolve(&mut range.max_mod_revision, newest);
    Moment::resolve(&mut range.min_create_revision, newest);
    Moment::resolve(&mut range.max_create_revision, newest);
}

fn resolve_txn(txn: &mut TxnRequest, newest: i64) {
    for compare in &mut txn.compare {
        if let Some(TargetUnion::CreateRevision(moment) | TargetUnion::ModRevision(moment)) =
            &mut compare.target_union
        {
            Moment::resolve(moment, newest);
        }
    }
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut operation.request {
            Some(Request::RequestRange(range)) => resolve_range(range, newest),
            Some(Request::RequestTxn(nested)) => resolve_txn(nested, newest),
            _ => {}
        }
    }
}

/// A lease with three keys, watched until it ends, and what is left.
pub fn expiry() -> Vec<Action> {
    let (key, range_end) = (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
    let watch = WatchCreateRequest {
        key: key.clone(),
        range_end: range_end.clone(),
        prev_kv: true,
        ..Default::default()
    };
    let put = |key: &'static str, lease| {
        Action::Put(PutRequest { key: key.into(), lease, ..Default::default() })
    };
    vec![
        Action::Watch(0, watch),
        Action::Grant(LeaseGrantRequest { ttl: 2, id: 5 }),
        put("c", 5),
        put("a", 5),
        put("b", 5),
        put("d", 0),
        // It hangs on the lease no more.
        put("c", 0),
        Action::AwaitEnd("b".into()),
        Action::TimeToLive(LeaseTimeToLiveRequest { id: 5, keys: true }),
        Action::KeepAlive(LeaseKeepAliveRequest { id: 5 }),
        Action::Leases,
        Action::Range(RangeRequest { key, range_end, ..Default::default() }),
    ]
}
