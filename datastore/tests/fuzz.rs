//! Messages that no sane client sends: bytes, and fields with values from the
//! edges. The datastore answers each, or refuses it, and serves the next.
//!
//! `SKIFF_TEST_FUZZ_CASES=N` says how many; the seed is printed by a failure.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod home;

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use home::Home;
use http::uri::PathAndQuery;
use proptest::prelude::*;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

/// Every method, those with a stream from the client included.
const METHODS: [&str; 18] = [
    "KV/Range",
    "KV/RangeStream",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "KV/Compact",
    "Watch/Watch",
    "Lease/LeaseGrant",
    "Lease/LeaseRevoke",
    "Lease/LeaseKeepAlive",
    "Lease/LeaseTimeToLive",
    "Lease/LeaseLeases",
    "Cluster/MemberList",
    "Maintenance/Alarm",
    "Maintenance/Status",
    "Maintenance/Defragment",
    "Maintenance/HashKV",
    "Maintenance/Snapshot",
];
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A stream is read so far: a watch would go on for ever.
const ANSWERS_MAX: usize = 3;
/// How long a stream may be silent.
const SILENCE: Duration = Duration::from_millis(5);

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// A message: fields with numbers that are in use, in any order and number,
/// each of any kind; some are messages themselves.
fn message(depth: u32) -> BoxedStrategy<Vec<u8>> {
    prop::collection::vec(field(depth), 0..6).prop_map(|fields| fields.concat()).boxed()
}

fn field(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let number = prop_oneof![12 => 1..14_u64, 1 => Just(64_u64), 1 => any::<u64>()];
    let edge = prop_oneof![
        4 => 0..6_u64,
        1 => Just(i64::MAX as u64),
        1 => Just(i64::MIN as u64),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ];
    let varint = edge.prop_map(|value| (0_u64, varint(value)));
    let bytes = prop_oneof![
        4 => prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(0xff)], 0..3),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(vec![b'x'; 70_000]),
    ];
    let inner = if depth == 0 {
        bytes.boxed()
    } else {
        prop_oneof![1 => bytes, 2 => message(depth - 1)].boxed()
    };
    let delimited =
        inner.prop_map(|bytes| (2_u64, [self::varint(bytes.len() as u64), bytes].concat()));
    let fixed = any::<u64>().prop_map(|value| (1_u64, value.to_le_bytes().to_vec()));
    (number, prop_oneof![5 => varint, 6 => delimited, 1 => fixed])
        .prop_map(|(number, (kind, value))| [self::varint((number << 3) | kind), value].concat())
        .boxed()
}

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

/// Mostly messages, now and then bytes that are none.
fn request() -> impl Strategy<Value = (usize, Vec<Vec<u8>>)> {
    let bytes = prop_oneof![8 => message(3), 1 => prop::collection::vec(any::<u8>(), 0..60)];
    (0..METHODS.len(), prop::collection::vec(bytes, 1..4))
}

async fn send(home: &Home, method: &str, messages: Vec<Vec<u8>>) -> Result<(), Status> {
    let path = PathAndQuery::try_from(format!("/etcdserverpb.{method}")).unwrap();
    let mut client =
        tonic::client::Grpc::new(home.channel.clone()).max_decoding_message_size(usize::MAX);
    client.ready().await.unwrap();
    let is_stream = ["Watch/Watch", "Lease/LeaseKeepAlive"].contains(&method);
    let count = if is_stream { messages.len() } else { 1 };
    let messages = messages.into_iter().take(count).map(Bytes::from);
    let requests = futures::stream::iter(messages);
    let call = client.streaming(Request::new(requests), path, Raw);
    let mut answers = call.await?.into_inner();
    for _ in 0..ANSWERS_MAX {
        match tokio::time::timeout(SILENCE, answers.message()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) | Err(_) => break,
            Ok(Err(status)) => return Err(status),
        }
    }
    Ok(())
}

#[test]
fn every_message_is_answered_or_refused() {
    let cases = std::env::var("SKIFF_TEST_FUZZ_CASES").ok();
    let cases = cases.map_or(1500, |cases| cases.parse().expect("a number of cases"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = runtime.block_on(Home::new());
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let mut refused = std::collections::BTreeMap::<String, u32>::new();
    let counts = std::cell::RefCell::new(&mut refused);
    proptest!(config, |((method, messages) in request())| {
        let method = METHODS[method];
        let answer = runtime.block_on(async {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, send(&home, method, messages)).await;
            let answer = answer.expect("an answer comes in time");
            // A writer that ended would be seen here at the latest.
            let next = tokio::time::timeout(ANSWER_TIMEOUT, home.kv().put(next())).await;
            next.expect("the next one is served").expect("and answered");
            answer
        });
        let code = answer.as_ref().map_or_else(Status::code, |()| Code::Ok);
        *counts.borrow_mut().entry(format!("{code:?}")).or_default() += 1;
        // Never "unknown", the code of an error that nobody thought of.
        prop_assert!(code != Code::Unknown && code != Code::Cancelled, "{method}: {answer:?}");
    });
    println!("{refused:?}");
    // The messages are not so mad that all are refused for the same reason.
    for code in ["Ok", "InvalidArgument", "OutOfRange", "NotFound", "Internal"] {
        assert!(refused.contains_key(code), "no message was answered by {code}: {refused:?}");
    }
}

fn next() -> skiff_datastore::proto::PutRequest {
    skiff_datastore::proto::PutRequest { key: "next".into(), ..Default::default() }
}
