//! Keys and values as Kubernetes has them, and the transactions of the API server.

use bytes::Bytes;
use skiff_datastore::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use skiff_datastore::proto::request_op::Request;
use skiff_datastore::proto::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Bytes of a value.
pub const VALUE_BYTES: usize = 1 << 10;

/// Where the keys are.
pub const PREFIX: &str = "/registry/pods/";
/// The end of their range.
pub const PREFIX_END: &str = "/registry/pods0";

/// The key of an object.
pub fn key(number: u64) -> Bytes {
    format!("{PREFIX}default/pod-{number:012}").into()
}

/// A value that compresses about as an object of Kubernetes does.
pub fn value(seed: u64) -> Bytes {
    let mut value = Vec::with_capacity(VALUE_BYTES + 32);
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while value.len() < VALUE_BYTES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        value.extend_from_slice(format!("field-{}: {random:x}; ", random % 10).as_bytes());
    }
    value.truncate(VALUE_BYTES);
    value.into()
}

/// Creates a key that must not be there.
pub fn create(key: Bytes, value: Bytes) -> TxnRequest {
    TxnRequest { failure: Vec::new(), ..update(key, value, 0) }
}

/// Writes a key that must be as it was at `revision`.
pub fn update(key: Bytes, value: Bytes, revision: i64) -> TxnRequest {
    let put = PutRequest { key: key.clone(), value, ..Default::default() };
    when(key, revision, Request::RequestPut(put))
}

/// Deletes a key that must be as it was at `revision`.
pub fn delete(key: Bytes, revision: i64) -> TxnRequest {
    let delete = DeleteRangeRequest { key: key.clone(), ..Default::default() };
    when(key, revision, Request::RequestDeleteRange(delete))
}

fn when(key: Bytes, revision: i64, request: Request) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    };
    let get = RangeRequest { key, ..Default::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(request) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
    }
}
