//! What clients wish for, what they send for it, and what an answer says.

use skiff_datastore::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use skiff_datastore::proto::request_op::Request as Op;
use skiff_datastore::proto::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};

use crate::chance::Chance;
use crate::promises::{KEYS, key_name, number};
use crate::record::{Came, Wish};
use crate::register::Held;

/// The request that is sent for a wish.
#[derive(Clone, Debug)]
pub enum Call {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Range(RangeRequest),
}

/// A wish by chance; `known` is what the client believes that keys hold, and
/// `value` nobody has written before.
pub fn choose(chance: &mut Chance, known: &[Held], value: u64) -> Wish {
    let key = chance.within(0, KEYS as u64) as usize;
    let other = chance.within(0, KEYS as u64) as usize;
    match chance.within(0, 100) {
        0..30 => Wish::Put { keys: vec![key], value },
        30..40 if other != key => Wish::Put { keys: vec![key, other], value },
        40..60 => Wish::Swap { key, from: known[key], to: value },
        60..67 => Wish::Delete { key },
        _ => Wish::ReadAll,
    }
}

/// What a client learns from an answer about what keys hold.
pub fn learn(known: &mut [Held], wish: &Wish, came: &Came) {
    let Came::Done { swapped, read, .. } = came else { return };
    match wish {
        Wish::Put { keys, value } => keys.iter().for_each(|key| known[*key] = Some(*value)),
        Wish::Swap { key, to, .. } if *swapped => known[*key] = Some(*to),
        Wish::Delete { key } => known[*key] = None,
        Wish::ReadAll => known.copy_from_slice(read),
        Wish::Swap { .. } => {}
    }
}

impl Wish {
    /// What is sent for it.
    pub fn call(&self) -> Call {
        match self {
            Wish::Put { keys, value } if keys.len() == 1 => Call::Put(put(keys[0], *value)),
            Wish::Put { keys, value } => {
                let success = keys.iter().map(|key| write(*key, *value)).collect();
                Call::Txn(TxnRequest { success, ..TxnRequest::default() })
            }
            Wish::Delete { key } => Call::Delete(DeleteRangeRequest {
                key: key_name(*key).into(),
                ..DeleteRangeRequest::default()
            }),
            Wish::Swap { key, from, to } => Call::Txn(swap(*key, *from, *to)),
            Wish::ReadAll => Call::Range(RangeRequest {
                key: "key-".into(),
                range_end: "key.".into(),
                ..RangeRequest::default()
            }),
        }
    }
}

/// An answer, which says what came of a wish.
pub trait Answer {
    fn came(&self) -> Came;
}

impl Answer for PutResponse {
    fn came(&self) -> Came {
        done(self.header.as_ref(), true, Vec::new())
    }
}

impl Answer for DeleteRangeResponse {
    fn came(&self) -> Came {
        done(self.header.as_ref(), true, Vec::new())
    }
}

impl Answer for TxnResponse {
    fn came(&self) -> Came {
        done(self.header.as_ref(), self.succeeded, Vec::new())
    }
}

impl Answer for RangeResponse {
    fn came(&self) -> Came {
        let held = |key| {
            let name = key_name(key);
            let found = self.kvs.iter().find(|kv| kv.key == name.as_bytes());
            found.map(|kv| number(&kv.value))
        };
        done(self.header.as_ref(), true, (0..KEYS).map(held).collect())
    }
}

/// An answer without a header names no revision that could be right.
fn done(header: Option<&ResponseHeader>, swapped: bool, read: Vec<Held>) -> Came {
    Came::Done { revision: header.map_or(0, |header| header.revision), swapped, read }
}

fn put(key: usize, value: u64) -> PutRequest {
    let (key, value) = (key_name(key).into(), value.to_string().into());
    PutRequest { key, value, ..PutRequest::default() }
}

fn write(key: usize, value: u64) -> RequestOp {
    RequestOp { request: Some(Op::RequestPut(put(key, value))) }
}

fn swap(key: usize, from: Held, to: u64) -> TxnRequest {
    let (target, target_union) = match from {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.to_string().into())),
        None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
    };
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key: key_name(key).into(),
        target_union: Some(target_union),
        ..Compare::default()
    };
    TxnRequest { compare: vec![compare], success: vec![write(key, to)], failure: Vec::new() }
}
